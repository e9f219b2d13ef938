//! What several test files need.
pub(crate) mod checker;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod ledger;
pub(crate) mod memory;
pub(crate) mod planted;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod rerun;
pub(crate) mod server;
pub(crate) mod sweeping;
pub(crate) mod texts;
pub(crate) mod versions;
