//! The service: the rules of vaults, checkpoints, backups and restores, each
//! call one transaction, and the work that tasks do. It knows neither HTTP nor
//! SQL. `server` calls [`Service`]; `cairn` makes it and the engine over [`Worker`].

mod agent;
mod agent_line;
mod auto_bind;
mod backup;
mod binding;
mod call;
mod candidate;
mod capacity;
mod checkpoint;
mod download;
mod error;
mod export;
mod external;
mod files;
mod identity;
mod links;
mod lookup;
mod member;
mod metadata;
mod notification;
mod operation_log;
mod order;
mod organization_policy;
mod policy;
mod policy_run;
mod protect;
mod protectable;
mod region;
mod replica;
mod replication;
mod restore;
mod retention;
mod service;
mod sync;
mod tag;
mod usage;
mod vault;
mod verification;
mod work;

pub use agent::{AgentView, NORMAL as AGENT_NORMAL, NewAgent, PathToAdd, PathsChanged};
pub use agent_line::{Enrolled, NewAgentToken};
pub use backup::{BackupQuery, BackupView};
pub use call::Call;
pub use candidate::ResourceToBind;
pub use checkpoint::{CheckpointView, NewCheckpoint, ResourceChoice, RunOf};
pub use download::{Download, PIECE_BYTES, Piece, Pieces};
pub use error::{Error, Refusal, Result};
pub use export::{ExportConnection, ExportSettings, ExportView};
pub use external::{External, ExternalSettings, OpenExternal, OpenFailed};
pub use files::{BackupFile, FILES_MAX, FileList, FoundPartition, OpenFile};
pub use identity::{Caller, FirstCredentials, FirstNames, IssuedToken, PasswordSignIn, Scope};
pub use member::MemberQuery;
pub use metadata::ResourceMetadata;
pub use notification::{Address, Channel, NewTarget, Outgoing, TargetChange};
pub use operation_log::{OperationDetail, OperationView, ReplicatedBackup};
pub use order::{OrderChange, Prepaid, spec_code};
pub use organization_policy::{
    NewOrganizationPolicy, OrganizationPolicyChange, OrganizationPolicyView,
};
pub use policy::{NewPolicy, NewSchedule, PolicyChange, PolicyView, ScheduleChange};
pub use protect::Protected;
pub use protectable::{ProtectableFilter, ProtectableView};
pub use region::{
    AwaitedReplica, NewReplica, NoRegions, RegionError, Regions, ReplicaState, ReplicatedResource,
    ReplicationRules,
};
pub use replication::ReplicaTarget;
pub use restore::{DiskMapping, RestoreTarget};
pub use retention::Explanation;
pub use service::{Parts, Quotas, Service};
pub use sync::BackupToImport;
pub use tag::{TagCondition, TagQuery, ValuePattern};
pub use vault::{NewVault, VaultChange, VaultView};
pub use verification::{VerificationSchedule, VerifyScope};
pub use work::Worker;

pub use cairn_source::{Protectable, ProtectableStatus};

/// The catalogue's records, as the service hands them out.
pub mod records {
    pub use cairn_meta::{
        Agent, AgentFilter, AgentPath, Backup, BackupFilter, BackupScope, BoundResource,
        Checkpoint, Domain, Import, Notification, NotificationFilter, NotificationTarget,
        OperationLog, OperationLogFilter, OrganizationPolicy, Page, Payment, Policy, PolicyBinding,
        PolicyFilter, PolicySchedule, Project, ProjectUsage, Replication, ReplicationEnd,
        ReplicationView, ResourceExtraInfo, ResourceUsage, Share, ShareFilter, ShareSort,
        SkipReason, Skipped, SortKey, Tag, Usage, User, Vault, VaultFilter, Verification,
        VerificationFilter, VerifiedBackup, VolumeChoice,
    };
}
