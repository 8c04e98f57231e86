//! Sealing: AES-256-GCM under keys that are used for one object each.
//!
//! A nonce is a counter inside the object, and every object has a key of its
//! own, derived from a secret and the object's random salt; so no pair of key
//! and nonce is ever used twice, with nothing to keep track of.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::codec::{Malformed, Reader};
use crate::random;

/// Bytes that sealing adds.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of the salt that an object's key is derived from.
pub(crate) const SALT_BYTES: usize = 16;
/// The only format this version writes, and the newest it reads.
pub(crate) const FORMAT: u16 = 1;

/// Sealed bytes are not what was sealed, or were sealed for another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// The key of one object.
pub(crate) struct SealKey(LessSafeKey);

impl SealKey {
    /// The key of the object with this salt, which must be drawn at random for each object.
    pub fn derive(secret: &[u8; 32], salt: &[u8; SALT_BYTES]) -> Self {
        let key = zeroize::Zeroizing::new(*blake3::keyed_hash(secret, salt).as_bytes());
        let unbound =
            UnboundKey::new(&AES_256_GCM, &*key).expect("the key has the cipher's length");
        Self(LessSafeKey::new(unbound))
    }

    /// Seals `buffer[from..]` in place and appends the tag. A `counter` is used once per object.
    pub fn seal(&self, counter: u32, bound: &[u8], buffer: &mut Vec<u8>, from: usize) {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(bound), &mut buffer[from..])
            .expect("no buffer here comes near the cipher's limit of 64 GiB");
        buffer.extend_from_slice(tag.as_ref());
    }

    /// Opens `sealed` into `plain`, replacing what it held.
    pub fn open(
        &self,
        counter: u32,
        bound: &[u8],
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let length = sealed.len().checked_sub(TAG_BYTES).ok_or(NotAuthentic)?;
        let (text, tag) = sealed.split_at(length);
        plain.resize(length, 0);
        self.0
            .open_separate_gather(nonce(counter), Aad::from(bound), text, tag, plain)
            .map_err(|_| NotAuthentic)
    }
}

fn nonce(counter: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Why a small sealed object cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Written by a newer version: its format.
    Newer(u16),
    /// Not an object of this kind, or not whole.
    Malformed(&'static str),
    /// Sealed with another key, for another place, or changed since.
    NotAuthentic,
}

impl From<Malformed> for OpenError {
    fn from(Malformed(problem): Malformed) -> Self {
        Self::Malformed(problem)
    }
}

/// Seals a small object: magic, format, salt, then the sealed bytes. It opens
/// only as this kind (`magic`), in this place (`bound`).
pub(crate) fn seal_object(
    secret: &[u8; 32],
    magic: [u8; 8],
    bound: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let salt = random::bytes();
    let mut object = Vec::with_capacity(OBJECT_HEADER_BYTES + plain.len() + TAG_BYTES);
    object.extend_from_slice(&magic);
    object.extend_from_slice(&FORMAT.to_le_bytes());
    object.extend_from_slice(&salt);
    let bound = [&object[..], bound].concat();
    object.extend_from_slice(plain);
    SealKey::derive(secret, &salt).seal(0, &bound, &mut object, OBJECT_HEADER_BYTES);
    object
}

/// Opens what `seal_object` made.
pub(crate) fn open_object(
    secret: &[u8; 32],
    magic: [u8; 8],
    bound: &[u8],
    object: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let mut reader = Reader::new(object);
    if reader.array()? != magic {
        return Err(OpenError::Malformed("it is no object of its kind"));
    }
    check_format(reader.u16()?)?;
    let salt = reader.array()?;
    let bound = [&object[..OBJECT_HEADER_BYTES], bound].concat();
    let mut plain = Vec::new();
    SealKey::derive(secret, &salt)
        .open(0, &bound, reader.rest(), &mut plain)
        .map_err(|NotAuthentic| OpenError::NotAuthentic)?;
    Ok(plain)
}

/// Whether objects of this format can be read.
pub(crate) fn check_format(format: u16) -> Result<(), OpenError> {
    match format {
        FORMAT => Ok(()),
        0 => Err(OpenError::Malformed("its format is 0")),
        newer => Err(OpenError::Newer(newer)),
    }
}

const OBJECT_HEADER_BYTES: usize = 8 + 2 + SALT_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"testtest";

    #[test]
    fn an_object_opens_only_whole_unchanged_and_in_its_place() {
        let object = seal_object(&[7; 32], MAGIC, b"place", b"secret");
        assert_eq!(
            open_object(&[7; 32], MAGIC, b"place", &object).unwrap(),
            b"secret"
        );
        assert!(open_object(&[8; 32], MAGIC, b"place", &object).is_err());
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
    fn a_newer_format_is_named() {
        let mut object = seal_object(&[7; 32], MAGIC, b"", b"");
        object[8] = 2;
        assert_eq!(
            open_object(&[7; 32], MAGIC, b"", &object),
            Err(OpenError::Newer(2))
        );
    }
}
