//! A clock that tests own.

use std::sync::atomic::{AtomicI64, Ordering};

use cairn_types::{Clock, Timestamp};

/// Stands still but for a microsecond at each look, so that no two instants are alike.
#[derive(Debug)]
pub struct FakeClock(AtomicI64);

impl FakeClock {
    /// A clock at this many seconds since 1970.
    pub fn at(seconds: i64) -> Self {
        Self(AtomicI64::new(seconds * 1_000_000))
    }

    /// Lets time pass.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
