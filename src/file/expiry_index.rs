//! The expiry index: for each session, the time at which a sweep must examine it. The index is a hint; the session
//! files are the authority.
//!
//! The index is the directory `run/due`. It has a file for each hour, a *bucket*, which lists the sessions that expire
//! in that hour. The bytes of a bucket are in [`format`](crate::_documentation::format).
//!
//! - **Inserted before the session is created.** A session is appended to the bucket of its deadline before its file is
//!   created, and again when its deadline moves to an *earlier* bucket. If the deadline moves to a later one, as at
//!   each renewal, nothing is written: the sweep of the earlier bucket finds the session alive, and inserts it again.
//! - **Append-only.** Any number of processes append, with one `write` for each entry. Only the sweep, under its lock,
//!   overwrites: it fills entries with zeros when they are done, in a bucket that may still grow. It also removes the
//!   buckets of hours that are over.
//! - **Best effort.** A failed insertion is counted, and fails no operation, because a sweep reads all session files in
//!   the course of 256 hours.
//! - **Every entry is checksummed.** If bytes are no valid entry (a torn tail, garbage), they are skipped one by one
//!   until an entry verifies. An entry of a session that was deleted, renewed or never created costs the sweep one
//!   read.
//!
//! With one bucket for each hour, two weeks are 336 files, whatever the number of sessions. No session is inserted more
//! than 30 days ahead, so that lifetimes of years do not create a file for each of their hours. The sweep inserts such
//! a session again every 30 days.
use super::disk::{self, Access, Directory, Root};
use super::errors::io_error;
use super::layout::{DUE, SWEEP};
use super::run;
use crate::error::Result;
use crate::id::PublicId;
use crate::sync::RwLock;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// The time of one bucket, an hour, in microseconds.
pub(super) const BUCKET_MICROS: u64 = 3_600_000_000;
/// The number of buckets ahead of the current one that sessions are inserted in, at most: 30 days.
const AHEAD_MAX: u64 = 30 * 24;
/// The number of buckets that a store keeps open for later insertions. A program has about as many different lifetimes
/// of sessions.
const OPEN_MAX: usize = 4;
/// The number of attempts to append one entry. An attempt fails only if a sweep has removed the bucket meanwhile.
const OPENINGS_MAX: u32 = 32;

/// The latest deadline that an entry can have, in microseconds since 1970: in the year 6536. Seven bits of each entry
/// are therefore zero, so garbage is mostly rejected before its hash is computed.
pub(super) const DEADLINE_MAX: u64 = (1 << 57) - 1;

pub(super) const ENTRY_BYTES: usize = PublicId::LEN + 8 + 4;
/// The number of bytes of a bucket that are read at once: 32,768 entries. Under the fuzzer a page, because its buckets
/// are small.
const CHUNK_BYTES: usize = if cfg!(sessile_fuzzing) { 1 << 12 } else { 1 << 20 };

/// One entry of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) id: PublicId,
    /// The deadline that the session had when it was inserted, in microseconds since 1970.
    pub(super) deadline: u64,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..PublicId::LEN].copy_from_slice(self.id.as_bytes());
        bytes[PublicId::LEN..][..8].copy_from_slice(&self.deadline.min(DEADLINE_MAX).to_le_bytes());
        let check = check_of(&bytes);
        bytes[ENTRY_BYTES - 4..].copy_from_slice(&check);
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<{ PublicId::LEN }>()?;
        let deadline = u64::from_le_bytes(*rest.first_chunk()?);
        (deadline <= DEADLINE_MAX && bytes[ENTRY_BYTES - 4..] == check_of(bytes))
            .then_some(Self { id: PublicId::from_bytes(*id), deadline })
    }
}

fn check_of(entry: &[u8; ENTRY_BYTES]) -> [u8; 4] {
    let hash = blake3::hash(&entry[..ENTRY_BYTES - 4]);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The number of the bucket for a deadline: the hour since 1970, but not before the current hour, and not more than 30
/// days after it.
pub(super) fn bucket_of(deadline: u64, now: u64) -> u64 {
    let current = now / BUCKET_MICROS;
    (deadline / BUCKET_MICROS).clamp(current, current + AHEAD_MAX)
}

/// The part of the index that inserts sessions, for one open store.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex {
    /// The open buckets with their numbers.
    open: RwLock<Vec<(u64, File)>>,
    index_failures: AtomicU64,
}

impl ExpiryIndex {
    /// Inserts a session. A failure is counted and not returned, because a sweep will find the session's file without
    /// the index.
    pub(super) fn insert(&self, root: &Root, entry: Entry, now: u64) {
        if self.try_insert(root, entry, now).is_err() {
            self.index_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Inserts a session whose deadline was `before`, if the new deadline is in an earlier bucket.
    pub(super) fn insert_if_earlier(&self, root: &Root, entry: Entry, before: u64, now: u64) {
        if entry.deadline < before && bucket_of(entry.deadline, now) < bucket_of(before, now) {
            self.insert(root, entry, now);
        }
    }

    /// The number of failed insertions since the store was opened.
    pub(super) fn index_failures(&self) -> u64 {
        self.index_failures.load(Ordering::Relaxed)
    }

    /// Inserts an entry.
    pub(super) fn try_insert(&self, root: &Root, entry: Entry, now: u64) -> io::Result<()> {
        let bucket = bucket_of(entry.deadline, now);
        let bytes = entry.to_bytes();
        {
            let open = self.open.read();
            if let Some((_, file)) = open.iter().find(|(number, _)| *number == bucket)
                && append(root, file, &bytes)?
            {
                return Ok(());
            }
        }
        for _ in 0..OPENINGS_MAX {
            let file = open_bucket(root, bucket)?;
            // If the append returns false, a sweep has removed the bucket, because its hour has ended meanwhile. The
            // next attempt makes it again.
            if append(root, &file, &bytes)? {
                self.keep_open(bucket, file);
                return Ok(());
            }
        }
        Err(io::Error::other("the bucket was removed again and again"))
    }

    /// Keeps a bucket open for later insertions.
    fn keep_open(&self, bucket: u64, file: File) {
        let mut open = self.open.write();
        open.retain(|(number, _)| *number != bucket);
        if open.len() == OPEN_MAX {
            // The bucket of the earliest hour is closed: its hour is the next to end.
            open.sort_by_key(|(number, _)| *number);
            open.remove(0);
        }
        open.push((bucket, file));
    }
}

/// Appends an entry to a bucket. Returns whether the bucket still had its name afterwards. A sweep removes the name
/// first, and then reads the rest of the bucket. So an entry in a bucket that still has its name will be read.
fn append(root: &Root, bucket: &File, entry: &[u8; ENTRY_BYTES]) -> io::Result<bool> {
    disk::append(bucket, entry)?;
    let stat = disk::stat(bucket)?;
    root.sharing().repair_mode(bucket, &stat)?;
    Ok(stat.links > 0)
}

/// Opens a bucket for appending. Creates the bucket, and the directory of the index, if they are missing.
fn open_bucket(root: &Root, bucket: u64) -> io::Result<File> {
    let open = || root.open_directory(DUE)?.open_named(&bucket.to_string(), Access::Append);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(root)?;
            open()
        }
        opened => opened,
    }
}

/// Creates the directory of the index, `run/due`. Buckets are created when they are needed.
pub(super) fn make_directory(root: &Root) -> io::Result<()> {
    run::make(root)?;
    root.make_directory(DUE)
}

/// Creates the index of a new store. The store has no session that the index could lack, so the current hour is
/// recorded as that of the last walk (the reading of all files of some shards by a sweep).
pub(super) fn create(root: &Root, now: u64) -> Result<()> {
    let created = (|| {
        make_directory(root)?;
        let marker = root.open_directory(DUE)?.open_named(SWEEP, Access::WriteOrCreate)?;
        root.sharing().repair_mode(&marker, &disk::stat(&marker)?)?;
        write_last_walk(&marker, now / BUCKET_MICROS)
    })();
    created.map_err(|error| io_error("make expiry index", error).with_path(root.path().join(DUE)))
}

/// The hour of the last walk, from the first line of the file `sweep`: 20 digits and a line feed. `None` if the line
/// holds no number.
pub(super) fn read_last_walk(marker: &File) -> Option<u64> {
    // Only the first line is read.
    let text = disk::read_at(marker, 0, 21).ok()?;
    str::from_utf8(&text).ok()?.trim().parse().ok()
}

pub(super) fn write_last_walk(marker: &File, hour: u64) -> io::Result<()> {
    // The number is padded to 20 characters, so that no digit of an earlier number remains.
    disk::write_at(marker, format!("{hour:20}\n").as_bytes(), 0)
}

/// The number of bytes of one line of the file `sweep`.
const SWEEP_LINE: usize = 21;

/// The number of the last cut-off that a walk of all shards has taken into account, from the second line of the file
/// `sweep`; `None` if the line holds no number.
pub(super) fn read_walked_cut_off(marker: &File) -> Option<u64> {
    let text = disk::read_at(marker, SWEEP_LINE as u64, SWEEP_LINE).ok()?;
    str::from_utf8(&text).ok()?.trim().parse().ok()
}

pub(super) fn write_walked_cut_off(marker: &File, number: u64) -> io::Result<()> {
    disk::write_at(marker, format!("{number:20}\n").as_bytes(), SWEEP_LINE as u64)
}

/// Reads a bucket from its beginning to its current end.
pub(super) struct Reader {
    pub(super) file: File,
    at: u64,
}

impl Reader {
    pub(super) fn open(index: &Directory, bucket: u64, access: Access) -> io::Result<Self> {
        Ok(Self { file: index.open_named(&bucket.to_string(), access)?, at: 0 })
    }

    /// Reads the next chunk of the bucket, and returns its entries with their offsets. A chunk may have no valid entry.
    /// `None` at the end of the file. If entries are appended after that, the next call returns them.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<(u64, Entry)>>> {
        let bytes = disk::read_at(&self.file, self.at, CHUNK_BYTES)?;
        let (entries, consumed) = parse(&bytes);
        let from = self.at;
        self.at += consumed as u64;
        let entries = entries.into_iter().map(|(offset, entry)| (from + offset as u64, entry));
        Ok((consumed > 0).then(|| entries.collect()))
    }
}

/// The entries in `bytes` with their offsets, and the number of bytes that were parsed. The remaining bytes are fewer
/// than an entry has.
fn parse(bytes: &[u8]) -> (Vec<(usize, Entry)>, usize) {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some(frame) = bytes[at..].first_chunk::<ENTRY_BYTES>() {
        if *frame == [0; ENTRY_BYTES] {
            at += ENTRY_BYTES;
        } else if let Some(entry) = Entry::from_bytes(frame) {
            entries.push((at, entry));
            at += ENTRY_BYTES;
        } else {
            at += 1;
        }
    }
    (entries, at)
}

/// Fills the entries at these offsets with zeros. The offsets are in ascending order; adjacent entries are overwritten
/// with one call.
pub(super) fn erase(file: &File, offsets: &[u64]) -> io::Result<()> {
    const ZEROS: [u8; 128 * ENTRY_BYTES] = [0; 128 * ENTRY_BYTES];
    const ONE: u64 = ENTRY_BYTES as u64;
    let neighbours = |a: &u64, b: &u64| a + ONE == *b;
    for run in offsets.chunk_by(neighbours).flat_map(|run| run.chunks(128)) {
        disk::write_at(file, &ZEROS[..run.len() * ENTRY_BYTES], run[0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::disk::faults::during;
    use std::os::unix::fs::PermissionsExt;

    fn entry(n: u64) -> Entry {
        Entry { id: PublicId::digest(&n.to_le_bytes()), deadline: n }
    }
    fn bytes_of(entries: impl IntoIterator<Item = u64>) -> Vec<u8> {
        entries.into_iter().flat_map(|n| entry(n).to_bytes()).collect()
    }
    #[track_caller]
    fn check(bytes: &[u8], want: &[u64]) {
        let (entries, consumed) = parse(bytes);
        assert_eq!(
            entries.iter().map(|(_, found)| *found).collect::<Vec<_>>(),
            want.iter().map(|n| entry(*n)).collect::<Vec<_>>()
        );
        assert!(bytes.len() - consumed < ENTRY_BYTES, "{consumed} of {}", bytes.len());
        for (offset, found) in entries {
            assert_eq!(bytes[offset..][..ENTRY_BYTES], found.to_bytes());
        }
    }
    /// The middle of an hour, in microseconds.
    fn at(hour: u64) -> u64 {
        hour * BUCKET_MICROS + BUCKET_MICROS / 2
    }
    fn store() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }
    fn read(root: &Root, bucket: u64) -> Vec<Entry> {
        let mut reader = Reader::open(&root.open_directory(DUE).unwrap(), bucket, Access::Read).unwrap();
        reader.next().unwrap().into_iter().flatten().map(|(_, entry)| entry).collect()
    }

    #[test]
    fn entries_are_found_behind_torn_erased_and_garbage_bytes() {
        check(&[], &[]);
        check(&bytes_of(1..=3), &[1, 2, 3]);
        for torn in (1..ENTRY_BYTES).step_by(if cfg!(miri) { 17 } else { 1 }) {
            check(&[&bytes_of([1])[..], &bytes_of([2])[..torn], &bytes_of([3, 4])].concat(), &[1, 3, 4]);
            check(&bytes_of([1, 2])[..ENTRY_BYTES + torn], &[1]);
        }
        let garbage: Vec<u8> =
            (0..if cfg!(miri) { 100 } else { 1000_u32 }).map(|n| (n * 7 % 251) as u8).collect();
        check(&[&garbage[..], &bytes_of([5, 6])].concat(), &[5, 6]);
        check(&[&[0; 3 * ENTRY_BYTES][..], &bytes_of([7])].concat(), &[7]);
        // An erased entry after a torn one: its zeros are not at a multiple of an entry's size.
        check(&[&bytes_of([1])[..11], &[0; 2 * ENTRY_BYTES], &bytes_of([8])].concat(), &[8]);
    }

    #[test]
    fn no_flipped_bit_makes_another_entry() {
        let bytes = bytes_of([9]);
        for bit in (0..8 * ENTRY_BYTES).step_by(if cfg!(miri) { 37 } else { 1 }) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, &[]);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn an_entry_goes_to_its_hour_but_not_to_the_past_or_far_ahead() {
        assert_eq!(bucket_of(at(1000), at(990)), 1000);
        assert_eq!(bucket_of(at(10), at(990)), 990);
        assert_eq!(bucket_of(u64::MAX, at(990)), 990 + 720);
        let (_dir, root) = store();
        let index = ExpiryIndex::default();
        index.insert(&root, Entry { deadline: at(14), ..entry(1) }, at(10));
        index.insert(&root, Entry { deadline: at(3), ..entry(2) }, at(10));
        assert_eq!(read(&root, 14), [Entry { deadline: at(14), ..entry(1) }]);
        assert_eq!(read(&root, 10), [Entry { deadline: at(3), ..entry(2) }]);
        assert_eq!(index.index_failures(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn only_a_move_to_an_earlier_hour_is_inserted_again() {
        let (dir, root) = store();
        let index = ExpiryIndex::default();
        let id = entry(1).id;
        let quarter = BUCKET_MICROS / 4;
        index.insert_if_earlier(&root, Entry { id, deadline: at(21) }, at(20), at(10));
        index.insert_if_earlier(&root, Entry { id, deadline: at(20) }, at(20), at(10));
        index.insert_if_earlier(&root, Entry { id, deadline: at(20) - quarter }, at(20), at(10));
        // Both deadlines are more than 30 days ahead, so both are in the last bucket, and nothing is inserted.
        index.insert_if_earlier(&root, Entry { id, deadline: at(8000) }, at(9000), at(10));
        assert!(!dir.path().join(DUE).exists());
        index.insert_if_earlier(&root, Entry { id, deadline: at(12) }, at(20), at(10));
        assert_eq!(read(&root, 12).len(), 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn erased_entries_are_not_read_again_and_later_ones_are() {
        let (_dir, root) = store();
        let index = ExpiryIndex::default();
        let now = at(5);
        let file = |n: u64| index.try_insert(&root, Entry { deadline: now, ..entry(n) }, now).unwrap();
        (0..1000).for_each(file);
        let open = || Reader::open(&root.open_directory(DUE).unwrap(), 5, Access::Write).unwrap();
        let offsets_of = |reader: &mut Reader| -> Vec<u64> {
            reader.next().unwrap().into_iter().flatten().map(|(offset, _)| offset).collect()
        };
        let mut reader = open();
        let mut left = offsets_of(&mut reader);
        assert_eq!(left.len(), 1000);
        let erase = |left: &mut Vec<u64>, which: &dyn Fn(u64) -> bool| {
            let struck: Vec<_> = left.extract_if(.., |offset| which(*offset / 32)).collect();
            assert!(!struck.is_empty());
            erase(&reader.file, &struck).unwrap();
            assert_eq!(offsets_of(&mut open()), *left);
        };
        // Runs of entries to erase: as many as one write erases, one more, many more, single ones, every seventh, and
        // every second.
        erase(&mut left, &|n| n < 128);
        erase(&mut left, &|n| (200..=328).contains(&n));
        erase(&mut left, &|n| n > 500);
        erase(&mut left, &|n| n == 401 || n == 432);
        erase(&mut left, &|n| n % 7 == 3);
        erase(&mut left, &|n| n % 2 == 0);
        file(1000);
        assert_eq!(offsets_of(&mut reader), [32_000], "the one that was appended");
        assert!(reader.next().unwrap().is_none());
        assert_eq!(read(&root, 5).len(), left.len() + 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_removed_bucket_or_index_is_recreated() {
        let (dir, root) = store();
        let index = ExpiryIndex::default();
        let now = at(5);
        for n in 0..3 {
            index.try_insert(&root, Entry { deadline: now, ..entry(n) }, now).unwrap();
            assert_eq!(read(&root, 5).len(), 1, "round {n}");
            match n {
                0 => std::fs::remove_file(dir.path().join(DUE).join("5")).unwrap(),
                _ => std::fs::remove_dir_all(dir.path().join(DUE)).unwrap(),
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn few_buckets_stay_open_and_a_failed_insertion_is_counted() {
        let (dir, root) = store();
        let index = ExpiryIndex::default();
        for hour in 5..50 {
            index.insert(&root, Entry { deadline: at(hour), ..entry(hour) }, at(5));
            assert!(index.open.read().len() <= OPEN_MAX);
        }
        let numbers = || index.open.read().iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!(numbers(), [46, 47, 48, 49]);
        // A bucket that was removed is opened again, and is in the list of open buckets once.
        std::fs::remove_file(dir.path().join(DUE).join("48")).unwrap();
        index.insert(&root, Entry { deadline: at(48), ..entry(48) }, at(5));
        assert_eq!(numbers(), [46, 47, 49, 48]);
        for hour in 5..50 {
            assert_eq!(read(&root, hour).len(), 1);
        }
        std::fs::remove_dir_all(dir.path().join(DUE)).unwrap();
        std::fs::write(dir.path().join(DUE), "in the way").unwrap();
        index.insert(&root, Entry { deadline: at(7), ..entry(1) }, at(5));
        assert_eq!(index.index_failures(), 1);
    }

    #[test]
    fn a_deadline_beyond_the_maximum_is_clamped_and_never_read() {
        for (deadline, want) in
            [(0, 0), (DEADLINE_MAX, DEADLINE_MAX), (DEADLINE_MAX + 1, DEADLINE_MAX), (u64::MAX, DEADLINE_MAX)]
        {
            let bytes = Entry { deadline, ..entry(1) }.to_bytes();
            assert_eq!(Entry::from_bytes(&bytes), Some(Entry { deadline: want, ..entry(1) }));
        }
        assert_eq!(DEADLINE_MAX, u64::MAX >> 7);
        let mut bytes = entry(1).to_bytes();
        bytes[PublicId::LEN..][..8].copy_from_slice(&(DEADLINE_MAX + 1).to_le_bytes());
        let check = check_of(&bytes);
        bytes[ENTRY_BYTES - 4..].copy_from_slice(&check);
        assert_eq!(Entry::from_bytes(&bytes), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_bucket_of_several_chunks_is_read_to_its_end() {
        let (_dir, root) = store();
        let index = ExpiryIndex::default();
        index.insert(&root, Entry { deadline: at(5), ..entry(0) }, at(5));
        let mut reader = Reader::open(&root.open_directory(DUE).unwrap(), 5, Access::Append).unwrap();
        let count = CHUNK_BYTES as u64 / 32 + 7;
        let bytes = [&[1; 11][..], &bytes_of(1..=count), &[2; ENTRY_BYTES - 1]].concat();
        disk::append(&reader.file, &bytes).unwrap();
        reader = Reader::open(&root.open_directory(DUE).unwrap(), 5, Access::Read).unwrap();
        let mut found = Vec::new();
        while let Some(some) = reader.next().unwrap() {
            found.extend(some);
        }
        assert_eq!(found.len() as u64, 1 + count);
        for (n, (offset, found)) in found[1..].iter().enumerate() {
            assert_eq!((*offset, *found), (43 + 32 * n as u64, entry(1 + n as u64)));
        }
        // Bytes that are too short for an entry may be the beginning of one.
        assert!(reader.next().unwrap().is_none());
        let last = entry(count + 1).to_bytes();
        let end = Reader::open(&root.open_directory(DUE).unwrap(), 5, Access::Append).unwrap();
        disk::append(&end.file, &last).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().len(), 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn a_bucket_that_others_can_read_is_made_private() {
        let (dir, root) = store();
        let index = ExpiryIndex::default();
        let file = || index.try_insert(&root, entry(1), 0).unwrap();
        file();
        let bucket = dir.path().join(DUE).join("0");
        std::fs::set_permissions(&bucket, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(during(|_, _| None, file).1, ["append", "stat file", "change mode"]);
        assert_eq!(std::fs::metadata(&bucket).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(during(|_, _| None, file).1, ["append", "stat file"]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri opens no directory by its descriptor")]
    fn each_failing_call_of_an_insertion_is_an_error() {
        let (dir, root) = store();
        let index = ExpiryIndex::default();
        let file = || index.try_insert(&root, entry(1), 0);
        // The store has no index, or a bucket that is not open yet, or an open bucket.
        for (prepare, calls) in [
            (dir.path().join(DUE), &["open directory", "make directory", "open directory"][..]),
            (dir.path().join(DUE).join("0"), &["append", "stat file", "open directory"][..]),
        ] {
            let mut met = 0;
            for call in 0.. {
                let _ = std::fs::remove_dir_all(&prepare).or_else(|_| std::fs::remove_file(&prepare));
                let fail = move |n, _| (n == call).then_some(libc::EIO);
                let (result, made) = during(fail, file);
                assert_eq!(result.is_err(), made.len() > call, "{made:?}");
                if result.is_ok() {
                    break;
                }
                met += 1;
            }
            assert!(met >= calls.len(), "{met} calls of {calls:?}");
        }
        let bucket = dir.path().join(DUE).join("0");
        let removed = move |_, call| {
            if call == "append" {
                std::fs::remove_file(&bucket).unwrap();
            }
            None
        };
        let (result, calls) = during(removed, file);
        assert_eq!(result.unwrap_err().to_string(), "the bucket was removed again and again");
        assert_eq!(calls.iter().filter(|call| **call == "append").count(), 1 + OPENINGS_MAX as usize);
        file().unwrap();
    }
}
