//! The user who owns a store. Some errors would not occur if that user ran the command; this module says so in their
//! texts.
use nix::unistd::{Uid, User, geteuid};
use sessile::{Error, ErrorKind};
use std::error::Error as StdError;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The text of an error about a store of another user, with user names in place of numbers.
pub(crate) fn ownership_error(error: &Error) -> Option<String> {
    let path = error.path().filter(|path| error.kind() == ErrorKind::Permissions && is_store(path))?;
    let (owner, path, own) = (other_owner(path)?, path.display(), Named::of(geteuid()));
    let reason = format!("it belongs to user {}, and this process runs as user {}", owner.name, own.name);
    Some(format!("failed to change session store `{path}`: {reason}; {}", owner.remedy()))
}

/// The advice to run the command as the store's owner, if that user would not get this error.
pub(crate) fn remedy(error: &Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| StdError::source(*cause));
    let is_denied = |cause: &&(dyn StdError + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    };
    causes.into_iter().find(is_denied)?;
    // The owner of a file in a directory that cannot be entered is unknown. So the owner of the nearest directory above
    // that can be read is named.
    let (path, owner) = error.path()?.ancestors().find_map(|path| Some((path, owner_of(path)?)))?;
    owner.if_other().filter(|_| !is_public(path)).map(|owner| owner.remedy())
}

/// The text of an error about permissions, with names of users in place of their numbers.
pub(crate) fn with_names(text: &str) -> String {
    let mut named = text.to_owned();
    for before in ["by user ", "(of user ", "belongs to user ", "runs as user "] {
        let mut parts = named.split(before).map(str::to_owned);
        let mut joined = parts.next().unwrap_or_default();
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = part.split_at(digits);
            let name = number.parse().ok().map(|uid| Named::of(Uid::from_raw(uid)).name);
            joined = [&joined, before, name.as_deref().unwrap_or(number), rest].concat();
        }
        named = joined;
    }
    named
}

/// Whether a directory of another user is a store, and not a place that many users share.
fn is_store(path: &Path) -> bool {
    !is_public(path) && path.join("sessile.json").symlink_metadata().is_ok()
}

/// Whether a directory is shared by users, like `/tmp` or a container's volume. Then the advice to run the command as
/// its owner would be wrong.
fn is_public(path: &Path) -> bool {
    const STICKY: u32 = 0o1000;
    const OTHERS_WRITE: u32 = 0o002;
    path.metadata().is_ok_and(|found| found.mode() & (STICKY | OTHERS_WRITE) != 0)
}

/// A user, as texts of errors name it.
struct Named {
    uid: Uid,
    name: String,
    /// The argument of `sudo -u`.
    sudo: String,
}

impl Named {
    fn of(uid: Uid) -> Self {
        match User::from_uid(uid) {
            Ok(Some(User { name, .. })) => Self { uid, sudo: name.clone(), name },
            // The user has no name, as is usual in containers.
            _ => Self { uid, name: uid.to_string(), sudo: format!("'#{uid}'") },
        }
    }

    fn if_other(self) -> Option<Self> {
        (self.uid != geteuid()).then_some(self)
    }

    fn remedy(&self) -> String {
        format!("run it as {}: sudo -u {} sessile …", self.name, self.sudo)
    }
}

fn owner_of(path: &Path) -> Option<Named> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Some(Named::of(Uid::from_raw(path.metadata().ok()?.uid())))
}

fn other_owner(path: &Path) -> Option<Named> {
    owner_of(path)?.if_other()
}
