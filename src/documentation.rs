//! The files in `docs/`: a guide with recipes, and the documents on the engine's design, its format and its tests.
//!
//! Exists in the documentation only: programs get no module.

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

#[doc = include_str!("../docs/design.md")]
pub mod design {}

#[doc = include_str!("../docs/format.md")]
pub mod format {}

#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
