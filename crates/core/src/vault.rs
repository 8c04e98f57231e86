//! Vaults: their rules, and the resources bound to them.

use cairn_meta::{BoundResource, Contents, Page, Payment, Tag, Tx, Usage, Vault, VaultFilter};
use cairn_types::{
    ByteCount, ObjectType, OperationLogId, OperationType, PolicyId, ResourceId, VaultId,
    VaultStatus, VaultStep,
};

use crate::candidate::ResourceToBind;
use crate::operation_log::NewOperation;
use crate::order::{Prepaid, refuse_paid};
use crate::work::Task;
use crate::{Caller, OperationDetail, Refusal, Result, Service};

/// A vault with what is in it.
#[derive(Debug, Clone)]
pub struct VaultView {
    /// The vault.
    pub vault: Vault,
    /// Its resources in the order in which they were bound.
    pub resources: Vec<BoundResource>,
    /// What its backups occupy.
    pub usage: Usage,
}

impl VaultView {
    /// The sum of the resources' sizes, in GB: what the vault has promised room for.
    pub fn allocated_gb(&self) -> u64 {
        allocated_gb(&self.resources)
    }
}

/// A vault to be made. Values are those that the request gave, defaults filled in.
#[derive(Debug, Clone)]
pub struct NewVault {
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// What it is to protect.
    pub object_type: ObjectType,
    /// `backup`, `replication` or `hybrid`.
    pub protect_type: String,
    /// `public` or `hybrid`.
    pub cloud_type: String,
    /// `crash_consistent` or `app_consistent`.
    pub consistent_level: String,
    /// Its capacity in GB.
    pub size_gb: u64,
    /// Whether policy runs bind resources.
    pub auto_bind: bool,
    /// Whether its capacity grows when full.
    pub auto_expand: bool,
    /// Whether its owner is told when it fills up.
    pub smn_notify: bool,
    /// At which share, in percent.
    pub threshold: u64,
    /// Whether it holds policies' backups until they expire.
    pub locked: bool,
    /// Kept for its clients.
    pub is_multi_az: bool,
    /// The enterprise project.
    pub enterprise_project: String,
    /// What policies' backups are called.
    pub backup_name_prefix: String,
    /// Which resources `auto_bind` takes.
    pub bind_rules: serde_json::Value,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// A backup policy to follow at once.
    pub policy: Option<PolicyId>,
    /// What it is bought by, if it is paid for in advance.
    pub prepaid: Option<Prepaid>,
    /// Whether it may hold more than its size.
    pub demand_billing: bool,
    /// Where its owner wants its backups to lie.
    pub availability_zone: Option<String>,
    /// The service that keeps it locked.
    pub sys_lock_source_service: Option<String>,
    /// What to bind at once.
    pub resources: Vec<ResourceToBind>,
}

/// What of a vault is to change; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct VaultChange {
    /// A new name.
    pub name: Option<String>,
    /// A new capacity in GB.
    pub size_gb: Option<u64>,
    /// A new consistency level.
    pub consistent_level: Option<String>,
    /// Bind by policy runs, or no longer.
    pub auto_bind: Option<bool>,
    /// Other rules for it.
    pub bind_rules: Option<serde_json::Value>,
    /// Grow when full, or no longer.
    pub auto_expand: Option<bool>,
    /// Tell when it fills up, or no longer.
    pub smn_notify: Option<bool>,
    /// At which share, in percent.
    pub threshold: Option<u64>,
    /// Hold policies' backups; never taken back.
    pub locked: Option<bool>,
}

impl Service {
    /// Makes a vault and binds resources to it.
    ///
    /// Errors: `NotFound` resource or policy; `Invalid` type, duplicates, a
    /// size below what they need, or a policy that such a vault does not follow.
    /// CBR: `CreateVault`, `POST /v3/{project_id}/vaults`.
    pub async fn create_vault(&self, caller: &Caller, new: NewVault) -> Result<VaultView> {
        let for_disks = new.object_type == ObjectType::Disk && new.protect_type == "replication";
        if for_disks && !self.replication_rules().disks {
            let text = "Invalid vault.billing.protect_type provided. Disk vaults take backup only.";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        let found = self
            .resources_to_bind(caller, new.object_type, &new.resources)
            .await?;
        let now = self.now();
        let mut vault = Vault {
            id: VaultId::random(),
            project: caller.project,
            name: new.name,
            description: new.description,
            object_type: new.object_type,
            protect_type: new.protect_type,
            cloud_type: new.cloud_type,
            consistent_level: new.consistent_level,
            status: VaultStatus::FIRST,
            size_gb: new.size_gb,
            auto_bind: new.auto_bind,
            auto_expand: new.auto_expand,
            smn_notify: new.smn_notify,
            threshold: new.threshold,
            locked: new.locked,
            is_multi_az: new.is_multi_az,
            enterprise_project: new.enterprise_project,
            backup_name_prefix: new.backup_name_prefix,
            bind_rules: new.bind_rules,
            tags: new.tags,
            payment: Payment {
                demand_billing: new.demand_billing,
                ..Payment::default()
            },
            availability_zone: new.availability_zone,
            sys_lock_source_service: new.sys_lock_source_service,
            user: Some(caller.user),
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.meta().begin().await?;
        tx.lock_project(caller.project).await?;
        if let Some(limit) = self.quotas().vaults
            && tx.count_vaults(caller.project).await? >= limit
        {
            return Err(Refusal::TooManyVaults.into());
        }
        tx.insert_vault(&vault).await?;
        if let Some(prepaid) = new.prepaid {
            self.buy(&mut tx, &mut vault, prepaid).await?;
        }
        for (wish, candidate) in new.resources.iter().zip(&found) {
            self.bind(&mut tx, &vault, wish, candidate).await?;
        }
        if let Some(policy) = new.policy {
            self.bind_backup_policy(&mut tx, &vault, policy).await?;
        }
        let view = view(&mut tx, vault).await?;
        if view.allocated_gb() > view.vault.size_gb {
            return Err(Refusal::VaultTooSmall.into());
        }
        tx.commit().await?;
        Ok(view)
    }

    /// A page of the project's vaults, newest first, and how many match in all.
    ///
    /// CBR: `ListVault`, `GET /v3/{project_id}/vaults`.
    pub async fn vaults(
        &self,
        caller: &Caller,
        filter: &VaultFilter,
        page: &Page,
    ) -> Result<(Vec<VaultView>, u64)> {
        let mut tx = self.meta().read().await?;
        let (vaults, count) = tx.vaults(caller.project, filter, page).await?;
        let views = views(&mut tx, vaults).await?;
        Ok((views, count))
    }

    /// One of the project's vaults.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowVault`, `GET /v3/{project_id}/vaults/{vault_id}`.
    pub async fn vault(&self, caller: &Caller, vault: VaultId) -> Result<VaultView> {
        let mut tx = self.meta().read().await?;
        let vault = tx
            .vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        view(&mut tx, vault).await
    }

    /// Changes a vault.
    ///
    /// Errors: `NotFound`; `Invalid` for a size below what its resources need,
    /// for unlocking, or for giving up application consistency.
    /// CBR: `UpdateVault`, `PUT /v3/{project_id}/vaults/{vault_id}`.
    pub async fn update_vault(
        &self,
        caller: &Caller,
        vault: VaultId,
        change: VaultChange,
    ) -> Result<VaultView> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        let mut view = view(&mut tx, vault).await?;
        refuse_unless_available(&view.vault)?;
        apply_change(&mut view, change)?;
        view.vault.updated_at = self.now();
        tx.update_vault(&view.vault).await?;
        self.mark_fill(&mut tx, &view.vault).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Deletes a vault: at once if it has no backups, else by a task that deletes them first.
    ///
    /// Errors: `NotFound`; `Conflict` while one of its backups is at work.
    /// CBR: `DeleteVault`, `DELETE /v3/{project_id}/vaults/{vault_id}`.
    pub async fn delete_vault(&self, caller: &Caller, vault: VaultId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        let mut view = view(&mut tx, vault).await?;
        match view.vault.status {
            VaultStatus::Deleting => return Ok(()),
            VaultStatus::Available | VaultStatus::Error => {}
            state => {
                return Err(Refusal::VaultState {
                    state: state.to_string(),
                }
                .into());
            }
        }
        refuse_paid(&view.vault, self.now())?;
        let backups = tx.backups_of_vault(view.vault.id, None).await?;
        if let Some(busy) = backups.iter().find(|backup| backup.status.is_busy()) {
            return Err(Refusal::BackupBusy { id: busy.id }.into());
        }
        let vault = view.vault.id;
        if tx.replications_under_way(vault, None, None).await? > 0 {
            return Err(Refusal::VaultReplicating.into());
        }
        if let Some(id) = tx.restored_from_vault(vault, None).await? {
            return Err(Refusal::BackupInUse { id }.into());
        }
        if view.vault.locked && backups.iter().any(|backup| backup.auto_trigger) {
            return Err(Refusal::BackupLocked.into());
        }
        if backups.is_empty() {
            tx.remove_vault(view.vault.id).await?;
            return Ok(tx.commit().await?);
        }
        tx.step_vault(&mut view.vault, VaultStep::StartDelete, self.now())
            .await?;
        let task = Task::DeleteVault {
            project: caller.project,
            vault: view.vault.id,
        };
        let operation = NewOperation {
            id: OperationLogId::random(),
            vault: &view.vault,
            checkpoint: None,
            policy: None,
            operation_type: OperationType::VaultDelete,
            resource: None,
            detail: OperationDetail::VaultDelete {
                failed: 0,
                total: view.usage.backups,
            },
        };
        self.enqueue(&mut tx, caller, &task, operation).await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(())
    }

    /// Binds resources to a vault. For a server that is in it already, the
    /// choice of disks is replaced.
    ///
    /// Errors: `NotFound`; `Invalid` type, duplicates, another vault's, too many or too large.
    /// CBR: `AddVaultResource`, `POST /v3/{project_id}/vaults/{vault_id}/addresources`.
    pub async fn add_resources(
        &self,
        caller: &Caller,
        vault: VaultId,
        wishes: &[ResourceToBind],
    ) -> Result<Vec<ResourceId>> {
        let object_type = self.vault(caller, vault).await?.vault.object_type;
        let found = self.resources_to_bind(caller, object_type, wishes).await?;
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if !vault.status.is_in_service() {
            return Err(Refusal::VaultState {
                state: vault.status.to_string(),
            }
            .into());
        }
        tx.lock_project(caller.project).await?;
        for (wish, candidate) in wishes.iter().zip(&found) {
            self.bind(&mut tx, &vault, wish, candidate).await?;
        }
        let view = view(&mut tx, vault).await?;
        let limit = self.quotas().resources_per_vault;
        if view.resources.len() > limit {
            return Err(Refusal::TooManyResources { limit }.into());
        }
        if view.allocated_gb() > view.vault.size_gb {
            return Err(Refusal::ResourcesTooLarge.into());
        }
        tx.commit().await?;
        Ok(wishes.iter().map(|wish| wish.id).collect())
    }

    /// Takes resources out of a vault and deletes their backups in it, by a task.
    ///
    /// Errors: `NotFound` vault; `Invalid` for a resource that is not in it or
    /// a locked vault; `Conflict` while one of their backups is at work.
    /// CBR: `RemoveVaultResource`, `POST /v3/{project_id}/vaults/{vault_id}/removeresources`.
    pub async fn remove_resources(
        &self,
        caller: &Caller,
        vault: VaultId,
        ids: &[ResourceId],
    ) -> Result<Vec<ResourceId>> {
        let mut tx = self.meta().begin().await?;
        let removed = self.plan_removal(&mut tx, caller, vault, ids).await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(removed)
    }

    /// Writes that resources are to be taken out of a vault with their backups in it.
    pub(crate) async fn plan_removal(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        vault: VaultId,
        ids: &[ResourceId],
    ) -> Result<Vec<ResourceId>> {
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if vault.status == VaultStatus::Deleting {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
        if vault.locked {
            return Err(Refusal::VaultLocked.into());
        }
        let mut bound = tx.resources_of(vault.id).await?;
        bound.retain(|resource| ids.contains(&resource.id));
        let missing: Vec<String> = ids
            .iter()
            .filter(|id| !bound.iter().any(|resource| resource.id == **id))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(Refusal::ResourceNotInVault {
                ids: missing.join(","),
            }
            .into());
        }
        for resource in &mut bound {
            self.mark_for_removal(tx, resource).await?;
        }
        let listed = bound
            .iter()
            .map(|r| (r.id, r.resource_type, r.name.clone()))
            .collect();
        let removed: Vec<ResourceId> = bound.iter().map(|resource| resource.id).collect();
        let total = bound.len() as u64;
        let (project, vault_id, resources) = (caller.project, vault.id, removed.clone());
        let task = Task::RemoveResources {
            project,
            vault: vault_id,
            resources,
        };
        let operation = NewOperation {
            id: OperationLogId::random(),
            vault: &vault,
            checkpoint: None,
            policy: None,
            operation_type: OperationType::RemoveResource,
            resource: None,
            detail: OperationDetail::RemoveResources {
                failed: 0,
                total,
                resources: listed,
            },
        };
        self.enqueue(tx, caller, &task, operation).await?;
        Ok(removed)
    }

    async fn mark_for_removal(&self, tx: &mut Tx, resource: &mut BoundResource) -> Result<()> {
        if resource.removing {
            return Err(Refusal::ResourceRemoving { id: resource.id }.into());
        }
        let backups = tx
            .backups_of_vault(resource.vault, Some(resource.id))
            .await?;
        if let Some(busy) = backups.iter().find(|backup| backup.status.is_busy()) {
            return Err(Refusal::BackupBusy { id: busy.id }.into());
        }
        let (vault, id) = (resource.vault, Some(resource.id));
        if tx.replications_under_way(vault, id, None).await? > 0 {
            return Err(Refusal::VaultReplicating.into());
        }
        if let Some(id) = tx.restored_from_vault(vault, id).await? {
            return Err(Refusal::BackupInUse { id }.into());
        }
        resource.removing = true;
        Ok(tx.update_binding(resource).await?)
    }
}

fn allocated_gb(resources: &[BoundResource]) -> u64 {
    resources
        .iter()
        .map(|resource| ByteCount(resource.size_bytes).gb_ceil())
        .sum()
}

pub(crate) async fn view(tx: &mut Tx, vault: Vault) -> Result<VaultView> {
    let contents = tx.contents_of(&[vault.id]).await?.remove(&vault.id);
    Ok(with_contents(vault, contents))
}

/// As [`view`], for all vaults of a page at once.
async fn views(tx: &mut Tx, vaults: Vec<Vault>) -> Result<Vec<VaultView>> {
    let ids: Vec<VaultId> = vaults.iter().map(|vault| vault.id).collect();
    let mut contents = tx.contents_of(&ids).await?;
    let views = vaults.into_iter().map(|vault| {
        let contents = contents.remove(&vault.id);
        with_contents(vault, contents)
    });
    Ok(views.collect())
}

fn with_contents(vault: Vault, contents: Option<Contents>) -> VaultView {
    let Contents { resources, usage } = contents.unwrap_or_default();
    VaultView {
        vault,
        resources,
        usage,
    }
}

fn refuse_unless_available(vault: &Vault) -> Result<()> {
    match vault.status {
        VaultStatus::Available => Ok(()),
        state => Err(Refusal::VaultState {
            state: state.to_string(),
        }
        .into()),
    }
}

fn apply_change(view: &mut VaultView, change: VaultChange) -> Result<()> {
    let allocated = view.allocated_gb();
    let vault = &mut view.vault;
    let in_advance = vault.payment.is_in_advance();
    if in_advance && change.auto_expand == Some(true) {
        return Err(Refusal::NotByUse { key: "auto_expand" }.into());
    }
    if let Some(size) = change.size_gb.filter(|size| *size != vault.size_gb) {
        if in_advance {
            return Err(Refusal::NotByUse { key: "size" }.into());
        }
        let used = ByteCount(view.usage.used_bytes).gb_ceil();
        if size < allocated || size < used {
            return Err(Refusal::VaultTooSmall.into());
        }
        vault.size_gb = size;
    }
    match change.locked {
        Some(false) if vault.locked => return Err(Refusal::CannotUnlock.into()),
        Some(locked) => vault.locked = locked,
        None => {}
    }
    if let Some(level) = change.consistent_level {
        let stays = level == vault.consistent_level;
        if !stays && (level != "app_consistent" || vault.object_type != ObjectType::Server) {
            let text = "consistent_level can only change from crash_consistent to app_consistent";
            return Err(Refusal::Invalid(format!("{text}, for server vaults")).into());
        }
        vault.consistent_level = level;
    }
    vault.name = change
        .name
        .unwrap_or_else(|| std::mem::take(&mut vault.name));
    vault.auto_bind = change.auto_bind.unwrap_or(vault.auto_bind);
    vault.auto_expand = change.auto_expand.unwrap_or(vault.auto_expand);
    vault.smn_notify = change.smn_notify.unwrap_or(vault.smn_notify);
    vault.threshold = change.threshold.unwrap_or(vault.threshold);
    if let Some(rules) = change.bind_rules {
        vault.bind_rules = rules;
    }
    Ok(())
}
