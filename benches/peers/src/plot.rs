//! The figures as a chart: for each operation a group of bars, each with its name on the left and its figure on the
//! right, so that no legend is needed. The scale is logarithmic: ten times faster is one step to the left.
use crate::measure::{Case, Figures};
use crate::peers::PeerName;
use crate::report::short;
use crate::workload::Act;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

/// A panel: one operation, its bars.
const PANEL: i32 = 460;
/// Space for names, and for figures to the right of the longest bar.
const LEFT: i32 = 74;
const RIGHT: i32 = 76;
const TOP: i32 = 44;
const TITLE: i32 = 30;
const BAR: i32 = 17;
const GAP: i32 = 22;
const FONT: &str = "sans-serif";
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const FAINT: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// A duration.
fn time(nanos: f64) -> String {
    short(nanos, [(1.0, " ns"), (1e3, " µs"), (1e6, " ms")])
}

/// A power of ten.
fn short_time(nanos: f64) -> String {
    time(nanos).replace(".00", "").replace(".0", "")
}

fn title(case: Case) -> String {
    let act = match case.act {
        Act::Load => "Load",
        Act::LoadCached => "Load from memory",
        Act::Update => "Update",
        Act::Create => "Create",
        Act::Delete => "Delete",
        Act::Sweep => "Remove an expired one",
    };
    let how = if case.act.is_durable() {
        format!(", {}", case.durability.name().replace('_', "-"))
    } else {
        String::new()
    };
    format!("{act}{how}")
}

fn color(who: PeerName) -> RGBColor {
    match who {
        PeerName::Sessile => RGBColor(0x1b, 0x7a, 0x5a),
        PeerName::Floor => RGBColor(0xb8, 0xb8, 0xb8),
        _ => RGBColor(0x6f, 0x8f, 0xb5),
    }
}

/// The time scale of a panel.
struct Scale {
    /// The powers of ten of a nanosecond at both ends.
    from: i32,
    to: i32,
}

impl Scale {
    fn of(times: impl Iterator<Item = f64>) -> Self {
        let (least, most) =
            times.fold((f64::INFINITY, 1.0_f64), |(least, most), time| (least.min(time), most.max(time)));
        Self { from: power(least * 0.9), to: power(most) + 1 }
    }

    /// Distance from the left edge of the bars.
    fn place(&self, nanos: f64) -> i32 {
        let part = (nanos.log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        whole(part * f64::from(PANEL - LEFT - RIGHT))
    }
}

/// The power of ten at or below a number.
fn power(number: f64) -> i32 {
    whole(number.log10().floor())
}

#[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
fn whole(number: f64) -> i32 {
    number as i32
}

/// Time of one operation of one thread.
fn nanos(figures: &Figures) -> f64 {
    let threads: u32 = figures.case.threads.try_into().expect("at most 64");
    1e9 * f64::from(threads) / figures.ops_per_s
}

fn text(size: u32) -> TextStyle<'static> {
    // The backend scales sizes down to points.
    (FONT, f64::from(size) * 1.24).into_font().color(&BLACK)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the cases of the fewest threads with the smallest sessions, two panels in a row, as SVG.
pub(crate) fn draw(figures: &[Figures]) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    draw_into(&mut svg, figures)?;
    Ok(svg)
}

fn draw_into(svg: &mut String, figures: &[Figures]) -> Result<(), Box<dyn Error>> {
    // Sweeps run in one thread.
    let is_sweep = |case: Case| case.act == Act::Sweep;
    let others = figures.iter().filter(|figures| !is_sweep(figures.case));
    let threads = others.map(|figures| figures.case.threads).min().unwrap_or(1);
    let bytes = figures.iter().map(|figures| figures.case.bytes).min().ok_or("no figures")?;
    let is_drawn = |case: Case| case.bytes == bytes && (case.threads == threads || is_sweep(case));
    let drawn: Vec<_> = figures.iter().filter(|figures| is_drawn(figures.case)).collect();
    let panels: Vec<_> = drawn.chunk_by(|a, b| a.case == b.case).collect();
    let scale = Scale::of(drawn.iter().map(|figures| nanos(figures)));
    let rows: Vec<_> = panels.chunks(2).collect();
    let mut height = TOP;
    for row in &rows {
        height += height_of(row)?;
    }
    let area =
        SVGBackend::with_string(svg, ((2 * PANEL).try_into()?, height.try_into()?)).into_drawing_area();
    area.fill(&WHITE)?;
    let heading = format!(
        "Time per operation, {bytes} bytes a session, {threads} thread{}. Shorter is faster; each line is ten times the one before.",
        if threads == 1 { "" } else { "s" }
    );
    area.draw(&Text::new(heading, (12, 12), text(15)))?;
    let mut y = TOP;
    for row in rows {
        for (x, panel) in [0, PANEL].into_iter().zip(row) {
            draw_panel(&area, (x, y), panel, &scale)?;
        }
        y += height_of(row)?;
    }
    area.present()?;
    Ok(())
}

fn height_of(row: &[&[&Figures]]) -> Result<i32, Box<dyn Error>> {
    let bars = row.iter().map(|panel| panel.len()).max().unwrap_or(0);
    Ok(TITLE + BAR * i32::try_from(bars)? + GAP)
}

fn draw_panel(
    area: &Area<'_>,
    at: (i32, i32),
    panel: &[&Figures],
    scale: &Scale,
) -> Result<(), Box<dyn Error>> {
    let left = at.0 + LEFT;
    let (top, bottom) = (at.1 + TITLE, at.1 + TITLE + BAR * i32::try_from(panel.len())?);
    area.draw(&Text::new(title(panel[0].case), (left, at.1), text(14)))?;
    for power in scale.from..=scale.to {
        let nanos = 10_f64.powi(power);
        let x = left + scale.place(nanos);
        area.draw(&PathElement::new([(x, top - 2), (x, bottom)], GRID))?;
        let style = text(9).color(&FAINT).pos(Pos::new(HPos::Center, VPos::Bottom));
        area.draw(&Text::new(short_time(nanos), (x, top - 3), style))?;
    }
    let mut y = top;
    for figures in panel {
        let x = left + scale.place(nanos(figures));
        area.draw(&Rectangle::new([(left, y + 2), (x, y + BAR - 2)], color(figures.who).filled()))?;
        let before = text(12).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(figures.who.name(), (left - 6, y + BAR / 2), before))?;
        let behind = text(12).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(time(nanos(figures)), (x + 5, y + BAR / 2), behind))?;
        y += BAR;
    }
    Ok(())
}
