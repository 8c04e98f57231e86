//! Opened frames that are kept for a while. Readers side by side may share them:
//! then each frame is read and opened once, however many want it at the same time.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::frame::{FrameKey, OwnedFrame};
use crate::workers::lock;

/// The frames that were used last.
#[derive(Debug)]
pub(crate) struct FrameCache {
    kept_max: usize,
    state: Mutex<State>,
    /// Told whenever somebody has opened a frame, or has failed to.
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What was used last comes last.
    kept: VecDeque<(FrameKey, Arc<OwnedFrame>)>,
    opening: HashSet<FrameKey>,
}

impl FrameCache {
    /// Keeps so many frames, each of [`FRAME_BYTES`](crate::frame::FRAME_BYTES) and a little at most.
    pub fn new(kept_max: usize) -> Arc<Self> {
        Arc::new(Self {
            kept_max,
            state: Mutex::default(),
            opened: Condvar::new(),
        })
    }

    /// The frame, which `open` gives if nobody has it. Blocks while somebody else opens it.
    pub fn get(
        &self,
        key: FrameKey,
        open: impl FnOnce() -> Result<OwnedFrame>,
    ) -> Result<Arc<OwnedFrame>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(at) = state.kept.iter().position(|(have, _)| *have == key)
                && let Some(found) = state.kept.remove(at)
            {
                let frame = found.1.clone();
                state.kept.push_back(found);
                return Ok(frame);
            }
            if state.opening.insert(key) {
                break;
            }
            let waited = self.opened.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let _opening = Opening { cache: self, key };
        let frame = Arc::new(open()?);
        let mut state = lock(&self.state);
        if state.kept.len() >= self.kept_max {
            state.kept.pop_front();
        }
        state.kept.push_back((key, frame.clone()));
        Ok(frame)
    }
}

/// Says that a frame is being opened, and that it is no more.
struct Opening<'c> {
    cache: &'c FrameCache,
    key: FrameKey,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        lock(&self.cache.state).opening.remove(&self.key);
        self.cache.opened.notify_all();
    }
}
