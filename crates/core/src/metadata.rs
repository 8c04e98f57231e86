//! What was known of a resource when its backup was made, kept with the
//! backup: the resource itself may be gone or changed when somebody asks.

use cairn_meta::Backup;
use cairn_source::{ImageFormat, Protectable};
use cairn_types::{BackupId, BackupStatus, ResourceId, ResourceType};
use serde::{Deserialize, Serialize};

use crate::{BackupView, Caller, Refusal, Result, Service};

/// A resource as it was when its backup was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceMetadata {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub resource_type: ResourceType,
    /// Its size in bytes; a server's is the sum of its disks'.
    pub size_bytes: u64,
    /// Whether a server boots from it.
    pub system_disk: bool,
    /// The source that it came from, where that was recorded.
    pub source: Option<String>,
    /// How a disk was stored, where that was recorded.
    pub format: Option<String>,
    /// The disks of a server that are in the backup.
    pub disks: Vec<Self>,
}

impl ResourceMetadata {
    /// What is known of a resource now, with the disks that a backup takes.
    pub(crate) fn of(found: &Protectable, disks: &[&Protectable]) -> Self {
        Self {
            id: found.id,
            name: found.name.clone(),
            resource_type: found.resource_type,
            size_bytes: found.size_bytes,
            system_disk: found.system_disk,
            source: Some(found.source.clone()),
            format: found.format.map(|format| {
                match format {
                    ImageFormat::Raw => "raw",
                    ImageFormat::Qcow2 => "qcow2",
                }
                .to_owned()
            }),
            disks: disks.iter().map(|disk| Self::of(disk, &[])).collect(),
        }
    }

    /// What a backup of an earlier version tells of its resource by itself.
    fn of_backup(backup: &Backup, children: &[Backup]) -> Self {
        Self {
            id: backup.resource,
            name: backup.resource_name.clone(),
            resource_type: backup.resource_type,
            size_bytes: backup.size_bytes,
            system_disk: backup.resource_type == ResourceType::Volume && backup.system_disk,
            source: None,
            format: None,
            disks: children
                .iter()
                .map(|child| Self::of_backup(child, &[]))
                .collect(),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("the record has string keys only")
    }
}

impl Service {
    /// A backup with what was known of its resource when it was made.
    ///
    /// Errors: `NotFound`; `Conflict` before the backup is whole, and once it is being deleted.
    /// CBR: `ShowMetadata`, `GET /v3/{project_id}/backups/{backup_id}/metadata`.
    pub async fn backup_metadata(
        &self,
        caller: &Caller,
        id: BackupId,
    ) -> Result<(BackupView, ResourceMetadata)> {
        let view = self.backup(caller, id).await?;
        match view.backup.status {
            BackupStatus::Available | BackupStatus::WaitingRestore | BackupStatus::Restoring => {}
            state => {
                let state = state.to_string();
                return Err(Refusal::MetadataUnreadable { state }.into());
            }
        }
        let recorded = view.backup.metadata.clone();
        let recorded = recorded.and_then(|value| serde_json::from_value(value).ok());
        let metadata =
            recorded.unwrap_or_else(|| ResourceMetadata::of_backup(&view.backup, &view.children));
        Ok((view, metadata))
    }
}
