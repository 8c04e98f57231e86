//! Look-ups of domains, projects, features and versions over HTTP, and the
//! migration from the services before CBR.

use std::collections::BTreeMap;

use cairn_api::ErrorCode;
use cairn_api::lookup::{
    ApiName, DomainProject, DomainProjectsResponse, DomainResponse, FeatureValue, FeaturesResponse,
    MigrateDomainRequest, MigrateDomainResponse, MigrateProjectStatus, MigrateStatus,
    MigrateStatusQuery, MigrateStatusResponse, RegionProject, RegionProjectsResponse, SelfLink,
    VersionsResponse,
};
use cairn_core::Caller;
use cairn_types::ProjectId;

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;

pub(crate) async fn domain_projects(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<DomainProjectsResponse> {
    let domain: String = request.path("domain_name")?;
    let found = app.service.projects_of_domain(caller, &domain).await?;
    let projects = found.into_iter().map(|project| DomainProject {
        project_id: project.id,
        project_name: project.name,
    });
    Ok(DomainProjectsResponse {
        projects: projects.collect(),
    })
}

pub(crate) async fn domain(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<DomainResponse> {
    let project: ProjectId = request.path("source_project_id")?;
    let (domain, project) = app.service.domain_of_project(caller, project).await?;
    Ok(DomainResponse {
        domain_id: domain.id,
        domain_name: domain.name,
        project_id: project.id,
        project_name: project.name,
    })
}

pub(crate) async fn region_projects(
    app: &App,
    caller: &Caller,
    _request: &Request,
) -> Result<RegionProjectsResponse> {
    let found = app.service.projects_of(caller.user, None).await?;
    let link = |path: String| SelfLink {
        this: format!("{}/v3/{path}", app.site.endpoint),
    };
    let projects = found.into_iter().map(|project| RegionProject {
        links: link(format!("projects/{}", project.id)),
        id: project.id,
        name: project.name,
        description: String::new(),
        domain_id: project.domain,
        parent_id: project.domain.to_string(),
        enabled: true,
        is_domain: false,
    });
    Ok(RegionProjectsResponse {
        projects: projects.collect(),
        links: link("auth/projects".to_owned()),
    })
}

/// The features that this server has, by the keys that the vendor documents.
fn all_features(app: &App) -> BTreeMap<String, FeatureValue> {
    let region = &app.site.region;
    let destinations = FeatureValue::List(app.destinations());
    let features = [
        ("features.backup_double_az", FeatureValue::Truth(false)),
        (
            "replication.destination_dgw_regions",
            FeatureValue::List(Vec::new()),
        ),
        ("replication.destination_regions", destinations),
        ("replication.enable", FeatureValue::Truth(true)),
        (
            "replication.source_region",
            FeatureValue::Text(region.clone()),
        ),
    ];
    features
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

pub(crate) async fn features(app: &App) -> Result<FeaturesResponse> {
    Ok(FeaturesResponse(all_features(app)))
}

pub(crate) async fn feature(app: &App, request: &Request) -> Result<FeaturesResponse> {
    let key: String = request.path("feature_key")?;
    let mut features = all_features(app);
    features.retain(|known, _| *known == key);
    match features.is_empty() {
        true => Err(Failure::invalid("feature_key")),
        false => Ok(FeaturesResponse(features)),
    }
}

/// The versions of the API, which anybody may ask for.
pub(crate) async fn versions(app: &App) -> Result<VersionsResponse> {
    Ok(VersionsResponse::v3(format!("{}/v3", app.site.endpoint)))
}

/// The same, by the name of a service.
pub(crate) async fn version(app: &App, request: &Request) -> Result<VersionsResponse> {
    let name: Result<ApiName> = request.path("api_version");
    match name {
        Ok(_) => versions(app).await,
        Err(_) => Err(Failure::code(ErrorCode::NoSuchApi)),
    }
}

pub(crate) async fn migrate(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<MigrateDomainResponse> {
    let _: MigrateDomainRequest = request.json()?;
    app.service.migrate_domain(caller).await?;
    let region = app.site.region.clone();
    Ok(MigrateDomainResponse(BTreeMap::from([(
        region,
        "running".to_owned(),
    )])))
}

pub(crate) async fn migrate_status(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<MigrateStatusResponse> {
    MigrateStatusQuery::parse(request.query())?;
    let found = app.service.migrated_projects(caller).await?;
    let projects = found.into_iter().map(|project| MigrateProjectStatus {
        project_id: project.id,
        project_name: project.name,
        region_id: app.site.region.clone(),
        status: MigrateStatus::Success,
        progress: 100,
    });
    Ok(MigrateStatusResponse {
        status: MigrateStatus::Success,
        project_status: projects.collect(),
    })
}
