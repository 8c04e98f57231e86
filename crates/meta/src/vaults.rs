//! Vaults and the resources bound to them.

use cairn_types::{
    ObjectType, PolicyId, ProjectId, ProtectStatus, ResourceId, ResourceType, Timestamp, UserId,
    VaultId, VaultStatus, VaultStep,
};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::query::{
    Columns, FromRow, Order, Page, SortKey, Statement, insert, json, optional, text,
};
use crate::{Error, Result, Tx};

/// A vault.
#[derive(Debug, Clone, PartialEq)]
pub struct Vault {
    /// Its id.
    pub id: VaultId,
    /// The project that owns it.
    pub project: ProjectId,
    /// Its name; several vaults may share one.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// What it protects.
    pub object_type: ObjectType,
    /// `backup`, `replication` or `hybrid`.
    pub protect_type: String,
    /// `public` or `hybrid`.
    pub cloud_type: String,
    /// `crash_consistent` or `app_consistent`.
    pub consistent_level: String,
    /// Its state, which only [`Tx::step_vault`] changes.
    pub status: VaultStatus,
    /// Its capacity in GB.
    pub size_gb: u64,
    /// Whether a policy run binds resources by itself.
    pub auto_bind: bool,
    /// Whether its capacity grows when full.
    pub auto_expand: bool,
    /// Whether its owner is told when it fills up.
    pub smn_notify: bool,
    /// At which share of its capacity, in percent, its owner is told.
    pub threshold: u64,
    /// Whether backups that a policy made are held until they expire.
    pub locked: bool,
    /// Kept for its clients; one machine is one zone.
    pub is_multi_az: bool,
    /// The enterprise project, `0` by default.
    pub enterprise_project: String,
    /// What names of backups that a policy makes start with.
    pub backup_name_prefix: String,
    /// Which resources `auto_bind` takes.
    pub bind_rules: serde_json::Value,
    /// Its tags, in the order in which they were added; no key comes twice.
    pub tags: Vec<Tag>,
    /// How it is paid for.
    pub payment: Payment,
    /// Where its owner wants its backups to lie; kept for its clients.
    pub availability_zone: Option<String>,
    /// The service that keeps it locked; kept for its clients.
    pub sys_lock_source_service: Option<String>,
    /// Who made it; not known for vaults of earlier versions.
    pub user: Option<UserId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// How a vault is paid for: by use, or in advance until an instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payment {
    /// The order that it was bought by last.
    pub order: Option<String>,
    /// The product that it was bought as.
    pub product: Option<String>,
    /// Until when it is paid for, if it is paid for in advance.
    pub paid_until: Option<Timestamp>,
    /// Whether it may hold more than its size.
    pub demand_billing: bool,
}

impl Payment {
    /// Whether it is paid for in advance.
    pub const fn is_in_advance(&self) -> bool {
        self.paid_until.is_some()
    }
}

/// A tag of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value, which may be empty.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub value: String,
}

/// Vaults of the first version may have tags without a value.
fn null_as_empty<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Which disks of a server a vault protects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceExtraInfo {
    /// Disks that are never backed up.
    #[serde(default)]
    pub exclude_volumes: Vec<ResourceId>,
    /// The only disks that are backed up; all, if empty.
    #[serde(default)]
    pub include_volumes: Vec<VolumeChoice>,
}

/// A disk that a vault protects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeChoice {
    /// The disk.
    pub id: ResourceId,
    /// The operating system on it, as the client said.
    pub os_version: Option<String>,
}

/// A resource bound to a vault.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundResource {
    /// The resource.
    pub id: ResourceId,
    /// The vault it is bound to.
    pub vault: VaultId,
    /// Its type.
    pub resource_type: ResourceType,
    /// Its name when it was bound.
    pub name: String,
    /// Its size when it was bound or last backed up.
    pub size_bytes: u64,
    /// Whether it is being taken out of the vault.
    pub removing: bool,
    /// Whether policies back it up.
    pub auto_protect: bool,
    /// Which of its disks are protected.
    pub extra_info: ResourceExtraInfo,
    /// When it was bound.
    pub bound_at: Timestamp,
    /// Its backups in this vault.
    pub backup_count: u64,
    /// What they occupy, in bytes.
    pub backup_bytes: u64,
    /// What is happening to it.
    pub protect_status: ProtectStatus,
}

/// What a vault, or all vaults of a project, hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that its backups occupy.
    pub used_bytes: u64,
    /// Backups in it, those of single disks of a server not counted.
    pub backups: u64,
    /// Backups that a task is at work on or queued for.
    pub busy_backups: u64,
}

/// Which vaults of a project a list shows.
#[derive(Debug, Clone, Default)]
pub struct VaultFilter {
    /// Only these.
    pub ids: Vec<VaultId>,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Only those with this state.
    pub status: Option<String>,
    /// Only those that protect this.
    pub object_type: Option<String>,
    /// Only those of this protection type.
    pub protect_type: Option<String>,
    /// Only those of this cloud type.
    pub cloud_type: Option<String>,
    /// Only those of this enterprise project.
    pub enterprise_project: Option<String>,
    /// Only those that one of these is bound to.
    pub resources: Vec<ResourceId>,
    /// Only those whose owner wants their backups to lie here.
    pub availability_zone: Option<String>,
    /// Only those that follow this policy.
    pub policy: Option<PolicyId>,
}

impl FromRow for Vault {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            name: row.text("name")?,
            description: row.text("description")?,
            object_type: row.parsed("object_type")?,
            protect_type: row.text("protect_type")?,
            cloud_type: row.text("cloud_type")?,
            consistent_level: row.text("consistent_level")?,
            status: row.parsed("status")?,
            size_gb: row.unsigned("size_gb")?,
            auto_bind: row.flag("auto_bind")?,
            auto_expand: row.flag("auto_expand")?,
            smn_notify: row.flag("smn_notify")?,
            threshold: row.unsigned("threshold")?,
            locked: row.flag("locked")?,
            is_multi_az: row.flag("is_multi_az")?,
            enterprise_project: row.text("enterprise_project_id")?,
            backup_name_prefix: row.text("backup_name_prefix")?,
            bind_rules: row.json("bind_rules")?,
            tags: row.json("tags")?,
            payment: Payment {
                order: row.optional_text("order_id")?,
                product: row.optional_text("product_id")?,
                paid_until: row.optional_time("paid_until")?,
                demand_billing: row.flag("demand_billing")?,
            },
            availability_zone: row.optional_text("availability_zone")?,
            sys_lock_source_service: row.optional_text("sys_lock_source_service")?,
            user: row.optional_parsed("user_id")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

impl FromRow for BoundResource {
    fn from_row(row: &AnyRow) -> Result<Self> {
        let removing = row.flag("removing")?;
        let protect_status = if removing {
            ProtectStatus::Removing
        } else if row.integer("protecting")? > 0 {
            ProtectStatus::Protecting
        } else if row.integer("restoring")? > 0 {
            ProtectStatus::Restoring
        } else if row.optional_text("last_status")?.as_deref() == Some("error") {
            ProtectStatus::Error
        } else {
            ProtectStatus::Available
        };
        Ok(Self {
            id: row.parsed("resource_id")?,
            vault: row.parsed("vault_id")?,
            resource_type: row.parsed("resource_type")?,
            name: row.text("name")?,
            size_bytes: row.unsigned("size_bytes")?,
            removing,
            auto_protect: row.flag("auto_protect")?,
            extra_info: row.json("extra_info")?,
            bound_at: row.time("bound_at")?,
            // What its backups occupy is read for many at once.
            backup_count: 0,
            backup_bytes: 0,
            protect_status,
        })
    }
}

/// A bound resource with what follows from its backups.
pub(crate) const BOUND_RESOURCE: &str = "SELECT r.*, \
    (SELECT COUNT(*) FROM backups b WHERE b.resource_id = r.resource_id \
        AND b.vault_id = r.vault_id AND b.parent_id IS NULL \
        AND b.status IN ('waiting_protect', 'protecting')) AS protecting, \
    (SELECT COUNT(*) FROM backups b WHERE b.resource_id = r.resource_id \
        AND b.parent_id IS NULL \
        AND b.status IN ('waiting_restore', 'restoring')) + \
    (SELECT COUNT(*) FROM restores o JOIN tasks t ON t.id = o.task_id \
        WHERE o.resource_id = r.resource_id \
        AND t.state IN ('waiting', 'running', 'undoing')) AS restoring, \
    (SELECT b.status FROM backups b WHERE b.resource_id = r.resource_id \
        AND b.vault_id = r.vault_id AND b.parent_id IS NULL \
        ORDER BY b.created_at DESC, b.id DESC LIMIT 1) AS last_status \
    FROM vault_resources r";

/// The order of a list of vaults.
const NEWEST_FIRST: Order<'_> = Order {
    table: "vaults",
    prefix: "",
    shared: false,
    keys: &[SortKey::newest("created_at")],
};

fn filtered(select: &str, project: ProjectId, filter: &VaultFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("project_id", Some(project))
        .one_of("id", &filter.ids)
        .contains("name", filter.name.as_deref())
        .equals("status", filter.status.as_ref())
        .equals("object_type", filter.object_type.as_ref())
        .equals("protect_type", filter.protect_type.as_ref())
        .equals("cloud_type", filter.cloud_type.as_ref())
        .equals("enterprise_project_id", filter.enterprise_project.as_ref())
        .equals("availability_zone", filter.availability_zone.as_ref());
    if !filter.resources.is_empty() {
        statement.condition("id IN (SELECT vault_id FROM vault_resources WHERE resource_id IN (");
        statement.list(filter.resources.iter().map(text)).push("))");
    }
    if let Some(policy) = filter.policy {
        statement
            .condition("id IN (SELECT vault_id FROM vault_policies WHERE policy_id = ")
            .bind(text(policy))
            .push(")");
    }
    statement
}

impl Tx {
    /// Adds a vault, in the state that every vault begins in.
    ///
    /// Errors: `Bug` if it is in another.
    pub async fn insert_vault(&mut self, vault: &Vault) -> Result<()> {
        if vault.status != VaultStatus::FIRST {
            let status = vault.status.name();
            return Err(Error::NotFirst { status });
        }
        let columns = [
            ("id", text(vault.id)),
            ("project_id", text(vault.project)),
            ("name", text(&vault.name)),
            ("description", text(&vault.description)),
            ("object_type", text(vault.object_type)),
            ("protect_type", text(&vault.protect_type)),
            ("cloud_type", text(&vault.cloud_type)),
            ("consistent_level", text(&vault.consistent_level)),
            ("status", text(vault.status)),
            ("size_gb", signed(vault.size_gb).into()),
            ("auto_bind", vault.auto_bind.into()),
            ("auto_expand", vault.auto_expand.into()),
            ("smn_notify", vault.smn_notify.into()),
            ("threshold", signed(vault.threshold).into()),
            ("locked", vault.locked.into()),
            ("is_multi_az", vault.is_multi_az.into()),
            ("enterprise_project_id", text(&vault.enterprise_project)),
            ("backup_name_prefix", text(&vault.backup_name_prefix)),
            ("bind_rules", json(&vault.bind_rules)),
            ("tags", json(&vault.tags)),
            ("order_id", optional(vault.payment.order.as_ref())),
            ("product_id", optional(vault.payment.product.as_ref())),
            ("paid_until", vault.payment.paid_until.into()),
            ("demand_billing", vault.payment.demand_billing.into()),
            (
                "availability_zone",
                optional(vault.availability_zone.as_ref()),
            ),
            (
                "sys_lock_source_service",
                optional(vault.sys_lock_source_service.as_ref()),
            ),
            ("user_id", optional(vault.user)),
            ("created_at", vault.created_at.into()),
            ("updated_at", vault.updated_at.into()),
        ];
        insert(self, "vaults", columns).await
    }

    /// Takes a vault to its next state, in the catalogue and in the record:
    /// the only statement that changes a vault's state.
    ///
    /// Errors: `Bug` if the step does not lead away from the state it has.
    pub async fn step_vault(
        &mut self,
        vault: &mut Vault,
        step: VaultStep,
        now: Timestamp,
    ) -> Result<()> {
        let mut statement = Statement::new("UPDATE vaults SET status = ");
        statement
            .bind(text(step.to()))
            .push(", updated_at = ")
            .bind(now);
        statement
            .equals("id", Some(vault.id))
            .one_of("status", step.from());
        if statement.run(self).await? == 0 {
            let (id, from) = (vault.id, vault.status);
            return Err(Error::VaultStep { id, from, step });
        }
        vault.status = step.to();
        vault.updated_at = now;
        Ok(())
    }

    /// Writes what of a vault can change, but for its state.
    pub async fn update_vault(&mut self, vault: &Vault) -> Result<()> {
        let mut statement = Statement::new("UPDATE vaults SET name = ");
        statement
            .bind(text(&vault.name))
            .push(", description = ")
            .bind(text(&vault.description));
        statement
            .push(", consistent_level = ")
            .bind(text(&vault.consistent_level));
        statement.push(", size_gb = ").bind(signed(vault.size_gb));
        statement.push(", auto_bind = ").bind(vault.auto_bind);
        statement.push(", auto_expand = ").bind(vault.auto_expand);
        statement.push(", smn_notify = ").bind(vault.smn_notify);
        statement
            .push(", threshold = ")
            .bind(signed(vault.threshold));
        statement.push(", locked = ").bind(vault.locked);
        statement
            .push(", backup_name_prefix = ")
            .bind(text(&vault.backup_name_prefix));
        statement
            .push(", bind_rules = ")
            .bind(json(&vault.bind_rules));
        statement.push(", tags = ").bind(json(&vault.tags));
        let payment = &vault.payment;
        statement
            .push(", order_id = ")
            .bind(optional(payment.order.as_ref()));
        statement
            .push(", product_id = ")
            .bind(optional(payment.product.as_ref()));
        statement.push(", paid_until = ").bind(payment.paid_until);
        statement.push(", updated_at = ").bind(vault.updated_at);
        statement.equals("id", Some(vault.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes a vault and its bindings; its backups must be gone.
    pub async fn remove_vault(&mut self, vault: VaultId) -> Result<()> {
        self.release_shares_in(vault).await?;
        self.remove_imports_into(vault).await?;
        let mut statement = Statement::new("DELETE FROM vault_resources");
        statement.equals("vault_id", Some(vault));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM vault_policies");
        statement.equals("vault_id", Some(vault));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM vault_marks");
        statement.equals("vault_id", Some(vault));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM vaults");
        statement.equals("id", Some(vault));
        statement.run(self).await?;
        Ok(())
    }

    /// A project's vault; in a writing transaction nobody else can change it until the end.
    pub async fn vault(&mut self, project: ProjectId, vault: VaultId) -> Result<Option<Vault>> {
        let mut statement = Statement::new("SELECT * FROM vaults");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(vault));
        statement.one(self).await
    }

    /// As [`Tx::vault`], for a transaction that goes on to change what belongs to the vault.
    pub async fn lock_vault(
        &mut self,
        project: ProjectId,
        vault: VaultId,
    ) -> Result<Option<Vault>> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT * FROM vaults");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(vault))
            .push(" ");
        statement.push(lock);
        statement.one(self).await
    }

    /// A page of a project's vaults, newest first, and how many match in all.
    pub async fn vaults(
        &mut self,
        project: ProjectId,
        filter: &VaultFilter,
        page: &Page,
    ) -> Result<(Vec<Vault>, u64)> {
        let count = filtered("SELECT COUNT(*) FROM vaults", project, filter)
            .number(self)
            .await?;
        let mut statement = filtered("SELECT * FROM vaults", project, filter);
        statement.ordered_page(&NEWEST_FIRST, project, page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// Every vault of a project that the filter takes, newest first.
    pub async fn all_vaults(
        &mut self,
        project: ProjectId,
        filter: &VaultFilter,
    ) -> Result<Vec<Vault>> {
        let mut statement = filtered("SELECT * FROM vaults", project, filter);
        statement.push(" ORDER BY created_at DESC, id DESC");
        statement.all(self).await
    }

    /// How many vaults a project has.
    pub async fn count_vaults(&mut self, project: ProjectId) -> Result<u64> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM vaults");
        statement.equals("project_id", Some(project));
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// Binds a resource to a vault.
    ///
    /// Errors: `Conflict` if it is bound already ([`crate::Error::is_duplicate`]).
    pub async fn bind_resource(&mut self, resource: &BoundResource) -> Result<()> {
        let columns = [
            ("resource_id", text(resource.id)),
            ("vault_id", text(resource.vault)),
            ("resource_type", text(resource.resource_type)),
            ("name", text(&resource.name)),
            ("size_bytes", signed(resource.size_bytes).into()),
            ("removing", resource.removing.into()),
            ("auto_protect", resource.auto_protect.into()),
            ("extra_info", json(&resource.extra_info)),
            ("bound_at", resource.bound_at.into()),
        ];
        insert(self, "vault_resources", columns).await
    }

    /// Writes what of a binding can change.
    pub async fn update_binding(&mut self, resource: &BoundResource) -> Result<()> {
        let mut statement = Statement::new("UPDATE vault_resources SET name = ");
        statement.bind(text(&resource.name));
        statement
            .push(", size_bytes = ")
            .bind(signed(resource.size_bytes));
        statement.push(", removing = ").bind(resource.removing);
        statement
            .push(", auto_protect = ")
            .bind(resource.auto_protect);
        statement
            .push(", extra_info = ")
            .bind(json(&resource.extra_info));
        statement.equals("resource_id", Some(resource.id));
        statement.equals("vault_id", Some(resource.vault));
        statement.run(self).await?;
        Ok(())
    }

    /// Takes a resource out of a vault.
    pub async fn unbind_resource(&mut self, vault: VaultId, resource: ResourceId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM vault_resources");
        statement
            .equals("vault_id", Some(vault))
            .equals("resource_id", Some(resource));
        statement.run(self).await?;
        Ok(())
    }

    /// Moves a resource's binding and all of its backups to another vault of the project.
    pub async fn move_resource(
        &mut self,
        resource: ResourceId,
        from: VaultId,
        to: &Vault,
        now: Timestamp,
    ) -> Result<()> {
        let mut binding = Statement::new("UPDATE vault_resources SET vault_id = ");
        binding
            .bind(text(to.id))
            .equals("vault_id", Some(from))
            .equals("resource_id", Some(resource));
        binding.run(self).await?;
        let moved = || {
            let mut statement = Statement::new("UPDATE backups SET vault_id = ");
            statement
                .bind(text(to.id))
                .push(", enterprise_project_id = ")
                .bind(text(&to.enterprise_project))
                .push(", updated_at = ")
                .bind(now);
            statement
        };
        // The disks of servers first: they are found by their parents.
        let mut children = moved();
        children
            .condition("parent_id IN (SELECT p.id FROM backups p WHERE p.vault_id = ")
            .bind(text(from))
            .push(" AND p.resource_id = ")
            .bind(text(resource))
            .push(" AND p.parent_id IS NULL)");
        children.run(self).await?;
        let mut backups = moved();
        backups
            .equals("vault_id", Some(from))
            .equals("resource_id", Some(resource))
            .condition("parent_id IS NULL");
        backups.run(self).await?;
        Ok(())
    }
}

/// Sizes are below 2^63 everywhere: files cannot be larger.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
