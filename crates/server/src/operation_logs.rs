//! Operation logs over HTTP.

use cairn_api::operation_log::{ListOpLogsQuery, ListOpLogsResponse, OperationLogResponse};
use cairn_core::Caller;
use cairn_core::records::OperationLogFilter;
use cairn_types::ResourceType;
use uuid::Uuid;

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;
use crate::vaults::ALL_ENTERPRISE_PROJECTS;

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListOpLogsResponse> {
    let query = ListOpLogsQuery::parse(request.query())?;
    let wanted = query.page();
    let page = convert::page(&wanted);
    let filter = OperationLogFilter {
        status: query.status,
        operation_type: query.operation_type.map(|word| word.to_string()),
        vault: query.vault_id,
        vault_name: query.vault_name,
        resource: query.resource_id,
        resource_name: query.resource_name,
        destination_region: query.destination_region,
        destination_project: query.destination_project_id,
        resource_types: query.provider_id.map(types_of_provider),
        enterprise_project: query
            .enterprise_project_id
            .filter(|project| project != ALL_ENTERPRISE_PROJECTS),
        created_from: query.start_time,
        created_until: query.end_time,
    };
    let (logs, count) = app.service.operation_logs(caller, &filter, &page).await?;
    Ok(ListOpLogsResponse {
        operation_logs: logs.into_iter().map(convert::operation_log).collect(),
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

/// The types of resources that a provider stands for.
fn types_of_provider(provider: Uuid) -> Vec<ResourceType> {
    let provider = provider.to_string();
    let all = ResourceType::ALL.iter().copied();
    all.filter(|kind| kind.provider_id() == provider).collect()
}

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<OperationLogResponse> {
    let log = app
        .service
        .operation_log(caller, request.path("operation_log_id")?)
        .await?;
    Ok(OperationLogResponse {
        operation_log: convert::operation_log(log),
    })
}

/// An extension: CBR ends no task that it has begun.
pub(crate) async fn cancel(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<OperationLogResponse> {
    let id = request.path("operation_log_id")?;
    let log = app.service.cancel_operation(caller, id).await?;
    Ok(OperationLogResponse {
        operation_log: convert::operation_log(log),
    })
}
