//! A script of sessions' lives, four bytes a line, on two stores with one directory: all that can be observed is what a map
//! says. The law is `src/file/model.rs`, which `cargo test` runs too.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| sessile::file::internals::run_script(script));

#[cfg(not(sessile_fuzzing))]
compile_error!("set RUSTFLAGS=\"--cfg sessile_fuzzing\": the small store that scripts need is built by it");
