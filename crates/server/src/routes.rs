//! The routes: every operation of the contract's table, the identity calls,
//! and the two questions of a supervisor.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Method, Request as HttpRequest, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::{Json, Router};
use cairn_api::{ErrorCode, Operation};
use cairn_audit::Trace;
use cairn_core::Caller;
use serde::Serialize;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use uuid::Uuid;

use crate::auth::Proven;
use crate::error::{Failure, RefusedWith, Result};
use crate::request::Request;
use crate::{
    App, agents, audit, auth, backups, bindings, checkpoints, identity, lookups, members, metadata,
    once, operation_logs, orders, organization_policies, permission, policies, protectables,
    replications, sync, tags, usage, vaults,
};

/// Requests that are answered at the same time; further ones wait.
const REQUESTS: usize = 512;
/// How long a request may take, its body's arrival included.
const REQUEST_TIME: Duration = Duration::from_secs(60);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything this server answers.
pub fn router(app: App) -> Router {
    let mut paths: BTreeMap<&str, MethodRouter<App>> = BTreeMap::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let handler = move |State(app): State<App>, request: HttpRequest<Body>| {
            serve(app, *operation, request)
        };
        let route = paths.remove(spec.path).unwrap_or_default();
        paths.insert(spec.path, route.on(filter(&spec.method), handler));
        // The path of a batch hides that of a tag whose key is the batch's word.
        if *operation == Operation::BatchCreateAndDeleteVaultTags {
            let route = paths.remove(spec.path).unwrap_or_default();
            let handler = async |State(app): State<App>, request: HttpRequest<Body>| {
                serve(app, Operation::DeleteVaultTag, request).await
            };
            paths.insert(spec.path, route.delete(handler));
        }
    }
    let mut router = identity::routes();
    for (path, route) in paths {
        router = router.route(path, route.fallback(no_such_api));
    }
    router
        .route("/openapi.json", get(openapi))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", on(MethodFilter::GET, ready))
        .fallback(no_such_api)
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(|_| {
            Failure::code(ErrorCode::Unknown).into_response()
        }))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            REQUEST_TIME,
        ))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
        .layer(axum::middleware::from_fn(number_requests))
        .with_state(app)
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).expect("the contract uses the usual methods only")
}

/// Gives every request an id, and every answer the id of its request.
async fn number_requests(mut request: HttpRequest<Body>, next: axum::middleware::Next) -> Response {
    let id = format!("req-{}", Uuid::new_v4());
    request.extensions_mut().insert(RequestId(id.clone()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    match status {
        401 | 403 => tracing::warn!(request.id = %id, %method, path, status, "refused a caller"),
        _ => tracing::debug!(request.id = %id, %method, path, status, "answered a request"),
    }
    let value = HeaderValue::from_str(&id).expect("an id is plain text");
    response.headers_mut().insert(REQUEST_ID, value);
    response
}

/// The id that [`number_requests`] gave.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

pub(crate) fn id_of(request: &HttpRequest<Body>) -> String {
    request
        .extensions()
        .get::<RequestId>()
        .map(|id| id.0.clone())
        .unwrap_or_default()
}

async fn ready(State(app): State<App>) -> StatusCode {
    match app.service.ready().await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The description of the API, written once.
async fn openapi() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let document = serde_json::to_vec(&cairn_api::openapi::document());
        document.expect("the document has string keys only").into()
    });
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

async fn no_such_api() -> Failure {
    Failure::code(ErrorCode::NoSuchApi)
}

async fn serve(app: App, operation: Operation, request: HttpRequest<Body>) -> Response {
    let id = id_of(&request);
    let answer = async {
        let request = Request::read(request, &id).await?;
        let spec = operation.spec();
        if spec.is_public() {
            return tell_anybody(&app, operation, &request);
        }
        let proven = match spec.is_in_project() {
            true => auth::enter_project(&app, &request).await?,
            false => auth::enter_home(&app, &request).await?,
        };
        let trace = audit::asked(&app, operation, &proven, &request).await?;
        let calls = app.calls.clone();
        let answering = answer_caller(app, operation, proven, request, trace);
        if permission::only_looks(operation) {
            return Ok(answering.await);
        }
        // What changes something goes on to its end, whether or not somebody waits for it.
        let answered = calls.spawn(answering).await;
        answered.map_err(|_| Failure::code(ErrorCode::Unknown))
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// Answers somebody who is known: once, where the request may come again, and with its trace.
async fn answer_caller(
    app: App,
    operation: Operation,
    proven: Proven,
    request: Request,
    trace: Option<Trace>,
) -> Response {
    let Proven { caller, signed } = proven;
    let answer = async {
        let answer = async {
            permission::check(operation, &caller)?;
            call(&app, operation, &caller, &request).await
        };
        answer.await.unwrap_or_else(IntoResponse::into_response)
    };
    let may_come_again = request.parts.method == Method::POST && !permission::only_looks(operation);
    let response = match signed {
        Some(signed) if may_come_again => once::once(&app, &signed.digest, answer).await,
        _ => answer.await,
    };
    if let Some(trace) = trace {
        let code = response.extensions().get::<RefusedWith>();
        let code = code.map(|code| code.0.clone());
        audit::answered(&app, trace, response.status(), code).await;
    }
    response
}

/// The operations that need no proof of who asks.
fn tell_anybody(app: &App, operation: Operation, request: &Request) -> Result<Response> {
    match operation {
        Operation::ListApiVersions => answer(operation, lookups::versions(app)),
        Operation::ShowApiVersion => answer(operation, lookups::version(app, request)?),
        _ => Err(Failure::code(ErrorCode::Unknown)),
    }
}

/// The operations that are served, each by its handler.
async fn call(
    app: &App,
    operation: Operation,
    caller: &Caller,
    request: &Request,
) -> Result<Response> {
    use Operation as Op;
    match operation {
        Op::ListVault => answer(operation, vaults::list(app, caller, request).await?),
        Op::CreateVault => answer(operation, vaults::create(app, caller, request).await?),
        Op::ShowVault => answer(operation, vaults::show(app, caller, request).await?),
        Op::UpdateVault => answer(operation, vaults::update(app, caller, request).await?),
        Op::DeleteVault => done(operation, vaults::delete(app, caller, request).await?),
        Op::AddVaultResource => answer(
            operation,
            vaults::add_resources(app, caller, request).await?,
        ),
        Op::RemoveVaultResource => answer(
            operation,
            vaults::remove_resources(app, caller, request).await?,
        ),
        Op::CreateCheckpoint => answer(operation, checkpoints::create(app, caller, request).await?),
        Op::ShowCheckpoint => answer(operation, checkpoints::show(app, caller, request).await?),
        Op::ListBackups => answer(operation, backups::list(app, caller, request).await?),
        Op::ShowBackup => answer(operation, backups::show(app, caller, request).await?),
        Op::UpdateBackup => answer(operation, backups::update(app, caller, request).await?),
        Op::DeleteBackup => done(operation, backups::delete(app, caller, request).await?),
        Op::RestoreBackup => answer(operation, backups::restore(app, caller, request).await?),
        Op::ListOpLogs => answer(operation, operation_logs::list(app, caller, request).await?),
        Op::ShowOpLog => answer(operation, operation_logs::show(app, caller, request).await?),
        Op::ListProtectable => answer(operation, protectables::list(app, caller, request).await?),
        Op::ShowProtectable => answer(operation, protectables::show(app, caller, request).await?),
        Op::CopyBackup => answer(
            operation,
            replications::copy_backup(app, caller, request).await?,
        ),
        Op::CopyCheckpoint => answer(
            operation,
            replications::copy_vault(app, caller, request).await?,
        ),
        Op::ShowReplicationCapabilities => answer(operation, replications::capabilities(app)),
        Op::BatchUpdateVault => answer(operation, usage::batch_update(app, caller, request).await?),
        Op::ShowSummary => answer(operation, usage::summary(app, caller, request).await?),
        Op::ListExternalVault => answer(
            operation,
            usage::external_vaults(app, caller, request).await?,
        ),
        Op::SetVaultResource => answer(operation, bindings::set(app, caller, request).await?),
        Op::MigrateVaultResource => {
            answer(operation, bindings::migrate(app, caller, request).await?)
        }
        Op::UpdateExpirationTime => answer(
            operation,
            usage::update_expiration(app, caller, request).await?,
        ),
        Op::ShowMetadata => answer(operation, metadata::show(app, caller, request).await?),
        Op::ChangeOrder => answer(operation, orders::change(app, caller, request).await?),
        Op::UpdateOrder => answer(operation, orders::update(app, caller, request).await?),
        Op::ChangeVaultChargeMode => answer(
            operation,
            orders::change_charge_mode(app, caller, request).await?,
        ),
        Op::CreatePostPaidVault => {
            answer(operation, orders::create_vault(app, caller, request).await?)
        }
        Op::ShowStorageUsage => answer(operation, usage::storage(app, caller, request).await?),
        Op::ListFeatures => answer(operation, lookups::features(app)),
        Op::ShowFeature => answer(operation, lookups::feature(app, request)?),
        Op::ShowMigrateStatus => answer(
            operation,
            lookups::migrate_status(app, caller, request).await?,
        ),
        Op::MigrateDomain => answer(operation, lookups::migrate(app, caller, request).await?),
        Op::ListDomainProjects => answer(
            operation,
            lookups::domain_projects(app, caller, request).await?,
        ),
        Op::ShowDomain => answer(operation, lookups::domain(app, caller, request).await?),
        Op::ListProjects => answer(
            operation,
            lookups::region_projects(app, caller, request).await?,
        ),
        Op::ListPolicies => answer(operation, policies::list(app, caller, request).await?),
        Op::CreatePolicy => answer(operation, policies::create(app, caller, request).await?),
        Op::ShowPolicy => answer(operation, policies::show(app, caller, request).await?),
        Op::UpdatePolicy => answer(operation, policies::update(app, caller, request).await?),
        Op::DeletePolicy => done(operation, policies::delete(app, caller, request).await?),
        Op::AssociateVaultPolicy => {
            answer(operation, policies::associate(app, caller, request).await?)
        }
        Op::DisassociateVaultPolicy => {
            answer(operation, policies::dissociate(app, caller, request).await?)
        }
        Op::ListOrganizationPolicies
        | Op::CreateOrganizationPolicy
        | Op::ShowOrganizationPolicy
        | Op::UpdateOrganizationPolicy
        | Op::DeleteOrganizationPolicy
        | Op::ListOrganizationPolicyDetail => {
            call_organization_policies(app, operation, caller, request).await
        }
        Op::ShowVaultResourceInstances => {
            answer(operation, tags::search(app, caller, request).await?)
        }
        Op::ShowVaultProjectTag => answer(operation, tags::show_all(app, caller).await?),
        Op::ShowVaultTag => answer(operation, tags::show(app, caller, request).await?),
        Op::CreateVaultTags => done(operation, tags::create(app, caller, request).await?),
        Op::BatchCreateAndDeleteVaultTags => {
            done(operation, tags::batch(app, caller, request).await?)
        }
        Op::DeleteVaultTag => done(operation, tags::delete(app, caller, request).await?),
        Op::ImportBackup => answer(operation, sync::import(app, caller, request).await?),
        Op::ImportCheckpoint => answer(operation, sync::vault(app, caller, request).await?),
        Op::ListAgent => answer(operation, agents::list(app, caller, request).await?),
        Op::RegisterAgent => answer(operation, agents::register(app, caller, request).await?),
        Op::ShowAgent => answer(operation, agents::show(app, caller, request).await?),
        Op::UpdateAgent => answer(operation, agents::update(app, caller, request).await?),
        Op::UnregisterAgent => done(operation, agents::unregister(app, caller, request).await?),
        Op::AddAgentPath => answer(operation, agents::add_paths(app, caller, request).await?),
        Op::RemoveAgentPath => answer(operation, agents::remove_paths(app, caller, request).await?),
        Op::CheckAgent => answer(operation, agents::check(app, caller, request).await?),
        Op::ShowMembersDetail => answer(operation, members::list(app, caller, request).await?),
        Op::AddMember => answer(operation, members::add(app, caller, request).await?),
        Op::DeleteMember => done(operation, members::delete(app, caller, request).await?),
        Op::ShowMemberDetail => answer(operation, members::show(app, caller, request).await?),
        Op::UpdateMemberStatus => answer(operation, members::update(app, caller, request).await?),
        _ => Err(Failure::code(ErrorCode::NoSuchApi)),
    }
}

/// The operations on policies of organizations, each by its handler.
async fn call_organization_policies(
    app: &App,
    operation: Operation,
    caller: &Caller,
    request: &Request,
) -> Result<Response> {
    use Operation as Op;
    use organization_policies as policies;
    match operation {
        Op::ListOrganizationPolicies => {
            answer(operation, policies::list(app, caller, request).await?)
        }
        Op::CreateOrganizationPolicy => {
            answer(operation, policies::create(app, caller, request).await?)
        }
        Op::ShowOrganizationPolicy => {
            answer(operation, policies::show(app, caller, request).await?)
        }
        Op::UpdateOrganizationPolicy => {
            answer(operation, policies::update(app, caller, request).await?)
        }
        Op::DeleteOrganizationPolicy => {
            done(operation, policies::delete(app, caller, request).await?)
        }
        Op::ListOrganizationPolicyDetail => {
            answer(operation, policies::detail(app, caller, request).await?)
        }
        _ => Err(Failure::code(ErrorCode::NoSuchApi)),
    }
}

/// An answer with a body, in the operation's status.
fn answer(operation: Operation, body: impl Serialize) -> Result<Response> {
    Ok((status(operation), Json(body)).into_response())
}

/// An answer without one.
fn done(operation: Operation, (): ()) -> Result<Response> {
    Ok(status(operation).into_response())
}

fn status(operation: Operation) -> StatusCode {
    StatusCode::from_u16(operation.spec().success_status).expect("the table holds real statuses")
}
