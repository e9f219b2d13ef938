//! What a site needs around its forms: messages that are shown once, and tokens against forged requests.
//!
//! Both are entries of the session with reserved names, so a change of the session's id keeps them. A login ends the
//! token: a page that was made before the login cannot send a form in the name of the user.
//!
//! The token of a page is 32 random bytes, and the session's secret mixed with them: each page has another one, so that
//! its bytes cannot be guessed from the lengths of compressed pages (the attack is known as BREACH). Any of them is
//! right as long as the secret stays.
use super::Session;
use super::entries::read;
use crate::error::Result;
use crate::random;
use blake3::Hash;

/// The name of the entry with the secret of the tokens, in hexadecimal digits.
pub(super) const CSRF: &str = "_csrf";
/// The name of the entry with the messages.
const FLASH: &str = "_flash";
/// The most messages that wait to be shown. Older ones are dropped.
pub const FLASH_MAX: usize = 20;

const SECRET_BYTES: usize = 32;

impl Session {
    /// Adds a message that [`take_flash`](Self::take_flash) shows once, on the next page as a rule: after a form was
    /// sent, the server redirects, and the page behind the redirect shows the result. Of more than [`FLASH_MAX`]
    /// messages, the oldest are dropped. Messages of requests beside this one are kept.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) if the message alone exceeds the store's limit for a
    /// session. See also [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// session.flash("The address was saved.")?;
    /// session.save()?; // and a redirect
    /// # let mut session = sessions.session(session.token()?);
    /// assert_eq!(session.take_flash()?, ["The address was saved."]);
    /// assert!(session.take_flash()?.is_empty(), "it is shown once");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "messages")]
    pub fn flash(&mut self, message: impl Into<String>) -> Result<()> {
        let message = message.into();
        let add = move |messages: &mut Vec<String>| {
            messages.push(message);
            messages.drain(..messages.len().saturating_sub(FLASH_MAX));
        };
        self.update_entry(FLASH, add).map(drop)
    }

    /// Takes all messages, the oldest first, in the store, at once and as one step: of two pages that load beside each
    /// other, one shows them. They stay taken if the request fails later. Without messages it only reads.
    ///
    /// # Errors
    ///
    /// As of [`take_now`](Self::take_now).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// for message in session.take_flash()? {
    ///     println!("<p role=\"status\">{}</p>", message.replace('&', "&amp;").replace('<', "&lt;"));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_flash(&mut self) -> Result<Vec<String>> {
        if self.view(FLASH)?.is_none() {
            return Ok(Vec::new());
        }
        Ok(self.take_entry_now(FLASH)?.unwrap_or_default())
    }

    /// A token for the forms of a page, as a hidden field: [`is_csrf_token`](Self::is_csrf_token) accepts it in the
    /// requests of the same session, and another site cannot know it. Each call returns another one, of 128
    /// hexadecimal digits; all are right until a [`login`](Self::login), [`clear`](Self::clear) or
    /// [`destroy`](Self::destroy). A rotation of the id keeps them.
    ///
    /// The first call of a session stores the secret at once, as [`get_or_insert_now`](Self::get_or_insert_now) does,
    /// so that pages that load beside each other agree; it makes a session for a visitor who has none. Later calls only
    /// read.
    ///
    /// The session's cookie is `SameSite=Lax` by default, with which browsers send it only with links from other sites.
    /// The token also protects from other programs on sub-domains, and where the cookie needs `SameSite=None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Random`](crate::ErrorKind::Random) if there are no random bits; otherwise as of
    /// [`update_now`](Self::update_now).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// let form = format!(r#"<input type="hidden" name="csrf" value="{}">"#, session.csrf_token()?);
    /// # assert!(form.len() > 128);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn csrf_token(&mut self) -> Result<String> {
        let secret = if let Some(secret) = self.csrf_secret()? {
            secret
        } else {
            let drawn = Hash::from_bytes(random::bytes("make a token for a form")?);
            let kept = self.get_or_insert_entry_now(CSRF, drawn.to_hex().to_string())?;
            Hash::from_hex(kept).unwrap_or(drawn)
        };
        let mask = random::bytes("make a token for a form")?;
        let [mask, masked] = [Hash::from_bytes(mask), mixed(&secret, &mask)].map(|half| half.to_hex());
        Ok(format!("{mask}{masked}"))
    }

    /// Whether a request has brought a [token](Self::csrf_token) of this session. Compared in a time that does not tell
    /// how much of it is right. A session without a secret has no right token.
    ///
    /// # Errors
    ///
    /// See [`Session`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = sessile::FileStore::open(dir.path())?;
    /// # let sessions = sessile::Sessions::new(store, sessile::Cookies::plain_http())?;
    /// # let mut session = sessions.visit([]);
    /// let sent = session.csrf_token()?; // in a form, which comes back
    /// assert!(session.is_csrf_token(&sent)?);
    /// assert!(!session.is_csrf_token("")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_csrf_token(&self, sent: &str) -> Result<bool> {
        let Some(secret) = self.csrf_secret()? else { return Ok(false) };
        let halves = sent.split_at_checked(2 * SECRET_BYTES);
        let parsed = halves
            .and_then(|(mask, masked)| Some((Hash::from_hex(mask).ok()?, Hash::from_hex(masked).ok()?)));
        // Two hashes are compared in constant time.
        Ok(parsed.is_some_and(|(mask, masked)| mixed(&masked, mask.as_bytes()) == secret))
    }

    /// The secret of the tokens. A pending login removes it, and is carried out by the call that stores a new one.
    fn csrf_secret(&self) -> Result<Option<Hash>> {
        if self.is_login_pending() {
            return Ok(None);
        }
        let stored = self.view(CSRF)?.map(|value| read::<String>(CSRF, value)).transpose()?;
        Ok(stored.and_then(|text| Hash::from_hex(text).ok()))
    }
}

/// The exclusive or of a secret and a mask: what takes the mask off again.
fn mixed(secret: &Hash, mask: &[u8; SECRET_BYTES]) -> Hash {
    let mut bytes = *secret.as_bytes();
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    Hash::from_bytes(bytes)
}
