//! The cut-offs of the store in memory: the simplest thing that keeps the promises of `delete_of` and `delete_all`.
use sessile::record::Login;
use sessile::{PublicId, Record};
use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct CutOffs {
    last: u64,
    of_all: u64,
    of_users: HashMap<String, (u64, Option<PublicId>)>,
}

impl CutOffs {
    pub(crate) fn cut(&mut self, user: Option<&str>, except: Option<PublicId>) {
        self.last += 1;
        match user {
            Some(user) => drop(self.of_users.insert(user.to_owned(), (self.last, except))),
            None => self.of_all = self.last,
        }
    }

    /// The number that the session's next version carries; `None` if a cut-off has ended the session.
    pub(crate) fn standing(&self, record: &Record, id: PublicId) -> Option<u64> {
        let number = record.login().cut_off;
        if number < self.of_all {
            return None;
        }
        match record.user().and_then(|user| self.of_users.get(user)) {
            Some((of_user, except)) if number < *of_user => (*except == Some(id)).then_some(*of_user),
            _ => Some(number),
        }
    }

    /// A session that begins now.
    pub(crate) fn begun(&self, record: Record) -> Record {
        with_number(record, self.last)
    }
}

pub(crate) fn with_number(mut record: Record, cut_off: u64) -> Record {
    let login = record.login();
    if login.cut_off != cut_off {
        record.set_login(Login { cut_off, ..login });
    }
    record
}
