//! A restore: a backup is written over the disks it came from, or into a share.

use std::sync::Arc;

use cairn_repo::{Project as ProjectRepository, RestoreTree};
use cairn_types::{BackupId, BackupStep, Progress, ProjectId};

use super::Worker;
use crate::restore::DiskMapping;
use crate::{Error, Result};

pub(super) const KIND: &str = "restore";
/// What whoever reads of a failed restore must know of the disk.
pub(super) const MIXTURE: &str =
    "; the disk may hold a part of the backup and a part of what it held: restore it again";
pub(super) const STEPS: &[&str] = &["begin", "write disks", "finish"];

pub(super) struct Restore<'a> {
    pub(super) worker: &'a Worker,
    pub(super) project: ProjectId,
    pub(super) backup: BackupId,
    pub(super) mappings: &'a [DiskMapping],
    /// For a share: the folder below it.
    pub(super) folder: &'a str,
}

impl Restore<'_> {
    pub(super) async fn run(&self, step: usize, progress: &Arc<Progress>) -> Result<()> {
        match step {
            0 => self.step(BackupStep::StartRestore).await,
            1 => self.write_disks(progress).await,
            _ => self.step(BackupStep::EndRestore).await,
        }
    }

    /// The backup is as good as before, whatever became of the disks.
    pub(super) async fn undo(&self, step: usize) -> Result<()> {
        match step {
            0 => self.step(BackupStep::EndRestore).await,
            _ => Ok(()),
        }
    }

    async fn write_disks(&self, progress: &Arc<Progress>) -> Result<()> {
        let _turn = self.worker.turn_to_move_bytes(progress).await?;
        let repository = self
            .worker
            .service
            .repository()
            .existing_project(self.project)
            .await?;
        for mapping in self.mappings {
            let found = repository.find(mapping.backup).await?;
            if found.tree.is_some() {
                self.write_tree(&repository, mapping, progress).await?;
                continue;
            }
            let size = found.size_bytes;
            let (inventory, volume) = (Arc::clone(&self.worker.inventory), mapping.volume);
            let target = tokio::task::spawn_blocking(move || inventory.open_writer(volume, size));
            let target = target
                .await
                .map_err(|_| Error::Panicked { what: "a source" })??;
            let (backup, disk) = (mapping.backup, Arc::clone(&target));
            let restored = repository
                .restore_disk(backup, target, Arc::clone(progress))
                .await?;
            tracing::info!(
                backup.id = %backup,
                size_bytes = restored.size_bytes,
                data_bytes = restored.data_bytes,
                read_bytes = restored.read_bytes,
                requests = restored.requests,
                opened_bytes = restored.opened_bytes,
                "A disk was restored."
            );
            if self.worker.service.compares_restored() {
                let compared = repository.compare_disk(backup, disk, Arc::clone(progress));
                compared.await?;
            }
        }
        Ok(())
    }

    async fn write_tree(
        &self,
        repository: &ProjectRepository,
        mapping: &DiskMapping,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let (inventory, share) = (Arc::clone(&self.worker.inventory), mapping.volume);
        let folder = self.folder.to_owned();
        let open = move || inventory.open_share_writer(share, &folder);
        let target = tokio::task::spawn_blocking(open).await;
        let target = target.map_err(|_| Error::Panicked { what: "a source" })??;
        let job = RestoreTree {
            backup: mapping.backup,
            path: Vec::new(),
            target: Arc::new(target),
            progress: Arc::clone(progress),
        };
        let restored = repository.restore_tree(job).await?;
        if restored.problems > 0 {
            let first = restored.listed.first().map(|problem| problem.to_string());
            tracing::warn!(
                backup.id = %mapping.backup,
                entries = restored.problems,
                first,
                "Entries were restored without their owner, mode, times or attributes."
            );
        }
        Ok(())
    }

    async fn step(&self, step: BackupStep) -> Result<()> {
        let service = &self.worker.service;
        let mut tx = service.meta().begin().await?;
        if let Some(mut backup) = tx.lock_backup(self.project, self.backup).await? {
            tx.step_backup(&mut backup, step, service.now()).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
