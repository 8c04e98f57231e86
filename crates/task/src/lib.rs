//! The task engine: durable work driven step by step. It knows tasks and their
//! states, and nothing of vaults or backups.
//!
//! A task belongs to whoever holds its lease. Its steps run in order; each may
//! be repeated after a crash. When a step fails for good, every step that was
//! started is undone, newest first, and only then the task counts as failed.

mod engine;
mod work;

pub use engine::{Engine, HEARTBEAT, LEASE_SECONDS, MAX_ATTEMPTS};
pub use work::{Failure, Work};
