//! One session at rest: one immutable block of bytes, the same in memory, in a file and in every other storage mode.
//!
//! ```text
//! header (80 bytes)    layout, expiry setting, lengths, times, marks of the login
//! table  (8 an entry)  the end of each name and of each value
//! text                 user, device note, names in their order
//! values               the bytes of each value, in the order of the names
//! ```
//!
//! - A clone raises a count. A change makes a new block, or is made in place if no clone shares the block.
//! - Equal sessions have equal bytes: unused fields are zero, names are in order, and the parts leave no gap.
//! - Bytes from outside are checked once, as a whole, when a record is made from them; the check decodes no value, and
//!   allocates nothing for the lengths that they claim. Reading a field afterwards cannot fail. A value is decoded when
//!   it is read.
//! - A record does not know whether its bytes are the ones that were stored: the storage mode's checksum covers that.
//!
//! The offsets are in [`format`](crate::_documentation::format).
mod block;
mod edit;
mod entries;
// These tests compare safe code with other safe code many times, which takes too long under Miri.
#[cfg(test)]
#[cfg(not(miri))]
mod model;
mod timing;
mod user_digest;

pub use block::{BYTES_MAX, DEVICE_NOTE_BYTES_MAX};
pub(crate) use edit::Edit;
pub use entries::Entries;
pub use timing::{Expiry, Login, Timing};
pub(crate) use timing::{Micros, THOUSAND_YEARS};
pub(crate) use user_digest::user_digest;

use crate::clock::from_micros;
use crate::error::{Error, ErrorKind, Result};
use crate::value::ValueRef;
use block::Fault;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// The largest number of bytes of a user in a record. (A session's [`login`](crate::Session::login) accepts only
/// shorter names.)
const USER_BYTES_MAX: usize = u16::MAX as usize;

/// One session as a store keeps it.
///
/// ```
/// use sessile::record::Timing;
/// use sessile::{Record, Value};
/// use std::time::{Duration, UNIX_EPOCH};
///
/// let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(60)).with_user("ada")?;
/// record.insert("visits", &Value::new(&1)?)?;
/// let stored = record.as_bytes().to_vec(); // in a file, a row, a cache server
/// let loaded = Record::from_bytes(&stored)?;
/// assert_eq!(loaded, record);
/// assert_eq!((loaded.user(), loaded.entries().len()), (Some("ada"), 1));
/// # Ok::<(), sessile::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    block: Arc<[u8]>,
}

impl Record {
    /// A record without entries, created and touched at `now`.
    ///
    /// ```
    /// use sessile::Record;
    /// use std::time::{Duration, UNIX_EPOCH};
    /// let record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(60));
    /// assert!(record.user().is_none() && record.entries().is_empty());
    /// ```
    #[must_use]
    pub fn new(now: SystemTime, deadline: SystemTime) -> Self {
        Self { block: Arc::new(block::header(&Timing::new(now, deadline))) }
    }

    /// The record that [`as_bytes`](Self::as_bytes) wrote. Copies the bytes once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the bytes are no record, or if bytes follow it; [`ErrorKind::NewerFormat`] if a newer
    /// version of this crate wrote them. A changed byte that leaves a valid record is not detected; a store keeps a
    /// checksum beside the bytes. A value that cannot be decoded is detected when it is read.
    ///
    /// ```
    /// use sessile::Record;
    /// let record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// assert_eq!(Record::from_bytes(record.as_bytes())?, record);
    /// assert!(Record::from_bytes(&record.as_bytes()[1..]).is_err());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |kind| Error::new(kind, "decode session record");
        match block::check(bytes) {
            Ok(()) => Ok(Self { block: bytes.into() }),
            Err(Fault::Corrupt(reason)) => Err(refuse(ErrorKind::Corrupt).with_reason(reason)),
            Err(Fault::Newer(layout)) => Err(refuse(ErrorKind::NewerFormat)
                .with_reason(format!("it has layout {layout}, this version knows {}", block::LAYOUT))),
        }
    }

    /// The bytes of the record, as a store keeps them.
    ///
    /// ```
    /// let record = sessile::Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// assert_eq!(record.as_bytes(), record.clone().as_bytes());
    /// ```
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }

    /// The times and the expiry setting.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// let record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// assert_eq!(record.timing().created, UNIX_EPOCH);
    /// ```
    #[must_use]
    pub fn timing(&self) -> Timing {
        block::timing(&self.block)
    }

    /// Sets the times and the expiry setting; rounds them down to whole microseconds.
    ///
    /// ```
    /// use sessile::record::{Expiry, Timing};
    /// use std::time::UNIX_EPOCH;
    /// let mut record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// record.set_timing(Timing { expiry: Expiry::BrowserClose, ..record.timing() });
    /// assert_eq!(record.timing().expiry, Expiry::BrowserClose);
    /// ```
    pub fn set_timing(&mut self, timing: Timing) {
        block::put_timing(self.block_mut(), &timing);
    }

    /// The same record with other times and another expiry setting.
    ///
    /// ```
    /// use sessile::record::Timing;
    /// use std::time::{Duration, UNIX_EPOCH};
    /// let now = UNIX_EPOCH + Duration::from_secs(1);
    /// let record = sessile::Record::new(UNIX_EPOCH, now).with_timing(Timing::new(now, now));
    /// assert_eq!(record.timing().created, now);
    /// ```
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.set_timing(timing);
        self
    }

    /// The instant from which on the session is expired.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// let record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// assert_eq!(record.deadline(), record.timing().deadline);
    /// ```
    #[must_use]
    pub fn deadline(&self) -> SystemTime {
        from_micros(self.deadline_micros())
    }

    /// The times in microseconds since 1970, as they are stored.
    pub(crate) fn micros(&self) -> Micros {
        block::times(&self.block)
    }

    /// The expiry setting alone.
    pub(crate) fn expiry(&self) -> Expiry {
        block::expiry(&self.block)
    }

    /// Whether the visitor has come only once.
    pub(crate) fn came_once(&self) -> bool {
        block::came_once(&self.block)
    }

    /// The deadline in microseconds since 1970.
    pub(crate) fn deadline_micros(&self) -> u64 {
        block::deadline_micros(&self.block)
    }

    /// Whether the session is expired at `now`: its deadline is reached.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// assert!(sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH).is_expired(UNIX_EPOCH));
    /// ```
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.deadline() <= now
    }

    /// The logged-in user.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// let record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH).with_user("ada")?;
    /// assert_eq!(record.user(), Some("ada"));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        Some(block::user(&self.block)).filter(|user| !user.is_empty())
    }

    /// Sets the user, and the digest of the user ([`Login::user_digest`]); an empty text removes both.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if it is longer than 65,535 bytes.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// let mut record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// record.set_user("ada")?;
    /// record.set_user("")?;
    /// assert_eq!(record.user(), None);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn set_user(&mut self, user: &str) -> Result<()> {
        check_length("user", user, USER_BYTES_MAX)?;
        let at = block::text_at(&self.block);
        self.set_text(block::USER_LEN_AT, at..at + block::user_len(&self.block), user)?;
        block::put_digest(self.block_mut(), user_digest(user));
        Ok(())
    }

    /// The same record with another user.
    ///
    /// # Errors
    ///
    /// Those of [`set_user`](Self::set_user).
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// assert!(sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH).with_user(&"x".repeat(1 << 16)).is_err());
    /// ```
    pub fn with_user(mut self, user: &str) -> Result<Self> {
        self.set_user(user)?;
        Ok(self)
    }

    /// The marks of the last login.
    ///
    /// ```
    /// use sessile::record::Login;
    /// use std::time::UNIX_EPOCH;
    /// assert_eq!(sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH).login(), Login::default());
    /// ```
    #[must_use]
    pub fn login(&self) -> Login {
        block::login(&self.block)
    }

    /// Sets the marks of the last login. The digest follows the user: that in `login` is ignored.
    ///
    /// ```
    /// use sessile::record::Login;
    /// use std::time::UNIX_EPOCH;
    /// let mut record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// record.set_login(Login { cut_off: 7, ..Login::default() });
    /// assert_eq!(record.login().cut_off, 7);
    /// ```
    pub fn set_login(&mut self, login: Login) {
        block::put_login(self.block_mut(), &login);
    }

    /// The digest of the user; `None` if no user is logged in. It is computed for a record that was stored without it.
    pub(crate) fn user_digest(&self) -> Option<[u8; 16]> {
        if block::user_len(&self.block) == 0 {
            return None;
        }
        self.login().user_digest.or_else(|| user_digest(self.user()?))
    }

    /// Whether another record has the same user. Cheaper than comparing texts, which are checked at each reading.
    pub(crate) fn has_user_of(&self, other: &Self) -> bool {
        block::user_bytes(&self.block) == block::user_bytes(&other.block)
    }

    /// Sets the number of the last cut-off; changes nothing if it is the same.
    pub(crate) fn set_cut_off(&mut self, number: u64) {
        let login = self.login();
        if login.cut_off != number {
            self.set_login(Login { cut_off: number, ..login });
        }
    }

    /// A short text about the visitor's device.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// assert_eq!(sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH).device_note(), None);
    /// ```
    #[must_use]
    pub fn device_note(&self) -> Option<&str> {
        Some(block::note(&self.block)).filter(|note| !note.is_empty())
    }

    /// Sets the device note; an empty text removes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Value`] if it is longer than [`DEVICE_NOTE_BYTES_MAX`].
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// let mut record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// record.set_device_note("Firefox on Linux")?;
    /// assert_eq!(record.device_note(), Some("Firefox on Linux"));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn set_device_note(&mut self, note: &str) -> Result<()> {
        check_length("device note", note, DEVICE_NOTE_BYTES_MAX)?;
        let at = block::text_at(&self.block) + block::user_len(&self.block);
        self.set_text(block::NOTE_LEN_AT, at..at + block::note_len(&self.block), note)
    }

    /// The entries.
    ///
    /// ```
    /// use std::time::UNIX_EPOCH;
    /// let record = sessile::Record::new(UNIX_EPOCH, UNIX_EPOCH);
    /// assert_eq!(record.entries().iter().count(), 0);
    /// ```
    #[must_use]
    #[inline]
    pub fn entries(&self) -> Entries<'_> {
        Entries::of(&self.block)
    }

    /// Sets an entry. To set many entries, [`extend`](Self::extend) copies the record only once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] if the record would be larger than [`BYTES_MAX`]; the record is then unchanged.
    ///
    /// ```
    /// use sessile::{Record, Value};
    /// let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// record.insert("visits", &Value::new(&1)?)?;
    /// record.insert("visits", &Value::new(&2)?)?;
    /// assert_eq!(record.entries().len(), 1);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn insert<'v>(&mut self, name: &str, value: impl Into<ValueRef<'v>>) -> Result<()> {
        self.edit(&[(name, Some(value.into()))])
    }

    /// Removes an entry. Returns whether it existed.
    ///
    /// ```
    /// use sessile::{Record, Value};
    /// let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// record.insert("visits", &Value::new(&1)?)?;
    /// assert!(record.remove("visits"));
    /// assert!(!record.remove("visits"));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn remove(&mut self, name: &str) -> bool {
        let was_there = self.entries().contains(name);
        was_there && self.edit(&[(name, None)]).is_ok()
    }

    /// Sets many entries at once; if a name occurs twice, the later value counts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] if the record would be larger than [`BYTES_MAX`]; the record is then unchanged.
    ///
    /// ```
    /// use sessile::{Record, Value};
    /// let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// let values = [Value::new(&1)?, Value::new("dark")?];
    /// record.extend([("visits", &values[0]), ("theme", &values[1])])?;
    /// assert_eq!(record.entries().len(), 2);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn extend<'v, V: Into<ValueRef<'v>>>(
        &mut self,
        entries: impl IntoIterator<Item = (&'v str, V)>,
    ) -> Result<()> {
        let edits: BTreeMap<_, _> =
            entries.into_iter().map(|(name, value)| (name, Some(value.into()))).collect();
        self.edit(&edits.into_iter().collect::<Vec<_>>())
    }

    /// Removes all entries.
    ///
    /// ```
    /// use sessile::{Record, Value};
    /// let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
    /// record.insert("visits", &Value::new(&1)?)?;
    /// record.clear();
    /// assert!(record.entries().is_empty());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn clear(&mut self) {
        let text_at = block::text_at(&self.block);
        let fixed = block::user_len(&self.block) + block::note_len(&self.block);
        let mut bytes = [&self.block[..block::HEADER_LEN], &self.block[text_at..text_at + fixed]].concat();
        block::put_count(&mut bytes, 0);
        self.block = bytes.into();
    }

    /// Applies changes of entries, each name once and in the order of the names.
    pub(crate) fn edit(&mut self, edits: &[Edit<'_>]) -> Result<()> {
        self.block = edit::splice(&self.block, edits).map_err(|edit::TooLarge| too_large())?;
        Ok(())
    }

    /// The number of bytes of the record's allocation: the block, and the two counts of the [`Arc`].
    pub(crate) fn allocated_bytes(&self) -> usize {
        2 * size_of::<usize>() + self.block.len()
    }

    /// Reads only the first bytes of the allocation, where the counts of the [`Arc`] are. A clone writes there. Without
    /// this call, the clone would begin to wait for that memory only after the caller's earlier reads are done.
    #[inline]
    pub(crate) fn prefetch(&self) {
        std::hint::black_box(Arc::strong_count(&self.block));
    }

    /// The number of entries.
    pub(crate) fn entry_count(&self) -> usize {
        block::count(&self.block)
    }

    /// The number of bytes that a login writes. A store's limits do not apply to them.
    pub(crate) fn login_bytes(&self) -> usize {
        block::user_len(&self.block) + block::note_len(&self.block)
    }

    /// Replaces one of the texts before the names. Its length is stored at `length_at`.
    fn set_text(&mut self, length_at: usize, old: Range<usize>, text: &str) -> Result<()> {
        if self.block.len() - old.len() + text.len() > BYTES_MAX {
            return Err(too_large());
        }
        let length = u16::try_from(text.len()).expect("its limit is no higher");
        let mut bytes = [&self.block[..old.start], text.as_bytes(), &self.block[old.end..]].concat();
        block::put(&mut bytes, length_at, length.to_le_bytes());
        self.block = bytes.into();
        Ok(())
    }

    /// The block for writing. It is copied first if a clone shares it.
    fn block_mut(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.block)
    }
}

fn check_length(what: &'static str, text: &str, bytes_max: usize) -> Result<()> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    let reason = format!("it has {} bytes, where the limit is {bytes_max}", text.len());
    Err(Error::new(ErrorKind::Value, format!("set the {what} of a session")).with_reason(reason))
}

#[cold]
fn too_large() -> Error {
    let reason = format!("it would be larger than any record: {BYTES_MAX} bytes");
    Error::new(ErrorKind::TooLarge, "change session record").with_reason(reason)
}

/// Shows only times and sizes, because neither the entries nor the user belong in a log.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timing { created, touched, deadline, expiry, ends_with_browser, came_once } = self.timing();
        f.debug_struct("Record")
            .field("entries", &self.entries().len())
            .field("bytes", &self.entries().value_bytes())
            .field("created", &created)
            .field("touched", &touched)
            .field("expiry", &expiry)
            .field("ends_with_browser", &ends_with_browser)
            .field("came_once", &came_once)
            .field("deadline", &deadline)
            .field("has_user", &self.user().is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(micros: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(micros)
    }
    fn value(text: &str) -> Value {
        Value::new(text).unwrap()
    }
    /// A record in which every field is used.
    fn full() -> Record {
        let mut record = Record::new(at(1), at(9)).with_user("ada").unwrap();
        record.set_timing(Timing {
            touched: at(2),
            expiry: Expiry::After(Duration::from_micros(7)),
            ..record.timing()
        });
        record.set_login(Login { at: Some(at(3)), cut_off: 4, user_digest: None });
        record.set_device_note("a naïve browser").unwrap();
        record.extend([("b", &value("second")), ("a", &value("first")), ("naïve", &value(""))]).unwrap();
        record
    }

    #[test]
    fn bytes_of_no_layout_are_damage_and_not_a_newer_version() {
        let short = Record::from_bytes(b"this is no record at all").unwrap_err();
        let long = Record::from_bytes(&[b'x'; 500]).unwrap_err();
        assert_eq!((short.kind(), long.kind()), (ErrorKind::Corrupt, ErrorKind::Corrupt));
    }

    #[test]
    fn a_record_is_expired_from_its_deadline_on() {
        let record = Record::new(at(0), at(5));
        assert_eq!([4, 5, 6].map(|now| record.is_expired(at(now))), [false, true, true]);
    }

    #[test]
    fn times_are_rounded_down_to_microseconds() {
        let finer = Duration::from_nanos(999);
        let timing = Timing {
            touched: at(2) + finer,
            expiry: Expiry::After(Duration::from_micros(4) + finer),
            ..Timing::new(at(1) + finer, at(3) + finer)
        };
        let kept = Record::new(at(0), at(0)).with_timing(timing).timing();
        assert_eq!((kept.created, kept.touched, kept.deadline), (at(1), at(2), at(3)));
        assert_eq!(kept.expiry, Expiry::After(Duration::from_micros(4)));
        assert_eq!(Record::new(at(1) + finer, at(3) + finer), Record::new(at(1), at(3)));
    }

    #[test]
    fn every_expiry_setting_is_kept_and_one_of_its_own_rules_out_the_default_cookie() {
        for (expiry, ends_with_browser, want) in [
            (Expiry::Default, false, false),
            (Expiry::Default, true, true),
            (Expiry::After(Duration::from_micros(1)), true, false),
            (Expiry::After(Duration::MAX), false, false),
            (Expiry::At(UNIX_EPOCH), true, false),
            (Expiry::At(at(u64::MAX)), false, false),
            (Expiry::BrowserClose, true, false),
        ] {
            let came_once = want;
            let timing = Timing { expiry, ends_with_browser, came_once, ..Timing::new(at(1), at(2)) };
            let record = Record::from_bytes(full().with_timing(timing).as_bytes()).unwrap();
            let want = Timing { expiry: expiry.normalized(), ends_with_browser: want, ..timing };
            assert_eq!(record.timing(), want);
        }
    }

    /// A change of a record, and the name of the field that it changes.
    type Named = (&'static str, fn(&mut Record));

    #[test]
    fn each_field_changes_alone() {
        let record = full();
        let parts = |record: &Record| {
            let entries: Vec<_> =
                record.entries().iter().map(|(name, value)| (name.to_owned(), value.to_value())).collect();
            let texts = [record.user(), record.device_note()].map(|text| text.map(str::to_owned));
            let Login { at, cut_off, user_digest: digest } = record.login();
            assert_eq!(digest, record.user().and_then(user_digest), "it follows the user");
            (record.timing(), (at, cut_off), texts, entries)
        };
        let changes: [Named; 9] = [
            ("timing", |record| record.set_timing(Timing::new(at(5), at(6)))),
            ("login", |record| record.set_login(Login { user_digest: Some([5; 16]), ..Login::default() })),
            ("user", |record| record.set_user("grace hopper").unwrap()),
            ("user", |record| record.set_user("").unwrap()),
            ("note", |record| record.set_device_note("ß").unwrap()),
            ("note", |record| record.set_device_note("").unwrap()),
            ("entries", |record| record.insert("ab", &value("new")).unwrap()),
            ("entries", |record| assert!(record.remove("a"))),
            ("entries", Record::clear),
        ];
        for (what, change) in changes {
            let mut other = record.clone();
            change(&mut other);
            let ((timing, login, texts, entries), new) = (parts(&record), parts(&other));
            let is_other = [
                new.0 != timing,
                new.1 != login,
                new.2[0] != texts[0],
                new.2[1] != texts[1],
                new.3 != entries,
            ];
            let want = ["timing", "login", "user", "note", "entries"].map(|name| name == what);
            assert_eq!(is_other, want, "{what}");
            assert_eq!(Record::from_bytes(other.as_bytes()).unwrap(), other, "{what}");
            assert_eq!(record, full(), "its clone stays as it is: {what}");
        }
    }

    #[test]
    fn a_clone_shares_the_bytes_until_one_of_them_changes() {
        let record = full();
        let mut other = record.clone();
        assert!(Arc::ptr_eq(&record.block, &other.block));
        other.set_timing(Timing::new(at(5), at(6)));
        assert!(!Arc::ptr_eq(&record.block, &other.block));
        let address = other.block.as_ptr();
        other.set_timing(Timing::new(at(6), at(7)));
        assert_eq!(other.block.as_ptr(), address, "no clone has it: no copy");
    }

    #[test]
    fn texts_that_are_too_long_are_refused_and_change_nothing() {
        let mut record = full();
        for (length, fits) in [(DEVICE_NOTE_BYTES_MAX, true), (DEVICE_NOTE_BYTES_MAX + 1, false)] {
            let set = record.set_device_note(&"n".repeat(length)).map_err(|error| error.kind());
            assert_eq!(set, if fits { Ok(()) } else { Err(ErrorKind::Value) }, "{length}");
        }
        assert_eq!(record.device_note().unwrap().len(), DEVICE_NOTE_BYTES_MAX);
        for (length, fits) in [(USER_BYTES_MAX, true), (USER_BYTES_MAX + 1, false)] {
            let set = record.set_user(&"u".repeat(length)).map_err(|error| error.kind());
            assert_eq!(set, if fits { Ok(()) } else { Err(ErrorKind::Value) }, "{length}");
        }
        assert_eq!(record.user().unwrap().len(), USER_BYTES_MAX);
        assert_eq!(record.login_bytes(), USER_BYTES_MAX + DEVICE_NOTE_BYTES_MAX);
    }

    #[test]
    #[cfg_attr(miri, ignore = "32 MiB are too many for Miri")]
    fn a_record_beyond_the_limit_is_refused_and_stays_as_it_is() {
        let mut record = Record::new(at(1), at(2));
        let room = BYTES_MAX - record.as_bytes().len() - block::ROW - 1;
        let text = |bytes: usize| Value::new(&"x".repeat(bytes)).unwrap();
        let frame = text(room).as_bytes().len() - room;
        record.insert("n", &text(room - frame)).unwrap();
        assert_eq!(record.as_bytes().len(), BYTES_MAX);
        assert_eq!(Record::from_bytes(record.as_bytes()).unwrap(), record);
        let before = record.clone();
        for result in [
            record.insert("n", &text(room - frame + 1)),
            record.insert("m", &text(0)),
            record.set_user("u"),
            record.set_device_note("n"),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::TooLarge);
        }
        assert_eq!(record, before);
        let longer = [before.as_bytes(), &[0]].concat();
        assert_eq!(Record::from_bytes(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn names_are_found_whatever_their_neighbours_are() {
        let names = ["", "a", "aa", "b", "naïve", "ß", "🦀"];
        for skipped in 0..names.len() {
            let mut record = full();
            record.clear();
            let there = names.iter().enumerate().filter(|(index, _)| *index != skipped);
            let values: Vec<_> = there.map(|(_, name)| (*name, value(name))).collect();
            record.extend(values.iter().rev().map(|(name, value)| (*name, value))).unwrap();
            for (index, name) in names.into_iter().enumerate() {
                let found = record.entries().get(name).map(|value| value.get::<String>().unwrap());
                assert_eq!(found.as_deref(), (index != skipped).then_some(name));
                assert_eq!(record.entries().contains(name), index != skipped);
            }
            assert!(record.entries().iter().map(|(name, _)| name).is_sorted());
        }
    }

    #[test]
    fn every_truncation_and_every_longer_block_is_refused() {
        let record = full();
        let bytes = record.as_bytes();
        for length in 0..bytes.len() {
            assert_eq!(
                Record::from_bytes(&bytes[..length]).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{length}"
            );
        }
        assert_eq!(Record::from_bytes(&[bytes, &[0]].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_bit_flip_is_refused_or_makes_another_record_never_the_same() {
        let record = full();
        // Under Miri, only some bits are flipped. The step has no common divisor with the bits of a byte, so that each
        // of them is flipped somewhere.
        for bit in (0..record.as_bytes().len() * 8).step_by(if cfg!(miri) { 31 } else { 1 }) {
            let mut bytes = record.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match Record::from_bytes(&bytes) {
                Ok(other) => {
                    assert_ne!(other, record, "bit {bit}");
                    let _ = (other.timing(), other.login(), other.user(), other.device_note());
                    assert_eq!(other.entries().iter().len(), 3, "bit {bit}");
                }
                Err(error) => {
                    let newer = bit < 8 && bytes[0] > block::LAYOUT;
                    let want = if newer { ErrorKind::NewerFormat } else { ErrorKind::Corrupt };
                    assert_eq!(error.kind(), want, "bit {bit}");
                }
            }
        }
    }

    /// The reason for which a record with changed bytes is refused.
    #[track_caller]
    fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = full().as_bytes().to_vec();
        change(&mut bytes);
        let error = Record::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        error.to_string().strip_prefix("failed to decode session record: ").unwrap().to_owned()
    }

    #[test]
    fn bytes_that_no_writer_makes_are_refused_by_name() {
        assert_eq!(refusal(|bytes| bytes[0] = 0), "unknown layout");
        assert_eq!(refusal(|bytes| bytes[1] = 4), "unknown expiry setting");
        for (setting, age) in [(0, 1), (3, 1), (1, u64::MAX)] {
            let reason = refusal(|bytes| {
                bytes[1] = setting;
                block::put(bytes, 40, u64::to_le_bytes(age));
            });
            assert_eq!(reason, "an age that its expiry setting does not have", "{setting}");
        }
        for (at, byte) in [(2, 1), (2, 4), (3, 1), (12, 1), (15, 1)] {
            assert_eq!(refusal(|bytes| bytes[at] = byte), "reserved bytes are in use", "byte {at}");
        }
        let (table, text) = (block::HEADER_LEN, block::HEADER_LEN + 3 * block::ROW);
        // The names of the record are `a`, `b` and `naïve`; they end at the offsets 1, 2 and 8.
        assert_eq!(refusal(|bytes| bytes[table] = 0xff), "a part of its text ends inside a character");
        assert_eq!(
            refusal(|bytes| bytes[table + 8] = 0),
            "an end in its table comes before the one before it"
        );
        assert_eq!(
            refusal(|bytes| bytes[table + 12] = 0),
            "an end in its table comes before the one before it"
        );
        assert_eq!(
            refusal(|bytes| bytes[table + 4] = 0xff),
            "an end in its table comes before the one before it"
        );
        assert_eq!(refusal(|bytes| bytes[table + 16] = 9), "its parts do not fill it");
        let names = text + "adaa naïve browser".len();
        assert_eq!(refusal(|bytes| bytes[names] = b'b'), "its names are not in order");
        assert_eq!(refusal(|bytes| bytes[names + 1] = b'z'), "its names are not in order");
        assert_eq!(refusal(|bytes| bytes[names] = 0xff), "its text is not UTF-8");
        // One byte of the note is counted as the user's. Then both texts end inside of the character `ï`.
        let inside = u8::try_from("adaa na".len()).unwrap() + 1;
        let reason = refusal(|bytes| (bytes[4], bytes[6]) = (inside, 19 - inside));
        assert_eq!(reason, "a part of its text ends inside a character");
    }

    #[test]
    fn a_block_with_a_false_length_allocates_nothing() {
        let table = "its table is longer than the record";
        for count in [0x7fff_ffff, u32::MAX, 0x2000_0000] {
            assert_eq!(refusal(|bytes| block::put(bytes, 8, count.to_le_bytes())), table, "{count}");
        }
        assert_eq!(refusal(|bytes| block::put(bytes, 4, [0xff; 2])), "its parts do not fill it");
        assert_eq!(refusal(|bytes| block::put(bytes, 6, [0xff; 2])), "a device note that is longer than any");
        for at in [0, 4] {
            let last = block::HEADER_LEN + 2 * block::ROW + at;
            assert_eq!(
                refusal(|bytes| block::put(bytes, last, [0xff; 4])),
                "its parts do not fill it",
                "{at}"
            );
        }
    }

    #[test]
    fn a_later_layout_is_newer_and_never_corrupt() {
        for layout in [2, u8::MAX] {
            let mut bytes = full().as_bytes().to_vec();
            bytes[0] = layout;
            let error = Record::from_bytes(&bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NewerFormat);
            assert!(
                error.to_string().ends_with(&format!("layout {layout}, this version knows 1")),
                "{error}"
            );
        }
    }

    #[test]
    fn debug_output_shows_neither_the_entries_nor_the_user() {
        let text = format!("{:?} {:?}", full(), full().entries());
        assert!(!text.contains("ada") && !text.contains("first") && !text.contains("naïve"), "{text}");
        assert!(text.contains("has_user: true") && text.contains("entries: 3"), "{text}");
    }
}
