//! Any text as the place of a store: it is refused or is a place that prints and parses as itself; and a password in a
//! URL is shown by no error and by no place.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::store_url::StoreUrl;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The password. It has no character that ends a part of a URL.
const SECRET: &str = "hunter2!hunter2";

/// Everything that a text says when it is parsed.
fn shown(text: &OsStr) -> (Option<StoreUrl>, String) {
    match StoreUrl::parse(text) {
        Ok(place) => {
            let shown = format!("{place} {place:?} {:?}", place.path());
            (Some(place), shown)
        }
        Err(error) => (None, format!("{error} {error:?}")),
    }
}

/// Whether a text is a scheme, and not that of a directory or a database file: those have no passwords, and their paths
/// are shown as they are.
fn is_scheme_of_a_url(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !["file", "sqlite"].iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}

fuzz_target!(|bytes: &[u8]| {
    let text = OsStr::from_bytes(bytes);
    if let (Some(place), _) = shown(text) {
        // Its text leads to the same place.
        let printed = place.to_string();
        match place.path().or(place.sqlite_path()) {
            Some(path) if path.to_str().is_some() => {
                assert_eq!(StoreUrl::parse(&printed).expect("a place"), place);
            }
            // Bytes that are not UTF-8 are replaced where a path is shown.
            Some(_) => {}
            None => assert_eq!(printed, "memory:"),
        }
    }
    // The text has the parts of a URL, one a line: scheme, user, and the rest after the password.
    let Some(text) = text.to_str().filter(|text| !text.contains(SECRET)) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (scheme, before, after) = (next(), next(), next());
    if !is_scheme_of_a_url(scheme) {
        return;
    }
    for url in [
        format!("{scheme}://{before}:{SECRET}@{after}"),
        format!("{scheme}://{before}?password={SECRET}{after}"),
        format!("{scheme}://{before}#{SECRET}{after}"),
    ] {
        let (place, shown) = shown(OsStr::new(&url));
        assert!(place.is_none(), "{url} is no place");
        assert!(!shown.contains(SECRET), "{url}: {shown}");
    }
});
