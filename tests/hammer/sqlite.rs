//! Processes on one database file: logouts beside saves in flight, and processes that are killed at random instants.
//!
//! A killed process has reported each answer that it got. So a session is at the version that was acknowledged last or
//! at the next one, whole; an acknowledged end is final; a rotation that was acknowledged has ended the old token; and
//! no lock stays behind, because the other processes go on.
use crate::figures::Figures;
use crate::rounds::Rounds;
use crate::support::dice::Dice;
use crate::support::process::{Child, Parent, Start, Worker, hear_from_all, say_to_all};
use crate::support::versions;
use sessile::database::{SqliteOptions, SqliteStore};
use sessile::{Durability, Lookup, Record, Rotation, Store, Token, Verdict};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

trials! {
    a_logout_beside_saves_of_other_processes_is_final,
    kills_leave_whole_versions_and_revive_nothing,
}

pub(crate) const WORKERS: &[(&str, Worker)] =
    &[("save rows until they end", save_until_ended), ("change rows until killed", change_until_killed)];

const PROCESSES: usize = 2;
/// The processes of which one is killed at a time.
const VICTIMS: usize = 4;
/// The longest life of a process after its first report, in microseconds.
const LIFE_MAX: u64 = 20_000;
const WAIT: Duration = Duration::from_secs(30);

fn file_in(dir: &Path) -> PathBuf {
    dir.join("sessions.db")
}

fn open(dir: &Path) -> SqliteStore {
    SqliteOptions::new().wait(WAIT).open(file_in(dir)).unwrap()
}

fn is_live(store: &SqliteStore, token: &Token) -> bool {
    matches!(store.load(token).unwrap(), Lookup::Live(_))
}

/// The event that a process has saved before the end of a session, after it was told of the session.
const SAVED: &str = "saves beside a logout";

fn a_logout_beside_saves_of_other_processes_is_final(dir: &Path, time: Duration) -> Figures {
    let store = open(dir);
    let start = |_| Start::of(WORKERS[0].0).with("DIR", dir).start();
    let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
    hear_from_all(&children, "ready");
    let (rounds, mut dice) = (Rounds::new(time, &[SAVED]), Dice::new(7));
    while let Some(round) = rounds.next() {
        let record = versions::new(&store, 1, 10).with_user("ada").unwrap();
        let token = store.create(&record, Durability::Relaxed).unwrap().token;
        say_to_all(&mut children, token.expose());
        thread::sleep(Duration::from_micros(dice.roll(2000)));
        match round % 3 {
            0 => drop(store.delete(&token).unwrap().expect("it is live")),
            1 => store.delete_of("ada", None).unwrap(),
            _ => {
                let mut keep = |_: &mut Record| Ok(Verdict::Keep);
                let rotated = store.rotate(&token, &mut keep, &Rotation::default()).unwrap();
                assert!(store.delete(&rotated.expect("it is live").token).unwrap().is_some());
            }
        }
        assert!(!is_live(&store, &token), "round {round}: it is alive after its end");
        for child in &children {
            rounds.count(SAVED, child.line().parse().unwrap());
        }
        assert!(!is_live(&store, &token), "round {round}: a save has revived it");
    }
    say_to_all(&mut children, "end");
    for child in children {
        assert_eq!(child.finish(), [""; 0]);
    }
    rounds.figures()
}

/// Saves each session that the parent names, by two threads, until it has ended. Reports the number of saves.
fn save_until_ended(parent: &Parent) {
    let store = open(Path::new(parent.argument("DIR")));
    parent.report("ready");
    loop {
        let line = parent.line();
        if line == "end" {
            return;
        }
        let token = Token::parse(&line).unwrap();
        let save = || {
            let save = |how| store.update(&token, &mut versions::next(10), how).unwrap().is_some();
            let hows = [Durability::Relaxed, Durability::PowerSafe].into_iter().cycle();
            hows.take_while(|how| save(*how)).count()
        };
        let saves: usize = thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(save));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(!is_live(&store, &token), "it is alive after a save has found it ended");
        parent.report(saves);
    }
}

/// The number of kills of a process that had reported an answer, and of those at which an end was under way.
const KILLED: &str = "kills amid changes";

fn kills_leave_whole_versions_and_revive_nothing(dir: &Path, time: Duration) -> Figures {
    let store = open(dir);
    let mut seed = 0;
    let mut start = || {
        seed += 1;
        let record = versions::new(&store, 1, 10).with_user("ada").unwrap();
        let token = store.create(&record, Durability::Relaxed).unwrap().token;
        let start = Start::of(WORKERS[1].0).with("DIR", dir).with("TOKEN", token.expose());
        (token, start.with("SEED", seed.to_string()).start())
    };
    let mut victims: Vec<_> = (0..VICTIMS).map(|_| start()).collect();
    let (rounds, mut dice) = (Rounds::new(time, &[KILLED]), Dice::new(5));
    let mut ended: Vec<Token> = Vec::new();
    while rounds.next().is_some() {
        let one = dice.below(VICTIMS);
        let (token, child) = std::mem::replace(&mut victims[one], start());
        assert_eq!(child.line(), "begun");
        thread::sleep(Duration::from_micros(dice.roll(LIFE_MAX)));
        let life = Life::of(token, child);
        rounds.count(KILLED, u64::from(life.version > 1));
        life.check(&store, &mut ended);
    }
    for (token, child) in victims {
        Life::of(token, child).check(&store, &mut ended);
    }
    for token in &ended {
        assert!(!is_live(&store, token), "a session is alive that had ended");
    }
    let examined = store.rows().examine().unwrap();
    assert_eq!(examined.damage, [""; 0]);
    let mut figures = rounds.figures();
    figures.events.push(("ended tokens that stayed ended", ended.len() as u64));
    figures
}

/// What a killed process has reported.
struct Life {
    /// Its tokens; each but the last one was replaced.
    tokens: Vec<Token>,
    version: u64,
    /// An end of the last token, or a rotation, may have been carried out; or an end was acknowledged.
    may_have_moved: bool,
    may_have_ended: bool,
    has_ended: bool,
}

impl Life {
    fn of(token: Token, child: Child) -> Self {
        let mut life = Self {
            tokens: vec![token],
            version: 1,
            may_have_moved: false,
            may_have_ended: false,
            has_ended: false,
        };
        for line in child.kill() {
            match line.split_once(' ') {
                Some(("saved", version)) => life.version = version.parse().unwrap(),
                Some(("rotated", token)) => {
                    life.tokens.push(Token::parse(token).unwrap());
                    life.may_have_moved = false;
                }
                Some(("rotating", _)) => life.may_have_moved = true,
                Some(("ending", _)) => life.may_have_ended = true,
                Some(("ended", _)) => life.has_ended = true,
                None if line == "begun" => {}
                _ => panic!("{line}"),
            }
        }
        life
    }

    fn check(self, store: &SqliteStore, ended: &mut Vec<Token>) {
        let (last, former) = self.tokens.split_last().unwrap();
        for token in former {
            assert!(!is_live(store, token), "a replaced token is alive");
        }
        ended.extend(former.iter().cloned());
        match store.load(last).unwrap() {
            Lookup::Live(live) => {
                assert!(!self.has_ended, "an acknowledged end is undone");
                let (version, acknowledged) = (versions::of(&live.record), self.version);
                assert!((acknowledged..=acknowledged + 1).contains(&version), "{version}, of {acknowledged}");
                // The session still works, and its end is final.
                assert!(store.update(last, &mut versions::next(10), Durability::Relaxed).unwrap().is_some());
                assert!(store.delete(last).unwrap().is_some());
            }
            Lookup::Absent(absent) => {
                let may = self.has_ended || self.may_have_ended || self.may_have_moved;
                assert!(may, "it is {absent:?}, and nothing has ended it");
            }
        }
        ended.push(last.clone());
    }
}

/// Saves, rotates and at last ends its session. Reports each step before it is made, if that could end the token, and
/// each answer.
fn change_until_killed(parent: &Parent) {
    let store = open(Path::new(parent.argument("DIR")));
    let mut token = Token::parse(parent.argument("TOKEN")).unwrap();
    let mut dice = Dice::new(parent.number("SEED"));
    parent.report("begun");
    loop {
        let how = if dice.roll(2) == 0 { Durability::Relaxed } else { Durability::PowerSafe };
        match dice.roll(40) {
            0 => {
                parent.report("ending x");
                let ended = store.delete(&token).unwrap();
                assert!(ended.is_some());
                parent.report("ended x");
                // Until the kill.
                parent.line();
            }
            1..4 => {
                parent.report("rotating x");
                let rotation = Rotation::new(how).grace(Duration::from_secs(60));
                let rotated = store.rotate(&token, &mut |_| Ok(Verdict::Keep), &rotation).unwrap();
                token = rotated.expect("it is live").token;
                parent.report(format_args!("rotated {}", token.expose()));
            }
            _ => {
                let bytes = dice.below(3000);
                let saved = store.update(&token, &mut versions::next(bytes), how).unwrap();
                parent
                    .report(format_args!("saved {}", versions::of(&saved.expect("it is live").live.record)));
            }
        }
    }
}
