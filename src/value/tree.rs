//! Decodes the bytes of a value as JSON, without `serde`, so that features of `serde_json` that another crate of the
//! program has switched on change nothing here.
use super::depth::Depth;
use super::fault::Fault;
use super::wire::{self, Reader};
use serde_json::{Map, Number, Value as Json};

/// The value as JSON.
///
/// # Errors
///
/// The bytes are no value.
pub(super) fn json(bytes: &[u8]) -> Result<Json, Fault> {
    let mut reader = Reader::new(bytes);
    let json = read(&mut reader, Depth::ALL)?;
    reader.end()?;
    Ok(json)
}

/// Reads the next value as JSON.
///
/// # Errors
///
/// The value is damaged.
pub(super) fn read(reader: &mut Reader<'_>, depth: Depth) -> Result<Json, Fault> {
    Ok(match reader.byte()? {
        wire::NULL => Json::Null,
        wire::BOOL => Json::Bool(reader.boolean()?),
        wire::UNSIGNED => Json::Number(reader.varint()?.into()),
        wire::NEGATIVE => Json::Number(reader.negative()?.into()),
        wire::FLOAT => Json::Number(Number::from_f64(reader.float()?).expect("a finite float")),
        wire::TEXT => Json::String(reader.text()?.into()),
        wire::ARRAY => {
            let depth = reader.inside(depth)?;
            let count = reader.count_items()?;
            // No capacity is reserved: a claimed number of items could take much more memory as JSON than as bytes.
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(read(reader, depth)?);
            }
            Json::Array(items)
        }
        wire::OBJECT => {
            let depth = reader.inside(depth)?;
            let count = reader.count_members()?;
            let (mut members, mut before) = (Map::new(), None);
            for _ in 0..count {
                let key = reader.key(before)?;
                members.insert(key.into(), read(reader, depth)?);
                before = Some(key);
            }
            Json::Object(members)
        }
        _ => return Err(reader.damage("an unknown tag")),
    })
}
