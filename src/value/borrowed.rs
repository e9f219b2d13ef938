//! A borrowed value: in the block of a record, or in a [`Value`].
use super::{Value, corrupt, decode, tree, write_debug};
use crate::error::Result;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::fmt;

/// One entry's value, borrowed: read without a copy.
///
/// ```
/// use sessile::value::ValueRef;
/// use sessile::{Record, Value};
///
/// let mut record = Record::new(std::time::UNIX_EPOCH, std::time::UNIX_EPOCH);
/// record.insert("visits", &Value::new(&3)?)?;
/// let visits: ValueRef = record.entries().get("visits").expect("just inserted");
/// assert_eq!(visits.get::<u32>()?, 3);
/// assert_eq!(visits, &Value::new(&3)?);
/// # Ok::<(), sessile::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ValueRef<'a>(&'a [u8]);

impl<'a> ValueRef<'a> {
    /// The value with these bytes, which are checked when it is read.
    pub(crate) fn of_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    ///
    /// Those of [`Value::get`].
    ///
    /// ```
    /// # use sessile::{Value, value::ValueRef};
    /// let value = Value::new("dark")?;
    /// assert_eq!(ValueRef::from(&value).get::<String>()?, "dark");
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn get<T: DeserializeOwned>(self) -> Result<T> {
        decode(self.0)
    }

    /// The value as JSON.
    ///
    /// # Errors
    ///
    /// Those of [`Value::to_json`].
    ///
    /// ```
    /// # use sessile::{Value, value::ValueRef};
    /// let value = Value::new(&[1, 2])?;
    /// assert_eq!(ValueRef::from(&value).to_json()?, serde_json::json!([1, 2]));
    /// # Ok::<(), sessile::Error>(())
    /// ```
    pub fn to_json(self) -> Result<Json> {
        tree::json(self.0).map_err(|fault| corrupt(&fault))
    }

    /// The bytes of the value's compact form.
    ///
    /// ```
    /// # use sessile::{Value, value::ValueRef};
    /// let value = Value::new(&true)?;
    /// assert_eq!(ValueRef::from(&value).as_bytes(), value.as_bytes());
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// A copy that owns its bytes.
    ///
    /// ```
    /// # use sessile::{Value, value::ValueRef};
    /// let value = Value::new(&true)?;
    /// assert_eq!(ValueRef::from(&value).to_value(), value);
    /// # Ok::<(), sessile::Error>(())
    /// ```
    #[must_use]
    pub fn to_value(self) -> Value {
        Value(self.0.into())
    }
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        Self(value.as_bytes())
    }
}

impl PartialEq<&Value> for ValueRef<'_> {
    fn eq(&self, other: &&Value) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_debug(self.0, f)
    }
}
