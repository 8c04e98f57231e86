//! What a project's sessions know of its chunks: which are stored, and which
//! are being stored by whom.
//!
//! A chunk counts as stored only once its pack is durable, so a session never
//! relies on bytes that another may fail to write. Until then the session that
//! came first holds a claim on it; others wait for the claim to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::chunk::ChunkKey;
use crate::error::Result;
use crate::index::{Index, IndexedPack};

/// The chunks of a project, shared by all its sessions.
#[derive(Debug, Default)]
pub(crate) struct Known {
    index: Index,
    claims: Mutex<Claims>,
    sessions: AtomicU64,
    /// Raised when claims end.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Claims {
    held: HashMap<ChunkKey, Session>,
    /// How many packs were published. A look-up in the index that was made at
    /// another count may have missed what a claim that has ended stored.
    published: u64,
}

/// The number of a session, to tell claims apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(u64);

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

impl Known {
    pub fn new(index: Index) -> Self {
        Self {
            index,
            ..Self::default()
        }
    }

    pub fn start_session(&self) -> Session {
        Session(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// The index of what is stored.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Asks for chunks, and claims those that nobody has. A chunk that comes
    /// twice is claimed the first time and settled the second.
    pub fn claim(&self, session: Session, keys: &[ChunkKey]) -> Result<Vec<Standing>> {
        loop {
            let published = self.lock().published;
            let places = self.index.get_many(keys)?;
            let mut claims = self.lock();
            if claims.published != published {
                continue;
            }
            let standing = |(key, place): (&ChunkKey, Option<_>)| match claims.held.get(key) {
                _ if place.is_some() => Standing::Settled,
                Some(owner) if *owner == session => Standing::Settled,
                Some(_) => Standing::Elsewhere,
                None => {
                    claims.held.insert(*key, session);
                    Standing::Claimed
                }
            };
            return Ok(keys.iter().zip(places).map(standing).collect());
        }
    }

    /// Whether a session must store a chunk that nobody has, or that another is
    /// only about to store.
    pub fn claim_anyway(&self, session: Session, key: ChunkKey) -> Result<bool> {
        let standing = self.claim(session, &[key])?;
        Ok(standing != [Standing::Settled])
    }

    /// Splits chunks that other sessions were storing into those that they are
    /// still at and those that they gave up; what is stored by now drops out.
    pub fn sort_out<T>(
        &self,
        chunks: Vec<T>,
        key: impl Fn(&T) -> ChunkKey,
    ) -> Result<(Vec<T>, Vec<T>)> {
        let (theirs, ended): (Vec<T>, Vec<T>) = {
            let claims = self.lock();
            let held = |chunk: &T| claims.held.contains_key(&key(chunk));
            chunks.into_iter().partition(held)
        };
        // A claim ends after its chunk is in the index.
        let keys: Vec<ChunkKey> = ended.iter().map(&key).collect();
        let places = self.index.get_many(&keys)?;
        let open = ended
            .into_iter()
            .zip(places)
            .filter(|(_, place)| place.is_none());
        Ok((theirs, open.map(|(chunk, _)| chunk).collect()))
    }

    /// Makes a durable pack's chunks known to everyone.
    pub fn publish(&self, pack: &IndexedPack) -> Result<()> {
        self.index.insert(pack)?;
        let mut claims = self.lock();
        claims.published += 1;
        for chunk in &pack.table.chunks {
            claims.held.remove(&chunk.id.key());
        }
        drop(claims);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Ends all claims of a session that is over.
    pub fn release(&self, session: Session) {
        self.lock().held.retain(|_, owner| *owner != session);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
