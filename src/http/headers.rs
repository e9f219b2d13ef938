//! The headers that a response must carry for its session, as values. This module depends on no server and no session.
use std::borrow::Cow;
use std::ops::Deref;
use std::{array, fmt, iter, slice};

/// The name and value of a header. Only a `Set-Cookie` with a token has a value of its own; all other values are
/// constants.
type Pair = (&'static str, Cow<'static, str>);

/// The largest number of headers: a `Vary`, a `Set-Cookie` and a `Cache-Control`.
const PAIRS_MAX: usize = 3;

/// The headers that a response must carry: at most one each of `Vary`, `Set-Cookie` and `Cache-Control`.
///
/// [`apply_to`](Self::apply_to) adds them to the response's own. If the server's header type does not fit `apply_to`,
/// the program reads these headers as a slice of pairs, or iterates over them. The program then appends `Vary` and
/// `Set-Cookie`. If a `Cache-Control` is among these headers, the program first removes the response's own, unless that
/// is `no-store`. `Debug` shows no cookie, so the headers may be logged.
///
/// ```
/// # use sessile::{Cookies, FileStore, Sessions};
/// # let dir = tempfile::tempdir()?;
/// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
/// let mut visit = sessions.visit("theme=dark");
/// visit.insert("cart", ["apple"])?;
/// let headers = visit.finish(200)?;
/// let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
/// assert_eq!(names, ["Vary", "Set-Cookie", "Cache-Control"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    /// The headers. Those after the first `len` are empty.
    pairs: [Pair; PAIRS_MAX],
    len: usize,
}

impl Headers {
    /// Adds a header. Each name occurs at most once.
    pub(super) fn push(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.pairs[self.len] = (name, value.into());
        self.len += 1;
    }

    /// Adds these headers to those of a response. The response's own `Vary` and `Set-Cookie` lines stay.
    ///
    /// The response's own `Cache-Control` lines stay if the session was not used. Otherwise one line replaces them:
    /// `no-store` if these headers or the response say so; the response's own if it says `private` and not `public`;
    /// else `private`, with `no-cache` if the response says that or `max-age=0`. So no shared cache keeps a page of one
    /// visitor, whatever the handler or a default of the program says, and a stricter line of the handler stays.
    ///
    /// ```
    /// # use sessile::{Cookies, FileStore, Sessions};
    /// # let dir = tempfile::tempdir()?;
    /// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
    /// let mut response: Vec<(String, String)> = vec![("Cache-Control".into(), "public, max-age=3600".into())];
    /// let mut visit = sessions.visit("theme=dark");
    /// visit.insert("cart", ["apple"])?;
    /// visit.finish(200)?.apply_to(&mut response);
    /// let names: Vec<_> = response.iter().map(|(name, _)| &**name).collect();
    /// assert_eq!(names, ["Vary", "Set-Cookie", "Cache-Control"]);
    /// assert_eq!(response[2].1, "no-store");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply_to<N, V>(self, response: &mut Vec<(N, V)>)
    where
        N: AsRef<str> + From<&'static str>,
        V: AsRef<str> + From<Cow<'static, str>>,
    {
        for (name, mut value) in self {
            if name == CACHE_CONTROL {
                let lines = response.iter().filter(|(name, _)| is_cache_control(name.as_ref()));
                let theirs: Vec<_> = lines.map(|(_, value)| value.as_ref()).collect();
                value = stricter(value, &theirs.join(", "));
                response.retain(|(name, _)| !is_cache_control(name.as_ref()));
            }
            response.push((name.into(), value.into()));
        }
    }
}

pub(super) const CACHE_CONTROL: &str = "Cache-Control";

pub(super) fn is_cache_control(name: &str) -> bool {
    name.eq_ignore_ascii_case(CACHE_CONTROL)
}

/// The stricter value of `Cache-Control`: of `ours` (`private` or `no-store`) and `theirs`, all lines of the response.
fn stricter(ours: Cow<'static, str>, theirs: &str) -> Cow<'static, str> {
    let says = |directive: &str| theirs.split(',').any(|one| one.trim().eq_ignore_ascii_case(directive));
    // `private="…"` applies to some header fields only. Inside of quotes, a comma does not separate directives, so such
    // a value is not examined.
    let is_private = says("private") && !says("public") && !theirs.contains('"');
    if says("no-store") {
        "no-store".into()
    } else if ours == "private" && is_private {
        theirs.to_owned().into()
    } else if ours == "private" && (says("no-cache") || says("max-age=0")) {
        "private, no-cache".into()
    } else {
        ours
    }
}

impl Deref for Headers {
    type Target = [(&'static str, Cow<'static, str>)];
    fn deref(&self) -> &[Pair] {
        &self.pairs[..self.len]
    }
}

impl IntoIterator for Headers {
    type Item = (&'static str, Cow<'static, str>);
    type IntoIter = iter::Take<array::IntoIter<Pair, PAIRS_MAX>>;
    fn into_iter(self) -> Self::IntoIter {
        self.pairs.into_iter().take(self.len)
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a (&'static str, Cow<'static, str>);
    type IntoIter = slice::Iter<'a, Pair>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Headers {}

impl<const N: usize> PartialEq<[(&'static str, Cow<'static, str>); N]> for Headers {
    fn eq(&self, other: &[Pair; N]) -> bool {
        **self == *other
    }
}

impl PartialEq<Vec<(&'static str, Cow<'static, str>)>> for Headers {
    fn eq(&self, other: &Vec<Pair>) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| match *name {
            "Set-Cookie" => (name, Cow::Owned(format!("({} bytes, secret)", value.len()))),
            _ => (name, Cow::Borrowed(&**value)),
        });
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: &'static str, theirs: &[&str], want: &str) {
        let mut headers = Headers::default();
        headers.push("Vary", "Cookie");
        headers.push("Cache-Control", ours);
        let own = theirs.iter().map(|value| ("cache-control".to_owned(), (*value).to_owned()));
        let kept = [("Vary".to_owned(), "Accept".to_owned()), ("Set-Cookie".to_owned(), "a=b".to_owned())];
        let mut response: Vec<_> = own.chain(kept.clone()).collect();
        headers.apply_to(&mut response);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let ours = [pair("Vary", "Cookie"), pair("Cache-Control", want)];
        assert_eq!(response, kept.into_iter().chain(ours).collect::<Vec<_>>(), "beside {theirs:?}");
    }

    #[test]
    fn a_shared_cache_is_never_allowed_and_the_stricter_wins() {
        for theirs in [
            &[][..],
            &["public"],
            &["public, max-age=3600"],
            &["max-age=60"],
            &["s-maxage=60", "immutable"],
            &["PUBLIC", "private"],
            &["public, private"],
            &["private=\"x\""],
            &["x=\", private, \""],
            &["stale-while-revalidate=9"],
            &["privately"],
            &["x-no-store"],
        ] {
            check("private", theirs, "private");
            check("no-store", theirs, "no-store");
        }
        for theirs in [&["no-store"][..], &["public", "No-Store"], &["max-age=0,no-store"]] {
            check("private", theirs, "no-store");
            check("no-store", theirs, "no-store");
        }
        for theirs in [&["no-cache"][..], &["public, no-cache"], &["max-age=0"], &["public", "max-age=0"]] {
            check("private", theirs, "private, no-cache");
            check("no-store", theirs, "no-store");
        }
        check("private", &["private, max-age=60"], "private, max-age=60");
        check("private", &["max-age=60", "Private"], "max-age=60, Private");
        check("no-store", &["private, max-age=60"], "no-store");
    }

    #[test]
    fn without_a_cache_control_of_ours_the_handlers_stays() {
        let mut headers = Headers::default();
        headers.push("Vary", "Cookie");
        let mut response: Vec<(Cow<'static, str>, Cow<'static, str>)> =
            vec![("Cache-Control".into(), "public".into())];
        headers.apply_to(&mut response);
        assert_eq!(response[0].1, "public");
        assert_eq!(response.len(), 2);
    }
}
