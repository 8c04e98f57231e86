//! What a backup says of itself, apart from its bytes.

use serde::{Deserialize, Serialize};

use crate::{BackupId, CheckpointId, ProjectId, ResourceId, ResourceType, Timestamp, VaultId};

/// The facts that the repository keeps with a backup, so that it can be
/// found, told apart and restored where the catalogue is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// The backup.
    pub id: BackupId,
    /// The project that owns it.
    pub project: ProjectId,
    /// The checkpoint that it was made in.
    pub checkpoint: CheckpointId,
    /// For the backup of a server's disk: the server's backup.
    pub parent: Option<BackupId>,
    /// The vault that it was made in.
    pub vault: VaultId,
    /// That vault's name at the time.
    pub vault_name: String,
    /// Its name at the time it was made.
    pub name: String,
    /// Its description at the time it was made.
    pub description: String,
    /// The resource.
    pub resource: ResourceId,
    /// The resource's type.
    pub resource_type: ResourceType,
    /// The resource's name at the time.
    pub resource_name: String,
    /// When the backup was asked for.
    pub created_at: Timestamp,
    /// Made by a policy.
    pub auto_trigger: bool,
    /// A disk that its server boots from.
    pub system_disk: bool,
    /// How the server that was backed up is defined where it runs: for a domain of libvirt its XML, without
    /// secrets. Source: libvirt, `docs/formatdomain.rst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}
