//! Notifications on the wire: who is told, and what they were told. An
//! extension: CBR leaves this to another service.

use cairn_types::{
    NotificationEvent, NotificationId, NotificationStatus, ProjectId, TargetId, TargetKind,
    Timestamp, VaultId,
};
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::query;
use crate::validate::{self, Invalid, Validate, require};
use crate::wire_time;

/// The longest URL of a webhook, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// How long a webhook's secret is, in bytes.
const SECRET_BYTES: (usize, usize) = (16, 128);
/// The most addresses of a target.
const MAX_ADDRESSES: usize = 10;
/// The longest mail address, in bytes, and the longest part of it before the `@`.
/// Source: RFC 5321, 4.5.3.1.
const MAX_ADDRESS_BYTES: (usize, usize) = (254, 64);

/// What a webhook's requests are signed with. It is written and never shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The body of `CreateNotificationTarget`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateNotificationTargetRequest {
    /// The target that is wished for.
    pub notification_target: NewNotificationTarget,
}

/// A target that is wished for: a webhook or mail.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewNotificationTarget {
    /// Its name.
    pub name: String,
    /// Where requests go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<NewWebhook>,
    /// Where mail goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailAddresses>,
    /// What it is told of; everything, if unset or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<NotificationEvent>>,
    /// The one vault that it is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_id: Option<VaultId>,
}

/// A webhook that is wished for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewWebhook {
    /// Its URL, `http` or `https`.
    pub url: String,
    /// What requests are signed with: 16 to 128 printable ASCII characters.
    pub secret: Secret,
}

/// Mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailAddresses {
    /// The mailboxes, all of which get each mail.
    pub addresses: Vec<String>,
}

impl Validate for CreateNotificationTargetRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let target = &self.notification_target;
        validate::name("notification_target.name", &target.name)?;
        require(
            target.webhook.is_some() != target.mail.is_some(),
            "notification_target",
            "It takes a webhook or mail.",
        )?;
        if let Some(webhook) = &target.webhook {
            url(&webhook.url)?;
            secret(&webhook.secret)?;
        }
        validate::optional_ref(&target.mail, addresses)?;
        validate::optional_ref(&target.events, |list| events(list))
    }
}

/// The body of `UpdateNotificationTarget`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateNotificationTargetRequest {
    /// What changes; what is left out stays.
    pub notification_target: NotificationTargetChange,
}

/// What changes of a target; whether it is a webhook or mail does not.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NotificationTargetChange {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where requests go, and how they are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookChange>,
    /// Where mail goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailAddresses>,
    /// What it is told of; everything, if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<NotificationEvent>>,
    /// The one vault that it is told of; `null` for each.
    #[serde(
        default,
        deserialize_with = "null_is_said",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<VaultId>)]
    pub vault_id: Option<Option<VaultId>>,
}

/// What changes of a webhook.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct WebhookChange {
    /// Its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What requests are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// Tells `null` from a key that is not there.
fn null_is_said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<VaultId>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Validate for UpdateNotificationTargetRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let change = &self.notification_target;
        validate::optional(&change.name, |name| {
            validate::name("notification_target.name", name)
        })?;
        if let Some(webhook) = &change.webhook {
            validate::optional(&webhook.url, url)?;
            validate::optional_ref(&webhook.secret, secret)?;
        }
        validate::optional_ref(&change.mail, addresses)?;
        validate::optional_ref(&change.events, |list| events(list))
    }
}

/// A URL that notifications can be sent to, as far as it says itself.
fn url(text: &str) -> Result<(), Invalid> {
    let key = "notification_target.webhook.url";
    let rule = "It takes an http or https address without a user, a password or a fragment.";
    require(
        text.len() <= MAX_URL_BYTES,
        key,
        format_args!("It takes at most {MAX_URL_BYTES} bytes."),
    )?;
    // The parser would leave out what must not be there.
    let foreign = |c: char| c.is_whitespace() || c.is_control();
    require(!text.contains(foreign), key, rule)?;
    let url = Url::parse(text).map_err(|_| Invalid::rule(key, rule))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let http = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    require(plain && http, key, rule)
}

fn secret(secret: &Secret) -> Result<(), Invalid> {
    let (low, high) = SECRET_BYTES;
    let printable = secret.0.bytes().all(|byte| byte.is_ascii_graphic());
    require(
        printable && (low..=high).contains(&secret.0.len()),
        "notification_target.webhook.secret",
        format_args!("It takes {low} to {high} printable ASCII characters and no spaces."),
    )
}

fn addresses(mail: &MailAddresses) -> Result<(), Invalid> {
    let key = "notification_target.mail.addresses";
    validate::count(key, mail.addresses.len(), (1, MAX_ADDRESSES))?;
    for (position, address) in mail.addresses.iter().enumerate() {
        let key = format!("{key}[{position}]");
        require(is_address(address), &key, "It is no mail address.")?;
        let again = mail.addresses[..position].contains(address);
        require(!again, &key, "It comes twice.")?;
    }
    Ok(())
}

/// A mail address as nearly everybody's is: words with dots between, an `@`, a name of DNS.
fn is_address(text: &str) -> bool {
    let (all, local) = MAX_ADDRESS_BYTES;
    let Some((before, behind)) = text.rsplit_once('@') else {
        return false;
    };
    let special = "!#$%&'*+-/=?^_`{|}~";
    let word = |c: char| c.is_ascii_alphanumeric() || special.contains(c);
    let words = |text: &str| {
        let mut parts = text.split('.');
        parts.all(|part| !part.is_empty() && part.chars().all(word))
    };
    let label = |part: &str| {
        let inside = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        !part.is_empty()
            && part.len() <= 63
            && inside
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= all && before.len() <= local && words(before) && behind.split('.').all(label)
}

fn events(events: &[NotificationEvent]) -> Result<(), Invalid> {
    let key = "notification_target.events";
    for (position, event) in events.iter().enumerate() {
        let key = format!("{key}[{position}]");
        require(
            *event != NotificationEvent::Test,
            &key,
            "A test is sent when it is asked for.",
        )?;
        require(!events[..position].contains(event), &key, "It comes twice.")?;
    }
    Ok(())
}

/// What `ListNotificationTargets` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListNotificationTargetsResponse {
    /// All targets of the project, in the order in which they were made.
    pub notification_targets: Vec<NotificationTarget>,
    /// How many there are.
    pub count: u64,
}

/// What operations on a target answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationTargetResponse {
    /// The target.
    pub notification_target: NotificationTarget,
}

/// Who is told, of what, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationTarget {
    /// Its id.
    pub id: TargetId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub kind: TargetKind,
    /// Where requests go, if it is a webhook.
    pub webhook: Option<Webhook>,
    /// Where mail goes, if that is how it is reached.
    pub mail: Option<MailAddresses>,
    /// What it is told of; everything, if empty.
    pub events: Vec<NotificationEvent>,
    /// The one vault that it is told of.
    pub vault_id: Option<VaultId>,
    /// When it was made.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "wire_time")]
    pub updated_at: Timestamp,
}

/// A webhook. Its secret is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Its URL.
    pub url: String,
}

query! {
    /// Which notifications are listed.
    pub struct ListNotificationsQuery {
        one {
            /// Page size.
            limit: u32,
            /// Notifications left out first.
            offset: u32,
            /// Go on behind this notification.
            marker: NotificationId,
            /// By what became of them.
            status: NotificationStatus,
            /// By what happened.
            event: NotificationEvent,
            /// By target.
            target_id: TargetId,
            /// By vault.
            vault_id: VaultId,
        }
        many {}
    }
}

impl ListNotificationsQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<NotificationId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListNotificationsQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)
    }
}

/// What `ListNotifications` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListNotificationsResponse {
    /// The notifications of the page, the newest first.
    pub notifications: Vec<Notification>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Notifications left out first.
    pub offset: u32,
    /// How many were never sent because too many waited.
    pub dropped: u64,
}

/// What `ShowNotification` and `TestNotificationTarget` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationResponse {
    /// The notification.
    pub notification: Notification,
}

/// One event for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// Its id, which the receiver sees as well.
    pub id: NotificationId,
    /// The target.
    pub target_id: TargetId,
    /// The target's name when it happened.
    pub target_name: String,
    /// What happened.
    pub event: NotificationEvent,
    /// The vault that it happened to.
    pub vault_id: Option<VaultId>,
    /// What happened, in one sentence.
    pub summary: String,
    /// What became of it.
    pub status: NotificationStatus,
    /// How often it was sent.
    pub attempts: u64,
    /// Why it did not arrive the last time.
    pub last_error: Option<String>,
    /// When it happened.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When it is sent, if it waits.
    #[serde(with = "wire_time::option")]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered or given up.
    #[serde(with = "wire_time::option")]
    pub ended_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_body;

    fn create(target: &str) -> Result<CreateNotificationTargetRequest, Invalid> {
        parse_body(format!(r#"{{"notification_target":{target}}}"#).as_bytes())
    }

    fn webhook(url: &str, secret: &str) -> String {
        let webhook = serde_json::json!({ "url": url, "secret": secret });
        format!(r#"{{"name":"ops","webhook":{webhook}}}"#)
    }

    fn mail(addresses: &[&str]) -> String {
        let mail = serde_json::json!({ "addresses": addresses });
        format!(r#"{{"name":"ops","mail":{mail}}}"#)
    }

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_target_is_a_webhook_or_mail() {
        let good = webhook("https://example.com/a?b=c", SECRET);
        assert!(create(&good).is_ok());
        assert!(create(&mail(&["a@example.com"])).is_ok());
        let both = format!(
            r#"{},"mail":{{"addresses":["a@b.c"]}}}}"#,
            &good[..good.len() - 1]
        );
        for wrong in [
            both.as_str(),
            r#"{"name":"ops"}"#,
            r#"{"name":"a b"}"#,
            "{}",
        ] {
            assert!(create(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_leads_by_http_and_carries_no_password() {
        for good in [
            "http://example.com",
            "https://[2001:db8::1]:8443/x",
            "HTTPS://é.example/",
        ] {
            assert!(create(&webhook(good, SECRET)).is_ok(), "{good}");
        }
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES));
        for wrong in [
            "",
            "x",
            "/x",
            "ftp://example.com/",
            "https://user@example.com/",
            "https://:password@example.com/",
            "https://example.com/#x",
            "https://example.com/\r\nX: y",
            " https://example.com/",
            "mailto:a@b.c",
            &long,
        ] {
            let message = create(&webhook(wrong, SECRET)).unwrap_err().message;
            assert!(message.contains("webhook.url"), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_secret_has_its_length_and_is_never_printed() {
        let (low, high) = SECRET_BYTES;
        for good in [low, high] {
            let request = create(&webhook("https://example.com", &"~".repeat(good))).unwrap();
            assert!(!format!("{request:?}").contains("~~"));
        }
        for wrong in [
            "x".repeat(low - 1),
            "x".repeat(high + 1),
            format!("{SECRET} "),
            "é".repeat(20),
        ] {
            assert!(
                create(&webhook("https://example.com", &wrong)).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn mail_addresses_are_such() {
        for good in [
            "a@example.com",
            "first.last+tag@mail.example-1.org",
            "root@localhost",
        ] {
            assert!(create(&mail(&[good])).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "x".repeat(65));
        for wrong in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@-b",
            "a@b-",
            "a@.b",
            "a@b.",
            "<a@b>",
            "a@[127.0.0.1]",
            "\"a\"@b",
            "a@b\r\nBcc: c@d",
            "é@b",
            &long,
        ] {
            assert!(create(&mail(&[wrong])).is_err(), "{wrong}");
        }
        let eleven: Vec<String> = (0..11).map(|n| format!("a{n}@b")).collect();
        let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
        assert!(create(&mail(&eleven[..10])).is_ok());
        assert!(create(&mail(&eleven)).is_err());
        assert!(create(&mail(&[])).is_err());
        assert!(create(&mail(&["a@b", "a@b"])).is_err());
    }

    #[test]
    fn events_are_listed_once_and_a_test_is_none_of_them() {
        let with = |events: &str| {
            let target = mail(&["a@b"]);
            create(&format!(
                r#"{},"events":{events}}}"#,
                &target[..target.len() - 1]
            ))
        };
        for good in ["[]", "null", r#"["vault_full","backup_failed"]"#] {
            assert!(with(good).is_ok(), "{good}");
        }
        for wrong in [
            r#"["test"]"#,
            r#"["vault_full","vault_full"]"#,
            r#"["rain"]"#,
        ] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_tells_null_from_nothing() {
        let change = |text: &str| {
            let body = format!(r#"{{"notification_target":{text}}}"#);
            parse_body::<UpdateNotificationTargetRequest>(body.as_bytes())
        };
        let vault = |text: &str| change(text).unwrap().notification_target.vault_id;
        assert_eq!(vault("{}"), None);
        assert_eq!(vault(r#"{"vault_id":null}"#), Some(None));
        for wrong in [
            r#"{"name":""}"#,
            r#"{"webhook":{"url":"x"}}"#,
            r#"{"webhook":{"secret":"short"}}"#,
            r#"{"mail":{"addresses":[]}}"#,
            r#"{"events":["test"]}"#,
        ] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_has_its_limits() {
        assert!(ListNotificationsQuery::parse("limit=1000&status=waiting&event=test").is_ok());
        for wrong in [
            "limit=0",
            "limit=1001",
            "status=gone",
            "event=x",
            "target_id=x",
        ] {
            assert!(ListNotificationsQuery::parse(wrong).is_err(), "{wrong}");
        }
    }
}
