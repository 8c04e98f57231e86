//! Operation logs, as the service shows them.

use cairn_meta::tasks::TaskState;
use cairn_meta::{OperationLog, OperationLogFilter, Page, Tx};
use cairn_types::{
    BackupId, CheckpointId, FileProblems, OperationLogId, OperationStatus, OperationType, PolicyId,
    ProjectId, ResourceId, ResourceType, Timestamp, VaultId, VerifyLevel,
};
use serde::{Deserialize, Serialize};

use crate::{Caller, Refusal, Result, Service};

/// What an operation log says beyond what all have: one form for each type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum OperationDetail {
    /// A backup is made.
    Backup {
        /// The backup.
        backup: BackupId,
        /// Its name.
        backup_name: String,
        /// Whether it builds on an earlier one.
        incremental: bool,
        /// Whether applications were brought to rest, as the backup's row has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        app_consistency: Option<String>,
        /// Which files are not in it as they were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_problems: Option<FileProblems>,
    },
    /// A backup is restored.
    Restore {
        /// The backup.
        backup: BackupId,
        /// Its name.
        backup_name: String,
        /// Where to.
        target: ResourceId,
        /// Its name.
        target_name: String,
        /// Which files were not restored as they were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_problems: Option<FileProblems>,
    },
    /// A backup is deleted.
    Delete {
        /// The backup.
        backup: BackupId,
        /// Its name.
        backup_name: String,
    },
    /// Resources are taken out of a vault.
    RemoveResources {
        /// How many could not be removed.
        failed: u64,
        /// How many there are.
        total: u64,
        /// Which.
        resources: Vec<(ResourceId, ResourceType, String)>,
    },
    /// A backup is copied.
    Replication {
        /// What is copied.
        source: ReplicatedBackup,
        /// The copy.
        destination: ReplicatedBackup,
    },
    /// A hybrid vault is compared with the site that it mirrors.
    Sync {
        /// How many backups were taken over.
        synced: u64,
        /// How many were deleted because the site has them no more.
        deleted: u64,
        /// How many could not be taken over.
        failed: u64,
    },
    /// One backup is taken over from a bucket of another site.
    Import {
        /// The backup.
        backup: BackupId,
        /// Its name.
        backup_name: String,
    },
    /// Resources moved to another vault.
    MigrateResources {
        /// The vault that they are in now.
        destination: VaultId,
        /// How many there are.
        total: u64,
        /// Which.
        resources: Vec<(ResourceId, ResourceType, String)>,
    },
    /// The backups of a vault were given a day to end on.
    UpdateExpirationTime {
        /// How many.
        affected: u64,
        /// The day, as it was asked for.
        day: String,
    },
    /// A run of a policy, for a vault of which nothing was backed up.
    PolicyRun {
        /// The slot that the policy ran for.
        slot: Timestamp,
        /// Slots before it that passed while nobody was there to run them.
        missed: u64,
    },
    /// Backups are looked at, whether they could be restored.
    Verify {
        /// How closely.
        level: VerifyLevel,
    },
    /// A vault is deleted with its backups.
    VaultDelete {
        /// How many backups could not be deleted.
        failed: u64,
        /// How many there are.
        total: u64,
    },
}

impl OperationDetail {
    /// Changes what a task's log says. One that cannot be read, or is gone, is left alone.
    pub(crate) async fn change(
        tx: &mut Tx,
        task: OperationLogId,
        change: impl FnOnce(&mut Self),
    ) -> Result<()> {
        let log = tx.operation_log_of(task).await?;
        if let Some(mut detail) = log.and_then(|log| serde_json::from_value(log.detail).ok()) {
            change(&mut detail);
            let detail = serde_json::to_value(detail).expect("details have string keys only");
            tx.update_operation_detail(task, &detail).await?;
        }
        Ok(())
    }
}

/// One end of a replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicatedBackup {
    /// The backup.
    pub backup: BackupId,
    /// Its name.
    pub name: String,
    /// Its checkpoint.
    pub checkpoint: CheckpointId,
    /// Its project.
    pub project: ProjectId,
    /// Its region.
    pub region: String,
}

/// An operation log with its detail.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationView {
    /// The record.
    pub log: OperationLog,
    /// Its detail; none if a later version wrote one that this does not know.
    pub detail: Option<OperationDetail>,
}

impl From<OperationLog> for OperationView {
    fn from(log: OperationLog) -> Self {
        let detail = serde_json::from_value(log.detail.clone()).ok();
        Self { log, detail }
    }
}

/// What stands for no enterprise project.
const NO_ENTERPRISE_PROJECT: &str = "0";

impl Service {
    /// A page of the project's operation logs, newest first, and how many match in all.
    ///
    /// CBR: `ListOpLogs`, `GET /v3/{project_id}/operation-logs`.
    pub async fn operation_logs(
        &self,
        caller: &Caller,
        filter: &OperationLogFilter,
        page: &Page,
    ) -> Result<(Vec<OperationView>, u64)> {
        let mut tx = self.meta().read().await?;
        let (logs, count) = tx.operation_logs(caller.project, filter, page).await?;
        Ok((logs.into_iter().map(OperationView::from).collect(), count))
    }

    /// One of the project's operation logs.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowOpLog`, `GET /v3/{project_id}/operation-logs/{operation_log_id}`.
    pub async fn operation_log(
        &self,
        caller: &Caller,
        log: OperationLogId,
    ) -> Result<OperationView> {
        let mut tx = self.meta().read().await?;
        let log = tx.operation_log(caller.project, log).await?;
        Ok(log.ok_or(Refusal::OperationLogNotFound)?.into())
    }

    /// Has a task ended: what it began is undone, and its log says that it failed,
    /// by request. One that has ended so already is left as it is.
    ///
    /// Errors: `NotFound`; `Invalid` for a task that is over.
    pub async fn cancel_operation(
        &self,
        caller: &Caller,
        log: OperationLogId,
    ) -> Result<OperationView> {
        let mut tx = self.meta().begin().await?;
        let found = tx.operation_log(caller.project, log).await?;
        let found = found.ok_or(Refusal::OperationLogNotFound)?;
        let asked = tx.ask_to_cancel(log, self.now()).await?;
        let task = tx.task(log).await?.ok_or(Refusal::OperationLogNotFound)?;
        let asked_before = task.cancel_asked && task.state != TaskState::Succeeded;
        if !asked && !asked_before {
            let text = "Invalid operation_log_id provided. The task is over.";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(found.into())
    }

    /// Writes the public record of a task, which `caller` asked for, into the
    /// transaction that holds the task.
    pub(crate) async fn log_operation(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        new: NewOperation<'_>,
    ) -> Result<()> {
        let NewOperation { id, vault, .. } = new;
        let asked = (caller.project, caller.request_id.as_str());
        let plain =
            self.log_without_vault(asked, id, new.operation_type, new.resource, &new.detail);
        // What is about a whole vault is about the type that it protects.
        let protected = vault.object_type.resource_type();
        let log = OperationLog {
            vault: Some(vault.id),
            vault_name: vault.name.clone(),
            enterprise_project: vault.enterprise_project.clone(),
            checkpoint: new.checkpoint,
            policy: new.policy,
            resource_type: plain.resource_type.or(Some(protected)),
            ..plain
        };
        Ok(tx.insert_operation_log(&log).await?)
    }

    /// The record of a task that is about no vault of the project, and of the
    /// request that asked for it; without one, it was the service itself.
    pub(crate) fn log_without_vault(
        &self,
        (project, request_id): (ProjectId, &str),
        id: OperationLogId,
        operation_type: OperationType,
        resource: Option<(ResourceId, String, ResourceType)>,
        detail: &OperationDetail,
    ) -> OperationLog {
        let now = self.now();
        let (resource, resource_name, resource_type) = match resource {
            Some((id, name, resource_type)) => (Some(id), Some(name), Some(resource_type)),
            None => (None, None, None),
        };
        OperationLog {
            id,
            project,
            vault: None,
            vault_name: String::new(),
            checkpoint: None,
            policy: None,
            enterprise_project: NO_ENTERPRISE_PROJECT.to_owned(),
            operation_type,
            resource,
            resource_name,
            resource_type,
            detail: serde_json::to_value(detail).expect("details have string keys only"),
            created_at: now,
            status: OperationStatus::Waiting,
            started_at: None,
            ended_at: None,
            updated_at: now,
            done_bytes: 0,
            total_bytes: 0,
            error_code: String::new(),
            error_text: String::new(),
            request_id: request_id.to_owned(),
        }
    }
}

/// An operation log that is about to be written.
pub(crate) struct NewOperation<'a> {
    pub(crate) id: OperationLogId,
    pub(crate) vault: &'a cairn_meta::Vault,
    pub(crate) checkpoint: Option<cairn_types::CheckpointId>,
    /// The policy that asked for it, if one did.
    pub(crate) policy: Option<PolicyId>,
    pub(crate) operation_type: OperationType,
    pub(crate) resource: Option<(ResourceId, String, ResourceType)>,
    pub(crate) detail: OperationDetail,
}
