//! The only door to the file system: the engine makes every system call on a store here or in a submodule. (`flock`
//! makes the lock calls, which pass this module's failpoint; the watcher's library makes its own.)
//!
//! - Paths are relative to the root's descriptor, and no symbolic link below the root is followed: session files are
//!   opened with `RESOLVE_NO_SYMLINKS`, or, where `openat2` is missing, shard by shard with `O_NOFOLLOW`.
//! - A planted fifo opens without blocking (`O_NONBLOCK`), and reading it at an offset fails.
//! - In unit tests, and under the fuzzer, every call first passes a failpoint that can count it and make it fail.
mod boot;
pub(super) mod counters;
#[cfg(any(test, sessile_fuzzing))]
pub(super) mod faults;
mod file_system;
mod making;
mod opened;
mod sharing;
mod stat;

pub(super) use boot::boot_id;
#[cfg(all(test, not(shuttle)))]
pub(super) use file_system::pretending;
pub(super) use making::{Taken, make_root, set_mode_of_root, temporary_name};
pub(super) use opened::{
    append, invalidate_at, read_at, read_whole, stat, stat_with_times, sync_data, touch, write_at,
    write_parts_at,
};
pub(super) use sharing::{Sharing, set_rights};
pub(super) use stat::{Inode, Stat, StatWithTimes};

use super::layout::{self, SessionPath};
use crate::id::PublicId;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Flags of every session file's opening.
const SAFE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The purpose for which a session file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Makes the file, which must not exist; for writing.
    Create,
    /// Makes the file if there is none; each write appends.
    Append,
    /// Each write appends to a file that must exist.
    AppendExisting,
    /// Makes the file if there is none; for reading and writing.
    WriteOrCreate,
}

impl Access {
    fn flags(self) -> OFlags {
        SAFE | match self {
            Self::Read => OFlags::RDONLY,
            Self::Write => OFlags::RDWR,
            Self::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            Self::Append => OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
            Self::AppendExisting => OFlags::RDWR | OFlags::APPEND,
            Self::WriteOrCreate => OFlags::RDWR | OFlags::CREATE,
        }
    }
    fn mode(self, sharing: Sharing) -> Mode {
        match self {
            Self::Read | Self::Write | Self::AppendExisting => Mode::empty(),
            Self::Create | Self::Append | Self::WriteOrCreate => sharing.file(),
        }
    }
}

/// The store's root directory, held open: it stays the same directory whatever happens to its path. Clones share the
/// descriptor.
#[derive(Clone, Debug)]
pub(super) struct Root {
    fd: Arc<File>,
    path: PathBuf,
    kind: file_system::Kind,
    sharing: Sharing,
}

impl Root {
    /// Opens the directory, for one user. The path itself may lead through symbolic links; nothing below it may.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = File::from(call("open root", || fs::open(path, flags, Mode::empty()))?);
        let kind = file_system::Kind::of(&fd)?;
        Ok(Self { kind, fd: Arc::new(fd), path: path.to_owned(), sharing: Sharing::Private })
    }

    /// The same directory, whose files and directories are then made for other users.
    pub(super) fn shared_with(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// The users that the root's files and directories are for.
    pub(super) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The path by which the root was opened; for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself, for locking: a second descriptor of the same open file.
    pub(super) fn directory(&self) -> io::Result<File> {
        failpoint("copy root")?;
        self.fd.try_clone()
    }

    /// Whether the directory itself was removed. A removed directory has no name, and no file can be made in it.
    pub(super) fn is_removed(&self) -> io::Result<bool> {
        Ok(Stat::from(call("stat root", || fs::fstat(&self.fd))?).links == 0)
    }

    /// The names in the root.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        failpoint("list root")?;
        names(&self.fd)
    }

    /// Makes a directory below the root, and sets its mode whatever the umask. An existing directory is no error, with
    /// any mode, because an earlier call may have been interrupted before it set the mode.
    pub(super) fn make_directory(&self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            None => Ok(make_directory_in(self.fd.as_fd(), path, self.sharing)?),
            Some((parent, name)) => {
                let parent = self.open_directory_fd("open directory", parent)?;
                Ok(make_directory_in(parent.as_fd(), name, self.sharing)?)
            }
        }
    }

    /// Fails if a name in the root is not a directory's.
    pub(super) fn check_directory(&self, name: &str) -> io::Result<()> {
        let stat = call("check directory", || fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            Ok(())
        } else {
            Err(Errno::NOTDIR.into())
        }
    }

    /// Opens a directory below the root, name by name, not following a link.
    fn open_directory_fd(&self, why: &'static str, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        call(why, || match path.split_once('/') {
            None => fs::openat(&self.fd, path, flags, Mode::empty()),
            Some((parent, name)) => {
                let parent = fs::openat(&self.fd, parent, flags, Mode::empty())?;
                fs::openat(parent, name, flags, Mode::empty())
            }
        })
    }

    /// Opens a file in the root for reading, not following a link.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        let open = || fs::openat(&self.fd, name, OFlags::RDONLY | SAFE, Mode::empty());
        Ok(call("open file", open)?.into())
    }

    /// Forces the root's names to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(call("sync root", || fs::fsync(&self.fd))?)
    }

    /// Opens the shard directory of a session.
    pub(super) fn open_shard(&self, id: &PublicId) -> io::Result<Directory> {
        Ok(self.directory_at(self.open_directory_fd("open shard", &layout::shard_of(id))?))
    }

    /// Opens a directory below the root.
    pub(super) fn open_directory(&self, name: &str) -> io::Result<Directory> {
        Ok(self.directory_at(self.open_directory_fd("open directory", name)?))
    }

    fn directory_at(&self, fd: OwnedFd) -> Directory {
        Directory { fd, kind: self.kind, sharing: self.sharing }
    }

    /// The kind, inode and times of a file in the root.
    pub(super) fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(call("stat in root", || stat::stat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?)
    }

    /// The metadata of a file in the root, and the time of its last write.
    pub(super) fn stat_with_times(&self, name: &str) -> io::Result<StatWithTimes> {
        Ok(call("stat in root", || fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?.into())
    }

    /// Opens a session's file.
    pub(super) fn open_session(&self, path: &SessionPath, access: Access) -> io::Result<File> {
        let mode = access.mode(self.sharing);
        Ok(call("open session", || open_below(&self.fd, path, access, mode))?.into())
    }

    /// Which file a session's path leads to now.
    pub(super) fn inode_at(&self, path: &SessionPath) -> io::Result<Inode> {
        let stat = || stat::stat(&self.fd, path.below_root(), AtFlags::SYMLINK_NOFOLLOW);
        Ok(call("stat session", stat)?.inode)
    }
}

/// Makes a directory in another one; see [`Root::make_directory`].
fn make_directory_in(parent: BorrowedFd<'_>, name: &str, sharing: Sharing) -> Result<(), Errno> {
    let wanted = sharing.directory();
    match call("make directory", || fs::mkdirat(parent, name, wanted)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let look = || fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let mode = call("stat in root", look)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    if mode & 0o7777 == wanted.as_raw_mode() { Ok(()) } else { sharing::set_mode_in(parent, name, wanted) }
}

/// Opens a session's file below `root` in one call that follows no link.
#[cfg(target_os = "linux")]
fn open_below(root: &File, path: &SessionPath, access: Access, mode: Mode) -> Result<OwnedFd, Errno> {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    // Kernels before 5.6 lack `openat2`, and some container filters forbid it; one refusal is remembered.
    static MISSING: AtomicBool = AtomicBool::new(false);
    let open = |flags| {
        let resolve = fs::ResolveFlags::NO_SYMLINKS;
        fs::openat2(root, path.below_root(), flags, mode, resolve)
    };
    if MISSING.load(Relaxed) {
        return open_step_by_step(root, path, access, mode);
    }
    match without_atime(access.flags(), open) {
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => {
            let file = open_step_by_step(root, path, access, mode);
            // An immutable file is refused by both ways of opening, so `EPERM` alone does not show that `openat2` is
            // missing.
            MISSING.fetch_or(errno == Errno::NOSYS || file.is_ok(), Relaxed);
            file
        }
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
use open_step_by_step as open_below;

/// Opens with `O_NOATIME`: without that flag the first read after every save writes the inode, which costs more than
/// the read. The kernel refuses the flag for files of another owner, which are then opened without it.
#[cfg(target_os = "linux")]
fn without_atime(flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
fn without_atime(flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    open(flags)
}

/// The same as `open_below` in two calls: the shard, then the file in it.
fn open_step_by_step(root: &File, path: &SessionPath, access: Access, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let shard = fs::openat(root, &path.as_str()[..2], flags, Mode::empty())?;
    fs::openat(&shard, path.below_shard(), access.flags(), mode)
}

/// A directory in the root, held open while names in it change: a shard, or the expiry index.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    kind: file_system::Kind,
    sharing: Sharing,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens a session's file.
    pub(super) fn open(&self, path: &SessionPath, access: Access) -> io::Result<File> {
        let mode = access.mode(self.sharing);
        let open = |flags| fs::openat(&self.fd, path.below_shard(), flags, mode);
        Ok(call("open session in shard", || without_atime(access.flags(), open))?.into())
    }

    /// Makes a file that must not exist.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let mode = Access::Create.mode(self.sharing);
        Ok(call("create file", || fs::openat(&self.fd, name, Access::Create.flags(), mode))?.into())
    }

    /// Exchanges the names of a new file and of the file at `place`, in one step.
    ///
    /// Fails if no file is at `place`: a plain rename would bring back a session that a delete without the lock has
    /// removed meanwhile. File systems that cannot exchange names, and FUSE, get the plain rename.
    ///
    /// # Errors
    ///
    /// Any I/O error; nothing has changed.
    pub(super) fn exchange_or_rename(&self, name: &str, place: &CStr) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind.keeps_rename_flags() {
            match failpoint("exchange")
                .and_then(|()| fs::renameat_with(&self.fd, name, &self.fd, place, fs::RenameFlags::EXCHANGE))
            {
                Err(errno) if refuses_flags(errno) => {}
                result => return Ok(result?),
            }
        }
        self.stat(place)?;
        failpoint("rename")?;
        Ok(fs::renameat(&self.fd, name, &self.fd, place)?)
    }

    /// Removes a name. Returns whether it existed.
    pub(super) fn unlink(&self, name: impl rustix::path::Arg) -> io::Result<bool> {
        failpoint("unlink")?;
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a file another name, in place of any file that has that name. Returns whether the file existed.
    pub(super) fn rename(&self, name: &CStr, new_name: &str) -> io::Result<bool> {
        failpoint("rename")?;
        match fs::renameat(&self.fd, name, &self.fd, new_name) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes an empty directory. One that is not empty stays.
    pub(super) fn remove_directory(&self, name: &str) -> io::Result<()> {
        match call("remove directory", || fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names in this directory.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        failpoint("list directory")?;
        names(&self.fd)
    }

    /// The kind, inode and mode of a file in this directory.
    pub(super) fn stat(&self, name: impl rustix::path::Arg + Copy) -> io::Result<Stat> {
        failpoint("stat in directory")?;
        Ok(stat::stat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The metadata of a file in this directory, and the time of its last write.
    pub(super) fn stat_with_times(&self, name: &str) -> io::Result<StatWithTimes> {
        failpoint("stat in directory")?;
        Ok(fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// Opens a directory in this one, not following a link.
    pub(super) fn open_directory(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::openat(&self.fd, name, flags, Mode::empty());
        Ok(Self { fd: call("open directory", open)?, ..*self })
    }

    /// Opens a file by its name.
    pub(super) fn open_named(&self, name: &str, access: Access) -> io::Result<File> {
        let open = || fs::openat(&self.fd, name, access.flags(), access.mode(self.sharing));
        Ok(call("open file in directory", open)?.into())
    }

    /// Moves a file to another directory. Fails if the new name is taken.
    pub(super) fn move_to(
        &self,
        name: impl rustix::path::Arg + Copy,
        other: &Self,
        new_name: &str,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind.keeps_rename_flags() {
            let flags = fs::RenameFlags::NOREPLACE;
            match failpoint("move file")
                .and_then(|()| fs::renameat_with(&self.fd, name, &other.fd, new_name, flags))
            {
                Err(errno) if refuses_flags(errno) => {}
                result => return Ok(result?),
            }
        }
        self.move_step_by_step(name, other, new_name)
    }

    /// Moves a file in two calls, for file systems that cannot do it in one. A file that gets the new name between the
    /// two is replaced.
    fn move_step_by_step(
        &self,
        name: impl rustix::path::Arg,
        other: &Self,
        new_name: &str,
    ) -> io::Result<()> {
        match other.stat(new_name) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                failpoint("rename")?;
                Ok(fs::renameat(&self.fd, name, &other.fd, new_name)?)
            }
            Err(error) => Err(error),
        }
    }

    /// Forces the shard's names to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(call("sync shard", || fs::fsync(&self.fd))?)
    }

    /// Forces the shard's names to the disk after a file took another file's place or lost its name. After this call no
    /// power cut gives the old name back, not even a power cut after the newer file has lost it too.
    pub(super) fn sync_changed_name(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind.forgets_synced_exchanges() {
            return Ok(call("sync file system", || fs::syncfs(&self.fd))?);
        }
        self.sync()
    }
}

/// Whether the errno of a `renameat2` means that the flags are not supported: by an old kernel, by the file system
/// (`EOPNOTSUPP`), or by a filter of system calls (`EPERM`). If the rename itself is not permitted, the plain rename
/// fails with the same error.
#[cfg(target_os = "linux")]
fn refuses_flags(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
}

/// The names in a directory, without `.` and `..`.
fn names(directory: impl AsFd) -> io::Result<Vec<String>> {
    let entries = fs::Dir::read_from(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.filter(|name: &io::Result<String>| !matches!(name.as_deref(), Ok("." | ".."))).collect()
}

/// Makes a call that may be repeated, and repeats it if a signal interrupted it.
fn call<T>(name: &'static str, make: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    retry_on_intr(|| failpoint(name).and_then(|()| make()))
}

/// Each system call passes this failpoint first. In release builds it compiles to nothing.
#[cfg(not(any(test, sessile_fuzzing)))]
#[inline(always)]
#[expect(clippy::inline_always, clippy::unnecessary_wraps, reason = "it must vanish, and its twin can fail")]
pub(super) fn failpoint(_call: &'static str) -> Result<(), Errno> {
    Ok(())
}

/// The failpoint of a call that transfers `bytes`. Returns the number of bytes that it may transfer.
#[cfg(not(any(test, sessile_fuzzing)))]
#[inline(always)]
#[expect(clippy::inline_always, clippy::unnecessary_wraps, reason = "it must vanish, and its twin can fail")]
fn failpoint_len(_call: &'static str, bytes: usize) -> Result<usize, Errno> {
    Ok(bytes)
}

#[cfg(any(test, sessile_fuzzing))]
pub(super) use faults::failpoint;
#[cfg(any(test, sessile_fuzzing))]
use faults::failpoint_len;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use std::os::unix::fs::symlink;

    /// Kernels without `openat2` take two calls, and follow no more links than one does.
    #[test]
    fn opening_step_by_step_does_what_opening_at_once_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = SessionPath::of(&SessionId::random().unwrap().public_id());
        let (shard, elsewhere) = (dir.path().join(&path.as_str()[..2]), dir.path().join("elsewhere"));
        for open in [open_below, open_step_by_step] {
            let open = |access: Access| open(&root.fd, &path, access, access.mode(Sharing::Private));
            let refusal = |access| open(access).unwrap_err();
            assert_eq!(refusal(Access::Create), Errno::NOENT);
            root.make_directory(&path.as_str()[..2]).unwrap();
            assert_eq!(refusal(Access::Read), Errno::NOENT);
            let made = File::from(open(Access::Create).unwrap());
            assert_eq!(refusal(Access::Create), Errno::EXIST);
            let found = File::from(open(Access::Write).unwrap());
            assert_eq!(stat(&made).unwrap().inode, stat(&found).unwrap().inode);
            // The same file behind a link in place of the shard, then behind a link in its own place.
            std::fs::rename(&shard, &elsewhere).unwrap();
            symlink(&elsewhere, &shard).unwrap();
            assert!(open(Access::Read).is_err());
            std::fs::remove_file(&shard).unwrap();
            std::fs::rename(&elsewhere, &shard).unwrap();
            let file = dir.path().join(path.as_str());
            std::fs::rename(&file, dir.path().join("target")).unwrap();
            symlink(dir.path().join("target"), &file).unwrap();
            assert!(open(Access::Read).is_err());
            std::fs::remove_dir_all(&shard).unwrap();
        }
    }

    /// File systems without `RENAME_NOREPLACE` take two calls.
    #[test]
    fn moving_step_by_step_does_what_moving_at_once_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for name in ["from", "to"] {
            root.make_directory(name).unwrap();
        }
        let [from, to] = ["from", "to"].map(|name| root.open_directory(name).unwrap());
        let too_long = "x".repeat(300);
        for step_by_step in [false, true] {
            let go = |name| {
                let moved = if step_by_step {
                    from.move_step_by_step(c"file", &to, name)
                } else {
                    from.move_to(c"file", &to, name)
                };
                moved.map_err(|error| error.kind())
            };
            std::fs::write(dir.path().join("to/taken"), "theirs").unwrap();
            std::fs::write(dir.path().join("from/file"), "ours").unwrap();
            assert_eq!(go("taken"), Err(io::ErrorKind::AlreadyExists));
            assert_eq!(go(&too_long), Err(io::ErrorKind::InvalidFilename));
            assert_eq!(std::fs::read(dir.path().join("to/taken")).unwrap(), b"theirs");
            assert_eq!(go("free"), Ok(()));
            assert_eq!(std::fs::read(dir.path().join("to/free")).unwrap(), b"ours");
            std::fs::remove_file(dir.path().join("to/free")).unwrap();
            assert_eq!(go("free"), Err(io::ErrorKind::NotFound), "there is nothing to move");
        }
    }

    #[test]
    fn a_directory_is_made_private_or_an_error_is_returned() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let make = |name: &str| root.make_directory(name).map_err(|error| error.kind());
        assert_eq!(make(&"x".repeat(300)), Err(io::ErrorKind::InvalidFilename));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(make("file"), Err(io::ErrorKind::NotADirectory));
        std::fs::create_dir(dir.path().join("open")).unwrap();
        fs::chmodat(&root.fd, "open", Mode::from_raw_mode(0o777), AtFlags::empty()).unwrap();
        assert_eq!(make("open"), Ok(()));
        assert_eq!(root.stat("open").unwrap().mode, 0o700);
    }

    /// In a group's store, another user can put it there.
    #[test]
    fn the_making_of_a_directory_changes_no_mode_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, name) = (dir.path().join("elsewhere"), dir.path().join("store/name"));
        let mode = |path: &Path| stat(&File::open(path).unwrap()).unwrap().mode;
        let root = || Root::open(&dir.path().join("store")).unwrap().shared_with(Sharing::Group);
        let makings: [&dyn Fn() -> io::Result<()>; 2] =
            [&|| root().make_directory("name"), &|| set_mode_of_root(&name.join(""), Sharing::Group)];
        for make in makings {
            for path in [&dir.path().join("store"), &elsewhere, &name] {
                std::fs::create_dir(path).unwrap();
            }
            let (before, place, target) = (mode(&elsewhere), name.clone(), elsewhere.clone());
            let replace = move |_: usize, call: &'static str| {
                if ["change mode", "open directory"].contains(&call) && !place.is_symlink() {
                    std::fs::remove_dir(&place).unwrap();
                    symlink(&target, &place).unwrap();
                }
                None
            };
            let (result, calls) = faults::during(replace, make);
            assert!(name.is_symlink() && result.is_err(), "{result:?}, {calls:?}");
            assert_eq!(mode(&elsewhere), before);
            std::fs::remove_dir_all(dir.path().join("store")).unwrap();
            std::fs::remove_dir(&elsewhere).unwrap();
        }
    }

    /// Only the owner of a file may ask for it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_opens_where_noatime_is_not_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let open = |refusal: Option<Errno>| {
            without_atime(SAFE, |flags| match refusal {
                Some(errno) if flags.contains(OFlags::NOATIME) => Err(errno),
                _ => root.open_directory_fd("open", "."),
            })
        };
        assert!(open(None).is_ok() && open(Some(Errno::PERM)).is_ok());
        assert_eq!(open(Some(Errno::NOENT)).err(), Some(Errno::NOENT));
    }
}
