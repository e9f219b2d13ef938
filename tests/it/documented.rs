//! Every public method of the types that programs use in each handler has an example, which the documentation tests
//! compile.
use std::fs;
use std::path::Path;

/// The public methods of this type in a source. For each, whether its documentation has an example that is compiled.
fn methods(source: &str, of: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let (mut inside, mut has_example, mut in_block) = (false, false, false);
    let begin = format!("impl {of} {{");
    for line in source.lines() {
        match line {
            "}" => inside = false,
            _ if line == begin => inside = true,
            _ => {}
        }
        let text = line.trim_start();
        if let Some(fence) = text.strip_prefix("/// ```") {
            has_example |= !in_block && ["", "no_run", "should_panic"].contains(&fence);
            in_block = !in_block;
        } else if let Some(rest) = text.strip_prefix("pub fn ").filter(|_| inside) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push((name, has_example));
        }
        // Another item begins. The documentation before it belongs to that item.
        if !text.starts_with("//") && !text.starts_with("#[") {
            has_example = false;
        }
    }
    found
}

#[track_caller]
fn check(of: &str, files: &[&str], least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = files.iter().map(|file| fs::read_to_string(root.join(file)).unwrap());
    let all: Vec<_> = sources.flat_map(|source| methods(&source, of)).collect();
    assert!(all.len() >= least, "{of} has only {} methods in {files:?}", all.len());
    let bare: Vec<_> = all.iter().filter(|(_, has_example)| !has_example).map(|(name, _)| name).collect();
    assert!(bare.is_empty(), "{of} has methods without an example: {bare:?}");
}

#[test]
fn every_method_that_handlers_call_has_an_example() {
    let session = ["mod", "entries", "save", "now", "rotate", "expiry", "destroy"];
    let session = session.map(|file| format!("session/{file}.rs"));
    check("Session", &session.each_ref().map(String::as_str), 32);
    check("Lifetime", &["lifetime.rs"], 8);
    check("Cookies", &["http/cookie.rs"], 8);
    check("Sessions", &["http/mod.rs"], 7);
    check("Visit", &["http/visit.rs"], 2);
}

#[test]
fn a_method_without_its_own_example_is_found() {
    let source = "impl Session {\n    /// ```\n    /// ```\n    pub fn a() {\n    }\n    pub fn b() {}\n    /// ```ignore\n    \
                  /// ```\n    #[must_use]\n    pub fn c() {}\n    /// ```no_run\n    /// ```\n    #[must_use]\n    pub fn d() {}\n}\n\
                  impl Other {\n    pub fn e() {}\n}\n";
    let found = methods(source, "Session");
    let found: Vec<_> = found.iter().map(|(name, has_example)| (name.as_str(), *has_example)).collect();
    assert_eq!(found, [("a", true), ("b", false), ("c", false), ("d", true)]);
}
