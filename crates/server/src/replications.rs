//! Replication over HTTP.

use cairn_api::replication::{
    BegunCopy, BegunReplication, BegunReplications, CopyBackupRequest, CopyBackupResponse,
    CopyCheckpointRequest, CopyCheckpointResponse, ReplicationCapabilitiesResponse,
    ReplicationRegion,
};
use cairn_core::records::Replication;
use cairn_core::{Caller, ReplicaTarget};

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;

/// The regions that this server copies to: its own, and those it has credentials for.
pub(crate) async fn capabilities(app: &App) -> Result<ReplicationCapabilitiesResponse> {
    Ok(ReplicationCapabilitiesResponse {
        regions: vec![ReplicationRegion {
            name: app.site.region.clone(),
            replication_destinations: app.destinations(),
        }],
    })
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
        policy: None,
        auto_trigger: false,
        bandwidth: None,
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
        policy: None,
        auto_trigger: wish.auto_trigger.unwrap_or(false),
        bandwidth: None,
    };
    let vault = wish.vault_id;
    let records = app.service.replicate_vault(caller, vault, &target).await?;
    let protects = app.service.vault(caller, vault).await?.vault.object_type;
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
            provider_id: convert::provider_of(protects).to_owned(),
            source_region: target.here,
            vault_id: vault,
        },
    })
}
