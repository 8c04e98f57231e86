//! Notifications: whom a project wants to be told, and what it was told.
//!
//! An event is written to the outbox in the transaction that makes it true
//! (`event`), and sent later, beside everything else (`outbox`): a receiver
//! that fails or never answers holds up nothing but its own notifications.

mod event;
mod outbox;

use cairn_meta::{Notification, NotificationFilter, NotificationTarget, Page, Tx};
use cairn_types::{NotificationEvent, NotificationId, TargetId, TargetKind, VaultId};
use zeroize::Zeroizing;

pub use outbox::{Channel, Outgoing};

pub(crate) use event::Event;

use crate::{Caller, Refusal, Result, Service};

/// What the secrets of webhooks are sealed for.
const SECRET_CONTEXT: &str = "notification target secret";
/// Targets of a project.
const MAX_TARGETS: usize = 32;

/// Where a target's notifications go.
#[derive(Debug, Clone)]
pub enum Address {
    /// To a URL.
    Webhook {
        /// The URL.
        url: String,
        /// What the requests are signed with.
        secret: Zeroizing<String>,
    },
    /// To mailboxes.
    Mail {
        /// The mailboxes.
        addresses: Vec<String>,
    },
}

/// A target to be made.
#[derive(Debug, Clone)]
pub struct NewTarget {
    /// Its name.
    pub name: String,
    /// Where its notifications go.
    pub address: Address,
    /// What it is told of; everything, if empty.
    pub events: Vec<NotificationEvent>,
    /// The one vault that it is told of.
    pub vault: Option<VaultId>,
}

/// What changes of a target; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct TargetChange {
    /// Its name.
    pub name: Option<String>,
    /// The URL of a webhook.
    pub url: Option<String>,
    /// The secret of a webhook.
    pub secret: Option<Zeroizing<String>>,
    /// The mailboxes of mail.
    pub addresses: Option<Vec<String>>,
    /// What it is told of.
    pub events: Option<Vec<NotificationEvent>>,
    /// The one vault that it is told of, or of each.
    pub vault: Option<Option<VaultId>>,
}

impl TargetChange {
    /// What a target of the kind does not have, if something of that kind is to change.
    fn foreign_to(&self, kind: TargetKind) -> Option<&'static str> {
        match kind {
            TargetKind::Webhook => self.addresses.as_ref().map(|_| "mail"),
            TargetKind::Mail => (self.url.is_some() || self.secret.is_some()).then_some("webhook"),
        }
    }
}

impl Service {
    /// Makes a target. It hears of what happens from now on.
    ///
    /// Errors: `NotFound` vault; `Exhausted` if the project has as many as it may.
    pub async fn create_target(
        &self,
        caller: &Caller,
        new: NewTarget,
    ) -> Result<NotificationTarget> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        // One after the other, so that the limit holds.
        tx.lock_project(caller.project).await?;
        if tx.notification_targets(caller.project).await?.len() >= MAX_TARGETS {
            let limit = MAX_TARGETS;
            return Err(Refusal::TooManyTargets { limit }.into());
        }
        refuse_unknown_vault(&mut tx, caller, new.vault).await?;
        let (kind, url, sealed_secret, addresses) = match new.address {
            Address::Webhook { url, secret } => {
                (TargetKind::Webhook, url, self.sealed(&secret), Vec::new())
            }
            Address::Mail { addresses } => {
                (TargetKind::Mail, String::new(), String::new(), addresses)
            }
        };
        let target = NotificationTarget {
            id: TargetId::random(),
            project: caller.project,
            name: new.name,
            kind,
            url,
            sealed_secret,
            addresses,
            events: new.events,
            vault: new.vault,
            created_at: now,
            updated_at: now,
        };
        tx.insert_notification_target(&target).await?;
        tx.commit().await?;
        Ok(target)
    }

    fn sealed(&self, secret: &str) -> String {
        hex::encode(self.root_key().seal(SECRET_CONTEXT, secret.as_bytes()))
    }

    /// Changes a target. What is on its way goes where it points now.
    ///
    /// Errors: `NotFound` target or vault; `Invalid` for what a target of its kind does not have.
    pub async fn update_target(
        &self,
        caller: &Caller,
        id: TargetId,
        change: TargetChange,
    ) -> Result<NotificationTarget> {
        let mut tx = self.meta().begin().await?;
        tx.lock_project(caller.project).await?;
        let mut target = target(&mut tx, caller, id).await?;
        if let Some(part) = change.foreign_to(target.kind) {
            let kind = target.kind;
            return Err(Refusal::TargetKindFixed { kind, part }.into());
        }
        refuse_unknown_vault(&mut tx, caller, change.vault.flatten()).await?;
        if let Some(secret) = &change.secret {
            target.sealed_secret = self.sealed(secret);
        }
        target.name = change.name.unwrap_or(target.name);
        target.url = change.url.unwrap_or(target.url);
        target.addresses = change.addresses.unwrap_or(target.addresses);
        target.events = change.events.unwrap_or(target.events);
        target.vault = change.vault.unwrap_or(target.vault);
        target.updated_at = self.now();
        tx.update_notification_target(&target).await?;
        tx.commit().await?;
        Ok(target)
    }

    /// Removes a target, and what is on its way to it.
    ///
    /// Errors: `NotFound`.
    pub async fn delete_target(&self, caller: &Caller, id: TargetId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let target = target(&mut tx, caller, id).await?;
        tx.remove_notification_target(target.id).await?;
        Ok(tx.commit().await?)
    }

    /// The project's targets in the order in which they were made.
    pub async fn targets(&self, caller: &Caller) -> Result<Vec<NotificationTarget>> {
        let mut tx = self.meta().look().await?;
        Ok(tx.notification_targets(caller.project).await?)
    }

    /// One of the project's targets.
    ///
    /// Errors: `NotFound`.
    pub async fn target(&self, caller: &Caller, id: TargetId) -> Result<NotificationTarget> {
        let mut tx = self.meta().look().await?;
        target(&mut tx, caller, id).await
    }

    /// Sends a target something to try it with: once, whatever becomes of it.
    ///
    /// Errors: `NotFound`.
    pub async fn test_target(&self, caller: &Caller, id: TargetId) -> Result<Notification> {
        let mut tx = self.meta().begin().await?;
        let target = target(&mut tx, caller, id).await?;
        let event = Event::test(caller.project, self.now());
        let notification = self.tell_one(&mut tx, &target, &event).await?;
        self.make_room(&mut tx, caller.project).await?;
        tx.commit().await?;
        self.wake_sender();
        Ok(notification)
    }

    /// A page of what the project was told or is to be told, newest first, and
    /// how many match in all.
    pub async fn notifications(
        &self,
        caller: &Caller,
        filter: &NotificationFilter,
        page: &Page,
    ) -> Result<(Vec<Notification>, u64)> {
        let mut tx = self.meta().read().await?;
        Ok(tx.notifications(caller.project, filter, page).await?)
    }

    /// How many notifications the project never got because too many waited.
    pub async fn dropped_notifications(&self, caller: &Caller) -> Result<u64> {
        let mut tx = self.meta().look().await?;
        Ok(tx.dropped_notifications(caller.project).await?)
    }

    /// One of the project's notifications.
    ///
    /// Errors: `NotFound`.
    pub async fn notification(&self, caller: &Caller, id: NotificationId) -> Result<Notification> {
        let mut tx = self.meta().look().await?;
        let found = tx.notification(caller.project, id).await?;
        Ok(found.ok_or(Refusal::NotificationNotFound)?)
    }
}

async fn target(tx: &mut Tx, caller: &Caller, id: TargetId) -> Result<NotificationTarget> {
    let found = tx.notification_target(caller.project, id).await?;
    Ok(found.ok_or(Refusal::TargetNotFound)?)
}

async fn refuse_unknown_vault(tx: &mut Tx, caller: &Caller, vault: Option<VaultId>) -> Result<()> {
    if let Some(vault) = vault {
        let found = tx.vault(caller.project, vault).await?;
        found.ok_or(Refusal::VaultNotFound)?;
    }
    Ok(())
}
