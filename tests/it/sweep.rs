//! Which files a sweep removes, which it leaves, and its report.
use crate::support::sweeping::{Fixture, HOUR, RELAXED, age, counts};
use crate::support::texts::{files_in_shards, record};
use sessile::admin::{SweepOptions, SweepOutcome, SweepProgress};
use sessile::{Admin, ErrorKind, PublicId, SessionId, Store, Timing};
use std::fs;
use std::ops::ControlFlow::{Break, Continue};
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

#[test]
fn expired_sessions_are_removed_and_live_ones_not_read() {
    let fixture = Fixture::new();
    let dead = fixture.sessions(20, HOUR / 60);
    let live = fixture.sessions(30, 14 * 24 * HOUR);
    fixture.clock.advance(HOUR / 60);
    let report = fixture.sweep();
    assert_eq!(counts(&report), [20, 20, 0, 0, 0, 0, 0]);
    assert_eq!(report.files.bytes_freed, 20 * 4096);
    assert!(!dead.iter().any(|session| fixture.exists(session) || fixture.is_live(session)));
    assert!(live.iter().all(|session| fixture.is_live(session)));
    // A second sweep finds nothing to remove.
    assert_eq!(counts(&fixture.sweep()), [0; 7]);
}

#[test]
fn a_renewed_session_is_reinserted_until_it_expires() {
    let fixture = Fixture::new();
    let session = fixture.session(HOUR);
    fixture.clock.advance(HOUR / 2);
    fixture.renew(&session.token, 3 * HOUR);
    fixture.clock.advance(2 * HOUR);
    let report = fixture.sweep();
    assert_eq!((report.removed, report.files.renewed), (0, 1));
    assert!(fixture.is_live(&session));
    assert_eq!(fixture.buckets(), [500_003], "in the hour it expires in, and in no other");
    fixture.clock.advance(HOUR);
    let report = fixture.sweep();
    assert_eq!((report.removed, report.files.renewed), (1, 0));
    assert!(!fixture.exists(&session));
}

#[test]
fn a_deadline_that_was_moved_forward_is_kept() {
    let fixture = Fixture::new();
    let session = fixture.session(100 * HOUR);
    fixture.renew(&session.token, HOUR / 4);
    fixture.clock.advance(HOUR / 4);
    assert_eq!(counts(&fixture.sweep()), [1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn buckets_go_when_their_hour_is_over() {
    let fixture = Fixture::new();
    fixture.sessions(5, HOUR / 60);
    fixture.sessions(5, 2 * HOUR);
    fixture.clock.advance(HOUR / 2);
    assert_eq!(fixture.sweep().removed, 5);
    assert_eq!(fixture.buckets(), [500_000, 500_002], "this hour's may still grow");
    fixture.clock.advance(HOUR);
    fixture.sweep();
    assert_eq!(fixture.buckets(), [500_002]);
}

#[test]
fn a_lost_index_is_recreated_and_nothing_is_forgotten() {
    let fixture = Fixture::new();
    let dead = fixture.sessions(20, HOUR / 60);
    let live = fixture.sessions(20, 5 * HOUR);
    fixture.clock.advance(HOUR / 30);
    fs::remove_dir_all(fixture.root().join("run/due")).unwrap();
    assert_eq!(counts(&fixture.sweep()), [40, 20, 0, 0, 0, 0, 0]);
    assert!(!dead.iter().any(|session| fixture.exists(session)));
    fixture.clock.advance(6 * HOUR);
    let report = fixture.sweep();
    assert_eq!(report.removed, 20, "live sessions were inserted again: {report:?}");
    assert!(!live.iter().any(|session| fixture.exists(session)));
}

#[test]
fn every_file_is_read_in_256_hours_of_hourly_or_daily_sweeps() {
    for step in [1, 24] {
        let fixture = Fixture::new();
        let sessions = fixture.sessions(300, 1000 * HOUR);
        for bucket in fixture.buckets() {
            fs::remove_file(fixture.root().join(format!("run/due/{bucket}"))).unwrap();
        }
        let mut examined = 0;
        for _ in 0..256_u32.div_ceil(step) {
            fixture.clock.advance(step * HOUR);
            examined += fixture.sweep().files.examined;
        }
        assert!((300..=330).contains(&examined), "{examined} looks at 300 files, each {step} hours");
        fixture.clock.advance(1000 * HOUR);
        let report = fixture.sweep();
        assert_eq!(report.removed, 300, "all of them are in the index again");
        assert!(!sessions.iter().any(|session| fixture.exists(session)));
    }
}

#[test]
fn a_dry_run_counts_what_a_sweep_does_and_changes_nothing() {
    for full in [false, true] {
        let fixture = Fixture::new();
        let dead = fixture.sessions(20, HOUR / 60);
        let renewed = fixture.sessions(10, HOUR / 60);
        fixture.sessions(30, 50 * HOUR);
        for session in &renewed {
            fixture.renew(&session.token, 40 * HOUR);
        }
        fixture.clock.advance(3 * HOUR);
        let left = fixture.root().join("00/.new-0123");
        fs::write(&left, "left").unwrap();
        age(&left, 2 * HOUR);
        let before = fixture.buckets();
        let dry = fixture.sweep_with(SweepOptions::new().full(full).dry_run(true));
        assert!(dead.iter().all(|session| fixture.exists(session)) && left.exists());
        assert_eq!(fixture.buckets(), before);
        let real = fixture.sweep_with(SweepOptions::new().full(full));
        assert_eq!(counts(&dry), counts(&real));
        assert_eq!((dry.removed, dry.files.renewed, dry.files.bytes_freed), (20, 10, real.files.bytes_freed));
        assert!(!dead.iter().any(|session| fixture.exists(session)));
        assert_eq!(real.files.temporary, u64::from(full), "shard 0 is walked in hours that 256 divides");
    }
}

#[test]
fn a_stopped_sweep_is_continued_by_the_next_one() {
    let fixture = Fixture::new();
    fixture.sessions(200, HOUR / 60);
    fixture.clock.advance(HOUR / 30);
    let options = SweepOptions::new().per_second(50);
    let mut reports = 0;
    let report = fixture.store.sweep_with(&options, &mut |progress| {
        reports += 1;
        assert!(progress.done <= progress.total && progress.report.removed < 200);
        if reports > 5 { Break(()) } else { Continue(()) }
    });
    let report = report.unwrap();
    assert_eq!(report.outcome, SweepOutcome::Cancelled);
    assert!(report.removed < 100, "{report:?}");
    assert_eq!(fixture.sweep().removed, 200 - report.removed);
}

#[test]
fn a_second_sweep_leaves_the_work_to_the_first() {
    let fixture = Fixture::new();
    fixture.sessions(3, HOUR / 60);
    fixture.clock.advance(HOUR / 30);
    let other = fixture.another();
    let mut second = None;
    let first = fixture.store.sweep_with(&SweepOptions::new(), &mut |_| {
        second.get_or_insert_with(|| other.sweep(&SweepOptions::new()).unwrap());
        Continue(())
    });
    assert_eq!(first.unwrap().removed, 3);
    let second = second.unwrap();
    assert_eq!((second.outcome, counts(&second)), (SweepOutcome::AlreadyRunning, [0; 7]));
    assert_eq!(other.sweep(&SweepOptions::new()).unwrap().outcome, SweepOutcome::Completed, "it is over");
}

/// The number of sessions for which a sweep takes more than a tenth of a second.
const MANY: usize = if cfg!(debug_assertions) { 6_000 } else { 20_000 };

fn unthrottled() -> SweepOptions {
    SweepOptions::new().cpu_percent(100)
}

fn many_dead() -> Fixture {
    let fixture = Fixture::new();
    fixture.sessions(MANY, HOUR / 60);
    fixture.clock.advance(HOUR / 30);
    fixture
}

#[test]
fn a_stopped_sweep_has_counted_each_removal() {
    for full in [false, true] {
        let fixture = many_dead();
        let mut stopped = None;
        let report = fixture.store.sweep_with(&unthrottled().full(full), &mut |progress| {
            assert!(progress.done <= progress.total && progress.report.removed <= MANY as u64);
            if progress.done == 0 {
                return Continue(());
            }
            stopped = Some(Instant::now());
            Break(())
        });
        let report = report.unwrap();
        let took = stopped.expect("it was stopped").elapsed();
        assert_eq!(report.outcome, SweepOutcome::Cancelled);
        let left = files_in_shards(fixture.root()).len();
        assert_eq!(usize::try_from(report.removed).unwrap() + left, MANY);
        assert!(left > 0, "full: {full}: nothing was left to be stopped, after {took:?}");
        assert_eq!(usize::try_from(fixture.sweep().removed).unwrap(), left);
    }
}

#[test]
fn a_panic_in_progress_stops_the_sweep_with_an_error() {
    let fixture = many_dead();
    let reports = |progress: &SweepProgress<'_>| {
        if progress.done > 0 {
            resume_unwind(Box::new("on purpose"));
        }
        Continue(())
    };
    let error = fixture.store.sweep_with(&unthrottled(), &mut reports.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(
        error.to_string(),
        "failed to sweep session store: the `progress` function panicked; the work until then is done"
    );
    let left = files_in_shards(fixture.root()).len();
    assert!(left > 0, "it went on after the panic");
    assert_eq!(usize::try_from(fixture.sweep().removed).unwrap(), left);
}

#[test]
fn progress_is_reported_throughout_one_shard() {
    for full in [false, true] {
        let fixture = Fixture::new();
        let mut record = record("text");
        record.set_timing(Timing { deadline: fixture.store.now() + HOUR / 60, ..record.timing() });
        for n in 0..MANY {
            let id = PublicId::parse(&format!("ff{n:038x}")).unwrap();
            assert!(fixture.store.import(&id, &record, RELAXED).unwrap());
        }
        fixture.clock.advance(HOUR / 30);
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        let report = fixture.store.sweep_with(&unthrottled().full(full), &mut |_| {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            Continue(())
        });
        longest = longest.max(last.elapsed());
        let took = report.unwrap().elapsed;
        assert!(longest < took * 2 / 3, "full: {full}: no report for {longest:?} of {took:?}");
    }
}

/// Sweeps again and again, and stops each sweep after one or two tenths of a second, until there is nothing left to do.
/// Returns the sums of examined, removed and renewed sessions.
#[track_caller]
fn sweep_in_pieces(fixture: &Fixture) -> [u64; 3] {
    let mut sums = [0; 3];
    for pass in 0.. {
        assert!(pass < 60, "it comes to no end: {sums:?}");
        let mut reports = 0;
        let report = fixture.store.sweep_with(&SweepOptions::new().per_second(500), &mut |_| {
            reports += 1;
            if reports > 3 { Break(()) } else { Continue(()) }
        });
        let report = report.unwrap();
        let [examined, removed, renewed, ..] = counts(&report);
        sums = [sums[0] + examined, sums[1] + removed, sums[2] + renewed];
        if report.outcome == SweepOutcome::Completed {
            break;
        }
    }
    sums
}

#[test]
fn a_repeatedly_stopped_sweep_advances_and_repeats_nothing() {
    for in_one_shard in [false, true] {
        let fixture = Fixture::new();
        let mut record = record("text");
        record.set_timing(Timing { deadline: fixture.store.now() + HOUR, ..record.timing() });
        let ids = std::iter::repeat_with(|| SessionId::random().unwrap());
        let ids = ids.filter(|id| !in_one_shard || id.public_id().as_bytes()[0] == 0xff);
        for id in ids.take(400) {
            assert!(fixture.store.import(&id.public_id(), &record, RELAXED).unwrap());
            fixture.renew(&id.to_token(), 60 * HOUR);
        }
        // The hour of the sessions' bucket is over.
        fixture.clock.advance(3 * HOUR);
        fixture.pretend_it_was_walked();
        assert_eq!(sweep_in_pieces(&fixture), [400, 0, 400], "in one shard: {in_one_shard}");
        assert_eq!(fixture.buckets(), [500_060]);
        assert_eq!(fs::metadata(fixture.bucket(500_060)).unwrap().len(), 400 * 32, "each is inserted once");
    }
}

#[test]
fn a_repeatedly_stopped_walk_continues_and_completes() {
    let fixture = Fixture::new();
    fixture.sessions(300, HOUR / 60);
    let live = fixture.sessions(300, 60 * HOUR);
    fixture.clock.advance(HOUR / 30);
    fs::remove_dir_all(fixture.root().join("run/due")).unwrap();
    let [examined, removed, _] = sweep_in_pieces(&fixture);
    assert_eq!(removed, 300);
    // If a sweep is stopped within a shard, the next one reads the shard again from its beginning.
    assert!((600..750).contains(&examined), "{examined} looks at 600 files");
    fixture.clock.advance(61 * HOUR);
    assert_eq!(fixture.sweep().removed, 300, "live sessions were inserted");
    assert_eq!(fixture.existing(&live), 0);
}
