//! The names of files and directories, relative to the root. This module makes no system calls. The contents of each
//! file are in [`format`](crate::_documentation::format).
use crate::id::PublicId;
use std::ffi::CStr;

/// The number of shard directories. The fuzzer opens a store thousands of times a second, so it has few.
pub(super) const SHARDS: u16 = if cfg!(sessile_fuzzing) { 4 } else { 256 };
/// The name of the parameters file.
pub(super) const PARAMETERS: &str = "sessile.json";
/// The name of the log of cut-offs, which lists the ends of many sessions at once.
pub(super) const CUT_OFFS: &str = "cutoffs";
/// The name of the directory of files that only running processes need.
pub(super) const RUN: &str = "run";
/// The name of the file of counters in `run`, by which cached copies are invalidated.
pub(super) const GENERATIONS: &str = "generations";
/// The path of the file of counters below the root.
pub(super) const GENERATIONS_PATH: &str = "run/generations";
/// The name of the expiry index in `run`.
pub(super) const INDEX: &str = "due";
/// The path of the expiry index below the root.
pub(super) const DUE: &str = "run/due";
/// In `run`: the user index.
pub(super) const USER_INDEX: &str = "users";
/// The path of the user index below the root.
pub(super) const USERS: &str = "run/users";
/// In the user index: the marker of a complete index.
pub(super) const COMPLETE: &str = "complete";
/// In the user index: the buckets that have a file.
pub(super) const MADE: &str = "made";
/// The number of buckets of the user index.
pub(super) const USER_BUCKETS: u16 = 4096;
/// The name of the file in `run` by which backup programs recognize a directory that they may leave out.
pub(super) const CACHE_TAG: &str = "CACHEDIR.TAG";
/// The contents of that file. The first line is prescribed to the byte (<https://bford.info/cachedir/>).
pub(super) const CACHE_TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55
# This directory belongs to a session store (sessile). It can be left out of backups: it is recreated when it is missing.
";
/// The name of the file in the expiry index that a running sweep locks.
pub(super) const SWEEP: &str = "sweep";
/// The name of the directory to which damaged files are moved.
pub(super) const DAMAGED: &str = "damaged";
/// The prefix of the names of temporary files. No session's file has it.
pub(super) const TEMPORARY: &str = ".new-";
/// The prefix of the name that a session file gets while the session is deleted without its lock.
const ENDING: &str = ".end-";

/// The path of a session file: a string of fixed length that ends with a zero, on the stack, as system calls take it.
pub(super) struct SessionPath([u8; PATH_LEN + 1]);

const PATH_LEN: usize = 2 * PublicId::LEN + 1;
const SHARD_LEN: usize = 2;

impl SessionPath {
    pub(super) fn of(id: &PublicId) -> Self {
        let hex = id.hex();
        let mut path = [0; PATH_LEN + 1];
        path[..SHARD_LEN].copy_from_slice(&hex[..SHARD_LEN]);
        path[SHARD_LEN] = b'/';
        path[SHARD_LEN + 1..PATH_LEN].copy_from_slice(&hex[SHARD_LEN..]);
        Self(path)
    }

    /// The path of the session file, relative to the root.
    pub(super) fn below_root(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("hexadecimal, one slash, one final zero")
    }

    /// The name of the session file, relative to its shard.
    pub(super) fn below_shard(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0[SHARD_LEN + 1..]).expect("hexadecimal, one final zero")
    }

    /// The name that the file gets, in its shard, while the session is deleted without its lock.
    pub(super) fn ending(&self) -> String {
        format!("{ENDING}{}", &self.as_str()[SHARD_LEN + 1..])
    }

    /// The path as a text, for messages and for joining with the root's path.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0[..PATH_LEN]).expect("ASCII")
    }
}

/// The session whose file has this name in this shard; `None` for names of other files.
pub(super) fn session_at(shard: &str, name: &str) -> Option<PublicId> {
    (shard.len() == SHARD_LEN).then(|| PublicId::parse(&format!("{shard}{name}"))).flatten()
}

/// The session that is being deleted without its lock, and whose file has this name in this shard; `None` for other
/// names.
pub(super) fn ending_at(shard: &str, name: &str) -> Option<PublicId> {
    session_at(shard, name.strip_prefix(ENDING)?)
}

/// The name of the shard of a session.
pub(super) fn shard_of(id: &PublicId) -> String {
    shard_name(id.as_bytes()[0].into())
}

/// The name of a shard, from its number (below 256).
pub(super) fn shard_name(shard: u16) -> String {
    format!("{shard:02x}")
}

/// The number of the shard with this name; the reverse of [`shard_name`].
#[cfg(feature = "watch")]
pub(super) fn shard_named(name: &str) -> Option<u16> {
    u16::from_str_radix(name, 16).ok().filter(|&shard| shard < SHARDS && shard_name(shard) == name)
}

/// The number of a bucket of the expiry index, from its name; `None` for other names.
pub(super) fn bucket_named(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number: &u64| number.to_string() == name)
}

/// The name of a bucket of the user index.
pub(super) fn user_bucket_name(bucket: u16) -> String {
    format!("{bucket:03x}")
}

/// The path of a bucket of the user index, relative to the root. It is made for each login, so without an allocation.
pub(super) struct UserBucketPath([u8; USERS.len() + 5]);

impl UserBucketPath {
    pub(super) fn of(bucket: u16) -> Self {
        let mut path = [0; USERS.len() + 5];
        path[..USERS.len()].copy_from_slice(USERS.as_bytes());
        path[USERS.len()] = b'/';
        for (digit, shift) in path[USERS.len() + 1..].iter_mut().zip([8, 4, 0]) {
            *digit = b"0123456789abcdef"[usize::from(bucket >> shift & 0xf)];
        }
        Self(path)
    }

    pub(super) fn below_root(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("hexadecimal and slashes, one final zero")
    }
}

/// The number of a bucket of the user index, from its name; `None` for other names.
pub(super) fn user_bucket_named(name: &str) -> Option<u16> {
    u16::from_str_radix(name, 16)
        .ok()
        .filter(|&bucket| bucket < USER_BUCKETS && user_bucket_name(bucket) == name)
}

/// The name of the lock of some users' logins, in the user index.
pub(super) fn login_lock_name(lock: u8) -> String {
    format!("{lock:02x}.lock")
}

/// Whether a name in the user index is that of a file of the index, complete or being made.
pub(super) fn is_of_user_index(name: &str) -> bool {
    let is_lock = |lock: &str| u8::from_str_radix(lock, 16).is_ok_and(|lock| login_lock_name(lock) == name);
    name == COMPLETE
        || name == MADE
        || user_bucket_named(name).is_some()
        || name.strip_suffix(".lock").is_some_and(is_lock)
}

/// Whether a name in the root is that of a shard.
pub(super) fn is_shard(name: &str) -> bool {
    name.len() == SHARD_LEN && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a name in the root may come from an interrupted creation of a store.
pub(super) fn is_ours(name: &str) -> bool {
    is_shard(name) || [PARAMETERS, CUT_OFFS, RUN, DAMAGED].contains(&name) || is_temporary(name)
}

/// Whether a name is a temporary one.
pub(super) fn is_temporary(name: &str) -> bool {
    let rest = name.strip_prefix(TEMPORARY).unwrap_or_default();
    !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lies_in_the_shard_of_its_first_byte() {
        let id = PublicId::parse("abcdef0123456789abcdef0123456789abcdef01").unwrap();
        let path = SessionPath::of(&id);
        assert_eq!(path.as_str(), "ab/cdef0123456789abcdef0123456789abcdef01");
        assert_eq!(path.below_shard().to_str().unwrap(), "cdef0123456789abcdef0123456789abcdef01");
        assert_eq!(shard_of(&id), "ab");
        assert!((0..SHARDS).all(|shard| is_ours(&shard_name(shard))));
        #[cfg(feature = "watch")]
        {
            assert!((0..SHARDS).all(|shard| shard_named(&shard_name(shard)) == Some(shard)));
            assert!(["100", "AB", "1", "+f", ""].iter().all(|name| shard_named(name).is_none()));
        }
        assert_eq!(session_at("ab", "cdef0123456789abcdef0123456789abcdef01"), Some(id));
        assert_eq!(session_at("ab", ".new-0123456789abcdef0123456789abcdef0"), None);
        assert_eq!(session_at("abc", "def0123456789abcdef0123456789abcdef01"), None);
        assert_eq!(path.ending(), ".end-cdef0123456789abcdef0123456789abcdef01");
        assert_eq!(ending_at("ab", &path.ending()), Some(id));
        assert_eq!(session_at("ab", &path.ending()), None);
        for other in ["cdef0123456789abcdef0123456789abcdef01", ".end-", ".end-0a", ".new-0a"] {
            assert_eq!(ending_at("ab", other), None, "{other}");
        }
        assert!(
            !is_ours(INDEX)
                && !is_ours(GENERATIONS)
                && !is_ours("index.html")
                && !is_ours("AB")
                && !is_ours("abc")
        );
        assert!(
            is_temporary(".new-0a")
                && !is_temporary(".new-")
                && !is_temporary(".new-\u{fffd}")
                && !is_temporary("new-0a")
        );
    }

    #[test]
    fn names_in_the_user_index_have_one_form_each() {
        for bucket in 0..USER_BUCKETS {
            let name = user_bucket_name(bucket);
            assert_eq!(user_bucket_named(&name), Some(bucket));
            let path = UserBucketPath::of(bucket);
            assert_eq!(path.below_root().to_str(), Ok(&*format!("{USERS}/{name}")));
        }
        for name in ["", "1000", "fFf", "+ff", "ff", "0fff"] {
            assert_eq!(user_bucket_named(name), None, "{name:?}");
        }
        assert!(["complete", "made", "0ff", "0f.lock"].into_iter().all(is_of_user_index));
        assert!(
            !["0F.lock", "00f.lock", ".lock", "f.lock", "mine", ".new-0a"].into_iter().any(is_of_user_index)
        );
    }

    #[test]
    fn names_of_buckets_are_plain_numbers() {
        assert_eq!(bucket_named("495124"), Some(495_124));
        for name in ["", "+1", "01", "-1", "1 ", "sweep", "99999999999999999999"] {
            assert_eq!(bucket_named(name), None, "{name:?}");
        }
    }
}
