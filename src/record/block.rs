//! The bytes of a record, one block: the place of each field in the block, and the check whether a block is valid.
//!
//! The byte map is in [`format`](crate::_documentation::format); integers are little-endian. A block that [`check`]
//! accepted has these properties. Every reader here relies on them, and every writer (`edit`, `Record`) preserves them:
//!
//! - It has at most [`BYTES_MAX`] bytes, and its parts fill it to the last byte: header, table, text, values.
//! - The ends in the table never decrease, and the last ones are the ends of the names and of the values.
//! - The text (user, device note, names) is UTF-8, and each part of it begins and ends at a character.
//! - The names ascend strictly, so equal sessions have equal bytes and no name occurs twice.
//! - An unused field is zero.
use super::timing::{Expiry, Login, Micros, THOUSAND_YEARS, Timing};
use crate::clock::{from_micros, micros};
use std::time::Duration;

/// Largest record, in bytes: twice the highest limit of a store. A larger one is refused with
/// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
pub const BYTES_MAX: usize = 1 << 25;

/// Longest device note, in bytes.
pub const DEVICE_NOTE_BYTES_MAX: usize = 256;

/// The version of a record's layout that this crate writes: byte 0 of the record. A larger one is refused as a newer
/// format.
pub(super) const LAYOUT: u8 = 1;

const SETTING_AT: usize = 1;
const FLAGS_AT: usize = SETTING_AT + 1;
const UNUSED_AT: usize = FLAGS_AT + 1;
pub(super) const USER_LEN_AT: usize = UNUSED_AT + 1;
pub(super) const NOTE_LEN_AT: usize = USER_LEN_AT + 2;
const COUNT_AT: usize = NOTE_LEN_AT + 2;
const RESERVED_AT: usize = COUNT_AT + 4;
const CREATED_AT: usize = RESERVED_AT + 4;
const TOUCHED_AT: usize = CREATED_AT + 8;
const DEADLINE_AT: usize = TOUCHED_AT + 8;
const AGE_AT: usize = DEADLINE_AT + 8;
const LOGIN_AT: usize = AGE_AT + 8;
const CUT_OFF_AT: usize = LOGIN_AT + 8;
const DIGEST_AT: usize = CUT_OFF_AT + 8;
/// The number of bytes before the table.
pub(super) const HEADER_LEN: usize = DIGEST_AT + 16;
const _: () = assert!(HEADER_LEN == 80, "the byte map says 80");

/// The flag of a session that follows the program's lifetime and whose cookie ends with the browser.
const ENDS_WITH_BROWSER: u8 = 1;
/// The flag of a session whose visitor has come only once and has not logged in.
const CAME_ONCE: u8 = 2;

/// The number of bytes of an entry in the table: the end of its name, and the end of its value.
pub(super) const ROW: usize = 8;

/// The first bytes of a block that has neither user, note nor entries.
pub(super) type Header = [u8; HEADER_LEN];

/// The header of a block that has neither user, note nor entries.
pub(super) fn header(timing: &Timing) -> Header {
    let mut header = [0; HEADER_LEN];
    header[0] = LAYOUT;
    put_timing(&mut header, timing);
    header
}

pub(super) fn timing(block: &[u8]) -> Timing {
    let Micros { created, touched, deadline } = times(block);
    Timing {
        created: from_micros(created),
        touched: from_micros(touched),
        deadline: from_micros(deadline),
        expiry: expiry(block),
        ends_with_browser: block[FLAGS_AT] & ENDS_WITH_BROWSER != 0,
        came_once: came_once(block),
    }
}

pub(super) fn expiry(block: &[u8]) -> Expiry {
    let age = u64_at(block, AGE_AT);
    match block[SETTING_AT] {
        1 => Expiry::After(Duration::from_micros(age)),
        2 => Expiry::At(from_micros(age)),
        3 => Expiry::BrowserClose,
        _ => Expiry::Default,
    }
}

pub(super) fn came_once(block: &[u8]) -> bool {
    block[FLAGS_AT] & CAME_ONCE != 0
}

pub(super) fn times(block: &[u8]) -> Micros {
    Micros {
        created: u64_at(block, CREATED_AT),
        touched: u64_at(block, TOUCHED_AT),
        deadline: deadline_micros(block),
    }
}

/// Times are rounded down to whole microseconds, so that a save returns exactly the record that the next load reads.
pub(super) fn put_timing(block: &mut [u8], timing: &Timing) {
    let (setting, age) = match timing.expiry.normalized() {
        Expiry::Default => (0, 0),
        Expiry::After(age) => (1, u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
        Expiry::At(instant) => (2, micros(instant)),
        Expiry::BrowserClose => (3, 0),
    };
    block[SETTING_AT] = setting;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    block[FLAGS_AT] =
        flag(setting == 0 && timing.ends_with_browser, ENDS_WITH_BROWSER) | flag(timing.came_once, CAME_ONCE);
    put(block, CREATED_AT, micros(timing.created).to_le_bytes());
    put(block, TOUCHED_AT, micros(timing.touched).to_le_bytes());
    put(block, DEADLINE_AT, micros(timing.deadline).to_le_bytes());
    put(block, AGE_AT, age.to_le_bytes());
}

pub(super) fn deadline_micros(block: &[u8]) -> u64 {
    u64_at(block, DEADLINE_AT)
}

pub(super) fn login(block: &[u8]) -> Login {
    let (at, digest) = (u64_at(block, LOGIN_AT), field(block, DIGEST_AT));
    Login {
        at: (at != 0).then(|| from_micros(at)),
        cut_off: u64_at(block, CUT_OFF_AT),
        user_digest: (digest != [0; 16]).then_some(digest),
    }
}

/// Writes the time and the cut-off number of a login. The digest is not taken from `login`, because it belongs to the
/// user.
pub(super) fn put_login(block: &mut [u8], login: &Login) {
    put(block, LOGIN_AT, login.at.map_or(0, micros).to_le_bytes());
    put(block, CUT_OFF_AT, login.cut_off.to_le_bytes());
}

pub(super) fn put_digest(block: &mut [u8], digest: Option<[u8; 16]>) {
    put(block, DIGEST_AT, digest.unwrap_or_default());
}

pub(super) fn put_count(block: &mut [u8], count: usize) {
    put(block, COUNT_AT, u32::try_from(count).expect("a row has 8 bytes of a block").to_le_bytes());
}

pub(super) fn user(block: &[u8]) -> &str {
    text(user_bytes(block))
}

pub(super) fn user_bytes(block: &[u8]) -> &[u8] {
    let at = text_at(block);
    &block[at..at + user_len(block)]
}

pub(super) fn note(block: &[u8]) -> &str {
    let at = text_at(block) + user_len(block);
    text(&block[at..at + note_len(block)])
}

#[inline]
pub(super) fn user_len(block: &[u8]) -> usize {
    u16::from_le_bytes(field(block, USER_LEN_AT)).into()
}

#[inline]
pub(super) fn note_len(block: &[u8]) -> usize {
    u16::from_le_bytes(field(block, NOTE_LEN_AT)).into()
}

/// The number of entries in the block.
#[inline]
pub(super) fn count(block: &[u8]) -> usize {
    u32::from_le_bytes(field(block, COUNT_AT)) as usize
}

/// The offset of the user's name, which comes after the table.
#[inline]
pub(super) fn text_at(block: &[u8]) -> usize {
    HEADER_LEN + ROW * count(block)
}

/// A part of the block's text. The whole text was checked to be UTF-8 when the block was.
pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the text of a block was checked")
}

/// One entry's row of the table: the ends of its name and of its value, relative to the first name and the first value.
pub(super) fn row(name_end: usize, value_end: usize) -> [u8; ROW] {
    let end = |end| u64::from(u32::try_from(end).expect("a block has at most 32 MiB"));
    (end(value_end) << 32 | end(name_end)).to_le_bytes()
}

/// The end of the name and the end of the value in a row.
#[expect(clippy::cast_possible_truncation, reason = "each end is half of the row")]
#[inline]
pub(super) fn ends(row: [u8; ROW]) -> (usize, usize) {
    let ends = u64::from_le_bytes(row);
    (ends as u32 as usize, (ends >> 32) as usize)
}

/// The reason for which bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes have a later layout, which has this number.
    Newer(u8),
    /// The bytes are invalid, for this reason.
    Corrupt(&'static str),
}

/// Checks bytes that come from outside. Allocates nothing, whatever lengths they claim.
pub(super) fn check(block: &[u8]) -> Result<(), Fault> {
    // A block of a later layout is at least as long as this header, and has the same unused byte. Other blocks are
    // damaged.
    if block.len() >= HEADER_LEN && block[0] > LAYOUT && block[UNUSED_AT] == 0 {
        return Err(Fault::Newer(block[0]));
    }
    check_header(block)?;
    check_entries(block)
}

fn check_header(block: &[u8]) -> Result<(), Fault> {
    let fault = |reason| Err(Fault::Corrupt(reason));
    if block.len() < HEADER_LEN {
        return fault("it is shorter than its header");
    }
    if block.len() > BYTES_MAX {
        return fault("it is larger than any record");
    }
    if block[0] != LAYOUT {
        return fault("unknown layout");
    }
    let (setting, flags, age) = (block[SETTING_AT], block[FLAGS_AT], u64_at(block, AGE_AT));
    if setting > 3 {
        return fault("unknown expiry setting");
    }
    let age_max = match setting {
        1 => u64::try_from(THOUSAND_YEARS.as_micros()).unwrap_or(u64::MAX),
        2 => u64::MAX,
        _ => 0,
    };
    if age > age_max {
        return fault("an age that its expiry setting does not have");
    }
    let flags_known = if setting == 0 { ENDS_WITH_BROWSER | CAME_ONCE } else { CAME_ONCE };
    if flags & !flags_known != 0 || block[UNUSED_AT] != 0 || field(block, RESERVED_AT) != [0; 4] {
        return fault("reserved bytes are in use");
    }
    if note_len(block) > DEVICE_NOTE_BYTES_MAX {
        return fault("a device note that is longer than any");
    }
    Ok(())
}

fn check_entries(block: &[u8]) -> Result<(), Fault> {
    let fault = |reason| Err(Fault::Corrupt(reason));
    let count = count(block);
    let body = &block[HEADER_LEN..];
    if count > body.len() / ROW {
        return fault("its table is longer than the record");
    }
    let (table, body) = body.split_at(ROW * count);
    let (table, _) = table.as_chunks::<ROW>();
    let (names_len, values_len) = table.last().map_or((0, 0), |last| ends(*last));
    let before_names = user_len(block) + note_len(block);
    // The sum is at most 2 * 2^16 + 2 * 2^32, so it can overflow only where a pointer has 32 bits.
    let length = before_names.checked_add(names_len).and_then(|sum| sum.checked_add(values_len));
    if length != Some(body.len()) {
        return fault("its parts do not fill it");
    }
    let Ok(text) = std::str::from_utf8(&body[..before_names + names_len]) else {
        return fault("its text is not UTF-8");
    };
    if !text.is_char_boundary(user_len(block)) || !text.is_char_boundary(before_names) {
        return fault("a part of its text ends inside a character");
    }
    let (mut name_at, mut value_at, mut last) = (0, 0, None);
    for row in table {
        let (name_end, value_end) = ends(*row);
        if name_end < name_at || value_end < value_at {
            return fault("an end in its table comes before the one before it");
        }
        // If an end lies behind the last name, the bytes are refused here, too.
        let Some(name) = text.get(before_names + name_at..before_names + name_end) else {
            return fault("a part of its text ends inside a character");
        };
        if last.is_some_and(|last| last >= name) {
            return fault("its names are not in order");
        }
        (name_at, value_at, last) = (name_end, value_end, Some(name));
    }
    Ok(())
}

fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(block, at))
}

#[inline]
fn field<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    block[at..at + N].try_into().expect("the range has N bytes")
}

pub(super) fn put<const N: usize>(block: &mut [u8], at: usize, field: [u8; N]) {
    block[at..at + N].copy_from_slice(&field);
}
