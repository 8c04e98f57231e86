//! The routes: every operation of the contract's table, the identity calls,
//! and the two questions of a supervisor.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Method, Request as HttpRequest, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use cairn_api::{ErrorCode, Operation};
use cairn_audit::Trace;
use tower_http::timeout::TimeoutLayer;
use uuid::Uuid;

use crate::auth::Proven;
use crate::error::Failure;
use crate::request::Request;
use crate::{App, audit, auth, calls, identity, once, permission};

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
        .method_not_allowed_fallback(no_such_api)
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(|_| {
            Failure::code(ErrorCode::Unknown).into_response()
        }))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            REQUEST_TIME,
        ))
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
        let request = Request::read(&app, request, &id).await?;
        let spec = operation.spec();
        if spec.is_public() {
            return calls::tell_anybody(&app, operation, &request).await;
        }
        let proven = match spec.is_in_project() {
            true => auth::enter_project(&app, &request).await?,
            false => auth::enter_home(&app, &request).await?,
        };
        let trace = audit::asked(&app, operation, &proven, &request).await?;
        let tracker = app.calls.clone();
        let answering = answer_caller(app, operation, proven, request, trace);
        if permission::only_looks(operation) {
            return Ok(answering.await);
        }
        // What changes something goes on to its end, whether or not somebody waits for it.
        let answered = tracker.spawn(answering).await;
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
            calls::call(&app, operation, &caller, &request).await
        };
        answer.await.unwrap_or_else(IntoResponse::into_response)
    };
    let may_come_again = request.parts.method == Method::POST && !permission::only_looks(operation);
    let response = match signed {
        Some(signed) if may_come_again => once::once(&app, &signed.digest, answer).await,
        _ => answer.await,
    };
    let Some(trace) = trace else { return response };
    audit::answered(&app, trace, response).await
}
