//! The log in memory: the last cut-off of each user and of all, and what they mean for a session. Pure.
//!
//! Earlier cut-offs of a user, and those before the last one of all, say nothing more about any session, because a
//! session's number is compared with the last ones. So [`compacted`](Log::compacted) leaves them out.
use super::bytes::{Entry, LINE, Line, header, read_header};
use crate::clock::micros;
use crate::id::PublicId;
use crate::record::Record;
use std::collections::HashMap;

/// The content of a log, as far as it was read.
#[derive(Default)]
pub(super) struct Log {
    /// The end of the last valid entry; 0 if the header was not read.
    pub(super) bytes: u64,
    /// The number before the first entry.
    first: u64,
    /// The last cut-off of all.
    all: Option<Entry>,
    users: HashMap<[u8; 16], Last>,
    /// The highest number.
    pub(super) last: u64,
    /// The last entry that was read, as it is in the file.
    last_line: Option<Line>,
    /// The latest time of an entry.
    latest: u64,
}

/// The last cut-off of one user.
#[derive(Clone, Copy)]
struct Last {
    number: u64,
    /// The latest time of the user's cut-offs: that of an earlier one, if the clock was set back between them.
    time: u64,
    except: Option<PublicId>,
}

impl Log {
    /// Takes in whole lines, up to the first invalid one. Returns their bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> u64 {
        let before = self.bytes;
        for line in bytes.as_chunks::<LINE>().0 {
            if !self.take_line(line) {
                break;
            }
            self.bytes += LINE as u64;
        }
        self.bytes - before
    }

    fn take_line(&mut self, line: &Line) -> bool {
        if self.bytes == 0 {
            let Some((first, _)) = read_header(line) else { return false };
            (self.first, self.last) = (first, first);
            return true;
        }
        // The numbers of a log ascend.
        let Some(entry) = Entry::from_line(line).filter(|entry| entry.number > self.last) else {
            return false;
        };
        self.put(entry);
        self.last_line = Some(*line);
        true
    }

    /// The last entry that was read, and where it begins; `None` if none was read.
    pub(super) fn last_line(&self) -> Option<(u64, Line)> {
        self.last_line.map(|line| (self.bytes - LINE as u64, line))
    }

    /// Takes in an entry.
    pub(super) fn put(&mut self, entry: Entry) {
        let Entry { number, user, time, except } = entry;
        self.last = number;
        self.latest = self.latest.max(time);
        match user {
            None => {
                self.all = Some(Entry { time: self.latest, ..entry });
                self.users.clear();
            }
            Some(user) => {
                let before = self.users.get(&user).map_or(0, |last| last.time);
                self.users.insert(user, Last { number, time: time.max(before), except });
            }
        }
    }

    /// The number that the session's next version carries, if no cut-off has ended the session.
    pub(super) fn standing(&self, record: &Record, id: &PublicId) -> Option<u64> {
        self.standing_of(record.login().cut_off, || record.user_digest(), id)
    }

    /// The same for a session that carries the number `cut_off` and has this user.
    pub(super) fn standing_of(
        &self,
        cut_off: u64,
        user: impl FnOnce() -> Option<[u8; 16]>,
        id: &PublicId,
    ) -> Option<u64> {
        if self.all.is_some_and(|all| cut_off < all.number) {
            return None;
        }
        match self.of(user) {
            Some(last) if cut_off < last.number => (last.except == Some(*id)).then_some(last.number),
            _ => Some(cut_off),
        }
    }

    /// The number for a session that began, or whose user logged in, at the time that the record says: all cut-offs
    /// that count for the session and happened later end it. So do those of the same microsecond, because the login may
    /// have returned before them.
    pub(super) fn number_at_login(&self, record: &Record) -> u64 {
        let began = micros(record.login().at.unwrap_or(record.timing().created));
        let all = self.all.map(|all| (all.number, all.time));
        let of_user = self.of(|| record.user_digest()).map(|last| (last.number, last.time));
        let later = all.into_iter().chain(of_user).filter(|(_, time)| *time >= began);
        later.map(|(number, _)| number - 1).min().unwrap_or(self.last)
    }

    /// The last cut-off of a user.
    fn of(&self, user: impl FnOnce() -> Option<[u8; 16]>) -> Option<Last> {
        if self.users.is_empty() {
            return None;
        }
        self.users.get(&user()?).copied()
    }

    /// The number of the last cut-off of all; 0 if there was none.
    pub(super) fn last_of_all(&self) -> u64 {
        self.all.map_or(0, |all| all.number)
    }

    /// How many entries a compacted log has.
    pub(super) fn entries(&self) -> u64 {
        self.users.len() as u64 + u64::from(self.all.is_some())
    }

    /// The bytes of a log with the same meaning and no superseded entry.
    pub(super) fn compacted(&self, flags: u8) -> Vec<u8> {
        let of_users = self.users.iter().map(|(user, last)| {
            let Last { number, time, except } = *last;
            Entry { number, user: Some(*user), time, except }
        });
        let mut entries: Vec<_> = self.all.into_iter().chain(of_users).collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        let lines = entries.into_iter().map(Entry::to_line);
        [header(self.first, flags)].into_iter().chain(lines).flatten().collect()
    }

    /// A log without entries, whose first one gets a number greater than `first`.
    pub(super) fn beginning_at(first: u64) -> Self {
        Self { first, last: first, ..Self::default() }
    }
}
