//! Protectables over HTTP.

use cairn_api::ProtectableType;
use cairn_api::protectable::{ListProtectableQuery, ListProtectableResponse, ProtectableResponse};
use cairn_core::{Caller, ProtectableView};
use cairn_types::ResourceType;

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListProtectableResponse> {
    let kind: ProtectableType = request.path("protectable_type")?;
    let query = ListProtectableQuery::parse(request.query())?;
    let mut found = app
        .service
        .protectables(caller, resource_type(kind))
        .await?;
    found.retain(|view| matches(view, &query));
    let page = query.page();
    if let Some(marker) = page.marker {
        let behind = found.iter().position(|view| view.protectable.id == marker);
        found.drain(..behind.map_or(found.len(), |position| position + 1));
    }
    let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let instances = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(convert::protectable);
    Ok(ListProtectableResponse {
        instances: instances.collect::<Result<_>>()?,
    })
}

fn matches(view: &ProtectableView, query: &ListProtectableQuery) -> bool {
    let found = &view.protectable;
    query.id.is_none_or(|id| found.id == id)
        && query
            .name
            .as_ref()
            .is_none_or(|name| found.name.contains(name.as_str()))
        && query
            .status
            .as_ref()
            .is_none_or(|status| convert::status_word(found) == status)
        && query.server_id.is_none()
}

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ProtectableResponse> {
    let kind: ProtectableType = request.path("protectable_type")?;
    let id = request.path("instance_id")?;
    let found = app
        .service
        .protectable(caller, resource_type(kind), id)
        .await?;
    Ok(ProtectableResponse {
        instance: convert::protectable(&found)?,
    })
}

const fn resource_type(kind: ProtectableType) -> ResourceType {
    match kind {
        ProtectableType::Server => ResourceType::Server,
        ProtectableType::Disk => ResourceType::Volume,
        ProtectableType::Turbo => ResourceType::Turbo,
        ProtectableType::Workspace | ProtectableType::WorkspaceV2 => ResourceType::Desktop,
    }
}
