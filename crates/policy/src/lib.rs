//! The rules of policies: when a policy runs, and what it keeps for how long.
//!
//! Pure functions of rules, facts and an instant: nothing here reads the time, stores anything or
//! starts anything, so that ten years can be tried in milliseconds and the service,
//! the preview of a request and the command line decide by the same code.

mod civil;
mod retention;
mod schedule;
mod simulate;
mod zone;

pub use retention::{
    Decision, FAILED_KEPT_SECONDS, Fact, Keeper, Reason, Retention, RetentionError, decide,
    failed_to_remove, is_full_due,
};
pub use schedule::{
    Due, MAX_MISSED, MAX_RULES, Runs, Schedule, ScheduleError, ScheduleField, due, start_of,
};
pub use simulate::{MAX_SIMULATED, Simulated, TooManyBackups, simulate};
pub use zone::Zone;
