//! What a policy would do over years, by the very functions that the service runs.

use cairn_types::Timestamp;

use crate::retention::{Keeper, Reason, Retention};
use crate::schedule::Schedule;

/// The most backups of a simulation: more than hourly ones of a century.
pub const MAX_SIMULATED: usize = 1_000_000;

/// The policy makes more backups in that time than are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The policy makes more than {max} backups in that time.")]
pub struct TooManyBackups {
    /// So many were wanted at most.
    pub max: usize,
}

/// A backup that a policy would make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulated {
    /// The slot: a backup takes no time here.
    pub created_at: Timestamp,
    /// When it goes: at its stamp, which may lie behind the time that is looked at; else with the
    /// backup that takes its last place. None if nothing in that time settles it.
    pub expired_at: Option<Timestamp>,
    /// What keeps it at the end of the time that is looked at. Nothing, if it has gone by then.
    pub kept_by: Vec<Reason>,
}

/// The backups that a policy makes of one resource from `from` up to `until`, both with them, if
/// it is made at `from`, in order.
///
/// Errors: they would be more than `max`, or than [`MAX_SIMULATED`].
pub fn simulate(
    schedule: &Schedule,
    retention: &Retention,
    (from, until): (Timestamp, Timestamp),
    max: usize,
) -> Result<Vec<Simulated>, TooManyBackups> {
    let max = max.min(MAX_SIMULATED);
    let mut keeper = Keeper::new(retention);
    let mut backups: Vec<Simulated> = Vec::new();
    let slots = schedule.runs(from, from);
    for slot in slots.take_while(|slot| *slot <= until) {
        if backups.len() == max {
            return Err(TooManyBackups { max });
        }
        backups.push(Simulated {
            created_at: slot,
            expired_at: None,
            kept_by: Vec::new(),
        });
        keeper.add(slot, |gone, at| backups[gone].expired_at = Some(at));
    }
    keeper.expire(until, |gone, at| backups[gone].expired_at = Some(at));
    for (number, backup) in backups.iter_mut().enumerate() {
        if backup.expired_at.is_none() {
            let decision = keeper.decision(number, until);
            backup.expired_at = decision.until;
            backup.kept_by = decision.kept_by;
        }
    }
    Ok(backups)
}

#[cfg(test)]
mod tests;
