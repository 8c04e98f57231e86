//! A request taken apart once: id, path parameters, query and body, with their limits.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Request as HttpRequest;
use axum::http::request::Parts;
use cairn_api::{ErrorCode, Validate, parse_body, parse_path};
use serde::de::DeserializeOwned;

use crate::error::{Failure, Result};

/// The longest body that a request may have. The longest that the contract
/// allows, 256 resources with 256 disks each, is well below.
const MAX_BODY_BYTES: usize = 8 << 20;

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) id: String,
    path: Vec<(String, String)>,
}

impl Request {
    /// Reads a request's path and body.
    pub(crate) async fn read(request: HttpRequest<Body>, id: &str) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &()).await;
        let path = path.map_err(|_| Failure::invalid("path"))?;
        let path = path
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let body = to_bytes(body, MAX_BODY_BYTES).await;
        let body = body.map_err(|_| Failure::code(ErrorCode::BodyTooLarge))?;
        Ok(Self {
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
