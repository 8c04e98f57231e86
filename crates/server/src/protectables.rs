//! Protectables over HTTP.

use cairn_api::ProtectableType;
use cairn_api::protectable::{ListProtectableQuery, ListProtectableResponse, ProtectableResponse};
use cairn_core::{Caller, ProtectableFilter, ProtectableStatus};
use cairn_types::ResourceType;

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;
use crate::vaults::{ALL_ENTERPRISE_PROJECTS, NO_ENTERPRISE_PROJECT};

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListProtectableResponse> {
    let kind: ProtectableType = request.path("protectable_type")?;
    let query = ListProtectableQuery::parse(request.query())?;
    // What a source holds is in no enterprise project.
    let elsewhere =
        |project: &String| project != ALL_ENTERPRISE_PROJECTS && project != NO_ENTERPRISE_PROJECT;
    if query.enterprise_project_id.as_ref().is_some_and(elsewhere) {
        let instances = Vec::new();
        return Ok(ListProtectableResponse { instances });
    }
    let resource_type = resource_type(kind);
    let page = convert::page(&query.page());
    let status = query.status.as_deref();
    let filter = ProtectableFilter {
        id: query.id,
        name: query.name,
        status: status.map(|word| states_called(word, resource_type)),
        server: query.server_id,
    };
    let found = app
        .service
        .protectables(caller, resource_type, &filter, &page)
        .await?;
    Ok(ListProtectableResponse {
        instances: found
            .iter()
            .map(convert::protectable)
            .collect::<Result<_>>()?,
    })
}

/// The states that a list shows as this word, in whichever case.
fn states_called(word: &str, resource_type: ResourceType) -> Vec<ProtectableStatus> {
    let mut states = vec![
        ProtectableStatus::Available,
        ProtectableStatus::Running,
        ProtectableStatus::Unusable,
        ProtectableStatus::Missing,
    ];
    states.retain(|state| convert::status_word(*state, resource_type).eq_ignore_ascii_case(word));
    states
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
        ProtectableType::Native => ResourceType::NativeServer,
    }
}
