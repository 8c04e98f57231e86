//! Replication records: which backup was copied where. How far a copy is
//! follows from its own row and its task, read with the record, so that they
//! cannot disagree; a record whose copy is deleted is history and not shown.
//! A copy in another region has no row here: then the task alone says how far it is.

use cairn_types::{
    BackupId, BackupStatus, CheckpointId, OperationLogId, ProjectId, ReplicationId,
    ReplicationStatus, ResourceId, Timestamp, VaultId,
};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Id, Statement, insert, text};
use crate::tasks::TaskState;
use crate::{Result, Tx};

/// A backup as a replication knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationEnd {
    /// The region it is in.
    pub region: String,
    /// Its project.
    pub project: ProjectId,
    /// Its vault.
    pub vault: VaultId,
    /// Its checkpoint.
    pub checkpoint: CheckpointId,
    /// The backup.
    pub backup: BackupId,
}

/// One copy of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// Its id.
    pub id: ReplicationId,
    /// The task that makes the copy.
    pub task: OperationLogId,
    /// Asked for by a policy.
    pub auto_trigger: bool,
    /// What is copied.
    pub source: ReplicationEnd,
    /// The copy.
    pub destination: ReplicationEnd,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// A replication with how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationView {
    /// The record.
    pub record: Replication,
    /// How far the copy is.
    pub status: ReplicationStatus,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes to copy; 0 while unknown.
    pub total_bytes: u64,
    /// The state of the task that makes the copy.
    pub task_state: TaskState,
    /// When the other region was last heard of, if there is one.
    pub heard_at: Option<Timestamp>,
    /// Whether the source has given it up, as the destination knows.
    pub withdrawn: bool,
}

/// How far a copy is whose row is here.
const fn status_of(copy: BackupStatus) -> ReplicationStatus {
    match copy {
        BackupStatus::WaitingProtect => ReplicationStatus::Waiting,
        BackupStatus::Protecting => ReplicationStatus::Replicating,
        BackupStatus::Error => ReplicationStatus::Fail,
        _ => ReplicationStatus::Success,
    }
}

/// How far a copy is in another region.
const fn status_there(task: TaskState) -> ReplicationStatus {
    match task {
        TaskState::Waiting => ReplicationStatus::Waiting,
        TaskState::Running | TaskState::Undoing => ReplicationStatus::Replicating,
        TaskState::Succeeded => ReplicationStatus::Success,
        TaskState::Failed | TaskState::Skipped => ReplicationStatus::Fail,
    }
}

impl FromRow for ReplicationView {
    fn from_row(row: &AnyRow) -> Result<Self> {
        let copy = row.optional_text("copy_status")?;
        let task_state: TaskState = row.parsed("task_state")?;
        let (status, error) = match copy {
            Some(_) => {
                let status = status_of(row.parsed("copy_status")?);
                (status, row.optional_text("copy_error")?)
            }
            None => {
                let error = row.text("task_error")?;
                let status = status_there(task_state);
                (status, Some(error).filter(|error| !error.is_empty()))
            }
        };
        Ok(Self {
            record: Replication {
                id: row.parsed("id")?,
                task: row.parsed("task_id")?,
                auto_trigger: row.flag("auto_trigger")?,
                source: ReplicationEnd {
                    region: row.text("source_region")?,
                    project: row.parsed("source_project_id")?,
                    vault: row.parsed("source_vault_id")?,
                    checkpoint: row.parsed("source_checkpoint_id")?,
                    backup: row.parsed("source_backup_id")?,
                },
                destination: ReplicationEnd {
                    region: row.text("destination_region")?,
                    project: row.parsed("destination_project_id")?,
                    vault: row.parsed("destination_vault_id")?,
                    checkpoint: row.parsed("destination_checkpoint_id")?,
                    backup: row.parsed("destination_backup_id")?,
                },
                created_at: row.time("created_at")?,
            },
            status,
            error,
            done_bytes: row.unsigned("done_bytes")?,
            total_bytes: row.unsigned("total_bytes")?,
            task_state,
            heard_at: row.optional_time("heard_at")?,
            withdrawn: row.flag("withdrawn")?,
        })
    }
}

const REPLICATION: &str = "SELECT r.*, c.status AS copy_status, c.error_message AS copy_error, \
    t.done_bytes, t.total_bytes, t.state AS task_state, t.error_text AS task_error \
    FROM replications r LEFT JOIN backups c ON c.id = r.destination_backup_id \
    JOIN tasks t ON t.id = r.task_id";

/// The copy is there, or in another region.
const NOT_HISTORY: &str = "(c.id IS NOT NULL OR r.destination_region <> r.source_region)";

impl Tx {
    /// Adds the record of a copy whose row and task are in the transaction already.
    pub async fn insert_replication(&mut self, replication: &Replication) -> Result<()> {
        let (source, destination) = (&replication.source, &replication.destination);
        let columns = [
            ("id", text(replication.id)),
            ("task_id", text(replication.task)),
            ("auto_trigger", replication.auto_trigger.into()),
            ("source_region", text(&source.region)),
            ("source_project_id", text(source.project)),
            ("source_vault_id", text(source.vault)),
            ("source_checkpoint_id", text(source.checkpoint)),
            ("source_backup_id", text(source.backup)),
            ("destination_region", text(&destination.region)),
            ("destination_project_id", text(destination.project)),
            ("destination_vault_id", text(destination.vault)),
            ("destination_checkpoint_id", text(destination.checkpoint)),
            ("destination_backup_id", text(destination.backup)),
            ("created_at", replication.created_at.into()),
        ];
        insert(self, "replications", columns).await
    }

    /// The copies of some of a project's backups, newest first.
    pub async fn replications_of(
        &mut self,
        project: ProjectId,
        backups: &[BackupId],
    ) -> Result<Vec<ReplicationView>> {
        if backups.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new(REPLICATION);
        statement
            .equals("r.source_project_id", Some(project))
            .one_of("r.source_backup_id", backups)
            .condition(NOT_HISTORY)
            .push(" ORDER BY r.created_at DESC, r.id DESC");
        statement.all(self).await
    }

    /// How many copies are being made of the backups that are in a vault now,
    /// those of one resource or one backup if it is given.
    pub async fn replications_under_way(
        &mut self,
        vault: VaultId,
        resource: Option<ResourceId>,
        backup: Option<BackupId>,
    ) -> Result<u64> {
        let mut statement = Statement::new(
            "SELECT COUNT(*) FROM replications r \
             JOIN backups s ON s.id = r.source_backup_id \
             JOIN tasks t ON t.id = r.task_id \
             LEFT JOIN backups c ON c.id = r.destination_backup_id",
        );
        statement
            .equals("s.vault_id", Some(vault))
            .equals("s.id", backup)
            .equals("s.resource_id", resource)
            .condition(
                "(c.status IN ('waiting_protect', 'protecting') OR c.id IS NULL \
                 AND r.destination_region <> r.source_region \
                 AND t.state IN ('waiting', 'running', 'undoing'))",
            );
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// Those of some backups of which a copy was ever made in a vault, though it may be gone.
    pub async fn replicated_into(
        &mut self,
        destination: VaultId,
        backups: &[BackupId],
    ) -> Result<Vec<BackupId>> {
        if backups.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new(
            "SELECT DISTINCT r.source_backup_id AS id FROM replications r \
             JOIN tasks t ON t.id = r.task_id",
        );
        statement
            .equals("r.destination_vault_id", Some(destination))
            .one_of("r.source_backup_id", backups)
            .condition("t.state = 'succeeded'");
        let found: Vec<Id<BackupId>> = statement.all(self).await?;
        Ok(found.into_iter().map(|Id(backup)| backup).collect())
    }

    /// The record of a copy that comes, or came, to a project from another region.
    pub async fn replication_into(
        &mut self,
        project: ProjectId,
        copy: BackupId,
    ) -> Result<Option<ReplicationView>> {
        let mut statement = Statement::new(REPLICATION);
        statement
            .equals("r.destination_backup_id", Some(copy))
            .equals("r.destination_project_id", Some(project))
            .condition("r.destination_region <> r.source_region");
        statement.one(self).await
    }

    /// The copies that there are in a project of a backup in another region, newest first.
    pub async fn replications_from(
        &mut self,
        project: ProjectId,
        source: &ReplicationEnd,
    ) -> Result<Vec<ReplicationView>> {
        let mut statement = Statement::new(REPLICATION);
        statement
            .equals("r.source_backup_id", Some(source.backup))
            .equals("r.source_region", Some(&source.region))
            .equals("r.destination_project_id", Some(project))
            .condition("c.id IS NOT NULL ORDER BY r.created_at DESC, r.id DESC");
        statement.all(self).await
    }

    /// The checkpoint in a vault of what was copied from a checkpoint of
    /// another region, if any of it is still there.
    pub async fn checkpoint_copied_from(
        &mut self,
        vault: VaultId,
        source: &ReplicationEnd,
    ) -> Result<Option<CheckpointId>> {
        let mut statement = Statement::new(REPLICATION);
        statement
            .equals("r.source_checkpoint_id", Some(source.checkpoint))
            .equals("r.source_region", Some(&source.region))
            .equals("r.destination_vault_id", Some(vault))
            .condition("c.id IS NOT NULL ORDER BY r.created_at DESC, r.id DESC LIMIT 1");
        let found: Option<ReplicationView> = statement.one(self).await?;
        Ok(found.map(|view| view.record.destination.checkpoint))
    }

    /// Notes that the other region was heard of.
    pub async fn set_heard(&mut self, replication: ReplicationId, at: Timestamp) -> Result<()> {
        let mut statement = Statement::new("UPDATE replications SET heard_at = ");
        statement.bind(at).equals("id", Some(replication));
        statement.run(self).await?;
        Ok(())
    }

    /// Notes that the source has given a copy up.
    pub async fn set_withdrawn(&mut self, replication: ReplicationId) -> Result<()> {
        let mut statement = Statement::new("UPDATE replications SET withdrawn = 1");
        statement.equals("id", Some(replication));
        statement.run(self).await?;
        Ok(())
    }
}
