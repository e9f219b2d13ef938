//! Helpers that several test files share.
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod memory;
pub(crate) mod planted;
pub(crate) mod probe;
pub(crate) mod rerun;
pub(crate) mod server;
pub(crate) mod sweeping;

// What the hammers need as well.
#[path = "../../support/checker.rs"]
pub(crate) mod checker;
#[expect(dead_code, reason = "of a killed writer's last session only the hammers want to know")]
#[path = "../../support/ledger.rs"]
pub(crate) mod ledger;
#[path = "../../support/process.rs"]
pub(crate) mod process;
#[path = "../../support/texts.rs"]
pub(crate) mod texts;
#[path = "../../support/versions.rs"]
pub(crate) mod versions;
