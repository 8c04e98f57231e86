//! Verification: whether backups could be restored, when somebody asks and by
//! a schedule. What was found is kept for each backup.

use cairn_meta::tasks::Task as TaskRow;
use cairn_meta::{Page, Tx, VerificationFilter, VerifiedBackup};
use cairn_types::{
    BackupId, BackupStatus, OperationLogId, OperationType, ProjectId, Timestamp, VaultId,
    VerifyLevel,
};
use serde::{Deserialize, Serialize};

use crate::operation_log::NewOperation;
use crate::work::Task;
use crate::{Caller, OperationDetail, Refusal, Result, Service};

const SECONDS_PER_HOUR: i64 = 60 * 60;
/// How long a backup that could not be looked at is left alone by the schedule.
const RETRY_SECONDS: i64 = SECONDS_PER_HOUR;

/// How often the service looks at backups by itself. Never, where it says 0. A
/// full look counts as a quick one, and making a backup as a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerificationSchedule {
    /// Whether everything is there and as it was written.
    pub quick_every_hours: u32,
    /// Also whether it opens, and holds what it should.
    pub full_every_days: u32,
}

impl Default for VerificationSchedule {
    fn default() -> Self {
        Self {
            quick_every_hours: 7 * 24,
            full_every_days: 30,
        }
    }
}

impl VerificationSchedule {
    /// What is due was last looked at then, or before; nothing is, if it never is.
    fn due_since(self, level: VerifyLevel, now: Timestamp) -> Option<Timestamp> {
        let hours = match level {
            VerifyLevel::Quick => i64::from(self.quick_every_hours),
            VerifyLevel::Full => i64::from(self.full_every_days) * 24,
        };
        (hours > 0).then(|| now.plus_seconds(-hours * SECONDS_PER_HOUR))
    }
}

/// Which of a project's backups a verification looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyScope {
    /// All, and every object of the project's part of the repository.
    Project,
    /// Those of a vault.
    Vault(VaultId),
    /// One, with those of its disks if it is a server's.
    Backup(BackupId),
}

impl Service {
    /// Has backups verified by a task and returns the operation log to watch:
    /// that of an earlier request, if one for the same still waits for its turn.
    /// One verification in all is at work at a time.
    ///
    /// Errors: `NotFound`; `Conflict` or `Invalid` for a backup that is not there to be restored.
    pub async fn start_verification(
        &self,
        caller: &Caller,
        level: VerifyLevel,
        scope: VerifyScope,
    ) -> Result<OperationLogId> {
        let mut tx = self.meta().begin().await?;
        let (vault, resource) = match scope {
            VerifyScope::Project => (None, None),
            VerifyScope::Vault(vault) => (Some(vault), None),
            VerifyScope::Backup(backup) => {
                let backup = tx.backup(caller.project, backup).await?;
                let backup = backup.ok_or(Refusal::BackupNotFound)?;
                refuse_unrestorable(backup.id, backup.status)?;
                let resource = (backup.resource, backup.resource_name, backup.resource_type);
                (Some(backup.vault), Some(resource))
            }
        };
        let vault = match vault {
            Some(vault) => {
                let vault = tx.vault(caller.project, vault).await?;
                Some(vault.ok_or(Refusal::VaultNotFound)?)
            }
            None => None,
        };
        let project = caller.project;
        let task = Task::Verify {
            project,
            level,
            scope,
        };
        let waiting = tx.waiting_task(task.kind(), &task.payload()).await?;
        if let Some(waiting) = waiting {
            return Ok(waiting);
        }
        let Some(vault) = vault else {
            let id = self
                .enqueue_verification(&mut tx, (project, &caller.request_id), level)
                .await?;
            tx.commit().await?;
            self.wake_engine();
            return Ok(id);
        };
        let id = OperationLogId::random();
        let operation = NewOperation {
            id,
            vault: &vault,
            checkpoint: None,
            policy: None,
            operation_type: OperationType::Verify,
            resource,
            detail: OperationDetail::Verify { level },
        };
        self.enqueue(&mut tx, caller, &task, operation).await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(id)
    }

    /// Adds the verification of a whole project, asked for by a request or, if
    /// that is empty, by the schedule.
    async fn enqueue_verification(
        &self,
        tx: &mut Tx,
        (project, request_id): (ProjectId, &str),
        level: VerifyLevel,
    ) -> Result<OperationLogId> {
        let id = OperationLogId::random();
        let task = Task::Verify {
            project,
            level,
            scope: VerifyScope::Project,
        };
        let row = TaskRow::new(id, task.kind(), task.payload(), request_id, self.now());
        tx.insert_task(&row).await?;
        let detail = OperationDetail::Verify { level };
        let asked = (project, request_id);
        let log = self.log_without_vault(asked, id, OperationType::Verify, None, &detail);
        tx.insert_operation_log(&log).await?;
        Ok(id)
    }

    /// Starts the verification that is due, if one is and none is under way: of the project
    /// whose backup was not looked at for the longest time. One project follows
    /// the other, so that a large repository is looked at by and by.
    pub async fn verify_what_is_due(&self) -> Result<Option<ProjectId>> {
        let (now, schedule) = (self.now(), self.verification_schedule());
        let mut tx = self.meta().begin().await?;
        if tx
            .unfinished_tasks_of(cairn_meta::tasks::ONE_AT_A_TIME)
            .await?
            > 0
        {
            return Ok(None);
        }
        let tried_until = now.plus_seconds(-RETRY_SECONDS);
        for level in [VerifyLevel::Full, VerifyLevel::Quick] {
            let Some(seen_until) = schedule.due_since(level, now) else {
                continue;
            };
            let next = tx.next_to_verify(level, seen_until, tried_until).await?;
            if let Some(project) = next {
                self.enqueue_verification(&mut tx, (project, ""), level)
                    .await?;
                tx.commit().await?;
                self.wake_engine();
                return Ok(Some(project));
            }
        }
        Ok(None)
    }

    /// A page of what is known of the project's backups, newest first, and how many match in all.
    pub async fn verifications(
        &self,
        caller: &Caller,
        filter: &VerificationFilter,
        page: &Page,
    ) -> Result<(Vec<VerifiedBackup>, u64)> {
        let mut tx = self.meta().read().await?;
        Ok(tx.verifications(caller.project, filter, page).await?)
    }

    /// What is known of one of the project's backups, top-level or a disk's.
    ///
    /// Errors: `NotFound`.
    pub async fn verification(&self, caller: &Caller, id: BackupId) -> Result<VerifiedBackup> {
        let mut tx = self.meta().read().await?;
        let backup = tx.backup(caller.project, id).await?;
        Ok(VerifiedBackup {
            backup: backup.ok_or(Refusal::BackupNotFound)?,
            verification: tx.verification(caller.project, id).await?,
        })
    }
}

/// Whether a backup in this state is there to be restored.
pub(crate) const fn is_restorable(status: BackupStatus) -> bool {
    matches!(
        status,
        BackupStatus::Available | BackupStatus::WaitingRestore | BackupStatus::Restoring
    )
}

fn refuse_unrestorable(id: BackupId, status: BackupStatus) -> Result<()> {
    match status {
        _ if is_restorable(status) => Ok(()),
        BackupStatus::Error => {
            let state = status.to_string();
            Err(Refusal::BackupStateForbidsRestore { state }.into())
        }
        _ => Err(Refusal::BackupBusy { id }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_where_the_schedule_says_never() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let schedule = VerificationSchedule {
            quick_every_hours: 2,
            full_every_days: 0,
        };
        assert_eq!(
            schedule.due_since(VerifyLevel::Quick, now),
            Some(now.plus_seconds(-7200))
        );
        assert_eq!(schedule.due_since(VerifyLevel::Full, now), None);
    }
}
