//! Mutation tests of this tool: builds of the engine that break one rule each must be caught. If one is not, the
//! results for the engine are void.
//!
//! The crate has no hidden switches. Each build is a copy of the workspace in which one piece of source text is
//! replaced by another. The piece must be there exactly once, so a change of the engine that moves a rule is an error
//! here and not a silent pass.
use crate::filesystem::{FileSystem, run};
use crate::workload::Level;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A rule of the engine, and the edit that breaks it.
pub(crate) struct Mutation {
    /// The name of the mutation on the command line.
    pub(crate) name: &'static str,
    /// The defect that the mutation causes.
    pub(crate) what: &'static str,
    /// The only file system, and the only durability of most saves, with which the defect shows; `None` if it shows
    /// with all.
    pub(crate) on: Option<(FileSystem, Level)>,
    /// Texts of failures that report the broken promise. Other failures do not count, such as a file system that cannot
    /// be mounted.
    pub(crate) shows: &'static [&'static str],
    /// The edits: the file, a piece of its text, and the replacement.
    edits: &'static [(&'static str, &'static str, &'static str)],
}

/// A part of the text with which `check` reports a broken promise.
const LOST: &str = " is lost: ";
const BACK: &str = " is back";
const TORN: &str = " is torn: ";
/// The same, if the promise is that of one kind of end.
const BACK_AFTER_END: &str = ": its end was acknowledged";
const BACK_AFTER_MOVE: &str = ": its move was acknowledged";
const BACK_AFTER_CUT_OFF: &str = ": its cut-off was acknowledged";
const BACK_BEHIND_MARK: &str = "a moved session is back behind its damaged mark";

/// Rules whose absence the tool must detect.
pub(crate) const MUTATIONS: [Mutation; 15] = [
    Mutation {
        name: "directory-sync",
        what: "directories are not synced",
        on: None,
        shows: &[LOST, BACK],
        edits: &[(
            "src/file/disk/directory.rs",
            "call(\"sync shard\", || fs::fsync(&self.fd))?",
            "call(\"sync shard\", || Ok(()))?",
        )],
    },
    Mutation {
        name: "file-sync",
        what: "files are not synced",
        on: None,
        shows: &[LOST, TORN],
        edits: &[(
            "src/file/disk/opened.rs",
            "file.sync_data().map_err(",
            "io::Result::Ok(file).map(drop).map_err(",
        )],
    },
    Mutation {
        name: "overwrite-rule",
        what: "a slot is overwritten while the other one is not synced",
        on: None,
        shows: &[LOST, TORN],
        edits: &[(
            "src/file/update.rs",
            "if !locked.sync_newest() {\n            return self.rebuild(locked, bytes);",
            "if locked.newest.state.has(State::SYNC_FAILED) {\n            return self.rebuild(locked, bytes);",
        )],
    },
    Mutation {
        name: "rotation-sync",
        what: "a rotation does not sync its successor",
        on: None,
        shows: &[LOST],
        edits: &[(
            "src/file/rotate.rs",
            "SessionRef::Id(successor), record, true, Some(had))?",
            "SessionRef::Id(successor), record, false, Some(had))?",
        )],
    },
    Mutation {
        name: "newest-slot",
        what: "the newest slot is overwritten",
        on: None,
        shows: &[LOST, TORN],
        edits: &[(
            "src/file/update.rs",
            "let older = locked.offset(1 - locked.slot);",
            "let older = locked.offset(locked.slot);",
        )],
    },
    Mutation {
        name: "tombstone-sync",
        what: "the end of a session is not synced before its name goes",
        on: None,
        shows: &[BACK],
        edits: &[(
            "src/file/delete.rs",
            "is_reliable && disk::sync_data(pending.file).is_ok()",
            "is_reliable",
        )],
    },
    Mutation {
        name: "passing-sync",
        what: "an end that did not wait for the lock is not synced",
        on: None,
        shows: &[BACK],
        edits: &[
            (
                "src/file/force_delete.rs",
                "file.inspect(|file| drop(disk::sync_data(file)));",
                "let _ = file;",
            ),
            (
                "src/file/delete.rs",
                "shard.sync_changed_name().map_err(|error| self.delete_unknown(path, error))",
                "shard.stat(path.below_shard()).map(drop).or(Ok(()))",
            ),
        ],
    },
    Mutation {
        name: "grown-name",
        what: "a session ends while a power cut may give its name back to a smaller file",
        on: None,
        shows: &[BACK],
        edits: &[(
            "src/file/delete.rs",
            "if syncs && pending.state.name_may_fall_back() {",
            "if syncs && false {",
        )],
    },
    Mutation {
        name: "mark-sync",
        what: "the mark of a moved session is not synced",
        on: None,
        shows: &[BACK_AFTER_MOVE],
        edits: &[(
            "src/file/delete.rs",
            "if self.sync_tombstone(pending) { Marked::Synced } else { Marked::NotSynced }",
            "Marked::Synced",
        )],
    },
    Mutation {
        name: "mark-alone",
        what: "the mark of a moved session leaves the version before it",
        on: None,
        shows: &[BACK_BEHIND_MARK],
        edits: &[(
            "src/file/delete.rs",
            "let _ = write_tombstone(pending.file, pending.offset);\n        self.is_current_file",
            "self.is_current_file",
        )],
    },
    Mutation {
        name: "tombstone-alone",
        what: "the tombstone of an ended session leaves the version before it",
        on: None,
        shows: &[BACK_AFTER_END],
        edits: &[(
            "src/file/slots.rs",
            "[Claim::Ended | Claim::Moved, _] | [_, Claim::Ended | Claim::Moved] => return Ok(ended(slots, id)),",
            "[Claim::Ended, Claim::Sequence(_)] => [1, 0],\n        \
             [Claim::Sequence(_), Claim::Ended] => [0, 1],\n        \
             [Claim::Ended | Claim::Moved, _] | [_, Claim::Ended | Claim::Moved] => return Ok(ended(slots, id)),",
        )],
    },
    Mutation {
        name: "cut-off-sync",
        what: "a cut-off is acknowledged before its sync",
        on: None,
        shows: &[BACK_AFTER_CUT_OFF],
        edits: &[(
            "src/file/cut_offs/append.rs",
            "if disk::sync_data(file).is_err() {",
            "if flags & SYNC_FAILED != 0 {",
        )],
    },
    Mutation {
        name: "cut-off-number",
        what: "a successor gets the number of the last cut-off, and its rotation does not ask again",
        on: None,
        shows: &[BACK_AFTER_CUT_OFF],
        edits: &[(
            "src/file/rotate.rs",
            "at_login.map_or(cut_off, |at_login| at_login.max(cut_off))",
            "self.coherence.last_cut_off(true)?.max(at_login.unwrap_or(cut_off))",
        )],
    },
    Mutation {
        name: "cut-off-check",
        what: "a rotation does not ask under its lock whether a cut-off has ended the session",
        on: None,
        shows: &[BACK_AFTER_CUT_OFF],
        edits: &[(
            "src/file/rotate.rs",
            "self.coherence.standing(&locked.newest.record, &locked.id) else {\n            return Ok(None);\n        };",
            "Some(locked.newest.record.login().cut_off) else {\n            return Ok(None);\n        };",
        )],
    },
    Mutation {
        name: "exchanged-name",
        what: "btrfs is trusted with the sync of a shard in which a larger file took a name",
        on: Some((FileSystem::Btrfs, Level::Relaxed)),
        shows: &[BACK],
        edits: &[("src/file_system.rs", "self == Self::BTRFS", "false && self == Self::BTRFS")],
    },
];

/// The files and directories from which a copy can be built.
const COPIED: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE-MIT", "src", "benches", "tests", "examples"];

/// The name of the program of a mutated build.
const PROGRAM: &str = "sessile-powercut-broken";

impl Mutation {
    /// Builds this tool with an engine that breaks the rule; returns the path of the program. It shares the target
    /// directory of the unbroken build, where the crates that both need are built already.
    ///
    /// # Errors
    ///
    /// The text to be replaced is not there exactly once, or the build fails.
    pub(crate) fn build(&self, workspace: &Path, copy: &Path, target: &Path) -> Result<PathBuf> {
        if copy.exists() {
            fs::remove_dir_all(copy).with_context(|| format!("remove {}", copy.display()))?;
        }
        fs::create_dir_all(copy).with_context(|| format!("create {}", copy.display()))?;
        for name in COPIED {
            run(Command::new("cp").arg("-R").arg(workspace.join(name)).arg(copy))
                .context("copy the workspace")?;
        }
        for (file, piece, instead) in self.edits {
            replace(&copy.join(file), piece, instead).with_context(|| format!("break {}", self.name))?;
        }
        Self::set_apart(copy)?;
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--locked", "-p", "sessile-powercut", "--target-dir"]);
        run(cargo.arg(target).current_dir(copy)).with_context(|| format!("build without {}", self.name))?;
        Ok(target.join("release").join(PROGRAM))
    }

    /// Changes the version of the copied engine, and the name of its program. Cargo distinguishes packages of two
    /// workspaces only by that: otherwise the next ordinary build would use the artefacts of this one.
    fn set_apart(copy: &Path) -> Result<()> {
        const PACKAGE: &str = "name = \"sessile\"\nversion = \"";
        let apart = format!("{PACKAGE}99");
        replace(&copy.join("Cargo.toml"), PACKAGE, &apart)?;
        replace(&copy.join("Cargo.lock"), PACKAGE, &apart)?;
        let program = format!("[[bin]]\nname = \"{PROGRAM}\"\npath = \"src/main.rs\"\n\n[dependencies]\n");
        let manifest = copy.join("tests/powercut/Cargo.toml");
        replace(&manifest, "[package]\n", "[package]\nautobins = false\n")?;
        replace(&manifest, "[dependencies]\n", &program)
    }
}

/// Replaces a piece of a file's text. The piece must occur exactly once.
fn replace(path: &Path, piece: &str, instead: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let times = text.matches(piece).count();
    ensure!(times == 1, "the text to be replaced is {times} times in {}", path.display());
    fs::write(path, text.replace(piece, instead)).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_that_is_to_be_broken_is_in_the_source_exactly_once() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (file, piece, instead) in MUTATIONS.iter().flat_map(|mutation| mutation.edits) {
            let text = fs::read_to_string(workspace.join(file)).unwrap();
            assert_eq!(text.matches(piece).count(), 1, "{piece}");
            assert_ne!(piece, instead);
        }
    }
}
