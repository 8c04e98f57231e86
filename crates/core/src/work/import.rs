//! One backup taken over from the repository of another site: its rows and its
//! bytes. It becomes available when all of it is here, and not before; what is
//! given up leaves nothing, so that it can be taken over later.

use std::sync::Arc;

use cairn_meta::{Backup, Checkpoint, Import, Origin, Tx, Vault};
use cairn_repo::{Listed, StoredBackup};
use cairn_types::{
    BackupId, BackupStatus, CheckpointId, Kind, OperationLogId, Progress, ProjectId, VaultId,
};

use super::Worker;
use super::backup::{self, BackUp, ReadFrom};
use crate::capacity::refuse_full;
use crate::metadata::ResourceMetadata;
use crate::{Refusal, Result};

/// How the backups are listed: as what was made here, so that clients know the word.
const IMAGE_TYPE: &str = "backup";

/// A backup of another site that is to be here.
pub(super) struct Wanted<'a> {
    pub(super) theirs: StoredBackup,
    pub(super) origin: Origin,
    /// What the configuration calls the repository.
    pub(super) external: &'a str,
    pub(super) vault: VaultId,
    /// Its id here, if nothing has that yet.
    pub(super) id: BackupId,
    /// Its name here.
    pub(super) name: &'a str,
    /// Whether it is taken over although it was deleted here before.
    pub(super) again: bool,
}

/// Takes backups over, for one task.
#[derive(Clone, Copy)]
pub(super) struct Importer<'a> {
    pub(super) worker: &'a Worker,
    pub(super) task: OperationLogId,
    pub(super) project: ProjectId,
}

impl Importer<'_> {
    /// Takes a backup over, unless the project has it or has deleted it.
    ///
    /// Where an error is `Transient` or `Cancelled`, what is here already stays
    /// for the next attempt of the task.
    pub(super) async fn take_over(
        &self,
        wanted: &Wanted<'_>,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let mut disks = Vec::new();
        for child in &wanted.theirs.listed().children {
            disks.push(wanted.theirs.find(child.backup).await?);
        }
        let Some(import) = self.plan(wanted, &disks).await? else {
            return Ok(());
        };
        let backup = (self.project, import.backup);
        let from = ReadFrom::External(&wanted.theirs);
        let work = BackUp::new(self.worker, self.task, backup, from);
        for step in 0..backup::STEPS.len() {
            let Err(error) = work.run(step, progress).await else {
                continue;
            };
            if !matches!(error.kind(), Kind::Transient | Kind::Cancelled) {
                self.forget(&import).await?;
            }
            return Err(error);
        }
        Ok(())
    }

    /// Writes the rows of a backup before any of it is here. None if there is nothing to do.
    async fn plan(&self, wanted: &Wanted<'_>, disks: &[Listed]) -> Result<Option<Import>> {
        let service = &self.worker.service;
        let mut tx = service.meta().begin().await?;
        let vault = tx.lock_vault(self.project, wanted.vault).await?;
        let vault = vault.ok_or(Refusal::VaultNotFound)?;
        let known = tx.imports_from(self.project, &wanted.origin.repository);
        let known = known.await?;
        if let Some(import) = known.iter().find(|import| import.origin == wanted.origin) {
            match tx.backup(self.project, import.backup).await? {
                Some(row) if import.task == self.task && is_unfinished(row.status) => {
                    return Ok(Some(import.clone()));
                }
                None if wanted.again => tx.remove_import(import).await?,
                _ => return Ok(None),
            }
        }
        if !vault.status.is_in_service() {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
        refuse_full(&vault, tx.vault_usage(vault.id).await?.used_bytes)?;
        let listed = wanted.theirs.listed();
        let checkpoint = self.checkpoint(&mut tx, &vault, listed, &known).await?;
        let whole = self.row(&mut tx, wanted, &vault, checkpoint, disks).await?;
        tx.insert_backup(&whole).await?;
        for disk in disks {
            let part = Backup {
                id: free(&mut tx, disk.info.id).await?,
                parent: Some(whole.id),
                name: disk.info.name.clone(),
                resource: disk.info.resource,
                resource_name: disk.info.resource_name.clone(),
                resource_type: disk.info.resource_type,
                size_bytes: disk.size_bytes,
                system_disk: disk.info.system_disk,
                metadata: Some(ResourceMetadata::of_stored(disk, &[]).to_json()),
                ..whole.clone()
            };
            tx.insert_backup(&part).await?;
        }
        let import = Import {
            project: self.project,
            backup: whole.id,
            vault: vault.id,
            origin: wanted.origin.clone(),
            origin_checkpoint: listed.info.checkpoint,
            external: wanted.external.to_owned(),
            task: self.task,
            gone_at: None,
        };
        tx.insert_import(&import).await?;
        tx.commit().await?;
        Ok(Some(import))
    }

    /// The row of a backup as a whole.
    async fn row(
        &self,
        tx: &mut Tx,
        wanted: &Wanted<'_>,
        vault: &Vault,
        checkpoint: CheckpointId,
        disks: &[Listed],
    ) -> Result<Backup> {
        let listed = wanted.theirs.listed();
        let info = &listed.info;
        let own = std::iter::once(listed);
        Ok(Backup {
            id: free(tx, wanted.id).await?,
            project: self.project,
            vault: vault.id,
            checkpoint,
            parent: None,
            name: wanted.name.to_owned(),
            description: info.description.clone(),
            status: BackupStatus::FIRST,
            resource: info.resource,
            resource_name: info.resource_name.clone(),
            resource_type: info.resource_type,
            size_bytes: listed.size_bytes,
            data_bytes: 0,
            used_bytes: 0,
            image_type: IMAGE_TYPE.to_owned(),
            incremental: own.chain(disks).any(|part| part.parent.is_some()),
            // No policy of this site made it, so none of its rules holds it.
            auto_trigger: false,
            system_disk: info.system_disk || disks.iter().any(|disk| disk.info.system_disk),
            enterprise_project: vault.enterprise_project.clone(),
            root: None,
            error_message: None,
            created_at: info.created_at,
            updated_at: self.worker.service.now(),
            protected_at: None,
            expired_at: None,
            metadata: Some(ResourceMetadata::of_stored(listed, disks).to_json()),
            policy: None,
            made_under: None,
            app_consistency: None,
            files_moment: None,
            file_problems: None,
        })
    }

    /// The checkpoint here of what was made in one there.
    async fn checkpoint(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        listed: &Listed,
        known: &[Import],
    ) -> Result<CheckpointId> {
        let theirs = listed.info.checkpoint;
        let together = known
            .iter()
            .filter(|import| import.origin_checkpoint == theirs && import.vault == vault.id);
        for import in together {
            if let Some(other) = tx.backup(self.project, import.backup).await? {
                return Ok(other.checkpoint);
            }
        }
        let id = match tx.is_id_taken(theirs).await? {
            true => CheckpointId::random(),
            false => theirs,
        };
        let checkpoint = Checkpoint {
            id,
            project: self.project,
            vault: vault.id,
            vault_name: vault.name.clone(),
            name: listed.info.name.clone(),
            description: listed.info.description.clone(),
            retention_days: -1,
            skipped: Vec::new(),
            created_at: listed.info.created_at,
        };
        tx.insert_checkpoint(&checkpoint).await?;
        Ok(id)
    }

    /// Removes what the task has begun to take over and not ended.
    pub(super) async fn forget_unfinished(&self) -> Result<()> {
        let mut tx = self.worker.service.meta().read().await?;
        let imports = tx.imports_by(self.task).await?;
        drop(tx);
        for import in imports {
            self.forget(&import).await?;
        }
        Ok(())
    }

    /// Removes all of a backup that is not here as a whole; one that is stays.
    async fn forget(&self, import: &Import) -> Result<()> {
        let service = &self.worker.service;
        let mut tx = service.meta().read().await?;
        let row = tx.backup(self.project, import.backup).await?;
        let Some(row) = row.filter(|row| is_unfinished(row.status)) else {
            return Ok(());
        };
        let children = tx.children_of(&[row.id]).await?;
        drop(tx);
        let repository = service.repository().project(self.project).await?;
        repository.delete(row.id).await?;
        for child in &children {
            repository.delete(child.id).await?;
        }
        let mut tx = service.meta().begin().await?;
        let row = tx.lock_backup(self.project, row.id).await?;
        let Some(mut row) = row.filter(|row| is_unfinished(row.status)) else {
            return Ok(());
        };
        // It never was whole: nothing newer takes anything over from it.
        row.used_bytes = 0;
        tx.update_backup(&row).await?;
        tx.remove_backup(&row).await?;
        tx.remove_import(import).await?;
        service.enqueue_collection(&mut tx, self.project, 0).await?;
        tx.commit().await?;
        service.wake_engine();
        Ok(())
    }
}

const fn is_unfinished(status: BackupStatus) -> bool {
    matches!(
        status,
        BackupStatus::WaitingProtect | BackupStatus::Protecting
    )
}

/// The same id, unless something has it already.
async fn free(tx: &mut Tx, id: BackupId) -> Result<BackupId> {
    Ok(match tx.is_id_taken(id).await? {
        true => BackupId::random(),
        false => id,
    })
}
