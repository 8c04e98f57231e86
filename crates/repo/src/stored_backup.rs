//! One backup, open for reading: what somebody gets who may read this backup
//! and nothing else of its project.
//!
//! It holds the backup's id and those of a server's disks, as the sealed
//! manifest has them, and answers for every other id of the project as if
//! there were no such backup. The project's keys stay behind it.

use std::sync::Arc;

use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::tree::TreeReader;
use cairn_types::{BackupId, Progress};

use crate::error::{Error, Result};
use crate::filetree::{RestoreTree, TreeSummary};
use crate::manifest::Child;
use crate::project::{Listed, Project};
use crate::restore::Restored;

/// A backup and, if it is a server's, its disks.
#[derive(Clone)]
pub struct StoredBackup {
    project: Project,
    listed: Arc<Listed>,
}

impl StoredBackup {
    pub(crate) async fn open(project: Project, backup: BackupId) -> Result<Self> {
        let listed = Arc::new(project.find(backup).await?);
        Ok(Self { project, listed })
    }

    /// What the repository says of it.
    pub fn listed(&self) -> &Listed {
        &self.listed
    }

    /// What the repository says of it or of one of its disks.
    ///
    /// Errors: `NotFound` it is no part of this; `Corrupt`, also where a disk is
    /// not the one that the server's backup was made with.
    pub async fn find(&self, backup: BackupId) -> Result<Listed> {
        let disk = self.part(backup)?;
        let found = self.project.find(backup).await?;
        match disk {
            Some(disk) if (disk.root, disk.size_bytes) != (found.root, found.size_bytes) => {
                Err(Error::Damaged {
                    object: format!("backup {backup}"),
                    problem: "it is not the disk that its server's backup names",
                })
            }
            _ => Ok(found),
        }
    }

    /// As [`Project::open_disk`].
    pub async fn open_disk(&self, backup: BackupId) -> Result<Arc<dyn DiskReader>> {
        self.find(backup).await?;
        self.project.open_disk(backup).await
    }

    /// As [`Project::open_tree`].
    pub async fn open_tree(&self, backup: BackupId) -> Result<Arc<dyn TreeReader>> {
        self.part(backup)?;
        self.project.open_tree(backup).await
    }

    /// As [`Project::restore_disk`].
    pub async fn restore_disk(
        &self,
        backup: BackupId,
        target: Arc<dyn DiskWriter>,
        progress: Arc<Progress>,
    ) -> Result<Restored> {
        self.find(backup).await?;
        self.project.restore_disk(backup, target, progress).await
    }

    /// As [`Project::compare_disk`].
    pub async fn compare_disk(
        &self,
        backup: BackupId,
        disk: Arc<dyn DiskReader>,
        progress: Arc<Progress>,
    ) -> Result<()> {
        self.find(backup).await?;
        self.project.compare_disk(backup, disk, progress).await
    }

    /// As [`Project::restore_tree`].
    pub async fn restore_tree(&self, job: RestoreTree) -> Result<TreeSummary> {
        self.part(job.backup)?;
        self.project.restore_tree(job).await
    }

    /// Which of its disks this is; none if it is the backup itself.
    fn part(&self, backup: BackupId) -> Result<Option<&Child>> {
        if backup == self.listed.info.id {
            return Ok(None);
        }
        let disk = self
            .listed
            .children
            .iter()
            .find(|disk| disk.backup == backup);
        disk.map(Some).ok_or(Error::NoBackup { backup })
    }
}
