//! Other regions: servers that replicas go to, as this one sees them.

use std::sync::Arc;

use async_trait::async_trait;
use cairn_link::{Connection, Limit};
use cairn_meta::ReplicationEnd;
use cairn_types::{
    BackupId, BackupStatus, CheckpointId, Kind, OperationDefinition, ProjectId, ResourceId,
    ResourceType, Timestamp, VaultId,
};

/// What is replicated beyond what CBR replicates, and how long a silence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicationRules {
    /// Backups of single disks too.
    pub disks: bool,
    /// Replicas too.
    pub replicas: bool,
    /// A replication to or from another region that was not heard of for so long is
    /// given up, in seconds.
    pub patience_seconds: i64,
}

impl Default for ReplicationRules {
    fn default() -> Self {
        Self {
            disks: false,
            replicas: false,
            patience_seconds: 24 * 60 * 60,
        }
    }
}

/// What a region is told of a backup before any of it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplica {
    /// The vault there.
    pub vault: VaultId,
    /// The replica's name.
    pub name: String,
    /// What is said of the replica.
    pub description: String,
    /// Asked for by a policy.
    pub auto_trigger: bool,
    /// What is copied.
    pub source: ReplicationEnd,
    /// What it is a backup of.
    pub resource: ReplicatedResource,
    /// The disks of a server.
    pub disks: Vec<ReplicatedResource>,
    /// The state of the resource, where that was kept.
    pub metadata: Option<serde_json::Value>,
    /// When the replica ends; never, if not given.
    pub expired_at: Option<Timestamp>,
    /// What the policy that makes it wants to be kept, if one does.
    pub made_under: Option<OperationDefinition>,
}

/// What a backup that is copied is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicatedResource {
    /// The resource.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub resource_type: ResourceType,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Whether it is, or has, the system disk.
    pub system_disk: bool,
    /// The name of its backup.
    pub backup_name: String,
}

/// A replica that a region waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwaitedReplica {
    /// The replica.
    pub backup: BackupId,
    /// Its checkpoint.
    pub checkpoint: CheckpointId,
}

/// How far a replica is, as its region says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaState {
    /// Its status.
    pub status: BackupStatus,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Why a region did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RegionError {
    /// What to do about it.
    pub kind: Kind,
    /// The code of its refusal, if it was one of the public contract.
    pub code: Option<String>,
    /// Why, in words that the public may read.
    pub message: String,
}

/// The other regions that this server has credentials for.
#[async_trait]
pub trait Regions: Send + Sync {
    /// Their names.
    fn names(&self) -> Vec<String>;

    /// Whether backups of a project here may go to a project there.
    fn allows(&self, region: &str, here: ProjectId, there: ProjectId) -> bool;

    /// How fast bytes may go there: what all replications there share.
    fn limits(&self, region: &str) -> Vec<Arc<Limit>>;

    /// Has a region wait for a replica. Asked for again, of a replica that is not there
    /// yet, it is the same.
    async fn announce(
        &self,
        region: &str,
        project: ProjectId,
        replica: &NewReplica,
    ) -> Result<AwaitedReplica, RegionError>;

    /// How far a replica is.
    async fn replica(
        &self,
        region: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<ReplicaState, RegionError>;

    /// Connects to the region, which will ask for the replica.
    async fn connect(
        &self,
        region: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<Connection, RegionError>;

    /// Gives a replica up that is not there yet.
    async fn withdraw(
        &self,
        region: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<(), RegionError>;
}

/// No other regions.
pub struct NoRegions;

impl NoRegions {
    fn none<T>() -> Result<T, RegionError> {
        Err(RegionError {
            kind: Kind::NotFound,
            code: None,
            message: "this server knows no other region".to_owned(),
        })
    }
}

#[async_trait]
impl Regions for NoRegions {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn allows(&self, _: &str, _: ProjectId, _: ProjectId) -> bool {
        false
    }

    fn limits(&self, _: &str) -> Vec<Arc<Limit>> {
        Vec::new()
    }

    async fn announce(
        &self,
        _: &str,
        _: ProjectId,
        _: &NewReplica,
    ) -> Result<AwaitedReplica, RegionError> {
        Self::none()
    }

    async fn replica(
        &self,
        _: &str,
        _: ProjectId,
        _: BackupId,
    ) -> Result<ReplicaState, RegionError> {
        Self::none()
    }

    async fn connect(&self, _: &str, _: ProjectId, _: BackupId) -> Result<Connection, RegionError> {
        Self::none()
    }

    async fn withdraw(&self, _: &str, _: ProjectId, _: BackupId) -> Result<(), RegionError> {
        Self::none()
    }
}
