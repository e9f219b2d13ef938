//! How this crate is tested, what that showed, and what it does not show. Documentation only. Whoever changes a test of a
//! promise, or runs one for longer, changes this page in the same commit.
//!
//! Storage is trusted for how it was tested. `cargo test` uses real files, real processes and real servers; what takes longer
//! has a command of its own, and is the same code with other numbers.
//!
//! # Faults
//!
//! Every call to a store's files is made in one module, `file/disk.rs`, behind a failpoint that exists in unit tests and under
//! the fuzzer only; the locks pass the same failpoint. (What is released has no trace of it: its calls' names are not in the
//! program, and CI looks.) There, for each act (load, create, save, growing save, rotation, end, sweep, opening, and what is
//! done by those who look after a store), the first call is refused, then the second, and so on until a run meets no fault:
//!
//! * with `EIO`, `ENOSPC`, `EDQUOT`, `EMFILE`, `EACCES`, `EROFS`, `ENOMEM`, once and for good, in stores with each choice that
//!   changes which calls are made; a session's own acts also together with each later call (tidying up fails as well);
//! * interrupted (`EINTR`), or doing a half or a page of what it was asked for, and then going on or failing;
//! * as the last call of a process that dies in it, or half-way through it;
//! * while another process, which waits for nobody, does something to the same session.
//!
//! After each: the old version or the new one, an error that names what was being done where a call was refused, but for
//! those that a list names, no descriptor, lock or queue held, nothing left but what a sweep removes, nobody who serves what
//! was before, and the next act without faults works. Of opening, which makes 256 directories, the first and the last call of
//! each kind are refused, in six kinds of places. (`src/file/tests`.)
//!
//! The same from outside: `strace` replaces what the kernel answers, so nothing can pass beside the failpoint, and the calls that
//! the kernel sees are those that [`design`](crate::design) lists (`tests/it/from_outside.rs`).
//!
//! # Histories
//!
//! Four open stores with one directory, one with a large cache, one with a small one, one that asks the file each time and one
//! without a cache, are taken through random histories of acts by id and by file, calls that are refused, once or for good, or
//! do a part, steps of the clock in both directions, sweeps and new openings, and must answer as a map does that knows what was
//! acknowledged: with whole records, with the reason where there is none, and, after any sweep, with a file for each live
//! session and no other (`src/file/model.rs`). In `cargo test` by `proptest`, which shrinks a break to a script of a few lines;
//! in `fuzz/` from bytes, with four shards in place of 256.
//!
//! # Processes
//!
//! `tests/it` starts itself as several processes that save, log out, rotate and sweep beside each other, are stopped and are
//! killed; what each was told goes to a ledger outside the store, and what anybody finds is held against it. Each such test has
//! a twin that shows that it can fail: without announcements, for one, the checker finds stale copies.
//! `tests/hammer` does that for as long as one likes:
//!
//! ```text
//! cargo test --release --test hammer -- --seconds 600 coherence
//! ```
//!
//! # Every order of steps
//!
//! The engine itself, on real files, under a scheduler that tries every order in which threads and processes can take their
//! steps (each system call, each lock, each half of a counter that is read) with up to two preemptions: coherence of copies in
//! one process and in several, writers that are stopped or killed anywhere, the queue of a session's writers, a sweep that is
//! stopped, two sweeps, and the end of a reaper. Beside the models of coherence stand the same with one rule of
//! [`design`](crate::design) broken, and each of these has to be found out (`src/file/proofs`, with
//! [shuttle](https://docs.rs/shuttle)):
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --release --lib proofs
//! ```
//!
//! # Memory and order
//!
//! The one file with `unsafe` blocks, the counters, the cache, the codec, the index's entries, ids, values and lifetimes run
//! under [Miri](https://github.com/rust-lang/miri), which knows what the language does not define and shows a thread every old
//! value that the orderings allow. What opens a directory is left out: it has no such calls.
//!
//! ```text
//! MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib -- file::mapped file::generations file::read_cache
//! ```
//!
//! The hammers and all tests but those of memory use and of the examples ran once under `ThreadSanitizer`, with a standard
//! library built for it:
//!
//! ```text
//! RUSTFLAGS=-Zsanitizer=thread cargo +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --profile release
//! ```
//!
//! # Power cuts
//!
//! `tests/powercut/` serves a disk by FUSE under a loop device, puts a file system and a working store on it, and writes down what is
//! written and flushed, and what whoever works is told, in one order. Then it builds the disk that a power cut would have
//! left, at thousands of places: all that was flushed, and of the rest nothing, all, some writes, or some sectors of some. Each
//! is mounted, opened and checked. A run in which too little happened is an error. Eight engines that break one rule each are
//! caught by it, or its results are void. Its README says more.
//!
//! # Damage and hostility
//!
//! Every bit of a file is flipped; files are cut, swapped, linked, planted; random damage and random cookie headers, ten
//! thousand each in `cargo test` and as many as one likes by `SESSILE_ROUNDS_PERCENT`. `fuzz/` has targets for the decoder (raw,
//! and under a good checksum), cookie headers, ids, values of any shape, and histories. The security promises and their
//! tests are listed in SECURITY.md.
//!
//! # Figures
//!
//! From November 2026, on two cores with other work on them, Linux 6.18. Those marked * are of the 26th; the others are of the
//! days before, but for those of power cuts "with the name last", which are of the 29th, when the order of a session's end had changed.
//!
//! | what | how much | wrong |
//! |---|--:|--:|
//! | fault points in one `cargo test`: runs in which a call was refused or did a part * | 32,822 | 0 |
//! | power cuts, ext4, most saves power-safe / relaxed * (and twice before) | 2,000 / 500 | 0 |
//! | power cuts, xfs * (and twice before) | 500 / 500 | 0 |
//! | power cuts, btrfs * (and twice before) | 500 / 500 | 0 |
//! | power cuts with the name last, ext4, xfs, btrfs, both durabilities | 2,620 | 0 |
//! | engines broken on purpose, caught by power cuts * (three other ones since) | 8 of 8 | |
//! | hammer of coherence: loads | 35,031,886 | 0 |
//! | hammer of `kill -9`, without sweeps, one kill in four before the store was open: kills (saves) | 40,416 (1,121,148) | 0 |
//! | the same with sweeps, a minute: kills of processes at work (of these amid a sweep; saves) * | 2,127 (76; 161,328) | 0 |
//! | hammer of ends: ends and rotations beside loads and saves | 71,764 | 0 |
//! | hammer of the reaper: sessions removed (sweeps) | 44,335 (13,131) | 0 |
//! | hammer of lost updates: saves | 144,000 | 0 |
//! | fuzzing, 20 minutes a target, without a sanitizer: executions | 397,691,202 | 0 |
//! | orders of steps, 24 models * | 420,000 | 0 |
//! | damaged files; hostile ids and headers | 1,000,000 each | 0 |
//! | mutants that no test tells from the code, each with its reason in `.cargo/mutants.toml` | 14 | |
//! | hammers, 45 s each, with hours of 0.3 s (`BUCKET_MICROS`), so that buckets go all the time: kills | 5,333 | 0 |
//! | tests under Miri | 81 | 0 |
//! | tests under `ThreadSanitizer`: data races (unit, integration, five hammers) | 754 | 0 |
//! | lines of `src/` that unit and integration tests run | 98.3 % | |
//!
//! Found by it, and mended:
//!
//! * A read that returned the first page of a file whose second could not be read made a writer take the session for gone
//!   (faults).
//! * A creation of more than a page that was cut short by a kill was kept and reported as damage, not removed as unfinished (the
//!   hammer of kills).
//! * On btrfs, sessions that had ended were found again after a cut, though their directory had been synced: 21 of 360 states.
//!   The engine then synced the whole file system there when it ended a session; now what is synced is a tombstone in its file (power
//!   cuts).
//! * A session that was in use when its hour ended was looked at again after ten minutes only, not by the next sweep (the hammer
//!   of the reaper, which happened to run on the hour).
//! * Opening a store in a process that can have no more threads panicked, inside the library that watches for changes by hand. It
//!   opens without its watcher (faults from outside).
//! * The same with a watcher whose thread was just about to die by a panic (a reader of the code).
//! * By a reader who tried to break the engine: a failed sync was noted only after the file could not be written anew, so that
//!   whoever was killed before left a file that the next power-safe save believed. A visitor could store the likeness of a slot
//!   within his own, which a file that lost its second half would have served as his session. A wrong bit in an older slot
//!   made a session pass for one that was never finished. In a child that was forked at a bad moment four calls waited for ever
//!   instead of being refused. A save that got the lock just before a logout passed it was acknowledged after that had returned.
//!   A writer that was passed acted on a session that had been brought in under the same name since; and what was brought in,
//!   or could not be, was hidden or served by old copies. (Each with a test in `src/file/tests`.)
//! * By another, who broke the engine in eighty ways: twenty that no test noticed, most of them refusals that were swallowed and
//!   copies that were not told of an end (`src/file/tests/told.rs`); an index in which nothing was ever found, which the histories
//!   did not notice; loops of faults that did not do what they said.
//! * By a third, who read the tools: a run of power cuts in which nothing happened would have passed, two ways to end a session
//!   were hardly met by it, and most cuts came when all was flushed (`tests/powercut/`).
//! * A hammer that could hide what it looks for: of the sessions that nobody was told of, the hammer of kills asked only that
//!   there be fewer than kills. Now each has to be one that a killed writer had begun (a reader of the code).
//! * A test that could not fail: that nothing older is read after an announcement was seen. Its threads met in no round (the
//!   orderings taken away, under Miri).
//! * A test that could not fail: that a lock is given back while a copy of its descriptor is open (`cargo mutants`, of the
//!   codec, the slots, the locks, the index, the cache and the lifetimes; what it cannot tell from the code is listed in
//!   `.cargo/mutants.toml`, with reasons).
//!
//! # What it does not show
//!
//! * Power cuts are those of a disk that honours flushes, keeps what it wrote in order, and damages nothing else. Which calls met
//!   in a recording was up to chance.
//! * Orders of steps are tried as if all memory were seen in one order, and to two preemptions.
//! * Network file systems are refused by their number, and were not tried. Other Unixes than Linux were not tried.
//! * A fault is the kernel's answer; a disk that answers well and keeps something else is met by checksums alone.
