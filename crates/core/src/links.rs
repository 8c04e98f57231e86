//! Connections that have come for replicas, until the work that waits for them takes them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_link::Connection;
use cairn_types::BackupId;
use tokio::sync::Notify;

/// Connections that nobody has taken yet, at most.
const PARKED_MAX: usize = 64;

/// What happens to a replica that is awaited.
pub(crate) enum News {
    /// A connection has come.
    Connected(Connection),
    /// Its source has given it up.
    GivenUp,
}

/// Connections that have come, and replicas that were given up.
#[derive(Default)]
pub(crate) struct Links {
    state: Mutex<State>,
    /// Raised when there is news.
    news: Notify,
}

#[derive(Default)]
struct State {
    parked: HashMap<BackupId, Connection>,
    given_up: HashSet<BackupId>,
}

impl Links {
    /// Keeps a connection for whoever waits for it, in place of an earlier one. False if
    /// there are too many.
    pub fn park(&self, replica: BackupId, connection: Connection) -> bool {
        let mut state = self.lock();
        if state.parked.len() >= PARKED_MAX && !state.parked.contains_key(&replica) {
            return false;
        }
        state.parked.insert(replica, connection);
        drop(state);
        self.news.notify_waiters();
        true
    }

    /// Tells whoever waits that nothing will come.
    pub fn give_up(&self, replica: BackupId) {
        self.lock().given_up.insert(replica);
        self.news.notify_waiters();
    }

    /// Whether a connection has come that nobody has taken.
    pub fn has(&self, replica: BackupId) -> bool {
        self.lock().parked.contains_key(&replica)
    }

    /// Forgets all that there is of a replica.
    pub fn forget(&self, replica: BackupId) {
        let mut state = self.lock();
        state.given_up.remove(&replica);
        let parked = state.parked.remove(&replica);
        drop(state);
        drop(parked);
    }

    /// Waits for news of a replica.
    pub async fn news_of(&self, replica: BackupId) -> News {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(found) = self.look(replica) {
                return found;
            }
            news.await;
        }
    }

    fn look(&self, replica: BackupId) -> Option<News> {
        let mut state = self.lock();
        if state.given_up.contains(&replica) {
            return Some(News::GivenUp);
        }
        state.parked.remove(&replica).map(News::Connected)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
