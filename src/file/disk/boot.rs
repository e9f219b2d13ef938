//! The id of the running system's boot: files that were not synced are certain as long as it stays the same.
use std::sync::OnceLock;

/// The id; `None` where the system has none. Read once.
pub(in crate::file) fn boot_id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = text.trim();
        let is_id = (8..=64).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
        is_id.then(|| id.to_owned())
    })
    .as_deref()
}
