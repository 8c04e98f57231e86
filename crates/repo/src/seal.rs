//! Sealing: AES-256-GCM under keys that are used for one object each.
//!
//! A nonce is a counter inside the object, and every object has a key of its
//! own, derived from a secret and the object's random salt. Only a [`Sealer`]
//! seals: it draws its salt and counts by itself, and what it was given once it
//! never takes back. So no pair of key and nonce is ever used twice, whatever
//! fails and is tried again, with nothing to keep track of.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::codec::{Malformed, Reader};
use crate::random;
use crate::whole::{self, HASH_BYTES};

/// Bytes that sealing adds.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of the salt that an object's key is derived from.
pub(crate) const SALT_BYTES: usize = 16;
/// The counter of an object's last piece; the others count up from 0 and never get there.
pub(crate) const LAST_COUNTER: u32 = u32::MAX;
/// The only format this version writes, and the newest it reads.
pub(crate) const FORMAT: u16 = 1;

/// Sealed bytes are not what was sealed, or were sealed for another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// The key of one object, for opening what is in it.
pub(crate) struct SealKey(LessSafeKey);

impl SealKey {
    /// The key of the object with this salt.
    pub fn derive(secret: &[u8; 32], salt: &[u8; SALT_BYTES]) -> Self {
        let key = zeroize::Zeroizing::new(*blake3::keyed_hash(secret, salt).as_bytes());
        let unbound =
            UnboundKey::new(&AES_256_GCM, &*key).expect("the key has the cipher's length");
        Self(LessSafeKey::new(unbound))
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

/// Seals the pieces of one new object, under a key that is this object's alone.
pub(crate) struct Sealer {
    salt: [u8; SALT_BYTES],
    key: SealKey,
    next: u32,
}

impl Sealer {
    /// For an object of its own, with a salt drawn at random.
    pub fn new(secret: &[u8; 32]) -> Self {
        let salt = random::bytes();
        Self {
            key: SealKey::derive(secret, &salt),
            salt,
            next: 0,
        }
    }

    /// What the object's key is derived from.
    pub fn salt(&self) -> [u8; SALT_BYTES] {
        self.salt
    }

    /// The number that the next piece is sealed under.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Seals `buffer[from..]` in place as the next piece and appends the tag.
    pub fn seal(&mut self, bound: &[u8], buffer: &mut Vec<u8>, from: usize) {
        let counter = self.next;
        let next = counter.checked_add(1);
        self.next = next.expect("an object's pieces are limited, far below 2^32");
        self.seal_as(counter, bound, buffer, from);
    }

    /// Seals the object's last piece, which has a number of its own.
    pub fn seal_last(self, bound: &[u8], buffer: &mut Vec<u8>, from: usize) {
        self.seal_as(LAST_COUNTER, bound, buffer, from);
    }

    fn seal_as(&self, counter: u32, bound: &[u8], buffer: &mut Vec<u8>, from: usize) {
        #[cfg(test)]
        tests::note_use(self.salt, counter);
        let key = &self.key.0;
        let tag = key
            .seal_in_place_separate_tag(nonce(counter), Aad::from(bound), &mut buffer[from..])
            .expect("no buffer here comes near the cipher's limit of 64 GiB");
        buffer.extend_from_slice(tag.as_ref());
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

/// Seals a small object: magic, format, salt, the sealed bytes, and the hash of
/// them all. It opens only as this kind (`magic`), in this place (`bound`).
pub(crate) fn seal_object(
    secret: &[u8; 32],
    magic: [u8; 8],
    bound: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let mut sealer = Sealer::new(secret);
    let mut object = Vec::with_capacity(OBJECT_HEADER_BYTES + plain.len() + TAG_BYTES + HASH_BYTES);
    object.extend_from_slice(&magic);
    object.extend_from_slice(&FORMAT.to_le_bytes());
    object.extend_from_slice(&sealer.salt());
    let bound = [&object[..], bound].concat();
    object.extend_from_slice(plain);
    sealer.seal(&bound, &mut object, OBJECT_HEADER_BYTES);
    whole::append_hash(&mut object);
    object
}

/// Opens what `seal_object` made.
pub(crate) fn open_object(
    secret: &[u8; 32],
    magic: [u8; 8],
    bound: &[u8],
    object: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let body = whole::check(object)?;
    let mut reader = Reader::new(body);
    if reader.array()? != magic {
        return Err(OpenError::Malformed("it is no object of its kind"));
    }
    check_format(reader.u16()?)?;
    let salt = reader.array()?;
    let bound = [&body[..OBJECT_HEADER_BYTES], bound].concat();
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
#[path = "seal/tests.rs"]
mod tests;
