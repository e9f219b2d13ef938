//! Helpers for several trials, and those that the directed tests use, too.
#[path = "../../support/apart.rs"]
pub(crate) mod apart;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../support/cookie_jar.rs"]
pub(crate) mod cookie_jar;
#[path = "../../support/cut_offs.rs"]
mod cut_offs;
#[path = "../../support/dice.rs"]
pub(crate) mod dice;
#[path = "../../support/faulty_rows.rs"]
pub(crate) mod faulty_rows;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../support/hostile.rs"]
pub(crate) mod hostile;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../support/memory_store.rs"]
pub(crate) mod memory_store;
#[path = "../../support/overlaps.rs"]
pub(crate) mod overlaps;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../support/process.rs"]
pub(crate) mod process;
#[path = "../../support/texts.rs"]
pub(crate) mod texts;
#[path = "../../support/versions.rs"]
pub(crate) mod versions;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../support/victim.rs"]
pub(crate) mod victim;

pub(crate) mod checker;
pub(crate) mod ledger;
