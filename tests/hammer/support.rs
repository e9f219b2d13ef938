//! Helpers that the tests with a given number of rounds use as well.
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../support/checker.rs"]
pub(crate) mod checker;
#[path = "../support/ledger.rs"]
pub(crate) mod ledger;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../support/process.rs"]
pub(crate) mod process;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../support/texts.rs"]
pub(crate) mod texts;
#[path = "../support/versions.rs"]
pub(crate) mod versions;
