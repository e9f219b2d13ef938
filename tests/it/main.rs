//! One binary, a file per promise; helpers in `support`.
//!
//! `contract` is the suite that every storage mode is run through. The others are named after what they promise.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
mod admin;
mod at_once;
mod budget;
mod changed_outside;
mod checklist;
mod coherence;
mod command;
mod command_list;
mod contract;
mod cookie_races;
mod damage;
mod dictionary;
mod documented;
mod emptied;
mod examples;
mod expiry;
mod failures;
mod features;
mod forked;
mod from_outside;
mod hostile_cookies;
mod http_headers;
mod kill;
mod lifecycle;
mod limits;
mod logins;
mod moved_ids;
mod nesting;
mod opening;
mod permissions;
mod processes;
mod program_code;
mod reaper;
mod redacted;
mod restored;
mod servers;
mod step_up;
mod support;
mod sweep;
mod sweep_obstacles;
mod tidy;
mod user_limits;
mod user_sessions;

use support::process::Worker;

/// The arguments with which this binary runs the one test that is the entry of its children.
const CHILD: &[&str] = &["--exact", "support::process::child", "--nocapture"];

/// The work of its children, by name.
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
    user_limits::WORKERS,
    failures::WORKERS,
];
