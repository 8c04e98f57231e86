//! Backups and restores over HTTP.

use cairn_api::backup::{
    BackupResponse, ListBackupsQuery, ListBackupsResponse, RestoreBackupRequest,
    RestoreBackupResponse, UpdateBackupRequest,
};
use cairn_api::{Invalid, OwnType};
use cairn_core::records::{BackupFilter, BackupScope, SortKey};
use cairn_core::{BackupQuery, Caller, DiskMapping, RestoreTarget};
use cairn_types::BackupId;

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;
use crate::vaults::ALL_ENTERPRISE_PROJECTS;

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListBackupsResponse> {
    let query = ListBackupsQuery::parse(request.query())?;
    let wanted = query.page();
    // Nothing lies in a zone.
    let none = query.resource_az.is_some();
    let (backups, count) = match none {
        true => (Vec::new(), 0),
        false => app.service.backups(caller, &backup_query(query)).await?,
    };
    Ok(ListBackupsResponse {
        backups: backups.iter().map(convert::backup).collect::<Result<_>>()?,
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

fn backup_query(query: ListBackupsQuery) -> BackupQuery {
    let wanted = query.page();
    let sort = query
        .sort
        .map(|sort| sort.0)
        .unwrap_or_default()
        .into_iter();
    BackupQuery {
        with_replications: query.show_replication.unwrap_or(false),
        sort: sort
            .map(|key| SortKey {
                column: key.key.name(),
                descending: !key.ascending,
            })
            .collect(),
        page: convert::page(&wanted),
        filter: BackupFilter {
            scope: match query.own_type {
                None | Some(OwnType::Private) => BackupScope::Own,
                Some(OwnType::Shared) => BackupScope::Shared,
                Some(OwnType::AllGranted) => BackupScope::Both,
            },
            share_status: query.member_status,
            checkpoint: query.checkpoint_id,
            vault: query.vault_id,
            resource: query.resource_id,
            resource_name: query.resource_name,
            resource_type: query.resource_type.map(|word| word.to_string()),
            name: query.name,
            status: query.status.iter().map(ToString::to_string).collect(),
            image_type: query.image_type.map(|word| word.to_string()),
            incremental: query.incremental,
            parent: query.parent_id,
            enterprise_project: query
                .enterprise_project_id
                .filter(|project| project != ALL_ENTERPRISE_PROJECTS),
            created_from: query.start_time,
            created_until: query.end_time,
            used_percent: query.used_percent.map(u64::from),
            automatic_until: query
                .existed_quantity_based_retention_backups
                .map(|by_number_or_for_ever| !by_number_or_for_ever),
        },
    }
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<BackupResponse> {
    let backup = app.service.backup(caller, id(request)?).await?;
    Ok(BackupResponse {
        backup: convert::backup(&backup)?,
    })
}

pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<BackupResponse> {
    let id = id(request)?;
    let body: UpdateBackupRequest = request.json()?;
    let name = body
        .backup
        .name
        .ok_or_else(|| Invalid::key("backup.name"))?;
    let backup = app.service.rename_backup(caller, id, name).await?;
    Ok(BackupResponse {
        backup: convert::backup(&backup)?,
    })
}

pub(crate) async fn delete(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    Ok(app.service.delete_backup(caller, id(request)?).await?)
}

pub(crate) async fn restore(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<RestoreBackupResponse> {
    let id = id(request)?;
    let body: RestoreBackupRequest = request.json()?;
    let mappings = body.restore.mappings.unwrap_or_default().into_iter();
    let (folder, path) = match body.restore.details {
        Some(details) => (details.destination_path, details.source_path),
        None => (None, None),
    };
    let target = RestoreTarget {
        volume: body.restore.volume_id,
        server: body.restore.server_id.or(body.restore.resource_id),
        power_on: body.restore.power_on,
        files: body.restore.resource_id,
        folder,
        path,
        mappings: mappings
            .map(|mapping| DiskMapping {
                backup: mapping.backup_id,
                volume: mapping.volume_id,
            })
            .collect(),
    };
    let job_id = app.service.restore_backup(caller, id, &target).await?;
    Ok(RestoreBackupResponse { job_id })
}

fn id(request: &Request) -> Result<BackupId> {
    request.path("backup_id")
}
