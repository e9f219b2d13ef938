//! The owner of a store, by name: for errors that its owner would not get.
use nix::unistd::{Uid, User, geteuid};
use sessile::{Error, ErrorKind};
use std::error::Error as StdError;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An error about a store that belongs to another user, with names in place of numbers.
pub(crate) fn ownership_error(error: &Error) -> Option<String> {
    let owner = other_owner(error.path()?).filter(|_| error.kind() == ErrorKind::Permissions)?;
    let (path, own) = (error.path()?.display(), Named::of(geteuid()));
    let reason = format!("it belongs to user {}, and this process runs as user {}", owner.name, own.name);
    Some(format!("failed to change session store `{path}`: {reason}; {}", owner.remedy()))
}

/// The remedy for an error of the operating system that the store's owner would not get.
pub(crate) fn remedy(error: &Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| StdError::source(*cause));
    let is_denied = |cause: &&(dyn StdError + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    };
    causes.into_iter().find(is_denied)?;
    // The owner of a file below a directory without access is unknown: the nearest readable ancestor's owner is taken.
    error.path()?.ancestors().find_map(owner_of)?.if_other().map(|owner| owner.remedy())
}

/// A user, as error texts name them.
struct Named {
    uid: Uid,
    name: String,
    /// For `sudo -u`.
    sudo: String,
}

impl Named {
    fn of(uid: Uid) -> Self {
        match User::from_uid(uid) {
            Ok(Some(User { name, .. })) => Self { uid, sudo: name.clone(), name },
            // A user without a name, as in containers.
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
