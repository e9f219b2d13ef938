//! Looking at sessions for the waits for their ends ([`Store::poll`](crate::Store::poll)).
//!
//! - **A session is read from its file only if a shared counter says that it may have ended**: its cell's `ends`, or
//!   the counter of cut-offs together with the log. Otherwise a look at it is two loads of memory.
//! - The counters are read before the file, as for a copy in the cache. So no end between the two is missed.
//! - Where the counters are not shared (a store without a cache, or on a network file system), each poll reads each
//!   session file.
//! - Every eight to ten seconds, each session is read from its file, whatever the counters say: the end of a session
//!   whose file another program removed, or whose writer was killed before it moved the counter, shows in no counter.
//!   The time between two such looks depends on the id, so that sessions which are polled from the same instant on are
//!   not all read in the same poll.
use super::FileStore;
use super::coherence::{Stamp, View as CutOffView};
use super::session_lock::SessionRef;
use super::slots::View;
use crate::error::Result;
use crate::id::PublicId;
use crate::record::Record;
use crate::store::{Absent, POLL_INTERVAL, Poll, Polled};
use crate::sync::Instant;
use std::time::Duration;

/// The time between two polls of the counters. It bounds the delay by less than half of what is promised. 1,000 waits
/// take 0.13 % of a core with it, most of that for the files that are read again, and 0.18 % with 250 milliseconds
/// (`benches/waits.rs`).
const COUNTERS_INTERVAL: Duration = Duration::from_millis(400);

/// The shortest time after which a session file is read again, and the range from which the id adds a time.
const REREAD: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(2));

/// The state of a session when its file was read last, as a poll keeps it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Note {
    /// The stamp's `ends`, and the number of the counters.
    ends: u64,
    counters: u64,
    /// The number of cut-offs that the record carries, and the digest of its user.
    cut_off: u64,
    user: Option<[u8; 16]>,
    /// The log of cut-offs with which that was compared last.
    view: u32,
}

impl Note {
    fn new(stamp: Stamp, view: CutOffView, record: &Record) -> Self {
        Self {
            ends: stamp.ends,
            counters: stamp.counters,
            cut_off: record.login().cut_off,
            user: record.user_digest(),
            view: view.to_bits(),
        }
    }

    fn to_words(self) -> [u64; 8] {
        let [low, high] = *self.user.unwrap_or_default().as_chunks::<8>().0 else { unreachable!("16 bytes") };
        let [low, high] = [low, high].map(u64::from_le_bytes);
        let has_user = u64::from(self.user.is_some());
        [self.ends, self.counters, self.cut_off, has_user, low, high, u64::from(self.view), 0]
    }

    fn from_words([ends, counters, cut_off, has_user, low, high, view, _]: [u64; 8]) -> Self {
        let mut user = [0; 16];
        user[..8].copy_from_slice(&low.to_le_bytes());
        user[8..].copy_from_slice(&high.to_le_bytes());
        let user = (has_user == 1).then_some(user);
        Self { ends, counters, cut_off, user, view: u32::try_from(view).unwrap_or_default() }
    }
}

/// How long after a look at a session file it is read again, whatever the counters say.
fn reread_after(id: &PublicId) -> Duration {
    let [.., byte] = *id.as_bytes();
    REREAD.0 + REREAD.1 * u32::from(byte) / 256
}

impl FileStore {
    /// Answers each question that is due, and each whose session may have ended since the last poll.
    pub(super) fn poll_files(&self, polls: &mut [Poll]) -> Result<Duration> {
        self.queues.check_process()?;
        let counters = self.coherence.end_counters();
        let view = self.coherence.cut_off_view()?;
        let now = Instant::now();
        for poll in polls {
            let stamp = counters.as_ref().map(|counters| counters.stamp(poll.id()));
            if let Some(stamp) = stamp
                && !poll.is_due()
                && poll.age(now) < reread_after(poll.id())
                && self.is_unchanged(poll, stamp, view)
            {
                continue;
            }
            let found = self.look_at(*poll.id());
            if let Ok(Polled::Live(record)) = &found {
                poll.note = Note::new(stamp.unwrap_or_default(), view, record).to_words();
            }
            poll.answer(found);
        }
        Ok(if counters.is_some() { COUNTERS_INTERVAL } else { POLL_INTERVAL })
    }

    /// Whether the counters and the log of cut-offs say that a session has not ended since its file was read.
    fn is_unchanged(&self, poll: &mut Poll, stamp: Stamp, view: CutOffView) -> bool {
        let note = Note::from_words(poll.note);
        if (note.ends, note.counters) != (stamp.ends, stamp.counters) {
            return false;
        }
        if note.view == view.to_bits() {
            return true;
        }
        let stands = self.coherence.stands(note.cut_off, note.user, poll.id());
        if stands {
            poll.note = Note { view: view.to_bits(), ..note }.to_words();
        }
        stands
    }

    /// Reads a session's file. The caller has read the log of cut-offs.
    fn look_at(&self, id: PublicId) -> Result<Polled> {
        Ok(match self.read(SessionRef::PublicId(id), &id, None)? {
            Some(View::Valid { newest, .. }) if self.is_expired(&newest.record) => {
                Polled::Absent(Absent::Expired(id))
            }
            Some(View::Valid { newest, .. }) if self.coherence.standing(&newest.record, &id).is_some() => {
                Polled::Live(newest.record)
            }
            Some(View::Moved(moved)) => {
                Polled::Moved { to: moved.mark.successor, by_login: moved.mark.by_login }
            }
            Some(View::Damaged) => Polled::Absent(Absent::Damaged(id)),
            None | Some(View::Valid { .. } | View::Empty) => Polled::Absent(Absent::NotFound(id)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_from_its_words() {
        let user = PublicId::digest(b"ada").as_bytes()[..16].try_into().unwrap();
        for user in [None, Some([0; 16]), Some(user)] {
            let note = Note { ends: u64::MAX, counters: 2, cut_off: 3, user, view: u32::MAX };
            assert!(Note::from_words(note.to_words()) == note, "{user:?}");
        }
        assert!(Note::from_words([0; 8]) == Note::default());
    }
}
