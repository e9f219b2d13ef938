//! The table of `SECURITY.md` names existing tests: renaming or removing a test requires a change of its line.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Reads the sources below a directory into a map, by module: the name of the file, or for a `mod.rs` that of its
/// directory.
fn sources(dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let named = if path.ends_with("mod.rs") { path.parent().unwrap() } else { &path };
            let module = named.file_stem().unwrap().to_str().unwrap().to_owned();
            *found.entry(module).or_default() += &fs::read_to_string(&path).unwrap();
        }
    }
}

/// Whether a source has a test of this name that is not ignored. It is a function with the attribute `test`, or is
/// named in the list of a macro that makes tests of functions.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    let listed = format!("{name},");
    lines.iter().position(|line| line.starts_with(&function)).is_some_and(|at| {
        let marks: Vec<_> = lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).collect();
        let is_run = !marks.iter().any(|mark| mark.starts_with("#[ignore") || mark.starts_with("#[cfg("));
        is_run && (marks.contains(&&"#[test]") || lines.contains(&&*listed))
    })
}

#[test]
fn every_promise_of_the_security_page_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut modules = BTreeMap::new();
    sources(&root.join("src"), &mut modules);
    sources(&root.join("tests"), &mut modules);
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let promises: Vec<_> = rows.filter(|row| !row.starts_with('|')).collect();
    assert_eq!(promises.len(), 29, "{promises:#?}");
    for line in promises {
        let (promise, tests) = line.split_once(" | ").unwrap();
        let names: Vec<_> = tests.split('`').filter_map(|word| word.split_once("::")).collect();
        assert!(!names.is_empty(), "no test for: {promise}");
        for (module, name) in names {
            let source = modules.get(module).map_or("", String::as_str);
            assert!(has_test(source, name), "`{module}::{name}` is not a test, for: {promise}");
        }
    }
    assert!(!has_test(&modules["damage"], "flipped"), "a helper is not a test");
}
