//! The directed tests, in one program with a file for each promise. `contract` is the suite that runs for every storage
//! mode. The other files are named after the promises that they test. Helpers are in `support`.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
mod admin;
mod at_once;
mod budget;
mod changed_outside;
mod checklist;
mod coherence;
mod command;
mod command_care;
mod command_list;
mod command_sqlite;
mod contract;
mod cookie_races;
mod damage;
mod documented;
mod emptied;
mod entries;
mod examples;
mod expiry;
mod exported_users;
mod failures;
mod features;
mod forked;
mod forms;
mod from_outside;
mod hostile_cookies;
mod http_headers;
mod kill;
mod lifecycle;
mod limits;
mod logins;
mod moved_ids;
mod nesting;
mod observed_ends;
mod opening;
mod permissions;
mod processes;
mod program_code;
mod reaper;
mod reaper_stores;
mod redacted;
mod restored;
mod rows;
mod servers;
mod shop;
mod shop_live;
mod sqlite;
mod step_up;
mod store_urls;
mod support;
mod sweep;
mod sweep_obstacles;
mod tidy;
mod user_limits;
mod user_sessions;
mod wait_ended;

use support::process::Worker;

/// The arguments with which this program runs the single test that is the entry of its child processes.
const CHILD: &[&str] = &["--exact", "support::process::child", "--nocapture"];

/// The functions that child processes run, by name.
const WORKERS: &[&[(&str, Worker)]] = &[
    #[cfg(feature = "watch")]
    changed_outside::watched::WORKERS,
    emptied::WORKERS,
    from_outside::WORKERS,
    opening::WORKERS,
    permissions::WORKERS,
    processes::WORKERS,
    reaper::WORKERS,
    restored::WORKERS,
    sqlite::WORKERS,
    user_limits::WORKERS,
    failures::WORKERS,
    wait_ended::WORKERS,
];
