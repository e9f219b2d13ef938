//! `GET /live`: server-sent events that tell an open page when its session has ended, whichever process ended it.
//!
//! rouille sends a response from a `Read`, on one of its threads. The server has a thread for each stream besides its
//! workers, so streams do not stop the shop; their number and their length are bounded, and a browser opens a new one
//! when one is over.
use crate::complain;
use parking_lot::Mutex;
use rouille::{Response, ResponseBody};
use sessile::{PublicId, Sessions, WaitOutcome};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Streams that are open at the same time.
pub(crate) const STREAMS_MAX: usize = 64;
/// Streams of one session; a further one ends the oldest, which may be of a page that was left.
const STREAMS_OF_SESSION_MAX: usize = 8;
/// The longest time that a stream is open.
const LENGTH_MAX: Duration = Duration::from_secs(300);
/// How long one wait takes; after each, the stream sees whether it is to end.
const STEP: Duration = Duration::from_secs(1);
/// Pause between the comments that find out whether the browser is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// rouille collects this many bytes before it sends them, so each event is followed by as long a comment.
const BUFFERED_BYTES: usize = 8192;

/// The streams that are open.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Vec<Arc<Slot>>>);

struct Slot {
    session: PublicId,
    is_to_end: AtomicBool,
}

impl Streams {
    /// A slot for a stream of this session; `None` if there are too many streams.
    fn enter(self: &Arc<Self>, session: PublicId) -> Option<Place> {
        let mut slots = self.0.lock();
        if slots.len() >= STREAMS_MAX {
            return None;
        }
        let mut of_session =
            slots.iter().filter(|slot| slot.session == session && !slot.is_to_end.load(Ordering::Relaxed));
        if let Some(oldest) = of_session.next()
            && of_session.count() + 1 >= STREAMS_OF_SESSION_MAX
        {
            oldest.is_to_end.store(true, Ordering::Relaxed);
        }
        let slot = Arc::new(Slot { session, is_to_end: AtomicBool::new(false) });
        slots.push(Arc::clone(&slot));
        Some(Place { streams: Arc::clone(self), slot })
    }
}

/// The slot of a stream, which it leaves when it is dropped.
struct Place {
    streams: Arc<Streams>,
    slot: Arc<Slot>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.0.lock().retain(|slot| !Arc::ptr_eq(slot, &self.slot));
    }
}

/// The stream of a session with a logged-in user. It is read after the request was handled, and borrows no session.
pub(crate) fn stream(sessions: &Sessions, streams: &Arc<Streams>, session: PublicId) -> Response {
    let Some(place) = streams.enter(session) else {
        return events(ResponseBody::from_string("retry: 10000\n\n"));
    };
    let (sessions, now) = (sessions.clone(), Instant::now());
    let mut stream =
        Stream { sessions, place, opened: now, sent: now, bytes: Vec::new(), done: 0, ends: false };
    stream.send("retry: 1000\nevent: connected\ndata:\n\n");
    events(ResponseBody::from_reader(stream))
}

/// The answer to a page whose session has ended before it asked.
pub(crate) fn ended() -> Response {
    events(ResponseBody::from_string("event: ended\ndata:\n\n"))
}

fn events(data: ResponseBody) -> Response {
    let response = Response { data, ..Response::from_data("text/event-stream", []) };
    response.with_unique_header("Cache-Control", "no-store")
}

struct Stream {
    sessions: Sessions,
    place: Place,
    opened: Instant,
    /// The time of the last event or comment.
    sent: Instant,
    bytes: Vec<u8>,
    /// The number of `bytes` that were read.
    done: usize,
    ends: bool,
}

impl Stream {
    fn send(&mut self, event: &str) {
        self.bytes.clear();
        self.bytes.extend_from_slice(event.as_bytes());
        self.bytes.push(b':');
        self.bytes.resize(event.len() + BUFFERED_BYTES, b' ');
        self.bytes.extend_from_slice(b"\n\n");
        (self.done, self.sent) = (0, Instant::now());
    }

    /// Waits for the next thing to send, one step long.
    fn step(&mut self) {
        // The shop gives a session another id only at a login. With other rotations, one wait is to be as long as the
        // stream: after the grace period, the old id is that of no session.
        match self.sessions.wait_ended(&self.place.slot.session, STEP) {
            Ok(WaitOutcome::TimedOut) => {}
            Ok(WaitOutcome::Ended | WaitOutcome::Expired) => {
                self.send("event: ended\ndata:\n\n");
                self.ends = true;
            }
            // A login, in another tab: the browser asks again, with its new cookie.
            Ok(_) => self.ends = true,
            Err(error) => {
                complain(&error);
                self.ends = true;
            }
        }
        self.ends |= self.opened.elapsed() > LENGTH_MAX || self.place.slot.is_to_end.load(Ordering::Relaxed);
        if !self.ends && self.sent.elapsed() > HEARTBEAT {
            self.send("");
        }
    }
}

impl Read for Stream {
    /// Blocks until there is something to send. No bytes are the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.done == self.bytes.len() {
            if self.ends {
                return Ok(0);
            }
            self.step();
        }
        let read = (&self.bytes[self.done..]).read(buffer)?;
        self.done += read;
        Ok(read)
    }
}
