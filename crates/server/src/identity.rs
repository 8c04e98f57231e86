//! The identity service's part: what clients need of it to find this server
//! and prove who they are.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request as HttpRequest, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cairn_api::ErrorCode;
use cairn_api::identity::{
    CatalogEntry, CatalogResponse, Domain, DomainsResponse, Endpoint, IdentityVersionResponse,
    Links, ListedUser, NameQuery, NamedDomain, Project, ProjectsResponse, Role, Scope as WireScope,
    Token, TokenProject, TokenRequest, TokenResponse, TokenUser, UsersResponse,
};
use cairn_core::{IssuedToken, PasswordSignIn, Refusal, Scope, records};
use cairn_types::ProjectId;
use zeroize::Zeroizing;

use crate::App;
use crate::auth;
use crate::error::{Failure, Result};
use crate::request::Request;
use crate::routes::id_of;

const SUBJECT_TOKEN: &str = "x-subject-token";

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v3", get(version))
        .route("/v3/", get(version))
        .route(
            "/v3/auth/tokens",
            post(issue_token).get(show_token).delete(end_token),
        )
        .route("/v3/auth/catalog", get(catalog))
        .route("/v3/auth/projects", get(projects))
        .route("/v3/projects", get(projects))
        .route("/v3/auth/domains", get(domains))
        .route("/v3/users", get(users))
}

async fn version(State(app): State<App>) -> Response {
    Json(IdentityVersionResponse::v3(address(&app, ""))).into_response()
}

async fn issue_token(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let issue = async {
        let request = Request::read(&app, request, &id).await?;
        let body: TokenRequest = request.json()?;
        let scope = scope(body.auth.scope);
        let identity = body.auth.identity;
        let (method, issued) = match (identity.password, identity.token) {
            (Some(password), _) => {
                let user = password.user;
                let domain = user.domain.and_then(|domain| domain.name.or(domain.id));
                let who = PasswordSignIn {
                    user_id: user.id.map(|id| id.to_string()),
                    user_name: user.name,
                    domain,
                    password: Zeroizing::new(user.password.0),
                };
                ("password", app.service.sign_in(who, &scope).await?)
            }
            (None, Some(token)) => (
                "token",
                app.service.sign_in_again(&token.id.0, &scope).await?,
            ),
            (None, None) => return Err(Failure::invalid("auth.identity")),
        };
        token_response(&app, StatusCode::CREATED, method, &issued)
    };
    issue.await.unwrap_or_else(Failure::into_identity_response)
}

async fn show_token(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let show = async {
        let request = Request::read(&app, request, &id).await?;
        let asking = auth::identify(&app, &request).await?;
        let described = app.service.describe_token(subject_token(&request)?).await?;
        // A token is shown to its owner alone.
        if described.user.id != asking.user {
            return Err(Refusal::NotAllowed.into());
        }
        token_response(&app, StatusCode::OK, "password", &described)
    };
    show.await.unwrap_or_else(Failure::into_identity_response)
}

async fn end_token(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let end = async {
        let request = Request::read(&app, request, &id).await?;
        let asking = auth::identify(&app, &request).await?;
        let subject = subject_token(&request)?;
        app.service.end_token(asking.user, subject).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    end.await.unwrap_or_else(Failure::into_identity_response)
}

/// The token that a request is about.
fn subject_token(request: &Request) -> Result<&str> {
    let token = request.header(SUBJECT_TOKEN);
    token.ok_or(Failure::invalid("X-Subject-Token"))
}

async fn catalog(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let list = async {
        let request = Request::read(&app, request, &id).await?;
        let asking = auth::identify(&app, &request).await?;
        let project = match request.header("x-project-id") {
            Some(project) => project.parse().ok(),
            None => app
                .service
                .projects_of(asking.user, None)
                .await?
                .first()
                .map(|one| one.id),
        };
        let links = Links::to(address(&app, "/auth/catalog"));
        Ok(Json(CatalogResponse {
            catalog: services(&app, project),
            links,
        })
        .into_response())
    };
    list.await.unwrap_or_else(Failure::into_identity_response)
}

async fn projects(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let list = async {
        let request = Request::read(&app, request, &id).await?;
        let asking = auth::identify(&app, &request).await?;
        let query = NameQuery::parse(request.query())?;
        let found = app
            .service
            .projects_of(asking.user, query.name.as_deref())
            .await?;
        let links = Links::to(address(&app, "/projects"));
        let projects = found
            .iter()
            .map(|project| wire_project(&app, project))
            .collect();
        Ok(Json(ProjectsResponse { projects, links }).into_response())
    };
    list.await.unwrap_or_else(Failure::into_identity_response)
}

async fn domains(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let list = async {
        let request = Request::read(&app, request, &id).await?;
        let asking = auth::identify(&app, &request).await?;
        let (_, domain) = app.service.user_and_domain(asking.user).await?;
        let query = NameQuery::parse(request.query())?;
        let wanted = query.name.is_none_or(|name| name == domain.name);
        let link = Links::to(address(&app, &format!("/domains/{}", domain.id)));
        let own = Domain {
            id: domain.id,
            name: domain.name,
            description: String::new(),
            enabled: true,
            links: link,
        };
        let domains = wanted.then_some(own).into_iter().collect();
        let links = Links::to(address(&app, "/auth/domains"));
        Ok(Json(DomainsResponse { domains, links }).into_response())
    };
    list.await.unwrap_or_else(Failure::into_identity_response)
}

/// The caller, if the name is theirs: nobody learns of other users here.
async fn users(State(app): State<App>, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let list = async {
        let request = Request::read(&app, request, &id).await?;
        let asking = auth::identify(&app, &request).await?;
        let (user, domain) = app.service.user_and_domain(asking.user).await?;
        let query = NameQuery::parse(request.query())?;
        let wanted = query.name.is_none_or(|name| name == user.name);
        let links = Links::to(address(&app, &format!("/users/{}", user.id)));
        let own = ListedUser {
            id: user.id,
            name: user.name,
            description: String::new(),
            domain_id: domain.id,
            enabled: true,
            password_expires_at: None,
            links,
        };
        let users = wanted.then_some(own).into_iter().collect();
        let links = Links::to(address(&app, "/users"));
        Ok(Json(UsersResponse { users, links }).into_response())
    };
    list.await.unwrap_or_else(Failure::into_identity_response)
}

fn scope(wish: Option<WireScope>) -> Scope {
    match wish {
        Some(WireScope::Project { project }) => match (project.id, project.name) {
            (Some(id), _) => Scope::ProjectId(id.to_string()),
            (None, Some(name)) => Scope::ProjectName(name),
            (None, None) => Scope::Unscoped,
        },
        Some(WireScope::Domain { .. }) => Scope::Domain,
        Some(WireScope::Unscoped(_)) | None => Scope::Unscoped,
    }
}

fn token_response(
    app: &App,
    status: StatusCode,
    method: &str,
    issued: &IssuedToken,
) -> Result<Response> {
    let domain = NamedDomain {
        id: issued.domain.id,
        name: issued.domain.name.clone(),
    };
    let project = issued.project.as_ref();
    let token = Token {
        methods: vec![method.to_owned()],
        issued_at: issued.issued_at,
        expires_at: issued.expires_at,
        user: TokenUser {
            id: issued.user.id,
            name: issued.user.name.clone(),
            domain: domain.clone(),
        },
        project: project.map(|project| TokenProject {
            id: project.id,
            name: project.name.clone(),
            domain: domain.clone(),
        }),
        domain: project.is_none().then_some(domain),
        roles: issued
            .role
            .map(|role| Role {
                id: role.to_string(),
                name: role.to_string(),
            })
            .into_iter()
            .collect(),
        catalog: services(app, project.map(|project| project.id)),
    };
    let mut response = (status, Json(TokenResponse { token })).into_response();
    let secret = HeaderValue::from_str(&issued.secret);
    let mut secret = secret.map_err(|_| Failure::code(ErrorCode::Unknown))?;
    secret.set_sensitive(true);
    response.headers_mut().insert(SUBJECT_TOKEN, secret);
    Ok(response)
}

/// The services of this server, for a project.
fn services(app: &App, project: Option<ProjectId>) -> Vec<CatalogEntry> {
    let region = &app.site.region;
    let entry = |service: &str, url: String| CatalogEntry {
        id: format!("{service}-{region}"),
        name: service.to_owned(),
        service_type: service.to_owned(),
        endpoints: vec![Endpoint {
            id: format!("{service}-{region}-public"),
            interface: "public".to_owned(),
            region: region.clone(),
            region_id: region.clone(),
            url,
        }],
    };
    let mut services = vec![entry("identity", address(app, ""))];
    if let Some(project) = project {
        services.push(entry("cbr", address(app, &format!("/{project}"))));
    }
    services
}

fn wire_project(app: &App, project: &records::Project) -> Project {
    Project {
        id: project.id,
        name: project.name.clone(),
        description: String::new(),
        domain_id: project.domain,
        parent_id: project.domain.to_string(),
        enabled: true,
        is_domain: false,
        links: Links::to(address(app, &format!("/projects/{}", project.id))),
    }
}

/// An address below version 3 of this server.
fn address(app: &App, path: &str) -> String {
    format!("{}/v3{path}", app.site.endpoint)
}
