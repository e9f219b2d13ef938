//! Any text as a session's id: it is refused or prints as the same text again; and no id leads out of its shard.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sessile::file::internals::path_of;
use sessile::{PublicId, SessionId, Token};

fn check_path(id: &PublicId) {
    let path = path_of(id);
    let (shard, name) = path.split_once('/').expect("a shard and a name");
    assert_eq!((shard.len(), name.len()), (2, 38));
    assert!(shard.bytes().chain(name.bytes()).all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
}

fuzz_target!(|text: &str| {
    if let Some(session) = SessionId::parse(text) {
        assert_eq!(text.len(), 32);
        assert!(text.bytes().all(|c| c.is_ascii_lowercase() || (b'2'..=b'7').contains(&c)));
        assert_eq!(session.to_token().expose(), text);
        assert!(!format!("{session:?}").contains(text), "Debug shows the id");
        check_path(&session.public_id());
    }
    if let Some(token) = Token::parse(text) {
        assert_eq!(token.expose(), text);
        // A token is written into a header unchanged.
        assert!(text.bytes().all(|c| c.is_ascii_graphic()));
    }
    if let Some(id) = PublicId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    check_path(&PublicId::digest(text.as_bytes()));
});
