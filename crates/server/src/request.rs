//! A request taken apart once: id, path parameters, query and body, with their limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Request as HttpRequest;
use axum::http::request::Parts;
use cairn_api::{ErrorCode, Validate, parse_body, parse_path};
use serde::de::DeserializeOwned;

use tokio::sync::OwnedSemaphorePermit;

use crate::App;
use crate::error::{Failure, Result};

/// The longest body that a request may have. The longest that the contract
/// allows, 256 resources with 256 disks each, is well below.
const MAX_BODY_BYTES: usize = 8 << 20;

/// How long a request's body may take to arrive. Who sends a byte and waits
/// takes nobody's place until then.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The other end of the connection that a request came by; the listener adds it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) id: String,
    path: Vec<(String, String)>,
    /// Its place among the requests at work, taken when all of it was there.
    _place: OwnedSemaphorePermit,
}

impl Request {
    /// Reads a request's path and body, and waits for its turn.
    ///
    /// Errors: 408 for a body that does not arrive, 413 for one that is too long.
    pub(crate) async fn read(app: &App, request: HttpRequest<Body>, id: &str) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &()).await;
        let path = path.map_err(|_| Failure::invalid("path"))?;
        let path = path
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let body = tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY_BYTES)).await;
        let body = body.map_err(|_| Failure::late())?;
        let body = body.map_err(|_| Failure::code(ErrorCode::BodyTooLarge))?;
        let place = Arc::clone(&app.places).acquire_owned().await;
        Ok(Self {
            _place: place.expect("nobody closes it"),
            parts,
            body,
            id: id.to_owned(),
            path,
        })
    }

    /// An id in the path.
    ///
    /// Errors: 9900 if it is not of its form.
    pub(crate) fn path<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let value = self.path.iter().find(|(key, _)| key == name);
        Ok(parse_path(name, value.map_or("", |(_, value)| value))?)
    }

    /// The id of the thing that the path is about: its last parameter behind the project.
    pub(crate) fn path_id(&self) -> Option<&str> {
        let mut ids = self.path.iter().filter(|(key, _)| key != "project_id");
        ids.next_back().map(|(_, value)| value.as_str())
    }

    /// The path and the query as they were sent.
    pub(crate) fn target(&self) -> &str {
        let target = self.parts.uri.path_and_query();
        target.map_or("/", |target| target.as_str())
    }

    /// The address at the other end of the connection.
    pub(crate) fn source_ip(&self) -> Option<String> {
        let peer = self.parts.extensions.get::<Peer>();
        peer.map(|peer| peer.0.ip().to_string())
    }

    /// The query as it was sent, still encoded.
    pub(crate) fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// The body, read and checked against the contract's limits.
    pub(crate) fn json<T: DeserializeOwned + Validate>(&self) -> Result<T> {
        Ok(parse_body(&self.body)?)
    }

    /// A header's value, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }
}
