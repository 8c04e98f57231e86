//! Index objects: the tables of packs, many together, sealed in the store.

use crate::codec::{Malformed, Reader};
use crate::pack::{PackId, PackTable, TABLE_BYTES_MAX};

/// Bytes of tables in one index object, before one more.
pub(crate) const INDEX_BYTES: usize = 8 << 20;
/// Packs in one index object at most.
const PACKS_MAX: usize = 1 << 20;

pub(crate) const INDEX_MAGIC: [u8; 8] = *b"CAIRNIDX";

/// A pack that is durable, as index objects list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexedPack {
    pub id: PackId,
    /// The length of its object.
    pub stored_bytes: u64,
    pub table: PackTable,
}

/// The plain bytes of an index object.
pub(crate) fn encode(packs: &[IndexedPack]) -> Vec<u8> {
    let count = u32::try_from(packs.len()).expect("an index object's packs are limited");
    let mut out = count.to_le_bytes().to_vec();
    for pack in packs {
        out.extend_from_slice(&pack.id.0);
        out.extend_from_slice(&pack.stored_bytes.to_le_bytes());
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        pack.table.encode(&mut out);
        let length = u32::try_from(out.len() - at - 4).expect("a table's chunks are limited");
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<IndexedPack>, Malformed> {
    let mut reader = Reader::new(bytes);
    let count = reader.length(PACKS_MAX)?;
    let mut packs = Vec::new();
    for _ in 0..count {
        let id = PackId(reader.array()?);
        let stored_bytes = reader.u64()?;
        let length = reader.length(TABLE_BYTES_MAX)?;
        let table = PackTable::decode(reader.take(length)?)?;
        packs.push(IndexedPack {
            id,
            stored_bytes,
            table,
        });
    }
    reader.finish()?;
    Ok(packs)
}
