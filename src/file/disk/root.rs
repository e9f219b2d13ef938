//! System calls relative to the store's root directory: listing it, making directories in it, opening directories and
//! session files.
use super::{Access, Directory, Inode, SAFE, Sharing, Stat, StatWithTimes, call, failpoint};
use super::{names, sharing, stat, without_atime};
use crate::file::layout::{self, SessionPath, UserBucketPath};
use crate::file_system::Kind;
use crate::id::PublicId;
use memchr::memchr;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The open root directory of a store. If its path is renamed or replaced, this remains the directory that was opened.
/// Clones share the descriptor.
#[derive(Clone, Debug)]
pub(in crate::file) struct Root {
    pub(super) fd: Arc<File>,
    path: PathBuf,
    pub(super) kind: Kind,
    pub(super) sharing: Sharing,
}

impl Root {
    /// Opens the root of a private store. Its path may lead through symbolic links; paths below it may not.
    pub(in crate::file) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = File::from(call("open root", || fs::open(path, flags, Mode::empty()))?);
        let kind = call("stat file system", || Kind::of(&fd))?;
        Ok(Self { kind, fd: Arc::new(fd), path: path.to_owned(), sharing: Sharing::Private })
    }

    /// The same directory. Files and directories that are made through the returned value get the modes for these
    /// users.
    pub(in crate::file) fn shared_with(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// Which users the files and directories below this root are made for.
    pub(in crate::file) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The path by which the root was opened. It is used in messages only.
    pub(in crate::file) fn path(&self) -> &Path {
        &self.path
    }

    /// A second descriptor of the same open directory, for locking it.
    pub(in crate::file) fn directory(&self) -> io::Result<File> {
        failpoint("copy root")?;
        self.fd.try_clone()
    }

    /// Whether the directory itself was removed. A removed directory has no name, and no file can be made in it.
    pub(in crate::file) fn is_removed(&self) -> io::Result<bool> {
        Ok(Stat::from(call("stat root", || fs::fstat(&self.fd))?).links == 0)
    }

    /// The names in the root.
    pub(in crate::file) fn names(&self) -> io::Result<Vec<String>> {
        failpoint("list root")?;
        names(&self.fd)
    }

    /// Makes a directory below the root, and sets its mode, because the umask may have cleared bits. An existing
    /// directory with another mode is no error: an earlier call may have been interrupted between making the directory
    /// and setting its mode. Its mode is set, too.
    pub(in crate::file) fn make_directory(&self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            None => Ok(make_directory_in(self.fd.as_fd(), path, self.sharing)?),
            Some((parent, name)) => {
                let parent = self.open_directory_fd("open directory", parent)?;
                Ok(make_directory_in(parent.as_fd(), name, self.sharing)?)
            }
        }
    }

    /// Returns an error if `name` in the root is missing or leads to anything but a directory.
    pub(in crate::file) fn check_directory(&self, name: &str) -> io::Result<()> {
        let stat = call("check directory", || fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            Ok(())
        } else {
            Err(Errno::NOTDIR.into())
        }
    }

    /// Opens a directory below the root, at most two levels deep. A symbolic link in place of a directory is an error.
    /// `why` is the name of the failpoint.
    pub(super) fn open_directory_fd(&self, why: &'static str, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        call(why, || match path.split_once('/') {
            None => fs::openat(&self.fd, path, flags, Mode::empty()),
            Some((parent, name)) => {
                let parent = fs::openat(&self.fd, parent, flags, Mode::empty())?;
                fs::openat(parent, name, flags, Mode::empty())
            }
        })
    }

    /// Opens a file in the root for reading. A symbolic link in its place is an error.
    pub(in crate::file) fn open_file(&self, name: &str) -> io::Result<File> {
        let open = || fs::openat(&self.fd, name, OFlags::RDONLY | SAFE, Mode::empty());
        Ok(call("open file", open)?.into())
    }

    /// Syncs the root: the names in it survive a power cut.
    pub(in crate::file) fn sync(&self) -> io::Result<()> {
        Ok(call("sync root", || fs::fsync(&self.fd))?)
    }

    /// Opens the shard directory of a session.
    pub(in crate::file) fn open_shard(&self, id: &PublicId) -> io::Result<Directory> {
        Ok(self.directory_at(self.open_directory_fd("open shard", &layout::shard_of(id))?))
    }

    /// Opens a directory below the root.
    pub(in crate::file) fn open_directory(&self, name: &str) -> io::Result<Directory> {
        Ok(self.directory_at(self.open_directory_fd("open directory", name)?))
    }

    pub(super) fn directory_at(&self, fd: OwnedFd) -> Directory {
        Directory { fd, kind: self.kind, sharing: self.sharing }
    }

    /// The kind, inode and mode of a file in the root, without its times.
    pub(in crate::file) fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(call("stat in root", || stat::stat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?)
    }

    /// The metadata of a file in the root, with the time of its last write.
    pub(in crate::file) fn stat_with_times(&self, name: &str) -> io::Result<StatWithTimes> {
        Ok(call("stat in root", || fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?.into())
    }

    /// Opens a session file by its path below the root.
    pub(in crate::file) fn open_session(&self, path: &SessionPath, access: Access) -> io::Result<File> {
        let mode = access.mode(self.sharing);
        Ok(call("open session", || open_below(&self.fd, path.below_root(), access, mode))?.into())
    }

    /// Opens a bucket of the user index by its path below the root.
    pub(in crate::file) fn open_user_bucket(&self, bucket: u16, access: Access) -> io::Result<File> {
        let (path, mode) = (UserBucketPath::of(bucket), access.mode(self.sharing));
        Ok(call("open user bucket", || open_below(&self.fd, path.below_root(), access, mode))?.into())
    }

    /// The inode of the file to which a session's path leads now.
    pub(in crate::file) fn inode_at(&self, path: &SessionPath) -> io::Result<Inode> {
        let stat = || stat::stat(&self.fd, path.below_root(), AtFlags::SYMLINK_NOFOLLOW);
        Ok(call("stat session", stat)?.inode)
    }
}

/// Makes the directory `name` in `parent`; see [`Root::make_directory`].
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

/// Opens a file below `root` in one system call, which follows no symbolic link.
#[cfg(target_os = "linux")]
fn open_below(root: &File, path: &CStr, access: Access, mode: Mode) -> Result<OwnedFd, Errno> {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    // Whether `openat2` is missing. Kernels before 5.6 lack it, and the system-call filters of some containers forbid
    // it. One refusal is remembered, so that later opens do not try it again.
    static MISSING: AtomicBool = AtomicBool::new(false);
    let open = |flags| {
        let resolve = fs::ResolveFlags::NO_SYMLINKS;
        fs::openat2(root, path, flags, mode, resolve)
    };
    if MISSING.load(Relaxed) {
        return open_step_by_step(root, path, access, mode);
    }
    match without_atime(access.flags(), open) {
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => {
            let file = open_step_by_step(root, path, access, mode);
            // An immutable file cannot be opened for writing by either function, with `EPERM`. So `EPERM` shows that
            // `openat2` is missing only if the other function opens the file.
            MISSING.fetch_or(errno == Errno::NOSYS || file.is_ok(), Relaxed);
            file
        }
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
use open_step_by_step as open_below;

/// Does the same as `open_below` in one system call for each directory on the path and one for the file.
fn open_step_by_step(root: &File, path: &CStr, access: Access, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let names = path.to_bytes();
    let (mut directory, mut at) = (None::<OwnedFd>, 0);
    while let Some(length) = memchr(b'/', &names[at..]) {
        let parent = directory.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        directory = Some(fs::openat(parent, &names[at..at + length], flags, Mode::empty())?);
        at += length + 1;
    }
    let name = CStr::from_bytes_with_nul(&path.to_bytes_with_nul()[at..]).expect("the end of a C string");
    fs::openat(directory.as_ref().map_or(root.as_fd(), AsFd::as_fd), name, access.flags(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::disk::{faults, set_mode_of_root, stat};
    use crate::id::SessionId;
    use std::os::unix::fs::symlink;

    /// Without `openat2`, an open takes a system call for each name of the path. They follow no more links than the one
    /// call does.
    #[test]
    fn opening_step_by_step_does_what_opening_at_once_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = SessionPath::of(&SessionId::random().unwrap().public_id());
        let (shard, elsewhere) = (dir.path().join(&path.as_str()[..2]), dir.path().join("elsewhere"));
        for open in [open_below, open_step_by_step] {
            let open =
                |access: Access| open(&root.fd, path.below_root(), access, access.mode(Sharing::Private));
            let refusal = |access| open(access).unwrap_err();
            assert_eq!(refusal(Access::Create), Errno::NOENT);
            root.make_directory(&path.as_str()[..2]).unwrap();
            assert_eq!(refusal(Access::Read), Errno::NOENT);
            let made = File::from(open(Access::Create).unwrap());
            assert_eq!(refusal(Access::Create), Errno::EXIST);
            let found = File::from(open(Access::Write).unwrap());
            assert_eq!(stat(&made).unwrap().inode, stat(&found).unwrap().inode);
            // A link to the shard in place of the shard, and then a link to the file in place of the file.
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

    #[test]
    fn a_bucket_of_the_user_index_is_opened_behind_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for name in ["run", "run/users"] {
            root.make_directory(name).unwrap();
        }
        std::fs::write(dir.path().join("run/users/007"), "bucket").unwrap();
        let (path, access) = (UserBucketPath::of(7), Access::AppendExisting);
        for open in [open_below, open_step_by_step] {
            let open = || open(&root.fd, path.below_root(), access, access.mode(Sharing::Private));
            assert_eq!(stat(&File::from(open().unwrap())).unwrap().bytes, 6);
            for name in ["run", "run/users", "run/users/007"] {
                let (name, elsewhere) = (dir.path().join(name), dir.path().join("elsewhere"));
                std::fs::rename(&name, &elsewhere).unwrap();
                assert_eq!(open().unwrap_err(), Errno::NOENT);
                symlink(&elsewhere, &name).unwrap();
                assert!([Errno::LOOP, Errno::NOTDIR].contains(&open().unwrap_err()), "{name:?}");
                std::fs::remove_file(&name).unwrap();
                std::fs::rename(&elsewhere, &name).unwrap();
            }
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

    /// In a store of a group, another user of the group can replace the new directory by a link before its mode is set.
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
}
