//! The figures that both charts show, in their order: which cases stand together, what each does, which line is whose.
//! Draws nothing.
use crate::measure::{Case, Figures};
use crate::peers::PeerName;
use crate::workload::{Durability, Operation};

/// A part of a chart: one operation, a line for each peer, the fastest first.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// The operation of its first case.
    pub(crate) operation: Operation,
    /// What it does with the disk.
    pub(crate) note: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// Operations per second of one peer, by the fewest and by the most threads.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) who: PeerName,
    pub(crate) name: String,
    pub(crate) few: f64,
    pub(crate) many: f64,
}

/// The chart's operations: title, note, and the cases of which each gives lines, with an addition to the peers' names.
type Plan = (&'static str, &'static str, &'static [(Operation, Durability, &'static str)]);

const PLANS: [Plan; 5] = [
    (
        "Mix, relaxed",
        "no save and no end waits for the disk; with sessile's defaults, ends do",
        &[(Operation::Mix, Durability::Relaxed, ""), (Operation::Mix, Durability::Defaults, ", defaults")],
    ),
    ("Mix, power-safe", "saves and ends wait for the disk", &[(Operation::Mix, Durability::PowerSafe, "")]),
    (
        "Load",
        "sessile from its memory; the others, and sessile's files, from the page cache or their server",
        &[
            (Operation::LoadCached, Durability::Relaxed, ", memory"),
            (Operation::Load, Durability::Relaxed, ""),
        ],
    ),
    ("Update, relaxed", "no save waits for the disk", &[(Operation::Update, Durability::Relaxed, "")]),
    ("Update, power-safe", "each save waits for the disk", &[(Operation::Update, Durability::PowerSafe, "")]),
];

/// The numbers of threads that are shown: the fewest and the most of operations other than sweeps, which run in one.
pub(crate) fn threads(figures: &[Figures]) -> (usize, usize) {
    let all = || figures.iter().map(|figures| figures.case).filter(|case| case.operation != Operation::Sweep);
    let fewest = all().map(|case| case.threads).min().unwrap_or(1);
    (fewest, all().map(|case| case.threads).max().unwrap_or(fewest))
}

/// The size of the sessions that are shown: the smallest.
pub(crate) fn bytes(figures: &[Figures]) -> usize {
    figures.iter().map(|figures| figures.case.bytes).min().unwrap_or(0)
}

/// The figures of one case.
pub(crate) fn of_case(figures: &[Figures], case: Case) -> impl Iterator<Item = &Figures> {
    figures.iter().filter(move |figures| figures.case == case)
}

/// The panels that have figures.
pub(crate) fn panels(figures: &[Figures]) -> Vec<Panel> {
    let (fewest, most) = threads(figures);
    let bytes = bytes(figures);
    let lines_of = |(operation, durability, addition): (Operation, Durability, &'static str)| {
        let case = move |threads| Case { operation, durability, threads, bytes };
        of_case(figures, case(fewest)).filter_map(move |few| {
            let many = of_case(figures, case(most)).find(|many| many.who == few.who)?;
            let name = format!("{}{addition}", few.who.title());
            Some(Line { who: few.who, name, few: few.ops_per_s, many: many.ops_per_s })
        })
    };
    let panel = |(title, note, cases): Plan| {
        let mut lines: Vec<_> = cases.iter().copied().flat_map(lines_of).collect();
        lines.sort_by(|a, b| b.many.total_cmp(&a.many));
        Panel { title, operation: cases[0].0, note, lines }
    };
    PLANS.into_iter().map(panel).filter(|panel| !panel.lines.is_empty()).collect()
}

/// A logarithmic scale with whole powers of ten at both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) from: i32,
    pub(crate) to: i32,
}

impl Scale {
    pub(crate) fn of(panels: &[Panel]) -> Self {
        let rates = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| [line.few, line.many]);
        let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(1.0, f64::max));
        let from = power(least.clamp(1.0, most).log10().floor());
        Self { from, to: power(most.log10().ceil()).max(from + 1) }
    }

    /// The place of a rate, from 0 to 1.
    pub(crate) fn place(self, rate: f64) -> f64 {
        ((rate.log10() - f64::from(self.from)) / f64::from(self.to - self.from)).clamp(0.0, 1.0)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below 20")]
fn power(number: f64) -> i32 {
    number as i32
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Figures of one case.
    pub(crate) fn figures(
        operation: Operation,
        durability: Durability,
        threads: usize,
        rates: &[(PeerName, f64)],
    ) -> Vec<Figures> {
        let case = Case { operation, durability, threads, bytes: 512 };
        let one = |&(who, ops_per_s)| Figures {
            case,
            who,
            ops_per_s,
            p50_ns: 850,
            p99_ns: 12_000,
            samples: 1,
            revived: 0,
        };
        rates.iter().map(one).collect()
    }

    /// The mix of three rows, and loads, by one thread and by eight.
    pub(crate) fn some() -> Vec<Figures> {
        use PeerName::{Floor, Sessile, Sqlite};
        [
            figures(Operation::Mix, Durability::Relaxed, 1, &[(Sessile, 400e3), (Sqlite, 60e3)]),
            figures(Operation::Mix, Durability::Relaxed, 8, &[(Sessile, 700e3), (Sqlite, 40e3)]),
            figures(Operation::Mix, Durability::PowerSafe, 1, &[(Sessile, 9e3), (Sqlite, 20e3)]),
            figures(Operation::Mix, Durability::PowerSafe, 8, &[(Sessile, 50e3), (Sqlite, 15e3)]),
            figures(Operation::Mix, Durability::Defaults, 1, &[(Sessile, 90e3)]),
            figures(Operation::Mix, Durability::Defaults, 8, &[(Sessile, 150e3)]),
            figures(
                Operation::Load,
                Durability::Relaxed,
                1,
                &[(Sessile, 98e3), (Floor, 168e3), (Sqlite, 136e3)],
            ),
            figures(
                Operation::Load,
                Durability::Relaxed,
                8,
                &[(Sessile, 150e3), (Floor, 250e3), (Sqlite, 220e3)],
            ),
            figures(Operation::LoadCached, Durability::Relaxed, 1, &[(Sessile, 788e3), (Floor, 1.48e6)]),
            figures(Operation::LoadCached, Durability::Relaxed, 8, &[(Sessile, 1.4e6), (Floor, 2.1e6)]),
        ]
        .concat()
    }

    #[test]
    fn the_mix_leads_and_loads_from_memory_stand_beside_the_others() {
        let panels = panels(&some());
        assert_eq!(
            panels.iter().map(|panel| panel.title).collect::<Vec<_>>(),
            ["Mix, relaxed", "Mix, power-safe", "Load"]
        );
        let names: Vec<_> = panels
            .iter()
            .map(|panel| panel.lines.iter().map(|line| &*line.name).collect::<Vec<_>>())
            .collect();
        assert_eq!(names[0], ["sessile", "sessile, defaults", "SQLite"]);
        assert_eq!(names[1], ["sessile", "SQLite"]);
        assert_eq!(names[2], ["floor, memory", "sessile, memory", "floor", "SQLite", "sessile"]);
    }

    #[test]
    fn a_scale_goes_from_a_power_of_ten_to_another() {
        let scale = Scale::of(&panels(&some()));
        assert_eq!((scale.from, scale.to), (3, 7));
        assert!((scale.place(1e5) - 0.5).abs() < 1e-9);
    }
}
