//! Shares: backups shown to other projects.

use cairn_types::{BackupId, MemberStatus, ProjectId, ShareId, Timestamp, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Page, Statement, insert, optional, text};
use crate::{Backup, Result, Tx};

/// One backup, shown to one other project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its id.
    pub id: ShareId,
    /// The backup.
    pub backup: BackupId,
    /// The project that it is shown to: the member.
    pub member: ProjectId,
    /// What the member made of it.
    pub status: MemberStatus,
    /// The member's vault that it was taken into.
    pub vault: Option<VaultId>,
    /// When it was shared.
    pub created_at: Timestamp,
    /// When the member last changed it.
    pub updated_at: Option<Timestamp>,
}

/// Which shares of a backup a list shows.
#[derive(Debug, Clone, Default)]
pub struct ShareFilter {
    /// Only that with this project.
    pub member: Option<ProjectId>,
    /// Only those in this state.
    pub status: Option<MemberStatus>,
    /// Only those taken into this vault.
    pub vault: Option<VaultId>,
}

/// A key to sort shares by, and whether descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSort {
    /// A column of shares.
    pub column: &'static str,
    /// Largest first.
    pub descending: bool,
}

impl FromRow for Share {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            backup: row.parsed("backup_id")?,
            member: row.parsed("dest_project_id")?,
            status: row.parsed("status")?,
            vault: row.optional_parsed("vault_id")?,
            created_at: row.time("created_at")?,
            updated_at: row.optional_time("updated_at")?,
        })
    }
}

fn filtered(select: &str, backup: BackupId, filter: &ShareFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("backup_id", Some(backup))
        .equals("dest_project_id", filter.member)
        .equals("status", filter.status)
        .equals("vault_id", filter.vault);
    statement
}

impl Tx {
    /// Adds a share.
    ///
    /// Errors: `Conflict` the backup is shared with that project already.
    pub async fn insert_share(&mut self, share: &Share) -> Result<()> {
        let columns = [
            ("id", text(share.id)),
            ("backup_id", text(share.backup)),
            ("dest_project_id", text(share.member)),
            ("status", text(share.status)),
            ("vault_id", optional(share.vault)),
            ("created_at", share.created_at.into()),
            ("updated_at", share.updated_at.into()),
        ];
        insert(self, "shares", columns).await
    }

    /// Writes what the member made of a share.
    pub async fn update_share(&mut self, share: &Share) -> Result<()> {
        let mut statement = Statement::new("UPDATE shares SET status = ");
        statement
            .bind(text(share.status))
            .push(", vault_id = ")
            .bind(optional(share.vault))
            .push(", updated_at = ")
            .bind(share.updated_at)
            .equals("id", Some(share.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Ends the sharing of a backup with a project; whether there was one.
    pub async fn remove_share(&mut self, backup: BackupId, member: ProjectId) -> Result<bool> {
        let mut statement = Statement::new("DELETE FROM shares");
        statement
            .equals("backup_id", Some(backup))
            .equals("dest_project_id", Some(member));
        Ok(statement.run(self).await? > 0)
    }

    /// Ends all sharing of a backup.
    pub(crate) async fn remove_shares_of(&mut self, backup: BackupId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM shares");
        statement.equals("backup_id", Some(backup));
        statement.run(self).await?;
        Ok(())
    }

    /// Leaves what was taken into a vault as not yet decided on: the vault goes.
    pub(crate) async fn release_shares_in(&mut self, vault: VaultId) -> Result<()> {
        let mut statement = Statement::new("UPDATE shares SET vault_id = NULL, status = ");
        statement
            .bind(text(MemberStatus::Pending))
            .equals("vault_id", Some(vault));
        statement.run(self).await?;
        Ok(())
    }

    /// The share of a backup with a project.
    pub async fn share(&mut self, backup: BackupId, member: ProjectId) -> Result<Option<Share>> {
        let filter = ShareFilter {
            member: Some(member),
            ..ShareFilter::default()
        };
        filtered("SELECT * FROM shares", backup, &filter)
            .one(self)
            .await
    }

    /// Whether a project shares a backup with another.
    pub async fn shares_between(&mut self, owner: ProjectId, member: ProjectId) -> Result<bool> {
        let mut statement =
            Statement::new("SELECT COUNT(*) FROM shares s JOIN backups b ON b.id = s.backup_id");
        statement
            .equals("s.dest_project_id", Some(member))
            .equals("b.project_id", Some(owner));
        Ok(statement.number(self).await? > 0)
    }

    /// The shares that a project has in some backups.
    pub async fn shares_with(
        &mut self,
        member: ProjectId,
        backups: &[BackupId],
    ) -> Result<Vec<Share>> {
        if backups.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new("SELECT * FROM shares");
        statement
            .equals("dest_project_id", Some(member))
            .one_of("backup_id", backups);
        statement.all(self).await
    }

    /// A page of a backup's shares, newest first unless `sort` says otherwise,
    /// and how many match in all. A marker goes by the first key.
    pub async fn shares(
        &mut self,
        backup: BackupId,
        filter: &ShareFilter,
        sort: &[ShareSort],
        page: &Page,
    ) -> Result<(Vec<Share>, u64)> {
        let count = filtered("SELECT COUNT(*) FROM shares", backup, filter);
        let count = count.number(self).await?;
        let newest = [ShareSort {
            column: "created_at",
            descending: true,
        }];
        let sort = if sort.is_empty() { &newest[..] } else { sort };
        let first = sort[0];
        let mut statement = filtered("SELECT * FROM shares", backup, filter);
        if let Some(marker) = &page.marker {
            let beyond = if first.descending { "<" } else { ">" };
            let column = first.column;
            statement.condition(&format!(
                "({column}, id) {beyond} (SELECT {column}, id FROM shares WHERE backup_id = "
            ));
            statement.bind(text(backup)).push(" AND id = ");
            statement.bind(marker.as_str()).push(")");
        }
        statement.push(" ORDER BY ");
        for key in sort {
            let direction = if key.descending { " DESC, " } else { ", " };
            statement.push(key.column).push(direction);
        }
        let last = if first.descending { "id DESC" } else { "id" };
        statement.push(last).page(page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// A backup that a project may see: its own, or one that is shared with it,
    /// top-level or a child.
    pub async fn visible_backup(
        &mut self,
        project: ProjectId,
        backup: BackupId,
    ) -> Result<Option<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .equals("id", Some(backup))
            .condition("(project_id = ")
            .bind(text(project))
            .push(
                " OR COALESCE(parent_id, id) IN \
                 (SELECT backup_id FROM shares WHERE dest_project_id = ",
            )
            .bind(text(project))
            .push("))");
        statement.one(self).await
    }
}
