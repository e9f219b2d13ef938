//! A session as JSON, and back: for `show`, `export` and `import`.
//!
//! ```json
//! {"id": "0f3a…", "created": "2026-01-31T12:00:00Z", "touched": …, "deadline": …,
//!  "expiry": "default", "user": "ada", "entries": {"cart": ["apples"]}}
//! ```
//!
//! Nothing is lost on the way: times are kept to the microsecond, floats to their last bit.
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use sessile::{Expiry, FileId, Live, Record, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a session as it is exported")]
pub(crate) struct SessionJson {
    id: String,
    created: Time,
    touched: Time,
    deadline: Time,
    expiry: ExpiryJson,
    user: Option<String>,
    entries: Map<String, Json>,
}

/// RFC 3339, or microseconds since 1970 where the year has more than four digits.
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
        let Live { record, id } = live;
        let entry = |(name, value): (&sessile::Name, &Value)| Ok((name.to_string(), value.to_json()?));
        Ok(Self {
            id: id.to_string(),
            created: record.created.into(),
            touched: record.touched.into(),
            deadline: record.deadline.into(),
            expiry: match record.expiry {
                Expiry::Default => ExpiryJson::Default,
                Expiry::After(duration) => ExpiryJson::AfterMicros(micros(duration)),
                Expiry::At(instant) => ExpiryJson::At(instant.into()),
                Expiry::BrowserClose => ExpiryJson::BrowserClose,
            },
            user: record.user.clone(),
            entries: record.entries.iter().map(entry).collect::<sessile::Result<_>>()?,
        })
    }

    /// The session; an error says what is wrong with it.
    pub(crate) fn into_record(self) -> Result<(FileId, Record), String> {
        let id = FileId::parse(&self.id).ok_or("its id is not 40 characters 0-9, a-f")?;
        let mut record = Record::new(self.created.into(), self.deadline.into());
        record.touched = self.touched.into();
        record.expiry = match self.expiry {
            ExpiryJson::Default => Expiry::Default,
            ExpiryJson::AfterMicros(micros) => Expiry::After(Duration::from_micros(micros)),
            ExpiryJson::At(time) => Expiry::At(time.into()),
            ExpiryJson::BrowserClose => Expiry::BrowserClose,
        };
        record.user = self.user;
        for (name, value) in self.entries {
            let value = Value::new(&value).map_err(|error| format!("entry `{name}`: {error}"))?;
            record.entries.insert(name.into(), value);
        }
        Ok((id, record))
    }
}
