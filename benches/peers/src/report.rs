//! The figures as tables for people, and as JSON for programs.
use crate::measure::{Case, Figures};
use crate::peers::PeerName;
use crate::space::Space;
use crate::workload::Operation;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

/// A number with three digits and the largest of these units that it reaches.
pub(crate) fn short(number: f64, units: [(f64, &str); 3]) -> String {
    let (size, unit) = units.into_iter().rev().find(|(size, _)| number >= *size).unwrap_or(units[0]);
    let scaled = number / size;
    let digits = match scaled {
        _ if scaled >= 100.0 => 0,
        _ if scaled >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

/// A number with thousands and millions.
pub(crate) fn count(number: f64) -> String {
    short(number, [(1.0, ""), (1e3, " k"), (1e6, " M")])
}

/// A power of ten.
pub(crate) fn short_count(number: f64) -> String {
    count(number).replace(".00", "").replace(".0", "")
}

/// A duration.
pub(crate) fn time(nanos: f64) -> String {
    short(nanos, [(1.0, " ns"), (1e3, " µs"), (1e6, " ms")])
}

fn label(case: Case) -> String {
    let how =
        if case.operation.is_durable() { format!(" {}", case.durability.name()) } else { String::new() };
    format!("{}{how} {} B", case.operation.name(), case.bytes)
}

fn peers_in(figures: &[Figures]) -> Vec<PeerName> {
    let mut who: Vec<_> = figures.iter().map(|figures| figures.who).collect();
    who.sort_unstable();
    who.dedup();
    who
}

pub(crate) fn new_table(head: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head);
    table
}

pub(crate) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Operations per second: a line for each case, a column for each peer.
pub(crate) fn table(figures: &[Figures]) -> String {
    let peers = peers_in(figures);
    let head = ["operations per second", "threads"].map(str::to_owned).into_iter();
    let mut table = new_table(head.chain(peers.iter().map(|who| who.name().to_owned())));
    for of_case in figures.chunk_by(|a, b| a.case == b.case) {
        let case = of_case[0].case;
        let cell = |who: &PeerName| {
            let found = of_case.iter().find(|figures| figures.who == *who);
            right(found.map_or_else(|| "-".into(), |figures| count(figures.ops_per_s)))
        };
        let head = [Cell::new(label(case)), right(case.threads.to_string())];
        table.add_row(head.into_iter().chain(peers.iter().map(cell)));
    }
    table.to_string()
}

/// The percentiles of the mix, and what its durabilities are.
pub(crate) fn mix_table(figures: &[Figures]) -> Option<String> {
    let mut table = new_table(["", "threads", "", "p50", "p99", "came back"].map(str::to_owned));
    for figures in figures.iter().filter(|figures| figures.case.operation == Operation::Mix) {
        let Figures { case, who, p50_ns, p99_ns, revived, .. } = figures;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let percentiles = [p50_ns, p99_ns].map(|nanos| right(time(*nanos as f64)));
        let head = [Cell::new(label(*case)), right(case.threads.to_string()), Cell::new(who.name())];
        table.add_row(head.into_iter().chain(percentiles).chain([right(revived.to_string())]));
    }
    (!table.is_empty()).then(|| format!("{table}\n{MIX}"))
}

const MIX: &str = "\
The mix: 90 % loads, 8 % updates, 1 % creations, 1 % ends; Zipf, exponent 0.99.
relaxed: neither saves nor ends wait for the disk. power_safe: both wait. defaults: sessile without
options, where ends wait. came back: sessions that were alive after their end, of peers without a lock.";

pub(crate) fn space_table(spaces: &[Space]) -> String {
    let mut table = new_table(["bytes a session", "holds", "on disk", "resident"].map(str::to_owned));
    for space in spaces {
        let numbers =
            [space.bytes as u64, space.disk, space.resident].map(|number| right(number.to_string()));
        table.add_row([Cell::new(space.who.name())].into_iter().chain(numbers));
    }
    table.to_string()
}

pub(crate) fn json(figures: &Figures) -> Value {
    let Figures { case, who, ops_per_s, p50_ns, p99_ns, samples, revived: _ } = figures;
    json!({
        "operation": case.operation.name(),
        "who": who.name(),
        "durability": case.durability.name(),
        "threads": case.threads,
        "bytes": case.bytes,
        "ops_per_s": ops_per_s,
        "p50_ns": p50_ns,
        "p99_ns": p99_ns,
        "samples": samples,
    })
}

pub(crate) fn space_json(space: &Space) -> Value {
    json!({
        "operation": "space",
        "who": space.who.name(),
        "bytes": space.bytes,
        "disk_bytes": space.disk,
        "resident_bytes": space.resident,
    })
}
