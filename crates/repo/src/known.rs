//! What a project's sessions know of its chunks: which are stored, and which
//! are being stored by whom.
//!
//! A chunk counts as stored only once its pack is durable, so a session never
//! relies on bytes that another may fail to write. Until then the session that
//! came first holds a claim on it; others wait for the claim to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use crate::chunk::ChunkKey;
use crate::index::{Index, IndexedPack};

/// The chunks of a project, shared by all its sessions.
#[derive(Debug, Default)]
pub(crate) struct Known {
    state: RwLock<State>,
    sessions: AtomicU64,
    /// Raised when claims end.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    claims: HashMap<ChunkKey, Session>,
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
            state: RwLock::new(State {
                index,
                ..State::default()
            }),
            ..Self::default()
        }
    }

    pub fn start_session(&self) -> Session {
        Session(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// The index of what is stored.
    pub fn index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.read().index)
    }

    /// Asks for a chunk, and claims it if nobody has it.
    pub fn claim(&self, session: Session, key: ChunkKey) -> Standing {
        if self.read().index.get(&key).is_some() {
            return Standing::Settled;
        }
        let mut state = self.write();
        if state.index.get(&key).is_some() {
            return Standing::Settled;
        }
        match state.claims.get(&key) {
            Some(owner) if *owner == session => Standing::Settled,
            Some(_) => Standing::Elsewhere,
            None => {
                state.claims.insert(key, session);
                Standing::Claimed
            }
        }
    }

    /// As `claim`, but takes over what another session is storing.
    pub fn claim_anyway(&self, session: Session, key: ChunkKey) -> Standing {
        match self.claim(session, key) {
            Standing::Elsewhere => Standing::Claimed,
            standing => standing,
        }
    }

    /// Splits chunks that other sessions were storing into those that they are
    /// still at and those that they gave up; what is stored by now drops out.
    pub fn sort_out<T>(&self, chunks: Vec<T>, key: impl Fn(&T) -> ChunkKey) -> (Vec<T>, Vec<T>) {
        let state = self.read();
        let open = chunks
            .into_iter()
            .filter(|chunk| state.index.get(&key(chunk)).is_none());
        open.partition(|chunk| state.claims.contains_key(&key(chunk)))
    }

    /// Makes a durable pack's chunks known to everyone.
    pub fn publish(&self, pack: &IndexedPack) {
        let mut state = self.write();
        state.index.insert(pack);
        for chunk in &pack.table.chunks {
            state.claims.remove(&chunk.id.key());
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends all claims of a session that is over.
    pub fn release(&self, session: Session) {
        self.write().claims.retain(|_, owner| *owner != session);
        self.changed.notify_waiters();
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
