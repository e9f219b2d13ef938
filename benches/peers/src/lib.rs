//! Shared parts of both tools: the length of a turn, the median of turns, and a stop that leaves no processes
//! or directories behind.
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Parses the length of a turn: seconds, at least a thousandth and at most an hour.
///
/// # Errors
///
/// A description of the valid values.
pub fn turn(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number of seconds, from 0.001 to 3,600"),
    }
}

/// The median; of an even number of values, the mean of the two in the middle.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[half - 1], sorted[half]) } else { sorted[half] }
}

/// Whether a signal has asked the tool to stop. It then ends as after a failure, between two turns: its
/// servers are stopped, its directories removed. A second signal ends it at once.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Installs the signal handlers.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn on_signals() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for &signal in TERM_SIGNALS {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    /// Returns an error once a stop was requested; call it before each turn.
    ///
    /// # Errors
    ///
    /// The tool was asked to stop.
    pub fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped before the end"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_some_time_and_ends() {
        assert_eq!(turn("0.25"), Ok(Duration::from_millis(250)));
        for text in ["0", "-1", "nan", "inf", "1e9", "", "1s", "1e-12"] {
            assert!(turn(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        for (numbers, middle) in [(&[3.0][..], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 9.0, 1.0, 2.0], 3.0)] {
            assert!((median(numbers) - middle).abs() < 1e-9, "{numbers:?}");
        }
    }
}
