//! How far a piece of long work is, shared between the work and those who watch it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

/// Counters that a worker raises and anybody may read, and a wish to stop
/// that anybody may raise and the worker reads between chunks or waits for.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    entries: AtomicU64,
    cancelled: CancellationToken,
}

impl Progress {
    /// Counts bytes as to be done, beside those that are already.
    pub fn add_total(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes as done.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an entry of a tree as made, or put in the place of another.
    pub fn count_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes to do in all; 0 until known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Entries made or replaced.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Asks the work to stop, at the next chunk or in the middle of waiting.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Whether the work was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Returns once the work was asked to stop.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// The share done, 0 to 100; 0 while the total is unknown.
    pub fn percent(&self) -> u8 {
        let (done, total) = (u128::from(self.done()), u128::from(self.total()));
        if total == 0 {
            return 0;
        }
        u8::try_from((done * 100 / total).min(100)).expect("at most 100")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_stays_within_its_bounds() {
        let progress = Progress::default();
        assert_eq!(progress.percent(), 0);
        progress.add_total(3);
        progress.advance(1);
        assert_eq!(progress.percent(), 33);
        progress.advance(u64::MAX / 2);
        assert_eq!(progress.percent(), 100);
    }
}
