//! The cookie that the response to a request must set or remove.
use super::Session;
use crate::id::Token;
use std::time::{Duration, SystemTime};

/// The cookie of a response.
#[derive(Debug, Default)]
pub(crate) enum PendingCookie {
    /// No cookie: the browser has the token, with the right deadline.
    #[default]
    Nothing,
    /// A new token, or the old one with a moved deadline.
    Token {
        token: Token,
        /// The lifetime from the save on, and the deadline; `None` ends with the browser.
        until: Option<(Duration, SystemTime)>,
    },
    /// A removal: the session of the request's cookie was ended, or the visitor logged out.
    Removed,
}

impl PendingCookie {
    /// Whether the response gives the browser this token.
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

    /// Cancels a pending token that no longer exists. A late response with it would overwrite the cookie of a newer
    /// login.
    pub(super) fn drop_cookie(&mut self) {
        if matches!(self.cookie, PendingCookie::Token { .. }) {
            self.cookie = if self.removes_cookie { PendingCookie::Removed } else { PendingCookie::Nothing };
        }
    }
}
