//! What a project's vaults and resources occupy, and what is done to all of
//! its vaults or to all backups of one, over HTTP.

use cairn_api::usage::{
    BatchUpdateVaultRequest, BatchUpdateVaultResponse, ListExternalVaultQuery, StorageUsage,
    StorageUsageQuery, StorageUsageResponse, SummaryResponse, UpdateExpirationTimeRequest,
    UpdateExpirationTimeResponse,
};
use cairn_api::vault::ListVaultResponse;
use cairn_core::Caller;
use cairn_core::records::{ResourceUsage, VaultFilter};
use cairn_types::ByteCount;

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
    // This server is one region, and knows no vaults of others.
    let (vaults, count) = match query.region_id.as_deref() == Some(app.site.region.as_str()) {
        false => (Vec::new(), 0),
        true => {
            let page = convert::page(&wanted);
            app.service
                .external_vaults(caller, project, &filter, &page)
                .await?
        }
    };
    Ok(ListVaultResponse {
        vaults: vaults.iter().map(convert::vault).collect::<Result<_>>()?,
        count,
        limit: wanted.limit,
        offset: wanted.offset,
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
