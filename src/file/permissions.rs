//! Owners and modes of a store's directories and files. When a store is opened, wrong ones are repaired, or the opening
//! is refused.
//!
//! - **A directory that holds no store is never changed**, and no error advises changing it, because it may be `/tmp`.
//!   If it is unsafe, the error advises a directory inside it.
//! - **A store of this user to which others have access is repaired.** The usual ways to give such access change a
//!   whole tree at once (`fsGroup` of Kubernetes, `chmod -R`, `setfacl -R`). So every opening examines the directories,
//!   with 260 system calls, but files only in a directory with a wrong mode, because examining a million files would
//!   take seconds. If the root is to be private, it is repaired first: no other user can then reach anything below it.
//!   Any other directory is repaired after its files, so that the next opening continues an interrupted repair. A file
//!   with several names (hard links) is repaired too, although another user may have made the other name.
//! - **Modes that cannot be repaired are one error**, which counts them, names the first, and gives the command that
//!   repairs all. The error comes before any change, except for modes of which only the attempt shows that they cannot
//!   be changed.
//! - **A tool changes no modes** (option `keep_modes`). It derives from the root's mode which users the store is for,
//!   and refuses a store whose directories have other modes.
//! - Only directories and regular files with names of this crate are changed, and no symbolic link is followed.
//!
//! Limit: a file that another user opened before the repair stays open for that user.
use super::disk::{Access, Directory, Root, Sharing, Stat, set_rights};
use super::errors::io_error;
use super::layout::{CUT_OFFS, DUE, INDEX, PARAMETERS, RUN, USER_INDEX, USERS, is_ours};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use rustix::fs::Mode;
use rustix::process::{getegid, geteuid, getgroups};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

const SURVEY: &str = "examine the permissions of session store";
const OPEN: &str = "open session store";
/// The mode bit of a sticky directory, in which a user may remove or rename only that user's own files.
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o005;
const GROUP_WRITES: u32 = 0o020;

/// The owner, group and modes that the directories and files of a store must have.
struct Wanted {
    sharing: Sharing,
    user: u32,
    /// The group of the root.
    group: u32,
}

/// The result of comparing one file or directory with [`Wanted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Repair,
    /// The file belongs to another user, so this process cannot repair it.
    Refuse,
}

impl Wanted {
    fn for_store(root: &Root, stat: &Stat) -> Self {
        Self { sharing: root.sharing(), user: geteuid().as_raw(), group: stat.group }
    }

    fn mode(&self, stat: &Stat) -> Mode {
        if stat.is_directory { self.sharing.directory() } else { self.sharing.file() }
    }

    fn judge(&self, stat: &Stat) -> Verdict {
        let (mode, is_own) = (self.mode(stat).as_raw_mode(), stat.owner == self.user);
        let is_right = match self.sharing {
            // A mode with fewer bits than wanted is right, too: it gives no other user access.
            Sharing::Private => is_own && !self.is_exposed(stat),
            Sharing::Group if is_own => stat.group == self.group && stat.mode == mode,
            Sharing::Group => stat.group == self.group && stat.mode & mode == mode && !self.is_exposed(stat),
        };
        match (is_right, is_own) {
            (true, _) => Verdict::Right,
            (false, true) => Verdict::Repair,
            (false, false) => Verdict::Refuse,
        }
    }

    /// The same as [`judge`](Self::judge), for the root. In a group's store, the root may belong to another user (as
    /// that of a mounted volume), and be readable by all. Users outside the group then see the names in the root, and
    /// reach nothing below it.
    fn judge_root(&self, stat: &Stat) -> Verdict {
        let is_anothers = self.sharing == Sharing::Group && stat.owner != self.user;
        let unread = if is_anothers { OTHERS_READ } else { 0 };
        self.judge(&Stat { mode: stat.mode & !unread, ..*stat })
    }

    /// Whether users that the store is not for have any access.
    fn is_exposed(&self, stat: &Stat) -> bool {
        stat.mode & self.outsiders() != 0
    }

    /// Whether users that the store is not for may write.
    fn is_writable(&self, stat: &Stat) -> bool {
        stat.mode & self.outsiders() & (GROUP_WRITES | OTHERS_WRITE) != 0
    }

    fn outsiders(&self) -> u32 {
        match self.sharing {
            Sharing::Private => 0o077,
            Sharing::Group => 0o007,
        }
    }

    /// Sets the wanted group and mode of an open file or directory.
    fn set(&self, file: impl AsFd, stat: &Stat) -> io::Result<()> {
        let group = (self.sharing == Sharing::Group && stat.group != self.group).then_some(self.group);
        set_rights(file, group, self.mode(stat))
    }

    /// The property of a store with the right modes, for error messages.
    fn so(&self) -> String {
        match self.sharing {
            Sharing::Private => "private".to_owned(),
            Sharing::Group => format!("accessible to group {}", self.group),
        }
    }

    /// The shell command that gives a store to the user of this process and sets all modes, for error messages.
    fn cure(&self, dir: &Path) -> String {
        match self.sharing {
            Sharing::Private => {
                let (user, group) = (self.user, getegid().as_raw());
                format!("chown -R {user}:{group} {} && {}", shell_word(dir), self.chmod(dir))
            }
            Sharing::Group => self.chmod(dir),
        }
    }

    /// The shell command that sets all groups and modes of a store whose owners are right, for error messages.
    fn chmod(&self, dir: &Path) -> String {
        let dir = shell_word(dir);
        match self.sharing {
            Sharing::Private => format!("chmod -R go= {dir}"),
            Sharing::Group => format!(
                "chown -R :{} {dir} && chmod -R ug+rwX,o= {dir} && find {dir} -type d -exec chmod g+s {{}} +",
                self.group
            ),
        }
    }
}

/// Refuses a directory for a new store if other users could put a fake store into it, or if this user cannot make a
/// store there that others have no access to. Changes no mode.
pub(super) fn check_place(root: &Root) -> Result<()> {
    let stat = stat_of_root(root)?;
    let wanted = Wanted::for_store(root, &stat);
    refuse_public(root, &wanted, &stat)?;
    let reason = match wanted.sharing {
        _ if wanted.is_writable(&stat) => public(&wanted, &stat),
        Sharing::Private if stat.owner != wanted.user => format!(
            "it belongs to user {}, this process runs as user {}; use a directory that the latter owns",
            stat.owner, wanted.user
        ),
        Sharing::Group if wanted.judge_root(&stat) == Verdict::Refuse => format!(
            "it belongs to user {}, and has not the mode 2770 (but {:04o}) that a group's store needs; use a \
             directory inside it",
            stat.owner, stat.mode
        ),
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Permissions, OPEN).with_path(root.path()).with_reason(reason))
}

/// The reason, in the error, for refusing a sticky directory, or one that other users may write to. It never advises
/// changing the directory's mode, because the directory may be `/tmp`.
fn public(wanted: &Wanted, stat: &Stat) -> String {
    let why = if wanted.is_writable(stat) {
        "other users may write to it"
    } else {
        "it is sticky, as directories are that users share"
    };
    format!("{why} (mode {:04o}); use a directory inside it", stat.mode)
}

/// Refuses a directory in which no store should be, and whose mode no command should change: a sticky one like `/tmp`,
/// one of another user that all may write to, as container volumes are, and one of a group of which this process is no
/// member.
fn refuse_public(root: &Root, wanted: &Wanted, stat: &Stat) -> Result<()> {
    let is_anothers = stat.owner != wanted.user && stat.mode & OTHERS_WRITE != 0;
    let reason = if stat.mode & STICKY != 0 || is_anothers {
        public(wanted, stat)
    } else if wanted.sharing == Sharing::Group && !is_member(stat.group)? {
        format!(
            "it belongs to group {}, of which this process is no member; run the process with that group, or use a \
             directory of one of its groups",
            stat.group
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Permissions, OPEN).with_path(root.path()).with_reason(reason))
}

/// Whether this process is a member of a group, or the superuser.
fn is_member(group: u32) -> Result<bool> {
    let groups = getgroups().map_err(|errno| io_error("list the groups of this process", errno.into()))?;
    let is_one = groups.iter().any(|one| one.as_raw() == group) || getegid().as_raw() == group;
    // The superuser has the rights of all groups.
    Ok(is_one || geteuid().is_root())
}

/// Refuses a store of another user, or one whose modes differ from those that the root's mode implies. Changes no mode.
pub(super) fn check_store(root: &Root) -> Result<()> {
    Survey::of(root)?.check(root)
}

/// Which users a store is for, according to the mode of its root.
pub(super) fn sharing_of(root: &Stat) -> Sharing {
    let group = Sharing::Group.directory().as_raw_mode();
    if root.mode & group == group { Sharing::Group } else { Sharing::Private }
}

/// The files and directories with wrong owners or modes that an opening has found. None has been changed yet.
pub(super) struct Survey {
    wanted: Wanted,
    root: Stat,
    /// The files and directories to repair, by path below the root.
    wrong: Vec<(String, Stat)>,
}

impl Survey {
    /// Examines the root and the directories in it. If the root's mode is wrong, also examines the files in it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permissions`] for owners or modes that cannot be repaired; [`ErrorKind::Io`] for all that the
    /// operating system refuses.
    pub(super) fn of(root: &Root) -> Result<Self> {
        let stat = stat_of_root(root)?;
        let wanted = Wanted::for_store(root, &stat);
        refuse_public(root, &wanted, &stat)?;
        let is_wrong = wanted.judge_root(&stat) != Verdict::Right;
        let (mut wrong, mut refused) = (Vec::new(), Refused::default());
        if wanted.judge_root(&stat) == Verdict::Refuse {
            refused.add(".", Some(stat), None);
        }
        let names = root.names().map_err(|error| io_error(SURVEY, error).with_path(root.path()))?;
        let names = names.into_iter().filter(|name| is_ours(name));
        // The directories of the indexes are in `run`, and are examined last. If `run` is wrong, its repair includes
        // them.
        for name in names.chain([DUE, USERS].map(str::to_owned)) {
            if [DUE, USERS].contains(&&*name) && wrong.iter().any(|(other, _)| other == RUN) {
                continue;
            }
            let stat = match root.stat(&name) {
                Ok(stat) => stat,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(io_error(SURVEY, error).with_path(root.path().join(name))),
            };
            if !(is_own_directory(&name, &stat) || stat.is_file && is_wrong) {
                continue;
            }
            match wanted.judge(&stat) {
                Verdict::Right => {}
                Verdict::Repair => wrong.push((name, stat)),
                Verdict::Refuse => refused.add(&name, Some(stat), None),
            }
        }
        refused.check(root, &wanted)?;
        Ok(Self { wanted, root: stat, wrong })
    }

    /// Refuses a store of which [`repair`](Self::repair) would change a mode. Tools call this function, because they do
    /// not know which users the store is for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permissions`], with two commands: one makes the store private, and one gives it to the group.
    pub(super) fn check(self, root: &Root) -> Result<()> {
        let is_wrong = self.wanted.judge_root(&self.root) != Verdict::Right;
        let of_root = is_wrong.then(|| (String::from("."), self.root));
        let mut all = of_root.into_iter().chain(self.wrong);
        let Some((name, first)) = all.next() else { return Ok(()) };
        let command = |sharing| Wanted { sharing, ..self.wanted }.chmod(root.path());
        let reason = format!(
            "by its root's mode ({:04o}) it is {}, and {} of its directories and files are not, for instance `{}` (mode \
             {:04o}); to repair all, start the program that owns it; or, to make all private: {}; or, to give all to the group: \
             {}",
            self.root.mode,
            self.wanted.so(),
            1 + all.count(),
            below(root, Path::new(&name)).display(),
            first.mode,
            command(Sharing::Private),
            command(Sharing::Group),
        );
        Err(Error::new(ErrorKind::Permissions, OPEN).with_path(root.path()).with_reason(reason))
    }

    /// Sets the wanted groups and modes. Reports the number of files that other users had access to, unless `observer`
    /// is `None`, as for a new store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permissions`] counts the files and directories that could not be repaired; the others were.
    pub(super) fn repair(self, root: &Root, observer: Option<&Observer>) -> Result<()> {
        let is_wrong = self.wanted.judge_root(&self.root) == Verdict::Repair;
        if !is_wrong && self.wrong.is_empty() {
            return Ok(());
        }
        let error = |error| io_error(SURVEY, error).with_path(root.path());
        let top = root.open_directory(".").map_err(error)?;
        let mut repairs =
            Repairs { wanted: &self.wanted, exposed: 0, writable: 0, refused: Refused::default() };
        let is_closed_first = is_wrong && self.wanted.sharing == Sharing::Private;
        if is_closed_first {
            repairs.repair(".", &self.root, || self.wanted.set(&top, &self.root));
        }
        for (path, stat) in &self.wrong {
            match path.rsplit_once('/') {
                Some((parent, name)) => {
                    let parent = root.open_directory(parent).map_err(error)?;
                    repairs.repair_in(&parent, name, Path::new(path), stat);
                }
                None => repairs.repair_in(&top, path, Path::new(path), stat),
            }
        }
        if is_wrong && !is_closed_first {
            repairs.repair(".", &self.root, || self.wanted.set(&top, &self.root));
        }
        if let Some(observer) = observer.filter(|_| repairs.exposed > 0) {
            observer.notify(&Event::MadePrivate {
                path: root.path(),
                count: repairs.exposed,
                writable: repairs.writable,
            });
        }
        repairs.refused.check(root, &self.wanted)
    }
}

/// The results of one repair.
struct Repairs<'a> {
    wanted: &'a Wanted,
    /// The number of files and directories that were accessible, before the repair, to users other than the owner and,
    /// if the store is shared with it, the group.
    exposed: u64,
    /// The number of those that such users could write to.
    writable: u64,
    refused: Refused,
}

impl Repairs<'_> {
    /// Repairs one file, or one directory and the files in it.
    fn repair_in(&mut self, parent: &Directory, name: &str, path: &Path, stat: &Stat) {
        if !stat.is_directory {
            return self.repair(path, stat, || self.wanted.set(parent.open_named(name, Access::Read)?, stat));
        }
        let before = self.refused.count;
        let listed = parent.open_directory(name).and_then(|directory| Ok((directory.names()?, directory)));
        let (names, directory) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.refused.add(path, Some(*stat), Some(error)),
        };
        for name in &names {
            self.look_at(&directory, name, &path.join(name));
        }
        // If a file could not be repaired, its directory is not repaired, so that the next opening examines its files
        // again.
        if self.refused.count == before {
            self.repair(path, stat, || self.wanted.set(&directory, stat));
        }
    }

    /// Examines one name in a directory whose mode was wrong.
    fn look_at(&mut self, directory: &Directory, name: &str, path: &Path) {
        let stat = match directory.stat(name) {
            // A link, a pipe, or a directory that is not of the store is left alone. The library does not use it.
            Ok(stat) if !(stat.is_file || is_own_directory(name, &stat)) => return,
            Ok(stat) => stat,
            // The file was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.refused.add(path, None, Some(error)),
        };
        match self.wanted.judge(&stat) {
            Verdict::Right => {}
            Verdict::Repair => self.repair_in(directory, name, path, &stat),
            Verdict::Refuse => self.refused.add(path, Some(stat), None),
        }
    }

    fn repair(&mut self, path: impl AsRef<Path>, stat: &Stat, set: impl FnOnce() -> io::Result<()>) {
        match set() {
            Ok(()) => {
                self.exposed += u64::from(self.wanted.is_exposed(stat));
                self.writable += u64::from(self.wanted.is_writable(stat));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.refused.add(path, Some(*stat), Some(error)),
        }
    }
}

/// The files and directories that cannot be repaired: their number, and the first one.
#[derive(Default)]
struct Refused {
    count: u64,
    first: Option<(PathBuf, Option<Stat>, Option<io::Error>)>,
}

impl Refused {
    fn add(&mut self, path: impl AsRef<Path>, found: Option<Stat>, error: Option<io::Error>) {
        self.count += 1;
        self.first.get_or_insert_with(|| (path.as_ref().to_owned(), found, error));
    }

    fn check(self, root: &Root, wanted: &Wanted) -> Result<()> {
        let Some((path, found, cause)) = self.first else { return Ok(()) };
        let (path, so) = (below(root, &path), wanted.so());
        let found = found.map(|stat| format!(" (of user {}, mode {:04o})", stat.owner, stat.mode));
        let reason = format!(
            "of its directories and files, {} cannot be made {so} by user {}, for instance `{}`{}; to repair all: {}",
            self.count,
            wanted.user,
            path.display(),
            found.unwrap_or_default(),
            wanted.cure(root.path())
        );
        let error = match cause {
            Some(cause) if is_denial(&cause) => Error::new(ErrorKind::Permissions, OPEN).with_source(cause),
            Some(cause) => io_error(OPEN, cause),
            None => Error::new(ErrorKind::Permissions, OPEN),
        };
        Err(error.with_path(root.path()).with_reason(reason))
    }
}

/// Whether the operating system refused a call because this process lacks the permission.
fn is_denial(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether this is one of a store's directories. A directory with the name of one of a store's files is not, and is
/// left alone.
fn is_own_directory(path: &str, stat: &Stat) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let is_ours = is_ours(name) || [INDEX, USER_INDEX].contains(&name);
    stat.is_directory && is_ours && ![PARAMETERS, CUT_OFFS].contains(&name)
}

/// Whether the error says that the name does not exist, or that its parent is not a directory.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A path below the root, for messages.
fn below(root: &Root, path: &Path) -> PathBuf {
    if path == Path::new(".") { root.path().to_owned() } else { root.path().join(path) }
}

fn stat_of_root(root: &Root) -> Result<Stat> {
    root.stat(".").map_err(|error| io_error(SURVEY, error).with_path(root.path()))
}

/// A path as a word of a shell's command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    // Without `./` the command would take the path for an option.
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_command_and_nothing_else() {
        for (path, word) in [
            ("/srv/shop/sessions", "/srv/shop/sessions"),
            ("/srv/my shop", "'/srv/my shop'"),
            ("/srv/$(id)", "'/srv/$(id)'"),
            ("/srv/it's; id", r"'/srv/it'\''s; id'"),
            ("-rf", "./-rf"),
            ("-r f", "'./-r f'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
