use std::collections::HashSet;
use std::sync::{LazyLock, Mutex};

use super::*;

const MAGIC: [u8; 8] = *b"testtest";

/// What a key is derived from, and the number of a nonce.
type Use = ([u8; SALT_BYTES], u32);

/// Everything that was sealed under in this process.
static USED: LazyLock<Mutex<HashSet<Use>>> = LazyLock::new(Mutex::default);

/// Called for each seal of each test: a key and nonce that come twice fail it.
pub(super) fn note_use(salt: [u8; SALT_BYTES], counter: u32) {
    let new = USED.lock().unwrap().insert((salt, counter));
    assert!(new, "a nonce was used twice under one key");
}

#[test]
fn an_object_opens_only_whole_unchanged_and_in_its_place() {
    let object = seal_object(&[7; 32], MAGIC, b"place", b"secret");
    assert_eq!(
        open_object(&[7; 32], MAGIC, b"place", &object).unwrap(),
        b"secret"
    );
    assert_eq!(
        open_object(&[8; 32], MAGIC, b"place", &object),
        Err(OpenError::NotAuthentic)
    );
    assert!(open_object(&[7; 32], *b"otherone", b"place", &object).is_err());
    assert!(open_object(&[7; 32], MAGIC, b"other", &object).is_err());
    for at in 0..object.len() {
        let mut changed = object.clone();
        changed[at] ^= 1;
        assert!(
            open_object(&[7; 32], MAGIC, b"place", &changed).is_err(),
            "byte {at}"
        );
        assert!(
            open_object(&[7; 32], MAGIC, b"place", &object[..at]).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn what_was_changed_by_who_made_it_whole_again_does_not_open() {
    let object = seal_object(&[7; 32], MAGIC, b"place", b"secret");
    let body = object.len() - HASH_BYTES;
    for at in 0..body {
        let mut changed = object[..body].to_vec();
        changed[at] ^= 1;
        whole::append_hash(&mut changed);
        assert!(
            open_object(&[7; 32], MAGIC, b"place", &changed).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn a_newer_format_is_named() {
    let object = seal_object(&[7; 32], MAGIC, b"", b"");
    let mut newer = object[..object.len() - HASH_BYTES].to_vec();
    newer[8] = 2;
    whole::append_hash(&mut newer);
    assert_eq!(
        open_object(&[7; 32], MAGIC, b"", &newer),
        Err(OpenError::Newer(2))
    );
}
