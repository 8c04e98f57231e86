//! The index: which pack holds a chunk.
//!
//! In the store it is a set of immutable objects, each the tables of the packs
//! that one session wrote. In memory it is one map from the first half of a
//! chunk's id to its place, about 40 bytes a chunk, and the frames of every
//! pack. It only ever names packs that are durable.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher as StdHasher};
use std::ops::Range;

use crate::chunk::ChunkKey;
use crate::codec::{Malformed, Reader};
use crate::pack::{FrameEntry, PackId, PackTable, TABLE_BYTES_MAX};

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

/// Where a chunk is. Eight bytes, since memory holds one for every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Location {
    /// The pack's place in the index.
    pub pack: u32,
    /// The frame's number in the pack.
    pub frame: u16,
    /// The chunk's number in the frame.
    pub slot: u16,
}

/// A pack as memory holds it.
#[derive(Debug)]
pub(crate) struct PackInfo {
    pub id: PackId,
    pub frames: Box<[FrameEntry]>,
    /// Chunks in all its frames.
    pub chunks: u32,
}

impl PackInfo {
    /// The chunks of a frame, counted through the pack.
    pub fn chunks_of(&self, frame: usize) -> Range<usize> {
        let start = self.frames[frame].first_chunk as usize;
        let end = self
            .frames
            .get(frame + 1)
            .map_or(self.chunks, |next| next.first_chunk) as usize;
        start..end
    }
}

/// The index in memory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<PackInfo>,
    by_id: HashMap<PackId, u32>,
    chunks: HashMap<ChunkKey, Location, BuildHasherDefault<KeyHasher>>,
}

impl Index {
    pub fn get(&self, key: &ChunkKey) -> Option<Location> {
        self.chunks.get(key).copied()
    }

    pub fn has_pack(&self, id: PackId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// A pack's place in the index.
    pub fn number(&self, id: PackId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub fn pack(&self, number: u32) -> &PackInfo {
        &self.packs[number as usize]
    }

    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// Adds a durable pack. A chunk that is known already stays where it is.
    pub fn insert(&mut self, pack: &IndexedPack) {
        if self.has_pack(pack.id) {
            return;
        }
        let number = u32::try_from(self.packs.len()).expect("packs of 64 MiB do not reach 2^32");
        let table = &pack.table;
        for frame in 0..table.frames.len() {
            for (slot, chunk) in table.chunks[table.chunks_of(frame)].iter().enumerate() {
                let place = Location {
                    pack: number,
                    frame: frame as u16,
                    slot: slot as u16,
                };
                self.chunks.entry(chunk.id.key()).or_insert(place);
            }
        }
        self.by_id.insert(pack.id, number);
        self.packs.push(PackInfo {
            id: pack.id,
            frames: table.frames.clone().into_boxed_slice(),
            chunks: table.chunks.len() as u32,
        });
    }
}

/// Chunk keys are hashes already: their first bytes serve as they are.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl StdHasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length that goes in front of an array says nothing.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
