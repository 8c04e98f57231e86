//! Having the file systems of a guest written out and held still for the
//! moment of a backup, by whatever reaches the agent in it.
//!
//! Whatever happens, the guest is told to thaw: as soon as the moment is over, and when that is
//! not known any more.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a guest may be frozen, from when it is told to until it is told to thaw.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// How much of that is left for the moment itself, however long the freeze takes.
const MOMENT: Duration = Duration::from_secs(3);
/// How long each attempt to thaw may take.
const THAW_LIMIT: Duration = Duration::from_secs(3);
/// How often a guest is told to thaw.
const THAW_ATTEMPTS: usize = 3;

/// Why a guest was not frozen, in half a sentence.
pub(crate) type Why = String;

/// Why a freeze did not succeed.
#[derive(Debug)]
pub(crate) enum NotFrozen {
    /// It may have been begun all the same.
    Perhaps(Why),
    /// The agent was not even told.
    Surely(Why),
}

/// What reaches the agent in a guest.
pub(crate) trait Freezer: Debug {
    /// Freezes the file systems and says how many they are.
    fn freeze(&mut self, until: Instant) -> Result<u64, NotFrozen>;

    /// Thaws the file systems and says how many were frozen.
    fn thaw(&mut self, until: Instant) -> Result<u64, Why>;
}

/// A guest whose file systems are held still.
#[derive(Debug)]
pub(crate) struct Frozen {
    freezer: Box<dyn Freezer>,
    until: Instant,
    thawed: bool,
}

impl Frozen {
    /// Freezes a guest.
    pub(crate) fn freeze(mut freezer: Box<dyn Freezer>) -> Result<Self, Why> {
        let until = Instant::now() + FREEZE_LIMIT;
        // From here on it may be frozen, whatever comes back.
        let asked = freezer.freeze(until - MOMENT);
        let mut frozen = Self {
            freezer,
            until,
            thawed: false,
        };
        match asked {
            Ok(count) if count > 0 => Ok(frozen),
            Ok(_) => {
                frozen.thaw_now()?;
                Err("no file system of the guest could be frozen".to_owned())
            }
            Err(NotFrozen::Perhaps(why)) => {
                frozen.thaw_now()?;
                Err(format!("the guest could not be frozen: {why}"))
            }
            Err(NotFrozen::Surely(why)) => {
                frozen.thawed = true;
                Err(format!("the guest could not be frozen: {why}"))
            }
        }
    }

    /// When it has to be thawed.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Thaws the guest.
    ///
    /// Errors: why it may not have been frozen all the time.
    pub(crate) fn thaw(mut self) -> Result<(), Why> {
        match self.thaw_now()? {
            0 => Err("the guest had thawed by itself".to_owned()),
            _ => Ok(()),
        }
    }

    fn thaw_now(&mut self) -> Result<u64, Why> {
        self.thawed = true;
        let mut why = String::new();
        for _ in 0..THAW_ATTEMPTS {
            match self.freezer.thaw(Instant::now() + THAW_LIMIT) {
                Ok(count) => return Ok(count),
                Err(error) => why = error,
            }
        }
        tracing::error!(
            why,
            "A guest may still be frozen: its agent does not say that it thawed."
        );
        Err(format!("the guest did not say that it thawed: {why}"))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.thawed {
            // What went wrong is in the log already.
            let _ = self.thaw_now();
        }
    }
}
