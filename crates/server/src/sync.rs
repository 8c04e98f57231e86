//! Synchronisation with other sites over HTTP.

use cairn_api::sync::{
    BegunImport, BegunSync, ImportBackupsRequest, ImportBackupsResponse, SyncVaultRequest,
    SyncVaultResponse,
};
use cairn_core::{BackupToImport, Caller};

use crate::App;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn vault(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<SyncVaultResponse> {
    let vault_id = request.json::<SyncVaultRequest>()?.sync.vault_id;
    let operation_log_id = app.service.sync_vault(caller, vault_id).await?;
    Ok(SyncVaultResponse {
        sync: BegunSync {
            operation_log_id,
            vault_id,
        },
    })
}

pub(crate) async fn import(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ImportBackupsResponse> {
    let backups = request.json::<ImportBackupsRequest>()?.sync.into_iter();
    let backups = backups.map(|backup| BackupToImport {
        id: backup.backup_id,
        name: backup.backup_name,
        bucket: backup.bucket_name,
        path: backup.image_path,
        resource: backup.resource_id,
        resource_name: backup.resource_name,
        resource_type: backup.resource_type,
    });
    let begun = app
        .service
        .import_backups(caller, backups.collect())
        .await?;
    let begun = begun
        .into_iter()
        .map(|(backup_id, operation_log_id)| BegunImport {
            backup_id,
            operation_log_id,
        });
    Ok(ImportBackupsResponse {
        sync: begun.collect(),
    })
}
