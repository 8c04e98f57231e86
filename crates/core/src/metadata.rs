//! What was known of a resource when its backup was made, kept with the
//! backup: the resource itself may be gone or changed when somebody asks.

use cairn_meta::Backup;
use cairn_repo::Listed;
use cairn_source::machine::DEFINITION_BYTES_MAX;
use cairn_source::{ImageFormat, Protectable};
use cairn_types::{BackupId, BackupStatus, ResourceId, ResourceType};
use serde::{Deserialize, Serialize};

use crate::export::readable;
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
    /// How a server is defined where it runs, as [`cairn_types::BackupInfo`] has it; at most
    /// [`DEFINITION_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
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
            definition: None,
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
            definition: None,
        }
    }

    /// What a backup in a repository tells of its resource.
    pub(crate) fn of_stored(backup: &Listed, disks: &[Listed]) -> Self {
        let info = &backup.info;
        Self {
            id: info.resource,
            name: info.resource_name.clone(),
            resource_type: info.resource_type,
            size_bytes: backup.size_bytes,
            system_disk: info.resource_type == ResourceType::Volume && info.system_disk,
            source: None,
            format: None,
            disks: disks
                .iter()
                .map(|disk| Self::of_stored(disk, &[]))
                .collect(),
            definition: info.definition.clone(),
        }
        .bounded()
    }

    /// What was recorded with a backup, if anything was.
    pub(crate) fn recorded(backup: &Backup) -> Option<Self> {
        let recorded: Option<Self> = serde_json::from_value(backup.metadata.clone()?).ok();
        recorded.map(Self::bounded)
    }

    /// Other sites and regions may have sent a definition of any length.
    fn bounded(mut self) -> Self {
        self.definition = self
            .definition
            .filter(|definition| definition.len() <= DEFINITION_BYTES_MAX);
        self
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("the record has string keys only")
    }
}

impl Service {
    /// A backup with what was known of its resource when it was made.
    ///
    /// Errors: `NotFound`; `Conflict` before the backup is whole, and once it is being deleted, and
    /// before a member has accepted it.
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
        if view.backup.project != caller.project {
            // How a machine is defined is for whoever may restore it.
            let mut tx = self.meta().read().await?;
            readable(&mut tx, caller.project, id).await?;
        }
        let metadata = ResourceMetadata::recorded(&view.backup)
            .unwrap_or_else(|| ResourceMetadata::of_backup(&view.backup, &view.children));
        Ok((view, metadata))
    }
}
