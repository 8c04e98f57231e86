//! The index: which pack holds a chunk.
//!
//! In the store it is a set of immutable objects (`object`), each the tables of
//! the packs that one session wrote. It only ever names packs that are durable.
//! A chunk is found by the first half of its id, in the newest of the packs that
//! hold it and are still there.

mod object;

pub(crate) use object::{INDEX_BYTES, INDEX_MAGIC, IndexedPack, decode, encode};

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher as StdHasher};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::chunk::ChunkKey;
use crate::error::Result;
use crate::pack::{FrameEntry, PackId};

/// Where a chunk is. Eight bytes, since there is one for every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The pack's number in this index; a number is never given twice.
    pub pack: u32,
    /// The chunk's number in the pack.
    pub chunk: u32,
}

/// What the index says of a pack.
#[derive(Debug)]
pub(crate) struct PackInfo {
    pub id: PackId,
    /// The length of its object.
    #[allow(dead_code, reason = "for whoever adds up what packs occupy")]
    pub stored_bytes: u64,
    pub frames: Box<[FrameEntry]>,
    /// Chunks in all its frames.
    pub chunks: u32,
}

impl PackInfo {
    fn new(pack: &IndexedPack) -> Self {
        Self {
            id: pack.id,
            stored_bytes: pack.stored_bytes,
            frames: pack.table.frames.clone().into_boxed_slice(),
            chunks: u32::try_from(pack.table.chunks.len()).expect("a pack's chunks are limited"),
        }
    }

    /// The chunks of a frame, counted through the pack.
    pub fn chunks_of(&self, frame: usize) -> Range<usize> {
        let start = self.frames[frame].first_chunk as usize;
        let end = self
            .frames
            .get(frame + 1)
            .map_or(self.chunks, |next| next.first_chunk) as usize;
        start..end
    }

    /// The frame that holds a chunk of the pack, and the chunk's number in it.
    pub fn frame_of(&self, chunk: u32) -> (u16, u16) {
        let behind = self.frames.partition_point(|f| f.first_chunk <= chunk);
        let frame = behind
            .checked_sub(1)
            .expect("a pack's first chunk is in its first frame");
        let slot = chunk - self.frames[frame].first_chunk;
        (frame as u16, slot as u16)
    }
}

/// The index of one project. All its methods may block.
#[derive(Debug, Default)]
pub(crate) struct Index {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    packs: Vec<Option<Arc<PackInfo>>>,
    by_id: HashMap<PackId, u32>,
    chunks: HashMap<ChunkKey, Vec<Place>, BuildHasherDefault<KeyHasher>>,
}

impl State {
    fn get(&self, key: &ChunkKey) -> Option<Place> {
        let places = self.chunks.get(key)?;
        let live = |place: &&Place| self.packs[place.pack as usize].is_some();
        places.iter().rev().find(live).copied()
    }
}

impl Index {
    /// Where a chunk is; nothing if no pack has it.
    pub fn get(&self, key: &ChunkKey) -> Result<Option<Place>> {
        Ok(self.read().get(key))
    }

    /// As `get`, of many chunks; in their order.
    pub fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Place>>> {
        let state = self.read();
        Ok(keys.iter().map(|key| state.get(key)).collect())
    }

    /// The number of a pack that is there.
    pub fn number(&self, id: PackId) -> Option<u32> {
        self.read().by_id.get(&id).copied()
    }

    /// The packs that are there, by number.
    pub fn packs(&self) -> Vec<u32> {
        let state = self.read();
        let numbered = (0..).zip(&state.packs);
        numbered
            .filter_map(|(number, pack)| pack.as_ref().map(|_| number))
            .collect()
    }

    /// What is known of a pack; nothing if it has been removed.
    pub fn pack(&self, number: u32) -> Result<Option<Arc<PackInfo>>> {
        Ok(self.read().packs.get(number as usize).cloned().flatten())
    }

    /// Adds a durable pack.
    pub fn insert(&self, pack: &IndexedPack) -> Result<()> {
        let mut state = self.write();
        if state.by_id.contains_key(&pack.id) {
            return Ok(());
        }
        let number = u32::try_from(state.packs.len()).expect("packs of 64 MiB do not reach 2^32");
        for (place, chunk) in (0..).zip(&pack.table.chunks) {
            let places = state.chunks.entry(chunk.id.key()).or_default();
            places.push(Place {
                pack: number,
                chunk: place,
            });
        }
        state.by_id.insert(pack.id, number);
        state.packs.push(Some(Arc::new(PackInfo::new(pack))));
        Ok(())
    }

    /// Takes packs out: from now on their chunks are where other packs hold them, or nowhere.
    pub fn remove(&self, packs: &[PackId]) -> Result<()> {
        let mut state = self.write();
        for id in packs {
            if let Some(number) = state.by_id.remove(id) {
                state.packs[number as usize] = None;
            }
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
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
