//! The service: the rules of vaults, checkpoints, backups and restores, each
//! call one transaction, and the work that tasks do. It knows neither HTTP nor
//! SQL. `server` calls [`Service`]; `cairn` makes it and the engine over [`Worker`].

mod backup;
mod checkpoint;
mod error;
mod identity;
mod operation_log;
mod protectable;
mod restore;
mod service;
mod vault;
mod work;

pub use backup::{BackupQuery, BackupView};
pub use checkpoint::{CheckpointView, NewCheckpoint, ResourceChoice};
pub use error::{Error, Refusal, Result};
pub use identity::{Caller, FirstCredentials, FirstNames, IssuedToken, PasswordSignIn, Scope};
pub use operation_log::{OperationDetail, OperationView};
pub use protectable::ProtectableView;
pub use restore::{DiskMapping, RestoreTarget};
pub use service::{Parts, Quotas, Service};
pub use vault::{NewVault, ResourceToBind, VaultChange, VaultView};
pub use work::Worker;

pub use cairn_source::{Protectable, ProtectableStatus};

/// The catalogue's records, as the service hands them out.
pub mod records {
    pub use cairn_meta::{
        Backup, BackupFilter, BackupSort, BoundResource, Checkpoint, Domain, OperationLog,
        OperationLogFilter, Page, Project, ResourceExtraInfo, SkipReason, Skipped, Usage, User,
        Vault, VaultFilter, VolumeChoice,
    };
}
