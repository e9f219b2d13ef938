//! Events as lines, for comparison.
use sessile::{Event, Record};

/// What an event of a session says, with the user of its record.
pub(crate) fn told(event: &Event<'_>) -> String {
    let of = |record: &Record| record.user().map(|user| format!(", of {user}")).unwrap_or_default();
    match event {
        Event::Created { id, record } => format!("Created({id:?}{})", of(record)),
        Event::LoggedIn { from, to, record } => format!("LoggedIn({from:?}, {to:?}{})", of(record)),
        Event::Rotated { from, to, record } => format!("Rotated({from:?}, {to:?}{})", of(record)),
        Event::Ended { id, reason, record } => {
            format!("Ended({id:?}, {reason}{})", record.map_or_else(|| ", no record".into(), of))
        }
        Event::CutOff { user, except } => {
            format!("CutOff({:?}, {except:?})", user.map(|user| user.as_str().to_owned()))
        }
        other => format!("{other:?}"),
    }
}
