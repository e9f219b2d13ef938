//! Stores by URL: one text in a configuration names the storage mode and the place.
//!
//! | text | the store |
//! |---|---|
//! | a path, `file:DIR`, `file:///DIR` | [`FileStore`] in that directory; made if there is none |
//! | `memory:` | `MemoryStore`, which ends with the process; needs the feature `rows` |
//! | `sqlite:PATH`, `sqlite:///PATH` | `SqliteStore` in that file; made if there is none; needs the feature `sqlite` or `sqlite-bundled` |
//!
//! A path that begins with one of these schemes is written with `./` before it. In `file:` and `sqlite:` URLs, as in
//! paths, every character stands for itself: there are no `%` escapes.
//!
//! # Secrets
//!
//! A URL may have a password in it. No text of this module has: errors, [`Display`](fmt::Display) and
//! [`Debug`](fmt::Debug) show the scheme, the host and the path, and leave out the rest. If it is not certain which
//! part is which, they show the scheme only.
use crate::admin::Admin;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
#[cfg(doc)]
use crate::file::FileStore;
use crate::file::FileStoreOptions;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The schemes of storage modes that this version of the crate does not have yet. They are known, so that a URL with a
/// password is not taken for the path of a directory.
const OTHERS: [&str; 10] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "redis",
    "rediss",
    "redis-cluster",
    "valkey",
    "valkeys",
    "sealed",
];

/// The place of a store: a path or a URL. See the [module](self) for the forms.
///
/// ```
/// use sessile::{Admin, store_url::StoreUrl};
/// # let dir = tempfile::tempdir()?;
/// # let text = format!("file:{}", dir.path().display());
/// let store = StoreUrl::parse(&text)?.open()?;
/// assert_eq!(store.count()?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Memory,
    Sqlite(PathBuf),
}

impl StoreUrl {
    /// Reads a path or a URL. Opens nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL is malformed or has an unknown scheme, [`ErrorKind::Unsupported`] if this
    /// version or build has no such stores.
    ///
    /// ```
    /// use sessile::{ErrorKind, store_url::StoreUrl};
    /// use std::path::Path;
    /// assert_eq!(StoreUrl::parse("file:/srv/sessions")?.path(), Some(Path::new("/srv/sessions")));
    /// let refused = StoreUrl::parse("postgres://ada:secret@db/shop").unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Unsupported);
    /// assert!(!refused.to_string().contains("secret"));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn parse(text: impl AsRef<Path>) -> Result<Self> {
        let path = text.as_ref();
        let Some(text) = path.to_str().filter(|text| text.trim_start() == *text) else {
            // A URL with a password must not become the name of a directory because of a space before it.
            return match split(path.to_string_lossy().trim_start()) {
                Some((scheme, rest)) if is_url(scheme, rest) => {
                    Err(refused("a URL is UTF-8, and has no white space before it"))
                }
                _ => directory(path),
            };
        };
        let Some((scheme, rest)) = split(text) else { return directory(path) };
        match &*scheme.to_ascii_lowercase() {
            "file" => match without_host(rest) {
                Some(rest) => directory(Path::new(rest)),
                None => Err(refused("a `file:` URL has no host: write file:DIR or file:///DIR")),
            },
            "sqlite" => match without_host(rest) {
                Some(rest) => database(rest),
                None => Err(refused("a `sqlite:` URL has no host: write sqlite:PATH or sqlite:///PATH")),
            },
            "memory" if rest.is_empty() => Ok(Self(Place::Memory)),
            "memory" => Err(refused("a store in memory has no name: write memory:")),
            known if OTHERS.contains(&known) => {
                let shown = without_secrets(known, rest);
                Err(Error::new(ErrorKind::Unsupported, "open a store")
                    .with_reason(format!("this version of sessile has no stores such as `{shown}`")))
            }
            unknown if rest.starts_with("//") => {
                Err(refused(format!("there are no stores with the scheme `{unknown}`")))
            }
            _ => directory(path),
        }
    }

    /// The directory, if the store is one of files.
    ///
    /// ```
    /// use sessile::store_url::StoreUrl;
    /// assert!(StoreUrl::parse("memory:")?.path().is_none());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Directory(path) => Some(path),
            Place::Memory | Place::Sqlite(_) => None,
        }
    }

    /// The database file, if the store is one in such a file.
    ///
    /// ```
    /// use sessile::store_url::StoreUrl;
    /// use std::path::Path;
    /// let url = StoreUrl::parse("sqlite:/srv/sessions.db")?;
    /// assert_eq!(url.sqlite_path(), Some(Path::new("/srv/sessions.db")));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Sqlite(path) => Some(path),
            Place::Directory(_) | Place::Memory => None,
        }
    }

    /// Opens the store with its default options.
    ///
    /// # Errors
    ///
    /// Those of the storage mode; [`ErrorKind::Unsupported`] if this build lacks the feature that the mode needs.
    ///
    /// ```
    /// use sessile::{Cookies, Sessions, store_url::StoreUrl};
    /// # let dir = tempfile::tempdir()?;
    /// # let place = dir.path();
    /// let store = StoreUrl::parse(place)?.open()?;
    /// let sessions = Sessions::new(store, Cookies::plain_http())?;
    /// # let _ = sessions;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(&self) -> Result<Arc<dyn Admin>> {
        self.open_observed(Observer::default())
    }

    /// Opens the store with this observer.
    pub(crate) fn open_observed(&self, observer: Observer) -> Result<Arc<dyn Admin>> {
        match &self.0 {
            Place::Directory(path) => Ok(Arc::new(FileStoreOptions::new().observed_by(observer).open(path)?)),
            #[cfg(all(feature = "rows", not(all(test, shuttle))))]
            Place::Memory => {
                use crate::rows::{MemoryRows, RowStoreOptions};
                let rows = MemoryRows::new(crate::clock::Clock::system());
                Ok(Arc::new(RowStoreOptions::new().observed_by(observer).open(rows)?))
            }
            #[cfg(not(all(feature = "rows", not(all(test, shuttle)))))]
            Place::Memory => Err(Error::new(ErrorKind::Unsupported, "open a store").with_reason(
                "stores in memory need the feature `rows` of the crate, which this build lacks",
            )),
            #[cfg(all(feature = "sqlite", not(all(test, shuttle))))]
            Place::Sqlite(path) => {
                Ok(Arc::new(crate::database::SqliteOptions::new().observed_by(observer).open(path)?))
            },
            #[cfg(not(all(feature = "sqlite", not(all(test, shuttle)))))]
            Place::Sqlite(path) => {
                Err(Error::new(ErrorKind::Unsupported, "open a store").with_path(path).with_reason(
                    "stores in a database file need the feature `sqlite` or `sqlite-bundled` of the crate, which this \
                     build lacks",
                ))
            }
        }
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The place, without secrets.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Directory(path) => write!(f, "file:{}{}", host_before(path), path.display()),
            Place::Memory => f.write_str("memory:"),
            Place::Sqlite(path) => write!(f, "sqlite:{}{}", host_before(path), path.display()),
        }
    }
}

/// The place, without secrets.
impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// The scheme of a URL, and the text after its colon; `None` if it has none.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (begins && goes_on).then_some((scheme, rest))
}

fn directory(path: &Path) -> Result<StoreUrl> {
    if path.as_os_str().is_empty() {
        return Err(refused("the path of the directory is empty"));
    }
    Ok(StoreUrl(Place::Directory(path.to_owned())))
}

/// An empty host, if the path begins with `//`, and so would be read as one.
fn host_before(path: &Path) -> &'static str {
    if path.as_os_str().as_encoded_bytes().starts_with(b"//") { "//" } else { "" }
}

/// The path in a URL that may begin with an empty host; `None` if there is a host.
fn without_host(rest: &str) -> Option<&str> {
    match rest.strip_prefix("//") {
        Some(rest) => rest.starts_with('/').then_some(rest),
        None => Some(rest),
    }
}

/// A database file. Other libraries read options after a `?`, and `:memory:` as a database without a file.
fn database(path: &str) -> Result<StoreUrl> {
    match path {
        "" => Err(refused("the path of the database file is empty")),
        ":memory:" => Err(refused("a store in memory is written memory:")),
        _ if path.contains('?') => Err(refused("a `sqlite:` URL has no options, and no `?` in its path")),
        _ => Ok(StoreUrl(Place::Sqlite(path.into()))),
    }
}

/// A URL without the parts that may have secrets.
fn without_secrets(scheme: &str, rest: &str) -> String {
    match rest.strip_prefix("//").and_then(host_and_path) {
        Some((user, shown)) => format!("{scheme}://{user}{shown}"),
        None => format!("{scheme}:…"),
    }
}

/// The part of a URL that may be shown, after a mark for the part before it, which may have a password (also one with
/// an unescaped `@` or `/`). `None` if it is not certain where the parts begin, or if the host or the path has unusual
/// characters.
fn host_and_path(rest: &str) -> Option<(&'static str, &str)> {
    let (user, rest) = match rest.rsplit_once('@') {
        // The `@` is in the query, or the `?` is in the password.
        Some((before, _)) if before.contains(['?', '#']) => return None,
        Some((_, after)) => ("…@", after),
        None => ("", rest),
    };
    let shown = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (hosts, path) = shown.split_at(shown.find('/').unwrap_or(shown.len()));
    let is_usual =
        hosts.split(',').all(is_host) && path.bytes().all(|byte| is_plain(byte) || b"/~%".contains(&byte));
    is_usual.then_some((user, shown))
}

/// Whether a text is a host, with or without a port. The text after a user's name and a colon is a password, unless it
/// is a number.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let is_address = address.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
            (if is_address { "" } else { return false }, port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = port.strip_prefix(':').unwrap_or(port).bytes().all(|byte| byte.is_ascii_digit());
    is_port && name.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

/// Whether a text is a URL, and not a path with a colon in it.
fn is_url(scheme: &str, rest: &str) -> bool {
    let scheme = scheme.to_ascii_lowercase();
    rest.starts_with("//") || ["file", "memory", "sqlite"].contains(&&*scheme) || OTHERS.contains(&&*scheme)
}

fn refused(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, "open a store").with_reason(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory_whatever_is_in_it() {
        for text in
            ["sessions", "/srv/a b", "./memory:", "a:b", "C:sessions", "a/b://c", ":", "sess?x=1", "ä:b"]
        {
            assert_eq!(StoreUrl::parse(text).unwrap().path(), Some(Path::new(text)), "{text}");
        }
        for (text, path) in [("file:a b", "a b"), ("FILE:/a%20b", "/a%20b"), ("file:///a", "/a")] {
            assert_eq!(StoreUrl::parse(text).unwrap().path(), Some(Path::new(path)), "{text}");
        }
    }

    #[test]
    fn a_place_is_shown_as_a_url_of_the_same_place() {
        for text in [
            "a",
            "/a b",
            "//a",
            "///a",
            "./memory:",
            " a ",
            "file:////a",
            "memory:",
            "file:file:x",
            "sqlite:a b.db",
            "sqlite:/a",
            "sqlite:////a",
            "sqlite:sqlite:a",
        ] {
            let place = StoreUrl::parse(text).unwrap();
            assert_eq!(StoreUrl::parse(place.to_string()).unwrap(), place, "{text}: {place}");
        }
    }

    #[test]
    fn a_url_of_no_store_is_refused_with_its_reason() {
        let check = |text: &str, kind, reason: &str| {
            let error = StoreUrl::parse(text).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        };
        check("", ErrorKind::Config, "empty");
        check("file:", ErrorKind::Config, "empty");
        check("file://host/dir", ErrorKind::Config, "no host");
        check("memory:x", ErrorKind::Config, "no name");
        check("sqlite:", ErrorKind::Config, "empty");
        check("sqlite://ada:hunter2@host/x", ErrorKind::Config, "no host");
        check("sqlite::memory:", ErrorKind::Config, "memory:");
        check("sqlite:a.db?mode=rwc", ErrorKind::Config, "no options");
        check("http://host", ErrorKind::Config, "`http`");
        check("redis://host/0", ErrorKind::Unsupported, "`redis://host/0`");
    }

    #[test]
    fn white_space_makes_no_directory_of_a_url() {
        use std::os::unix::ffi::OsStrExt;
        let not_utf8 = std::ffi::OsStr::from_bytes(b"postgres://ada:hunter2\xff@host");
        for text in [
            " postgres://ada:hunter2@host",
            "\u{a0}redis:x",
            "\t\nhttp://x",
            " file:a",
            " memory:",
            " sqlite:a",
        ]
        .map(Path::new)
        .into_iter()
        .chain([Path::new(not_utf8)])
        {
            let error = StoreUrl::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for (text, path) in
            [(" a", " a"), ("a ", "a "), (" a:b", " a:b"), ("file:a ", "a "), ("file: a", " a")]
        {
            assert_eq!(StoreUrl::parse(text).unwrap().path(), Some(Path::new(path)), "{text:?}");
        }
    }

    #[test]
    fn a_refused_url_is_shown_with_its_host_and_path() {
        for (text, shown) in [
            ("redis://ada:hunter2@host:6379/0?x=1", "redis://…@host:6379/0"),
            ("REDIS://[::1]:6379/0", "redis://[::1]:6379/0"),
            ("postgres://a:1,b-c.d:2/shop%20x", "postgres://a:1,b-c.d:2/shop%20x"),
            ("mysql:///shop", "mysql:///shop"),
            ("postgres://ada:hunter2", "postgres:…"),
            ("postgres://[hunter2]:1", "postgres:…"),
            ("postgres://host/db&password=hunter2", "postgres:…"),
        ] {
            let error = StoreUrl::parse(text).unwrap_err();
            assert!(error.to_string().ends_with(&format!("`{shown}`")), "{text}: {error}");
        }
    }

    #[test]
    fn no_text_has_a_password() {
        for scheme in OTHERS.into_iter().chain(["http", "POSTGRES"]) {
            for rest in [
                "//ada:hunter2@host:5432/shop",
                "//ada:hunt/er2@x:hunter2@host",
                "//:hunter2@host?x=1",
                "//host/shop?password=hunter2",
                "//host/shop#hunter2",
                "ada:hunter2@host",
                "//hunter2?@host",
                "//host/shop?user=ada@example.com&password=hunter2",
                "//host?password=x@hunter2",
                "//host#@hunter2",
                "//ada:hunter2",
                "password=hunter2 host=x",
            ] {
                let text = format!("{scheme}:{rest}");
                let Err(error) = StoreUrl::parse(&text) else {
                    // Without `//`, a text with a scheme that is not known is a path.
                    continue;
                };
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error:?}");
            }
        }
    }
}
