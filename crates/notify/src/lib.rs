//! Sends notifications: signed requests to webhooks and mail by SMTP. One
//! attempt each, within bounded time; trying again is up to the caller.
//!
//! Webhooks are where a project's users say, so nothing is sent to an address
//! that only this machine or its own network can reach ([`Allowed`]), whatever
//! the name, the redirect or the notation that leads there. The SMTP server is
//! the operator's own. `cairn` makes the [`Sender`] and feeds it from the outbox.

mod address;
mod error;
mod mail;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use cairn_types::Timestamp;

pub use address::{Allowed, Network, NetworkError};
pub use error::{Error, Result};
pub use mail::{Smtp, Tls};
pub use webhook::signature;

use mail::Mailer;
use webhook::Webhooks;

/// The longest that sending one notification takes, whatever the receiver does.
pub const LONGEST: Duration = mail::TIMEOUT;

/// How notifications are sent.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Networks that webhooks may be in although they are not public.
    pub allowed: Allowed,
    /// Certificates (PEM) that receivers are trusted by, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The server that takes mail, if there is one.
    pub smtp: Option<Smtp>,
    /// What this server is called where mail says who sends it.
    pub origin: String,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// The id of this delivery, the same in every attempt.
    pub id: String,
    /// What happened, in one word.
    pub event: String,
    /// What happened, in one sentence.
    pub summary: String,
    /// All that is told, as JSON.
    pub body: String,
}

/// Sends notifications. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    webhooks: Webhooks,
    mailer: Option<Mailer>,
}

impl Sender {
    /// A sender; nothing is sent yet.
    ///
    /// Errors: `Invalid` for certificates, a password or an address that cannot be read.
    pub fn new(config: Config) -> Result<Self> {
        let certificates = match &config.ca_file {
            Some(path) => std::fs::read(path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?,
            None => Vec::new(),
        };
        let webhooks = Webhooks::new(config.allowed, &certificates)?;
        let mailer = match config.smtp {
            Some(smtp) => Some(Mailer::new(smtp, &certificates, config.origin)?),
            None => None,
        };
        Ok(Self { webhooks, mailer })
    }

    /// Sends a message to a webhook, signed by its secret at `now`.
    ///
    /// Errors: whatever says that it did not arrive, or may not have.
    pub async fn send_to_webhook(
        &self,
        url: &str,
        secret: &[u8],
        message: &Message,
        now: Timestamp,
    ) -> Result<()> {
        self.webhooks.send(url, secret, message, now).await
    }

    /// Sends a message to all of some mailboxes, or to none.
    ///
    /// Errors: whatever says that it did not arrive, or may not have.
    pub async fn send_mail(
        &self,
        addresses: &[String],
        message: &Message,
        now: Timestamp,
    ) -> Result<()> {
        let mailer = self.mailer.as_ref().ok_or(Error::NoMail)?;
        mailer.send(addresses, message, now).await
    }
}
