//! The logged disk: a file system of two files, served by this process through `/dev/fuse`.
//!
//! ```text
//! disk     the bytes of an image; a loop device turns it into a disk
//! notes    notes of the workload; each write is one note in the log
//! ```
//!
//! One thread serves both files, one request after the other, so the log has one order, the order of arrival. A write
//! is answered when it is in the log. The loop driver turns each flush of the disk into an `fsync` of its file, which
//! is answered when the flush is in the log. While a workload is recorded, no cache lies in between: every request to
//! the disk arrives here. While states are checked, the kernel caches pages and is notified of changes between states.
use crate::image::Image;
use crate::log::{Event, Micros, Note};
use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use parking_lot::{Mutex, MutexGuard};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DISK: INodeNo = INodeNo(2);
const NOTES: INodeNo = INodeNo(3);
const FILES: [(INodeNo, &str); 2] = [(DISK, "disk"), (NOTES, "notes")];
/// How long the kernel may cache names and sizes, which never change.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// Content of the disk, and the recorded events.
pub(crate) struct Contents {
    /// The bytes of the disk.
    pub(crate) image: Image,
    /// The events since the recording began; `None` while nothing is recorded.
    pub(crate) events: Option<Vec<Event>>,
}

impl Contents {
    fn record(&mut self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.events {
            events.push(event());
        }
    }
}

/// Whether the kernel caches pages of the disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The kernel caches pages. Its writes still arrive here at once.
    Kept,
    /// The kernel caches nothing: each read and each write arrives here unchanged.
    Direct,
}

/// A disk that is served until this value is dropped. Before that, all its users must have released it.
pub(crate) struct Disk {
    contents: Arc<Mutex<Contents>>,
    mountpoint: PathBuf,
    /// The connection to the kernel. It unmounts the disk's directory when it is dropped.
    session: BackgroundSession,
}

impl Disk {
    /// Serves an image in a directory, which is created.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, or the kernel does not permit the mount, which requires root and `/dev/fuse`.
    pub(crate) fn serve(image: Image, mountpoint: &Path, pages: Pages) -> Result<Self> {
        fs::create_dir_all(mountpoint).with_context(|| format!("create {}", mountpoint.display()))?;
        let bytes = image.len();
        let contents = Arc::new(Mutex::new(Contents { image, events: None }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("sessile-powercut".into())];
        let server = Server { contents: Arc::clone(&contents), bytes, pages };
        let session = fuser::spawn_mount(server, mountpoint, &config)
            .with_context(|| format!("serve a disk at {}", mountpoint.display()))?;
        Ok(Self { contents, mountpoint: mountpoint.to_owned(), session })
    }

    /// The path of the file that is the disk.
    pub(crate) fn path(&self) -> PathBuf {
        self.mountpoint.join("disk")
    }

    /// The path of the file to which notes are written.
    pub(crate) fn notes(&self) -> PathBuf {
        self.mountpoint.join("notes")
    }

    /// Changes the content of the disk while it is not mounted. Returns the result of `change`.
    ///
    /// # Errors
    ///
    /// The kernel rejects the notification.
    pub(crate) fn exchange<T>(&self, change: impl FnOnce(&mut Image) -> T) -> Result<T> {
        let (made, changed) = {
            let mut contents = self.contents();
            let made = change(&mut contents.image);
            (made, contents.image.take_changed())
        };
        let notifier = self.session.notifier();
        for range in changed {
            let bounds = i64::try_from(range.start).and_then(|start| Ok((start, i64::try_from(range.end)?)));
            let (start, end) = bounds.expect("a disk in memory is smaller than an i64 counts");
            notifier
                .inval_inode(DISK, start, end - start)
                .context("notify the kernel of changes on the disk")?;
        }
        Ok(made)
    }

    /// The contents of the disk. Requests of the kernel wait until the returned guard is dropped.
    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock()
    }
}

/// The present time in microseconds since 1970.
pub(crate) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

struct Server {
    contents: Arc<Mutex<Contents>>,
    bytes: u64,
    pages: Pages,
}

impl Server {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_directory = inode == INodeNo::ROOT;
        let size = if inode == DISK { self.bytes } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_directory { FileType::Directory } else { FileType::RegularFile },
            perm: if is_directory { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Applies a write to one of the two files. Bytes that are no valid note, or lie beyond the end of the disk, are an
    /// error.
    fn take(&self, inode: INodeNo, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let mut contents = self.contents.lock();
        if inode == NOTES {
            let note: Note = postcard::from_bytes(data).map_err(|_| Errno::EINVAL)?;
            contents.record(|| Event::Note { at: now(), note });
            return Ok(());
        }
        if offset.saturating_add(data.len() as u64) > self.bytes {
            return Err(Errno::ENOSPC);
        }
        contents.image.write(offset, data);
        contents.record(|| Event::Write { offset, bytes: data.to_vec() });
        Ok(())
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match FILES.iter().find(|(_, known)| name == *known) {
            Some((inode, _)) => reply.entry(&FOREVER, &self.attributes(*inode), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let kept = inode == DISK && self.pages == Pages::Kept;
        reply.opened(
            FileHandle(0),
            if kept { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_DIRECT_IO },
        );
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = if inode == DISK { self.bytes.saturating_sub(offset).min(size.into()) } else { 0 };
        let length = usize::try_from(length).expect("no longer than what was asked for");
        let bytes = self.contents.lock().image.read(offset, length);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.take(inode, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("a request is smaller than 4 GiB")),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if inode == DISK {
            self.contents.lock().record(|| Event::Flush);
        }
        reply.ok();
    }

    /// Closing a file flushes no data.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// The disk supports neither discards nor fast zeroing; the kernel then writes zeroes.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn readdir(&self, _: &Request, _inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (inode, name)) in FILES.iter().enumerate().skip(skip) {
            if reply.add(*inode, position as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
