//! The figures as two pages show them, between two marks of each page: README the mix and the most common operations,
//! the page of tests all of them, with latencies. A chart of text, a table, and a caption: text is readable wherever
//! the page is shown, without the repository around it, and in any colours.
use crate::measure::{Case, Figures};
use crate::panel::{Line, Panel, Scale, bytes, of_case, panels, threads};
use crate::peers::PeerName;
use crate::plot::wrap;
use crate::report::{count, short_count, time};
use crate::workload::{Durability, Operation};
use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const END: &str = "<!-- end of the figures -->\n";
const WORDS: &str = "\
The **mix** is the life of sessions: 90 % loads that read one entry (sessile's from its memory), 8 % changes of one entry, \
1 % creations, 1 % ends, of sessions of which a few are used often (Zipf, exponent 0.99). *floor* is the fewest system calls \
for the operation, *rename* a temporary file and a rename. ";
/// Characters of a name, and of the axis: together fewer than a phone shows.
const NAME: usize = 18;
const AXIS: u8 = 26;

/// Which of the figures a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// README: the chart of the mix, and the rates of the most common operations.
    Summary,
    /// The page of tests: the chart of loads, and all rates and latencies.
    All,
}

impl Extent {
    /// The mark before the figures.
    fn begin(self) -> &'static str {
        match self {
            Self::Summary => "<!-- figures: written by `peers --readme` -->\n",
            Self::All => "<!-- figures: written by `peers --details` -->\n",
        }
    }

    /// The operations of the chart. The table has the others, and the picture has them too.
    fn is_drawn(self, panel: &Panel) -> bool {
        match self {
            Self::Summary => panel.operation == Operation::Mix,
            Self::All => panel.operation == Operation::LoadCached,
        }
    }
}

/// A file with marks for the figures.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    path: &'a Path,
    extent: Extent,
}

impl<'a> Page<'a> {
    /// A page that can be read and written, and has marks: one that cannot take the figures is reported before the
    /// measurement.
    ///
    /// # Errors
    ///
    /// It names the path, and the reason.
    pub(crate) fn open(path: &'a Path, extent: Extent) -> Result<Self, String> {
        let page = Self { path, extent };
        let mut text = String::new();
        let file = File::options().read(true).write(true).open(path);
        file.and_then(|mut file| file.read_to_string(&mut text)).map_err(|error| page.error(error))?;
        marks(&text, extent).map_err(|error| page.error(error))?;
        Ok(page)
    }

    /// Puts the figures between the marks. The page is read once more, because a measurement takes minutes.
    ///
    /// # Errors
    ///
    /// It names the path, and the reason.
    pub(crate) fn write(&self, figures: &[Figures], captions: &[String]) -> Result<(), String> {
        let text = fs::read_to_string(self.path).map_err(|error| self.error(error))?;
        let text = replace(&text, self.extent, figures, captions).map_err(|error| self.error(error))?;
        fs::write(self.path, text).map_err(|error| self.error(error))
    }

    fn error(&self, reason: impl std::fmt::Display) -> String {
        format!("{}: {reason}", self.path.display())
    }
}

/// Puts the figures between the marks of a page.
///
/// # Errors
///
/// The page has no marks.
fn replace(
    page: &str,
    extent: Extent,
    figures: &[Figures],
    captions: &[String],
) -> Result<String, &'static str> {
    let (before, after) = marks(page, extent)?;
    let (begin, block) = (extent.begin(), block(extent, figures, captions));
    Ok(format!("{before}{begin}{block}{END}{after}"))
}

/// The page before and after the figures.
///
/// # Errors
///
/// The page has no marks.
fn marks(page: &str, extent: Extent) -> Result<(&str, &str), &'static str> {
    let parts = page.split_once(extent.begin());
    let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    parts.ok_or("it has no marks for the figures")
}

fn block(extent: Extent, figures: &[Figures], captions: &[String]) -> String {
    // The page of tests explains its words itself.
    let words = if extent == Extent::Summary { WORDS } else { "" };
    let caption = wrap(&format!("{words}{}.", captions.join("; ")), 150).join("\n");
    format!("{}{}\n{caption}\n", chart(extent, figures), table(extent, figures))
}

/// The chart of a page; empty without figures for it. The charts of both pages have one axis, so that they can be
/// compared.
fn chart(extent: Extent, figures: &[Figures]) -> String {
    let mut panels = panels(figures);
    panels.retain(|panel| Extent::Summary.is_drawn(panel) || Extent::All.is_drawn(panel));
    let scale = Scale::of(&panels);
    panels.retain(|panel| extent.is_drawn(panel));
    if panels.is_empty() {
        return String::new();
    }
    format!("```text\n{}```\n\n", lines(&panels, scale, threads(figures)))
}

/// The panels, as dots on a logarithmic axis.
fn lines(panels: &[Panel], scale: Scale, (few, many): (usize, usize)) -> String {
    let s = if few == 1 { "" } else { "s" };
    let mut chart = format!("operations a second: ○ {few} thread{s}, ● {many}\n");
    for (n, panel) in panels.iter().enumerate() {
        let gap = if n == 0 { "" } else { "\n" };
        writeln!(chart, "{gap}{:NAME$}{}", panel.title, axis(scale)).expect("a string grows");
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

/// A row: its name, its case, whether it is of the most threads, what it shows, and the smallest extent that has it.
type Row = (&'static str, Operation, Durability, bool, Show, Extent);

const ROWS: [Row; 19] = {
    use Durability::{Defaults, PowerSafe, Relaxed};
    use Extent::{All, Summary};
    use Operation::{Create, Delete, Load, LoadCached, Mix, Sweep, Update};
    use Show::{Percentiles, Rate};
    [
        ("**mix**, relaxed: ends unsynced", Mix, Relaxed, false, Rate, Summary),
        ("p50, p99", Mix, Relaxed, false, Percentiles, All),
        ("mix, relaxed", Mix, Relaxed, true, Rate, Summary),
        ("**mix**, power-safe: ends synced", Mix, PowerSafe, false, Rate, Summary),
        ("p50, p99", Mix, PowerSafe, false, Percentiles, All),
        ("mix, power-safe", Mix, PowerSafe, true, Rate, Summary),
        ("**mix**, sessile's defaults: saves relaxed, ends synced", Mix, Defaults, false, Rate, Summary),
        ("p50, p99", Mix, Defaults, false, Percentiles, All),
        ("mix, sessile's defaults", Mix, Defaults, true, Rate, All),
        ("load, from memory", LoadCached, Relaxed, false, Rate, Summary),
        ("load, from the disk's cache", Load, Relaxed, false, Rate, Summary),
        ("update, relaxed", Update, Relaxed, false, Rate, Summary),
        ("update, power-safe", Update, PowerSafe, false, Rate, Summary),
        ("update, power-safe", Update, PowerSafe, true, Rate, Summary),
        // Of creations and deletions, README has those of the default durability.
        ("create, relaxed", Create, Relaxed, false, Rate, Summary),
        ("create, power-safe", Create, PowerSafe, false, Rate, All),
        ("delete, relaxed", Delete, Relaxed, false, Rate, All),
        ("delete, power-safe", Delete, PowerSafe, false, Rate, Summary),
        ("remove an expired one", Sweep, Relaxed, false, Rate, All),
    ]
};

/// Operations per second, and percentiles of the mix: a row for each case, a column for each peer.
fn table(extent: Extent, figures: &[Figures]) -> String {
    let ((few, many), bytes) = (threads(figures), bytes(figures));
    let peers: Vec<_> =
        PeerName::ALL.into_iter().filter(|who| figures.iter().any(|one| one.who == *who)).collect();
    let names: Vec<_> = peers.iter().map(|who| who.title()).collect();
    let mut table = format!("| a second | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(peers.len()));
    let rows = ROWS.into_iter().filter(|row| extent == Extent::All || row.5 == Extent::Summary);
    for (name, operation, durability, is_many, show, _) in rows {
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
        for extent in [Extent::Summary, Extent::All] {
            let begin = extent.begin();
            let page = format!("before\n{begin}old\n{END}after\n");
            let captions = ["2 cores".into(), "5 turns".into()];
            let new = replace(&page, extent, &some(), &captions).unwrap();
            assert!(new.starts_with(&format!("before\n{begin}```text\n")), "{new}");
            assert!(new.ends_with(&format!("2 cores; 5 turns.\n{END}after\n")), "{new}");
            assert!(!new.contains("old"), "{new}");
            assert_eq!(replace(&new, extent, &some(), &captions).unwrap(), new);
            for bad in ["no marks", begin, END] {
                assert_eq!(marks(bad, extent), Err("it has no marks for the figures"), "{bad}");
            }
        }
        let page = format!("{}{END}", Extent::Summary.begin());
        assert!(marks(&page, Extent::All).is_err(), "the marks of the other page");
    }

    #[test]
    fn the_pages_of_the_repository_have_their_marks() {
        for (path, extent) in [("README.md", Extent::Summary), ("docs/testing.md", Extent::All)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
            assert!(Page::open(&path, extent).is_ok(), "{}", path.display());
        }
    }

    #[test]
    fn both_charts_are_narrow_and_have_their_dots_on_one_axis() {
        let scale = Scale { from: 3, to: 7 };
        // The last label begins in the last column.
        let most = NAME + usize::from(AXIS) - 1 + "10 M".len();
        for (extent, few, many) in [(Extent::Summary, 400e3, 700e3), (Extent::All, 98e3, 150e3)] {
            let chart = chart(extent, &some());
            assert!(chart.lines().all(|line| line.chars().count() <= most), "{chart}");
            let sessile = chart.lines().find(|line| line.starts_with("sessile ")).unwrap();
            let sessile: Vec<_> = sessile.chars().collect();
            assert_eq!(sessile[NAME + column(few, scale)], '○', "{chart}");
            assert_eq!(sessile[NAME + column(many, scale)], '●', "{chart}");
        }
    }

    #[test]
    fn readme_draws_the_mix_and_the_other_page_loads() {
        let titles = |extent| {
            let chart = chart(extent, &some());
            let titles = ["\nMix, relaxed ", "\nMix, power-safe ", "\nLoad "];
            titles.map(|title| chart.contains(title))
        };
        assert_eq!(titles(Extent::Summary), [true, true, false]);
        assert_eq!(titles(Extent::All), [false, false, true]);
        assert_eq!(chart(Extent::All, &some()[..10]), "", "no loads were measured");
    }

    #[test]
    fn a_table_says_what_each_row_of_the_mix_does() {
        let table = |extent| table(extent, &some());
        for row in [
            "| a second | sessile | floor | SQLite |",
            "| **mix**, relaxed: ends unsynced | 400 k | | 60.0 k |",
            "| mix, power-safe, 8 threads | 50.0 k | | 15.0 k |",
            "| **mix**, sessile's defaults: saves relaxed, ends synced | 90.0 k | | |",
            "| load, from memory | 788 k | 1.48 M | |",
        ] {
            for table in [table(Extent::Summary), table(Extent::All)] {
                assert!(table.lines().any(|line| line == row), "{row} is not in\n{table}");
            }
        }
    }

    #[test]
    fn readme_has_twelve_rows_at_most_and_the_latencies_are_elsewhere() {
        assert!(ROWS.iter().filter(|row| row.5 == Extent::Summary).count() <= 12);
        let latencies = "| p50, p99 | 850 ns, 12.0 µs | | 850 ns, 12.0 µs |\n";
        assert!(!table(Extent::Summary, &some()).contains("p50"));
        assert!(table(Extent::All, &some()).contains(latencies));
    }
}
