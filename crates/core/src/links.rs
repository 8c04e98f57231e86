//! Connections that have come, for replicas or from agents, until the work that waits for them
//! takes them.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_link::{ChunkKeys, Connection, Line};
use cairn_repo::Project;
use cairn_types::{Kind, Progress};
use tokio::sync::Notify;

use crate::{Error, Result};

/// How long work waits where it is while there is no connection: a short cut costs nothing.
const HOLDING: Duration = Duration::from_secs(60);

/// What happens to something that is awaited.
enum News {
    /// A connection has come.
    Connected(Connection),
    /// Its other end has given it up.
    GivenUp,
}

/// Connections that have come, each for a `K`, and those that were given up.
pub(crate) struct Links<K> {
    state: Mutex<State<K>>,
    parked_max: usize,
    another: Another,
    /// Raised when there is news.
    news: Notify,
}

/// What another connection means while there is one already.
#[derive(Clone, Copy)]
pub(crate) enum Another {
    /// That the other end has lost the one before.
    TakesItsPlace,
    /// That the other end is there for more work.
    IsForOthers,
}

struct State<K> {
    parked: HashMap<K, Connection>,
    given_up: HashSet<K>,
}

impl<K: Copy + Eq + Hash> Links<K> {
    /// None yet, and at most so many that nobody has taken.
    pub fn new(parked_max: usize, another: Another) -> Self {
        Self {
            state: Mutex::new(State {
                parked: HashMap::new(),
                given_up: HashSet::new(),
            }),
            parked_max,
            another,
            news: Notify::new(),
        }
    }

    /// Keeps a connection for whoever waits for it, in place of an earlier one. False if
    /// there are too many.
    pub fn park(&self, key: K, connection: Connection) -> bool {
        let mut state = self.lock();
        if state.parked.len() >= self.parked_max && !state.parked.contains_key(&key) {
            return false;
        }
        state.parked.insert(key, connection);
        drop(state);
        self.news.notify_waiters();
        true
    }

    /// Tells whoever waits that nothing will come.
    pub fn give_up(&self, key: K) {
        self.lock().given_up.insert(key);
        self.news.notify_waiters();
    }

    /// Whether a connection has come that nobody has taken.
    pub fn has(&self, key: K) -> bool {
        self.lock().parked.contains_key(&key)
    }

    /// Forgets all that there is of one.
    pub fn forget(&self, key: K) {
        let mut state = self.lock();
        state.given_up.remove(&key);
        let parked = state.parked.remove(&key);
        drop(state);
        drop(parked);
    }

    /// Waits for news of one.
    async fn news_of(&self, key: K) -> News {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(found) = self.look(key) {
                return found;
            }
            news.await;
        }
    }

    /// Does work over a line, to which every connection that comes is handed; false if it
    /// lost its line, and has to wait for the next connection: so too if that is of another
    /// host with the same identity, so that nothing is ever made of two hosts' answers.
    ///
    /// Errors: `GivenUp`; `Cancelled`; those of the work.
    pub async fn over_line(
        &self,
        key: K,
        repository: &Project,
        progress: &Arc<Progress>,
        work: impl AsyncFnOnce(&Line) -> Result<()>,
    ) -> Result<bool> {
        let keys = ChunkKeys {
            block: repository.block_key(),
            cut_seed: repository.cut_seed(),
        };
        let line = Line::new(HOLDING, Arc::clone(progress));
        let done = tokio::select! {
            done = work(&line) => done,
            ended = self.attach_all(key, &line, &keys) => Err(ended),
        };
        let lost = !line.is_live();
        line.close();
        match done {
            Err(_) if progress.is_cancelled() => Err(Error::Cancelled),
            Err(error) if lost && error.kind() == Kind::Transient => {
                tracing::info!(%error, "Work over a line waits for a connection.");
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// Hands every connection that comes to a line; returns why none is any more.
    async fn attach_all(&self, key: K, line: &Line, keys: &ChunkKeys) -> Error {
        loop {
            if let Another::IsForOthers = self.another {
                line.lost().await;
            }
            let News::Connected(connection) = self.news_of(key).await else {
                return Error::GivenUp;
            };
            match line.attach(connection, keys).await {
                Err(error @ cairn_link::Error::OtherInstance) => return error.into(),
                Err(error) => tracing::info!(%error, "a connection was lost at once"),
                Ok(()) => {}
            }
        }
    }

    fn look(&self, key: K) -> Option<News> {
        let mut state = self.lock();
        if state.given_up.contains(&key) {
            return Some(News::GivenUp);
        }
        state.parked.remove(&key).map(News::Connected)
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
