//! The index: which pack holds a chunk.
//!
//! In the store it is a set of immutable objects (`object`), each the tables of
//! the packs that one session wrote. It only ever names packs that are durable.
//! A chunk is found by the first half of its id, in the newest of the packs that
//! hold it and are still there.
//!
//! To be asked, it lies in a folder on a local disk: sorted runs of entries
//! (`run`), which are merged in the background (`merge`), and a registry of
//! packs (`packs`). What is newer than the newest run is in memory, up to a limit.
//! The folder is a cache. A state file (`saved`) says which of its files are valid
//! and which index objects are in them; whatever is missing is read from the store
//! (`sync`), and where anything is not what was written, everything is.

mod files;
mod filter;
mod folder;
mod local;
mod merge;
mod object;
mod packs;
mod run;
mod saved;
mod sync;

#[cfg(test)]
mod faults;

pub(crate) use folder::LocalFolder;
pub(crate) use object::{INDEX_BYTES, INDEX_MAGIC, IndexedPack, decode, encode};

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::chunk::ChunkKey;
use crate::error::Result;
use crate::keys;
use crate::pack::{FrameEntry, PackId};

use local::Shared;
use merge::Merger;
use packs::Record;
use run::Entry;
use saved::ObjectName;

/// Entries in memory before they become a run: some 10 MiB.
const MEMORY_ENTRIES: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };
/// Index objects that are read again after a restart at most.
const UNSAVED_OBJECTS: usize = 64;
/// Where a chunk is. Eight bytes, since there is one for every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The pack's number in this index; a number is never given twice.
    pub pack: u32,
    /// The chunk's number in the pack.
    pub chunk: u32,
}

impl Place {
    const FIRST: Self = Self { pack: 0, chunk: 0 };
    const LAST: Self = Self {
        pack: u32::MAX,
        chunk: u32::MAX,
    };
}

/// What the index says of a pack.
#[derive(Debug)]
pub(crate) struct PackInfo {
    pub id: PackId,
    /// The length of its object.
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
///
/// A method that fails changes nothing, but where the local files turn out not to
/// be what was written: then the index stays unsound until it is opened again.
#[derive(Debug)]
pub(crate) struct Index {
    shared: Arc<Shared>,
    merger: Merger,
}

impl Index {
    /// Opens the index in a project's folder, or an empty one if there is none
    /// there that is whole.
    ///
    /// Errors: `Conflict` the folder is in use.
    pub fn open(folder: Arc<LocalFolder>, place: &keys::Place) -> Result<Self> {
        let bound = *place.bound("").first_chunk().expect("two ids of 16 bytes");
        Ok(Self {
            shared: Arc::new(Shared::open(folder, place.project, bound)?),
            merger: Merger::default(),
        })
    }

    /// Where a chunk is; nothing if no pack has it.
    pub fn get(&self, key: &ChunkKey) -> Result<Option<Place>> {
        Ok(self.get_many(std::slice::from_ref(key))?[0])
    }

    /// As `get`, of many chunks; in their order.
    pub fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Place>>> {
        let found = self.shared.get_many(keys);
        self.shared.judge(found)
    }

    /// The number of a pack that is there.
    pub fn number(&self, id: PackId) -> Option<u32> {
        self.shared.read().packs.number(id)
    }

    /// The packs that are there, by number.
    pub fn packs(&self) -> Vec<u32> {
        let packs = &self.shared.read().packs;
        (0..packs.len()).filter(|n| packs.is_live(*n)).collect()
    }

    /// What is known of a pack; nothing if it has been removed.
    pub fn pack(&self, number: u32) -> Result<Option<Arc<PackInfo>>> {
        let record = {
            let state = self.shared.read();
            if !state.packs.is_live(number) {
                return Ok(None);
            }
            if let Some(pack) = state.fresh.get(&number) {
                return Ok(Some(pack.clone()));
            }
            state.packs.get(number).copied()
        };
        let Some(record) = record else {
            return Ok(None);
        };
        let info = self.shared.pack_files.info(number, &record);
        self.shared.judge(info).map(Some)
    }

    /// The id of a pack that is there, and the length of its object.
    pub fn pack_size(&self, number: u32) -> Option<(PackId, u64)> {
        let state = self.shared.read();
        let record = state.packs.get(number)?;
        let live = state.packs.is_live(number);
        live.then_some((record.id, record.stored_bytes))
    }

    /// Adds a durable pack. The entries in memory become a run first where they are many.
    pub fn insert(&self, pack: &IndexedPack) -> Result<()> {
        if self.shared.read().memory.len() >= MEMORY_ENTRIES {
            self.flush()?;
        }
        let mut state = self.shared.write();
        if state.packs.number(pack.id).is_some() {
            return Ok(());
        }
        let number = state.packs.len();
        let places = (0..).map(|chunk| Place {
            pack: number,
            chunk,
        });
        let entries = places.zip(&pack.table.chunks).map(|(place, chunk)| Entry {
            key: chunk.id.key(),
            place,
        });
        state.memory.extend(entries);
        let info = Arc::new(PackInfo::new(pack));
        state.packs.push(Record::new(&info), true);
        state.fresh.insert(number, info);
        Ok(())
    }

    /// Takes packs out: from now on their chunks are where other packs hold them, or nowhere.
    pub fn remove(&self, packs: &[PackId]) -> Result<()> {
        {
            let mut state = self.shared.write();
            for id in packs {
                state.packs.remove(*id);
            }
        }
        self.merger.merge_if_due(&self.shared)
    }

    /// Notes that all packs of an index object are in the index, as far as they
    /// are there, so that it is not read again after a restart.
    pub fn take_in(&self, object: &str) -> Result<()> {
        let Some(name) = object_name(object) else {
            return Ok(());
        };
        let unsaved = {
            let mut state = self.shared.write();
            state.taken.insert(name);
            state.taken.len()
        };
        if unsaved >= UNSAVED_OBJECTS {
            self.flush()?;
        }
        Ok(())
    }

    /// Whether all packs of an index object are in the index already.
    pub fn has_taken_in(&self, object: &str) -> bool {
        let Some(name) = object_name(object) else {
            return false;
        };
        let saved = self.shared.lock_saved();
        saved.taken.contains(&name) || self.shared.read().taken.contains(&name)
    }

    /// Forgets all index objects but those that are there.
    pub fn keep_taken_in<'o>(&self, objects: impl Iterator<Item = &'o str>) {
        let there: BTreeSet<ObjectName> = objects.filter_map(object_name).collect();
        let mut saved = self.shared.lock_saved();
        saved.taken.retain(|name| there.contains(name));
        let mut state = self.shared.write();
        state.taken.retain(|name| there.contains(name));
    }

    /// Whether the local files turned out not to be what was written. All that is
    /// to be done then is to drop the index and open it again.
    pub fn is_unsound(&self) -> bool {
        self.shared.unsound.load(Ordering::Relaxed)
    }

    /// Makes what is in memory durable in the local files.
    pub fn flush(&self) -> Result<()> {
        self.merger.make_room(&self.shared)?;
        let flushed = self.shared.flush();
        self.shared.judge(flushed)?;
        self.merger.merge_if_due(&self.shared)
    }
}

/// The name that an index object has, if it has one that we give.
fn object_name(object: &str) -> Option<ObjectName> {
    let mut name = ObjectName::default();
    hex::decode_to_slice(object, &mut name).ok()?;
    Some(name)
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
