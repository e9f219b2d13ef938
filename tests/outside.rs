//! The crate as another package sees it. README.md as a new user follows it: each block of dependencies and the program
//! behind it make a package outside of this repository, which is built as printed; the first program is also run and
//! asked. And the compiler's advice where a handler returns something else than an adapter takes. And the links, files
//! and methods that README and `docs/` name.
//!
//! A binary of its own, because cargo runs one test binary after the other: a compiler at work would slow down the
//! tests of `it` that measure time. Builds offline, with the versions of this repository's lock file, which built this
//! test too. Only two things differ from the page: `sessile` also has a `path`, and the program that is run gets a free
//! port.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a program may take until it listens, and until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// The address that the printed programs listen on.
const PRINTED: &str = "127.0.0.1:8000";
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// A block of dependencies, and the program that follows it on the page.
struct Printed {
    dependencies: String,
    program: String,
}

/// The programs of a page, each with the block of dependencies before it.
fn printed(page: &str) -> Vec<Printed> {
    let mut found = Vec::new();
    let mut dependencies = None;
    // A block of code is between two fences. Its first line names the language.
    for block in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        if language == "toml" && text.starts_with("[dependencies]\n") {
            dependencies = Some(text.to_owned());
        } else if language.starts_with("rust") && text.contains("\nfn main()") {
            let dependencies = dependencies.take().expect("a block of dependencies before each program");
            found.push(Printed { dependencies, program: text.to_owned() });
        }
    }
    found
}

/// Makes a package of the program and builds it. Returns the path of the program, or the compiler's errors.
#[track_caller]
fn build(dir: &Path, name: &str, printed: &Printed) -> Result<PathBuf, String> {
    let version = "sessile = { version = ";
    assert!(printed.dependencies.contains(version), "{}", printed.dependencies);
    let from_here = format!("sessile = {{ path = {REPOSITORY:?}, version = ");
    let mut manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n");
    manifest += &printed.dependencies.replace(version, &from_here);
    // Without this line, cargo would take the package for a part of the workspace in a directory above.
    manifest += "\n\n[workspace]\n";
    fs::create_dir(dir.join("src")).unwrap();
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/main.rs"), &printed.program).unwrap();
    fs::copy(Path::new(REPOSITORY).join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    // The target directory is kept, so that the dependencies are built only once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(built.stderr).unwrap();
    let is_fine = built.status.success() && !said.contains("src/main.rs");
    if is_fine { Ok(target.join("debug").join(name)) } else { Err(said) }
}

#[track_caller]
fn builds(dir: &Path, name: &str, printed: &Printed) -> PathBuf {
    let built = build(dir, name, printed);
    built.unwrap_or_else(|said| {
        panic!("with\n{}the program has warnings or errors:\n{said}", printed.dependencies)
    })
}

/// A running program. It is killed when this value is dropped.
struct Running(Child);

impl Running {
    #[track_caller]
    fn start(program: &Path, dir: &Path, server: SocketAddr) -> Self {
        let mut running = Self(Command::new(program).current_dir(dir).spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(server).is_err() {
            assert_eq!(running.0.try_wait().unwrap(), None, "the program has ended");
            assert!(began.elapsed() < PATIENCE, "the program does not listen");
            sleep(Duration::from_millis(10));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that the program has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Requests the page with this cookie. Returns the whole answer of the server.
fn ask(server: SocketAddr, cookie: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{cookie}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_readmes_programs_build_as_printed_and_the_first_serves() {
    let mut programs = printed(&page("README.md"));
    assert_eq!(programs.len(), 2, "one with tiny_http, one with rouille");
    let dirs: Vec<TempDir> = programs.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    builds(dirs[1].path(), "second", &programs[1]);

    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = free.local_addr().unwrap();
    let first = &mut programs[0].program;
    assert_eq!(first.matches(PRINTED).count(), 1, "{first}");
    *first = first.replace(PRINTED, &server.to_string());
    let program = builds(dirs[0].path(), "first", &programs[0]);
    drop(free);

    let running = Running::start(&program, dirs[0].path(), server);
    let answer = ask(server, "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("visits: 1\n"), "{answer}");
    // The cookie is one that a browser keeps, and sends back over plain HTTP.
    let header = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cookie");
    assert!(!header.contains("Secure"), "{header}");
    let cookie = format!("Cookie: {}\r\n", header.split(';').next().unwrap());
    assert!(ask(server, &cookie).ends_with("visits: 2\n"));
    drop(running);

    let _again = Running::start(&program, dirs[0].path(), server);
    assert!(ask(server, &cookie).ends_with("visits: 3\n"), "it goes on counting");
}

#[test]
fn the_compiler_says_what_a_handler_may_return() {
    let printed = printed(&page("README.md"));
    for (printed, response, right, wrong) in [
        (
            &printed[0],
            "Response<Box<",
            "Ok(Response::from_string(format!(\"visits: {visits}\\n\")))",
            "Ok(visits)",
        ),
        (&printed[1], "Response`", "-> sessile::Result<_>", "-> Result<_, String>"),
    ] {
        assert_eq!(printed.program.matches(right).count(), 1, "{}", printed.program);
        // With `?`, the compiler would complain that an error of the session cannot become a `String`. Without it, the
        // compiler complains about the adapter's argument, which is tested here.
        let program = printed.program.replace(right, wrong).replace('?', ".unwrap()");
        let dir = tempfile::tempdir().unwrap();
        let printed = Printed { dependencies: printed.dependencies.clone(), program };
        let said = build(dir.path(), "wrong", &printed).expect_err("a handler of another type");
        let response = format!("a response of its server (`{response}");
        let parts = [
            "a handler cannot return `",
            &response,
            "Box<dyn std::error::Error + Send + Sync>",
            "`sessile::http::IntoResponse`",
        ];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

/// The anchor of a heading: in lower case, with hyphens for spaces, and without other signs.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    letters.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The anchors of a page's headings.
fn anchors(page: &str) -> Vec<String> {
    let headings = page
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with("##")));
    headings.map(anchor).collect()
}

/// The targets of a page's links.
fn targets(page: &str) -> Vec<&str> {
    page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect()
}

/// The text of a page in the repository.
fn page(path: &str) -> String {
    fs::read_to_string(Path::new(REPOSITORY).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const DOCUMENTS: [&str; 4] = ["docs/guide.md", "docs/design.md", "docs/format.md", "docs/testing.md"];

/// crates.io and docs.rs show the page without the files of the repository.
#[test]
fn every_link_of_the_readme_works_without_the_repository() {
    let readme = page("README.md");
    let targets = targets(&readme);
    assert!(targets.len() > 5, "{targets:?}");
    for target in targets {
        let leads = match target.strip_prefix('#') {
            Some(anchor) => anchors(&readme).iter().any(|known| known == anchor),
            None => target.starts_with("https://"),
        };
        assert!(leads, "{target} leads nowhere");
        // These links show files of the published package, by their paths.
        if let Some(file) = target.strip_prefix("https://docs.rs/crate/sessile/latest/source/") {
            assert!(Path::new(REPOSITORY).join(file).is_file(), "{target}");
        }
        if let Some(document) = target.strip_prefix("https://docs.rs/sessile/latest/sessile/_documentation/")
        {
            let (document, anchor) = document.split_once('/').unwrap();
            let document = format!("docs/{document}.md");
            assert!(DOCUMENTS.contains(&&*document), "{target}");
            let anchors = anchors(&page(&document));
            assert!(anchor.is_empty() || anchors.iter().any(|known| *known == anchor[1..]), "{target}");
        } else if let Some(module) = target.strip_prefix("https://docs.rs/sessile/latest/sessile/") {
            let module = module.split('/').next().unwrap();
            let files = [format!("src/{module}.rs"), format!("src/{module}/mod.rs")];
            assert!(files.iter().any(|file| Path::new(REPOSITORY).join(file).is_file()), "{target}");
        }
    }
}

#[test]
fn every_link_within_a_document_leads_to_one_of_its_headings() {
    for document in DOCUMENTS {
        let text = page(document);
        let anchors = anchors(&text);
        for target in targets(&text).into_iter().filter(|target| !target.starts_with("https://")) {
            let leads =
                target.strip_prefix('#').is_some_and(|anchor| anchors.iter().any(|known| known == anchor));
            assert!(leads, "{target} of {document} leads nowhere");
        }
    }
}

/// Directories that the published package does not contain.
const REPOSITORY_ONLY: [&str; 4] = ["fuzz", "tests/browser", "tests/powercut", "benches/peers"];

/// Whether the path that a document names exists, from the top of the repository or from `src/file`.
fn is_there(path: &str) -> bool {
    let top = Path::new(REPOSITORY);
    let is_left_out = |folder: &&str| path.starts_with(*folder) && !top.join(folder).exists();
    ["", "src/file"].iter().any(|folder| top.join(folder).join(path).exists())
        || REPOSITORY_ONLY.iter().any(is_left_out)
}

/// The sources and directories that a document names in backticks.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_source = |span: &str| Path::new(span).extension().is_some_and(|extension| extension == "rs");
    let is_path = move |span: &&str| {
        let folder = ["src/", "tests/", "benches/", "fuzz/", ".cargo/", ".ci/"];
        !span.contains(' ') && (is_source(span) || folder.iter().any(|folder| span.starts_with(folder)))
    };
    spans.filter(is_path)
}

#[test]
fn every_source_that_the_documents_name_is_there() {
    let mut names = 0;
    for document in ["docs/design.md", "docs/testing.md", "SECURITY.md"] {
        let text = page(document);
        let missing: Vec<_> = named(&text).inspect(|_| names += 1).filter(|path| !is_there(path)).collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
    }
    assert!(names > 40, "{names}");
    assert!(!is_there("slots.txt"));
    assert_eq!(
        named("in `slots.rs`, `fuzz/`, `fuzz x.rs` and `slot`").collect::<Vec<_>>(),
        ["slots.rs", "fuzz/"]
    );
}

/// The text of all sources below a directory.
fn sources(dir: &Path) -> String {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths
        .map(|path| if path.is_dir() { sources(&path) } else { fs::read_to_string(&path).unwrap() })
        .collect()
}

/// The methods of this crate that a text names, as `session.get(…)`, `Lifetime::age` or `Cookies::{name, path}`.
fn methods(text: &str) -> Vec<&str> {
    let of = [
        "session.",
        "Session::",
        "Sessions::",
        "Lifetime::",
        "Cookies::",
        "FileStore::",
        "FileStoreOptions::",
        "Headers::",
    ];
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let behind = |prefix| text.match_indices(prefix).map(move |(at, _)| &text[at + str::len(prefix)..]);
    let mut found = Vec::new();
    for rest in of.into_iter().flat_map(behind) {
        let list =
            rest.strip_prefix('{').and_then(|list| list.split_once('}')).map_or(rest, |(list, _)| list);
        let all = if list.len() < rest.len() {
            list
        } else {
            &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
        };
        found.extend(all.split(", ").filter(|name| !name.is_empty() && name.chars().all(is_part)));
    }
    found
}

#[test]
fn every_method_that_the_tables_of_names_give_exists() {
    let guide = page("docs/guide.md");
    let sources = sources(&Path::new(REPOSITORY).join("src"));
    // The last cell of a row is that of this crate.
    let cells = guide.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next());
    let named: Vec<_> = cells.flat_map(methods).collect();
    assert!(named.len() > 80, "{named:?}");
    let exists =
        |name: &&&str| ["(", "<"].iter().any(|next| sources.contains(&format!("pub fn {name}{next}")));
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(
        methods("`session.get::<T>(k)?`, `Cookies::{name, path}`, `Lifetime::new`"),
        ["get", "new", "name", "path"]
    );
}
