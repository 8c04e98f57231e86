//! Backups.

use cairn_types::{
    BackupId, BackupStatus, CheckpointId, MemberStatus, ProjectId, ResourceId, ResourceType,
    Timestamp, VaultId,
};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Page, Statement, insert, optional, text};
use crate::vaults::signed;
use crate::{Error, Result, Tx};

/// One resource's copy in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// The project that owns it.
    pub project: ProjectId,
    /// The vault it counts against.
    pub vault: VaultId,
    /// The checkpoint that it was made in.
    pub checkpoint: CheckpointId,
    /// For a server's disk: the server's backup.
    pub parent: Option<BackupId>,
    /// Its name.
    pub name: String,
    /// What was said of it.
    pub description: String,
    /// Its state.
    pub status: BackupStatus,
    /// The resource.
    pub resource: ResourceId,
    /// The resource's name at the time.
    pub resource_name: String,
    /// The resource's type.
    pub resource_type: ResourceType,
    /// The resource's size at the time.
    pub size_bytes: u64,
    /// What it counts against its vault: the bytes that were new when it was made.
    pub used_bytes: u64,
    /// `backup` or `replication`.
    pub image_type: String,
    /// Whether an earlier backup of the resource was there to build on.
    pub incremental: bool,
    /// Made by a policy.
    pub auto_trigger: bool,
    /// A disk that its server boots from, or a server with such a disk in the backup.
    pub system_disk: bool,
    /// The enterprise project of its vault.
    pub enterprise_project: String,
    /// The Merkle root of its content, once it has one, in hexadecimal.
    pub root: Option<String>,
    /// Why it is in error.
    pub error_message: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it became available.
    pub protected_at: Option<Timestamp>,
    /// When it ends; never, if not given.
    pub expired_at: Option<Timestamp>,
}

impl Backup {
    /// Takes the backup to its next state; staying in the one it has is allowed,
    /// because work may be repeated.
    ///
    /// Errors: `Bug` if that state may not follow.
    pub fn advance(&mut self, next: BackupStatus, now: Timestamp) -> Result<()> {
        if next != self.status && !self.status.may_become(next) {
            let (id, from) = (self.id, self.status);
            return Err(Error::Transition { id, from, to: next });
        }
        self.status = next;
        self.updated_at = now;
        Ok(())
    }
}

/// Whose backups a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackupScope {
    /// The project's own.
    #[default]
    Own,
    /// Those that others share with it.
    Shared,
    /// Both.
    Both,
}

/// Which backups a list shows a project; top-level ones unless `parent` is given.
#[derive(Debug, Clone, Default)]
pub struct BackupFilter {
    /// Whose.
    pub scope: BackupScope,
    /// Only those shared with the project whose share stands so; none of its own.
    pub share_status: Option<MemberStatus>,
    /// Only those of this checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// Only those of this vault.
    pub vault: Option<VaultId>,
    /// Only those of this resource.
    pub resource: Option<ResourceId>,
    /// Only those whose resource's name contains this.
    pub resource_name: Option<String>,
    /// Only those of this type of resource.
    pub resource_type: Option<String>,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Only those in one of these states.
    pub status: Vec<String>,
    /// Only those of this image type.
    pub image_type: Option<String>,
    /// Only those that are (or are not) incremental.
    pub incremental: Option<bool>,
    /// The children of this backup.
    pub parent: Option<BackupId>,
    /// Only those of this enterprise project.
    pub enterprise_project: Option<String>,
    /// Only those made at or after this.
    pub created_from: Option<Timestamp>,
    /// Only those made at or before this.
    pub created_until: Option<Timestamp>,
    /// Only those whose vault is used to at least this many percent.
    pub used_percent: Option<u64>,
}

/// A key to sort by, and whether descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSort {
    /// One of the columns that CBR sorts by.
    pub column: &'static str,
    /// Largest first.
    pub descending: bool,
}

impl FromRow for Backup {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            vault: row.parsed("vault_id")?,
            checkpoint: row.parsed("checkpoint_id")?,
            parent: row.optional_parsed("parent_id")?,
            name: row.text("name")?,
            description: row.text("description")?,
            status: row.parsed("status")?,
            resource: row.parsed("resource_id")?,
            resource_name: row.text("resource_name")?,
            resource_type: row.parsed("resource_type")?,
            size_bytes: row.unsigned("size_bytes")?,
            used_bytes: row.unsigned("used_bytes")?,
            image_type: row.text("image_type")?,
            incremental: row.flag("incremental")?,
            auto_trigger: row.flag("auto_trigger")?,
            system_disk: row.flag("system_disk")?,
            enterprise_project: row.text("enterprise_project_id")?,
            root: row.optional_text("root")?,
            error_message: row.optional_text("error_message")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
            protected_at: row.optional_time("protected_at")?,
            expired_at: row.optional_time("expired_at")?,
        })
    }
}

fn filtered(select: &str, project: ProjectId, filter: &BackupFilter) -> Statement {
    let mut statement = Statement::new(select);
    in_scope(&mut statement, project, filter);
    statement
        .equals("checkpoint_id", filter.checkpoint)
        .equals("resource_id", filter.resource)
        .contains("resource_name", filter.resource_name.as_deref())
        .equals("resource_type", filter.resource_type.as_ref())
        .contains("name", filter.name.as_deref())
        .one_of("status", &filter.status)
        .equals("image_type", filter.image_type.as_ref())
        .equals("enterprise_project_id", filter.enterprise_project.as_ref());
    match filter.parent {
        Some(parent) => statement.equals("parent_id", Some(parent)),
        None => statement.condition("parent_id IS NULL"),
    };
    if let Some(incremental) = filter.incremental {
        statement.condition("incremental = ").bind(incremental);
    }
    if let Some(from) = filter.created_from {
        statement.condition("created_at >= ").bind(from);
    }
    if let Some(until) = filter.created_until {
        statement.condition("created_at <= ").bind(until);
    }
    if let Some(percent) = filter.used_percent {
        statement.condition(
            "vault_id IN (SELECT v.id FROM vaults v WHERE (SELECT COALESCE(SUM(u.used_bytes), 0) \
             FROM backups u WHERE u.vault_id = v.id AND u.parent_id IS NULL) * 100 >= \
             v.size_gb * 1073741824 * ",
        );
        statement.bind(signed(percent)).push(" AND v.project_id = ");
        statement.bind(text(project)).push(")");
    }
    statement
}

/// Whose backups, and of which vault: a shared one lies in the vault that the
/// project took it into, and its owner's vault stays the owner's affair.
fn in_scope(statement: &mut Statement, project: ProjectId, filter: &BackupFilter) {
    let own = filter.scope != BackupScope::Shared && filter.share_status.is_none();
    let shared = filter.scope != BackupScope::Own;
    if !own && !shared {
        statement.condition("1 = 0");
        return;
    }
    statement.condition("(");
    if own {
        statement.push("(project_id = ").bind(text(project));
        if let Some(vault) = filter.vault {
            statement.push(" AND vault_id = ").bind(text(vault));
        }
        statement.push(")");
    }
    if own && shared {
        statement.push(" OR ");
    }
    if shared {
        statement
            .push(
                "COALESCE(parent_id, id) IN (SELECT backup_id FROM shares WHERE dest_project_id = ",
            )
            .bind(text(project));
        if let Some(vault) = filter.vault {
            statement.push(" AND vault_id = ").bind(text(vault));
        }
        if let Some(status) = filter.share_status {
            statement.push(" AND status = ").bind(text(status));
        }
        statement.push(")");
    }
    statement.push(")");
}

impl Tx {
    /// Adds a backup.
    pub async fn insert_backup(&mut self, backup: &Backup) -> Result<()> {
        let columns = [
            ("id", text(backup.id)),
            ("project_id", text(backup.project)),
            ("vault_id", text(backup.vault)),
            ("checkpoint_id", text(backup.checkpoint)),
            ("parent_id", optional(backup.parent)),
            ("name", text(&backup.name)),
            ("description", text(&backup.description)),
            ("status", text(backup.status)),
            ("resource_id", text(backup.resource)),
            ("resource_name", text(&backup.resource_name)),
            ("resource_type", text(backup.resource_type)),
            ("size_bytes", signed(backup.size_bytes).into()),
            ("used_bytes", signed(backup.used_bytes).into()),
            ("image_type", text(&backup.image_type)),
            ("incremental", backup.incremental.into()),
            ("auto_trigger", backup.auto_trigger.into()),
            ("system_disk", backup.system_disk.into()),
            ("enterprise_project_id", text(&backup.enterprise_project)),
            ("root", optional(backup.root.as_ref())),
            ("error_message", optional(backup.error_message.as_ref())),
            ("created_at", backup.created_at.into()),
            ("updated_at", backup.updated_at.into()),
            ("protected_at", backup.protected_at.into()),
            ("expired_at", backup.expired_at.into()),
        ];
        insert(self, "backups", columns).await
    }

    /// Writes what of a backup can change.
    pub async fn update_backup(&mut self, backup: &Backup) -> Result<()> {
        let mut statement = Statement::new("UPDATE backups SET name = ");
        statement
            .bind(text(&backup.name))
            .push(", status = ")
            .bind(text(backup.status));
        statement
            .push(", size_bytes = ")
            .bind(signed(backup.size_bytes));
        statement
            .push(", used_bytes = ")
            .bind(signed(backup.used_bytes));
        statement.push(", incremental = ").bind(backup.incremental);
        statement
            .push(", root = ")
            .bind(optional(backup.root.as_ref()));
        statement
            .push(", error_message = ")
            .bind(optional(backup.error_message.as_ref()));
        statement.push(", updated_at = ").bind(backup.updated_at);
        statement
            .push(", protected_at = ")
            .bind(backup.protected_at);
        statement.push(", expired_at = ").bind(backup.expired_at);
        statement.equals("id", Some(backup.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes a backup with its children and shares, and its checkpoint with the last of them.
    pub async fn remove_backup(&mut self, backup: &Backup) -> Result<()> {
        self.remove_shares_of(backup.id).await?;
        let mut statement = Statement::new("DELETE FROM backups");
        statement.equals("parent_id", Some(backup.id));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM backups");
        statement.equals("id", Some(backup.id));
        statement.run(self).await?;
        self.remove_checkpoint_if_empty(backup.checkpoint).await
    }

    /// A project's backup, top-level or a child.
    pub async fn backup(&mut self, project: ProjectId, backup: BackupId) -> Result<Option<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(backup));
        statement.one(self).await
    }

    /// As [`Tx::backup`], for a transaction that goes on to change it.
    pub async fn lock_backup(
        &mut self,
        project: ProjectId,
        backup: BackupId,
    ) -> Result<Option<Backup>> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(backup))
            .push(" ");
        statement.push(lock);
        statement.one(self).await
    }

    /// The disks of a server's backup, in the order of the server's disks.
    pub async fn children_of(&mut self, parents: &[BackupId]) -> Result<Vec<Backup>> {
        if parents.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .one_of("parent_id", parents)
            .push(" ORDER BY created_at, system_disk DESC, id");
        statement.all(self).await
    }

    /// A page of the backups that a project sees, and how many match in all.
    ///
    /// `marker` pages by the first sort key's order, so it goes with one key at the most.
    pub async fn backups(
        &mut self,
        project: ProjectId,
        filter: &BackupFilter,
        sort: &[BackupSort],
        page: &Page,
    ) -> Result<(Vec<Backup>, u64)> {
        let count = filtered("SELECT COUNT(*) FROM backups", project, filter)
            .number(self)
            .await?;
        let mut statement = filtered("SELECT * FROM backups", project, filter);
        let newest = [BackupSort {
            column: "created_at",
            descending: true,
        }];
        let sort = if sort.is_empty() { &newest[..] } else { sort };
        if let Some(marker) = &page.marker {
            let beyond = if sort[0].descending { "<" } else { ">" };
            let column = sort[0].column;
            statement
                .condition("(")
                .push(column)
                .push(", id) ")
                .push(beyond)
                .push(" (SELECT ");
            statement
                .push(column)
                .push(", id FROM backups WHERE id = ")
                .bind(marker.as_str());
            // Where another project's backup stands in time is not to be found out.
            statement
                .push(" AND (project_id = ")
                .bind(text(project))
                .push(" OR id IN (SELECT backup_id FROM shares WHERE dest_project_id = ")
                .bind(text(project))
                .push(")))");
        }
        statement.push(" ORDER BY ");
        for key in sort {
            statement
                .push(key.column)
                .push(if key.descending { " DESC, " } else { ", " });
        }
        statement
            .push(if sort[0].descending { "id DESC" } else { "id" })
            .page(page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// Every backup of a vault, oldest first; only those of one resource if it is given.
    pub async fn backups_of_vault(
        &mut self,
        vault: VaultId,
        resource: Option<ResourceId>,
    ) -> Result<Vec<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .equals("vault_id", Some(vault))
            .equals("resource_id", resource);
        statement
            .condition("parent_id IS NULL")
            .push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// The backups of a checkpoint, top-level ones only, oldest first.
    pub async fn backups_of_checkpoint(&mut self, checkpoint: CheckpointId) -> Result<Vec<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement.equals("checkpoint_id", Some(checkpoint));
        statement
            .condition("parent_id IS NULL")
            .push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// The newest available backup of a resource, as a base for the next; a
    /// disk's own and those it has as a child of a server's backup count alike.
    pub async fn newest_available(
        &mut self,
        project: ProjectId,
        resource: ResourceId,
    ) -> Result<Option<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement
            .equals("project_id", Some(project))
            .equals("resource_id", Some(resource));
        statement.condition("status IN ('available', 'waiting_restore', 'restoring')");
        statement.push(" ORDER BY created_at DESC, id DESC LIMIT 1");
        statement.one(self).await
    }

    /// The backups of a resource, its own and as a server's disk, that a task is
    /// at work on. A replica that is being made touches the resource as little
    /// as one that is being deleted.
    pub async fn busy_backups_of(&mut self, resource: ResourceId) -> Result<Vec<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement.equals("resource_id", Some(resource));
        statement.condition("status NOT IN ('available', 'error')");
        statement.condition(
            "NOT (image_type = 'replication' AND status IN ('waiting_protect', 'protecting')) \
             ORDER BY created_at, id",
        );
        statement.all(self).await
    }
}
