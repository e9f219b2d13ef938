//! The scenarios, each in a function that is named after its promise.
pub(crate) mod devices;
mod forms;
mod kill;
mod logins;
mod logout;
mod looks;
mod plain;
mod time;

use crate::stage::Stage;

/// The scenarios of one file, by name.
type Scenarios = &'static [(&'static str, fn(&Stage<'_>))];

/// Lists functions with their names.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}
use scenarios;

/// All scenarios, the longest first.
pub(crate) const SCENARIOS: &[Scenarios] = &[
    time::SCENARIOS,
    looks::SCENARIOS,
    logins::SCENARIOS,
    devices::SCENARIOS,
    logout::SCENARIOS,
    kill::SCENARIOS,
    forms::SCENARIOS,
    plain::SCENARIOS,
];
