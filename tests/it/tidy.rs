//! Rules for the source: a module imports only from modules below it, also inside the file engine; a dependency is used
//! only by the modules that are listed for it; files and functions are short; exceptions to lints give a reason; public
//! items have documentation. The checker parses the source, so it sees neither comments nor the results of macros. A
//! test plants one violation of each rule in a copy of the source, and expects exactly that finding.
use std::fs;
use std::path::Path;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Meta, UseTree, Visibility};

/// The modules in layers, the lowest first. A module imports only from lower layers, so imports have no cycles.
const FLOORS: [&[&str]; 13] = [
    &["shown", "contained", "sync", "clock", "fork", "file_system"],
    &["error"],
    &["random"],
    &["id"],
    &["value", "queue"],
    &["record"],
    &["lifetime"],
    &["store"],
    &["event", "admin"],
    &["session", "file", "rows", "reaper"],
    &["database"],
    &["store_url"],
    &["http"],
];

/// The modules of the file engine in layers, by the same rule. `FileStore` stands for the store itself: the modules
/// below it work without a store, and those above it are its operations. `file/mod.rs` connects them all and is above
/// all others. A call of a method of the store is not an import, so this check does not see it.
const FILE_FLOORS: [&[&str]; 15] = [
    &["layout", "mapped", "slot"],
    &["disk", "slots"],
    &["errors", "flock", "options"],
    &["run", "root_lock", "permissions"],
    &["expiry_index", "user_index", "generations", "cut_offs"],
    &["frame"],
    &["read_cache", "watch"],
    &["stats"],
    &["coherence"],
    &["FileStore"],
    &["session_lock", "limits", "emptied"],
    &["create", "read", "update", "rotate", "moved", "delete", "delete_of", "scan"],
    &["grow", "force_delete", "admin", "sweep", "user_sessions", "login_limit", "poll"],
    &["open"],
    &["repair"],
];
/// Modules of the engine that only the listed files may use. For example, operations use the cache through `coherence`
/// only.
const FILE_DOORS: [(&str, &[&str]); 4] = [
    (
        "cut_offs",
        &["file/coherence.rs", "file/read_cache.rs", "file/read_cache/", "file/frame.rs", "file/cut_offs/"],
    ),
    (
        "generations",
        &["file/coherence.rs", "file/read_cache.rs", "file/read_cache/", "file/watch.rs", "file/open.rs"],
    ),
    ("read_cache", &["file/coherence.rs", "file/stats.rs"]),
    ("watch", &["file/coherence.rs"]),
];

/// Dependencies, and the files that may use each, by the beginning of their paths below `src`. The command, in `bin`,
/// has dependencies of its own.
const DOORS: [(&str, &[&str]); 19] = [
    ("base32ct", &["id.rs"]),
    (
        "blake3",
        &[
            "id.rs",
            "record/user_digest.rs",
            "session/forms.rs",
            "file/slot.rs",
            "file/expiry_index.rs",
            "file/cut_offs/bytes.rs",
            "file/user_index/bucket.rs",
            "rows/bytes.rs",
        ],
    ),
    ("clap", &[]),
    ("clap_complete", &[]),
    ("clap_mangen", &[]),
    ("cookie", &["http/"]),
    ("crossbeam_channel", &["sync.rs", "sync/"]),
    ("fs2", &["file/flock.rs", "file/root_lock.rs"]),
    ("getrandom", &["random.rs"]),
    ("memchr", &["http/cookie.rs", "file/disk/root.rs"]),
    ("memmap2", &["fork.rs", "file/mapped.rs", "file/generations/counters.rs", "file/disk/counters.rs"]),
    ("notify", &["file/watch.rs"]),
    ("parking_lot", &["sync.rs", "sync/"]),
    ("postcard", &["value/"]),
    ("rouille", &["http/rouille.rs"]),
    ("rusqlite", &["database/sqlite/"]),
    ("serde_json", &["value.rs", "value/", "file/frame.rs", "file/repair.rs"]),
    ("smallvec", &["value/buffer.rs"]),
    ("tiny_http", &["http/tiny_http.rs"]),
];
/// The parts of `rustix`, and the files that may use each. Only the modules with the failpoint may call the file
/// system, so that tests can make each call fail.
const RUSTIX: [(&str, &[&str]); 5] = [
    (
        "fs",
        &["file/disk.rs", "file/disk/", "file/permissions.rs", "file_system.rs", "database/sqlite/place.rs"],
    ),
    ("io", &["file/", "file_system.rs", "database/sqlite/place.rs"]),
    ("mm", &["fork.rs"]),
    ("process", &["file/disk.rs", "file/disk/", "file/permissions.rs", "database/sqlite/place.rs"]),
    ("time", &["clock.rs"]),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
/// Modules that are compiled for tests and the fuzzer only.
const FOR_TESTS: [&str; 6] =
    ["file/tests", "file/proofs", "file/model", "sync/checked", "file/internals", "value/reference"];

/// All violations of the rules in the sources below `root`, as "file: finding".
fn findings(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    list(root, &mut paths);
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if FOR_TESTS.iter().any(|tests| name.starts_with(tests)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = text.lines().count() - without_tests(&mut syntax.items);
        let mut checker = Checker { name: &name, found: Vec::new() };
        if lines > FILE_LINES_MAX {
            checker.note(format!("{lines} lines without tests, where {FILE_LINES_MAX} are allowed"));
        }
        checker.visit_file(&syntax);
        found.extend(checker.found.into_iter().map(|finding| format!("{name}: {finding}")));
    }
    found
}

fn list(dir: &Path, paths: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Removes the items that are compiled for tests only. Returns the number of their lines.
fn without_tests(items: &mut Vec<syn::Item>) -> usize {
    let mut lines = 0;
    items.retain(|item| {
        let is_test = attributes(item).iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| {
                    let condition = list.tokens.to_string();
                    condition == "test"
                        || condition.starts_with("all (test")
                        || condition.starts_with("any (test")
                })
        });
        let span = item.span();
        lines += if is_test { span.end().line - span.start().line + 1 } else { 0 };
        !is_test
    });
    lines
}

fn attributes(item: &syn::Item) -> &[Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

struct Checker<'a> {
    name: &'a str,
    found: Vec<String>,
}

impl Checker<'_> {
    fn note(&mut self, finding: String) {
        self.found.push(finding);
    }

    /// Checks a path in an import, by its first segments: it leads into this crate or into a dependency.
    fn path(&mut self, segments: &[String]) {
        let Some((first, rest)) = segments.split_first() else { return };
        if let Some(module) = self.in_engine(segments) {
            self.import_in_engine(module);
        }
        match (&**first, rest) {
            ("crate", [module, ..]) if !self.name.starts_with("bin/") => self.import(module),
            ("rustix", [part, ..]) => self.door("rustix", part, &RUSTIX),
            (dependency, _) if !self.name.starts_with("bin/") => self.door("", dependency, &DOORS),
            _ => {}
        }
    }

    /// The item of the file engine that a path in one of the engine's files names.
    fn in_engine<'s>(&self, segments: &'s [String]) -> Option<&'s str> {
        let below = self.name.strip_prefix("file/").filter(|below| *below != "mod.rs")?;
        let depth = below.trim_end_matches("/mod.rs").split('/').count();
        let above = segments.iter().take_while(|segment| *segment == "super").count();
        match segments {
            [first, second, module, ..] if first == "crate" && second == "file" => Some(module),
            _ if above == depth => segments.get(depth).map(String::as_str),
            _ => None,
        }
    }

    fn import_in_engine(&mut self, module: &str) {
        let floor = |module: &str| FILE_FLOORS.iter().position(|floor| floor.contains(&module));
        let own = self.name.trim_start_matches("file/").split(['/', '.']).next().unwrap_or_default();
        match (floor(own), floor(module)) {
            _ if own == module => {}
            (None, _) => self.note(format!("is in the engine, and `{own}` has no floor")),
            (_, None) => self.note(format!("imports `{module}`, which is no module of the engine")),
            (Some(from), Some(to)) if from <= to => {
                self.note(format!("imports `{module}`, which is not on a lower floor of the engine"));
            }
            _ => self.door("file", module, &FILE_DOORS),
        }
    }

    fn import(&mut self, module: &str) {
        let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
        let own = self.name.split(['/', '.']).next().unwrap_or_default();
        let (Some(from), Some(to)) = (floor(own), floor(module)) else { return };
        if own != module && from <= to {
            self.note(format!("imports `{module}`, which is not on a lower floor"));
        }
    }

    fn door(&mut self, of: &str, what: &str, doors: &[(&str, &[&str])]) {
        let Some((name, files)) = doors.iter().find(|(name, _)| *name == what) else { return };
        if !files.iter().any(|file| self.name.starts_with(file)) {
            let separator = if of.is_empty() { "" } else { "::" };
            self.note(format!("uses `{of}{separator}{name}` outside its door"));
        }
    }

    fn leaves(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.leaves(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.leaves(tree, before)),
            UseTree::Name(syn::UseName { ident }) | UseTree::Rename(syn::UseRename { ident, .. }) => {
                before.push(ident.to_string());
                self.path(before);
                before.pop();
            }
            UseTree::Glob(_) => self.path(before),
        }
    }

    fn function(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        if lines > FUNCTION_LINES_MAX {
            self.note(format!("`{name}` has {lines} lines, where {FUNCTION_LINES_MAX} are allowed"));
        }
    }

    /// Checks that a public item has documentation, or is hidden from it.
    fn documented(&mut self, visibility: &Visibility, attributes: &[Attribute], name: &str) {
        let has_docs = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
        if matches!(visibility, Visibility::Public(_)) && !has_docs {
            self.note(format!("public `{name}` has no docs"));
        }
    }
}

impl<'ast> Visit<'ast> for Checker<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.leaves(&item.tree, &mut Vec::new());
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A path of one segment is a local name.
        if path.segments.len() > 1 {
            let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.path(&segments);
        }
        visit::visit_path(self, path);
    }
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let reason = |list: &syn::MetaList| list.tokens.to_string().contains("reason");
        if attribute.path().is_ident("allow") && !matches!(&attribute.meta, Meta::List(list) if reason(list))
        {
            self.note("`allow` without a reason".into());
        }
        visit::visit_attribute(self, attribute);
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.block.span());
        self.documented(&item.vis, &item.attrs, &item.sig.ident.to_string());
        visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.block.span());
        self.documented(&item.vis, &item.attrs, &item.sig.ident.to_string());
        visit::visit_impl_item_fn(self, item);
    }
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.documented(&item.vis, &item.attrs, &item.ident.to_string());
        if matches!(item.vis, Visibility::Public(_)) {
            for field in &item.fields {
                let name = field.ident.as_ref().map_or_else(|| "field".into(), ToString::to_string);
                self.documented(&field.vis, &field.attrs, &name);
            }
        }
        visit::visit_item_struct(self, item);
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.documented(&item.vis, &item.attrs, &item.ident.to_string());
        for variant in &item.variants {
            self.documented(&item.vis, &variant.attrs, &variant.ident.to_string());
        }
        visit::visit_item_enum(self, item);
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.documented(&item.vis, &item.attrs, &item.ident.to_string());
        for part in &item.items {
            if let syn::TraitItem::Fn(function) = part {
                self.documented(&item.vis, &function.attrs, &function.sig.ident.to_string());
            }
        }
        visit::visit_item_trait(self, item);
    }
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.documented(&item.vis, &item.attrs, &item.ident.to_string());
        visit::visit_item_const(self, item);
    }
    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.documented(&item.vis, &item.attrs, &item.ident.to_string());
        visit::visit_item_type(self, item);
    }
}

#[test]
fn the_source_keeps_the_order_of_the_house() {
    let found = findings(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.is_empty(), "{found:#?}");
}

/// The findings in an otherwise empty crate that has this text in the file `name`.
fn planted(name: &str, text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    findings(dir.path())
}

#[test]
fn a_planted_violation_of_each_rule_is_found() {
    let long = |lines: usize| "    let _ = 1;\n".repeat(lines);
    for (name, text, finding) in [
        ("record.rs", "use crate::session::Session;", "imports `session`, which is not on a lower floor"),
        ("record.rs", "fn f() { crate::lifetime::g() }", "imports `lifetime`, which is not on a lower floor"),
        ("file/mod.rs", "use crate::{error, session};", "imports `session`, which is not on a lower floor"),
        ("session/mod.rs", "use crate::file::{FileStore};", "imports `file`, which is not on a lower floor"),
        ("file/read_cache.rs", "use fs2::FileExt;", "uses `fs2` outside its door"),
        ("http/mod.rs", "fn f() { postcard::to_stdvec(&1); }", "uses `postcard` outside its door"),
        ("file/mod.rs", "use rustix::{fs::open, io::Errno};", "uses `rustix::fs` outside its door"),
        ("file/run.rs", "use super::frame;", "imports `frame`, which is not on a lower floor of the engine"),
        (
            "file/slots.rs",
            "use super::{slot, FileStore};",
            "imports `FileStore`, which is not on a lower floor of the engine",
        ),
        (
            "file/disk/opened.rs",
            "use crate::file::run;",
            "imports `run`, which is not on a lower floor of the engine",
        ),
        (
            "file/slot/payload.rs",
            "use super::super::disk;",
            "imports `disk`, which is not on a lower floor of the engine",
        ),
        (
            "file/sweep/mod.rs",
            "use super::grow;",
            "imports `grow`, which is not on a lower floor of the engine",
        ),
        (
            "file/sweep/mod.rs",
            "fn f() { super::open::g() }",
            "imports `open`, which is not on a lower floor of the engine",
        ),
        ("file/admin.rs", "use super::Content;", "imports `Content`, which is no module of the engine"),
        ("file/novel.rs", "use super::disk;", "is in the engine, and `novel` has no floor"),
        ("file/update.rs", "use super::read_cache::Cached;", "uses `file::read_cache` outside its door"),
        (
            "file/sweep/remove.rs",
            "use crate::file::generations::Cause;",
            "uses `file::generations` outside its door",
        ),
        ("http/mod.rs", "#[allow(dead_code)]\nfn f() {}", "`allow` without a reason"),
        ("id.rs", "pub fn f() {}", "public `f` has no docs"),
        ("id.rs", "/// Docs.\npub struct A { pub b: u8 }", "public `b` has no docs"),
        ("id.rs", "/// Docs.\npub enum A { B }", "public `B` has no docs"),
        ("id.rs", "struct A; impl A { pub fn g() {} }", "public `g` has no docs"),
        ("id.rs", "/// Docs.\npub trait A { fn h(); }", "public `h` has no docs"),
        ("id.rs", &format!("fn f() {{\n{}}}", long(59)), "`f` has 61 lines, where 60 are allowed"),
        ("id.rs", &"// A line.\n".repeat(501), "501 lines without tests, where 500 are allowed"),
    ] {
        assert_eq!(planted(name, text), [format!("{name}: {finding}")], "{text:.60}");
    }
}

#[test]
fn an_orderly_source_has_no_findings() {
    for (name, text) in [
        ("session/mod.rs", "use crate::store::Store; use crate::session::delta::Delta;"),
        ("file/mod.rs", "use repair::f; use self::read_cache::ReadCache;"),
        ("file/sweep/shards.rs", "use super::options::A; use crate::file::{FileStore, disk, sweep::B};"),
        ("file/coherence.rs", "use super::read_cache::ReadCache; fn f() { super::watch::g() }"),
        (
            "file/disk/opened.rs",
            "use rustix::fs; fn f() { fs2::lock() }".replace("fs2::lock()", "g()").as_str(),
        ),
        ("id.rs", "#[allow(dead_code, reason = \"a test\")]\nfn f() {}"),
        ("id.rs", "/// Docs.\npub fn f() {}\npub(crate) fn g() {}\n#[doc(hidden)]\npub fn h() {}"),
        (
            "id.rs",
            &format!("#[cfg(test)]\nmod tests {{\n    use crate::session::Session;\n{}}}", "\n".repeat(600)),
        ),
        ("file/tests/x.rs", "use crate::session::Session;"),
    ] {
        assert_eq!(planted(name, text), Vec::<String>::new(), "{text:.60}");
    }
}
