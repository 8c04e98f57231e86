//! Sends what is in the outbox of notifications, beside everything else the server does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use cairn_core::{Channel, Outgoing, Service};
use cairn_notify::{Allowed, Message, Sender, Smtp, Tls};
use cairn_types::Clock;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Notifications on their way at the same time, each to another target.
const AT_ONCE: usize = 64;
/// How long the sender waits before it looks again without being woken.
const IDLE: Duration = Duration::from_secs(2);
/// How often the sender forgets what was told a month ago.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// The part of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    allow: Allowed,
    ca_file: Option<PathBuf>,
    smtp: Option<SmtpSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SmtpSection {
    host: String,
    port: Option<u16>,
    from: String,
    user: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    tls: Tls,
}

/// How notifications are sent.
#[derive(Debug, Clone, Default)]
pub struct Config {
    allow: Allowed,
    ca_file: Option<PathBuf>,
    smtp: Option<Smtp>,
}

impl Section {
    /// Fills in the defaults; paths are those of the configuration's folder.
    pub fn resolve(self, base: &Path) -> Result<Config> {
        Ok(Config {
            allow: self.allow,
            ca_file: self.ca_file.map(|path| base.join(path)),
            smtp: self.smtp.map(|smtp| smtp.resolve(base)).transpose()?,
        })
    }
}

impl SmtpSection {
    fn resolve(self, base: &Path) -> Result<Smtp> {
        match (&self.user, &self.password_file) {
            (Some(_), Some(_)) | (None, None) => {}
            _ => bail!("notifications.smtp: user and password_file are given together"),
        }
        if self.user.is_some() && self.tls == Tls::None {
            bail!("notifications.smtp: without TLS, the password would be sent in the clear");
        }
        // Source: the ports of RFC 6409 and RFC 8314; a relay without TLS listens where mail comes in.
        let usual = match self.tls {
            Tls::StartTls => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        };
        Ok(Smtp {
            host: self.host,
            port: self.port.unwrap_or(usual),
            from: self.from,
            user: self.user,
            password_file: self.password_file.map(|path| base.join(path)),
            tls: self.tls,
        })
    }
}

impl Config {
    /// What sends, which calls this server `origin`.
    pub fn sender(&self, origin: &str) -> Result<Sender> {
        Ok(Sender::new(cairn_notify::Config {
            allowed: self.allow.clone(),
            ca_file: self.ca_file.clone(),
            smtp: self.smtp.clone(),
            origin: origin.to_owned(),
        })?)
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let allow: Vec<String> = self.allow.iter().map(ToString::to_string).collect();
        write!(f, "[notifications]\nallow = {allow:?}")?;
        if let Some(file) = &self.ca_file {
            write!(f, "\nca_file = {file:?}")?;
        }
        let Some(smtp) = &self.smtp else {
            return Ok(());
        };
        write!(f, "\n\n[notifications.smtp]\nhost = {:?}", smtp.host)?;
        write!(f, "\nport = {}\nfrom = {:?}", smtp.port, smtp.from)?;
        if let (Some(user), Some(file)) = (&smtp.user, &smtp.password_file) {
            write!(f, "\nuser = {user:?}\npassword_file = {file:?}")?;
        }
        write!(f, "\ntls = {:?}", smtp.tls.name())
    }
}

/// Sends what is due until the server stops. What is on its way then may end
/// within `grace`; what does not is sent again by whoever sends next.
pub async fn run(
    service: Service,
    sender: Sender,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    grace: Duration,
) {
    let owner = uuid::Uuid::new_v4().to_string();
    let wake = service.sender_wake();
    let mut under_way = JoinSet::new();
    let mut tidy_at = Instant::now();
    while !stop.is_cancelled() {
        if Instant::now() >= tidy_at {
            tidy_at = Instant::now() + TIDY_EVERY;
            tidy(&service).await;
        }
        while under_way.len() < AT_ONCE {
            match service.next_notification(&owner).await {
                Ok(Some(outgoing)) => {
                    let sending = (service.clone(), sender.clone(), Arc::clone(&clock));
                    under_way.spawn(deliver(sending, owner.clone(), outgoing));
                }
                Ok(None) => break,
                Err(error) => {
                    warn(&error, "cannot read a notification");
                    break;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.notified() => {}
            Some(_) = under_way.join_next() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
    let rest = async { while under_way.join_next().await.is_some() {} };
    // Whether it ends or not: the outbox knows what has not arrived.
    let _ = tokio::time::timeout(grace, rest).await;
}

async fn deliver(
    (service, sender, clock): (Service, Sender, Arc<dyn Clock>),
    owner: String,
    outgoing: Outgoing,
) {
    let notification = outgoing.notification;
    let message = Message {
        id: notification.id.to_string(),
        event: notification.event.to_string(),
        summary: notification.summary.clone(),
        body: notification.body.clone(),
    };
    let now = clock.now();
    let sent = match &outgoing.channel {
        Channel::Webhook { url, secret } => {
            sender.send_to_webhook(url, secret, &message, now).await
        }
        Channel::Mail { addresses } => sender.send_mail(addresses, &message, now).await,
    };
    let outcome = sent.map_err(|error| error.to_string());
    let settled = service.settle_notification(&owner, notification, outcome);
    if let Err(error) = settled.await {
        // Its lease ends, and it is sent once more.
        warn(&error, "cannot write down how a notification went");
    }
}

async fn tidy(service: &Service) {
    match service.forget_old_notifications().await {
        Ok(0) => {}
        Ok(forgotten) => tracing::info!(forgotten, "old notifications are forgotten"),
        Err(error) => warn(&error, "cannot forget old notifications"),
    }
}

fn warn(error: &cairn_core::Error, what: &str) {
    tracing::warn!(
        error = error as &(dyn std::error::Error + 'static),
        "{what}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Config> {
        let section: Section = toml::from_str(text)?;
        section.resolve(Path::new("/etc/cairn"))
    }

    #[test]
    fn a_section_is_shown_as_it_is_understood() {
        let empty = resolve("").unwrap();
        assert_eq!(empty.to_string(), "[notifications]\nallow = []");
        let text = "allow = ['10.0.0.0/8', '::1']\nca_file = 'ca.pem'\n[smtp]\nhost = 'mail'\n\
                    from = 'a@b'\nuser = 'u'\npassword_file = 'p'\ntls = 'implicit'";
        let shown = resolve(text).unwrap().to_string();
        assert_eq!(
            shown,
            "[notifications]\nallow = [\"10.0.0.0/8\", \"::1/128\"]\nca_file = \"/etc/cairn/ca.pem\"\n\n\
             [notifications.smtp]\nhost = \"mail\"\nport = 465\nfrom = \"a@b\"\nuser = \"u\"\n\
             password_file = \"/etc/cairn/p\"\ntls = \"implicit\""
        );
        // What is shown can be read again.
        let again: toml::Table = toml::from_str(&shown).unwrap();
        let again: Section = again["notifications"].clone().try_into().unwrap();
        assert_eq!(again.resolve(Path::new("")).unwrap().to_string(), shown);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            "alow = []",
            "allow = ['10.0.0.1/8']",
            "allow = ['localhost']",
            "[smtp]\nhost = 'mail'",
            "[smtp]\nhost = 'mail'\nfrom = 'a@b'\nuser = 'u'",
            "[smtp]\nhost = 'mail'\nfrom = 'a@b'\npassword_file = 'p'",
            "[smtp]\nhost = 'mail'\nfrom = 'a@b'\nuser = 'u'\npassword_file = 'p'\ntls = 'none'",
            "[smtp]\nhost = 'mail'\nfrom = 'a@b'\ntls = 'yes'",
        ] {
            assert!(resolve(wrong).is_err(), "{wrong}");
        }
    }
}
