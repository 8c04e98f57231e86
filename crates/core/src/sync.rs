//! Synchronisation: hybrid vaults mirror the repository of another site, and
//! single backups are taken over from it. Each is a task, whose operation log tells
//! how it went. What was taken over is a backup like any other.

use cairn_meta::Tx;
use cairn_meta::tasks::Task as TaskRow;
use cairn_types::{
    BackupId, OperationLogId, OperationType, ResourceId, ResourceType, VaultId, VaultStatus,
};

use crate::external::is_hybrid;
use crate::operation_log::NewOperation;
use crate::work::{ImportedBackup, Task};
use crate::{Caller, OperationDetail, Refusal, Result, Service};

/// A backup in a bucket of another site.
#[derive(Debug, Clone)]
pub struct BackupToImport {
    /// The backup.
    pub id: BackupId,
    /// Its name.
    pub name: String,
    /// The bucket that it lies in, or what the configuration calls the repository.
    pub bucket: String,
    /// Where in the repository: its project and its id there, each if it is named.
    pub path: String,
    /// The resource.
    pub resource: ResourceId,
    /// The resource's name.
    pub resource_name: String,
    /// The resource's type.
    pub resource_type: ResourceType,
}

impl Service {
    /// Starts the synchronisation of a hybrid vault and returns the operation
    /// log to watch.
    ///
    /// Errors: `NotFound`; `Invalid` for another vault; `Conflict` while one
    /// runs or the vault is out of service.
    /// CBR: `ImportCheckpoint`, `POST /v3/{project_id}/checkpoints/sync`.
    pub async fn sync_vault(&self, caller: &Caller, vault: VaultId) -> Result<OperationLogId> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if !is_hybrid(&vault) {
            return Err(Refusal::SyncUnsupported.into());
        }
        if !matches!(vault.status, VaultStatus::Available | VaultStatus::Lock) {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
        let running = tx.operations_under_way(vault.id, OperationType::Sync);
        if running.await? > 0 {
            return Err(Refusal::SyncRunning.into());
        }
        let id = OperationLogId::random();
        let task = Task::Sync {
            project: caller.project,
            vault: vault.id,
        };
        let operation = NewOperation {
            id,
            vault: &vault,
            checkpoint: None,
            policy: None,
            operation_type: OperationType::Sync,
            resource: None,
            detail: OperationDetail::Sync {
                synced: 0,
                deleted: 0,
                failed: 0,
            },
        };
        self.enqueue(&mut tx, caller, &task, operation).await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(id)
    }

    /// Starts the import of backups from buckets of another site, each by a
    /// task of its own; returns the operation log of each, in their order.
    ///
    /// CBR: `ImportBackup`, `POST /v3/{project_id}/backups/sync`.
    pub async fn import_backups(
        &self,
        caller: &Caller,
        backups: Vec<BackupToImport>,
    ) -> Result<Vec<(BackupId, OperationLogId)>> {
        let mut tx = self.meta().begin().await?;
        let mut begun = Vec::with_capacity(backups.len());
        for backup in backups {
            let id = backup.id;
            begun.push((id, self.enqueue_import(&mut tx, caller, backup).await?));
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(begun)
    }

    async fn enqueue_import(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        backup: BackupToImport,
    ) -> Result<OperationLogId> {
        let id = OperationLogId::random();
        let task = Task::ImportBackup {
            project: caller.project,
            import: ImportedBackup {
                bucket: backup.bucket,
                path: backup.path,
                backup: backup.id,
                name: backup.name.clone(),
            },
        };
        let (kind, payload) = (task.kind(), task.payload());
        let row = TaskRow::new(id, kind, payload, &caller.request_id, self.now());
        tx.insert_task(&row).await?;
        let resource = (backup.resource, backup.resource_name, backup.resource_type);
        let detail = OperationDetail::Import {
            backup: backup.id,
            backup_name: backup.name,
        };
        let operation_type = OperationType::Sync;
        let asked = (caller.project, caller.request_id.as_str());
        let log = self.log_without_vault(asked, id, operation_type, Some(resource), &detail);
        tx.insert_operation_log(&log).await?;
        Ok(id)
    }
}
