//! Obstacles for a sweep: damaged files, leftovers, foreign files, a damaged index, a clock that jumps. They are
//! counted and stop nothing. Expired sessions are removed, live ones stay, and foreign files are left alone.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use crate::failures::{again_on_small_disk, cause, fill_up};
use crate::support::dice::Dice;
use crate::support::planted::Planted;
use crate::support::rerun::{again_as_nobody, again_in_mounts, stage};
use crate::support::sweeping::{FIRST_HOUR, Fixture, HOUR, RELAXED, age, counts, entry};
use crate::support::texts::{files_in_shards, load, record};
use fs2::FileExt as _;
use sessile::admin::{SweepOptions, SweepOutcome, SweepPhase, SweepReport};
use sessile::{Admin, Clock, ErrorKind, FileStoreOptions, PublicId, Saved, Store, Timing, Token};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::ops::ControlFlow::{Break, Continue};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const NOTHING: [u64; 7] = [0; 7];

fn due() -> SweepOptions {
    SweepOptions::new()
}

fn full() -> SweepOptions {
    SweepOptions::new().full(true)
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The sessions, among these, whose shards are not walked by a sweep in the first hours.
fn unwalked(sessions: &[Saved]) -> impl Iterator<Item = &Saved> {
    let walked = FIRST_HOUR % 256..FIRST_HOUR % 256 + 16;
    sessions.iter().filter(move |saved| !walked.contains(&u64::from(saved.live.id.as_bytes()[0])))
}

fn shard_of(fixture: &Fixture, saved: &Saved) -> PathBuf {
    fixture.path(saved).parent().unwrap().to_owned()
}

/// Three of these sessions, each in another shard.
fn three_apart<'a>(fixture: &Fixture, sessions: &'a [Saved]) -> [&'a Saved; 3] {
    let mut found: Vec<&Saved> = Vec::new();
    for saved in unwalked(sessions) {
        if found.iter().all(|other| shard_of(fixture, other) != shard_of(fixture, saved)) {
            found.push(saved);
        }
        if let [a, b, c] = found[..] {
            return [a, b, c];
        }
    }
    panic!("so few sessions")
}

fn error_texts(report: &SweepReport) -> Vec<String> {
    let mut texts: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

// ----------------------------------------------------------------------------------- one of many is damaged

/// Of `count` expired sessions, one file is damaged, another one has a directory in its place, and one shard cannot be
/// read. Asserts that a sweep at the time `later` removes all others.
#[track_caller]
fn check_all_others_are_swept(
    count: usize,
    later: Duration,
    options: &SweepOptions,
    damage: &dyn Fn(&Path, &Path),
    reason: &str,
) {
    let fixture = Fixture::new();
    let sessions = fixture.sessions(count, HOUR / 60);
    fixture.clock.advance(later);
    let [damaged, foreign, hidden] = three_apart(&fixture, &sessions);
    fs::write(fixture.path(damaged), [0x5a; 4096]).unwrap();
    fs::remove_file(fixture.path(foreign)).unwrap();
    fs::create_dir(fixture.path(foreign)).unwrap();
    let (shard, aside) = (shard_of(&fixture, hidden), fixture.root().join("damaged"));
    fs::rename(&shard, &aside).unwrap();
    damage(&shard, &aside);
    let hidden = fs::read_dir(&aside).unwrap().count() as u64;

    let report = fixture.sweep_with(options.clone());
    let SweepReport { removed, failed, files, .. } = report;
    assert_eq!((files.damaged, files.unknown, files.renewed, files.temporary), (1, 1, 0, 0), "{report:?}");
    assert_eq!(removed, count as u64 - 2 - hidden, "{report:?}");
    assert!((1..=2).contains(&failed), "{report:?}");
    let text = format!("failed to open shard directory `{}`{reason}", shard.display());
    assert_eq!(error_texts(&report), [text]);
    assert_eq!(fs::read_dir(&aside).unwrap().count() as u64, hidden, "it was followed");

    // When the shard can be read again, the next sweep removes its sessions as well.
    if is_there(&shard) {
        fs::remove_file(&shard).unwrap();
    }
    fs::rename(&aside, &shard).unwrap();
    fixture.clock.advance(Duration::from_micros(1));
    let report = fixture.sweep();
    assert_eq!((report.removed, report.failed), (hidden, 0), "{report:?}");
    assert!(fixture.exists(damaged) && fixture.path(foreign).is_dir());
    assert_eq!(files_in_shards(fixture.root()).len(), 2);
}

#[test]
fn damaged_foreign_and_lost_files_disturb_no_other_session() {
    let soon = HOUR / 30;
    let a_file = |shard: &Path, _: &Path| fs::write(shard, "in the way").unwrap();
    let in_place = ": a link, pipe, directory or device is in its place";
    check_all_others_are_swept(10_000, soon, &due(), &a_file, in_place);
    check_all_others_are_swept(10_000, soon, &full(), &a_file, in_place);
}

#[test]
fn a_replaced_shard_is_swept_when_it_is_back() {
    let a_file = |shard: &Path, _: &Path| fs::write(shard, "in the way").unwrap();
    let a_link = |shard: &Path, aside: &Path| symlink(aside, shard).unwrap();
    let nothing = |_: &Path, _: &Path| ();
    let in_place = ": a link, pipe, directory or device is in its place";
    for later in [HOUR / 30, 2 * HOUR] {
        for options in [due(), full()] {
            check_all_others_are_swept(600, later, &options, &a_file, in_place);
            check_all_others_are_swept(600, later, &options, &a_link, in_place);
            check_all_others_are_swept(600, later, &options, &nothing, "");
        }
    }
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn unreadable_files_and_shards_are_named_and_disturb_no_other() {
    let Some(stage) = stage() else {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let name = "sweep_obstacles::unreadable_files_and_shards_are_named_and_disturb_no_other";
        return again_as_nobody(name, dir.path());
    };
    for (count, later, options) in [
        (10_000, HOUR / 30, due()),
        (10_000, 2 * HOUR, full()),
        (600, HOUR / 30, full()),
        (600, 2 * HOUR, due()),
    ] {
        let fixture = Fixture::at(&stage.join(format!("{count}-{later:?}")));
        let sessions = fixture.sessions(count, HOUR / 60);
        fixture.clock.advance(later);
        let [file, fixed, in_shard] = three_apart(&fixture, &sessions);
        let (file, shard, fixed) =
            (fixture.path(file), shard_of(&fixture, in_shard), shard_of(&fixture, fixed));
        let names = |shard: &Path| fs::read_dir(shard).unwrap().count() as u64;
        allow(&file, 0);
        let mut left = 1 + names(&shard);
        allow(&shard, 0);
        // Only with few sessions does the report have room for all errors, so only then a second shard fails.
        if count < 1000 {
            left += names(&fixed);
            // The directory can be read, but no file can be removed from it.
            allow(&fixed, 0o500);
        }
        let report = fixture.sweep_with(options);
        assert_eq!(report.removed, count as u64 - left, "{report:?}");
        assert_eq!(
            (report.files.damaged, report.files.unknown, report.files.renewed),
            (0, 0, 0),
            "{report:?}"
        );
        assert!((2..=2 * left).contains(&report.failed), "{report:?}");
        let texts = error_texts(&report);
        let wanted = [
            format!("failed to open session file `{}`", file.display()),
            format!("failed to open shard directory `{}`", shard.display()),
        ];
        for text in &wanted {
            assert!(texts.contains(text), "{text} is not among {texts:?}");
        }
        let others = texts.iter().filter(|text| !wanted.contains(text));
        let remove = format!("failed to remove session file `{}/", fixed.display());
        assert!(others.into_iter().all(|text| text.starts_with(&remove)), "{texts:?}");
        for error in &report.errors {
            assert_eq!(cause(error), "Permission denied (os error 13)");
        }
        allow(&file, 0o600);
        allow(&shard, 0o700);
        allow(&fixed, 0o700);
        fixture.clock.advance(Duration::from_micros(1));
        let report = fixture.sweep();
        assert_eq!((report.removed, report.failed), (left, 0), "{report:?}");
        assert_eq!(files_in_shards(fixture.root()).len(), 0);
    }
}

// ------------------------------------------------------------------------------------------------ leftovers

/// Asserts that the leftover that `make` makes is removed when it is an hour old by the file system's clock, unless it
/// is locked.
#[track_caller]
fn check_leftover(case: &str, make: impl Fn(&Fixture) -> PathBuf) {
    let fixture = Fixture::new();
    let live = fixture.session(YEAR);
    let path = make(&fixture);
    let bytes = fs::metadata(&path).unwrap().len();
    let examined = u64::from(!path.file_name().unwrap().to_string_lossy().starts_with('.')) + 1;
    let check = |left: bool, because: &str| {
        let want = [examined, 0, 0, 0, u64::from(!left), 0, 0];
        let freed = if left { 0 } else { bytes };
        for options in [full().dry_run(true), full()] {
            let report = fixture.sweep_with(options);
            assert_eq!(
                (counts(&report), report.files.bytes_freed),
                (want, freed),
                "{case} that {because}: {report:?}"
            );
            if left {
                assert!(is_there(&path), "{case} that {because} was removed");
            }
        }
        assert_eq!(is_there(&path), left, "{case} that {because}");
        // The age of a file is not measured by the store's clock.
        fixture.clock.advance(3 * HOUR);
    };
    check(true, "was just written");
    age(&path, Duration::from_secs(3500));
    check(true, "is not yet an hour old");
    age(&path, HOUR + Duration::from_secs(100));
    let locked = File::open(&path).unwrap();
    locked.lock_exclusive().unwrap();
    assert_eq!(counts(&fixture.sweep_with(full())), [examined, 0, 0, 0, 0, 0, 0], "{case} that is locked");
    assert!(is_there(&path), "{case} was removed while it was locked");
    fs2::FileExt::unlock(&locked).unwrap();
    check(false, "is an hour old");
    assert!(fixture.is_live(&live));
}

/// Puts a file that has no live session in place of a session's file.
fn dead_session(fixture: &Fixture, bytes: &[u8]) -> PathBuf {
    let saved = fixture.session(10 * YEAR);
    fs::write(fixture.path(&saved), bytes).unwrap();
    fixture.path(&saved)
}

fn tombstone(fixture: &Fixture, slot: usize) -> PathBuf {
    let path = fixture.path(&fixture.session(10 * YEAR));
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"GONE", 2048 * slot as u64).unwrap();
    path
}

fn written(path: PathBuf) -> PathBuf {
    fs::write(&path, "left").unwrap();
    path
}

#[test]
fn leftovers_go_after_an_hour_and_never_while_locked() {
    check_leftover("an empty file", |fixture| dead_session(fixture, b""));
    check_leftover("a short file", |fixture| dead_session(fixture, b"SESS\x01\x00"));
    check_leftover("a file one byte short", |fixture| dead_session(fixture, &[1; 4095]));
    check_leftover("a file of zeros", |fixture| dead_session(fixture, &[0; 4096]));
    check_leftover("a large file of zeros", |fixture| dead_session(fixture, &vec![0; 1 << 17]));
    check_leftover("a session with a tombstone", |fixture| tombstone(fixture, 0));
    check_leftover("a session with a tombstone behind it", |fixture| tombstone(fixture, 1));
}

#[test]
fn temporary_files_go_after_an_hour_and_never_while_locked() {
    let random = ".new-0123456789abcdef0123456789abcdef";
    check_leftover("a temporary file", |fixture| written(fixture.root().join("77").join(random)));
    check_leftover("an empty one", |fixture| {
        let path = fixture.root().join("00/.new-Zz9");
        fs::write(&path, "").unwrap();
        path
    });
    check_leftover("one beside the shards", |fixture| written(fixture.root().join(".new-aBc123")));
}

#[test]
fn an_indexed_unfinished_creation_is_a_leftover() {
    for (old, left) in [(HOUR / 2, true), (2 * HOUR, false)] {
        let fixture = Fixture::new();
        let sessions = fixture.sessions(50, HOUR / 60);
        let saved = unwalked(&sessions).next().unwrap();
        File::options().write(true).open(fixture.path(saved)).unwrap().set_len(0).unwrap();
        age(&fixture.path(saved), old);
        fixture.clock.advance(HOUR / 30);
        let report = fixture.sweep();
        assert_eq!(counts(&report), [50, 49, 0, 0, u64::from(!left), 0, 0]);
        assert_eq!(fixture.exists(saved), left);
    }
}

// --------------------------------------------------------------------------------------------------- damage

/// Asserts that a damaged file of the age `old` is counted, and is removed only if that is longer than `keep`.
#[track_caller]
fn check_damaged(damage: &dyn Fn(&Path), old: Duration, keep: Option<Duration>, goes: bool) {
    for is_full in [false, true] {
        let fixture = Fixture::new();
        let sessions = fixture.sessions(20, HOUR / 60);
        let saved = unwalked(&sessions).next().unwrap();
        fixture.clock.advance(HOUR / 30);
        let path = fixture.path(saved);
        damage(&path);
        age(&path, old);
        let bytes = fs::metadata(&path).unwrap().len();
        let options = SweepOptions::new().full(is_full);
        let options = keep.map_or(options.clone(), |keep| options.keep_damaged(keep));
        let locked = File::open(&path).unwrap();
        locked.lock_exclusive().unwrap();
        let gone = 19 + u64::from(goes);
        let want = ([20, gone, 0, 1, 0, 0, 0], 19 * 4096 + u64::from(goes) * bytes);
        // A dry run locks no session.
        let dry = fixture.sweep_with(options.clone().dry_run(true));
        assert_eq!((counts(&dry), dry.files.bytes_freed), want, "dry: {dry:?}");
        let report = fixture.sweep_with(options.clone());
        assert_eq!((report.removed, report.failed), (19, 0), "locked: {report:?}");
        fs2::FileExt::unlock(&locked).unwrap();
        let report = fixture.sweep_with(options.clone());
        assert_eq!(counts(&report), [1, u64::from(goes), 0, 1, 0, 0, 0], "{report:?}");
        assert_eq!(report.files.bytes_freed, u64::from(goes) * bytes);
        assert_eq!(is_there(&path), !goes, "{old:?} old, kept for {keep:?}");
        // From now on the file is found by walks only, because the index does not list it.
        let next = fixture.sweep_with(options.full(true));
        assert_eq!(counts(&next), if goes { NOTHING } else { [1, 0, 0, 1, 0, 0, 0] });
    }
}

#[test]
fn a_damaged_file_is_counted_kept_for_one_age_and_removed() {
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[100] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    check_damaged(&flip, Duration::ZERO, None, false);
    check_damaged(&flip, 13 * DAY, None, false);
    check_damaged(&flip, 15 * DAY, None, true);
    check_damaged(&flip, HOUR / 2, Some(HOUR), false);
    check_damaged(&flip, 2 * HOUR, Some(HOUR), true);
    check_damaged(&flip, 2 * HOUR, Some(3 * HOUR), false);
    check_damaged(&flip, 9 * YEAR, Some(Duration::MAX), false);
}

#[test]
fn a_file_of_an_impossible_size_is_damaged() {
    let sized = |bytes: u64| {
        move |path: &Path| File::options().write(true).open(path).unwrap().set_len(bytes).unwrap()
    };
    for bytes in [4097, 12_288, 64 << 20, (64 << 20) + 1, 1 << 40] {
        let old = |path: &Path| {
            fs::write(path, [7; 4096]).unwrap();
            sized(bytes)(path);
        };
        check_damaged(&old, HOUR / 2, Some(HOUR), false);
        check_damaged(&old, 2 * HOUR, Some(HOUR), true);
    }
}

// ---------------------------------------------------------------------------------------------- foreign files

/// Asserts that each sweep counts a foreign file in this place and leaves it alone, whatever its age.
#[track_caller]
fn check_unknown(fixture: &Fixture, planted: Planted, place: &Path) {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    fs::write(&target, "foreign").unwrap();
    age(&target, YEAR);
    planted.plant(place, &target);
    age(place, YEAR);
    let case = || format!("{planted:?} at {}", place.display());
    let kind = fs::symlink_metadata(place).unwrap().file_type();
    for options in [full().dry_run(true), full()] {
        let report = fixture.sweep_with(options);
        assert_eq!(counts(&report), [0, 0, 0, 0, 0, 1, 0], "{}: {report:?}", case());
        assert_eq!(fs::symlink_metadata(place).expect("it is there").file_type(), kind, "{}", case());
        assert_eq!(fs::read(&target).unwrap(), b"foreign", "{} was followed", case());
    }
    if kind.is_dir() { fs::remove_dir(place) } else { fs::remove_file(place) }.unwrap();
    assert_eq!(counts(&fixture.sweep_with(full())), NOTHING);
}

#[test]
fn foreign_names_are_left_alone_and_counted() {
    let fixture = Fixture::new();
    let hex = "0123456789abcdef0123456789abcdef012345";
    let upper = hex.to_uppercase();
    let in_shard: [&[u8]; 12] = [
        b"README",
        b"sessile.json",
        &hex.as_bytes()[1..],
        b"0123456789abcdef0123456789abcdef0123456",
        upper.as_bytes(),
        b".0123456789abcdef0123456789abcdef01234",
        b".new-",
        b".new-0-1",
        b".new-0.bak",
        b"new-00",
        "caf\u{e9}".as_bytes(),
        b"not unicode \xff",
    ];
    for name in in_shard {
        check_unknown(&fixture, Planted::File, &fixture.root().join("a7").join(OsStr::from_bytes(name)));
    }
    for name in ["index.html", "00.bak", "AB", "100", "0", ".new-", ".new-x y", ".gitignore"] {
        check_unknown(&fixture, Planted::File, &fixture.root().join(name));
    }
    check_unknown(&fixture, Planted::File, &fixture.root().join(OsStr::from_bytes(b".new-\xff")));
    for name in ["README", "sweep.bak", "01", "+1", "-1", ".new-0123", "99999999999999999999"] {
        check_unknown(&fixture, Planted::File, &fixture.root().join("run/due").join(name));
    }
}

#[test]
fn links_pipes_and_sockets_with_our_names_are_left_alone() {
    let fixture = Fixture::new();
    for planted in Planted::NO_FILES {
        for place in ["a7/0123456789abcdef0123456789abcdef012345", "a7/.new-0123", ".new-0123", "README"] {
            check_unknown(&fixture, planted, &fixture.root().join(place));
        }
    }
}

/// These sessions are listed by the index, and their shards are not walked.
#[test]
fn foreign_files_in_place_of_a_due_session_are_left_alone() {
    for planted in Planted::NO_FILES {
        for later in [HOUR / 30, 2 * HOUR] {
            let fixture = Fixture::new();
            let sessions = fixture.sessions(20, HOUR / 60);
            let saved = unwalked(&sessions).next().unwrap();
            let place = fixture.path(saved);
            let target = fixture.root().join("damaged");
            fs::rename(&place, &target).unwrap();
            planted.plant(&place, &target);
            fixture.clock.advance(later);
            let [dry, real] =
                [due().dry_run(true), due()].map(|options| counts(&fixture.sweep_with(options)));
            assert_eq!(dry, real, "{planted:?}");
            let [_, removed, .., unknown, failed] = real;
            assert_eq!((removed, unknown, failed), (19, 1, 0), "{planted:?}");
            assert!(is_there(&place) && target.exists(), "{planted:?}");
            assert_eq!(counts(&fixture.sweep()), NOTHING, "{planted:?}");
        }
    }
}

#[test]
fn a_session_of_another_format_is_left_alone_and_counted() {
    for (is_full, format) in [(false, 3_u16), (true, 3), (false, 1), (true, 1)] {
        let fixture = Fixture::new();
        let sessions = fixture.sessions(20, HOUR / 60);
        let saved = unwalked(&sessions).next().unwrap();
        let path = fixture.path(saved);
        File::options().write(true).open(&path).unwrap().write_all_at(&format.to_le_bytes(), 4).unwrap();
        let before = fs::read(&path).unwrap();
        age(&path, 10 * YEAR);
        fixture.clock.advance(HOUR / 30);
        for dry in [true, false] {
            let report = fixture.sweep_with(SweepOptions::new().full(is_full).dry_run(dry));
            assert_eq!(
                (report.removed, report.files.unknown, report.files.damaged),
                (19, 1, 0),
                "{report:?}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn lost_and_found_is_ignored() {
    let fixture = Fixture::new();
    let place = fixture.root().join("lost+found");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("#12345"), "found").unwrap();
    assert_eq!(counts(&fixture.sweep_with(full())), NOTHING);
    assert!(place.join("#12345").exists());
}

// ------------------------------------------------------------------------------------------- a damaged index

/// A damage to a bucket that has entries of 20 expired and 20 renewed sessions.
type Damage<'a> = &'a dyn Fn(&Fixture, &Path);

/// Bytes of which few are the beginning of a valid entry, and none is a whole one.
fn garbage(seed: u64, bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..bytes).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect()
}

/// Asserts that after this damage to a bucket, live sessions stay, a full walk at most is needed to remove the expired
/// ones, and the index works again afterwards. `missed` is the number of expired sessions that the index has lost.
#[track_caller]
fn check_damaged_bucket(case: &str, missed: u64, damage: Damage<'_>) {
    for later in [HOUR / 30, 2 * HOUR] {
        let fixture = Fixture::new();
        let dead = fixture.sessions(20, HOUR / 60);
        let live = fixture.sessions(20, HOUR / 60);
        for saved in &live {
            fixture.renew(&saved.token, 5 * HOUR);
        }
        let bucket = fixture.bucket(FIRST_HOUR);
        assert_eq!(fs::metadata(&bucket).unwrap().len(), 40 * 32);
        damage(&fixture, &bucket);
        fixture.clock.advance(later);
        fixture.pretend_it_was_walked();
        let report = fixture.sweep();
        let seen = format!("{case}, {later:?} later: {report:?}");
        assert!(report.files.examined <= 40, "a session was looked at twice: {seen}");
        assert_eq!(report.removed, 20 - missed, "{seen}");
        assert_eq!(report.removed, 20 - fixture.existing(&dead) as u64, "{seen}");
        let report = fixture.sweep_with(full());
        assert_eq!(report.removed, missed, "{case}, {later:?} later, in full: {report:?}");
        assert!(live.iter().all(|saved| fixture.is_live(saved)), "{case}, {later:?} later");
        let new = fixture.sessions(5, HOUR);
        fixture.clock.advance(6 * HOUR);
        fixture.pretend_it_was_walked();
        let report = fixture.sweep();
        assert_eq!(report.removed, 25, "{case}, {later:?} later, at last: {report:?}");
        assert_eq!(fixture.existing(&live) + fixture.existing(&new), 0, "{case}, {later:?} later");
        assert_eq!(fixture.store.stats().files.index_failures, 0);
    }
}

/// Replaces the contents of a bucket.
fn rewrite(bucket: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    fs::write(bucket, change(fs::read(bucket).unwrap())).unwrap();
}

#[test]
fn garbage_in_the_index_hides_no_entry() {
    for length in [1, 31, 32, 33, 1000] {
        let garbage = &garbage(length, usize::try_from(length).unwrap());
        let at = |offset: usize| {
            move |_: &Fixture, bucket: &Path| {
                rewrite(bucket, |bytes| [&bytes[..offset], garbage, &bytes[offset..]].concat());
            }
        };
        check_damaged_bucket("garbage before", 0, &at(0));
        check_damaged_bucket("garbage inside", 0, &at(7 * 32));
        check_damaged_bucket("garbage behind", 0, &at(40 * 32));
        check_damaged_bucket("garbage in an entry", 1, &at(3 * 32 + 5));
    }
    let zeros = |bytes: usize| {
        move |_: &Fixture, bucket: &Path| {
            rewrite(bucket, |entries| [&entries[..320], &vec![0; bytes], &entries[320..]].concat());
        }
    };
    check_damaged_bucket("zeros", 0, &zeros(320));
    check_damaged_bucket("zeros that are no entries", 0, &zeros(77));
}

#[test]
fn a_torn_entry_affects_only_its_own_session() {
    for torn in [1, 16, 31] {
        check_damaged_bucket("a torn tail", 0, &|_, bucket| {
            rewrite(bucket, |bytes| bytes[..40 * 32 - torn].to_vec());
        });
        check_damaged_bucket("a torn head", 1, &|_, bucket| rewrite(bucket, |bytes| bytes[torn..].to_vec()));
        let inside = |bytes: Vec<u8>| [&bytes[..6 * 32 - torn], &bytes[6 * 32..]].concat();
        check_damaged_bucket("torn inside", 1, &|_, bucket| rewrite(bucket, inside));
    }
    check_damaged_bucket("flipped", 1, &|_, bucket| {
        rewrite(bucket, |mut bytes| {
            bytes[5 * 32 + 21] ^= 0x10;
            bytes
        });
    });
}

#[test]
fn a_session_inserted_a_thousand_times_is_read_once() {
    // All entries many times: the whole list repeated, each entry repeated, and shuffled.
    check_damaged_bucket("all entries a thousand times", 0, &|_, bucket| {
        rewrite(bucket, |bytes| bytes.repeat(800));
    });
    check_damaged_bucket("one entry a thousand times", 0, &|_, bucket| {
        rewrite(bucket, |bytes| [&bytes[..32].repeat(1000), &bytes[32..]].concat());
    });
    check_damaged_bucket("with other deadlines", 0, &|fixture, bucket| {
        rewrite(bucket, |bytes| {
            let hex: Vec<_> = bytes[..20].iter().map(|byte| format!("{byte:02x}")).collect();
            let id = PublicId::parse(&hex.concat());
            let other = |n| entry(id.unwrap(), fixture.store.now() - HOUR + Duration::from_secs(n));
            [bytes, (0..1000).flat_map(other).collect()].concat()
        });
    });
}

#[test]
fn entries_of_unknown_sessions_cost_one_read_each() {
    let strangers = |fixture: &Fixture| -> Vec<u8> {
        let deadlines = [Duration::ZERO, HOUR / 60, HOUR].map(|time| fixture.store.now() + time);
        (0..3000_u64)
            .flat_map(|n| {
                entry(PublicId::digest(&n.to_le_bytes()), deadlines[usize::try_from(n % 3).unwrap()])
            })
            .collect()
    };
    check_damaged_bucket("strangers before", 0, &|fixture, bucket| {
        rewrite(bucket, |bytes| [strangers(fixture), bytes].concat());
    });
    check_damaged_bucket("strangers behind", 0, &|fixture, bucket| {
        rewrite(bucket, |bytes| [bytes, strangers(fixture)].concat());
    });
}

#[test]
fn a_lost_or_overwritten_bucket_is_survived() {
    check_damaged_bucket("removed", 20, &|_, bucket| fs::remove_file(bucket).unwrap());
    check_damaged_bucket("empty", 20, &|_, bucket| fs::write(bucket, "").unwrap());
    check_damaged_bucket("all ones", 20, &|_, bucket| fs::write(bucket, [0xff; 10_000]).unwrap());
    check_damaged_bucket("all zeros", 20, &|_, bucket| fs::write(bucket, [0; 10_000]).unwrap());
    check_damaged_bucket("a short text", 20, &|_, bucket| fs::write(bucket, "text").unwrap());
    for planted in Planted::NO_FILES {
        check_damaged_bucket(&format!("{planted:?}"), 20, &|fixture, bucket| {
            let aside = fixture.root().join("damaged");
            fs::rename(bucket, &aside).unwrap();
            planted.plant(bucket, &aside);
        });
    }
}

/// A link in place of a bucket is not followed, and an insertion into it does not hang.
#[test]
fn foreign_files_in_place_of_a_bucket_are_named_and_left() {
    for planted in Planted::NO_FILES {
        let fixture = Fixture::new();
        let aside = fixture.root().join("damaged");
        fs::write(&aside, "foreign").unwrap();
        let place = fixture.bucket(FIRST_HOUR + 1);
        planted.plant(&place, &aside);
        let sessions = fixture.sessions(10, HOUR);
        assert_eq!(fixture.store.stats().files.index_failures, 10, "{planted:?}");
        assert_eq!(fs::read(&aside).unwrap(), b"foreign", "{planted:?} was followed");
        fixture.clock.advance(2 * HOUR);
        let report = fixture.sweep_with(full());
        assert_eq!((report.removed, fixture.existing(&sessions)), (10, 0), "{planted:?}");
        assert!(report.failed > 0, "{planted:?}");
        let named = report.errors.iter().all(|error| error.path() == Some(&place));
        assert!(named, "{planted:?}: {report:?}");
        assert!(is_there(&place), "{planted:?}");
        assert_eq!(fs::read(&aside).unwrap(), b"foreign", "{planted:?} was followed");
    }
}

#[test]
fn a_bucket_of_a_million_entries_of_garbage_is_survived() {
    let fixture = Fixture::new();
    let dead = fixture.sessions(20, HOUR / 60);
    let bucket = fixture.bucket(FIRST_HOUR);
    let garbage = garbage(1, 1 << 15).repeat(1 << 10);
    rewrite(&bucket, |bytes| [&garbage[..], &bytes].concat());
    fixture.clock.advance(2 * HOUR);
    let report = fixture.sweep();
    assert_eq!((report.removed, fixture.existing(&dead)), (20, 0));
    assert!(!bucket.exists());
}

/// A full pass reads the index once for each 8 MiB of it.
#[test]
fn a_full_sweep_stopped_amid_garbage_is_continued() {
    let fixture = Fixture::new();
    let (dead, live) = (fixture.sessions(20, HOUR / 60), fixture.sessions(20, 1000 * HOUR));
    let bucket = fixture.bucket(FIRST_HOUR);
    let garbage = garbage(1, 1 << 15).repeat(9 << 5);
    rewrite(&bucket, |bytes| [&garbage[..], &bytes].concat());
    fixture.clock.advance(2 * HOUR);
    let stopped = fixture.store.sweep_with(&full(), &mut |_| Break(())).unwrap();
    assert_eq!((stopped.outcome, stopped.removed), (SweepOutcome::Cancelled, 0));
    assert!(bucket.exists());
    let report = fixture.sweep_with(full());
    assert_eq!((report.removed, fixture.existing(&dead), fixture.existing(&live)), (20, 0, 20));
    assert!(!bucket.exists());
}

/// Damages the record of the last walk. Asserts that expired sessions are removed, and that after one full walk at
/// most, one shard is walked each hour.
#[track_caller]
fn check_note(case: &str, is_lost: bool, damage: &dyn Fn(&Path)) {
    let fixture = Fixture::new();
    let dead = fixture.sessions(300, HOUR / 60);
    let live = fixture.sessions(300, 1000 * HOUR);
    // The index lists none of the sessions that expire later.
    for bucket in fixture.buckets().into_iter().filter(|hour| *hour > FIRST_HOUR) {
        fs::remove_file(fixture.bucket(bucket)).unwrap();
    }
    fixture.clock.advance(HOUR / 30);
    damage(&fixture.root().join("run/due/sweep"));
    let report = fixture.sweep();
    assert_eq!((report.removed, report.failed), (300, 0), "{case}: {report:?}");
    assert_eq!(report.files.examined, if is_lost { 600 } else { 300 }, "{case}");
    assert_eq!(counts(&fixture.sweep()), NOTHING, "{case}: a second walk in the same hour");
    // In 256 hours, every file is read once.
    let mut examined = 0;
    for _ in 0..32 {
        fixture.clock.advance(8 * HOUR);
        examined += fixture.sweep().files.examined;
    }
    assert!((300..=320).contains(&examined), "{case}: {examined} reads of 300 files");
    fixture.clock.advance(1000 * HOUR);
    fixture.pretend_it_was_walked();
    assert_eq!(fixture.sweep().removed, 300, "{case}");
    assert_eq!(fixture.existing(&dead) + fixture.existing(&live), 0, "{case}");
}

#[test]
fn a_damaged_note_of_the_last_walk_costs_one_walk_at_most() {
    let text = |text: &str| {
        let text = text.to_owned();
        move |note: &Path| fs::write(note, &text).unwrap()
    };
    check_note("removed", true, &|note| fs::remove_file(note).unwrap());
    check_note("empty", true, &text(""));
    check_note("a word", true, &text("yesterday"));
    check_note("negative", true, &text("-1"));
    check_note("too large a number", true, &text(&"9".repeat(40)));
    check_note("a long text", true, &text(&"yesterday ".repeat(100)));
    check_note("a long number", true, &text(&"1".repeat(1 << 16)));
    check_note("all ones", true, &|note| fs::write(note, [0xff; 4096]).unwrap());
    check_note("all zeros", true, &|note| fs::write(note, [0; 4096]).unwrap());
    // The recorded hour is in the future, as if the clock had been set back.
    check_note("the largest number", false, &text(&u64::MAX.to_string()));
    check_note("an hour to come", false, &text("600000"));
    check_note("zero", true, &text("0"));
}

#[test]
fn foreign_files_in_place_of_the_note_are_named() {
    for planted in Planted::NO_FILES {
        let fixture = Fixture::new();
        let dead = fixture.sessions(20, HOUR / 60);
        fixture.clock.advance(HOUR / 30);
        let (note, aside) = (fixture.root().join("run/due/sweep"), fixture.root().join("damaged"));
        fs::rename(&note, &aside).unwrap();
        let before = fs::read(&aside).unwrap();
        planted.plant(&note, &aside);
        let text = format!(
            "failed to lock expiry index `{}`: a link, pipe, directory or device is in its place",
            note.display()
        );
        match fixture.try_sweep(due()) {
            Err(error) => assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotASessionFile, text)),
            Ok(report) => {
                assert_eq!((report.removed, report.failed), (20, 1), "{planted:?}");
                assert_eq!(error_texts(&report), [text]);
            }
        }
        assert!(is_there(&note), "{planted:?}");
        assert_eq!(fs::read(&aside).unwrap(), before, "{planted:?} was followed");
        if note.is_dir() { fs::remove_dir(&note) } else { fs::remove_file(&note) }.unwrap();
        fs::rename(&aside, &note).unwrap();
        fixture.sweep();
        assert_eq!(fixture.existing(&dead), 0, "{planted:?}");
    }
}

#[test]
fn a_foreign_file_in_place_of_the_index_is_named_and_survived() {
    for planted in [Planted::File, Planted::Link, Planted::DanglingLink, Planted::Fifo, Planted::Socket] {
        let fixture = Fixture::new();
        let (index, aside) = (fixture.root().join("run/due"), fixture.root().join("damaged"));
        let indexed = fixture.sessions(10, HOUR / 60);
        fs::rename(&index, &aside).unwrap();
        let before = fs::read_dir(&aside).unwrap().count();
        planted.plant(&index, &aside);
        // The bucket of this hour is open and still has a name. Other buckets cannot be opened.
        let unindexed = fixture.sessions(10, 2 * HOUR);
        assert_eq!(fixture.store.stats().files.index_failures, 10, "{planted:?}");
        assert!(unindexed.iter().all(|saved| fixture.is_live(saved)));
        fixture.clock.advance(3 * HOUR);
        let error = fixture.try_sweep(due()).unwrap_err();
        let reason = "a link, pipe, directory or device is in its place";
        let text = format!("failed to open expiry index `{}`: {reason}", index.display());
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotASessionFile, text), "{planted:?}");
        assert_eq!(fs::read_dir(&aside).unwrap().count(), before, "{planted:?} was followed");
        assert_eq!(fixture.existing(&indexed) + fixture.existing(&unindexed), 20);
        // The new index is empty, so all shards are walked.
        fs::remove_file(&index).unwrap();
        let report = fixture.sweep();
        assert_eq!((report.removed, report.failed), (20, 0), "{planted:?}: {report:?}");
        assert_eq!(fixture.existing(&indexed) + fixture.existing(&unindexed), 0, "{planted:?}");
    }
}

#[test]
fn a_sweep_of_a_full_disk_makes_room_and_forgets_nothing() {
    let Some(disk) = stage() else {
        let name = "sweep_obstacles::a_sweep_of_a_full_disk_makes_room_and_forgets_nothing";
        return again_on_small_disk(name, 16 << 20, 4096);
    };
    let fixture = Fixture::at(&disk.join("store"));
    let dead = fixture.sessions(200, HOUR / 60);
    let renewed = fixture.sessions(200, HOUR / 60);
    for session in &renewed {
        fixture.renew(&session.token, 50 * HOUR);
    }
    // The hour of the bucket is over, so its live sessions must be inserted in other buckets. At first, the disk has no
    // room for those.
    fixture.clock.advance(2 * HOUR);
    let mut ballast = File::create(disk.join("ballast")).unwrap();
    fill_up(&mut ballast);
    assert_eq!(fixture.store.create(&record("x"), RELAXED).unwrap_err().kind(), ErrorKind::Full);
    let report = fixture.sweep();
    assert_eq!((report.removed, report.files.renewed, fixture.existing(&dead)), (200, 200, 0), "{report:?}");
    for error in &report.errors {
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    }
    assert!(renewed.iter().all(|session| fixture.is_live(session)));
    // The removed files have made room for new ones.
    fixture.session(50 * HOUR);
    fixture.sweep();
    fixture.clock.advance(51 * HOUR);
    assert_eq!(fixture.sweep().removed, 201, "all of them are in the index");
    assert_eq!(files_in_shards(fixture.root()).len(), 0);
}

#[test]
fn a_sweep_of_a_read_only_file_system_is_refused() {
    let clock = |hours: u32| Clock::manual(UNIX_EPOCH + HOUR * (490_000 + hours));
    let open =
        |root: &Path, hours| FileStoreOptions::new().clock(clock(hours)).watch(false).open(root).unwrap();
    let Some(root) = stage() else {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("store"), 0);
        let tokens = [1, 100].map(|hours| {
            let mut record = record("text");
            record.set_timing(Timing { deadline: store.now() + HOUR * hours, ..record.timing() });
            store.create(&record, RELAXED).unwrap().token
        });
        fs::write(dir.path().join("tokens"), tokens.each_ref().map(Token::expose).join(" ")).unwrap();
        let name = "sweep_obstacles::a_sweep_of_a_read_only_file_system_is_refused";
        let script = "mount --bind store store && mount -o remount,bind,ro store";
        again_in_mounts(name, dir.path(), "store", &[script]);
        let report = open(&dir.path().join("store"), 2).sweep(&due()).unwrap();
        assert_eq!(report.removed, 1, "{report:?}");
        return;
    };
    let tokens = fs::read_to_string(root.parent().unwrap().join("tokens")).unwrap();
    let [dead, live] = [0, 1].map(|n| Token::parse(tokens.split(' ').nth(n).unwrap()).unwrap());
    let store = open(&root, 2);
    let before = files_in_shards(&root);
    for options in [due(), full(), due().dry_run(true)] {
        let error = store.sweep(&options).unwrap_err();
        let text = format!("failed to lock expiry index `{}`", root.join("run/due/sweep").display());
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Io, text));
        assert_eq!(cause(&error), "Read-only file system (os error 30)");
    }
    assert_eq!(files_in_shards(&root), before);
    assert_eq!(load(&store, &dead).unwrap(), None, "swept or not");
    assert_eq!(load(&store, &live).unwrap().as_deref(), Some("text"));
}

#[test]
fn sessions_are_swept_by_their_deadlines_after_clock_jumps() {
    let fixture = Fixture::new();
    let before = fixture.sessions(30, 10 * HOUR);
    let now = fixture.clock.now();
    // All sessions have expired by this wrong clock. No sweep runs until it is corrected.
    fixture.clock.set(now + 10 * YEAR);
    assert!(!before.iter().any(|session| fixture.is_live(session)));
    let during = fixture.sessions(30, 10 * HOUR);
    fixture.clock.set(now);
    assert!(before.iter().all(|session| fixture.is_live(session)));
    assert_eq!(fixture.sweep().removed, 0);
    fixture.clock.advance(11 * HOUR);
    assert_eq!(fixture.sweep().removed, 30, "those that were made before");
    assert_eq!((fixture.existing(&before), fixture.existing(&during)), (0, 30));
    // The clock is a year behind now. Sessions that were created by the later clock live longer than intended, and the
    // index still lists each of them.
    fixture.clock.set(now - YEAR);
    let earlier = fixture.sessions(30, 10 * HOUR);
    fixture.sweep();
    fixture.clock.advance(11 * HOUR);
    assert_eq!(fixture.sweep().removed, 30);
    assert_eq!(fixture.existing(&earlier), 0);
    fixture.clock.set(now + 10 * YEAR + 11 * HOUR);
    assert_eq!(fixture.sweep().removed, 30, "those of the wrong clock, by their own deadlines");
    assert_eq!(files_in_shards(fixture.root()).len(), 0);
}

/// When the sweep begins, the session is due by the clock. Then the clock is set back, and the session is alive again.
#[test]
fn a_sweep_ends_though_the_clock_is_set_back_meanwhile() {
    let fixture = Fixture::new();
    let session = fixture.session(HOUR / 60);
    let before = fixture.clock.now();
    fixture.clock.advance(HOUR / 30);
    let began = Instant::now();
    let report = fixture.store.sweep_with(&due().cpu_percent(100), &mut |progress| {
        assert_eq!(progress.phase, SweepPhase::Due);
        fixture.clock.set(before);
        if began.elapsed() < Duration::from_secs(5) { Continue(()) } else { Break(()) }
    });
    let report = report.unwrap();
    assert_eq!(
        (report.outcome, report.removed),
        (SweepOutcome::Completed, 0),
        "{} looks",
        report.files.examined
    );
    assert!(fixture.is_live(&session), "by the time that it is now");
    fixture.clock.advance(HOUR / 3);
    assert_eq!(fixture.sweep().removed, 1, "it was not forgotten");
}

/// The index stores deadlines in 57 bits, which are enough until the year 6500.
#[test]
fn a_clock_beyond_the_range_of_the_index_is_survived() {
    for micros in [1_u64 << 57, u64::MAX - 10] {
        let fixture = Fixture::new();
        let long_due = fixture.session(HOUR);
        let held = File::options().write(true).open(fixture.path(&long_due)).unwrap();
        held.lock_exclusive().unwrap();
        fixture.clock.set(UNIX_EPOCH + Duration::from_micros(micros));
        let saved = fixture.session(2 * HOUR);
        let report = fixture.sweep_with(full());
        assert_eq!((report.removed, report.failed), (0, 0), "{micros}: {report:?}");
        assert!(fixture.exists(&saved));
        assert_eq!(counts(&fixture.sweep())[1..3], [0, 0], "{micros}: nothing is due");
    }
}
