//! The session's cookie: reads tokens from `Cookie` headers, and makes `Set-Cookie` headers.
//!
//! The crate `cookie` formats the headers. Reading is done here, because the bytes that count as white space around a
//! name decide which cookie it is. The attributes are checked here too, each alone and against each other, once, when
//! [`Sessions`](super::Sessions) is built.
use crate::error::{Error, ErrorKind, Result};
use crate::id::Token;
use cookie::time::{Duration as Span, OffsetDateTime};
use cookie::{Cookie, CookieBuilder};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which cross-site requests a browser sends the cookie with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// The cookie is sent with no cross-site request.
    Strict,
    /// The cookie is sent with navigations of the whole page by a safe method (GET), and with no other cross-site
    /// request.
    #[default]
    Lax,
    /// The cookie is sent with all cross-site requests. Browsers demand `Secure` then.
    None,
}

/// The cookie that carries the token: its name and attributes.
///
/// There is no default: a program must say whether it is reached by HTTPS. `HttpOnly` is always set.
///
/// ```
/// use sessile::{Cookies, SameSite};
/// let cookies = Cookies::https().same_site(SameSite::Strict);
/// # let _ = cookies;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookies {
    name: String,
    secure: bool,
    same_site: SameSite,
    path: String,
    domain: Option<String>,
    partitioned: bool,
}

/// The largest number of bytes of name and value together. Browsers may drop longer cookies (RFC 6265bis section 5.6).
const BYTES_MAX: usize = 4096;
/// The largest number of bytes of a name. It leaves room for the longest token.
const NAME_BYTES_MAX: usize = 128;

impl Cookies {
    /// For sites reached by HTTPS: Secure, named `__Host-session`. The `__Host-` prefix makes browsers refuse a cookie
    /// of this name from a subdomain or from plain HTTP; with a [`domain`](Self::domain) or [`path`](Self::path) it
    /// becomes `__Secure-`.
    ///
    /// ```
    /// assert_eq!(sessile::Cookies::https().full_name(), "__Host-session");
    /// ```
    #[must_use]
    pub fn https() -> Self {
        Self { secure: true, ..Self::plain_http() }
    }

    /// For development by plain HTTP: not Secure, named `session`. An eavesdropper on the network can take over the
    /// session.
    ///
    /// ```
    /// assert_eq!(sessile::Cookies::plain_http().full_name(), "session");
    /// ```
    #[must_use]
    pub fn plain_http() -> Self {
        Self {
            name: "session".into(),
            secure: false,
            same_site: SameSite::default(),
            path: "/".into(),
            domain: None,
            partitioned: false,
        }
    }

    /// The name, without prefix: 1 to 128 bytes of an RFC 9110 token; default `session`.
    ///
    /// ```
    /// let cookies = sessile::Cookies::https().name("shop");
    /// assert_eq!(cookies.full_name(), "__Host-shop");
    /// ```
    #[doc(alias = "SESSION_COOKIE_NAME")]
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The cross-site requests on which the cookie is sent; default [`SameSite::Lax`].
    ///
    /// ```
    /// use sessile::{Cookies, SameSite};
    /// let cookies = Cookies::https().same_site(SameSite::Strict);
    /// # let _ = cookies;
    /// ```
    #[doc(alias = "SESSION_COOKIE_SAMESITE")]
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Limits the cookie to URLs below this path; default `/`. The path is no protection, because other paths of the
    /// site can read the cookie.
    ///
    /// ```
    /// let cookies = sessile::Cookies::https().path("/shop");
    /// assert_eq!(cookies.full_name(), "__Secure-session"); // a `__Host-` cookie has the path `/`
    /// ```
    #[doc(alias = "SESSION_COOKIE_PATH")]
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Extends the cookie to subdomains of this domain; default: this host only.
    ///
    /// ```
    /// let cookies = sessile::Cookies::https().domain("example.org");
    /// assert_eq!(cookies.full_name(), "__Secure-session"); // a `__Host-` cookie has no domain
    /// ```
    #[doc(alias = "SESSION_COOKIE_DOMAIN")]
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Whether each site that embeds this one has a cookie jar of its own (CHIPS); default no. Needs HTTPS.
    ///
    /// ```
    /// let cookies = sessile::Cookies::https().partitioned(true);
    /// # let _ = cookies;
    /// ```
    #[must_use]
    pub fn partitioned(mut self, yes: bool) -> Self {
        self.partitioned = yes;
        self
    }

    /// The name that is sent, with the prefix that the attributes allow.
    ///
    /// ```
    /// assert_eq!(sessile::Cookies::https().full_name(), "__Host-session");
    /// ```
    #[must_use]
    pub fn full_name(&self) -> String {
        let prefix = match (self.secure, self.path == "/" && self.domain.is_none()) {
            (false, _) => "",
            (true, true) => "__Host-",
            (true, false) => "__Secure-",
        };
        format!("{prefix}{}", self.name)
    }

    /// Refuses malformed attributes, and those that contradict each other.
    pub(super) fn check(&self) -> Result<()> {
        let reason = if !is_token(&self.name) || self.name.len() > NAME_BYTES_MAX {
            "the name must be 1 to 128 letters, digits or !#$%&'*+-.^_`|~"
        } else if has_prefix(&self.name) {
            "the name has a prefix (`__Host-` or the like): leave it out, it is added where the attributes allow it"
        } else if !self.path.starts_with('/') || !is_attribute(&self.path) {
            "the path must begin with `/`, and hold no control character, `;` or non-ASCII character"
        } else if self.domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            "the domain must be a host name: letters, digits, `-`, single dots between them"
        } else if self.same_site == SameSite::None && !self.secure {
            "SameSite=None needs HTTPS: browsers refuse such a cookie without Secure"
        } else if self.partitioned && !self.secure {
            "Partitioned needs HTTPS: browsers refuse such a cookie without Secure"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, "set up the session cookie").with_reason(reason))
    }
}

/// The checked cookie settings, with the full name.
#[derive(Debug)]
pub(super) struct Jar {
    cookies: Cookies,
    name: String,
}

impl Jar {
    pub(super) fn new(cookies: Cookies) -> Result<Self> {
        cookies.check()?;
        let name = cookies.full_name();
        Ok(Self { cookies, name })
    }

    /// The name of the cookie, with its prefix.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The tokens under the session's name in a `Cookie` header, in their order; `None` for a value that cannot be a
    /// token.
    pub(super) fn tokens<'h>(&'h self, header: &'h str) -> Tokens<'h> {
        Tokens { name: self.name.as_bytes(), rest: Some(header.as_bytes()) }
    }

    /// The header that gives the browser a token: for the time that `until` says, or without `until` until the browser
    /// closes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CookieTooLarge`] if browsers would drop the cookie.
    pub(super) fn set(&self, token: &Token, until: Option<(Duration, SystemTime)>) -> Result<String> {
        let bytes = self.name.len() + token.expose().len();
        if bytes > BYTES_MAX {
            let reason = format!("name and value have {bytes} bytes, where browsers accept {BYTES_MAX}");
            return Err(Error::new(ErrorKind::CookieTooLarge, "set the session cookie").with_reason(reason));
        }
        let mut cookie = self.build(token.expose());
        if let Some((left, deadline)) = until {
            cookie = cookie.max_age(whole_seconds(left)).expires(date(deadline));
        }
        Ok(cookie.build().to_string())
    }

    /// The header that removes the cookie. It has the attributes with which the cookie was set, because a browser
    /// removes a cookie only if its domain and path are the same.
    pub(super) fn removal(&self) -> String {
        self.build("").max_age(Span::ZERO).expires(OffsetDateTime::UNIX_EPOCH).build().to_string()
    }

    fn build<'c>(&'c self, value: &'c str) -> CookieBuilder<'c> {
        let Cookies { secure, same_site, path, domain, partitioned, .. } = &self.cookies;
        let mut cookie = Cookie::build((&*self.name, value))
            .http_only(true)
            .secure(*secure)
            .path(path)
            .partitioned(*partitioned)
            .same_site(match same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            });
        if let Some(domain) = domain {
            cookie = cookie.domain(domain);
        }
        cookie
    }
}

/// The iterator of [`Jar::tokens`], which reads the header's bytes once.
pub(super) struct Tokens<'h> {
    name: &'h [u8],
    /// The part of the header that was not read yet; `None` after the last pair.
    rest: Option<&'h [u8]>,
}

impl Iterator for Tokens<'_> {
    type Item = Option<Token>;

    fn next(&mut self) -> Option<Option<Token>> {
        while let Some(pairs) = self.rest {
            let Some(value) = value_of(self.name, pairs) else {
                self.rest = split(pairs).1;
                continue;
            };
            // The value is usually an id, whose length is known, so its end need not be searched for.
            if let Some((id, rest @ ([] | [b';', ..]))) = Token::split_id(value) {
                self.rest = rest.get(1..);
                return Some(Some(id));
            }
            let (value, rest) = split(value);
            self.rest = rest;
            return Some(Token::from_octets(trimmed_end(value)));
        }
        None
    }
}

/// Splits a header at its first `;`: the first pair, and the pairs after it, if there are any.
fn split(pairs: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b';', pairs) {
        Some(end) => (&pairs[..end], Some(&pairs[end + 1..])),
        None => (pairs, None),
    }
}

/// The header from the value of the first pair on, if that pair is a cookie of this name: if the text before its first
/// `=`, without SP and HTAB around it, is exactly the name. The name itself has neither `=` nor `;`.
///
/// Browsers apply the rules of `__Host-` to the name without other white space removed. A name with such white space
/// before it can be set by a subdomain or over plain HTTP, so it is another cookie.
fn value_of<'h>(name: &[u8], pairs: &'h [u8]) -> Option<&'h [u8]> {
    let value = trimmed_start(trimmed_start(pairs).strip_prefix(name)?).strip_prefix(b"=")?;
    Some(trimmed_start(value))
}

/// The text without leading white space of RFC 6265 section 5.2, SP and HTAB. `trim_ascii_start` would remove more.
fn trimmed_start(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

/// The text without trailing SP and HTAB.
fn trimmed_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The seconds are rounded up, so that the browser does not drop the cookie before the session expires.
fn whole_seconds(left: Duration) -> Span {
    let up = u64::from(left.subsec_nanos() > 0);
    Span::seconds(i64::try_from(left.as_secs().saturating_add(up)).unwrap_or(i64::MAX))
}

/// The deadline as the date of a cookie: whole seconds, rounded up, and at most the year 9999.
fn date(deadline: SystemTime) -> OffsetDateTime {
    let since = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
    let last = OffsetDateTime::from_unix_timestamp(253_402_300_799).expect("9999-12-31 23:59:59");
    OffsetDateTime::UNIX_EPOCH.checked_add(whole_seconds(since)).map_or(last, |date| date.min(last))
}

/// Whether the name is a token by RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let mark = |c| b"!#$%&'*+-.^_`|~".contains(&c);
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || mark(c))
}

/// Whether browsers treat a name with this prefix specially, in upper or lower case.
fn has_prefix(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["__host-", "__secure-", "__http-", "__host-http-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether an attribute may have this value, by RFC 6265 section 4.1.1.
fn is_attribute(value: &str) -> bool {
    value.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b';')
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    domain.len() <= 253 && domain.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::parse("abc234").unwrap()
    }
    fn jar(cookies: Cookies) -> Jar {
        Jar::new(cookies).unwrap()
    }

    #[test]
    fn https_is_host_only_secure_http_only_and_lax() {
        let until = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(
            jar(Cookies::https()).set(&token(), Some((Duration::from_secs(300), until))).unwrap(),
            "__Host-session=abc234; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=300; \
             Expires=Tue, 14 Nov 2023 22:13:20 GMT"
        );
    }

    #[test]
    fn a_browser_bound_cookie_has_neither_max_age_nor_expires() {
        assert_eq!(
            jar(Cookies::plain_http()).set(&token(), None).unwrap(),
            "session=abc234; HttpOnly; SameSite=Lax; Path=/"
        );
    }

    #[test]
    fn the_removal_repeats_every_attribute() {
        let cookies = Cookies::https()
            .name("sid")
            .same_site(SameSite::None)
            .path("/app")
            .domain("example.org")
            .partitioned(true);
        assert_eq!(
            jar(cookies).removal(),
            "__Secure-sid=; HttpOnly; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.org; Max-Age=0; \
             Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }

    #[test]
    fn remaining_times_are_rounded_up_and_far_dates_are_cut() {
        assert_eq!(whole_seconds(Duration::from_nanos(1)).whole_seconds(), 1);
        assert_eq!(whole_seconds(Duration::from_secs(5)).whole_seconds(), 5);
        assert_eq!(date(crate::clock::from_micros(u64::MAX)).year(), 9999);
    }

    #[track_caller]
    fn check_refused(cookies: Cookies, word: &str) {
        let error = Jar::new(cookies).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(word), "{error}");
    }

    #[test]
    fn contradictions_are_refused_when_built() {
        check_refused(Cookies::plain_http().same_site(SameSite::None), "SameSite=None");
        check_refused(Cookies::plain_http().partitioned(true), "Partitioned");
        for name in ["__Host-x", "__host-x", "__SECURE-x", "__Http-x", "__Host-Http-x"] {
            check_refused(Cookies::https().name(name), "prefix");
        }
        for name in ["", "a b", "a;b", "a=b", "a\r\nb", "é", &"n".repeat(129)] {
            check_refused(Cookies::https().name(name), "name");
        }
        for path in ["", "app", "/a;b", "/a\r\nSet-Cookie: x=y", "/é"] {
            check_refused(Cookies::https().path(path), "path");
        }
        for domain in ["", ".example.org", "a..b", "a;b", "a\nb", "-a.org", "exa mple.org"] {
            check_refused(Cookies::https().domain(domain), "domain");
        }
    }

    #[test]
    fn a_cookie_that_browsers_would_drop_is_an_error() {
        let jar = jar(Cookies::plain_http());
        let token = |bytes| Token::parse(&"x".repeat(bytes)).unwrap();
        assert!(jar.set(&token(4096 - 7), None).is_ok());
        assert_eq!(jar.set(&token(4096 - 6), None).unwrap_err().kind(), ErrorKind::CookieTooLarge);
    }

    #[test]
    fn tokens_come_from_cookies_of_exactly_our_name() {
        let jar = jar(Cookies::plain_http());
        let found =
            |header: &str| jar.tokens(header).flatten().map(|t| t.expose().to_owned()).collect::<Vec<_>>();
        assert_eq!(found("session=a; other=b; session=c"), ["a", "c"]);
        assert_eq!(found("Session=a; sessions=b; xsession=c; session"), [""; 0]);
        assert_eq!(found("session=; session=\"a\"; session=a,b; session=é"), [""; 0]);
        assert_eq!(found("  session = a  ;;;"), ["a"]);
        assert_eq!(found("\t session\t=\t a\t; session=a=b; =session=c"), ["a", "a=b"]);
        let id = "abcdefghijklmnopqrstuvwxyz234567";
        for end in ["", ";", " ", " ;", "\t ; a=b", ";;", "; session"] {
            assert_eq!(found(&format!("a=b; session={id}{end}")), [id], "{end:?}");
        }
        assert_eq!(found(&format!("session={id}2; session={id}{id}")), [format!("{id}2"), id.repeat(2)]);
        assert_eq!(found(&format!("session={id}\"; session={id} {id}; session={id},")), [""; 0]);
    }

    #[test]
    fn no_white_space_but_sp_and_htab_is_trimmed() {
        for cookies in [Cookies::plain_http(), Cookies::https(), Cookies::https().path("/app")] {
            let jar = jar(cookies);
            let name = jar.name.clone();
            let found = |header: &str| jar.tokens(header).collect::<Vec<_>>();
            let space = |c: &char| c.is_whitespace() || c.is_control() || "\u{200b}\u{feff}".contains(*c);
            let mut tried = 0;
            for c in ('\0'..=char::MAX).filter(space).filter(|c| ![' ', '\t'].contains(c)) {
                for header in
                    [format!("{c}{name}=evil"), format!("{name}{c}=evil"), format!(" {c} {name}=evil")]
                {
                    assert_eq!(found(&format!("{header}; {name}=abc234")), [Some(token())], "{header:?}");
                }
                for header in
                    [format!("{name}={c}evil"), format!("{name}=evil{c}"), format!("{name}= evil {c} ")]
                {
                    assert_eq!(found(&header), [None], "{header:?}");
                }
                tried += 1;
            }
            // All characters that Unicode counts as white space (25) or control characters (65), less the 6 that are
            // both, plus two characters of zero width, less the two that this crate trims itself.
            assert_eq!(tried, 25 + 65 - 6 + 2 - 2);
            for c in [' ', '\t'] {
                assert_eq!(found(&format!("{c}{name}{c}={c}abc234{c}")), [Some(token())]);
            }
        }
    }

    /// The tokens as [`Jar::tokens`] must return them, computed in another way: by splitting the header.
    fn taken_apart(header: &str, name: &str) -> Vec<Option<Token>> {
        let trimmed = |text: &'_ str| text.trim_matches([' ', '\t']).to_owned();
        let pairs = header.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| trimmed(n) == name).map(|(_, value)| Token::parse(&trimmed(value))).collect()
    }

    proptest::proptest! {
        #[test]
        fn one_pass_finds_what_taking_the_header_apart_finds(
            parts in proptest::collection::vec(proptest::sample::select(&[
                "session", "session", "=", "=", ";", ";", " ", "\t", "abcdefghijklmnopqrstuvwxyz234567", "a", "\"", ",", "é",
                "\u{2000}", "\u{b}", "; session=abcdefghijklmnopqrstuvwxyz234567", "session=x", "Session=", "sessions=b",
            ][..]), 0..24),
        ) {
            let header = parts.concat();
            let found: Vec<_> = jar(Cookies::plain_http()).tokens(&header).collect();
            proptest::prop_assert_eq!(found, taken_apart(&header, "session"), "{:?}", header);
        }
    }
}
