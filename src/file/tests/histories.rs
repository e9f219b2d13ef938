//! Random histories of sessions. A history that breaks a law of `file/model.rs` is shrunk to a readable script.
use super::super::model::{Step, run};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::strategy::Strategy;
use std::fmt;
use std::ops::Range;

fn config(cases: u32) -> ProptestConfig {
    // A failing script is shrunk and printed. It is not stored among the sources.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// One line of a script; its `Debug` prints it as source.
#[derive(Clone)]
struct Line(Step);

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn scripts(lines: Range<usize>) -> impl Strategy<Value = Vec<Line>> {
    vec(any::<[u8; 4]>().prop_map(|bytes| Line(bytes.into())), lines)
}

fn check(script: &[Line]) {
    run(&script.iter().map(|line| line.0).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(config(2000))]
    #[test]
    fn every_short_history_goes_as_the_map_says(script in scripts(1..12)) {
        check(&script);
    }
}

proptest! {
    #![proptest_config(config(200))]
    #[test]
    fn every_long_history_goes_as_the_map_says(script in scripts(30..80)) {
        check(&script);
    }
}
