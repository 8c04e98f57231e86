//! What a project's vaults and resources occupy, and what is done to all of
//! its vaults or to all backups of one, over HTTP.

use cairn_api::ErrorCode;
use cairn_api::usage::{
    BatchUpdateVaultRequest, BatchUpdateVaultResponse, ListExternalVaultQuery, StorageUsage,
    StorageUsageQuery, StorageUsageResponse, SummaryResponse, UpdateExpirationTimeRequest,
    UpdateExpirationTimeResponse,
};
use cairn_api::vault::{ListVaultQuery, ListVaultResponse};
use cairn_core::records::{ResourceUsage, VaultFilter};
use cairn_core::{Caller, Regions};
use cairn_types::{ByteCount, Kind, ProjectId};

use crate::App;
use crate::convert;
use crate::error::{Failure, Result};
use crate::request::Request;

pub(crate) async fn summary(
    app: &App,
    caller: &Caller,
    _request: &Request,
) -> Result<SummaryResponse> {
    let usage = app.service.project_usage(caller).await?;
    Ok(SummaryResponse {
        size: usage.size_gb,
        used_size: ByteCount(usage.used_bytes).gb_ceil(),
    })
}

pub(crate) async fn batch_update(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<BatchUpdateVaultResponse> {
    let body: BatchUpdateVaultRequest = request.json()?;
    let threshold = body.vault.threshold.map(u64::from);
    let updated_vaults_id = app
        .service
        .set_notification(caller, body.vault.smn_notify, threshold)
        .await?;
    Ok(BatchUpdateVaultResponse { updated_vaults_id })
}

pub(crate) async fn external_vaults(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListVaultResponse> {
    let query = ListExternalVaultQuery::parse(request.query())?;
    let wanted = query.page();
    let filter = match query.vault_id {
        Some(vault) => VaultFilter {
            ids: vec![vault],
            ..VaultFilter::default()
        },
        None => VaultFilter {
            object_type: query
                .object_type
                .or(query.objcet_type)
                .map(|word| word.to_string()),
            protect_type: query.protect_type.map(|word| word.to_string()),
            cloud_type: query.cloud_type.map(|word| word.to_string()),
            ..VaultFilter::default()
        },
    };
    let project = query
        .external_project_id
        .ok_or_else(|| Failure::invalid("external_project_id"))?;
    let region = query.region_id.as_deref().unwrap_or_default();
    if region != app.site.region {
        let there = ListVaultQuery {
            limit: query.limit,
            offset: query.offset,
            marker: query.marker,
            id: query.vault_id.into_iter().collect(),
            object_type: query.object_type.or(query.objcet_type),
            protect_type: query.protect_type,
            cloud_type: query.cloud_type,
            ..ListVaultQuery::default()
        };
        return vaults_elsewhere(app, caller, (region, project), there).await;
    }
    let page = convert::page(&wanted);
    let found = app.service.external_vaults(caller, project, &filter, &page);
    let (vaults, count) = found.await?;
    Ok(ListVaultResponse {
        vaults: vaults.iter().map(convert::vault).collect::<Result<_>>()?,
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

/// The vaults of a project in another region; none of one that this server does not know,
/// or that the project may not use.
async fn vaults_elsewhere(
    app: &App,
    caller: &Caller,
    (region, project): (&str, ProjectId),
    query: ListVaultQuery,
) -> Result<ListVaultResponse> {
    let regions = app.regions.as_ref();
    let regions = regions.filter(|regions| regions.allows(region, caller.project, project));
    let Some(regions) = regions else {
        let wanted = query.page();
        return Ok(ListVaultResponse {
            vaults: Vec::new(),
            count: 0,
            limit: wanted.limit,
            offset: wanted.offset,
        });
    };
    // One by its id, and nothing else filters then.
    let query = match query.id.is_empty() {
        true => query,
        false => ListVaultQuery {
            id: query.id,
            ..ListVaultQuery::default()
        },
    };
    let found = regions.vaults(region, project, &query).await;
    found.map_err(|error| {
        tracing::warn!(%error, region, "the vaults of a region cannot be listed");
        match error.kind {
            Kind::Transient => Failure::unavailable("The other region cannot be reached."),
            _ => Failure::code_with(ErrorCode::RegionNotReplicable, error),
        }
    })
}

pub(crate) async fn storage(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<StorageUsageResponse> {
    let query = StorageUsageQuery::parse(request.query())?;
    let page = convert::page(&query.page());
    let (found, resource_count) = app
        .service
        .resource_usage(caller, query.resource_id, query.resource_type, &page)
        .await?;
    Ok(StorageUsageResponse {
        resource_count,
        storage_usage: found.into_iter().map(of_resource).collect(),
    })
}

fn of_resource(usage: ResourceUsage) -> StorageUsage {
    StorageUsage {
        resource_id: usage.resource,
        resource_name: usage.name,
        resource_type: usage.resource_type,
        backup_count: usage.backups,
        backup_size: ByteCount(usage.used_bytes).mb_ceil(),
        backup_size_multiaz: ByteCount(usage.multi_az_bytes).mb_ceil(),
    }
}

pub(crate) async fn update_expiration(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<UpdateExpirationTimeResponse> {
    let vault = request.path("vault_id")?;
    let body: UpdateExpirationTimeRequest = request.json()?;
    let (until, day) = (body.until()?, body.expect_expiration_date);
    let (affected_backups_count, operation_log_id) = app
        .service
        .set_expiry(caller, vault, day.clone(), until)
        .await?;
    Ok(UpdateExpirationTimeResponse {
        affected_backups_count,
        new_expiration_day: day,
        operation_log_id,
    })
}
