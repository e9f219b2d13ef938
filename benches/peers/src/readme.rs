//! The figures as README shows them: a chart of text, a table, and a caption, between two marks of the file. Text is
//! readable on every page that shows README, without the repository around it, and in any colours.
use crate::measure::{Case, Figures};
use crate::panel::{Line, Panel, Scale, bytes, of_case, panels, threads};
use crate::peers::PeerName;
use crate::plot::wrap;
use crate::report::{count, short_count, time};
use crate::workload::{Durability, Operation};
use std::fmt::Write;

const BEGIN: &str = "<!-- figures: written by `peers --readme` -->\n";
const END: &str = "<!-- end of the figures -->\n";
const MIX: &str = "\
The **mix** is the life of sessions: 90 % loads that read one entry (sessile's from its memory), 8 % changes of one entry, 1 % creations, 1 % ends, of
sessions of which a few are used often (Zipf, exponent 0.99).
";
/// Panels of the chart: the mix and loads. The table has the other operations, and the picture has them too.
const PANELS: usize = 3;
/// Characters of a name, and of the axis: together fewer than a phone shows.
const NAME: usize = 18;
const AXIS: u8 = 26;

/// Puts the figures between the marks of a page.
///
/// # Errors
///
/// The page has no marks.
pub(crate) fn replace(page: &str, figures: &[Figures], captions: &[String]) -> Result<String, &'static str> {
    let (before, after) = marks(page)?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", block(figures, captions)))
}

/// The page before and after the figures.
fn marks(page: &str) -> Result<(&str, &str), &'static str> {
    let split = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    split.ok_or("it has no marks for the figures")
}

/// Whether a page has marks.
///
/// # Errors
///
/// It has none.
pub(crate) fn check(page: &str) -> Result<(), &'static str> {
    marks(page).map(|_| ())
}

fn block(figures: &[Figures], captions: &[String]) -> String {
    let mut panels = panels(figures);
    panels.truncate(PANELS);
    let chart = chart(&panels, threads(figures));
    let captions = wrap(&format!("{}.", captions.join("; ")), 150).join("\n");
    let mix = if figures.iter().any(|figures| figures.case.operation == Operation::Mix) { MIX } else { "" };
    format!("```text\n{chart}```\n\n{}\n{mix}{captions}\n", table(figures))
}

/// The panels, as dots on a logarithmic axis.
fn chart(panels: &[Panel], (few, many): (usize, usize)) -> String {
    let scale = Scale::of(panels);
    let mut chart =
        format!("operations a second: ○ {few} thread{}, ● {many}\n", if few == 1 { "" } else { "s" });
    for panel in panels {
        let title = format!("\n{}\n{:NAME$}{}\n", panel.title, "", axis(scale));
        chart.push_str(&title);
        for line in &panel.lines {
            let text = format!("{:NAME$}{}", line.name, dots(line, scale));
            chart.push_str(text.trim_end());
            chart.push('\n');
        }
    }
    chart
}

/// The column of a rate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below a hundred")]
fn column(rate: f64, scale: Scale) -> usize {
    (scale.place(rate) * f64::from(AXIS - 1)).round() as usize
}

/// The powers of ten above their columns.
fn axis(scale: Scale) -> String {
    let mut text = String::new();
    for power in scale.from..=scale.to {
        let rate = 10_f64.powi(power);
        let gap = column(rate, scale).saturating_sub(text.chars().count());
        write!(text, "{:gap$}{}", "", short_count(rate)).expect("a string grows");
    }
    text
}

fn dots(line: &Line, scale: Scale) -> String {
    let mut cells = vec![' '; AXIS.into()];
    for power in scale.from..=scale.to {
        cells[column(10_f64.powi(power), scale)] = '┊';
    }
    // Where both would stand in one column, the dot does.
    cells[column(line.few, scale)] = '○';
    cells[column(line.many, scale)] = '●';
    cells.into_iter().collect()
}

/// What a row of the table shows of its case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Rate,
    Percentiles,
}

/// A row: its name, its case, whether it is of the most threads.
type Row = (&'static str, Operation, Durability, bool, Show);

const ROWS: [Row; 19] = {
    use Durability::{Defaults, PowerSafe, Relaxed};
    use Operation::{Create, Delete, Load, LoadCached, Mix, Sweep, Update};
    use Show::{Percentiles, Rate};
    [
        ("**mix**, relaxed: ends unsynced", Mix, Relaxed, false, Rate),
        ("p50, p99", Mix, Relaxed, false, Percentiles),
        ("mix, relaxed", Mix, Relaxed, true, Rate),
        ("**mix**, power-safe: ends synced", Mix, PowerSafe, false, Rate),
        ("p50, p99", Mix, PowerSafe, false, Percentiles),
        ("mix, power-safe", Mix, PowerSafe, true, Rate),
        ("**mix**, sessile's defaults: saves relaxed, ends synced", Mix, Defaults, false, Rate),
        ("p50, p99", Mix, Defaults, false, Percentiles),
        ("mix, sessile's defaults", Mix, Defaults, true, Rate),
        ("load, from memory", LoadCached, Relaxed, false, Rate),
        ("load, from the disk's cache", Load, Relaxed, false, Rate),
        ("update, relaxed", Update, Relaxed, false, Rate),
        ("update, power-safe", Update, PowerSafe, false, Rate),
        ("update, power-safe", Update, PowerSafe, true, Rate),
        ("create, relaxed", Create, Relaxed, false, Rate),
        ("create, power-safe", Create, PowerSafe, false, Rate),
        ("delete, relaxed", Delete, Relaxed, false, Rate),
        ("delete, power-safe", Delete, PowerSafe, false, Rate),
        ("remove an expired one", Sweep, Relaxed, false, Rate),
    ]
};

/// Operations per second, and percentiles of the mix: a row for each case, a column for each peer.
fn table(figures: &[Figures]) -> String {
    let ((few, many), bytes) = (threads(figures), bytes(figures));
    let peers: Vec<_> =
        PeerName::ALL.into_iter().filter(|who| figures.iter().any(|one| one.who == *who)).collect();
    let names: Vec<_> = peers.iter().map(|who| who.title()).collect();
    let mut table = format!("| a second | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(peers.len()));
    for (name, operation, durability, is_many, show) in ROWS {
        let threads = if is_many { many } else { few };
        // Sweeps run in one thread, and at one durability.
        let case = Case {
            operation,
            durability,
            threads: if operation == Operation::Sweep { 1 } else { threads },
            bytes,
        };
        if of_case(figures, case).next().is_none() || (is_many && many == few) {
            continue;
        }
        let cell = |who: &PeerName| {
            let found = of_case(figures, case).find(|figures| figures.who == *who);
            found.map_or(String::new(), |figures| match show {
                Show::Rate => format!(" {}", count(figures.ops_per_s)),
                Show::Percentiles => format!(" {}, {}", nanos(figures.p50_ns), nanos(figures.p99_ns)),
            })
        };
        let cells: Vec<_> = peers.iter().map(cell).collect();
        let of_many = if is_many { format!(", {many} threads") } else { String::new() };
        writeln!(table, "| {name}{of_many} |{} |", cells.join(" |")).expect("a string grows");
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn nanos(nanos: u64) -> String {
    time(nanos as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::tests::some;

    #[test]
    fn the_figures_replace_what_is_between_the_marks_and_no_more() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let new = replace(&page, &some(), &["2 cores".into(), "5 turns".into()]).unwrap();
        assert!(new.starts_with(&format!("before\n{BEGIN}```text\n")), "{new}");
        assert!(new.ends_with(&format!("\n2 cores; 5 turns.\n{END}after\n")), "{new}");
        assert!(!new.contains("old"), "{new}");
        assert_eq!(replace(&new, &some(), &["2 cores".into(), "5 turns".into()]).unwrap(), new);
        assert_eq!(replace("no marks", &some(), &[]), Err("it has no marks for the figures"));
        assert!(check(&page).is_ok() && check(BEGIN).is_err());
    }

    #[test]
    fn a_chart_is_narrow_and_has_its_dots_in_their_columns() {
        let chart = chart(&panels(&some()), (1, 8));
        // The last label begins in the last column.
        let most = NAME + usize::from(AXIS) - 1 + "10 M".len();
        assert!(chart.lines().all(|line| line.chars().count() <= most), "{chart}");
        let line = |name: &str| {
            chart.lines().find(|line| line.starts_with(name)).unwrap().chars().collect::<Vec<_>>()
        };
        let sessile = line("sessile ");
        let scale = Scale { from: 3, to: 7 };
        assert_eq!(sessile[NAME + column(400e3, scale)], '○', "{chart}");
        assert_eq!(sessile[NAME + column(700e3, scale)], '●', "{chart}");
    }

    #[test]
    fn a_table_says_what_each_row_of_the_mix_does() {
        let table = table(&some());
        for row in [
            "| a second | sessile | floor | SQLite |",
            "| **mix**, relaxed: ends unsynced | 400 k | | 60.0 k |",
            "| p50, p99 | 850 ns, 12.0 µs | | 850 ns, 12.0 µs |",
            "| mix, power-safe, 8 threads | 50.0 k | | 15.0 k |",
            "| **mix**, sessile's defaults: saves relaxed, ends synced | 90.0 k | | |",
            "| load, from memory | 788 k | 1.48 M | |",
        ] {
            assert!(table.lines().any(|line| line == row), "{row} is not in\n{table}");
        }
    }
}
