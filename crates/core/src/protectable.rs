//! What a project could protect, or does.

use cairn_meta::{Page, Tx};
use cairn_source::{Protectable, ProtectableStatus};
use cairn_types::{ProjectId, ResourceId, ResourceType};

use crate::vault::view;
use crate::{Caller, Refusal, Result, Service, VaultView};

/// A protectable with the vault that it is bound to.
#[derive(Debug, Clone)]
pub struct ProtectableView {
    /// The resource as its source describes it.
    pub protectable: Protectable,
    /// The vault that it is bound to.
    pub vault: Option<VaultView>,
}

/// Which protectables a list shows.
#[derive(Debug, Clone, Default)]
pub struct ProtectableFilter {
    /// Only this one.
    pub id: Option<ResourceId>,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Only those in one of these states, if any is given.
    pub status: Option<Vec<ProtectableStatus>>,
    /// Only the disks of this server.
    pub server: Option<ResourceId>,
}

impl ProtectableFilter {
    fn takes(&self, found: &Protectable) -> bool {
        let named = |name: &String| found.name.contains(name.as_str());
        self.id.is_none_or(|id| found.id == id)
            && self.name.as_ref().is_none_or(named)
            && self
                .status
                .as_ref()
                .is_none_or(|states| states.contains(&found.status))
    }
}

impl Service {
    /// A page of what the project could protect, of one type, in the order of its sources.
    ///
    /// CBR: `ListProtectable`, `GET /v3/{project_id}/protectables/{protectable_type}/instances`.
    pub async fn protectables(
        &self,
        caller: &Caller,
        resource_type: ResourceType,
        filter: &ProtectableFilter,
        page: &Page,
    ) -> Result<Vec<ProtectableView>> {
        let mut own = self.own_protectables(caller.project).await?;
        if let Some(server) = filter.server {
            let server = own.into_iter().find(|found| found.id == server);
            own = server.map_or_else(Vec::new, |server| server.children);
        }
        own.retain(|found| found.resource_type == resource_type && filter.takes(found));
        if let Some(marker) = &page.marker {
            let last = own.iter().position(|found| found.id.to_string() == *marker);
            own.drain(..last.map_or(own.len(), |last| last + 1));
        }
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let mut views = Vec::with_capacity(own.len().min(limit));
        let mut tx = self.meta().read().await?;
        for protectable in own.into_iter().skip(offset).take(limit) {
            views.push(with_binding(&mut tx, caller.project, protectable).await?);
        }
        Ok(views)
    }

    /// One resource that the project could protect.
    ///
    /// Errors: `NotFound`, for another project's resource too.
    /// CBR: `ShowProtectable`, `GET /v3/{project_id}/protectables/{protectable_type}/instances/{instance_id}`.
    pub async fn protectable(
        &self,
        caller: &Caller,
        resource_type: ResourceType,
        id: ResourceId,
    ) -> Result<ProtectableView> {
        let protectable = self.own_protectable(caller.project, id).await?;
        if protectable.resource_type != resource_type {
            return Err(Refusal::ResourceNotFound { id }.into());
        }
        let mut tx = self.meta().read().await?;
        with_binding(&mut tx, caller.project, protectable).await
    }

    /// The protectables of this project, of every type. It looks through all
    /// sources: whoever needs several asks once.
    pub(crate) async fn own_protectables(&self, project: ProjectId) -> Result<Vec<Protectable>> {
        let mut all = self.ask_inventory(|inventory| inventory.list()).await?;
        let owner = self.owner_of_unnamed_sources().await?;
        all.retain(|protectable| protectable.project.or(owner) == Some(project));
        all.extend(self.hosts(project).await?);
        Ok(all)
    }

    /// A protectable of this project.
    pub(crate) async fn own_protectable(
        &self,
        project: ProjectId,
        id: ResourceId,
    ) -> Result<Protectable> {
        let missing = || Refusal::ResourceNotFound { id };
        let found = self
            .ask_inventory(move |inventory| inventory.find(id))
            .await;
        let protectable = match found {
            Err(error) if error.kind() == cairn_types::Kind::NotFound => {
                let mut hosts = self.hosts(project).await?.into_iter();
                let host = hosts.find(|host| host.id == id);
                return Ok(host.ok_or_else(missing)?);
            }
            other => other?,
        };
        let owner = match protectable.project {
            Some(project) => Some(project),
            None => self.owner_of_unnamed_sources().await?,
        };
        if owner != Some(project) {
            return Err(missing().into());
        }
        Ok(protectable)
    }

    /// A source that names no project belongs to the first.
    async fn owner_of_unnamed_sources(&self) -> Result<Option<ProjectId>> {
        Ok(self.first_project().await?.map(|project| project.id))
    }
}

async fn with_binding(
    tx: &mut Tx,
    project: ProjectId,
    protectable: Protectable,
) -> Result<ProtectableView> {
    let mut vault = None;
    if let Some(binding) = tx.binding(protectable.id).await?
        && let Some(holder) = tx.vault(project, binding.vault).await?
    {
        vault = Some(view(tx, holder).await?);
    }
    Ok(ProtectableView { protectable, vault })
}
