//! Threads for the heavy work, and how they are stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::Progress;
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// Workers at most, however many cores there are: each holds some 20 MiB.
const WORKERS_MAX: usize = 8;

/// The two reasons for work to stop early: somebody asked, or another worker failed.
#[derive(Debug)]
pub(crate) struct Stop {
    failed: AtomicBool,
    progress: Arc<Progress>,
}

impl Stop {
    pub fn new(progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self {
            failed: AtomicBool::new(false),
            progress,
        })
    }

    /// Called between pieces of work.
    pub fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) || self.progress.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Counts what is left as done: holes are met that nobody had to look at.
    pub fn complete(&self) {
        self.progress
            .advance(self.progress.total().saturating_sub(self.progress.done()));
    }
}

/// Stops the work when whoever waits for it is gone.
pub(crate) struct StopOnDrop(pub Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
    }
}

/// How many workers there are for this many pieces of work.
pub(crate) fn count(pieces: u64) -> usize {
    at_most(cores(), pieces)
}

/// As `count`, for work that waits for a disk as long as it keeps a core busy.
pub(crate) fn count_waiting(pieces: u64) -> usize {
    at_most(2 * cores(), pieces)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn at_most(workers: usize, pieces: u64) -> usize {
    let pieces = usize::try_from(pieces).unwrap_or(usize::MAX);
    workers.min(WORKERS_MAX).min(pieces).max(1)
}

/// Runs `work` on `count` threads and returns when all have ended; the first
/// error stops the others and is the one returned.
pub(crate) async fn run(
    count: usize,
    stop: &Arc<Stop>,
    work: impl Fn() -> Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let work = Arc::new(work);
    let first = Arc::new(Mutex::new(None));
    let mut threads = JoinSet::new();
    for _ in 0..count {
        let (work, first, stop) = (work.clone(), first.clone(), stop.clone());
        threads.spawn_blocking(move || {
            if let Err(error) = work() {
                lock(&first).get_or_insert(error);
                stop.failed.store(true, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = threads.join_next().await {
        if ended.is_err() {
            stop.failed.store(true, Ordering::Relaxed);
            lock(&first).get_or_insert(Error::WorkerLost);
        }
    }
    let error = lock(&first).take();
    error.map_or(Ok(()), Err)
}

/// Runs one piece of blocking work.
pub(crate) async fn one<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::WorkerLost))
}

/// Waits for something until the work is cancelled. What was waited for is given up
/// then, in whatever state it may be.
pub(crate) async fn unless_cancelled<T>(
    progress: &Progress,
    awaited: impl Future<Output = T>,
) -> Result<T> {
    if progress.is_cancelled() {
        return Err(Error::Cancelled);
    }
    tokio::select! {
        biased;
        done = awaited => Ok(done),
        () = progress.cancelled() => Err(Error::Cancelled),
    }
}

/// Locks, whatever became of whoever had locked it before: nothing here is left
/// half-changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
