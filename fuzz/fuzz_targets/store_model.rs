//! A script of session operations, four bytes a line, on two stores with one directory: all results equal those of a
//! map. The rules are in `src/file/model.rs`, which `cargo test` runs too.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| sessile::file::internals::run_script(script));

#[cfg(not(sessile_fuzzing))]
compile_error!("set RUSTFLAGS=\"--cfg sessile_fuzzing\": it builds the small store that scripts need");
