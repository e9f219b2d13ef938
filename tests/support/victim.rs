//! A session whose file a test damages, and the expected result of reading it.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use super::texts::{append_plus, directory_in_memory, load, path_of, put, record, text_of};
use sessile::{Absent, Durability, ErrorKind, FileStore, FileStoreOptions, Lookup, Store, Token};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use tempfile::TempDir;

/// Smallest slot; a session's first file is two of them.
pub(crate) const SLOT_MIN: usize = 2048;
/// Where a slot's prefix ends and its payload begins.
pub(crate) const PREFIX: usize = 40;
/// The one byte of a version that its checksum does not cover: it holds flags about the version, not its
/// content.
const STATE_AT: usize = 7;

/// A session with two versions: the newer one in the first slot, the older one in the second.
pub(crate) struct Victim {
    pub(crate) store: FileStore,
    pub(crate) token: Token,
    pub(crate) path: PathBuf,
    pub(crate) whole: Vec<u8>,
    older: String,
    pub(crate) newer: String,
    _dir: TempDir,
}

/// Expected result of reading a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Newer,
    Older,
    /// Neither version verifies.
    Damaged,
    /// Too short for any version, like an interrupted creation.
    Unknown,
    /// An error; the file stays as it is.
    NewerFormat,
    /// The same, of an earlier version.
    OlderFormat,
}

impl Victim {
    /// A session whose texts are about `length` bytes long.
    pub(crate) fn new(length: usize) -> Self {
        Self::at(directory_in_memory(), length)
    }

    pub(crate) fn at(dir: TempDir, length: usize) -> Self {
        let store =
            FileStoreOptions::new().cache_bytes(0).sync_security_events(false).open(dir.path()).unwrap();
        let text = |version: &str| version.repeat(length.div_ceil(version.len()));
        let (older, newer) = (text("older"), text("newer"));
        let saved = store.create(&record(&text("first")), Durability::Relaxed).unwrap();
        for text in [&older, &newer] {
            put(&store, &saved.token, text, Durability::PowerSafe).unwrap().unwrap();
        }
        let path = path_of(dir.path(), saved.live.id);
        let whole = fs::read(&path).unwrap();
        let victim = Self { store, token: saved.token, path, whole, older, newer, _dir: dir };
        assert!(victim.sequence(0) > victim.sequence(1), "the newer version is in the first slot");
        assert_eq!(load(&victim.store, &victim.token).unwrap().as_ref(), Some(&victim.newer));
        victim
    }

    pub(crate) fn slot_size(&self) -> usize {
        self.whole.len() / 2
    }

    fn sequence(&self, slot: usize) -> u64 {
        let at = slot * self.slot_size() + 8;
        u64::from_le_bytes(self.whole[at..at + 8].try_into().unwrap())
    }

    /// The bytes of a version, prefix and payload.
    pub(crate) fn used(&self, slot: usize) -> std::ops::Range<usize> {
        let begin = slot * self.slot_size();
        let length = u32::from_le_bytes(self.whole[begin + 16..begin + 20].try_into().unwrap());
        begin..begin + PREFIX + length as usize
    }

    /// The expected result for any bytes, from the rules of the format alone, without code of the engine.
    pub(crate) fn want(&self, damaged: &[u8]) -> Want {
        let size = damaged.len() / 2;
        if damaged.len() < 2 * SLOT_MIN {
            return Want::Unknown;
        }
        if !damaged.len().is_power_of_two() {
            return Want::Damaged;
        }
        let slots = [&damaged[..size], &damaged[size..]];
        let other_format = |slot: &[u8]| match u16::from_le_bytes([slot[4], slot[5]]) {
            _ if !slot.starts_with(b"SESS") => None,
            1 => Some(Want::OlderFormat),
            0 | 2 => None,
            _ => Some(Want::NewerFormat),
        };
        if let Some(want) = slots.into_iter().find_map(other_format) {
            return want;
        }
        let never_written = |slot: &[u8]| slot[..PREFIX].iter().all(|byte| *byte == 0);
        if slots.into_iter().any(|slot| slot.starts_with(b"GONE")) || slots.into_iter().all(never_written) {
            return Want::Unknown;
        }
        // The newer version was in the first slot; either may be in either place now.
        let is_version = |version: usize, slot: &[u8]| {
            let ours = &self.whole[self.used(version)];
            size == self.slot_size()
                && slot[..STATE_AT] == ours[..STATE_AT]
                && slot[STATE_AT + 1..ours.len()] == ours[STATE_AT + 1..]
        };
        let has = |version| slots.into_iter().any(|slot| is_version(version, slot));
        match (has(0), has(1)) {
            (true, _) => Want::Newer,
            (false, true) => Want::Older,
            (false, false) => Want::Damaged,
        }
    }

    pub(crate) fn put_file(&self, bytes: &[u8]) {
        let file = File::options().write(true).create(true).truncate(false).open(&self.path).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    /// The text that is served from a damaged file.
    fn served(&self, want: Want) -> Option<&String> {
        match want {
            Want::Newer => Some(&self.newer),
            Want::Older => Some(&self.older),
            Want::Damaged | Want::Unknown | Want::NewerFormat | Want::OlderFormat => None,
        }
    }

    /// Loads the session when its file is `damaged`.
    #[track_caller]
    pub(crate) fn check_load(&self, damaged: &[u8], want: Want, context: &dyn Fn() -> String) {
        self.put_file(damaged);
        let found = match self.store.load(&self.token) {
            Ok(Lookup::Live(live)) => match text_of(&live.record) {
                text if text == self.newer => Want::Newer,
                text if text == self.older => Want::Older,
                text => panic!("{}: wrong data: {text}", context()),
            },
            Ok(Lookup::Absent(Absent::Damaged(_))) => Want::Damaged,
            Ok(Lookup::Absent(Absent::NotFound(_))) => Want::Unknown,
            Err(error) if error.kind() == ErrorKind::NewerFormat => Want::NewerFormat,
            Err(error) if error.kind() == ErrorKind::OlderFormat => Want::OlderFormat,
            other => panic!("{}: {other:?}", context()),
        };
        assert_eq!(found, want, "{}", context());
    }

    /// Loads, updates and ends the session, with its file `damaged` again before each.
    #[track_caller]
    pub(crate) fn check(&self, damaged: &[u8], want: Want, end: End, context: &dyn Fn() -> String) {
        self.check_load(damaged, want, context);
        let served = self.served(want);
        match want {
            Want::NewerFormat => return self.check_left_alone(damaged, ErrorKind::NewerFormat, context),
            Want::OlderFormat => return self.check_left_alone(damaged, ErrorKind::OlderFormat, context),
            Want::Newer | Want::Older | Want::Damaged | Want::Unknown => {}
        }

        // A save starts from the version that was served, and repairs the file; if none was, it creates none.
        let updated = self.store.update(&self.token, &mut append_plus, Durability::Relaxed).unwrap();
        let want = served.map(|text| text.clone() + "+");
        assert_eq!(updated.map(|saved| text_of(&saved.live.record)), want, "{}", context());
        assert_eq!(load(&self.store, &self.token).unwrap(), want, "{}", context());

        self.put_file(damaged);
        match end {
            End::Delete => {
                let was_live = self.store.delete(&self.token).unwrap().is_some();
                assert_eq!(was_live, served.is_some(), "{}", context());
                assert!(!self.path.exists(), "{}: the file still exists", context());
            }
            End::Rotate => {
                let moved =
                    self.store.rotate(&self.token, &mut append_plus, &Durability::Relaxed.into()).unwrap();
                assert_eq!(moved.as_ref().map(|saved| text_of(&saved.live.record)), want, "{}", context());
                if let Some(moved) = moved {
                    assert!(self.store.delete(&moved.token).unwrap().is_some(), "{}", context());
                }
            }
        }
        let after = load(&self.store, &self.token).unwrap();
        assert_eq!(after, None, "{}: it came back", context());
    }

    /// A file in the format of another version of this crate is neither changed nor removed.
    #[track_caller]
    fn check_left_alone(&self, bytes: &[u8], kind: ErrorKind, context: &dyn Fn() -> String) {
        let update = self.store.update(&self.token, &mut append_plus, Durability::PowerSafe).map(drop);
        let rotate = self.store.rotate(&self.token, &mut append_plus, &Durability::Relaxed.into()).map(drop);
        let delete = self.store.delete(&self.token).map(drop);
        for result in [update, rotate, delete] {
            assert_eq!(result.map_err(|error| error.kind()), Err(kind), "{}", context());
        }
        assert_eq!(fs::read(&self.path).unwrap(), bytes, "{}", context());
    }
}

/// How a session is ended after its file was damaged.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Delete,
    Rotate,
}
