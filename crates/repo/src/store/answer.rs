//! What lies between the client of a remote store and the wire: answers that
//! are failures get a type, so that they can be told apart.
//!
//! A client that only sees a status takes every 404 for "there is no such
//! object". Behind a wrong address, a gateway or a bucket that is gone it is
//! not; so only the store's own word for a missing object passes as that.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Error as StoreError, Result as StoreResult};

/// Bytes of a failure's text that are kept.
const TEXT_BYTES: usize = 1024;

/// A failure in the store's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store answered {status} {text}")]
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// How long the store wishes not to be asked again.
    pub retry_after: Option<Duration>,
    /// The code and the message, or the begin of a body that is of another form.
    pub text: String,
}

impl Answer {
    /// The answer that an error comes from, if it comes from one.
    pub fn behind(error: &StoreError) -> Option<&Self> {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(answer) = error.downcast_ref() {
                return Some(answer);
            }
            cause = error.source();
        }
        None
    }

    /// Whether the store says that it knows no such request.
    pub fn is_unknown(&self) -> bool {
        self.status == 501
    }

    /// Whether the same request may be answered otherwise later.
    pub fn is_passing(&self) -> bool {
        // 400 is also the word for a body that came too slowly.
        matches!(self.status, 408 | 425 | 429 | 500 | 502..=504)
            || (self.status == 400 && self.text.contains("RequestTimeout"))
    }
}

/// Connects as the client itself would, and gives failures their type.
#[derive(Debug, Default)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> StoreResult<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Connection { inner }))
    }
}

#[derive(Debug)]
struct Connection {
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let of_head = request.method() == "HEAD";
        let response = self.inner.execute(request).await?;
        let status = response.status().as_u16();
        match status {
            200..=299 | 304 => Ok(response),
            // What the client has an error of its own for. An answer to HEAD has no body.
            409 | 412 => Ok(response),
            404 if of_head => Ok(response),
            _ => failure(status, response).await,
        }
    }
}

async fn failure(status: u16, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let text = beginning(body).await;
    if status == 404
        && ["NoSuchKey", "NoSuchUpload"]
            .iter()
            .any(|code| text.contains(code))
    {
        return Ok(HttpResponse::from_parts(parts, text.into()));
    }
    let retry_after = parts.headers.get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let answer = Answer {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        text: said(&text),
    };
    Err(HttpError::new(HttpErrorKind::Unknown, answer))
}

/// As much of a body as is kept; one that breaks off is as good as its begin.
async fn beginning(body: HttpResponseBody) -> String {
    let mut text = Vec::new();
    let mut pieces = body.bytes_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        text.extend_from_slice(&piece);
        if text.len() >= TEXT_BYTES {
            text.truncate(TEXT_BYTES);
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The code and the message of an answer in S3's form, or the text itself.
fn said(text: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.to_owned(),
    }
}
