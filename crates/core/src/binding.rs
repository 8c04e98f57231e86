//! What happens to resources while they are bound: policies pass them by, and
//! they move to another vault with their backups.

use cairn_meta::{BoundResource, Tx, Vault};
use cairn_types::{BYTES_PER_GB, OperationLogId, OperationType, ResourceId, VaultId};

use crate::operation_log::NewOperation;
use crate::service::Outcome;
use crate::vault::view;
use crate::{Caller, OperationDetail, Refusal, Result, Service};

impl Service {
    /// Has policies take resources of a vault, or pass them by.
    ///
    /// Errors: `NotFound` vault; `Invalid` for a resource that is not in it;
    /// `Conflict` for one that is being taken out.
    /// CBR: `SetVaultResource`, `PUT /v3/{project_id}/vaults/{vault_id}/set-resources`.
    pub async fn set_auto_protect(
        &self,
        caller: &Caller,
        vault: VaultId,
        resources: &[ResourceId],
        auto_protect: bool,
    ) -> Result<Vec<ResourceId>> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        let mut bound = bound_ones(&mut tx, vault.id, resources).await?;
        for resource in &mut bound {
            resource.auto_protect = auto_protect;
            tx.update_binding(resource).await?;
        }
        tx.commit().await?;
        Ok(bound.iter().map(|resource| resource.id).collect())
    }

    /// Moves resources with all of their backups to another vault of the project.
    ///
    /// No byte moves, so all of it is one transaction, and the record of it is
    /// that of a task that is over.
    ///
    /// Errors: `NotFound` vault; `Invalid` for a missing destination or one of
    /// another type, a locked vault, or resources that are not in the vault or
    /// do not fit; `Conflict` while something is at work in either vault.
    /// CBR: `MigrateVaultResource`, `POST /v3/{project_id}/vaults/{vault_id}/migrateresources`.
    pub async fn move_resources(
        &self,
        caller: &Caller,
        from: VaultId,
        to: VaultId,
        resources: &[ResourceId],
    ) -> Result<Vec<ResourceId>> {
        let mut tx = self.meta().begin().await?;
        let (source, destination) = lock_both(&mut tx, caller, from, to).await?;
        let bound = bound_ones(&mut tx, source.id, resources).await?;
        for vault in [&source, &destination] {
            refuse_busy(&mut tx, vault).await?;
        }
        for resource in &bound {
            tx.move_resource(resource.id, source.id, &destination, self.now())
                .await?;
        }
        let after = view(&mut tx, destination).await?;
        let limit = self.quotas().resources_per_vault;
        if after.resources.len() > limit {
            return Err(Refusal::TooManyResources { limit }.into());
        }
        if after.allocated_gb() > after.vault.size_gb {
            return Err(Refusal::ResourcesTooLarge.into());
        }
        let size_bytes = after.vault.size_gb.saturating_mul(BYTES_PER_GB);
        if after.usage.used_bytes > size_bytes && !after.vault.payment.demand_billing {
            return Err(Refusal::DestinationFull.into());
        }
        for vault in [&source, &after.vault] {
            self.mark_fill(&mut tx, vault).await?;
        }
        let listed = bound
            .iter()
            .map(|r| (r.id, r.resource_type, r.name.clone()));
        let operation = NewOperation {
            id: OperationLogId::random(),
            vault: &source,
            checkpoint: None,
            policy: None,
            operation_type: OperationType::MigrateResource,
            resource: None,
            detail: OperationDetail::MigrateResources {
                destination: after.vault.id,
                total: bound.len() as u64,
                resources: listed.collect(),
            },
        };
        self.record(&mut tx, caller, operation, Outcome::Done)
            .await?;
        tx.commit().await?;
        Ok(bound.iter().map(|resource| resource.id).collect())
    }
}

/// Both vaults, locked in one order for every caller, if resources may move between them.
async fn lock_both(
    tx: &mut Tx,
    caller: &Caller,
    from: VaultId,
    to: VaultId,
) -> Result<(Vault, Vault)> {
    if from == to {
        let text = "Invalid destination_vault_id provided. It is the vault itself.";
        return Err(Refusal::Invalid(text.to_owned()).into());
    }
    let (first, second) = (from.min(to), from.max(to));
    let first = tx.lock_vault(caller.project, first).await?;
    let second = tx.lock_vault(caller.project, second).await?;
    let (source, destination) = match from < to {
        true => (first, second),
        false => (second, first),
    };
    let source = source.ok_or(Refusal::VaultNotFound)?;
    let destination = destination.ok_or(Refusal::DestinationNotFound)?;
    for vault in [&source, &destination] {
        if !vault.status.is_in_service() {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
    }
    if source.locked {
        return Err(Refusal::VaultLocked.into());
    }
    let kind = |vault: &Vault| {
        let (protects, cloud) = (vault.protect_type.clone(), vault.cloud_type.clone());
        (vault.object_type, protects, cloud)
    };
    if kind(&source) != kind(&destination) {
        return Err(Refusal::ResourceTypeMismatch.into());
    }
    Ok((source, destination))
}

/// The resources with these ids, each of which must be in the vault to stay.
async fn bound_ones(tx: &mut Tx, vault: VaultId, ids: &[ResourceId]) -> Result<Vec<BoundResource>> {
    let mut bound = tx.resources_of(vault).await?;
    bound.retain(|resource| ids.contains(&resource.id));
    let missing: Vec<String> = ids
        .iter()
        .filter(|id| !bound.iter().any(|resource| resource.id == **id))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        let ids = missing.join(",");
        return Err(Refusal::ResourceNotInVault { ids }.into());
    }
    match bound.iter().find(|resource| resource.removing) {
        Some(resource) => Err(Refusal::ResourceRemoving { id: resource.id }.into()),
        None => Ok(bound),
    }
}

async fn refuse_busy(tx: &mut Tx, vault: &Vault) -> Result<()> {
    let backups = tx.backups_of_vault(vault.id, None).await?;
    match backups.iter().find(|backup| backup.status.is_busy()) {
        Some(busy) => Err(Refusal::BackupBusy { id: busy.id }.into()),
        None => Ok(()),
    }
}
