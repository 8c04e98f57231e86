//! Packs that unfinished work has begun, by the names that the repository gives them.

use cairn_types::{OperationLogId, ProjectId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, text};
use crate::{Result, Tx};

struct HeldPack(String);

impl FromRow for HeldPack {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self(row.text("pack")?))
    }
}

impl Tx {
    /// Notes that a task has begun a pack, whose name is new.
    pub async fn hold_pack(
        &mut self,
        task: OperationLogId,
        project: ProjectId,
        pack: &str,
    ) -> Result<()> {
        let columns = [
            ("task_id", text(task)),
            ("project_id", text(project)),
            ("pack", text(pack)),
        ];
        insert(self, "held_packs", columns).await
    }

    /// The packs of a project that tasks which are not over have begun.
    pub async fn held_packs(&mut self, project: ProjectId) -> Result<Vec<String>> {
        let mut statement = Statement::new(
            "SELECT h.pack FROM held_packs h JOIN tasks t ON t.id = h.task_id \
             AND t.state IN ('waiting', 'running', 'undoing')",
        );
        statement
            .equals("h.project_id", Some(project))
            .push(" ORDER BY h.pack");
        let held: Vec<HeldPack> = statement.all(self).await?;
        Ok(held.into_iter().map(|pack| pack.0).collect())
    }

    /// Forgets what a task has begun.
    pub async fn release_packs(&mut self, task: OperationLogId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM held_packs");
        statement.equals("task_id", Some(task));
        statement.run(self).await?;
        Ok(())
    }

    /// Forgets what tasks have begun that are over.
    pub async fn release_packs_of_ended(&mut self, project: ProjectId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM held_packs");
        statement
            .equals("project_id", Some(project))
            .condition("task_id IN (SELECT id FROM tasks WHERE state NOT IN ('waiting', 'running', 'undoing'))");
        statement.run(self).await?;
        Ok(())
    }
}
