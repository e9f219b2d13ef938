//! Measures the processor's time that 1,000 waits for the ends of sessions take, of files and of rows in memory: all
//! time of the process while every thread waits, as a share of one core.
//!
//! `SECONDS` in the environment sets the time of one measurement (20 seconds by default).
use rustix::time::{ClockId, clock_gettime};
use sessile::rows::MemoryStore;
use sessile::{Cookies, FileStore, PublicId, Sessions, WaitOutcome};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

const WAITS: usize = 1000;

/// The processor's time of this process.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("positive"),
        u32::try_from(time.tv_nsec).expect("positive"),
    )
}

fn measure(name: &str, sessions: &Sessions, seconds: u64) {
    let ids: Vec<PublicId> = (0..WAITS)
        .map(|n| {
            let mut session = sessions.session([]);
            session.insert("n", n).expect("a number");
            session.login(format!("user {n}")).expect("a name");
            session.save().expect("there is room");
            session.public_id().expect("it is loaded").expect("it is stored")
        })
        .collect();
    let began = Barrier::new(WAITS + 1);
    thread::scope(|scope| {
        for id in &ids {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn_scoped(scope, || {
                    began.wait();
                    let outcome = sessions.wait_ended(id, Duration::from_secs(86_400));
                    assert_eq!(outcome.expect("the store answers"), WaitOutcome::Stopped);
                })
                .expect("a thread");
        }
        began.wait();
        thread::sleep(Duration::from_secs(1));
        let before = used();
        thread::sleep(Duration::from_secs(seconds));
        let share = used().saturating_sub(before).as_secs_f64() / Duration::from_secs(seconds).as_secs_f64();
        println!("waits/{name}/{WAITS}: {:.3} % of a core in {seconds} s", 100.0 * share);
        sessions.stop_waiting();
    });
}

fn main() {
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    // In test mode it runs for a moment, to see that it works.
    let seconds = if std::env::args().any(|argument| argument == "--test") { 1 } else { seconds };
    let dir = tempfile::tempdir().expect("a directory");
    let store = FileStore::open(dir.path()).expect("a new store");
    measure("files", &Sessions::new(store, Cookies::https()).expect("the options agree"), seconds);
    measure(
        "rows",
        &Sessions::new(MemoryStore::new(), Cookies::https()).expect("the options agree"),
        seconds,
    );
}
