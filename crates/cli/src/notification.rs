//! `cairn notification`.

use std::io::Read;
use std::path::{Path, PathBuf};

use cairn_api::Client;
use cairn_api::notification::{
    CreateNotificationTargetRequest, ListNotificationsQuery, MailAddresses, NewNotificationTarget,
    NewWebhook, Notification, NotificationTarget, Secret,
};
use cairn_types::{NotificationEvent, NotificationStatus};
use clap::{Args, Subcommand};

use crate::output::{Printer, time};
use crate::table::Table;
use crate::{Error, find, wait};

/// How long a test is waited for, in seconds: longer than any attempt takes.
const TEST_SECONDS: u64 = 60;

/// What can be done with notifications.
#[derive(Debug, Clone, Subcommand)]
pub enum NotificationCommand {
    /// Targets: who is told what happens.
    #[command(subcommand)]
    Target(TargetCommand),
    /// List what was told, or is to be told, the newest first.
    List(List),
}

/// What can be done with targets.
#[derive(Debug, Clone, Subcommand)]
pub enum TargetCommand {
    /// Add a target, which hears of what happens from now on.
    Add(Add),
    /// List the targets.
    List,
    /// Remove a target, with what is on its way to it.
    Remove {
        /// The target, by id or name.
        target: String,
    },
    /// Send a target something to try it with; fails if it does not arrive.
    Test {
        /// The target, by id or name.
        target: String,
    },
}

/// A target to add.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// Its name.
    name: String,
    /// The URL that requests go to.
    #[arg(
        long,
        value_name = "URL",
        requires = "secret_file",
        required_unless_present = "mail"
    )]
    webhook: Option<String>,
    /// The file that holds what requests are signed with; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "webhook")]
    secret_file: Option<PathBuf>,
    /// A mailbox; may be given again.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "webhook")]
    mail: Vec<String>,
    /// What it is told of, such as backup_failed; may be given again. Everything, if not given.
    #[arg(long = "event", value_name = "EVENT", value_parser = find::word::<NotificationEvent>)]
    events: Vec<NotificationEvent>,
    /// The one vault that it is told of, by id or name.
    #[arg(long)]
    vault: Option<String>,
}

/// Which notifications are listed.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those for a target, by id or name.
    #[arg(long)]
    target: Option<String>,
    /// Those that are waiting, delivered or failed.
    #[arg(long, value_parser = find::word::<NotificationStatus>)]
    status: Option<NotificationStatus>,
    /// Those of an event, such as backup_failed.
    #[arg(long, value_parser = find::word::<NotificationEvent>)]
    event: Option<NotificationEvent>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: NotificationCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    match command {
        NotificationCommand::Target(TargetCommand::Add(add)) => {
            let made = create(add, client).await?;
            printer.print(&made, || targets(std::slice::from_ref(&made)))
        }
        NotificationCommand::Target(TargetCommand::List) => {
            let listed = client.list_notification_targets().await?;
            let listed = listed.notification_targets;
            printer.print(&listed, || targets(&listed))
        }
        NotificationCommand::Target(TargetCommand::Remove { target }) => {
            let found = find::notification_target(client, &target).await?;
            client.delete_notification_target(found.id).await?;
            printer.say("removed")
        }
        NotificationCommand::Target(TargetCommand::Test { target }) => {
            let found = find::notification_target(client, &target).await?;
            test(&found, client, printer).await
        }
        NotificationCommand::List(list) => self::list(list, client, printer).await,
    }
}

async fn create(add: Add, client: &Client) -> Result<NotificationTarget, Error> {
    let vault_id = match &add.vault {
        Some(vault) => Some(find::vault(client, vault).await?.id),
        None => None,
    };
    let webhook = match (add.webhook, &add.secret_file) {
        (Some(url), Some(file)) => Some(NewWebhook {
            url,
            secret: secret(file)?,
        }),
        _ => None,
    };
    let mail = (!add.mail.is_empty()).then_some(MailAddresses {
        addresses: add.mail,
    });
    let request = CreateNotificationTargetRequest {
        notification_target: NewNotificationTarget {
            name: add.name,
            webhook,
            mail,
            events: Some(add.events),
            vault_id,
        },
    };
    let made = client.create_notification_target(&request).await?;
    Ok(made.notification_target)
}

/// The secret in a file, without the end of its line. On the command line, others could see it.
fn secret(file: &Path) -> Result<Secret, Error> {
    let unreadable =
        |source: std::io::Error| Error::Usage(format!("cannot read {}: {source}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(unreadable)?;
    } else {
        text = std::fs::read_to_string(file).map_err(unreadable)?;
    }
    Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
}

async fn test(
    target: &NotificationTarget,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let begun = client.test_notification_target(target.id).await?;
    let sent = wait::notification(client, begun.notification.id, TEST_SECONDS).await?;
    printer.print(&sent, || notifications(std::slice::from_ref(&sent)))?;
    match sent.status {
        NotificationStatus::Delivered => Ok(()),
        _ => Err(Error::NotDelivered {
            target: target.name.clone(),
            reason: sent.last_error.unwrap_or_default(),
        }),
    }
}

async fn list(list: List, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let target_id = match &list.target {
        Some(target) => Some(find::notification_target(client, target).await?.id),
        None => None,
    };
    let query = ListNotificationsQuery {
        limit: Some(list.limit),
        status: list.status,
        event: list.event,
        target_id,
        ..Default::default()
    };
    let listed = client.list_notifications(&query).await?;
    printer.print(&listed.notifications, || {
        notifications(&listed.notifications)
    })?;
    match listed.dropped {
        0 => Ok(()),
        dropped => printer.say(&format!(
            "{dropped} were never sent, because too many waited"
        )),
    }
}

fn targets(targets: &[NotificationTarget]) -> String {
    let mut table = Table::new(&["ID", "NAME", "KIND", "WHERE", "EVENTS", "VAULT"]);
    for target in targets {
        let place = match (&target.webhook, &target.mail) {
            (Some(webhook), _) => webhook.url.clone(),
            (None, Some(mail)) => mail.addresses.join(", "),
            (None, None) => String::new(),
        };
        let events: Vec<&str> = target.events.iter().map(|event| event.name()).collect();
        table.row([
            target.id.to_string(),
            target.name.clone(),
            target.kind.to_string(),
            place,
            match events.is_empty() {
                true => "all".to_owned(),
                false => events.join(", "),
            },
            target.vault_id.map(|id| id.to_string()).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn notifications(notifications: &[Notification]) -> String {
    let mut table = Table::new(&[
        "WHEN",
        "EVENT",
        "TARGET",
        "STATUS",
        ">ATTEMPTS",
        "NEXT",
        "LAST ERROR",
        "SUMMARY",
    ]);
    for one in notifications {
        table.row([
            time(Some(one.created_at)),
            one.event.to_string(),
            one.target_name.clone(),
            one.status.to_string(),
            one.attempts.to_string(),
            time(one.next_attempt_at),
            one.last_error.clone().unwrap_or_default(),
            one.summary.clone(),
        ]);
    }
    table.render()
}
