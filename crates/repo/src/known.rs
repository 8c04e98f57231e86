//! What a project's sessions know of its chunks, and what they need of them:
//! which are stored, which are being stored by whom, which are relied on.
//!
//! A chunk counts as stored only once its pack is durable, so a session never
//! relies on bytes that another may fail to write. Until then the session that
//! came first holds a claim on it; others wait for the claim to end.
//!
//! A session that finds a chunk stored marks its place, in the same instant; one
//! that reads a tree pins it. Where a chunk gets a new place, whoever marked the
//! old one has the new one marked. So what a collection must leave to those at
//! work can be read off here at any instant, and what it takes away is unknown
//! to look-ups from the same instant on.

mod holds;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::BackupId;
use tokio::sync::Notify;

use crate::chunk::ChunkKey;
use crate::error::Result;
use crate::index::{Index, IndexedPack, Place};
use crate::manifest::Content;
use crate::marks::{Bits, Marks};
use crate::pack::PackId;

use holds::Holds;
pub(crate) use holds::Session;

/// The chunks of a project, shared by all its sessions.
#[derive(Debug)]
pub(crate) struct Known {
    index: Index,
    state: Mutex<State>,
    /// Held while a pack is added to the index: one at a time, so that each
    /// knows what places its chunks had before.
    publishing: Mutex<()>,
    /// Raised when claims end.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    claims: HashMap<ChunkKey, Session>,
    /// Sessions that take as long as a line does: who is not one of them does not wait
    /// for what they have claimed, and stores it too.
    slow: HashSet<Session>,
    holds: Holds,
    /// Chunks that go, and that are unknown to whoever writes.
    condemned: Marks,
    /// Chunks that are damaged: whoever has them stores them anew, whoever
    /// needs them may still try.
    damaged: Marks,
    /// How often the above, or the index, changed in a way that makes a look-up
    /// in the index that was made before say the wrong thing.
    changes: u64,
}

/// How a chunk stands with the session that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is stored, or this session stores it already.
    Settled,
    /// Nobody had it: this session has claimed it now and must store it.
    Claimed,
    /// Another session is storing it.
    Elsewhere,
}

impl State {
    /// Whether a session waits for what another has claimed.
    fn is_worth_waiting_for(&self, owner: Session, session: Session) -> bool {
        !self.slow.contains(&owner) || self.slow.contains(&session)
    }

    /// Whether a session may rely on what the index found; then it is marked.
    fn rely(&mut self, session: Session, place: Option<Place>) -> bool {
        let Some(place) = place else {
            return false;
        };
        if self.condemned.contains(place) || self.damaged.contains(place) {
            return false;
        }
        self.holds.mark(session, place);
        true
    }
}

impl Known {
    pub fn new(index: Index) -> Self {
        Self {
            index,
            state: Mutex::default(),
            publishing: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Begins a session that writes. It ends with `release`.
    pub fn start_session(&self) -> Session {
        self.lock().holds.start()
    }

    /// Says of a session that others need not wait for it.
    pub fn set_slow(&self, session: Session) {
        self.lock().slow.insert(session);
    }

    /// The index of what is stored. What it finds may be condemned, and may move:
    /// good for readers of what is pinned.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Asks for chunks, and claims those that nobody has. A chunk that comes
    /// twice is claimed the first time and settled the second. What is settled
    /// stays until the session ends.
    pub fn claim(&self, session: Session, keys: &[ChunkKey]) -> Result<Vec<Standing>> {
        self.look_up(keys, |state, places| {
            let standing = |(key, place): (&ChunkKey, Option<Place>)| {
                if state.rely(session, place) {
                    return Standing::Settled;
                }
                match state.claims.get(key) {
                    Some(owner) if *owner == session => Standing::Settled,
                    Some(owner) if state.is_worth_waiting_for(*owner, session) => {
                        Standing::Elsewhere
                    }
                    _ => {
                        state.claims.insert(*key, session);
                        Standing::Claimed
                    }
                }
            };
            keys.iter().zip(places).map(standing).collect()
        })
    }

    /// Asks for chunks without claiming any: nothing of those that nobody has. What is
    /// settled stays until the session ends.
    pub fn look(&self, session: Session, keys: &[ChunkKey]) -> Result<Vec<Option<Standing>>> {
        self.look_up(keys, |state, places| {
            let standing = |(key, place): (&ChunkKey, Option<Place>)| {
                if state.rely(session, place) {
                    return Some(Standing::Settled);
                }
                match state.claims.get(key) {
                    Some(owner) if *owner == session => Some(Standing::Settled),
                    Some(owner) if state.is_worth_waiting_for(*owner, session) => {
                        Some(Standing::Elsewhere)
                    }
                    _ => None,
                }
            };
            keys.iter().zip(places).map(standing).collect()
        })
    }

    /// Whether a session must store a chunk that nobody has, or that another is
    /// only about to store.
    pub fn claim_anyway(&self, session: Session, key: ChunkKey) -> Result<bool> {
        let standing = self.claim(session, &[key])?;
        Ok(standing != [Standing::Settled])
    }

    /// Which of some chunks are stored; those stay until the session ends.
    pub fn are_stored(&self, session: Session, keys: &[ChunkKey]) -> Result<Vec<bool>> {
        self.look_up(keys, |state, places| {
            let stored = |place| state.rely(session, place);
            places.into_iter().map(stored).collect()
        })
    }

    /// Splits chunks that other sessions were storing into those that they are
    /// still at and those that they gave up; what is stored by now drops out.
    pub fn sort_out<T>(
        &self,
        session: Session,
        chunks: Vec<T>,
        key: impl Fn(&T) -> ChunkKey,
    ) -> Result<(Vec<T>, Vec<T>)> {
        let keys: Vec<ChunkKey> = chunks.iter().map(key).collect();
        self.look_up(&keys, |state, places| {
            let (mut theirs, mut given_up) = (Vec::new(), Vec::new());
            for ((chunk, key), place) in chunks.into_iter().zip(&keys).zip(places) {
                if state.rely(session, place) {
                    continue;
                }
                match state.claims.get(key) {
                    Some(owner) if state.is_worth_waiting_for(*owner, session) => {
                        theirs.push(chunk);
                    }
                    _ => given_up.push(chunk),
                }
            }
            (theirs, given_up)
        })
    }

    /// Looks chunks up and gives the places to `act` in an instant in which they are right.
    fn look_up<T>(
        &self,
        keys: &[ChunkKey],
        act: impl FnOnce(&mut State, Vec<Option<Place>>) -> T,
    ) -> Result<T> {
        loop {
            let changes = self.lock().changes;
            let places = self.index.get_many(keys)?;
            let mut state = self.lock();
            if state.changes == changes {
                return Ok(act(&mut state, places));
            }
        }
    }

    /// Notes that a session begins to write a pack, before the store hears of it.
    pub fn begin_pack(&self, session: Session, pack: PackId) {
        self.lock().holds.begin_pack(session, pack);
    }

    /// Makes a durable pack's chunks known to everyone. They are found there
    /// from now on, those too that had another place before.
    pub fn publish(&self, session: Session, pack: &IndexedPack) -> Result<()> {
        let alone = self.publishing.lock();
        let _alone = alone.unwrap_or_else(PoisonError::into_inner);
        let chunks = &pack.table.chunks;
        let keys: Vec<ChunkKey> = chunks.iter().map(|chunk| chunk.id.key()).collect();
        let before = self.index.get_many(&keys)?;
        self.index.insert(pack)?;
        let number = self.index.number(pack.id).expect("it was added above");
        let mut state = self.lock();
        state.changes += 1;
        for (chunk, before) in (0..).zip(before) {
            let place = Place {
                pack: number,
                chunk,
            };
            if let Some(before) = before {
                state.holds.moved(before, place);
            }
            state.holds.mark(session, place);
        }
        for key in &keys {
            state.claims.remove(key);
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Notes that an index object names packs of a session, so that they may be taken away
    /// like any other.
    pub fn end_packs(&self, session: Session, packs: impl IntoIterator<Item = PackId>) {
        self.lock().holds.end_packs(session, packs);
    }

    /// The packs of the index that no session is about to name in an index object.
    pub fn settled_packs(&self) -> Vec<u32> {
        // In this order: a pack is noted before it is in the index.
        let mut packs = self.index.packs();
        let unnamed: Vec<PackId> = self.lock().holds.packs().collect();
        let unnamed = unnamed.iter().filter_map(|id| self.index.number(*id));
        let unnamed: HashSet<u32> = unnamed.collect();
        packs.retain(|number| !unnamed.contains(number));
        packs
    }

    /// Ends a session: its claims, and what it relied on.
    pub fn release(&self, session: Session) {
        let mut state = self.lock();
        state.claims.retain(|_, owner| *owner != session);
        state.slow.remove(&session);
        state.holds.end(session);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Keeps all that a tree reaches until the pin is dropped. Whoever pins a
    /// backup's tree makes sure afterwards that the backup is still there.
    pub fn pin(self: &Arc<Self>, backup: BackupId, content: Content) -> Pin {
        Pin {
            number: self.lock().holds.pin((backup, content)),
            known: self.clone(),
        }
    }

    /// Makes chunks of a pack unknown to whoever writes: they are damaged. Whether
    /// that is news of any of them.
    pub fn set_damaged(&self, pack: u32, chunks: Bits) -> bool {
        let mut state = self.lock();
        let before = state.damaged.pack(pack).cloned();
        let mut damaged = Marks::default();
        damaged.put(pack, chunks);
        state.damaged.merge(damaged);
        state.changes += 1;
        state.damaged.pack(pack) != before.as_ref()
    }

    /// From now on what ends is remembered, until the guard is dropped.
    pub fn begin_collection(self: &Arc<Self>) -> Collecting {
        self.lock().holds.begin_collection();
        Collecting(self.clone())
    }

    /// Trees that were pinned at any time since the collection began, beginning
    /// with the first that the caller has not seen.
    pub fn pinned(&self, seen: usize) -> Vec<(BackupId, Content)> {
        self.lock().holds.pinned(seen)
    }

    /// What those at work need of a pack, so far.
    pub fn needed(&self, pack: u32) -> Bits {
        self.lock().holds.marks_of(pack)
    }

    /// Condemns chunks of some packs, in one instant: `decide` is told what those
    /// at work need of a pack, and gives the chunks that go, if any. Condemns
    /// nothing and returns false if a tree was pinned that the caller has not seen.
    pub fn condemn(
        &self,
        packs: impl IntoIterator<Item = u32>,
        seen: usize,
        mut decide: impl FnMut(u32, Bits) -> Option<Bits>,
    ) -> bool {
        let mut state = self.lock();
        if !state.holds.pinned(seen).is_empty() {
            return false;
        }
        for pack in packs {
            let needed = state.holds.marks_of(pack);
            if let Some(gone) = decide(pack, needed) {
                state.condemned.put(pack, gone);
            }
        }
        state.changes += 1;
        true
    }

    /// Takes condemnations back: the packs stay.
    pub fn acquit(&self, packs: impl IntoIterator<Item = u32>) {
        let mut state = self.lock();
        for pack in packs {
            state.condemned.remove(pack);
        }
        state.changes += 1;
    }

    /// Forgets packs that are about to be removed.
    pub fn forget(&self, packs: &[PackId]) -> Result<()> {
        let numbers: Vec<u32> = packs
            .iter()
            .filter_map(|id| self.index.number(*id))
            .collect();
        self.index.remove(packs)?;
        let mut state = self.lock();
        for number in numbers {
            state.condemned.remove(number);
            state.damaged.remove(number);
        }
        state.changes += 1;
        Ok(())
    }

    /// Whether a pack is in use: in the index, or being written.
    pub fn has_pack(&self, pack: PackId) -> bool {
        // In this order: a pack is in the index before its session is done with it.
        let written = self.lock().holds.writes(pack);
        written || self.index.number(pack).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tree that stays readable.
#[derive(Debug)]
pub(crate) struct Pin {
    known: Arc<Known>,
    number: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.known.lock().holds.unpin(self.number);
    }
}

/// A collection that has begun.
pub(crate) struct Collecting(Arc<Known>);

impl Drop for Collecting {
    fn drop(&mut self) {
        self.0.lock().holds.end_collection();
    }
}

#[cfg(test)]
#[path = "known/tests.rs"]
mod tests;
