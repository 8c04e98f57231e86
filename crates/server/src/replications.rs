//! Replication over HTTP.

use cairn_api::replication::{
    BegunCopy, BegunReplication, BegunReplications, CopyBackupRequest, CopyBackupResponse,
    CopyCheckpointRequest, CopyCheckpointResponse, ListExternalVaultQuery,
    ReplicationCapabilitiesResponse, ReplicationRegion,
};
use cairn_api::vault::ListVaultResponse;
use cairn_core::records::{Replication, VaultFilter};
use cairn_core::{Caller, Refusal, ReplicaTarget};
use cairn_types::ObjectType;

use crate::App;
use crate::convert;
use crate::error::{Failure, Result};
use crate::request::Request;

/// The regions that this server copies to: its own.
pub(crate) fn capabilities(app: &App) -> ReplicationCapabilitiesResponse {
    let here = app.site.region.clone();
    ReplicationCapabilitiesResponse {
        regions: vec![ReplicationRegion {
            name: here.clone(),
            replication_destinations: vec![here],
        }],
    }
}

pub(crate) async fn copy_backup(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CopyBackupResponse> {
    let id = request.path("backup_id")?;
    let wish = request.json::<CopyBackupRequest>()?.replicate;
    let target = ReplicaTarget {
        here: app.site.region.clone(),
        region: wish.destination_region,
        project: wish.destination_project_id,
        vault: wish.destination_vault_id,
        name: wish.name,
        description: wish.description,
        auto_trigger: false,
    };
    let begun = app.service.replicate_backup(caller, id, &target).await?;
    let (Replication { id, source, .. }, resource_type) = begun;
    Ok(CopyBackupResponse {
        replication: BegunReplication {
            backup_id: source.backup,
            destination_project_id: target.project,
            destination_region: target.region,
            destination_vault_id: target.vault,
            project_id: caller.project,
            provider_id: resource_type.provider_id().to_owned(),
            replication_record_id: id,
            source_region: target.here,
        },
    })
}

pub(crate) async fn copy_vault(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CopyCheckpointResponse> {
    let wish = request.json::<CopyCheckpointRequest>()?;
    let wish = wish.into_replication()?;
    let target = ReplicaTarget {
        here: app.site.region.clone(),
        region: wish.destination_region,
        project: wish.destination_project_id,
        vault: wish.destination_vault_id,
        name: None,
        description: None,
        auto_trigger: wish.auto_trigger.unwrap_or(false),
    };
    let vault = wish.vault_id;
    let records = app.service.replicate_vault(caller, vault, &target).await?;
    let begun = records.into_iter().map(|record| BegunCopy {
        backup_id: record.source.backup,
        replication_record_id: record.id,
    });
    Ok(CopyCheckpointResponse {
        replication: BegunReplications {
            backups: begun.collect(),
            destination_project_id: target.project,
            destination_region: target.region,
            destination_vault_id: target.vault,
            project_id: caller.project,
            // Vaults of servers are the only ones that replicate.
            provider_id: convert::provider_of(ObjectType::Server).to_owned(),
            source_region: target.here,
            vault_id: vault,
        },
    })
}

/// The vaults of another project, for who may work there too.
pub(crate) async fn external_vaults(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListVaultResponse> {
    let query = ListExternalVaultQuery::parse(request.query())?;
    let wanted = query.page();
    let region = query.region_id.unwrap_or_default();
    if region != app.site.region {
        return Err(Refusal::RegionNotReplicable { region }.into());
    }
    let project = query.external_project_id;
    let project = project.ok_or_else(|| Failure::invalid("external_project_id"))?;
    let there = app.service.enter(caller.user, project, &caller.request_id);
    let filter = match query.vault_id {
        Some(vault) => VaultFilter {
            ids: vec![vault],
            ..VaultFilter::default()
        },
        None => VaultFilter {
            object_type: query.object_type.map(|word| word.to_string()),
            protect_type: query.protect_type.map(|word| word.to_string()),
            cloud_type: query.cloud_type.map(|word| word.to_string()),
            ..VaultFilter::default()
        },
    };
    let page = convert::page(&wanted);
    let there = there.await?;
    let (vaults, count) = app.service.vaults(&there, &filter, &page).await?;
    Ok(ListVaultResponse {
        vaults: vaults.iter().map(convert::vault).collect::<Result<_>>()?,
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}
