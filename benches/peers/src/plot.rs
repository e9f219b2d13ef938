//! The figures as a picture: a panel for each operation, a line for each peer, a ring for the fewest threads and a dot
//! for the most, on a logarithmic axis. Readable at 400 pixels, its own width, and in the reader's colours: dark where
//! the page is.
//!
//! The picture is written as text, because a drawing library gives fixed colours to shapes and no style to choose them.
use crate::measure::Figures;
use crate::panel::{Line, Panel, Scale, bytes, panels, threads};
use crate::peers::PeerName;
use crate::report::{count, short_count};
use std::fmt::{self, Write};

const WIDTH: usize = 400;
/// Space for names, and for figures to the right of the axis.
const LEFT: f64 = 130.0;
const RIGHT: f64 = 58.0;
/// A line of small text, and of a peer.
const TEXT: usize = 15;
const LINE: usize = 17;
/// Above a panel's axis, and below its last line.
const ABOVE: usize = 16;
const BELOW: usize = 18;
/// Characters of a line of small text.
const COLUMNS: usize = 66;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#1f2328}
.title{font-weight:bold;font-size:13px}
.small{font-size:11px;fill:#59636e}
.own{font-weight:bold}
.page{fill:#ffffff}
.grid{stroke:#d1d9e0}
circle{fill:#4a6fa5;stroke:#4a6fa5;stroke-width:1.5}
circle.own{fill:#14805a;stroke:#14805a}
circle.floor{fill:#818b98;stroke:#818b98}
circle.few{fill:#ffffff}
.link{stroke:#9aa4af}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}
.small{fill:#9198a1}
.page{fill:#0d1117}
.grid{stroke:#3d444d}
circle{fill:#79a6e8;stroke:#79a6e8}
circle.own{fill:#3fcf9a;stroke:#3fcf9a}
circle.floor{fill:#9198a1;stroke:#9198a1}
circle.few{fill:#0d1117}
.link{stroke:#656c76}
}
";

/// Draws the smallest sessions by the fewest and the most threads, as SVG.
///
/// # Errors
///
/// There are no figures that the picture shows.
pub(crate) fn draw(figures: &[Figures], captions: &[String]) -> Result<String, &'static str> {
    let panels = panels(figures);
    if panels.is_empty() {
        return Err("a picture needs figures of the mix, loads or updates");
    }
    let mut picture = Picture { body: String::new(), y: 8, scale: Scale::of(&panels) };
    picture.all(figures, &panels, captions).expect("a string grows");
    let height = picture.y + 6;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Operations per second of session stores</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n{}</svg>\n",
        picture.body
    ))
}

/// The picture so far, and where it goes on.
struct Picture {
    body: String,
    y: usize,
    scale: Scale,
}

impl Picture {
    fn all(&mut self, figures: &[Figures], panels: &[Panel], captions: &[String]) -> fmt::Result {
        let (few, many) = threads(figures);
        self.text("title", &format!("Operations per second, {} bytes a session", bytes(figures)))?;
        self.text("small", &format!("More is better. Each line of the axis is ten times the one before. Ring: {few} thread{}; dot and figure: {many}.", if few == 1 { "" } else { "s" }))?;
        self.y += 8;
        for panel in panels {
            self.panel(panel)?;
        }
        captions.iter().try_for_each(|caption| self.text("small", caption))
    }

    /// Text from the left margin, in as many lines as it takes.
    fn text(&mut self, class: &str, text: &str) -> fmt::Result {
        for line in wrap(text, COLUMNS) {
            self.y += TEXT;
            writeln!(
                self.body,
                "<text class=\"{class}\" x=\"8\" y=\"{}\">{}</text>",
                self.y - 3,
                escape(&line)
            )?;
        }
        Ok(())
    }

    fn x(&self, rate: f64) -> f64 {
        LEFT + self.scale.place(rate) * (width() - LEFT - RIGHT)
    }

    fn panel(&mut self, panel: &Panel) -> fmt::Result {
        self.text("title", panel.title)?;
        self.text("small", panel.note)?;
        let (top, bottom) = (self.y + ABOVE, self.y + ABOVE + LINE * panel.lines.len());
        for power in self.scale.from..=self.scale.to {
            let rate = 10_f64.powi(power);
            let x = self.x(rate);
            writeln!(
                self.body,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>"
            )?;
            let label = short_count(rate);
            writeln!(
                self.body,
                "<text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                top - 3
            )?;
        }
        self.y = top;
        panel.lines.iter().try_for_each(|line| self.line(line))?;
        self.y += BELOW;
        Ok(())
    }

    fn line(&mut self, line: &Line) -> fmt::Result {
        let class = match line.who {
            PeerName::Sessile => "own",
            PeerName::Floor => "floor",
            _ => "peer",
        };
        let (y, baseline) = (self.y + LINE / 2, self.y + LINE / 2 + 4);
        let (few, many) = (self.x(line.few), self.x(line.many));
        let name = escape(&line.name);
        writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{name}</text>",
            LEFT - 10.0
        )?;
        writeln!(self.body, "<line class=\"link\" x1=\"{few:.1}\" x2=\"{many:.1}\" y1=\"{y}\" y2=\"{y}\"/>")?;
        writeln!(self.body, "<circle class=\"{class} few\" cx=\"{few:.1}\" cy=\"{y}\" r=\"4\"/>")?;
        writeln!(self.body, "<circle class=\"{class}\" cx=\"{many:.1}\" cy=\"{y}\" r=\"4\"/>")?;
        let (x, rate) = (width() - 8.0, count(line.many));
        writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x}\" y=\"{baseline}\" text-anchor=\"end\">{rate}</text>"
        )?;
        self.y += LINE;
        Ok(())
    }
}

fn width() -> f64 {
    f64::from(u32::try_from(WIDTH).expect("small"))
}

/// Splits a text between words, into lines of at most this many characters.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::tests::some;

    #[test]
    fn a_picture_has_a_ring_and_a_dot_for_each_line_and_a_caption() {
        let svg = draw(&some(), &["2 cores <fast> & new, 30 November 2026".into()]).unwrap();
        // Three lines, two and five.
        assert_eq!(svg.matches("<circle").count(), 20, "{svg}");
        assert_eq!(svg.matches(" few\"").count(), 10);
        assert!(svg.contains("2 cores &lt;fast> &amp; new, 30 November 2026"), "{svg}");
        assert!(svg.contains("prefers-color-scheme:dark"), "{svg}");
    }

    #[test]
    fn nothing_of_a_picture_lies_outside_of_it() {
        let svg = draw(&some(), &[]).unwrap();
        for (name, least, most) in [("cx=\"", LEFT, width() - RIGHT), ("x1=\"", LEFT, width() - RIGHT)] {
            for part in svg.split(name).skip(1) {
                let x: f64 = part.split('"').next().unwrap().parse().unwrap();
                assert!((least..=most).contains(&x), "{name}{x}");
            }
        }
        assert!(wrap(&"word ".repeat(100), COLUMNS).iter().all(|line| line.len() <= COLUMNS));
    }

    #[test]
    fn without_figures_there_is_no_picture() {
        assert_eq!(draw(&[], &[]), Err("a picture needs figures of the mix, loads or updates"));
    }
}
