//! Texts for people: durations, counts, devices.
use std::time::Duration;

/// A count with its noun, which forms its plural with an `s`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A duration in its largest unit, rounded: `2 minutes`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let rounded = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..60 => count(seconds, "second"),
        60..3_570 => count(rounded(60), "minute"),
        3_570..84_600 => count(rounded(3_600), "hour"),
        _ => count(rounded(86_400), "day"),
    }
}

/// How long ago something was. Times that are seconds ahead, by another clock, are now.
pub(crate) fn ago(past: Duration) -> String {
    if past.as_secs() < 60 { "just now".into() } else { format!("{} ago", span(past)) }
}

/// The time that a session has left.
pub(crate) fn expiry(remaining: Duration) -> String {
    format!("in {}", span(remaining))
}

/// The browser and the system of a `User-Agent`, as far as a user needs them to tell devices apart. The first that
/// matches is taken: later ones pretend to be earlier ones in the list of names.
pub(crate) fn device(user_agent: &str) -> String {
    const BROWSERS: [(&str, &str); 8] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrom", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find = |list: &[(&str, &'static str)]| {
        list.iter().find(|(part, _)| user_agent.contains(part)).map(|(_, name)| *name)
    };
    // A program, not a browser: the name before its version.
    let other = || {
        let name = user_agent.split(['/', ' ']).next().filter(|name| !name.is_empty());
        name.map_or_else(|| "Unknown browser".into(), |name| name.chars().take(40).collect())
    };
    let browser = find(&BROWSERS).map_or_else(other, str::to_owned);
    match find(&SYSTEMS) {
        Some(system) => format!("{browser} on {system}"),
        None => browser,
    }
}
