//! Backups.

use cairn_types::{
    BackupId, BackupStatus, BackupStep, CheckpointId, FileProblems, MemberStatus,
    OperationDefinition, PolicyId, ProjectId, ResourceId, ResourceType, Timestamp, VaultId,
};
use serde::Serialize;
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Order, Page, SortKey, Statement, insert, optional, text};
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
    /// Its state, which only [`Tx::step_backup`] changes.
    pub status: BackupStatus,
    /// The resource.
    pub resource: ResourceId,
    /// The resource's name at the time.
    pub resource_name: String,
    /// The resource's type.
    pub resource_type: ResourceType,
    /// The resource's size at the time.
    pub size_bytes: u64,
    /// The data in it, holes left out.
    pub data_bytes: u64,
    /// What it counts against its vault: all of its data if no older backup of the
    /// resource lies there, else what was new when it was made, and what it
    /// has taken over from backups before it that were deleted.
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
    /// What was known of the resource, if it was recorded.
    pub metadata: Option<serde_json::Value>,
    /// The policy that made it, if one did.
    pub policy: Option<PolicyId>,
    /// What that policy did with what it made, then.
    pub made_under: Option<OperationDefinition>,
    /// Whether applications were brought to rest for it: nothing, if nobody asked for that;
    /// empty, if they were; otherwise why not.
    pub app_consistency: Option<String>,
    /// For files: of which moment they are.
    pub files_moment: Option<String>,
    /// For files: which of them are not as they were.
    pub file_problems: Option<FileProblems>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Only those that a policy made, and which (do not) end at an instant.
    pub automatic_until: Option<bool>,
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
            data_bytes: row.unsigned("data_bytes")?,
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
            metadata: match row.optional_text("metadata")? {
                Some(_) => Some(row.json("metadata")?),
                None => None,
            },
            policy: row.optional_parsed("policy_id")?,
            made_under: match row.optional_text("made_under")? {
                Some(_) => Some(row.json("made_under")?),
                None => None,
            },
            app_consistency: row.optional_text("app_consistency")?,
            files_moment: row.optional_text("files_moment")?,
            file_problems: match row.optional_text("file_problems")? {
                Some(_) => Some(row.json("file_problems")?),
                None => None,
            },
        })
    }
}

/// A value as its column of JSON has it.
fn written(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is stored has string keys only")
}

/// The backup was made here.
const NOT_IMPORTED: &str = "NOT EXISTS (SELECT 1 FROM imports i \
    WHERE i.backup_id = COALESCE(backups.parent_id, backups.id))";

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
    if let Some(ends) = filter.automatic_until {
        statement.condition(match ends {
            true => "auto_trigger = 1 AND expired_at IS NOT NULL",
            false => "auto_trigger = 1 AND expired_at IS NULL",
        });
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
        // The index by project gives the order as well, so both databases would
        // walk through all of a project's backups for the few of one vault.
        let narrow = filter.checkpoint.is_some() || filter.resource.is_some();
        match filter.vault {
            Some(vault) => {
                statement.push("(vault_id = (SELECT v.id FROM vaults v WHERE v.id = ");
                statement.bind(text(vault)).push(" AND v.project_id = ");
                statement.bind(text(project)).push("))");
            }
            None => {
                statement.push(match narrow {
                    true => "(project_id || '' = ",
                    false => "(project_id = ",
                });
                statement.bind(text(project)).push(")");
            }
        }
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
    /// Adds a backup, in the state that every backup begins in.
    ///
    /// Errors: `Bug` if it is in another.
    pub async fn insert_backup(&mut self, backup: &Backup) -> Result<()> {
        if backup.status != BackupStatus::FIRST {
            let status = backup.status.name();
            return Err(Error::NotFirst { status });
        }
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
            ("data_bytes", signed(backup.data_bytes).into()),
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
            ("metadata", optional(backup.metadata.as_ref())),
            ("policy_id", optional(backup.policy)),
            (
                "made_under",
                optional(backup.made_under.as_ref().map(written)),
            ),
            ("app_consistency", optional(backup.app_consistency.as_ref())),
            ("files_moment", optional(backup.files_moment.as_ref())),
            (
                "file_problems",
                optional(backup.file_problems.as_ref().map(written)),
            ),
        ];
        insert(self, "backups", columns).await?;
        match backup.parent {
            Some(_) => Ok(()),
            None => self.count_backup(backup.project, 1).await,
        }
    }

    /// Keeps the number of a project's whole backups, in the transaction that changes it.
    async fn count_backup(&mut self, project: ProjectId, change: i64) -> Result<()> {
        let mut statement =
            Statement::new("INSERT INTO backup_counts (project_id, backups) VALUES (");
        statement.bind(text(project)).push(", ").bind(change);
        statement
            .push(") ON CONFLICT (project_id) DO UPDATE SET backups = backup_counts.backups + ");
        statement.bind(change);
        statement.run(self).await?;
        Ok(())
    }

    /// How many backups match: for all of a project's, the number that is kept.
    async fn count_backups(&mut self, project: ProjectId, filter: &BackupFilter) -> Result<u64> {
        let count = if *filter == BackupFilter::default() {
            let mut kept = Statement::new(
                "SELECT CAST(COALESCE(SUM(backups), 0) AS BIGINT) FROM backup_counts",
            );
            kept.equals("project_id", Some(project));
            kept.number(self).await?
        } else {
            filtered("SELECT COUNT(*) FROM backups", project, filter)
                .number(self)
                .await?
        };
        Ok(count.unsigned_abs())
    }

    /// Takes a backup to its next state, in the catalogue and in the record:
    /// the only statement that changes a backup's state.
    ///
    /// Errors: `Bug` if the step does not lead away from the state it has.
    pub async fn step_backup(
        &mut self,
        backup: &mut Backup,
        step: BackupStep,
        now: Timestamp,
    ) -> Result<()> {
        let mut statement = Statement::new("UPDATE backups SET status = ");
        statement
            .bind(text(step.to()))
            .push(", updated_at = ")
            .bind(now);
        statement
            .equals("id", Some(backup.id))
            .one_of("status", step.from());
        if statement.run(self).await? == 0 {
            let (id, from) = (backup.id, backup.status);
            return Err(Error::BackupStep { id, from, step });
        }
        backup.status = step.to();
        backup.updated_at = now;
        Ok(())
    }

    /// Writes what of a backup can change, but for its state.
    pub async fn update_backup(&mut self, backup: &Backup) -> Result<()> {
        let mut statement = Statement::new("UPDATE backups SET name = ");
        statement.bind(text(&backup.name));
        statement
            .push(", size_bytes = ")
            .bind(signed(backup.size_bytes));
        statement
            .push(", used_bytes = ")
            .bind(signed(backup.used_bytes));
        statement
            .push(", data_bytes = ")
            .bind(signed(backup.data_bytes));
        statement.push(", incremental = ").bind(backup.incremental);
        statement
            .push(", root = ")
            .bind(optional(backup.root.as_ref()));
        statement
            .push(", error_message = ")
            .bind(optional(backup.error_message.as_ref()));
        statement
            .push(", app_consistency = ")
            .bind(optional(backup.app_consistency.as_ref()));
        statement
            .push(", files_moment = ")
            .bind(optional(backup.files_moment.as_ref()));
        statement
            .push(", file_problems = ")
            .bind(optional(backup.file_problems.as_ref().map(written)));
        statement
            .push(", metadata = ")
            .bind(optional(backup.metadata.as_ref()));
        statement.push(", updated_at = ").bind(backup.updated_at);
        statement
            .push(", protected_at = ")
            .bind(backup.protected_at);
        statement.push(", expired_at = ").bind(backup.expired_at);
        statement.equals("id", Some(backup.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Charges the next newer backup of the resource in the vault with what a
    /// backup that goes held for it: no more than its own data, and no more than
    /// the other was charged.
    async fn hand_charge_on(&mut self, backup: &Backup) -> Result<()> {
        let of_gone = "(SELECT g.used_bytes FROM backups g WHERE g.id = ";
        let mut next = Statement::new("UPDATE backups SET used_bytes = CASE WHEN used_bytes + ");
        next.push(of_gone).bind(text(backup.id));
        next.push(") < data_bytes THEN used_bytes + ").push(of_gone);
        next.bind(text(backup.id)).push(
            ") WHEN data_bytes > used_bytes THEN data_bytes ELSE used_bytes END WHERE EXISTS \
             (SELECT 1 FROM backups g WHERE g.id = ",
        );
        next.bind(text(backup.id));
        next.push(") AND id = (SELECT n.id FROM backups n WHERE n.vault_id = ");
        next.bind(text(backup.vault)).push(" AND n.resource_id = ");
        next.bind(text(backup.resource));
        next.push(" AND n.parent_id IS NULL AND n.protected_at IS NOT NULL");
        next.push(" AND (n.created_at, n.id) > (")
            .bind(backup.created_at);
        next.push(", ").bind(text(backup.id));
        next.push(") ORDER BY n.created_at, n.id LIMIT 1)");
        next.run(self).await?;
        Ok(())
    }

    /// Removes a backup with its children and shares, and its checkpoint with the last of them.
    pub async fn remove_backup(&mut self, backup: &Backup) -> Result<()> {
        self.remove_shares_of(backup.id).await?;
        if backup.parent.is_none() {
            self.hand_charge_on(backup).await?;
        }
        let children = self.children_of(&[backup.id]).await?;
        let mut gone: Vec<BackupId> = children.iter().map(|child| child.id).collect();
        gone.push(backup.id);
        self.remove_verifications(&gone).await?;
        let mut statement = Statement::new("DELETE FROM backups");
        statement.equals("parent_id", Some(backup.id));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM backups");
        statement.equals("id", Some(backup.id));
        let removed = statement.run(self).await?;
        if removed > 0 && backup.parent.is_none() {
            self.count_backup(backup.project, -1).await?;
        }
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

    /// A page of a project's backups, and how many match in all. The marker
    /// goes by the same keys as the order.
    pub async fn backups(
        &mut self,
        project: ProjectId,
        filter: &BackupFilter,
        sort: &[SortKey],
        page: &Page,
    ) -> Result<(Vec<Backup>, u64)> {
        let count = self.count_backups(project, filter).await?;
        let mut statement = filtered("SELECT * FROM backups", project, filter);
        let newest = [SortKey::newest("created_at")];
        let order = Order {
            table: "backups",
            prefix: "",
            shared: true,
            keys: if sort.is_empty() { &newest } else { sort },
        };
        statement.ordered_page(&order, project, page);
        Ok((statement.all(self).await?, count))
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

    /// Has the available backups of a vault end at an instant, with their
    /// disks, and says how many they are. In a locked vault, none that a
    /// policy made ends earlier than it would have.
    pub async fn set_expiry(
        &mut self,
        vault: VaultId,
        locked: bool,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<u64> {
        let ends = || {
            let mut statement = Statement::new("UPDATE backups SET expired_at = ");
            statement
                .bind(until)
                .push(", updated_at = ")
                .bind(now)
                .equals("vault_id", Some(vault));
            statement
        };
        let mut backups = ends();
        backups
            .equals("status", Some(BackupStatus::Available))
            .condition("parent_id IS NULL");
        if locked {
            backups
                .condition("(auto_trigger = 0 OR expired_at <= ")
                .bind(until)
                .push(")");
        }
        let changed = backups.run(self).await?;
        let mut disks = ends();
        disks
            .condition("parent_id IN (SELECT p.id FROM backups p WHERE p.vault_id = ")
            .bind(text(vault))
            .push(" AND p.parent_id IS NULL AND p.expired_at = ")
            .bind(until)
            .push(")");
        disks.run(self).await?;
        Ok(changed)
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
    /// What came from another site, where a resource may have the same id, does not.
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
        statement.condition(NOT_IMPORTED);
        statement.push(" ORDER BY created_at DESC, id DESC LIMIT 1");
        statement.one(self).await
    }

    /// The backups of a resource, its own and as a server's disk, that a task is
    /// at work on. A replica that is being made touches the resource as little
    /// as one that is being deleted, and so does what comes from another site.
    pub async fn busy_backups_of(&mut self, resource: ResourceId) -> Result<Vec<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups");
        statement.equals("resource_id", Some(resource));
        statement.condition("status NOT IN ('available', 'error')");
        statement.condition(NOT_IMPORTED);
        statement.condition(
            "NOT (image_type = 'replication' AND status IN ('waiting_protect', 'protecting')) \
             ORDER BY created_at, id",
        );
        statement.all(self).await
    }
}
