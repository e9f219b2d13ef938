//! No update is lost: threads of several processes increment the same few sessions, at both durabilities, and sometimes
//! grow them. The sums equal the acknowledged increments.
//!
//! Each round uses new sessions, which have to grow again. After a round each session is compared with the increments
//! acknowledged to each process.
use crate::figures::{Figures, words};
use crate::stage::{open, open_without_cache};
use crate::support::dice::Dice;
use crate::support::process::{Parent, Start, Worker, hear_from_all, say_to_all};
use sessile::{Durability, FileStore, Lookup, Record, Store, Token, Value, Verdict};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

trials! {
    sums_equal_the_acknowledged_increments,
}

pub(crate) const WORKERS: &[(&str, Worker)] = &[("increment", work)];

const PROCESSES: u64 = 4;
const THREADS: u64 = 2;
const SESSIONS: usize = 3;
/// The number of increments of each thread in a round.
const INCREMENTS: u64 = 50;

fn sums_equal_the_acknowledged_increments(dir: &Path, time: Duration) -> Figures {
    let files = open_without_cache(dir);
    let start =
        |process: u64| Start::of(WORKERS[0].0).with("DIR", dir).with("PROCESS", process.to_string()).start();
    let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
    hear_from_all(&children, "ready");
    let mut figures = Figures::default();
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < time && !figures.has_faults() {
        let tokens = [(); SESSIONS].map(|()| {
            let record = Record::new(files.now(), files.now() + Duration::from_secs(86_400));
            files.create(&record, Durability::Relaxed).unwrap().token
        });
        say_to_all(&mut children, tokens.each_ref().map(Token::expose).join(" "));
        for (process, child) in children.iter().enumerate() {
            let line = child.line();
            if let Some(fault) = line.strip_prefix(FAULT) {
                figures.fault(format!("round {round}, process {process}: {fault}"));
                continue;
            }
            let acknowledged: Vec<u64> = line.split(' ').map(|count| count.parse().unwrap()).collect();
            figures.saves += acknowledged.iter().sum::<u64>();
            for (n, (token, acknowledged)) in tokens.iter().zip(acknowledged).enumerate() {
                let found = count(&load(&files, token), &by(process));
                if found != acknowledged {
                    figures.fault(format!(
                        "round {round}, session {n}: {found} increments by process {process}, to which {acknowledged} were acknowledged"
                    ));
                }
            }
        }
        if figures.has_faults() {
            break;
        }
        for (n, token) in tokens.iter().enumerate() {
            let record = load(&files, token);
            let each: u64 = (0..children.len()).map(|process| count(&record, &by(process))).sum();
            let all = count(&record, ALL);
            if all != each {
                figures.fault(format!("round {round}, session {n}: {all} increments by all, {each} by each"));
            }
            assert!(files.delete(token).unwrap().is_some());
            figures.ends += 1;
        }
        round += 1;
    }
    say_to_all(&mut children, "end");
    for child in children {
        figures.add_child(child);
    }
    let expected = round * PROCESSES * THREADS * INCREMENTS;
    if !figures.has_faults() && figures.saves != expected {
        figures.fault(format!("{} saves where {expected} were made", figures.saves));
    }
    figures.check_met(time, &[("reads", figures.reads), ("saves", figures.saves)]);
    figures
}

/// The first word of the report of a round in which a promise was broken.
const FAULT: &str = "fault: ";
/// The entry that all processes increment. Each process has an entry of its own, too.
const ALL: &str = "all";

fn by(process: usize) -> String {
    format!("process {process}")
}

fn count(record: &Record, name: &str) -> u64 {
    record.entries().get(name).map_or(0, |value| value.get().unwrap())
}

#[track_caller]
fn load(store: &FileStore, token: &Token) -> Record {
    match store.load(token).unwrap() {
        Lookup::Live(live) => live.record,
        Lookup::Absent(absent) => panic!("a session that was not ended is absent: {absent:?}"),
    }
}

fn work(parent: &Parent) {
    let dir = Path::new(parent.argument("DIR"));
    let process = parent.number("PROCESS");
    let store = open(dir);
    let mut dice: Vec<_> = (0..THREADS).map(|thread| Dice::new(process * THREADS + thread)).collect();
    let mut figures = Figures::default();
    parent.report("ready");
    loop {
        let line = parent.line();
        if line == "end" {
            return figures.report_to(parent);
        }
        let tokens: Vec<_> = line.split(' ').map(|text| Token::parse(text).unwrap()).collect();
        let mut acknowledged = [0; SESSIONS];
        let mut fault = None;
        thread::scope(|scope| {
            let (store, tokens) = (&store, &tokens);
            let start = |dice| scope.spawn(move || increment(store, tokens, process, dice));
            let threads: Vec<_> = dice.iter_mut().map(start).collect();
            for thread in threads {
                match thread.join() {
                    Ok((counts, reads)) => {
                        figures.reads += reads;
                        acknowledged.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                    }
                    Err(thrown) => fault = Some(words(&*thrown)),
                }
            }
        });
        match fault {
            Some(fault) => parent.report(format_args!("{FAULT}{fault}")),
            None => parent.report(acknowledged.map(|count| count.to_string()).join(" ")),
        }
    }
}

/// Increments the sessions at random. Returns how often each was incremented, and how often one was loaded.
fn increment(store: &FileStore, tokens: &[Token], process: u64, dice: &mut Dice) -> ([u64; SESSIONS], u64) {
    let mut acknowledged = [0; SESSIONS];
    let mut seen = [0; SESSIONS];
    let mut reads = 0;
    let own = by(usize::try_from(process).unwrap());
    for _ in 0..INCREMENTS {
        let n = usize::try_from(dice.roll(SESSIONS as u64)).unwrap();
        let how = if dice.roll(4) == 0 { Durability::PowerSafe } else { Durability::Relaxed };
        // The text has up to 16 KiB, so a session that is small at first needs a larger file three times.
        let bytes = usize::try_from(if dice.roll(20) == 0 { dice.roll(16_000) } else { 10 }).unwrap();
        let change = &mut |record: &mut Record| {
            for name in [ALL, &own] {
                let next = Value::new(&(count(record, name) + 1)).unwrap();
                record.insert(name, &next).unwrap();
            }
            record.insert("text", &Value::new(&"x".repeat(bytes)).unwrap()).unwrap();
            Ok(Verdict::Write)
        };
        let saved = store.update(&tokens[n], change, how).unwrap().expect("no operation ends it");
        acknowledged[n] += 1;
        let all = count(&saved.live.record, ALL);
        assert!(all > seen[n], "session {n} was incremented to {all}, after {} had been seen", seen[n]);
        seen[n] = all;
        if dice.roll(2) == 0 {
            let all = count(&load(store, &tokens[n]), ALL);
            assert!(all >= seen[n], "session {n} was loaded with {all}, after {} had been seen", seen[n]);
            seen[n] = all;
            reads += 1;
        }
    }
    (acknowledged, reads)
}
