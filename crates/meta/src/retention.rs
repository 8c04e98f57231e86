//! What retention asks and writes: which backups policies made, and which have ended.

use cairn_types::{BackupId, OperationDefinition, ResourceId, Timestamp, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement};
use crate::{Backup, Result, Tx};

/// A backup that a policy made, as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomaticBackup {
    /// The backup.
    pub id: BackupId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ends; never, if not given.
    pub expired_at: Option<Timestamp>,
    /// What its policy did with what it made, then.
    pub made_under: Option<OperationDefinition>,
}

impl FromRow for AutomaticBackup {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            created_at: row.time("created_at")?,
            expired_at: row.optional_time("expired_at")?,
            made_under: match row.optional_text("made_under")? {
                Some(_) => Some(row.json("made_under")?),
                None => None,
            },
        })
    }
}

/// Backups that have ended and that nothing holds any more: no run of their resource,
/// no copy that is being made of them, no deletion of their vault.
const ENDED: &str = "SELECT b.* FROM backups b WHERE b.parent_id IS NULL \
    AND b.status IN ('available', 'error') \
    AND NOT EXISTS (SELECT 1 FROM backups r WHERE r.resource_id = b.resource_id \
        AND r.status IN ('waiting_protect', 'protecting')) \
    AND NOT EXISTS (SELECT 1 FROM replications c JOIN tasks t ON t.id = c.task_id \
        WHERE c.source_backup_id = b.id AND t.state IN ('waiting', 'running', 'undoing')) \
    AND NOT EXISTS (SELECT 1 FROM vaults v WHERE v.id = b.vault_id AND v.status = 'deleting') \
    AND b.expired_at <= ";

impl Tx {
    /// The backups of a resource in a vault that policies made and that can be
    /// restored, oldest first.
    pub async fn automatic_backups(
        &mut self,
        vault: VaultId,
        resource: ResourceId,
    ) -> Result<Vec<AutomaticBackup>> {
        self.made_by_policies(
            (vault, resource),
            "status IN ('available', 'waiting_restore', 'restoring')",
        )
        .await
    }

    /// Those that policies could not make, oldest first.
    pub async fn failed_automatic_backups(
        &mut self,
        vault: VaultId,
        resource: ResourceId,
    ) -> Result<Vec<AutomaticBackup>> {
        self.made_by_policies(
            (vault, resource),
            "status = 'error' AND protected_at IS NULL",
        )
        .await
    }

    async fn made_by_policies(
        &mut self,
        (vault, resource): (VaultId, ResourceId),
        state: &str,
    ) -> Result<Vec<AutomaticBackup>> {
        let columns = "SELECT id, created_at, expired_at, made_under FROM backups";
        let mut statement = Statement::new(columns);
        statement
            .equals("vault_id", Some(vault))
            .equals("resource_id", Some(resource))
            .condition("parent_id IS NULL AND auto_trigger = 1")
            .condition(state)
            .push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// Has backups end at an instant, or never, with their disks.
    pub async fn end_backups(
        &mut self,
        backups: &[BackupId],
        at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        for column in ["id", "parent_id"] {
            if backups.is_empty() {
                return Ok(());
            }
            let mut statement = Statement::new("UPDATE backups SET expired_at = ");
            statement.bind(at).push(", updated_at = ").bind(now);
            statement.one_of(column, backups);
            statement.run(self).await?;
        }
        Ok(())
    }

    /// Up to `limit` backups that have ended and that nothing holds, the longest first.
    pub async fn ended_backups(&mut self, now: Timestamp, limit: u32) -> Result<Vec<Backup>> {
        let mut statement = Statement::new(ENDED);
        statement
            .bind(now)
            .push(" ORDER BY b.expired_at, b.id LIMIT ")
            .bind(i64::from(limit));
        statement.all(self).await
    }

    /// When the next backup ends, if one ever does.
    pub async fn next_end(&mut self) -> Result<Option<Timestamp>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .condition("parent_id IS NULL AND status IN ('available', 'error')")
            .condition("expired_at IS NOT NULL")
            .push(" ORDER BY expired_at LIMIT 1");
        let next: Option<Backup> = statement.one(self).await?;
        Ok(next.and_then(|backup| backup.expired_at))
    }

    /// When a resource was last read as a whole for a backup in a vault, and how many
    /// backups have built on that since.
    pub async fn last_full(
        &mut self,
        vault: VaultId,
        resource: ResourceId,
    ) -> Result<Option<(Timestamp, u32)>> {
        let of_resource = |select: &str| {
            let mut statement = Statement::new(select);
            statement
                .equals("vault_id", Some(vault))
                .equals("resource_id", Some(resource))
                .condition("parent_id IS NULL AND protected_at IS NOT NULL");
            statement
        };
        let mut full = of_resource("SELECT * FROM backups");
        full.condition("incremental = 0 ORDER BY created_at DESC LIMIT 1");
        let Some(full) = full.one::<Backup>(self).await? else {
            return Ok(None);
        };
        let mut later = of_resource("SELECT COUNT(*) FROM backups");
        later
            .condition("incremental = 1 AND created_at > ")
            .bind(full.created_at);
        let later = later.number(self).await?;
        let later = u32::try_from(later).unwrap_or(u32::MAX);
        Ok(Some((full.created_at, later)))
    }

    /// Whether a run of a policy is under way in a vault.
    pub async fn is_policy_at_work(&mut self, vault: VaultId) -> Result<bool> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM backups");
        statement
            .equals("vault_id", Some(vault))
            .condition("parent_id IS NULL AND auto_trigger = 1")
            .condition("status IN ('waiting_protect', 'protecting')");
        Ok(statement.number(self).await? > 0)
    }
}
