//! The headers that a response must carry for its session, as values. Knows no server and no session.
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// The headers to append to a response: at most one each of `Vary`, `Set-Cookie` and `Cache-Control`.
///
/// Read it as a slice of pairs, or iterate over it. Its `Debug` shows no cookie, so that it may be logged.
///
/// ```
/// # use sessile::{Cookies, FileStore, Sessions};
/// # let dir = tempfile::tempdir()?;
/// # let sessions = Sessions::new(FileStore::open(dir.path())?, Cookies::plain_http())?;
/// let mut visit = sessions.visit("theme=dark");
/// visit.insert("cart", ["apple"])?;
/// let mut response: Vec<(String, String)> = vec![("Content-Type".into(), "text/plain".into())];
/// for (name, value) in visit.finish(200)? {
///     response.push((name.into(), value));
/// }
/// # assert_eq!(response.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(&'static str, String)>);

impl Headers {
    pub(super) fn push(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }
}

impl Deref for Headers {
    type Target = [(&'static str, String)];
    fn deref(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

impl IntoIterator for Headers {
    type Item = (&'static str, String);
    type IntoIter = std::vec::IntoIter<(&'static str, String)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a (&'static str, String);
    type IntoIter = std::slice::Iter<'a, (&'static str, String)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<const N: usize> PartialEq<[(&'static str, String); N]> for Headers {
    fn eq(&self, other: &[(&'static str, String); N]) -> bool {
        self.0 == other
    }
}

impl PartialEq<Vec<(&'static str, String)>> for Headers {
    fn eq(&self, other: &Vec<(&'static str, String)>) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| match *name {
            "Set-Cookie" => (name, Cow::Owned(format!("({} bytes, secret)", value.len()))),
            _ => (name, Cow::Borrowed(value.as_str())),
        });
        f.debug_map().entries(shown).finish()
    }
}
