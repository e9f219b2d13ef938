//! The cookie that the response to a request must set or remove.
use super::Session;
use crate::id::Token;
use std::time::{Duration, SystemTime};

/// The cookie of the response.
#[derive(Debug, Default)]
pub(crate) enum PendingCookie {
    /// No cookie is sent: the browser has the token, with the right deadline.
    #[default]
    Nothing,
    /// A new token is sent, or the same one with a later deadline.
    Token {
        token: Token,
        /// The time from the save to the deadline, and the deadline; `None` for a cookie that ends with the browser.
        until: Option<(Duration, SystemTime)>,
    },
    /// The cookie is removed: its session was ended, or the visitor logged out.
    Removed,
}

impl PendingCookie {
    /// Whether the response sends this token to the browser.
    pub(super) fn carries(&self, token: &Token) -> bool {
        matches!(self, Self::Token { token: carried, .. } if carried == token)
    }
}

impl Session {
    /// The cookie of the response.
    pub(crate) fn pending_cookie(&self) -> &PendingCookie {
        &self.cookie
    }

    /// Makes the response remove the cookie.
    pub(super) fn remove_cookie(&mut self) {
        self.removes_cookie = true;
        self.cookie = PendingCookie::Removed;
    }

    /// Drops a token that was to be sent, because it does not exist any more. A late response with it would replace the
    /// cookie of a newer login.
    pub(super) fn drop_cookie(&mut self) {
        if matches!(self.cookie, PendingCookie::Token { .. }) {
            self.cookie = if self.removes_cookie { PendingCookie::Removed } else { PendingCookie::Nothing };
        }
    }
}
