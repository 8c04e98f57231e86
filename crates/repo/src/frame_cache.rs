//! Opened frames that are kept for a while. Readers side by side may share them:
//! then each frame is read and opened once, however many want it at the same time.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::buffer::{Buffer, BufferPool};
use crate::error::Result;
use crate::frame::{FrameKey, OwnedFrame, PLAIN_BYTES_MAX};
use crate::workers::lock;

/// Buffers that stay when no frame is in them.
const SPARE_BUFFERS: usize = 2;

/// The frames that were used last.
#[derive(Debug)]
pub(crate) struct FrameCache {
    kept_max: usize,
    buffers: Arc<BufferPool>,
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
    /// Keeps so many frames, each of [`PLAIN_BYTES_MAX`] at most.
    pub fn new(kept_max: usize) -> Arc<Self> {
        Arc::new(Self {
            kept_max,
            buffers: BufferPool::new(PLAIN_BYTES_MAX, SPARE_BUFFERS),
            state: Mutex::default(),
            opened: Condvar::new(),
        })
    }

    /// The frame, which `open` opens in a buffer if nobody has it. Blocks while somebody else opens it.
    pub fn get(
        &self,
        key: FrameKey,
        open: impl FnOnce(Buffer) -> Result<OwnedFrame>,
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
        let frame = Arc::new(open(self.buffers.take())?);
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn who_wants_the_same_frame_at_once_waits_for_the_one_who_opens_it() {
        let (cache, opened) = (FrameCache::new(2), AtomicUsize::new(0));
        let begin = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    let open = |buffer| {
                        opened.fetch_add(1, Ordering::Relaxed);
                        Ok(OwnedFrame::empty(buffer))
                    };
                    cache.get((1, 1), open).unwrap();
                });
            }
        });
        assert_eq!(opened.into_inner(), 1);
    }

    #[test]
    fn what_was_used_last_stays() {
        let cache = FrameCache::new(2);
        let is_kept = |number| {
            let mut opened = false;
            let open = |buffer| {
                opened = true;
                Ok(OwnedFrame::empty(buffer))
            };
            cache.get((1, number), open).unwrap();
            !opened
        };
        assert!(!is_kept(1) && !is_kept(2) && is_kept(1));
        assert!(!is_kept(3));
        assert!(is_kept(1), "2 was used before it");
        assert!(!is_kept(2));
    }

    #[test]
    fn a_frame_that_could_not_be_opened_is_tried_by_the_next() {
        let cache = FrameCache::new(2);
        assert!(cache.get((1, 1), |_| Err(Error::WorkerLost)).is_err());
        let open = |buffer| Ok(OwnedFrame::empty(buffer));
        cache.get((1, 1), open).unwrap();
    }
}
