//! Webhooks: a signed POST to an address that was checked as it was connected to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use cairn_types::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect};

use crate::Message;
use crate::address::Allowed;
use crate::error::{Error, Result};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a webhook may take in all, from the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an answer before the connection is closed, in bytes. It is thrown away.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

const EVENT: HeaderName = HeaderName::from_static("x-cairn-event");
const DELIVERY: HeaderName = HeaderName::from_static("x-cairn-delivery");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-cairn-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-cairn-signature");

/// What a request is signed with: `sha256=` and the HMAC-SHA256, in hexadecimal,
/// of the timestamp (seconds since 1970), a dot and the body.
pub fn signature(secret: &[u8], timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(timestamp.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("sha256={}", hex::encode(context.sign()))
}

/// Sends to webhooks.
#[derive(Debug, Clone)]
pub(crate) struct Webhooks {
    client: Client,
    allowed: Arc<Allowed>,
}

/// Resolves names to those of their addresses that are allowed: the connection is made
/// to one of them, so that no later answer of the name's owner can lead elsewhere.
struct CheckedNames(Arc<Allowed>);

/// A name that has no address that is allowed.
#[derive(Debug, thiserror::Error)]
#[error("no address is allowed")]
struct NoneAllowed;

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.0);
        Box::pin(async move {
            // Which names exist in the operator's network is nobody's to find out.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|_| NoneAllowed)?;
            let checked: Vec<SocketAddr> = found
                .filter(|address| allowed.permits(address.ip()))
                .collect();
            match checked.is_empty() {
                true => Err(NoneAllowed.into()),
                false => Ok(Box::new(checked.into_iter()) as Addrs),
            }
        })
    }
}

impl Webhooks {
    pub(crate) fn new(allowed: Allowed, certificates: &[u8]) -> Result<Self> {
        let allowed = Arc::new(allowed);
        let mut client = Client::builder()
            // A proxy would connect where we do not see it.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(CheckedNames(Arc::clone(&allowed)))
            // What was connected to once is looked up and checked again the next time.
            .pool_max_idle_per_host(0)
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")));
        if !certificates.is_empty() {
            let bundle = Certificate::from_pem_bundle(certificates);
            let bundle = bundle.map_err(|_| Error::Certificates)?;
            if bundle.is_empty() {
                return Err(Error::Certificates);
            }
            client = client.tls_certs_merge(bundle);
        }
        let client = client.build().map_err(Error::Setup)?;
        Ok(Self { client, allowed })
    }

    pub(crate) async fn send(
        &self,
        url: &str,
        secret: &[u8],
        message: &Message,
        now: Timestamp,
    ) -> Result<()> {
        let url = self.checked(url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let timestamp = now.as_micros().div_euclid(1_000_000);
        let body = message.body.clone().into_bytes();
        let signature = signature(secret, timestamp, &body);
        let ascii = |text: &str| HeaderValue::from_str(text).expect("it is ASCII");
        let sending = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(EVENT, ascii(&message.event))
            .header(DELIVERY, ascii(&message.id))
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, ascii(&signature))
            .body(body);
        let answer = sending.send().await;
        let mut answer = answer.map_err(|error| unsent(error, &host))?;
        let status = answer.status();
        if !status.is_success() {
            let status = status.as_u16();
            return Err(Error::Refused { status });
        }
        // It is taken, however the rest of the answer ends; reading a little of that
        // lets the receiver end its side well.
        let mut read = 0;
        while let Ok(Some(chunk)) = answer.chunk().await {
            read += chunk.len();
            if read > MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// The URL, if it is one that may be sent to as far as it says itself: names
    /// are resolved and checked later, addresses are not, and so here.
    fn checked(&self, url: &str) -> Result<Url> {
        let url = Url::parse(url).map_err(|_| Error::Url)?;
        let (true, Some(host)) = (matches!(url.scheme(), "http" | "https"), url.host_str()) else {
            return Err(Error::Url);
        };
        // The parser has made one notation of the many that addresses have.
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        match literal {
            Some(address) if !self.allowed.permits(address) => Err(Error::NotAllowed {
                host: host.to_owned(),
            }),
            _ => Ok(url),
        }
    }
}

/// Why a request was not answered.
fn unsent(error: reqwest::Error, host: &str) -> Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        if cause.is::<NoneAllowed>() {
            return Error::NotAllowed {
                host: host.to_owned(),
            };
        }
        next = cause.source();
    }
    if error.is_timeout() {
        let limit = match error.is_connect() {
            true => CONNECT_TIMEOUT,
            false => TIMEOUT,
        };
        return Error::TimedOut {
            seconds: limit.as_secs(),
        };
    }
    Error::Unreachable {
        source: error.without_url(),
    }
}

#[cfg(test)]
mod tests;
