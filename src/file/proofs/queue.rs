//! The queue among the threads of one process. One thread has the turn at a time, every thread gets it, and no queue is
//! left.
use super::{LONG, SHORT, check};
use crate::error::ErrorKind;
use crate::id::PublicId;
use crate::queue::Queues;
use crate::sync::{Instant, step};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

/// Runs threads with these wait limits. The last thread uses another session.
fn queue(waits: &'static [Duration]) {
    let (queues, inside) = (Arc::new(Queues::new()), Arc::new(AtomicU32::new(0)));
    let threads: Vec<_> = waits
        .iter()
        .map(|wait| {
            let (queues, inside) = (Arc::clone(&queues), Arc::clone(&inside));
            shuttle::thread::spawn(move || {
                let turn = match queues.turn(&PublicId::digest(b"hot"), Instant::now() + *wait) {
                    Ok(turn) => turn,
                    Err(error) => {
                        assert_eq!((error.kind(), *wait), (ErrorKind::Busy, SHORT));
                        return false;
                    }
                };
                assert_eq!(inside.fetch_add(1, SeqCst), 0, "two threads are inside");
                step();
                inside.fetch_sub(1, SeqCst);
                drop(turn);
                true
            })
        })
        .collect();
    let came_in = threads.into_iter().map(|thread| thread.join().unwrap());
    assert!(came_in.filter(|came_in| *came_in).count() >= 1);
    assert_eq!(queues.len(), 0, "a queue is left");
}

#[test]
fn each_waiting_thread_gets_its_turn_and_no_queue_is_left() {
    check(3, || queue(&[LONG, LONG]));
    check(2, || queue(&[LONG, LONG, LONG]));
}

#[test]
fn a_thread_that_gives_up_takes_no_turn_and_leaves_no_queue() {
    check(3, || queue(&[LONG, SHORT]));
    check(2, || queue(&[LONG, SHORT, SHORT]));
}
