//! Resources that are to be bound to a vault, and what speaks against it.
//! `vault` asks, when a vault is made and when resources are added.

use cairn_meta::{BoundResource, ResourceExtraInfo, Tx, Vault};
use cairn_source::Protectable;
use cairn_types::{ObjectType, ProtectStatus, ResourceId, ResourceType};

use crate::{Caller, Refusal, Result, Service};

/// A resource to be bound.
#[derive(Debug, Clone)]
pub struct ResourceToBind {
    /// The resource.
    pub id: ResourceId,
    /// The type that the request says it has.
    pub resource_type: ResourceType,
    /// The name that the request gives it, if any.
    pub name: Option<String>,
    /// Which of its disks are protected.
    pub extra_info: ResourceExtraInfo,
}

/// A resource that is to be bound, as its source describes it.
#[derive(Debug)]
pub(crate) struct Candidate {
    protectable: Protectable,
    /// For a disk: the servers that it belongs to.
    servers: Vec<ResourceId>,
}

impl Candidate {
    /// A resource among all of its project's.
    pub(crate) fn of(protectable: &Protectable, own: &[Protectable]) -> Self {
        let servers = own
            .iter()
            .filter(|server| server.children.iter().any(|disk| disk.id == protectable.id));
        Self {
            servers: servers.map(|server| server.id).collect(),
            protectable: protectable.clone(),
        }
    }
}

impl Service {
    /// Looks the wished-for resources up, in their order, and checks what needs no vault's state.
    pub(crate) async fn resources_to_bind(
        &self,
        caller: &Caller,
        object_type: ObjectType,
        wishes: &[ResourceToBind],
    ) -> Result<Vec<Candidate>> {
        let limit = self.quotas().resources_per_vault;
        if wishes.len() > limit {
            return Err(Refusal::TooManyResources { limit }.into());
        }
        let takes_some = ResourceType::ALL
            .iter()
            .any(|kind| object_type.accepts(*kind));
        if !wishes.is_empty() && !takes_some {
            let object_type = object_type.to_string();
            return Err(Refusal::VaultTakesNoResources { object_type }.into());
        }
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let own = self.own_protectables(caller.project).await?;
        let mut found = Vec::with_capacity(wishes.len());
        for (position, wish) in wishes.iter().enumerate() {
            if wishes[..position]
                .iter()
                .any(|earlier| earlier.id == wish.id)
            {
                return Err(Refusal::DuplicateResource.into());
            }
            if !object_type.accepts(wish.resource_type) {
                return Err(Refusal::ResourceTypeMismatch.into());
            }
            let protectable = own.iter().find(|protectable| protectable.id == wish.id);
            let protectable = protectable.ok_or(Refusal::ResourceNotFound { id: wish.id })?;
            if protectable.resource_type != wish.resource_type {
                return Err(Refusal::ResourceTypeMismatch.into());
            }
            if !protectable.status.is_usable() {
                return Err(Refusal::NotProtectable {
                    id: wish.id,
                    resource_type: wish.resource_type,
                    state: protectable.status.to_string(),
                }
                .into());
            }
            check_volume_choice(protectable, &wish.extra_info)?;
            found.push(Candidate::of(protectable, &own));
        }
        Ok(found)
    }

    /// Binds a resource; for a server that is in the vault already, replaces the choice of disks.
    pub(crate) async fn bind(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        wish: &ResourceToBind,
        candidate: &Candidate,
    ) -> Result<()> {
        let protectable = &candidate.protectable;
        match tx.binding(wish.id).await? {
            Some(bound) if bound.vault != vault.id => Err(Refusal::ResourceInOtherVault.into()),
            Some(mut bound) if bound.resource_type == ResourceType::Server && !bound.removing => {
                refuse_second_vault(tx, wish, candidate).await?;
                bound.extra_info = wish.extra_info.clone();
                Ok(tx.update_binding(&bound).await?)
            }
            Some(bound) => {
                let resource_type = bound.resource_type;
                Err(Refusal::ResourceInVault {
                    id: bound.id,
                    resource_type,
                }
                .into())
            }
            None => {
                refuse_second_vault(tx, wish, candidate).await?;
                let bound = BoundResource {
                    id: wish.id,
                    vault: vault.id,
                    resource_type: wish.resource_type,
                    name: wish
                        .name
                        .clone()
                        .unwrap_or_else(|| protectable.name.clone()),
                    size_bytes: protectable.size_bytes,
                    removing: false,
                    auto_protect: true,
                    extra_info: wish.extra_info.clone(),
                    bound_at: self.now(),
                    backup_count: 0,
                    backup_bytes: 0,
                    protect_status: ProtectStatus::Available,
                };
                Ok(tx.bind_resource(&bound).await?)
            }
        }
    }
}

/// At least one disk of a server stays protected, and each that is named is the server's.
fn check_volume_choice(protectable: &Protectable, choice: &ResourceExtraInfo) -> Result<()> {
    let of_server = |id: &ResourceId| protectable.children.iter().any(|disk| disk.id == *id);
    if let Some(stranger) = choice
        .include_volumes
        .iter()
        .find(|volume| !of_server(&volume.id))
    {
        return Err(Refusal::ResourceNotFound { id: stranger.id }.into());
    }
    let left = protectable
        .children
        .iter()
        .any(|disk| choice_takes(choice, disk.id));
    if !protectable.children.is_empty() && !left {
        return Err(Refusal::NoVolumeLeft { id: protectable.id }.into());
    }
    Ok(())
}

/// Whether a choice of disks takes this one.
pub(crate) fn choice_takes(choice: &ResourceExtraInfo, disk: ResourceId) -> bool {
    let included = choice.include_volumes.is_empty()
        || choice
            .include_volumes
            .iter()
            .any(|volume| volume.id == disk);
    included && !choice.exclude_volumes.contains(&disk)
}

/// No disk is protected both by itself and as a server's: each of its backups
/// would count in two vaults, and a restore of one would undo the other's.
async fn refuse_second_vault(
    tx: &mut Tx,
    wish: &ResourceToBind,
    candidate: &Candidate,
) -> Result<()> {
    for server in &candidate.servers {
        if let Some(bound) = tx.binding(*server).await?
            && choice_takes(&bound.extra_info, wish.id)
        {
            return Err(Refusal::DiskInSeveralVaults { id: wish.id }.into());
        }
    }
    for disk in &candidate.protectable.children {
        if choice_takes(&wish.extra_info, disk.id) && tx.binding(disk.id).await?.is_some() {
            return Err(Refusal::DiskInSeveralVaults { id: disk.id }.into());
        }
    }
    Ok(())
}
