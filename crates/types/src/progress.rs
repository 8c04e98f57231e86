//! How far a piece of long work is, shared between the work and those who watch it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Counters that a worker raises and anybody may read, and a wish to stop
/// that anybody may raise and the worker reads between chunks or waits for.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who is to be told of the wish to stop, by numbers that are given in turn.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
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

    /// Bytes to do in all; 0 until known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Asks the work to stop, at the next chunk or in the middle of waiting.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.waiting().wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Whether the work was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Returns once the work was asked to stop.
    pub fn cancelled(&self) -> Cancelled<'_> {
        Cancelled {
            progress: self,
            number: None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What [`Progress::cancelled`] returns.
#[derive(Debug)]
pub struct Cancelled<'p> {
    progress: &'p Progress,
    /// Among those who wait, once it does.
    number: Option<u64>,
}

impl Future for Cancelled<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let progress = self.progress;
        // Looked at under the lock: who cancels takes the wakers afterwards.
        let mut waiting = progress.waiting();
        if progress.is_cancelled() {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        waiting.wakers.insert(number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.progress.waiting().wakers.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_waits_is_woken_and_nobody_else() {
        let progress = Progress::default();
        let (first, second) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let wakers = [Waker::from(first.clone()), Waker::from(second.clone())];
        let [mut stays, mut goes] = [progress.cancelled(), progress.cancelled()];
        for _ in 0..3 {
            let polled = Pin::new(&mut stays).poll(&mut Context::from_waker(&wakers[0]));
            assert!(polled.is_pending());
        }
        let polled = Pin::new(&mut goes).poll(&mut Context::from_waker(&wakers[1]));
        assert!(polled.is_pending());
        drop(goes);
        assert_eq!(
            progress.waiting().wakers.len(),
            1,
            "who has gone is forgotten"
        );
        progress.cancel();
        let woken = |counter: &Counter| counter.0.load(Ordering::SeqCst);
        assert_eq!((woken(&first), woken(&second)), (1, 0));
        for mut wait in [stays, progress.cancelled()] {
            let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(&wakers[0]));
            assert!(polled.is_ready());
        }
    }

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
