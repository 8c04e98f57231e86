//! How often, how long and how patiently a remote store is asked: the one
//! policy of repetition, used by `remote.rs` for every request.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use object_store::{Error as StoreError, Result as StoreResult};
use tokio::time::{self, Instant};

use super::answer::Answer;
use crate::random;

/// The longest wait that a store may ask for by `Retry-After`.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// How a remote store is asked again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Requests for one thing, the first among them.
    pub attempts: u32,
    /// The longest pause before the second; each later one is twice the one before.
    /// What is really waited is drawn between the half of it and all of it.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
    /// No request is repeated once so much time is gone since the first.
    pub patience: Duration,
    /// How long the store may take to begin an answer.
    pub answer: Duration,
    /// What a transfer must reach to be waited for, in bytes a second.
    pub slowest_rate: u64,
}

impl Default for RetryPolicy {
    /// Some 65 s of pauses, in which a server starts anew.
    fn default() -> Self {
        Self {
            attempts: 10,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(20),
            patience: Duration::from_secs(180),
            answer: Duration::from_secs(30),
            slowest_rate: 128 << 10,
        }
    }
}

impl RetryPolicy {
    /// Waits for the answer to a request that moves so many bytes.
    pub(super) async fn within<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = StoreResult<T>>,
    ) -> StoreResult<T> {
        let transfer = Duration::from_secs(bytes / self.slowest_rate.max(1));
        match time::timeout(self.answer + transfer, request).await {
            Ok(answered) => answered,
            Err(_) => Err(StoreError::Generic {
                store: "remote",
                source: io::Error::from(io::ErrorKind::TimedOut).into(),
            }),
        }
    }
}

/// The requests for one thing.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    policy: &'a RetryPolicy,
    made: u32,
    began: Instant,
}

impl<'a> Attempts<'a> {
    pub fn new(policy: &'a RetryPolicy) -> Self {
        Self {
            policy,
            made: 0,
            began: Instant::now(),
        }
    }

    /// Returns when the request may be made again, or the error if it may not.
    pub async fn again(&mut self, error: StoreError) -> StoreResult<()> {
        self.made += 1;
        let Some(wish) = may_help(&error) else {
            return Err(plain(error));
        };
        let pause = self.pause().max(wish.min(LONGEST_WISH));
        let too_late = self.began.elapsed() + pause > self.policy.patience;
        if self.made >= self.policy.attempts || too_late {
            return Err(plain(error));
        }
        tracing::info!(
            error = %innermost(&error),
            attempt = self.made,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "The store did not do what it was asked; it is asked again."
        );
        time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self) -> Duration {
        let doublings = (self.made - 1).min(31);
        let longest = self.policy.first_pause.saturating_mul(1 << doublings);
        let longest = longest.min(self.policy.longest_pause);
        let [drawn] = random::bytes();
        longest / 2 + longest / 2 * u32::from(drawn) / u32::from(u8::MAX)
    }
}

/// The cause that has none: the client's own layers say the same thing each.
fn innermost(error: &StoreError) -> &dyn StdError {
    let mut cause: &dyn StdError = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// An error that ends the attempts: where the store has spoken, its words alone.
fn plain(error: StoreError) -> StoreError {
    match Answer::behind(&error) {
        Some(answer) => StoreError::Generic {
            store: "remote",
            source: Box::new(answer.clone()),
        },
        None => error,
    }
}

/// How long the store wishes not to be asked again; nothing if asking again is of no use.
fn may_help(error: &StoreError) -> Option<Duration> {
    match error {
        StoreError::Generic { .. } => match Answer::behind(error) {
            Some(answer) => answer
                .is_passing()
                .then(|| answer.retry_after.unwrap_or_default()),
            None => Some(Duration::ZERO),
        },
        StoreError::JoinError { .. } => Some(Duration::ZERO),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
