//! Restores under way: which backup each reads, and what it overwrites.

use cairn_types::{BackupId, OperationLogId, ProjectId, ResourceId, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, text};
use crate::{Result, Tx};

/// The restores whose tasks are not over.
const UNDER_WAY: &str = "SELECT r.backup_id FROM restores r JOIN tasks t ON t.id = r.task_id \
    AND t.state IN ('waiting', 'running', 'undoing')";

struct Read(BackupId);

impl FromRow for Read {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self(row.parsed("backup_id")?))
    }
}

impl Tx {
    /// Notes what a task's restore reads and what it overwrites.
    pub async fn insert_restore(
        &mut self,
        task: OperationLogId,
        backup: BackupId,
        resources: &[ResourceId],
    ) -> Result<()> {
        for resource in resources {
            let columns = [
                ("task_id", text(task)),
                ("backup_id", text(backup)),
                ("resource_id", text(resource)),
            ];
            insert(self, "restores", columns).await?;
        }
        Ok(())
    }

    /// Forgets a task's restore; one that is forgotten already is fine.
    pub async fn remove_restore(&mut self, task: OperationLogId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM restores");
        statement.equals("task_id", Some(task));
        statement.run(self).await?;
        Ok(())
    }

    /// Notes that the server which a task's restore overwrites ran until it was turned off for that.
    pub async fn set_was_running(&mut self, task: OperationLogId) -> Result<()> {
        let mut statement = Statement::new("UPDATE restores SET was_running = 1");
        statement.equals("task_id", Some(task));
        statement.run(self).await?;
        Ok(())
    }

    /// Whether the server that a task's restore overwrites ran until then.
    pub async fn was_running(&mut self, task: OperationLogId) -> Result<bool> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM restores");
        statement
            .equals("task_id", Some(task))
            .equals("was_running", Some(1));
        Ok(statement.number(self).await? > 0)
    }

    /// Whether a restore reads a backup.
    pub async fn is_restored_from(&mut self, backup: BackupId) -> Result<bool> {
        let mut statement = Statement::new(UNDER_WAY);
        statement.equals("r.backup_id", Some(backup));
        Ok(self.first_read(statement).await?.is_some())
    }

    /// Whether a project restores a backup.
    pub async fn is_restored_by(&mut self, backup: BackupId, project: ProjectId) -> Result<bool> {
        let mut statement = Statement::new(UNDER_WAY);
        statement
            .push(" JOIN operation_logs l ON l.id = r.task_id")
            .equals("r.backup_id", Some(backup))
            .equals("l.project_id", Some(project));
        Ok(self.first_read(statement).await?.is_some())
    }

    /// Whether a restore overwrites a resource.
    pub async fn is_restored_onto(&mut self, resource: ResourceId) -> Result<bool> {
        let mut statement = Statement::new(UNDER_WAY);
        statement.equals("r.resource_id", Some(resource));
        Ok(self.first_read(statement).await?.is_some())
    }

    /// A backup that a restore reads and that lies in a vault, its owner's or that
    /// of a member who restores it; of one resource alone, if it is given.
    pub async fn restored_from_vault(
        &mut self,
        vault: VaultId,
        resource: Option<ResourceId>,
    ) -> Result<Option<BackupId>> {
        let mut statement = Statement::new(UNDER_WAY);
        statement
            .push(" JOIN operation_logs l ON l.id = r.task_id JOIN backups b ON b.id = r.backup_id")
            .condition("(b.vault_id = ")
            .bind(text(vault))
            .push(" OR l.vault_id = ")
            .bind(text(vault))
            .push(")")
            .equals("b.resource_id", resource);
        self.first_read(statement).await
    }

    async fn first_read(&mut self, mut statement: Statement) -> Result<Option<BackupId>> {
        statement.push(" LIMIT 1");
        let found: Option<Read> = statement.one(self).await?;
        Ok(found.map(|read| read.0))
    }
}
