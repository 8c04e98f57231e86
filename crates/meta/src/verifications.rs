//! What verifications found of backups, and whose turn it is to be looked at.

use cairn_types::{
    BackupId, Lost, OperationLogId, ProjectId, ResourceId, Timestamp, VaultId, VerificationStatus,
    VerifyLevel,
};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Order, Page, SortKey, Statement, insert, optional, text};
use crate::{Backup, Result, Tx};

/// What is known of whether a backup could be restored: the result that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The backup, top-level or a server's disk.
    pub backup: BackupId,
    /// Its project.
    pub project: ProjectId,
    /// The task that last looked at it.
    pub task: OperationLogId,
    /// How closely it looked.
    pub level: VerifyLevel,
    /// What it found.
    pub status: VerificationStatus,
    /// What is wrong with the backup, or why it could not be looked at.
    pub problem: Option<String>,
    /// What of it is lost.
    pub lost: Option<Lost>,
    /// When that was found.
    pub verified_at: Timestamp,
    /// When it was last looked at, at whichever level.
    pub quick_at: Option<Timestamp>,
    /// When all of it was last opened.
    pub full_at: Option<Timestamp>,
}

/// A result with the backup that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBackup {
    /// The backup.
    pub backup: Backup,
    /// What is known of it; nothing if it was not looked at since it was made.
    pub verification: Option<Verification>,
}

/// Which results of a project a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerificationFilter {
    /// Only those that found this.
    pub status: Option<VerificationStatus>,
    /// Only those of backups in this vault.
    pub vault: Option<VaultId>,
    /// Only those of backups of this resource.
    pub resource: Option<ResourceId>,
    /// Only those that this task looked at last.
    pub task: Option<OperationLogId>,
}

impl FromRow for Verification {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            backup: row.parsed("id")?,
            project: row.parsed("project_id")?,
            task: row.parsed("task_id")?,
            level: row.parsed("level")?,
            status: row.parsed("status")?,
            problem: row.optional_text("problem")?,
            lost: match row.optional_text("lost")? {
                Some(_) => Some(row.json("lost")?),
                None => None,
            },
            verified_at: row.time("verified_at")?,
            quick_at: row.optional_time("quick_at")?,
            full_at: row.optional_time("full_at")?,
        })
    }
}

/// The one column of a row that names a project.
struct Whose(ProjectId);

impl FromRow for Whose {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self(row.parsed("project_id")?))
    }
}

const VERIFICATION: &str = "SELECT v.* FROM verifications v JOIN backups b ON b.id = v.id";

/// The order of a list of results.
const NEWEST_FIRST: Order<'_> = Order {
    table: "verifications v",
    prefix: "v.",
    shared: false,
    keys: &[SortKey::newest("verified_at")],
};

fn filtered(select: &str, project: ProjectId, filter: &VerificationFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("v.project_id", Some(project))
        .equals("v.status", filter.status)
        .equals("v.task_id", filter.task)
        .equals("b.vault_id", filter.vault)
        .equals("b.resource_id", filter.resource);
    statement
}

impl Tx {
    /// Writes what is known of a backup now, over what was known before.
    pub async fn put_verification(&mut self, found: &Verification) -> Result<()> {
        self.remove_verifications(&[found.backup]).await?;
        let lost = found
            .lost
            .as_ref()
            .map(|lost| serde_json::to_string(lost).expect("our records have string keys only"));
        let columns = [
            ("id", text(found.backup)),
            ("project_id", text(found.project)),
            ("task_id", text(found.task)),
            ("level", text(found.level)),
            ("status", text(found.status)),
            ("problem", optional(found.problem.as_ref())),
            ("lost", optional(lost)),
            ("verified_at", found.verified_at.into()),
            ("quick_at", found.quick_at.into()),
            ("full_at", found.full_at.into()),
        ];
        insert(self, "verifications", columns).await
    }

    /// Forgets what is known of backups.
    pub(crate) async fn remove_verifications(&mut self, backups: &[BackupId]) -> Result<()> {
        if backups.is_empty() {
            return Ok(());
        }
        let mut statement = Statement::new("DELETE FROM verifications");
        statement.one_of("id", backups);
        statement.run(self).await?;
        Ok(())
    }

    /// What is known of a project's backup.
    pub async fn verification(
        &mut self,
        project: ProjectId,
        backup: BackupId,
    ) -> Result<Option<Verification>> {
        let mut statement = Statement::new("SELECT * FROM verifications");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(backup));
        statement.one(self).await
    }

    /// A page of a project's results, newest first, and how many match in all.
    pub async fn verifications(
        &mut self,
        project: ProjectId,
        filter: &VerificationFilter,
        page: &Page,
    ) -> Result<(Vec<VerifiedBackup>, u64)> {
        let count = "SELECT COUNT(*) FROM verifications v JOIN backups b ON b.id = v.id";
        let count = filtered(count, project, filter).number(self).await?;
        let mut statement = filtered(VERIFICATION, project, filter);
        statement.ordered_page(&NEWEST_FIRST, project, page);
        let found: Vec<Verification> = statement.all(self).await?;
        let mut verified = Vec::with_capacity(found.len());
        for verification in found {
            // In one transaction, the join and this see the same rows.
            if let Some(backup) = self.backup(project, verification.backup).await? {
                let verification = Some(verification);
                verified.push(VerifiedBackup {
                    backup,
                    verification,
                });
            }
        }
        Ok((verified, count.unsigned_abs()))
    }

    /// The backups of a project that could be restored, whole ones and single
    /// disks: those of one vault if it is given. Disks are there with their server's backup.
    pub async fn restorable_backups(
        &mut self,
        project: ProjectId,
        vault: Option<VaultId>,
    ) -> Result<Vec<Backup>> {
        let mut statement = Statement::new("SELECT * FROM backups b");
        statement
            .equals("project_id", Some(project))
            .equals("vault_id", vault)
            .condition(RESTORABLE)
            .push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// Whether a part of a backup of this resource is known to be lost.
    pub async fn is_hurt(&mut self, project: ProjectId, resource: ResourceId) -> Result<bool> {
        let mut statement =
            Statement::new("SELECT COUNT(*) FROM backups b JOIN verifications v ON v.id = b.id");
        statement
            .equals("b.project_id", Some(project))
            .equals("b.resource_id", Some(resource))
            .equals("v.status", Some(VerificationStatus::Hurt));
        Ok(statement.number(self).await? > 0)
    }

    /// The project whose turn it is: that of the backup which was not looked at
    /// so closely for the longest time, if that is since `seen_until` or longer.
    /// One that could not be looked at is left alone until `tried_until`. A
    /// backup was looked at when it was made.
    pub async fn next_to_verify(
        &mut self,
        level: VerifyLevel,
        seen_until: Timestamp,
        tried_until: Timestamp,
    ) -> Result<Option<ProjectId>> {
        let seen = match level {
            VerifyLevel::Quick => "COALESCE(v.quick_at, b.protected_at)",
            VerifyLevel::Full => "COALESCE(v.full_at, b.protected_at)",
        };
        let mut statement = Statement::new(
            "SELECT b.project_id FROM backups b LEFT JOIN verifications v ON v.id = b.id",
        );
        statement.condition(RESTORABLE);
        statement.condition(seen).push(" <= ").bind(seen_until);
        statement
            .condition("(v.status IS NULL OR v.status <> ")
            .bind(text(VerificationStatus::Unchecked))
            .push(" OR v.verified_at <= ")
            .bind(tried_until)
            .push(") ORDER BY ")
            .push(seen)
            .push(", b.id LIMIT 1");
        let found: Option<Whose> = statement.one(self).await?;
        Ok(found.map(|whose| whose.0))
    }
}

/// What a backup `b` is that is there: it, and its server's if it is a disk's, is
/// in a state in which nobody has begun to delete it.
const RESTORABLE: &str = "b.status IN ('available', 'waiting_restore', 'restoring') \
    AND (b.parent_id IS NULL OR EXISTS (SELECT 1 FROM backups p WHERE p.id = b.parent_id \
    AND p.status IN ('available', 'waiting_restore', 'restoring')))";
