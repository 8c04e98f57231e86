//! Backups: listing, showing, renaming and deleting them.

use cairn_meta::{Backup, BackupFilter, Import, Page, ReplicationView, SortKey, Tx, Vault};
use cairn_types::{BackupId, BackupStatus, BackupStep, OperationLogId, OperationType, VaultStatus};

use crate::operation_log::NewOperation;
use crate::work::Task;
use crate::{Caller, OperationDetail, Refusal, Result, Service};

/// A backup with those of its disks, if it is a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupView {
    /// The backup.
    pub backup: Backup,
    /// Its disks' backups, the system disk's first.
    pub children: Vec<Backup>,
    /// Its replicas, newest first, where they were asked for; its owner alone sees them.
    pub replications: Vec<ReplicationView>,
    /// Where it is from, if it was taken over from another site; its owner alone sees it.
    pub import: Option<Import>,
}

/// Which backups a list shows, in which order.
#[derive(Debug, Clone, Default)]
pub struct BackupQuery {
    /// Which.
    pub filter: BackupFilter,
    /// By which keys; newest first, if empty.
    pub sort: Vec<SortKey>,
    /// Which page.
    pub page: Page,
    /// Whether to show replicas.
    pub with_replications: bool,
}

impl Service {
    /// A page of the backups that the project owns or has a share in, and how
    /// many match in all.
    ///
    /// CBR: `ListBackups`, `GET /v3/{project_id}/backups`.
    pub async fn backups(
        &self,
        caller: &Caller,
        query: &BackupQuery,
    ) -> Result<(Vec<BackupView>, u64)> {
        let mut tx = self.meta().read().await?;
        let (mut backups, count) = tx
            .backups(caller.project, &query.filter, &query.sort, &query.page)
            .await?;
        show_as_member(&mut tx, caller, &mut backups).await?;
        let parents: Vec<BackupId> = backups.iter().map(|backup| backup.id).collect();
        let mut all = tx.children_of(&parents).await?;
        show_as_member(&mut tx, caller, &mut all).await?;
        let replicated = if query.with_replications {
            &parents[..]
        } else {
            &[]
        };
        let replications = tx.replications_of(caller.project, replicated).await?;
        let mut imports = tx.imports_of(&parents).await?;
        imports.retain(|import| import.project == caller.project);
        let views = backups.into_iter().map(|backup| {
            let of_this = |child: &&Backup| child.parent == Some(backup.id);
            BackupView {
                children: all.iter().filter(of_this).cloned().collect(),
                replications: replications
                    .iter()
                    .filter(|view| view.record.source.backup == backup.id)
                    .cloned()
                    .collect(),
                import: imports
                    .iter()
                    .find(|import| import.backup == backup.id)
                    .cloned(),
                backup,
            }
        });
        Ok((views.collect(), count))
    }

    /// One of the project's backups or of those shared with it, top-level or a child.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowBackup`, `GET /v3/{project_id}/backups/{backup_id}`.
    pub async fn backup(&self, caller: &Caller, id: BackupId) -> Result<BackupView> {
        let mut tx = self.meta().read().await?;
        let backup = tx
            .visible_backup(caller.project, id)
            .await?
            .ok_or(Refusal::BackupNotFound)?;
        let mut view = view(&mut tx, backup).await?;
        show_as_member(&mut tx, caller, std::slice::from_mut(&mut view.backup)).await?;
        show_as_member(&mut tx, caller, &mut view.children).await?;
        view.replications = tx.replications_of(caller.project, &[id]).await?;
        let mut imports = tx.imports_of(&[id]).await?;
        imports.retain(|import| import.project == caller.project);
        view.import = imports.pop();
        Ok(view)
    }

    /// Renames a backup.
    ///
    /// Errors: `NotFound`.
    /// CBR: `UpdateBackup`, `PUT /v3/{project_id}/backups/{backup_id}`.
    pub async fn rename_backup(
        &self,
        caller: &Caller,
        id: BackupId,
        name: String,
    ) -> Result<BackupView> {
        let mut tx = self.meta().begin().await?;
        let mut backup = tx
            .lock_backup(caller.project, id)
            .await?
            .ok_or(Refusal::BackupNotFound)?;
        backup.name = name;
        backup.updated_at = self.now();
        tx.update_backup(&backup).await?;
        let view = view(&mut tx, backup).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Deletes a backup, by a task.
    ///
    /// Errors: `NotFound`; `Conflict` while a task is at work on it; `Invalid`
    /// for a server's disk by itself and a policy's backup in a locked vault.
    /// CBR: `DeleteBackup`, `DELETE /v3/{project_id}/backups/{backup_id}`.
    pub async fn delete_backup(&self, caller: &Caller, id: BackupId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let mut backup = tx
            .lock_backup(caller.project, id)
            .await?
            .ok_or(Refusal::BackupNotFound)?;
        if backup.parent.is_some() {
            return Err(Refusal::BackupIsChild { id }.into());
        }
        match backup.status {
            BackupStatus::WaitingRestore | BackupStatus::Restoring => {
                return Err(Refusal::BackupInUse { id }.into());
            }
            status if status.is_busy() => return Err(Refusal::BackupBusy { id }.into()),
            _ => {}
        }
        let copies = tx.replications_under_way(backup.vault, None, Some(id));
        if copies.await? > 0 || tx.is_restored_from(id).await? {
            return Err(Refusal::BackupInUse { id }.into());
        }
        let vault = tx
            .vault(caller.project, backup.vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if vault.status == VaultStatus::Deleting {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
        if vault.locked && backup.auto_trigger {
            return Err(Refusal::BackupLocked.into());
        }
        self.queue_deletion(&mut tx, caller, &vault, &mut backup)
            .await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(())
    }

    /// Queues the deletion of a backup at rest, which the transaction holds.
    pub(crate) async fn queue_deletion(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        vault: &Vault,
        backup: &mut Backup,
    ) -> Result<()> {
        tx.step_backup(backup, BackupStep::QueueDelete, self.now())
            .await?;
        let task = Task::DeleteBackup {
            project: caller.project,
            backup: backup.id,
        };
        let resource = Some((
            backup.resource,
            backup.resource_name.clone(),
            backup.resource_type,
        ));
        let operation = NewOperation {
            id: OperationLogId::random(),
            vault,
            checkpoint: Some(backup.checkpoint),
            policy: None,
            operation_type: OperationType::Delete,
            resource,
            detail: OperationDetail::Delete {
                backup: backup.id,
                backup_name: backup.name.clone(),
            },
        };
        self.enqueue(tx, caller, &task, operation).await
    }
}

async fn view(tx: &mut Tx, backup: Backup) -> Result<BackupView> {
    let children = tx.children_of(&[backup.id]).await?;
    let replications = Vec::new();
    Ok(BackupView {
        backup,
        children,
        replications,
        import: None,
    })
}

/// Shows another project's backups as a member sees them: in the vault that it
/// took them into.
async fn show_as_member(tx: &mut Tx, caller: &Caller, backups: &mut [Backup]) -> Result<()> {
    let whole = |backup: &Backup| backup.parent.unwrap_or(backup.id);
    let foreign = backups.iter().filter(|one| one.project != caller.project);
    let shared: Vec<BackupId> = foreign.map(whole).collect();
    let shares = tx.shares_with(caller.project, &shared).await?;
    for backup in backups {
        let share = shares.iter().find(|share| share.backup == whole(backup));
        if let Some(vault) = share.and_then(|share| share.vault) {
            backup.vault = vault;
        }
    }
    Ok(())
}
