//! The catalogue: what exists, in which state, and what is to be done. One SQL
//! text serves SQLite and PostgreSQL; what must differ between them lives in
//! `database`.
//!
//! Everything goes through a [`Tx`], either one that writes ([`Meta::begin`])
//! or one that reads at one point in time ([`Meta::read`]). Only `core` (and
//! `task`, for [`tasks`]) uses this crate.

mod agents;
mod backups;
mod calls;
mod checkpoints;
mod contents;
mod database;
mod error;
mod facts;
mod held_packs;
mod identity;
mod imports;
mod migrations;
mod notifications;
mod operation_logs;
mod orders;
mod organization_policies;
mod policies;
mod query;
mod replications;
mod restores;
mod retention;
mod shares;
pub mod tasks;
mod usage;
mod vaults;
mod verifications;

pub use agents::{Agent, AgentFilter, AgentPath, AgentToken};
pub use backups::{Backup, BackupFilter, BackupScope};
pub use calls::KeptAnswer;
pub use checkpoints::{Checkpoint, SkipReason, Skipped};
pub use contents::Contents;
pub use database::{Meta, Tx};
pub use error::{Error, Result};
pub use identity::{AccessKey, Domain, Grant, Project, Token, User};
pub use imports::{Import, Origin};
pub use notifications::{Notification, NotificationFilter, NotificationTarget, VaultMark};
pub use operation_logs::{OperationLog, OperationLogFilter};
pub use orders::Order;
pub use organization_policies::OrganizationPolicy;
pub use policies::{Policy, PolicyBinding, PolicyFilter, PolicySchedule};
pub use query::{Page, SortKey};
pub use replications::{Replication, ReplicationEnd, ReplicationView};
pub use retention::AutomaticBackup;
pub use shares::{Share, ShareFilter, ShareSort};
pub use usage::{ProjectUsage, ResourceUsage};
pub use vaults::{
    BoundResource, Payment, ResourceExtraInfo, Tag, Usage, Vault, VaultFilter, VolumeChoice,
};
pub use verifications::{Verification, VerificationFilter, VerifiedBackup};
