//! The example shop in a real browser: Chromium, without a window, with several profiles, on two server processes that
//! share one store.
//!
//! ```text
//! cargo test -p sessile-browser                                       # all scenarios
//! cargo test -p sessile-browser -- logout                             # some of them
//! cargo test -p sessile-browser -- --ignored                          # the control: a broken build must fail
//! SESSILE_BROWSER_STORES="file:{dir}/sessions file:/srv/shop" cargo test -p sessile-browser
//! ```
//!
//! Without a browser the scenarios are skipped, with a line that says so; with `SESSILE_REQUIRE_BROWSER=1` that is a
//! failure. Pictures of all pages are kept in `target/browser`.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
mod broken;
mod browser;
mod driver;
mod http;
mod pages;
mod processes;
mod scenarios;
mod shop;
mod stage;
mod waiting;

use driver::{Driver, Installed};
use libtest_mimic::{Arguments, Trial};
use scenarios::SCENARIOS;
use stage::Stage;
use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tempfile::TempDir;

/// The environment variable that makes the lack of a browser a failure.
const REQUIRED: &str = "SESSILE_REQUIRE_BROWSER";

/// The number of scenarios that run at the same time.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    match run(Arguments::from_args()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the browser test cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all scenarios share.
struct House {
    driver: Driver,
    program: PathBuf,
    scratch: PathBuf,
}

fn run(mut arguments: Arguments) -> io::Result<ExitCode> {
    arguments.test_threads.get_or_insert(AT_ONCE);
    let Some(installed) = Installed::find() else {
        println!("skipped: no browser");
        return Ok(if env::var(REQUIRED).is_ok_and(|required| required == "1") {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        });
    };
    let scratch = TempDir::with_prefix("sessile-browser-")?;
    processes::stop_on_signals(scratch.path().to_owned())?;
    let house = Arc::new(House {
        driver: Driver::start(&installed, scratch.path())?,
        program: shop::build_own()?,
        scratch: scratch.path().to_owned(),
    });
    let conclusion = libtest_mimic::run(&arguments, trials(&house));
    drop(house);
    waiting::eventually("every process has ended", || processes::processes_in(scratch.path()).is_empty());
    scratch.close()?;
    Ok(conclusion.exit_code())
}

/// All scenarios on all stores, and the tests of this test.
fn trials(house: &Arc<House>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for store in stage::stores() {
        let mode = store.split(':').next().unwrap_or_default().to_owned();
        for (name, scenario) in SCENARIOS.iter().copied().flatten() {
            let (house, store) = (Arc::clone(house), store.clone());
            let trial = Trial::test(*name, move || {
                scenario(&Stage::new(name, &house.driver, &house.program, &store, &house.scratch));
                Ok(())
            });
            trials.push(trial.with_kind(&mode));
        }
    }
    trials.extend([
        own(house, "what_was_started_is_stopped_after_a_panic", check_stops),
        own(house, "the_text_that_the_broken_build_replaces_is_there", |_| broken::check_edits()),
        // Builds the crate once more.
        own(house, "a_build_that_only_forgets_ended_devices_is_caught", check_broken_is_caught)
            .with_ignored_flag(true),
    ]);
    trials
}

/// A test of this test.
fn own(house: &Arc<House>, name: &str, test: fn(&House)) -> Trial {
    let house = Arc::clone(house);
    Trial::test(name, move || {
        test(&house);
        Ok(())
    })
}

/// Browsers and servers are gone after a panic.
fn check_stops(house: &House) {
    let scratch = TempDir::new_in(&house.scratch).unwrap();
    let started = AssertUnwindSafe(|| {
        let driver = Driver::start(&Installed::find().unwrap(), scratch.path()).unwrap();
        let stage = Stage::new("stopping", &driver, &house.program, "file:{dir}/sessions", scratch.path());
        let (shop, browser) = (stage.shop(&[]), stage.browser());
        browser.open(&shop);
        let running = processes::processes_in(scratch.path());
        assert!(running.len() > 3, "{running:#?}");
        // The browser is not closed by its driver: the driver's process group is killed.
        std::mem::forget(browser);
        std::panic::panic_any("as intended");
    });
    let panic = catch_unwind(started).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"as intended"));
    waiting::eventually("every process has ended", || processes::processes_in(scratch.path()).is_empty());
}

/// A shop whose list forgets an ended device while the session lives on fails the scenario, because that device is still
/// logged in.
fn check_broken_is_caught(house: &House) {
    let copy = TempDir::new_in(&house.scratch).unwrap();
    let program = broken::build(copy.path()).unwrap();
    let run = |program: &Path| {
        let stage = Stage::new("broken", &house.driver, program, "file:{dir}/sessions", &house.scratch);
        catch_unwind(AssertUnwindSafe(|| {
            scenarios::devices::an_ended_device_is_out_at_its_next_click(&stage);
        }))
    };
    assert!(run(&house.program).is_ok(), "the unbroken build passes");
    let panic = run(&program).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    println!("caught: {text}");
    assert!(text.contains("[\"devices\"]") && text.contains("[\"error\"]"), "another failure: {text}");
}
