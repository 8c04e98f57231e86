//! Backups that were taken over from another site's repository, and where they are from.

use cairn_types::{BackupId, CheckpointId, OperationLogId, ProjectId, Timestamp, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, optional, text};
use crate::{Result, Tx};

/// One backup of another site, or a disk of one, and what it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The project that has it now.
    pub project: ProjectId,
    /// The backup here; it may have been deleted since.
    pub backup: BackupId,
    /// The vault that it was taken into.
    pub vault: VaultId,
    /// Where it is from.
    pub origin: Origin,
    /// The checkpoint that it was made in there.
    pub origin_checkpoint: CheckpointId,
    /// What the configuration calls the other site's repository.
    pub external: String,
    /// The task that took it over.
    pub task: OperationLogId,
    /// Since when the other site is known to have it no more.
    pub gone_at: Option<Timestamp>,
}

/// A backup in a repository of another site.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// What tells the repository from every other.
    pub repository: String,
    /// The project there.
    pub project: ProjectId,
    /// The backup there.
    pub backup: BackupId,
}

impl FromRow for Import {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            project: row.parsed("project_id")?,
            backup: row.parsed("backup_id")?,
            vault: row.parsed("vault_id")?,
            origin: Origin {
                repository: row.text("repository_id")?,
                project: row.parsed("origin_project_id")?,
                backup: row.parsed("origin_backup_id")?,
            },
            origin_checkpoint: row.parsed("origin_checkpoint_id")?,
            external: row.text("external")?,
            task: row.parsed("task_id")?,
            gone_at: row.optional_time("gone_at")?,
        })
    }
}

impl Tx {
    /// Notes where a backup is from.
    ///
    /// Errors: `Conflict` the project has taken it over already.
    pub async fn insert_import(&mut self, import: &Import) -> Result<()> {
        let columns = [
            ("project_id", text(import.project)),
            ("repository_id", text(&import.origin.repository)),
            ("origin_project_id", text(import.origin.project)),
            ("origin_backup_id", text(import.origin.backup)),
            ("origin_checkpoint_id", text(import.origin_checkpoint)),
            ("backup_id", text(import.backup)),
            ("vault_id", text(import.vault)),
            ("external", text(&import.external)),
            ("task_id", text(import.task)),
            ("gone_at", import.gone_at.into()),
            ("gone_task_id", optional(None::<OperationLogId>)),
        ];
        insert(self, "imports", columns).await
    }

    /// Whether a backup was taken over from another site.
    pub async fn is_imported(&mut self, backup: BackupId) -> Result<bool> {
        Ok(!self.imports_of(&[backup]).await?.is_empty())
    }

    /// Where some backups are from; nothing of those that were made here.
    pub async fn imports_of(&mut self, backups: &[BackupId]) -> Result<Vec<Import>> {
        if backups.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new("SELECT * FROM imports");
        statement.one_of("backup_id", backups);
        statement.all(self).await
    }

    /// What a project has taken over from a repository.
    pub async fn imports_from(
        &mut self,
        project: ProjectId,
        repository: &str,
    ) -> Result<Vec<Import>> {
        let mut statement = Statement::new("SELECT * FROM imports");
        statement
            .equals("project_id", Some(project))
            .equals("repository_id", Some(repository));
        statement.all(self).await
    }

    /// What a task has taken over, or is about to.
    pub async fn imports_by(&mut self, task: OperationLogId) -> Result<Vec<Import>> {
        let mut statement = Statement::new("SELECT * FROM imports");
        statement.equals("task_id", Some(task));
        statement.all(self).await
    }

    /// How many backups a task has found to be gone at their site.
    pub async fn gone_found_by(&mut self, task: OperationLogId) -> Result<u64> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM imports");
        statement.equals("gone_task_id", Some(task));
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// Notes that a task found a backup to be gone at its site, or there again.
    pub async fn set_gone(
        &mut self,
        import: &Import,
        gone: Option<(Timestamp, OperationLogId)>,
    ) -> Result<()> {
        let mut statement = Statement::new("UPDATE imports SET gone_at = ");
        statement
            .bind(gone.map(|(at, _)| at))
            .push(", gone_task_id = ")
            .bind(optional(gone.map(|(_, task)| task)));
        of_origin(&mut statement, import);
        statement.run(self).await?;
        Ok(())
    }

    /// Forgets that a backup was taken over: it can be again.
    pub async fn remove_import(&mut self, import: &Import) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM imports");
        of_origin(&mut statement, import);
        statement.run(self).await?;
        Ok(())
    }

    /// Forgets what was taken into a vault, which goes.
    pub(crate) async fn remove_imports_into(&mut self, vault: VaultId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM imports");
        statement.equals("vault_id", Some(vault));
        statement.run(self).await?;
        Ok(())
    }

    /// Whether a backup or a checkpoint of any project has this id.
    pub async fn is_id_taken(&mut self, id: impl std::fmt::Display) -> Result<bool> {
        for table in ["backups", "checkpoints"] {
            let mut statement = Statement::new("SELECT COUNT(*) FROM ");
            statement.push(table).equals("id", Some(&id));
            if statement.number(self).await? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn of_origin(statement: &mut Statement, import: &Import) {
    statement
        .equals("project_id", Some(import.project))
        .equals("repository_id", Some(&import.origin.repository))
        .equals("origin_project_id", Some(import.origin.project))
        .equals("origin_backup_id", Some(import.origin.backup));
}
