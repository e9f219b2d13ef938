//! Converts a session to JSON and back, for `show`, `export` and `import`.
//!
//! ```json
//! {"id": "0f3a…", "created": "2026-01-31T12:00:00Z", "touched": …, "deadline": …,
//!  "expiry": "default", "user": "ada", "entries": {"cart": ["apples"]}}
//! ```
//!
//! The conversion loses nothing: times are kept to the microsecond and floats to their last bit, and a number or name
//! that would be lost is refused.
use crate::strict_json::{self, lossy_number};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use sessile::record::Login;
use sessile::{Expiry, Live, PublicId, Record, Timing, Value, ValueRef};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a session as it is exported")]
pub(crate) struct SessionJson {
    id: String,
    created: Time,
    touched: Time,
    deadline: Time,
    expiry: ExpiryJson,
    /// Whether the cookie expires when the browser is closed, because the program's `Lifetime` says so. Omitted if
    /// false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ends_with_browser: bool,
    /// Whether the visitor has come only once and has not logged in. Omitted if false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    came_once: bool,
    user: Option<String>,
    /// The time, the cut-off number and the user's digest of the last login, and the device note. Each is omitted if it
    /// is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_login: Option<Time>,
    #[serde(default, skip_serializing_if = "is_zero")]
    cut_off: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_note: Option<String>,
    #[serde(deserialize_with = "strict_json::object")]
    entries: Map<String, Json>,
}

/// The number of the form that the lines of an export have.
pub(crate) const FORM: u64 = 1;

/// The last line of an export: `{"sessile_export":1,"sessions":2}`. An export without it was cut short.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the last line of an export")]
pub(crate) struct Trailer {
    /// The form of the lines before it.
    #[serde(rename = "sessile_export")]
    pub(crate) form: u64,
    /// The number of lines with sessions before it.
    pub(crate) sessions: u64,
}

/// The part of the last line that states the form.
#[derive(Deserialize)]
struct Form {
    sessile_export: u64,
}

impl Trailer {
    pub(crate) fn of(sessions: u64) -> Self {
        Self { form: FORM, sessions }
    }

    /// Parses the last line of an export. `None` if the line does not begin with the key `sessile_export`, and so is a
    /// session; an error if it does, and the rest cannot be parsed.
    pub(crate) fn read(line: &[u8]) -> Option<serde_json::Result<Self>> {
        let inside = line.strip_prefix(b"{")?.trim_ascii_start();
        inside.starts_with(br#""sessile_export""#).then(|| {
            // The form is read first, because a line of another form may have other fields.
            let Form { sessile_export: form } = serde_json::from_slice(line)?;
            if form == FORM { serde_json::from_slice(line) } else { Ok(Self { form, sessions: 0 }) }
        })
    }
}

/// A time in JSON: in RFC 3339, or in microseconds since 1970 if the year has more than four digits.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a time is in RFC 3339, or microseconds since 1970")]
enum Time {
    Text(Timestamp),
    Micros(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExpiryJson {
    Default,
    AfterMicros(u64),
    At(Time),
    BrowserClose,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let micros = micros(time.duration_since(UNIX_EPOCH).unwrap_or_default());
        let text = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
        text.map_or(Self::Micros(micros), Self::Text)
    }
}

/// A time as text, as in an export.
pub(crate) fn time_text(time: SystemTime) -> String {
    match Time::from(time) {
        Time::Text(text) => text.to_string(),
        Time::Micros(micros) => micros.to_string(),
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        match time {
            // Sessions have no times before 1970.
            Time::Text(text) => Self::from(text).max(UNIX_EPOCH),
            Time::Micros(micros) => UNIX_EPOCH + Duration::from_micros(micros),
        }
    }
}

impl SessionJson {
    pub(crate) fn of(live: &Live) -> sessile::Result<Self> {
        let Live { record, id, .. } = live;
        let (timing, login) = (record.timing(), record.login());
        let entry = |(name, value): (&str, ValueRef<'_>)| Ok((name.to_owned(), value.to_json()?));
        Ok(Self {
            id: id.to_string(),
            created: timing.created.into(),
            touched: timing.touched.into(),
            deadline: timing.deadline.into(),
            expiry: match timing.expiry {
                Expiry::Default => ExpiryJson::Default,
                Expiry::After(duration) => ExpiryJson::AfterMicros(micros(duration)),
                Expiry::At(instant) => ExpiryJson::At(instant.into()),
                Expiry::BrowserClose => ExpiryJson::BrowserClose,
            },
            ends_with_browser: timing.ends_with_browser,
            came_once: timing.came_once,
            user: record.user().map(str::to_owned),
            last_login: login.at.map(Time::from),
            cut_off: login.cut_off,
            // The digest is computed from the user's name.
            user_digest: None,
            device_note: record.device_note().map(str::to_owned),
            entries: record.entries().iter().map(entry).collect::<sessile::Result<_>>()?,
        })
    }

    /// Reads a line. The error has the column and the reason, and does not quote the line.
    pub(crate) fn read(line: &[u8]) -> Result<Self, String> {
        let session = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
        match lossy_number(line) {
            Some(at) => Err(format!("column {}: the number has more digits than can be kept", at + 1)),
            None => Ok(session),
        }
    }

    /// Converts the line to a session. If that fails, returns the reason.
    pub(crate) fn into_record(self) -> Result<(PublicId, Record), String> {
        let id = PublicId::parse(&self.id).ok_or("its id is not 40 characters 0-9, a-f")?;
        let expiry = match self.expiry {
            ExpiryJson::Default => Expiry::Default,
            ExpiryJson::AfterMicros(micros) => Expiry::After(Duration::from_micros(micros)),
            ExpiryJson::At(time) => Expiry::At(time.into()),
            ExpiryJson::BrowserClose => Expiry::BrowserClose,
        };
        let (created, deadline) = (self.created.into(), self.deadline.into());
        let mut record = Record::new(created, deadline).with_timing(Timing {
            created,
            touched: self.touched.into(),
            deadline,
            expiry,
            ends_with_browser: self.ends_with_browser,
            came_once: self.came_once,
        });
        let refuse = |error: sessile::Error| error.to_string();
        record.set_user(&self.user.unwrap_or_default()).map_err(refuse)?;
        record.set_device_note(&self.device_note.unwrap_or_default()).map_err(refuse)?;
        record.set_login(Login {
            at: self.last_login.map(SystemTime::from),
            cut_off: self.cut_off,
            user_digest: self.user_digest.as_deref().map(digest).transpose()?,
        });
        let value = |(name, value): (String, Json)| {
            let value = Value::new(&value).map_err(|error| format!("entry `{name}`: {error}"))?;
            Ok((name, value))
        };
        let entries = self.entries.into_iter().map(value).collect::<Result<Vec<_>, String>>()?;
        record.extend(entries.iter().map(|(name, value)| (name.as_str(), value))).map_err(refuse)?;
        Ok((id, record))
    }
}

/// The digest of a user, from its hexadecimal digits.
fn digest(text: &str) -> Result<[u8; 16], String> {
    let is_hexadecimal =
        text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let digest = u128::from_str_radix(text, 16).ok().filter(|_| is_hexadecimal);
    digest.map(u128::to_be_bytes).ok_or_else(|| "its user_digest is not 32 characters 0-9, a-f".to_owned())
}

/// The reason for which a line is not a session: the column and the kind of the error. The text at that place is left
/// out, because it may be a secret.
pub(crate) fn unreadable(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.truncate(text.strip_suffix(&place).map_or(text.len(), str::len));
    for wrong in ["invalid type", "invalid value", "unknown field", "unknown variant"] {
        let expected = text.rfind(", expected ").or_else(|| text.rfind(", there are no "));
        if text.starts_with(wrong)
            && let Some(expected) = expected
        {
            text.replace_range(wrong.len()..expected, "");
        }
    }
    format!("column {}: {text}", error.column())
}
