//! What vaults hold: the resources bound to them, and what their backups
//! occupy, which follows from the backups and is stored nowhere.

use std::collections::HashMap;

use cairn_types::{ResourceId, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement};
use crate::vaults::BOUND_RESOURCE;
use crate::{BoundResource, Result, Tx, Usage};

/// What a vault holds.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Its resources in the order in which they were bound.
    pub resources: Vec<BoundResource>,
    /// What its backups occupy, those of resources that are bound no more included.
    pub usage: Usage,
}

/// What the backups of one resource in one vault occupy.
struct Held {
    vault: VaultId,
    resource: ResourceId,
    usage: Usage,
}

impl FromRow for Held {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            vault: row.parsed("vault_id")?,
            resource: row.parsed("resource_id")?,
            usage: Usage {
                used_bytes: row.unsigned("used_bytes")?,
                backups: row.unsigned("backups")?,
                busy_backups: row.unsigned("busy_backups")?,
            },
        })
    }
}

impl Usage {
    fn add(&mut self, other: &Self) {
        self.used_bytes += other.used_bytes;
        self.backups += other.backups;
        self.busy_backups += other.busy_backups;
    }
}

impl Tx {
    /// What each of these vaults holds; those that hold nothing are left out.
    pub async fn contents_of(&mut self, vaults: &[VaultId]) -> Result<HashMap<VaultId, Contents>> {
        let mut all: HashMap<VaultId, Contents> = HashMap::new();
        if vaults.is_empty() {
            return Ok(all);
        }
        let mut held = HashMap::new();
        for one in self.held(vaults, None).await? {
            all.entry(one.vault).or_default().usage.add(&one.usage);
            held.insert((one.vault, one.resource), one.usage);
        }
        let mut statement = Statement::new(BOUND_RESOURCE);
        statement.one_of("r.vault_id", vaults);
        statement.push(" ORDER BY r.bound_at, r.resource_id");
        let bound: Vec<BoundResource> = statement.all(self).await?;
        for mut resource in bound {
            if let Some(usage) = held.get(&(resource.vault, resource.id)) {
                resource.show(usage);
            }
            let of_vault = all.entry(resource.vault).or_default();
            of_vault.resources.push(resource);
        }
        Ok(all)
    }

    /// The resources of a vault in the order in which they were bound.
    pub async fn resources_of(&mut self, vault: VaultId) -> Result<Vec<BoundResource>> {
        let mut contents = self.contents_of(&[vault]).await?;
        Ok(contents.remove(&vault).unwrap_or_default().resources)
    }

    /// What the backups of a vault occupy.
    pub async fn vault_usage(&mut self, vault: VaultId) -> Result<Usage> {
        let mut usage = Usage::default();
        for held in self.held(&[vault], None).await? {
            usage.add(&held.usage);
        }
        Ok(usage)
    }

    /// The binding of a resource, in whichever vault.
    pub async fn binding(&mut self, resource: ResourceId) -> Result<Option<BoundResource>> {
        let mut statement = Statement::new(BOUND_RESOURCE);
        statement.equals("r.resource_id", Some(resource));
        let mut found: Option<BoundResource> = statement.one(self).await?;
        if let Some(found) = &mut found {
            for held in self.held(&[found.vault], Some(resource)).await? {
                found.show(&held.usage);
            }
        }
        Ok(found)
    }

    async fn held(
        &mut self,
        vaults: &[VaultId],
        resource: Option<ResourceId>,
    ) -> Result<Vec<Held>> {
        let mut statement = Statement::new(
            "SELECT vault_id, resource_id, COUNT(*) AS backups, \
             CAST(COALESCE(SUM(used_bytes), 0) AS BIGINT) AS used_bytes, \
             CAST(COALESCE(SUM(CASE WHEN status IN ('available', 'error') THEN 0 ELSE 1 END), 0) \
             AS BIGINT) AS busy_backups FROM backups",
        );
        statement
            .one_of("vault_id", vaults)
            .equals("resource_id", resource)
            .condition("parent_id IS NULL GROUP BY vault_id, resource_id");
        statement.all(self).await
    }
}

impl BoundResource {
    fn show(&mut self, usage: &Usage) {
        self.backup_count = usage.backups;
        self.backup_bytes = usage.used_bytes;
    }
}
