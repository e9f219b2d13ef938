//! The cookies of a browser. The jar applies the rules of browsers. It panics where a browser would silently reject a
//! cookie, because the library must never send such a cookie.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The cookies that a browser keeps for one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar {
    https: bool,
    /// The values of the cookies, by the identity of a cookie: its name, domain and path.
    cookies: BTreeMap<(String, Option<String>, String), String>,
}

/// A parsed `Set-Cookie` header.
#[derive(Clone, Debug)]
pub(crate) struct SetCookie {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The attributes with their names in lower case. A flag has an empty value.
    pub(crate) attributes: BTreeMap<String, String>,
}

impl SetCookie {
    #[track_caller]
    pub(crate) fn parse(header: &str) -> Self {
        assert!(!header.contains(|c: char| c.is_control()), "control characters in {header:?}");
        let mut parts = header.split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').expect("a name and a value");
        let mut attributes = BTreeMap::new();
        for part in parts {
            let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
            let known =
                ["HttpOnly", "SameSite", "Partitioned", "Secure", "Path", "Domain", "Max-Age", "Expires"];
            assert!(known.contains(&attribute), "an unknown attribute {attribute:?} in {header:?}");
            let twice = attributes.insert(attribute.to_ascii_lowercase(), value.to_owned());
            assert_eq!(twice, None, "duplicate {attribute} in {header:?}");
        }
        Self { name: name.to_owned(), value: value.to_owned(), attributes }
    }

    /// The time at which the cookie expires, if it has an `Expires` date.
    #[track_caller]
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.attributes.get("expires").map(|date| instant(date))
    }

    /// Whether the header tells the browser to remove the cookie. `Max-Age` takes precedence over `Expires`.
    #[track_caller]
    pub(crate) fn removes(&self) -> bool {
        match self.attributes.get("max-age") {
            Some(seconds) => seconds.parse::<i64>().unwrap() <= 0,
            None => self.expires().is_some_and(|end| end <= SystemTime::now()),
        }
    }
}

impl Jar {
    /// The jar of a browser that uses plain HTTP.
    pub(crate) fn http() -> Self {
        Self::default()
    }

    /// The jar of a browser that uses HTTPS.
    pub(crate) fn https() -> Self {
        Self { https: true, ..Self::default() }
    }

    /// Applies the `Set-Cookie` headers of a response.
    #[track_caller]
    pub(crate) fn receive<'h>(&mut self, set_cookies: impl IntoIterator<Item = &'h str>) {
        for header in set_cookies {
            let cookie = SetCookie::parse(header);
            assert_eq!(self.refuses(&cookie), None, "a browser refuses `{header}`");
            let path = cookie.attributes.get("path").cloned().unwrap_or_else(|| "/".into());
            let place = (cookie.name.clone(), cookie.attributes.get("domain").cloned(), path);
            if cookie.removes() {
                self.cookies.remove(&place);
            } else {
                self.cookies.insert(place, cookie.value);
            }
        }
    }

    /// The reason for which a browser would reject this cookie (RFC 6265bis section 5.7).
    fn refuses(&self, cookie: &SetCookie) -> Option<&'static str> {
        let has = |attribute: &str| cookie.attributes.contains_key(attribute);
        let whole_site = !has("domain") && cookie.attributes.get("path").is_some_and(|path| path == "/");
        let name = cookie.name.to_ascii_lowercase();
        if cookie.name.len() + cookie.value.len() > 4096 {
            Some("name and value exceed 4,096 bytes")
        } else if has("secure") && !self.https {
            Some("Secure over plain HTTP")
        } else if name.starts_with("__secure-") && !has("secure") {
            Some("a __Secure- name without Secure")
        } else if name.starts_with("__host-") && !(has("secure") && whole_site) {
            Some("a __Host- name without Secure, with a Domain, or with another Path than /")
        } else if cookie.attributes.get("samesite").is_some_and(|site| site == "None") && !has("secure") {
            Some("SameSite=None without Secure")
        } else if has("partitioned") && !has("secure") {
            Some("Partitioned without Secure")
        } else {
            None
        }
    }

    /// The value of the cookie with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|((n, ..), _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Puts a cookie into the jar, as an attacker or a backup of the browser might.
    pub(crate) fn put(&mut self, name: &str, value: &str) {
        self.cookies.insert((name.into(), None, "/".into()), value.into());
    }

    /// The value of the `Cookie` line that the browser sends, if it sends one.
    pub(crate) fn header(&self) -> Option<String> {
        let pairs: Vec<_> =
            self.cookies.iter().map(|((name, ..), value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

/// An HTTP date, such as `Tue, 14 Nov 2023 22:13:20 GMT`.
#[track_caller]
fn instant(date: &str) -> SystemTime {
    let words: Vec<_> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words[..] else { panic!("no date: {date:?}") };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month).expect("a month") as u64;
    let number = |text: &str| text.parse::<u64>().unwrap();
    let (year, day) = (number(year), number(day));
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_day = u64::from(month > 1 && leaps(year) > leaps(year - 1));
    let days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
        + before[usize::try_from(month).unwrap()]
        + leap_day
        + day
        - 1;
    UNIX_EPOCH
        + Duration::from_secs(days * 86_400 + number(hour) * 3600 + number(minute) * 60 + number(second))
}

#[test]
fn the_jar_reads_dates_as_the_calendar_has_them() {
    for (date, seconds) in [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000),
        ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
    ] {
        assert_eq!(instant(date), UNIX_EPOCH + Duration::from_secs(seconds), "{date}");
    }
}

#[test]
fn the_jar_replaces_removes_and_refuses_as_a_browser_does() {
    let mut jar = Jar::https();
    jar.receive(["a=1; Path=/", "b=2; Path=/; Max-Age=60", "a=3; Path=/"]);
    assert_eq!(jar.header().as_deref(), Some("a=3; b=2"));
    // A cookie with another path is another cookie.
    jar.receive(["a=; Path=/elsewhere; Max-Age=0"]);
    assert_eq!(jar.get("a"), Some("3"));
    jar.receive(["a=; Path=/; Max-Age=0", "b=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]);
    assert_eq!(jar.header(), None);
    for refused in [
        "__Host-a=1; Path=/",
        "__Host-a=1; Path=/x; Secure",
        "__Host-a=1; Path=/; Secure; Domain=example.org",
        "__Secure-a=1; Path=/",
        "a=1; SameSite=None; Path=/",
        "a=1; Partitioned; Path=/",
    ] {
        assert!(jar.refuses(&SetCookie::parse(refused)).is_some(), "{refused} was accepted");
    }
    assert!(Jar::http().refuses(&SetCookie::parse("a=1; Secure; Path=/")).is_some());
}
