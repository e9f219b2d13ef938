//! Helpers that several test files share.
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod memory;
pub(crate) mod planted;
pub(crate) mod probe;
pub(crate) mod rerun;
pub(crate) mod server;
pub(crate) mod sweeping;
pub(crate) mod told;
pub(crate) mod waiting;

// Helpers that the random tests use, too.
#[path = "../../support/apart.rs"]
pub(crate) mod apart;
#[path = "../../support/cookie_jar.rs"]
pub(crate) mod cookie_jar;
#[path = "../../support/cut_offs.rs"]
mod cut_offs;
#[expect(dead_code, reason = "the random tests need more of it")]
#[path = "../../support/dice.rs"]
pub(crate) mod dice;
#[path = "../../support/hostile.rs"]
pub(crate) mod hostile;
#[path = "../../support/memory_store.rs"]
pub(crate) mod memory_store;
#[path = "../../support/overlaps.rs"]
pub(crate) mod overlaps;
#[path = "../../support/process.rs"]
pub(crate) mod process;
#[path = "../../support/texts.rs"]
pub(crate) mod texts;
#[path = "../../support/versions.rs"]
pub(crate) mod versions;
#[path = "../../support/victim.rs"]
pub(crate) mod victim;
