//! The order of the turns.
use crate::Args;
use crate::measure::{Case, Figures, Samples, Subject};
use crate::mix::Order;
use crate::peer::Setting;
use crate::workload::{Durability, Key, payload};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sessile_peers::Stop;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Measures all cases for all peers, and calls `tell` with the figures of each case.
///
/// # Errors
///
/// The tool was asked to stop, or `tell` failed.
pub(crate) fn all(
    args: &Args,
    dir: &Path,
    stop: &Stop,
    mut tell: impl FnMut(&Figures) -> io::Result<()>,
) -> io::Result<Vec<Figures>> {
    let cases = args.cases();
    let all = args.keys();
    let order = Arc::new(Order::new(all.len()));
    let work = Work { args, dir, stop, all, order, bar: bar(args, &cases) };
    let mut figures = Vec::new();
    for &bytes in &args.bytes {
        let bytes = usize::try_from(bytes).expect("at most 7,000");
        for &durability in &args.durability {
            let is_here = |case: &&Case| (case.bytes, case.durability) == (bytes, durability);
            let here: Vec<Case> = cases.iter().filter(is_here).copied().collect();
            if here.is_empty() {
                continue;
            }
            let mut subjects = work.subjects(bytes, durability)?;
            for case in here {
                let of_case = work.measure(case, &mut subjects)?;
                of_case.iter().try_for_each(&mut tell)?;
                figures.extend(of_case);
            }
            drop(subjects);
            // Frees the disk for the next peers.
            for entry in std::fs::read_dir(dir)? {
                std::fs::remove_dir_all(entry?.path())?;
            }
        }
    }
    work.bar.finish_and_clear();
    let place = |figures: &Figures| cases.iter().position(|case| *case == figures.case);
    figures.sort_by_key(|figures| (place(figures), figures.who));
    Ok(figures)
}

fn bar(args: &Args, cases: &[Case]) -> ProgressBar {
    let peers = |durability| args.who_has(durability).len();
    let kinds: HashSet<_> = cases.iter().map(|case| (case.bytes, case.durability)).collect();
    let fillings: usize = kinds.iter().map(|(_, durability)| peers(*durability)).sum();
    let turns: usize = cases.iter().map(|case| usize::from(args.rounds) * peers(case.durability)).sum();
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {eta:>5} left  {msg}");
    ProgressBar::new((fillings + turns) as u64).with_style(style.expect("a template"))
}

struct Work<'a> {
    args: &'a Args,
    dir: &'a Path,
    stop: &'a Stop,
    all: Vec<Key>,
    order: Arc<Order>,
    bar: ProgressBar,
}

impl Work<'_> {
    /// All peers at one session size and durability, with all sessions created and written to the disk.
    fn subjects(&self, bytes: usize, durability: Durability) -> io::Result<Vec<Subject>> {
        let mut subjects = Vec::new();
        for who in self.args.who_has(durability) {
            self.stop.check()?;
            self.bar.set_message(format!("filling {}", who.name()));
            let dir = self.dir.join(format!("{}-{}-{bytes}", who.name(), durability.name()));
            let peer = who.open(Setting { dir, durability, payload: payload(bytes) });
            subjects.push(Subject::new(who, peer, &self.all, Arc::clone(&self.order), bytes));
            self.bar.inc(1);
        }
        rustix::fs::sync();
        Ok(subjects)
    }

    /// All rounds of one case, each in another order, so that the order of the peers does not decide.
    fn measure(&self, case: Case, subjects: &mut [Subject]) -> io::Result<Vec<Figures>> {
        let Case { operation, durability, threads, .. } = case;
        self.bar.set_message(format!("{} {} {threads} threads", operation.name(), durability.name()));
        let mut dice = StdRng::seed_from_u64(3);
        let mut order: Vec<_> = (0..subjects.len()).collect();
        let mut samples: Vec<_> = subjects.iter().map(|_| Samples::new()).collect();
        for _ in 0..self.args.rounds {
            order.shuffle(&mut dice);
            for &at in &order {
                self.stop.check()?;
                if subjects[at].peer.does(operation) {
                    subjects[at].round(case, self.args.seconds, &mut samples[at]);
                }
                self.bar.inc(1);
            }
        }
        let of_one = |(subject, samples): (&Subject, &Samples)| {
            subject.peer.does(operation).then(|| samples.figures(case, subject.who))
        };
        Ok(subjects.iter().zip(&samples).filter_map(of_one).collect())
    }
}
