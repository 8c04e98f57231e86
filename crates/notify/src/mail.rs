//! Mail: plain text, by the operator's SMTP server.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cairn_types::Timestamp;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls as LettreTls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor};
use serde_json::Value;

use crate::Message;
use crate::error::{Error, Result};

/// How long the server may take to take a mail, from the name to its last word.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest subject, in characters.
const MAX_SUBJECT_CHARS: usize = 150;

/// The server that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whom mail is from.
    pub from: String,
    /// Who signs in, if somebody must.
    pub user: Option<String>,
    /// The file that holds their password.
    pub password_file: Option<PathBuf>,
    /// How the connection is protected.
    pub tls: Tls,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// It begins in the clear, and nothing is sent before it is protected.
    #[default]
    StartTls,
    /// From its first byte on.
    Implicit,
    /// Not at all.
    None,
}

impl Tls {
    /// The word for it in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }
}

/// Sends mail.
#[derive(Debug, Clone)]
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    origin: String,
}

impl Mailer {
    pub(crate) fn new(smtp: Smtp, certificates: &[u8], origin: String) -> Result<Self> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host);
        let mut builder = builder.port(smtp.port).timeout(Some(TIMEOUT));
        builder = builder.tls(match smtp.tls {
            Tls::None => LettreTls::None,
            Tls::StartTls => LettreTls::Required(parameters(&smtp.host, certificates)?),
            Tls::Implicit => LettreTls::Wrapper(parameters(&smtp.host, certificates)?),
        });
        if let Some(user) = smtp.user {
            let password = match smtp.password_file {
                Some(path) => std::fs::read_to_string(&path)
                    .map_err(|source| Error::File { path, source })?
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
                None => String::new(),
            };
            builder = builder.credentials(Credentials::new(user, password));
        }
        Ok(Self {
            transport: builder.build(),
            from: mailbox(&smtp.from)?,
            origin,
        })
    }

    pub(crate) async fn send(
        &self,
        addresses: &[String],
        message: &Message,
        now: Timestamp,
    ) -> Result<()> {
        let mail = self.write(addresses, message, now)?;
        let sending = tokio::time::timeout(TIMEOUT, self.transport.send(mail));
        let timed_out = Error::TimedOut {
            seconds: TIMEOUT.as_secs(),
        };
        let sent = sending.await.map_err(|_| timed_out)?;
        sent.map(drop).map_err(|source| Error::Smtp { source })
    }

    fn write(&self, addresses: &[String], message: &Message, now: Timestamp) -> Result<Mail> {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        // The same id in every attempt: a mailbox that has it already may tell.
        let id = format!("<{}@{}>", message.id, self.from.email.domain());
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut mail = Mail::builder()
            .from(self.from.clone())
            .date(SystemTime::UNIX_EPOCH + Duration::from_micros(micros))
            .message_id(Some(id))
            .subject(subject(&message.summary))
            // So that no answering machine answers. Source: RFC 3834.
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN);
        for address in addresses {
            mail = mail.to(mailbox(address)?);
        }
        mail.body(text(message, &self.origin)).map_err(Error::Write)
    }
}

fn parameters(host: &str, certificates: &[u8]) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if !certificates.is_empty() {
        let certificate = Certificate::from_pem(certificates);
        builder = builder.add_root_certificate(certificate.map_err(|_| Error::Certificates)?);
    }
    builder.build_rustls().map_err(|_| Error::Certificates)
}

fn mailbox(address: &str) -> Result<Mailbox> {
    address.parse().map_err(|_| Error::MailAddress {
        address: address.to_owned(),
    })
}

/// One line, and not a long one.
fn subject(summary: &str) -> String {
    let line = summary
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut subject: String = "Cairn: "
        .chars()
        .chain(line)
        .take(MAX_SUBJECT_CHARS)
        .collect();
    if subject.chars().count() == MAX_SUBJECT_CHARS {
        subject.push('…');
    }
    subject
}

/// What a mail says: the sentence, and the facts that somebody would look up.
fn text(message: &Message, origin: &str) -> String {
    let mut text = format!("{}\n\n", message.summary);
    let facts: Value = serde_json::from_str(&message.body).unwrap_or_default();
    for (name, pointer) in [
        ("Event", "/event"),
        ("Time (UTC)", "/time"),
        ("Project", "/project_id"),
        ("Vault", "/vault"),
        ("Resource", "/resource"),
        ("Backup", "/backup"),
        ("Operation log", "/operation_log_id"),
        ("Error", "/error/message"),
        ("Details", "/details"),
    ] {
        if let Some(shown) = facts.pointer(pointer).and_then(shown) {
            text.push_str(&format!("{name}: {shown}\n"));
        }
    }
    text.push_str(&format!(
        "\n-- \nCairn at {origin}\nNotification {}\n",
        message.id
    ));
    text
}

/// A fact in one line; nothing for what is empty.
fn shown(fact: &Value) -> Option<String> {
    match fact {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) if fields.is_empty() => None,
        Value::Object(fields) => match (fields.get("name"), fields.get("id")) {
            (Some(Value::String(name)), Some(Value::String(id))) => Some(format!("{name} ({id})")),
            _ => Some(fact.to_string()),
        },
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp() -> Smtp {
        Smtp {
            host: "mail.example.com".to_owned(),
            port: 587,
            from: "Cairn <cairn@example.com>".to_owned(),
            user: None,
            password_file: None,
            tls: Tls::StartTls,
        }
    }

    fn message(summary: &str) -> Message {
        let body = r#"{"event":"backup_failed","time":"2023-11-14T22:13:20.000000Z","vault":
            {"id":"3b58","name":"web"},"resource":null,"error":{"code":"","message":"no space"},
            "details":{}}"#;
        Message {
            id: "0ca3eb86-8800-46da-9c37-9d657a825274".to_owned(),
            event: "backup_failed".to_owned(),
            summary: summary.to_owned(),
            body: body.to_owned(),
        }
    }

    fn written(summary: &str) -> String {
        let mailer = Mailer::new(smtp(), &[], "cairn-1".to_owned()).unwrap();
        let addresses = ["a@example.com".to_owned(), "b@example.org".to_owned()];
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let mail = mailer.write(&addresses, &message(summary), now).unwrap();
        String::from_utf8(mail.formatted()).unwrap()
    }

    #[test]
    fn a_mail_says_what_happened_and_where() {
        let mail = written("The backup failed.");
        for line in [
            "From: Cairn <cairn@example.com>",
            "To: a@example.com, b@example.org",
            "Subject: Cairn: The backup failed.",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000",
            "Message-ID: <0ca3eb86-8800-46da-9c37-9d657a825274@example.com>",
            "Auto-Submitted: auto-generated",
            "Vault: web (3b58)",
            "Error: no space",
            "Cairn at cairn-1",
        ] {
            assert!(mail.contains(&format!("{line}\r\n")), "{line}: {mail}");
        }
        assert!(
            !mail.contains("Resource:") && !mail.contains("Details:"),
            "{mail}"
        );
    }

    #[test]
    fn no_name_of_a_thing_becomes_a_header() {
        let mail = written("x\r\nBcc: other@example.com\r\n\r\nbody");
        let head = mail.split("\r\n\r\n").next().unwrap();
        assert!(!head.contains("\nBcc:"), "{head}");
        assert_eq!(
            subject(&"é".repeat(1000)).chars().count(),
            MAX_SUBJECT_CHARS + 1
        );
    }

    #[test]
    fn what_cannot_work_is_refused_at_once() {
        let no_address = Smtp {
            from: "nobody".to_owned(),
            ..smtp()
        };
        let refused = Mailer::new(no_address, &[], String::new()).unwrap_err();
        assert!(matches!(refused, Error::MailAddress { .. }));
        let no_file = Smtp {
            user: Some("cairn".to_owned()),
            password_file: Some("/nonexistent/password".into()),
            ..smtp()
        };
        let refused = Mailer::new(no_file, &[], String::new()).unwrap_err();
        assert!(matches!(refused, Error::File { .. }));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"no certificate").unwrap();
        for smtp in [None, Some(smtp())] {
            let config = crate::Config {
                ca_file: Some(file.path().to_owned()),
                smtp,
                ..crate::Config::default()
            };
            let refused = crate::Sender::new(config).unwrap_err();
            assert!(matches!(refused, Error::Certificates));
        }
    }
}
