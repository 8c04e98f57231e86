//! Checkpoints.

use cairn_types::{CheckpointId, ProjectId, ResourceId, ResourceType, Timestamp, VaultId};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, json, text};
use crate::{Result, Tx};

/// One act of protecting a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The project that owns it.
    pub project: ProjectId,
    /// The vault.
    pub vault: VaultId,
    /// The vault's name at the time.
    pub vault_name: String,
    /// The name that its backups were asked to have.
    pub name: String,
    /// What was said of it.
    pub description: String,
    /// How long its backups live, in days; -1 for ever.
    pub retention_days: i64,
    /// What was not backed up, and why.
    pub skipped: Vec<Skipped>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// A resource that a checkpoint left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The resource.
    pub id: ResourceId,
    /// Its type.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a checkpoint leaves a resource out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// No source has it any more.
    Gone,
    /// It is being backed up already.
    Protecting,
    /// It is being restored.
    Restoring,
    /// It is being taken out of the vault.
    Removing,
}

impl FromRow for Checkpoint {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            vault: row.parsed("vault_id")?,
            vault_name: row.text("vault_name")?,
            name: row.text("name")?,
            description: row.text("description")?,
            retention_days: row.integer("retention_days")?,
            skipped: row.json("skipped")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl Tx {
    /// Adds a checkpoint.
    pub async fn insert_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let columns = [
            ("id", text(checkpoint.id)),
            ("project_id", text(checkpoint.project)),
            ("vault_id", text(checkpoint.vault)),
            ("vault_name", text(&checkpoint.vault_name)),
            ("name", text(&checkpoint.name)),
            ("description", text(&checkpoint.description)),
            ("retention_days", checkpoint.retention_days.into()),
            ("skipped", json(&checkpoint.skipped)),
            ("created_at", checkpoint.created_at.into()),
        ];
        insert(self, "checkpoints", columns).await
    }

    /// A project's checkpoint.
    pub async fn checkpoint(
        &mut self,
        project: ProjectId,
        checkpoint: CheckpointId,
    ) -> Result<Option<Checkpoint>> {
        let mut statement = Statement::new("SELECT * FROM checkpoints");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(checkpoint));
        statement.one(self).await
    }

    /// Removes a checkpoint if it has no backup left.
    pub async fn remove_checkpoint_if_empty(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM checkpoints");
        statement.equals("id", Some(checkpoint));
        statement.condition("NOT EXISTS (SELECT 1 FROM backups WHERE checkpoint_id = ");
        statement.bind(text(checkpoint)).push(")");
        statement.run(self).await?;
        Ok(())
    }
}
