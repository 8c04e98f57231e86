//! Opened frames that are kept for a while. Readers side by side may share them:
//! then each frame is read and opened once, however many want it at the same time,
//! and what it takes to open frames is there as often as it is in use, not once for each reader.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::buffer::{Buffer, BufferPool};
use crate::error::Result;
use crate::frame::{FrameCoder, FrameKey, OwnedFrame, PLAIN_BYTES_MAX};
use crate::workers::lock;

/// Buffers that stay when no frame is in them.
const SPARE_BUFFERS: usize = 4;
/// Coders that stay when they open no frame.
const SPARE_CODERS: usize = 4;

/// The frames that were used last.
pub(crate) struct FrameCache {
    kept_max: usize,
    buffers: Arc<BufferPool>,
    coders: Mutex<Vec<FrameCoder>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was used last comes last.
    kept: VecDeque<(FrameKey, Arc<OwnedFrame>)>,
    /// What is told to those who wait for a frame once it is open, or could not be opened.
    opening: HashMap<FrameKey, Arc<Condvar>>,
}

impl FrameCache {
    /// Keeps so many frames, each of [`PLAIN_BYTES_MAX`] at most.
    pub fn new(kept_max: usize) -> Arc<Self> {
        Arc::new(Self {
            kept_max,
            buffers: BufferPool::new(PLAIN_BYTES_MAX, SPARE_BUFFERS),
            coders: Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// The frame, which `open` opens in a buffer if nobody has it. Blocks while somebody else opens it.
    pub fn get(
        &self,
        key: FrameKey,
        open: impl FnOnce(&mut FrameCoder, Buffer) -> Result<OwnedFrame>,
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
            let Some(opened) = state.opening.get(&key).cloned() else {
                break;
            };
            let waited = opened.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.opening.insert(key, Arc::default());
        drop(state);
        let _opening = Opening { cache: self, key };
        let frame = Arc::new(self.open(open)?);
        let mut state = lock(&self.state);
        if state.kept.len() >= self.kept_max {
            state.kept.pop_front();
        }
        state.kept.push_back((key, frame.clone()));
        Ok(frame)
    }

    /// Opens a frame with a coder that nobody else uses. One that met an error is not used again.
    fn open(
        &self,
        open: impl FnOnce(&mut FrameCoder, Buffer) -> Result<OwnedFrame>,
    ) -> Result<OwnedFrame> {
        let idle = lock(&self.coders).pop();
        let mut coder = idle.unwrap_or_else(FrameCoder::new);
        let frame = open(&mut coder, self.buffers.take())?;
        let mut idle = lock(&self.coders);
        if idle.len() < SPARE_CODERS {
            idle.push(coder);
        }
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
        let opened = lock(&self.cache.state).opening.remove(&self.key);
        if let Some(opened) = opened {
            opened.notify_all();
        }
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
                    let open = |_: &mut FrameCoder, buffer| {
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
            let open = |_: &mut FrameCoder, buffer| {
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
    fn what_opens_frames_is_used_again() {
        let cache = FrameCache::new(2);
        for number in 0..5 {
            let open = |_: &mut FrameCoder, buffer| Ok(OwnedFrame::empty(buffer));
            cache.get((1, number), open).unwrap();
            assert_eq!(lock(&cache.coders).len(), 1);
        }
        let open = |_: &mut FrameCoder, buffer| {
            // Another frame is opened meanwhile.
            let open = |_: &mut FrameCoder, buffer| Ok(OwnedFrame::empty(buffer));
            cache.get((2, 1), open).map(drop)?;
            Ok(OwnedFrame::empty(buffer))
        };
        cache.get((2, 2), open).unwrap();
        assert_eq!(lock(&cache.coders).len(), 2);
    }

    #[test]
    fn a_frame_that_could_not_be_opened_is_tried_by_the_next() {
        let cache = FrameCache::new(2);
        assert!(cache.get((1, 1), |_, _| Err(Error::WorkerLost)).is_err());
        let open = |_: &mut FrameCoder, buffer| Ok(OwnedFrame::empty(buffer));
        cache.get((1, 1), open).unwrap();
    }
}
