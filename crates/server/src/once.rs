//! Signed requests that are sent again are carried out once.
//!
//! A client that has lost the answer sends the very same request again. Its
//! signature says so: it covers method, path, query, time and body. The digest
//! of the request is noted in the catalogue before it is carried out; whoever
//! sends it again within the life of the signature gets the first answer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cairn_api::ErrorCode;
use cairn_core::Call;
use tokio::sync::Mutex as Turn;

use crate::App;
use crate::error::{Failure, Result};

/// The longest answer to a POST: a checkpoint of 256 resources is well below.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The requests that are being carried out now; whoever sends one of them again waits.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashMap<String, Arc<Turn<()>>>>);

impl Running {
    fn turn(&self, digest: &str) -> Arc<Turn<()>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(running.entry(digest.to_owned()).or_default())
    }

    /// Drops the entry unless somebody else waits for it.
    fn end(&self, digest: &str) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running
            .get(digest)
            .is_some_and(|turn| Arc::strong_count(turn) <= 2)
        {
            running.remove(digest);
        }
    }
}

/// Carries a request out, or answers as it was answered before: 409
/// `APIGW.0309` if it was begun and its outcome is not known.
pub(crate) async fn once(
    app: &App,
    digest: &str,
    carry_out: impl Future<Output = Response>,
) -> Response {
    let turn = app.running.turn(digest);
    let held = turn.lock().await;
    let answer = match app.service.begin_call(digest).await {
        Ok(Call::First) => keep(app, digest, carry_out.await).await,
        Ok(Call::Answered { status, body }) => Ok(again(status, body)),
        Ok(Call::Unfinished) => Err(Failure::code(ErrorCode::OutcomeUnknown)),
        Err(error) => Err(error.into()),
    };
    drop(held);
    app.running.end(digest);
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Keeps the answer. One that speaks of the server and not of the request is
/// forgotten, so that the next attempt is the first.
async fn keep(app: &App, digest: &str, response: Response) -> Result<Response> {
    if response.status().is_server_error() {
        app.service.forget_call(digest).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_ANSWER_BYTES).await;
    let bytes = bytes.map_err(|_| Failure::code(ErrorCode::Unknown))?;
    let (status, text) = (parts.status.as_u16(), String::from_utf8_lossy(&bytes));
    if let Err(error) = app.service.keep_answer(digest, status, &text).await {
        // It was carried out; another attempt will be told that nobody knows.
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "an answer was not kept"
        );
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

fn again(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match body.is_empty() {
        true => status.into_response(),
        false => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
    }
}
