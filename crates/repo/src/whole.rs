//! Wholeness: every object ends in the BLAKE3 hash of all bytes before it.
//!
//! The hash needs no key, so that whoever holds nothing but the store can tell
//! that an object is as it was written. It proves nothing about who wrote it:
//! that is what seals are for.

use crate::codec::Malformed;

/// Bytes of the hash at the end of every object.
pub(crate) const HASH_BYTES: usize = 32;

/// Makes an object complete: appends the hash of what it holds.
pub(crate) fn append_hash(object: &mut Vec<u8>) {
    let hash = blake3::hash(object);
    object.extend_from_slice(hash.as_bytes());
}

/// An object's bytes without its hash, which must be theirs.
pub(crate) fn check(object: &[u8]) -> Result<&[u8], Malformed> {
    let (body, hash) = split(object)?;
    if blake3::hash(body) == *hash {
        Ok(body)
    } else {
        Err(Malformed("its bytes are not those that were written"))
    }
}

/// The hash that an object ends in, which names it.
pub(crate) fn hash_of(object: &[u8]) -> Result<[u8; HASH_BYTES], Malformed> {
    split(object).map(|(_, hash)| *hash)
}

fn split(object: &[u8]) -> Result<(&[u8], &[u8; HASH_BYTES]), Malformed> {
    object
        .split_last_chunk()
        .ok_or(Malformed("it is cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_whole_only_as_it_was_written() {
        let mut object = b"some bytes".to_vec();
        append_hash(&mut object);
        assert_eq!(check(&object), Ok(&b"some bytes"[..]));
        for at in 0..object.len() {
            let mut changed = object.clone();
            changed[at] ^= 1;
            assert!(check(&changed).is_err(), "byte {at}");
            assert!(check(&object[..at]).is_err(), "cut at {at}");
        }
        object.push(0);
        assert!(check(&object).is_err(), "a byte more");
    }
}
