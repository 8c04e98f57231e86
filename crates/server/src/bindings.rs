//! What is done to resources that are bound to a vault, over HTTP.

use cairn_api::binding::{
    MigrateVaultResourceRequest, MigrateVaultResourceResponse, SetAction, SetVaultResourceRequest,
    SetVaultResourceResponse,
};
use cairn_core::Caller;

use crate::App;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn set(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<SetVaultResourceResponse> {
    let vault = request.path("vault_id")?;
    let body: SetVaultResourceRequest = request.json()?;
    let auto_protect = body.action == SetAction::Unsuspend;
    let set_resource_ids = app
        .service
        .set_auto_protect(caller, vault, &body.resource_ids, auto_protect)
        .await?;
    Ok(SetVaultResourceResponse { set_resource_ids })
}

pub(crate) async fn migrate(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<MigrateVaultResourceResponse> {
    let from = request.path("vault_id")?;
    let body: MigrateVaultResourceRequest = request.json()?;
    let to = body.destination_vault_id;
    let migrated_resources = app
        .service
        .move_resources(caller, from, to, &body.resource_ids)
        .await?;
    Ok(MigrateVaultResourceResponse { migrated_resources })
}
