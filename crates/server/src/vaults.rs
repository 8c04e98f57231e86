//! Vaults over HTTP.

use cairn_api::resource::Resource;
use cairn_api::vault::{
    AddVaultResourceRequest, AddVaultResourceResponse, CreateVaultRequest, CreateVaultResponse,
    ListVaultQuery, ListVaultResponse, NewVault as WireVault, RemoveVaultResourceRequest,
    RemoveVaultResourceResponse, UpdateVaultRequest, VaultResponse,
};
use cairn_api::{ChargingMode, CloudType, ConsistentLevel, Invalid};
use cairn_core::records::{ResourceExtraInfo, VaultFilter, VolumeChoice};
use cairn_core::{Caller, NewVault, ResourceToBind, VaultChange, VaultView};
use cairn_types::{ObjectType, VaultId};

use crate::App;
use crate::convert;
use crate::error::{Failure, Result};
use crate::orders;
use crate::request::Request;

/// The enterprise project that stands for all of them.
pub(crate) const ALL_ENTERPRISE_PROJECTS: &str = "all_granted_eps";
/// The enterprise project of what is in none.
pub(crate) const NO_ENTERPRISE_PROJECT: &str = "0";
/// Source: the defaults of `VaultCreate` in the vendor's definitions.
const DEFAULT_THRESHOLD: u32 = 80;

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListVaultResponse> {
    let query = ListVaultQuery::parse(request.query())?;
    let wanted = query.page();
    let page = convert::page(&wanted);
    let filter = VaultFilter {
        ids: query.id,
        name: query.name,
        status: query.status.map(|word| word.to_string()),
        object_type: query.object_type.map(|word| word.to_string()),
        protect_type: query.protect_type.map(|word| word.to_string()),
        cloud_type: query.cloud_type.map(|word| word.to_string()),
        enterprise_project: query
            .enterprise_project_id
            .filter(|project| project != ALL_ENTERPRISE_PROJECTS),
        resources: query.resource_ids.map(|list| list.0).unwrap_or_default(),
        availability_zone: query.availability_zone,
        policy: query.policy_id,
    };
    let (vaults, count) = app.service.vaults(caller, &filter, &page).await?;
    Ok(ListVaultResponse {
        vaults: vaults.iter().map(convert::vault).collect::<Result<_>>()?,
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CreateVaultResponse> {
    let body: CreateVaultRequest = request.json()?;
    let new = new_vault(body.vault)?;
    answer_to_new(app.service.create_vault(caller, new).await?)
}

/// A vault that is paid for by use, or the order of one that was bought.
pub(crate) fn answer_to_new(view: VaultView) -> Result<CreateVaultResponse> {
    Ok(match &view.vault.payment.order {
        Some(order) => CreateVaultResponse::bought(order.clone(), view.vault.id),
        None => CreateVaultResponse::made(convert::vault(&view)?),
    })
}

pub(crate) fn new_vault(wish: WireVault) -> Result<NewVault> {
    let billing = &wish.billing;
    let prepaid = match (
        billing.charging_mode,
        billing.period_type,
        billing.period_num,
    ) {
        (Some(ChargingMode::PrePaid), Some(unit), Some(periods)) => {
            Some(orders::prepaid(unit, periods))
        }
        _ => None,
    };
    if prepaid.is_some() && wish.auto_expand == Some(true) {
        let text = "Only vaults that are paid by use take true.";
        return Err(rule("vault.auto_expand", text));
    }
    if prepaid.is_none() && wish.demand_billing == Some(true) {
        let text = "Only vaults that are paid in advance take true.";
        return Err(rule("vault.demand_billing", text));
    }
    let for_servers = billing.object_type == ObjectType::Server;
    if billing.consistent_level == ConsistentLevel::AppConsistent && !for_servers {
        let text = "Only server vaults take app_consistent.";
        return Err(rule("vault.billing.consistent_level", text));
    }
    Ok(NewVault {
        object_type: billing.object_type,
        protect_type: billing.protect_type.to_string(),
        cloud_type: billing.cloud_type.unwrap_or(CloudType::Public).to_string(),
        consistent_level: billing.consistent_level.to_string(),
        size_gb: billing.size,
        is_multi_az: billing.is_multi_az.unwrap_or(false),
        name: wish.name,
        description: wish.description.unwrap_or_default(),
        auto_bind: wish.auto_bind.unwrap_or(false),
        auto_expand: wish.auto_expand.unwrap_or(false),
        smn_notify: wish.smn_notify.unwrap_or(true),
        threshold: wish.threshold.unwrap_or(DEFAULT_THRESHOLD).into(),
        locked: wish.locked.unwrap_or(false),
        enterprise_project: wish
            .enterprise_project_id
            .filter(|project| !project.is_empty())
            .unwrap_or_else(|| NO_ENTERPRISE_PROJECT.to_owned()),
        backup_name_prefix: wish.backup_name_prefix.unwrap_or_default(),
        bind_rules: convert::to_json(&wish.bind_rules.unwrap_or_default()),
        tags: wish
            .tags
            .unwrap_or_default()
            .into_iter()
            .map(convert::stored_tag)
            .collect(),
        policy: wish.backup_policy_id,
        prepaid,
        demand_billing: wish.demand_billing.unwrap_or(false),
        availability_zone: wish.availability_zone,
        sys_lock_source_service: wish.sys_lock_source_service,
        resources: wish.resources.into_iter().map(to_bind).collect(),
    })
}

fn rule(key: &str, text: &str) -> Failure {
    Invalid::rule(key, text).into()
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<VaultResponse> {
    let vault = app.service.vault(caller, id(request)?).await?;
    Ok(VaultResponse {
        vault: convert::vault(&vault)?,
    })
}

pub(crate) async fn update(app: &App, caller: &Caller, request: &Request) -> Result<VaultResponse> {
    let id = id(request)?;
    let body: UpdateVaultRequest = request.json()?;
    let billing = body.vault.billing.unwrap_or_default();
    let change = VaultChange {
        name: body.vault.name,
        size_gb: billing.size,
        consistent_level: billing.consistent_level.map(|level| level.to_string()),
        auto_bind: body.vault.auto_bind,
        bind_rules: body.vault.bind_rules.map(|mut rules| {
            rules.tags = rules.tags.filter(|tags| !tags.is_empty());
            convert::to_json(&rules)
        }),
        auto_expand: body.vault.auto_expand,
        smn_notify: body.vault.smn_notify,
        threshold: body.vault.threshold.map(u64::from),
        locked: body.vault.locked,
    };
    let vault = app.service.update_vault(caller, id, change).await?;
    Ok(VaultResponse {
        vault: convert::vault(&vault)?,
    })
}

pub(crate) async fn delete(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    Ok(app.service.delete_vault(caller, id(request)?).await?)
}

pub(crate) async fn add_resources(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AddVaultResourceResponse> {
    let id = id(request)?;
    let body: AddVaultResourceRequest = request.json()?;
    let wishes: Vec<ResourceToBind> = body.resources.into_iter().map(to_bind).collect();
    let add_resource_ids = app.service.add_resources(caller, id, &wishes).await?;
    Ok(AddVaultResourceResponse { add_resource_ids })
}

pub(crate) async fn remove_resources(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<RemoveVaultResourceResponse> {
    let id = id(request)?;
    let body: RemoveVaultResourceRequest = request.json()?;
    let removed = app
        .service
        .remove_resources(caller, id, &body.resource_ids)
        .await?;
    Ok(RemoveVaultResourceResponse {
        remove_resource_ids: removed,
    })
}

fn id(request: &Request) -> Result<VaultId> {
    request.path("vault_id")
}

fn to_bind(resource: Resource) -> ResourceToBind {
    let extra = resource.extra_info.unwrap_or_default();
    let included = extra.include_volumes.unwrap_or_default().into_iter();
    ResourceToBind {
        id: resource.id,
        resource_type: resource.resource_type,
        name: resource.name,
        extra_info: ResourceExtraInfo {
            exclude_volumes: extra.exclude_volumes.unwrap_or_default(),
            include_volumes: included
                .map(|volume| VolumeChoice {
                    id: volume.id,
                    os_version: volume.os_version,
                })
                .collect(),
        },
    }
}
