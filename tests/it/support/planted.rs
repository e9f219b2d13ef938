//! Kinds of files that an attacker may have put in place of a session file.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Planted {
    File,
    Link,
    DanglingLink,
    Fifo,
    Directory,
    Socket,
}

impl Planted {
    /// All types except a plain file.
    pub(crate) const NO_FILES: [Self; 5] =
        [Self::Link, Self::DanglingLink, Self::Fifo, Self::Directory, Self::Socket];

    /// Makes the file at `place`. A link points to `target`.
    pub(crate) fn plant(self, place: &Path, target: &Path) {
        match self {
            Self::File => fs::write(place, "another user's").unwrap(),
            Self::Link => symlink(target, place).unwrap(),
            Self::DanglingLink => symlink("/nowhere/at/all", place).unwrap(),
            Self::Fifo => mknodat(CWD, place, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            Self::Directory => fs::create_dir(place).unwrap(),
            Self::Socket => drop(UnixListener::bind(place).unwrap()),
        }
    }
}
