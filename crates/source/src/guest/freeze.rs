//! Having the applications and the file systems of a guest brought to rest for the
//! moment of a backup, by whatever reaches the agents in it.
//!
//! Whatever happens, the guest is told to thaw: as soon as the moment is over, and when that is
//! not known any more.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use super::Level;

/// How long what is frozen stays so at most.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// From when it is told to freeze until it is told to thaw.
    held: Duration,
    /// How much of that is left for what comes behind, however long the freeze takes.
    moment: Duration,
    /// For each attempt to thaw.
    thaw: Duration,
}

/// Of file systems: whoever writes in the guest waits.
const FILE_SYSTEMS: Limits = Limits {
    held: Duration::from_secs(10),
    moment: Duration::from_secs(3),
    thaw: Duration::from_secs(3),
};
/// Of applications, whose scripts write out what they have in memory. The file systems are
/// frozen meanwhile.
const APPLICATIONS: Limits = Limits {
    held: Duration::from_secs(45),
    moment: Duration::from_secs(15),
    thaw: Duration::from_secs(30),
};
/// How often a guest is told to thaw.
const THAW_ATTEMPTS: usize = 3;

/// Why a guest was not frozen, in half a sentence.
pub type Why = String;

/// Why a freeze did not succeed.
#[derive(Debug)]
pub enum NotFrozen {
    /// It may have been begun all the same.
    Perhaps(Why),
    /// The agent was not even told.
    Surely(Why),
    /// There is no agent that could be told.
    NoAgent(Why),
}

/// What reaches an agent in a guest.
pub trait Freezer: Debug + Send {
    /// Freezes file systems or applications, and says how many they are.
    fn freeze(&mut self, until: Instant) -> Result<u64, NotFrozen>;

    /// Thaws them, and says how many were frozen.
    fn thaw(&mut self, until: Instant) -> Result<u64, Why>;
}

/// A guest at rest, as far as it was asked for. What goes first is thawed first.
#[derive(Debug)]
pub(crate) struct AtRest {
    file_systems: Option<Frozen>,
    applications: Option<Frozen>,
}

impl AtRest {
    /// Freezes the applications, then the file systems, which `file_systems` reaches.
    ///
    /// Errors: why it is not at rest; none if nobody has asked for it.
    pub fn bring(
        level: Level,
        file_systems: impl FnOnce() -> Result<Box<dyn Freezer>, NotFrozen>,
    ) -> Result<Self, Option<Why>> {
        let Level::Application(applications) = level else {
            return Err(None);
        };
        let freeze = |freezer| Frozen::freeze(freezer, APPLICATIONS);
        let applications = applications.map(freeze).transpose();
        let applications = applications.map_err(|not| Some(not.why()))?;
        let freeze = |freezer| Frozen::freeze(freezer, FILE_SYSTEMS);
        let file_systems = match file_systems().and_then(freeze) {
            Ok(frozen) => Some(frozen),
            // What its applications were asked to write out is on its disks.
            Err(NotFrozen::NoAgent(_)) if applications.is_some() => None,
            Err(not) => return Err(Some(not.why())),
        };
        Ok(Self {
            file_systems,
            applications,
        })
    }

    /// When it has to be thawed.
    pub fn until(&self) -> Instant {
        let frozen = self.file_systems.iter().chain(&self.applications);
        let until = frozen.map(|frozen| frozen.until).min();
        until.expect("something is frozen")
    }

    /// Thaws all of it.
    ///
    /// Errors: why it may not have been frozen all the time.
    pub fn thaw(self) -> Result<(), Why> {
        let file_systems = self.file_systems.map_or(Ok(()), Frozen::thaw);
        let applications = self.applications.map_or(Ok(()), Frozen::thaw);
        file_systems.and(applications)
    }
}

impl NotFrozen {
    fn why(self) -> Why {
        let (Self::Perhaps(why) | Self::Surely(why) | Self::NoAgent(why)) = self;
        format!("the guest could not be frozen: {why}")
    }
}

/// File systems or applications that are held still.
#[derive(Debug)]
struct Frozen {
    freezer: Box<dyn Freezer>,
    limits: Limits,
    until: Instant,
    thawed: bool,
}

impl Frozen {
    /// Errors: as the freezer; one that it may have frozen all the same is thawed.
    fn freeze(mut freezer: Box<dyn Freezer>, limits: Limits) -> Result<Self, NotFrozen> {
        let until = Instant::now() + limits.held;
        // From here on it may be frozen, whatever comes back.
        let asked = freezer.freeze(until - limits.moment);
        let mut frozen = Self {
            freezer,
            limits,
            until,
            thawed: false,
        };
        match asked {
            Ok(count) if count > 0 => Ok(frozen),
            Ok(_) => {
                frozen.thaw_now().map_err(NotFrozen::Surely)?;
                let why = "none of its file systems can be".to_owned();
                Err(NotFrozen::Surely(why))
            }
            Err(NotFrozen::Perhaps(why)) => {
                frozen.thaw_now().map_err(NotFrozen::Surely)?;
                Err(NotFrozen::Surely(why))
            }
            Err(surely) => {
                frozen.thawed = true;
                Err(surely)
            }
        }
    }

    fn thaw(mut self) -> Result<(), Why> {
        match self.thaw_now()? {
            0 => Err("the guest had thawed by itself".to_owned()),
            _ => Ok(()),
        }
    }

    fn thaw_now(&mut self) -> Result<u64, Why> {
        self.thawed = true;
        let mut why = String::new();
        for _ in 0..THAW_ATTEMPTS {
            match self.freezer.thaw(Instant::now() + self.limits.thaw) {
                // It has thawed with an attempt that did not go well.
                Ok(0) if !why.is_empty() => return Err(why),
                Ok(count) => return Ok(count),
                Err(error) => why = error,
            }
        }
        tracing::error!(
            why,
            "A guest may still be frozen: its agent does not say that it thawed."
        );
        Err(format!("its agent did not say that it thawed: {why}"))
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
