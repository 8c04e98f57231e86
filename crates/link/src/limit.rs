//! How fast bytes may go out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How much may go out at once after a pause, in time at the full rate.
const BURST: Duration = Duration::from_millis(100);

/// A rate that several connections may share.
#[derive(Debug)]
pub struct Limit {
    bytes_per_second: u64,
    /// When all that was let through has gone out at the rate.
    paid_until: Mutex<Instant>,
}

impl Limit {
    /// A limit of so many bytes in a second, at least one.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// Returns when so many bytes may go out.
    pub async fn take(&self, bytes: usize) {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.bytes_per_second));
        let costs = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let mut paid_until = self
                .paid_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            *paid_until = (*paid_until).max(earliest) + costs;
            *paid_until
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_share_a_limit_keep_it_together() {
        let limit = Arc::new(Limit::new(1 << 20));
        let start = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..4 {
            let limit = limit.clone();
            all.spawn(async move {
                for _ in 0..64 {
                    limit.take(64 << 10).await;
                }
            });
        }
        while all.join_next().await.is_some() {}
        let took = start.elapsed().as_secs_f64();
        assert!((15.8..=16.1).contains(&took), "{took}");
    }
}
