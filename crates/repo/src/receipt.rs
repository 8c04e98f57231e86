//! Receipts: the small signed object whose existence makes a backup exist.
//!
//! It is written last and removed first, and names the manifest by its hash,
//! so that a manifest cannot be put in another's place.

use cairn_types::{BackupId, Timestamp};
use subtle::ConstantTimeEq;

use crate::codec::Reader;
use crate::keys::Place;
use crate::seal::{FORMAT, OpenError, check_format};
use crate::tree::Root;
use crate::whole;

const MAGIC: [u8; 8] = *b"CAIRNRCP";

/// What is acknowledged of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub backup: BackupId,
    pub root: Root,
    pub size_bytes: u64,
    /// The hash that the manifest object ends in.
    pub manifest: [u8; 32],
    pub created_at: Timestamp,
}

impl Receipt {
    /// The object, signed for its place.
    pub fn sign(&self, key: &[u8; 32], place: &Place) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(self.backup.as_bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        out.extend_from_slice(&self.manifest);
        out.extend_from_slice(&self.created_at.as_micros().to_le_bytes());
        let signature = signature(key, place, &out);
        out.extend_from_slice(&signature);
        whole::append_hash(&mut out);
        out
    }

    /// Reads a receipt and checks its signature.
    pub fn read(key: &[u8; 32], place: &Place, object: &[u8]) -> Result<Self, OpenError> {
        let body = whole::check(object)?;
        let mut reader = Reader::new(body);
        if reader.array()? != MAGIC {
            return Err(OpenError::Malformed("it is no receipt"));
        }
        check_format(reader.u16()?)?;
        let receipt = Self {
            backup: BackupId::from_uuid(uuid::Uuid::from_bytes(reader.array()?)),
            root: Root(reader.array()?),
            size_bytes: reader.u64()?,
            manifest: reader.array()?,
            created_at: Timestamp::from_micros(reader.u64()?.cast_signed()),
        };
        let signed = &body[..body.len() - reader.rest().len()];
        let found: [u8; 32] = reader.array()?;
        reader.finish()?;
        if bool::from(signature(key, place, signed).ct_eq(&found)) {
            Ok(receipt)
        } else {
            Err(OpenError::NotAuthentic)
        }
    }
}

fn signature(key: &[u8; 32], place: &Place, signed: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&place.bound("receipt"));
    hasher.update(signed);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
#[path = "receipt/tests.rs"]
mod tests;
