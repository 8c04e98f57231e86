//! Connections that go on in another protocol after their request.

use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;

use crate::error::{Failure, Result};
use crate::request::Request;

/// The connection of a request that asks to go on in this protocol; it is there
/// once [`switched`] has answered.
///
/// Errors: `Invalid` the request asks for something else, or came by nothing that can be upgraded.
pub(crate) fn asked(request: &Request, protocol: &str) -> Result<OnUpgrade> {
    if request.header(UPGRADE.as_str()) != Some(protocol) {
        return Err(Failure::invalid(UPGRADE.as_str()));
    }
    let upgrade = request.parts.extensions.get::<OnUpgrade>().cloned();
    upgrade.ok_or_else(|| Failure::invalid(CONNECTION.as_str()))
}

/// The answer after which a connection speaks this protocol.
pub(crate) fn switched(protocol: &'static str, mut headers: HeaderMap) -> Response {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
