//! Connections that become the asking end of a line, to another region or to an agent.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use cairn_api::replica::KEY_HEADER;
use cairn_link::{Connection, End, EphemeralKey, Keys, PUBLIC_KEY_BYTES, Purpose};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;
use crate::upgrade;

/// How long the other end may take to prove that it knows the secret.
const PROVING: Duration = Duration::from_secs(10);

/// A connection whose other end has told its public key.
pub(crate) struct Asked {
    protocol: &'static str,
    upgrade: OnUpgrade,
    theirs: [u8; PUBLIC_KEY_BYTES],
}

/// A connection whose keys are known.
pub(crate) struct Agreed {
    protocol: &'static str,
    upgrade: OnUpgrade,
    keys: Keys,
    public: HeaderValue,
    purpose: Purpose,
}

impl Asked {
    /// Errors: `Invalid` the request asks for another protocol, or tells no key.
    pub fn by(request: &Request, protocol: &'static str) -> Result<Self> {
        Ok(Self {
            protocol,
            upgrade: upgrade::asked(request, protocol)?,
            theirs: bytes(KEY_HEADER, request.header(KEY_HEADER).unwrap_or_default())?,
        })
    }

    /// Errors: `Invalid` what was told is no key.
    pub fn agree(self, purpose: Purpose, secret: &[u8]) -> Result<Agreed> {
        let ours = EphemeralKey::generate();
        let public = HeaderValue::from_str(&hex::encode(ours.public()));
        let keys = ours.agree(End::Asking, &self.theirs, (purpose, secret));
        Ok(Agreed {
            protocol: self.protocol,
            upgrade: self.upgrade,
            keys: keys.map_err(|_| Failure::invalid(KEY_HEADER))?,
            public: public.expect("digits are plain text"),
            purpose,
        })
    }
}

impl Agreed {
    /// Answers, and has the connection handed on once the other end has proven who it is, for
    /// which it has little time.
    ///
    /// Errors: 503 too many connections begin at once.
    pub fn hand_on<H>(
        self,
        app: &App,
        hand: impl FnOnce(Connection) -> H + Send + 'static,
    ) -> Result<Response>
    where
        H: Future<Output = cairn_core::Result<()>> + Send,
    {
        let place = Arc::clone(&app.handshakes).try_acquire_owned();
        let place =
            place.map_err(|_| Failure::unavailable("Too many connections begin at once."))?;
        let (upgrade, keys, purpose) = (self.upgrade, self.keys, self.purpose);
        app.calls.spawn(async move {
            let proving = async {
                let stream = TokioIo::new(upgrade.await?);
                let handed = hand(Connection::new(Box::new(stream), keys)).await;
                handed.map_err(Into::into)
            };
            let proven: std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> =
                match tokio::time::timeout(PROVING, proving).await {
                    Ok(proven) => proven,
                    Err(late) => Err(late.into()),
                };
            if let Err(error) = proven {
                tracing::warn!(?purpose, error, "A connection came to nothing.");
            }
            drop(place);
        });
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(KEY_HEADER), self.public);
        Ok(upgrade::switched(self.protocol, headers))
    }
}

/// So many bytes, as they are written.
///
/// Errors: `Invalid`, with the key that they stand under.
pub(crate) fn bytes<const COUNT: usize>(key: &str, digits: &str) -> Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    match hex::decode_to_slice(digits, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Failure::invalid(key)),
    }
}
