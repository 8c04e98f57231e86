//! What a project's vaults and resources occupy, and changes of all of its
//! vaults at once.

use cairn_types::{ProjectId, ResourceId, ResourceType, Timestamp, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Id, Page, Statement};
use crate::vaults::signed;
use crate::{Result, Tx};

/// What all vaults of a project hold together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// The sum of their sizes, in GB.
    pub size_gb: u64,
    /// What their backups occupy, in bytes.
    pub used_bytes: u64,
}

/// What the backups of a resource occupy, in whichever vaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceUsage {
    /// The resource.
    pub resource: ResourceId,
    /// Its name when it was last backed up.
    pub name: String,
    /// Its type.
    pub resource_type: ResourceType,
    /// How many backups it has.
    pub backups: u64,
    /// What they occupy, in bytes.
    pub used_bytes: u64,
    /// What those of them occupy that lie in vaults of several zones, in bytes.
    pub multi_az_bytes: u64,
}

impl FromRow for ResourceUsage {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            resource: row.parsed("resource_id")?,
            name: row.text("resource_name")?,
            resource_type: row.parsed("resource_type")?,
            backups: row.unsigned("backups")?,
            used_bytes: row.unsigned("used_bytes")?,
            multi_az_bytes: row.unsigned("multi_az_bytes")?,
        })
    }
}

fn of_resources(
    select: &str,
    project: ProjectId,
    resource: Option<ResourceId>,
    resource_type: Option<ResourceType>,
) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("b.project_id", Some(project))
        .equals("b.resource_id", resource)
        .equals("b.resource_type", resource_type)
        .condition("b.parent_id IS NULL");
    statement
}

impl Tx {
    /// What all vaults of a project hold together.
    pub async fn project_usage(&mut self, project: ProjectId) -> Result<ProjectUsage> {
        let mut sizes =
            Statement::new("SELECT CAST(COALESCE(SUM(size_gb), 0) AS BIGINT) FROM vaults");
        sizes.equals("project_id", Some(project));
        let size_gb = sizes.number(self).await?.unsigned_abs();
        let mut used =
            Statement::new("SELECT CAST(COALESCE(SUM(used_bytes), 0) AS BIGINT) FROM backups");
        used.equals("project_id", Some(project))
            .condition("parent_id IS NULL");
        let used_bytes = used.number(self).await?.unsigned_abs();
        Ok(ProjectUsage {
            size_gb,
            used_bytes,
        })
    }

    /// A page of the resources that a project has backups of, by id, and how
    /// many there are in all.
    pub async fn resource_usage(
        &mut self,
        project: ProjectId,
        resource: Option<ResourceId>,
        resource_type: Option<ResourceType>,
        page: &Page,
    ) -> Result<(Vec<ResourceUsage>, u64)> {
        let select = "SELECT COUNT(DISTINCT b.resource_id) FROM backups b";
        let count = of_resources(select, project, resource, resource_type)
            .number(self)
            .await?;
        // A resource may have been renamed: the newest backup knows its name.
        let select = "SELECT b.resource_id, b.resource_type, \
            (SELECT n.resource_name FROM backups n WHERE n.resource_id = b.resource_id \
                AND n.project_id = b.project_id AND n.parent_id IS NULL \
                ORDER BY n.created_at DESC, n.id DESC LIMIT 1) AS resource_name, \
            COUNT(*) AS backups, \
            CAST(COALESCE(SUM(b.used_bytes), 0) AS BIGINT) AS used_bytes, \
            CAST(COALESCE(SUM(CASE WHEN EXISTS (SELECT 1 FROM vaults v \
                WHERE v.id = b.vault_id AND v.is_multi_az = 1) THEN b.used_bytes ELSE 0 END), 0) \
                AS BIGINT) AS multi_az_bytes FROM backups b";
        let mut statement = of_resources(select, project, resource, resource_type);
        statement
            .push(" GROUP BY b.project_id, b.resource_id, b.resource_type ORDER BY b.resource_id")
            .page(page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// Changes the notification settings of all vaults of a project that are
    /// not being deleted, and says which these are.
    pub async fn set_notification(
        &mut self,
        project: ProjectId,
        smn_notify: Option<bool>,
        threshold: Option<u64>,
        now: Timestamp,
    ) -> Result<Vec<VaultId>> {
        let mut statement = Statement::new("UPDATE vaults SET updated_at = ");
        statement.bind(now);
        if let Some(smn_notify) = smn_notify {
            statement.push(", smn_notify = ").bind(smn_notify);
        }
        if let Some(threshold) = threshold {
            statement.push(", threshold = ").bind(signed(threshold));
        }
        statement
            .equals("project_id", Some(project))
            .condition("status <> 'deleting' RETURNING id");
        let mut ids: Vec<Id<VaultId>> = statement.all(self).await?;
        ids.sort_by_key(|id| id.0);
        Ok(ids.into_iter().map(|id| id.0).collect())
    }
}
