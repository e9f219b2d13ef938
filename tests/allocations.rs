//! A request allocates no memory if it does not use its session, or reads an integer in a session that is in memory.
//! These tests are a program of their own, because they replace its allocator. Each thread counts its own allocations.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]
use sessile::{Cookies, FileStore, Lifetime, Renewal, Session, SessionId, Sessions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator. It counts the calls that return memory.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! { static CALLS: Cell<usize> = const { Cell::new(0) }; }

// SAFETY: the system's allocator does what each call asks for. The count is a variable of the thread, which allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the rules of this function, which are those of the called one.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules, and the system's allocator has returned `place`.
        unsafe { System.dealloc(place, layout) }
    }
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the rules, and the system's allocator has returned `place`.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// The number of allocations that `run` makes on this thread.
fn allocations(run: impl FnOnce()) -> usize {
    let before = CALLS.get();
    run();
    CALLS.get() - before
}

/// `Sessions` with one stored session, which is in memory; and the cookie of that session.
fn site(renewal: Renewal) -> (tempfile::TempDir, Sessions, String) {
    let dir = tempfile::tempdir().unwrap();
    let sessions = Sessions::new(FileStore::open(dir.path()).unwrap(), Cookies::https()).unwrap();
    let sessions = sessions.with_lifetime(Lifetime::new().renewal(renewal)).unwrap();
    let mut visit = sessions.visit([]);
    visit.insert("visits", 7).unwrap();
    visit.insert("name", "Ada").unwrap();
    visit.save().unwrap();
    let cookie = format!("__Host-session={}", visit.token().unwrap().unwrap().expose());
    visit.finish(200).unwrap();
    (dir, sessions, cookie)
}

/// Runs a request with these cookie lines. Asserts that it allocates nothing, and the number of its response's headers.
#[track_caller]
fn check(sessions: &Sessions, lines: &[&str], handle: fn(&Session), want_headers: usize) {
    let request = || {
        let visit = sessions.visit(lines.iter().copied());
        handle(&visit);
        assert_eq!(visit.finish(200).unwrap().len(), want_headers, "{lines:?}");
    };
    assert_eq!(allocations(request), 0, "{lines:?}");
}

#[test]
fn a_request_that_leaves_its_session_alone_allocates_nothing() {
    let (_dir, sessions, ours) = site(Renewal::OnSave);
    let other = || format!("__Host-session={}", SessionId::random().unwrap().to_token().expose());
    let others = [other(), other(), other(), other()];
    let four = format!("theme=dark; {ours}; {}; {ours}; {}; {}; lang=en", others[0], others[1], others[2]);
    for lines in [
        &[][..],
        &[""],
        &["theme=dark; _ga=GA1.1.1234567890.1234567890; lang=en"],
        &[&ours],
        &[&others[0]],
        &["theme=dark", &format!("lang=en; {ours} ; tz=Europe/Berlin")],
        &[&four],
        &[&others[0], &others[1], &others[2], &others[3]],
        &["__Host-session=", "__Host-session=../etc/passwd,", "__Host-session=\"a\""],
    ] {
        check(&sessions, lines, |_| {}, 0);
    }
}

#[test]
fn a_request_that_reads_an_integer_in_memory_allocates_nothing() {
    for renewal in [Renewal::OnSave, Renewal::OnRead, Renewal::EveryRequest] {
        let (_dir, sessions, ours) = site(renewal);
        let read = |session: &Session| assert_eq!(session.get::<u64>("visits").unwrap(), Some(7));
        check(&sessions, &[&ours], read, 2);
        check(&sessions, &["theme=dark", &format!("{ours}; lang=en")], read, 2);
        check(&sessions, &[&ours], |session| assert!(session.contains("name").unwrap()), 2);
        check(&sessions, &[&ours], |session| assert_eq!(session.get::<u64>("missing").unwrap(), None), 2);
    }
}

#[test]
fn an_allocation_is_counted() {
    let (_dir, sessions, ours) = site(Renewal::OnSave);
    let read = || assert_eq!(sessions.visit([&*ours]).get::<String>("name").unwrap().unwrap(), "Ada");
    assert!(allocations(read) > 0, "a string");
    assert_eq!(allocations(|| drop(Box::new(ours.len()))), 1);
    assert_eq!(allocations(|| drop(vec![0; ours.len()])), 1);
    let mut text = "a".to_owned();
    assert_eq!(allocations(|| text.push_str(&ours)), 1);
}
