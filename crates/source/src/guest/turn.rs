//! Who is at work on a guest: one at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// The guests that somebody is at work on, by what tells them apart: a socket's path, or an id.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    busy: Mutex<HashSet<String>>,
}

/// A guest that nobody else may back up, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    guests: Arc<Guests>,
    guest: String,
}

impl Guests {
    /// Nothing if somebody else has the guest.
    pub(crate) fn take(self: &Arc<Self>, guest: impl Into<String>) -> Option<Turn> {
        let guest = guest.into();
        let mut busy = self.busy.lock().expect("nobody panics with it");
        busy.insert(guest.clone()).then(|| Turn {
            guests: Arc::clone(self),
            guest,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.guests.busy.lock().expect("nobody panics with it");
        busy.remove(&self.guest);
    }
}
