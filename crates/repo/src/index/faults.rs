//! Faults of the file system, on demand of a test.

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

/// What is to fail.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// How many calls succeed before.
    after: u64,
    error: Errno,
    /// Whether calls that only read are left out.
    writes_only: bool,
}

/// Which call fails next, and how many were counted.
#[derive(Debug, Default)]
pub(in crate::index) struct Faults {
    next: Mutex<Option<Fault>>,
}

impl Faults {
    /// Has one call fail, after so many that succeed.
    pub fn arm(&self, after: u64, error: Errno, writes_only: bool) {
        *self.lock() = Some(Fault {
            after,
            error,
            writes_only,
        });
    }

    /// Disarms; whether nothing has failed.
    pub fn disarm(&self) -> bool {
        self.lock().take().is_some()
    }

    pub fn strike(&self, action: &str) -> io::Result<()> {
        let mut next = self.lock();
        let Some(fault) = next.as_mut() else {
            return Ok(());
        };
        if fault.writes_only && matches!(action, "read" | "look at" | "list" | "open") {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let error = fault.error;
        *next = None;
        Err(error.into())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Fault>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
