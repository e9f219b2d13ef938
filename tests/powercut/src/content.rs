//! The contents of a session in the workload: the number of its life, its version, and a body that is computed from
//! both. So bytes of another version, or of another session, are recognised.
use crate::log::Life;
use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessile::{Record, Value};

/// Stores a version in a record.
///
/// # Errors
///
/// A value cannot be stored.
pub(crate) fn fill(record: &mut Record, life: Life, version: u32) -> sessile::Result<()> {
    record.insert("life", &Value::new(&life)?)?;
    record.insert("version", &Value::new(&version)?)?;
    record.insert("body", &Value::new(&body(life, version))?)?;
    Ok(())
}

/// The life and version that a record states, without checking the body.
///
/// # Errors
///
/// The record is not one of the workload.
pub(crate) fn identify(record: &Record) -> Result<(Life, u32)> {
    let entry = |name: &str| record.entries().get(name).with_context(|| format!("it has no entry `{name}`"));
    let life = entry("life")?.get().context("read its life")?;
    let version = entry("version")?.get().context("read its version")?;
    Ok((life, version))
}

/// The life and version of a record whose body matches them.
///
/// # Errors
///
/// The record is not one of the workload, or is a mixture of two.
pub(crate) fn verify(record: &Record) -> Result<(Life, u32)> {
    let (life, version) = identify(record)?;
    ensure!(record.entries().len() == 3, "it has {} entries", record.entries().len());
    let Some(held) = record.entries().get("body") else { bail!("it has no entry `body`") };
    let held: String = held.get().context("read its body")?;
    ensure!(held == body(life, version), "it states version {version} of {life:x} and has another body");
    Ok((life, version))
}

/// The body of a version. Most bodies take two to four sectors, so that a disk can tear them. Some need a larger file,
/// and a few a much larger one.
fn body(life: Life, version: u32) -> String {
    let (length, mut chance) = drawn(life, version);
    (0..length).map(|_| char::from(chance.random_range(b'a'..=b'z'))).collect()
}

/// The number of bytes in the body of a version.
pub(crate) fn length(life: Life, version: u32) -> usize {
    drawn(life, version).0
}

/// The next version after `version` whose body is longer than `bytes`; `None` if there is none soon.
pub(crate) fn longer_than(bytes: usize, life: Life, version: u32) -> Option<u32> {
    (version + 1..version + 400).find(|later| length(life, *later) > bytes)
}

fn drawn(life: Life, version: u32) -> (usize, StdRng) {
    let mut chance = StdRng::seed_from_u64(life.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(version));
    let length = match chance.random_range(0..100) {
        0..8 => chance.random_range(0..200),
        8..80 => chance.random_range(700..1800),
        80..92 => chance.random_range(1800..3900),
        92..98 => chance.random_range(3900..8000),
        _ => chance.random_range(8000..30_000),
    };
    (length, chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_longer_version_is_the_first_one_that_is_longer() {
        let longer = longer_than(4096, 7, 3).unwrap();
        assert!(length(7, longer) > 4096);
        assert!((4..longer).all(|version| length(7, version) <= 4096));
        assert_eq!(longer_than(1 << 16, 7, 3), None);
    }

    #[test]
    fn a_mixture_of_two_versions_is_detected() {
        let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
        fill(&mut record, 7, 3).unwrap();
        assert_eq!(verify(&record).unwrap(), (7, 3));
        record.insert("version", &Value::new(&4).unwrap()).unwrap();
        assert!(verify(&record).unwrap_err().to_string().contains("another body"));
        record.remove("body");
        assert!(verify(&record).is_err());
    }
}
