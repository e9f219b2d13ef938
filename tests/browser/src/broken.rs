//! The control: a build of the shop that breaks a promise must make its scenario fail. If it does not, the results of
//! the scenarios are void.
//!
//! The crate has no hidden switches. The build is a copy of the workspace in which pieces of source text are replaced. A
//! piece must be there exactly once, so a change of the engine that moves a rule is an error here and not a silent pass.
use crate::shop;
use crate::stage::WORKSPACE;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The list of a user's devices forgets an ended device, and the session lives on.
const EDITS: [(&str, &str, &str); 3] = [
    ("src/file/user_sessions.rs", "impl FileStore {", FORGET),
    ("src/file/user_sessions.rs", "self.delete_locked(&shard, &locked, None)", "forget(meant)"),
    (
        "src/file/user_sessions.rs",
        "listed.ids[from..].iter().filter_map(",
        "listed.ids[from..].iter().filter(|id| !FORGOTTEN.lock().expect(\"not poisoned\").contains(id)).filter_map(",
    ),
];

/// The list of ended devices in the broken build.
const FORGET: &str = "
static FORGOTTEN: std::sync::Mutex<Vec<PublicId>> = std::sync::Mutex::new(Vec::new());

fn forget(id: PublicId) -> Result<bool> {
    FORGOTTEN.lock().expect(\"not poisoned\").push(id);
    Ok(true)
}

impl FileStore {";

/// The files and directories from which a copy can be built.
const COPIED: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE-MIT", "src", "benches", "tests", "examples"];

/// The name of the program of the broken build.
const NAME: &str = "shop-broken";

/// Builds the broken shop in this directory; returns the path of the program. It shares the target directory of the
/// unbroken build, where the crates that both need are built already.
///
/// # Errors
///
/// A text to be replaced is not there exactly once, or the build fails.
pub(crate) fn build(dir: &Path) -> io::Result<PathBuf> {
    for name in COPIED {
        let copied = Command::new("cp").arg("-R").arg(Path::new(WORKSPACE).join(name)).arg(dir).status()?;
        if !copied.success() {
            return Err(io::Error::other(format!("{name} cannot be copied")));
        }
    }
    for (file, piece, instead) in EDITS {
        replace(&dir.join(file), piece, instead)?;
    }
    set_apart(dir)?;
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(WORKSPACE).join("target"), PathBuf::from);
    let target =
        target.to_str().ok_or_else(|| io::Error::other("the target directory has no name in UTF-8"))?;
    shop::build(dir, NAME, &["--locked", "--target-dir", target])
}

/// Changes the version of the copied engine, and the name of the program. Cargo distinguishes packages of two workspaces
/// only by that: otherwise the next ordinary build would use the artefacts of this one.
fn set_apart(dir: &Path) -> io::Result<()> {
    const PACKAGE: &str = "name = \"sessile\"\nversion = \"";
    let apart = format!("{PACKAGE}99");
    replace(&dir.join("Cargo.toml"), PACKAGE, &apart)?;
    replace(&dir.join("Cargo.lock"), PACKAGE, &apart)?;
    let program = format!("[[example]]\nname = \"{NAME}\"\npath = \"examples/shop/main.rs\"\n");
    replace(&dir.join("Cargo.toml"), "[[example]]\nname = \"shop\"\n", &program)
}

/// Replaces a piece of a file's text. The piece must occur exactly once.
fn replace(path: &Path, piece: &str, instead: &str) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let times = text.matches(piece).count();
    if times != 1 {
        return Err(io::Error::other(format!("{piece:?} is {times} times in {}", path.display())));
    }
    fs::write(path, text.replace(piece, instead))
}

/// Asserts that the text to be replaced is in the source.
///
/// # Panics
///
/// It is not there exactly once.
pub(crate) fn check_edits() {
    for (file, piece, instead) in EDITS {
        let text = fs::read_to_string(Path::new(WORKSPACE).join(file)).unwrap();
        assert_eq!(text.matches(piece).count(), 1, "{piece}");
        assert_ne!(piece, instead);
    }
}
