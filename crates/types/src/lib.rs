//! The words that every part of Cairn shares: typed ids, sizes, instants,
//! states with their legal transitions, and what a disk or a tree of files is to a reader and a
//! writer. There is no I/O here, and nothing here reads the time.

mod backup;
mod clock;
pub mod disk;
mod download;
mod file_problems;
mod id;
mod kind;
mod lost;
mod named;
mod notification;
mod policy;
mod progress;
mod resource;
mod role;
mod size;
mod status;
pub mod tree;
mod weekday;

pub use backup::BackupInfo;
pub use clock::{Clock, Timestamp, TimestampError};
pub use download::DownloadFormat;
pub use file_problems::FileProblems;
pub use id::{
    AgentId, BackupId, CheckpointId, DomainId, ExportId, IdError, NotificationId, OperationLogId,
    OrganizationPolicyId, PolicyId, ProjectId, ReplicationId, ResourceId, ShareId, TargetId,
    UserId, VaultId,
};
pub use kind::Kind;
pub use lost::{ByteRange, LOST_PARTS_MAX, Lost};
pub use named::UnknownName;
pub use notification::{NotificationEvent, NotificationStatus, TargetKind};
pub use policy::{
    AdvancedRetention, DeploymentStatus, Month, OperationDefinition, PolicyOperation, PolicyType,
    RetentionRule, RetentionType, WeekOfMonth,
};
pub use progress::Progress;
pub use resource::{ObjectType, ResourceType};
pub use role::Role;
pub use size::{BYTES_PER_GB, BYTES_PER_MB, ByteCount};
pub use status::{
    BackupStatus, BackupStep, CheckpointStatus, MemberStatus, OperationStatus, OperationType,
    ProtectStatus, ReplicationStatus, VaultStatus, VaultStep, VerificationStatus, VerifyLevel,
};
pub use weekday::Weekday;
