//! The outbox from the side of whoever sends: what is due, and what follows
//! from how it went. Sent at least once, always under the same id.

use std::sync::Arc;

use cairn_meta::{Notification, NotificationTarget};
use cairn_types::{NotificationEvent, NotificationStatus, TargetKind, Timestamp};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::SECRET_CONTEXT;
use crate::{Result, Service};

/// How long a sender that is not heard of counts as alive. Sending takes no longer.
pub(crate) const LEASE_SECONDS: i64 = 60;
/// The pause before the second attempt; it doubles with each further one.
const FIRST_RETRY_SECONDS: i64 = 10;
/// The longest pause between two attempts.
const LONGEST_RETRY_SECONDS: i64 = 60 * 60;
/// How old a notification is when it is tried for the last time.
const GIVEN_UP_SECONDS: i64 = 24 * 60 * 60;
/// How long a notification is known after it was delivered or given up.
const KEPT_SECONDS: i64 = 30 * 24 * 60 * 60;
/// The longest reason that is kept, in characters.
const MAX_ERROR_CHARS: usize = 300;

/// A notification to be sent, and where to.
#[derive(Debug)]
pub struct Outgoing {
    /// The notification.
    pub notification: Notification,
    /// Where it goes.
    pub channel: Channel,
}

/// Where a notification goes, with what is needed to send it.
#[derive(Debug)]
pub enum Channel {
    /// To a URL.
    Webhook {
        /// The URL.
        url: String,
        /// What the request is signed with.
        secret: Zeroizing<Vec<u8>>,
    },
    /// To mailboxes.
    Mail {
        /// The mailboxes.
        addresses: Vec<String>,
    },
}

/// The pause after so many attempts.
fn pause_seconds(attempts: u64) -> i64 {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let pause = 1_i64.checked_shl(doublings.min(32)).unwrap_or(i64::MAX);
    FIRST_RETRY_SECONDS
        .saturating_mul(pause)
        .min(LONGEST_RETRY_SECONDS)
}

/// What becomes of a notification that did not arrive. The last attempt is made
/// when it is as old as it gets, and one in any case, however long nobody could.
fn after_failure(notification: &mut Notification, error: &str, now: Timestamp) {
    notification.last_error = error.chars().take(MAX_ERROR_CHARS).collect();
    let last = notification.created_at.plus_seconds(GIVEN_UP_SECONDS);
    if notification.event == NotificationEvent::Test || now >= last {
        notification.status = NotificationStatus::Failed;
        notification.ended_at = Some(now);
    } else {
        let next = now.plus_seconds(pause_seconds(notification.attempts));
        notification.not_before = next.min(last);
    }
}

impl Service {
    /// Told whenever a notification may have become due.
    pub fn sender_wake(&self) -> Arc<Notify> {
        Arc::clone(self.outbox())
    }

    /// Takes the next notification that is due, for a sender with a name of its
    /// own. Its target is sent nothing else meanwhile.
    pub async fn next_notification(&self, sender: &str) -> Result<Option<Outgoing>> {
        let now = self.now();
        // A look that disturbs nobody who writes, which nearly always is enough.
        if !self.meta().look().await?.has_due_notification(now).await? {
            return Ok(None);
        }
        let until = now.plus_seconds(LEASE_SECONDS);
        let mut tx = self.meta().begin().await?;
        let claimed = tx.claim_notification(sender, now, until).await?;
        tx.commit().await?;
        let Some((notification, target)) = claimed else {
            return Ok(None);
        };
        match self.channel(&target) {
            Ok(channel) => Ok(Some(Outgoing {
                notification,
                channel,
            })),
            Err(error) => {
                let reason = "the secret of the target cannot be read".to_owned();
                self.settle_notification(sender, notification, Err(reason))
                    .await?;
                Err(error)
            }
        }
    }

    fn channel(&self, target: &NotificationTarget) -> Result<Channel> {
        Ok(match target.kind {
            TargetKind::Mail => Channel::Mail {
                addresses: target.addresses.clone(),
            },
            TargetKind::Webhook => {
                // What is no hexadecimal was not sealed by us: it does not open.
                let sealed = hex::decode(&target.sealed_secret).unwrap_or_default();
                Channel::Webhook {
                    url: target.url.clone(),
                    secret: self.root_key().open(SECRET_CONTEXT, &sealed)?,
                }
            }
        })
    }

    /// Writes down how sending a notification went: delivered, or why not. After a
    /// failure, whatever else waits for the target waits for a moment with it.
    pub async fn settle_notification(
        &self,
        sender: &str,
        mut notification: Notification,
        outcome: std::result::Result<(), String>,
    ) -> Result<()> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        match &outcome {
            Ok(()) => {
                notification.status = NotificationStatus::Delivered;
                notification.ended_at = Some(now);
            }
            Err(error) => {
                after_failure(&mut notification, error, now);
                let hold = now.plus_seconds(FIRST_RETRY_SECONDS);
                tx.hold_notifications(notification.target, hold).await?;
            }
        }
        let written = tx.save_notification(&notification, sender).await?;
        tx.commit().await?;
        if written && let Err(error) = &outcome {
            tracing::warn!(
                notification.id = %notification.id,
                target.id = %notification.target,
                attempts = notification.attempts,
                status = %notification.status,
                "a notification did not arrive: {error}"
            );
        }
        Ok(())
    }

    /// Takes over what earlier senders left, at once: only for the one process
    /// that owns the catalogue, before it sends anything.
    pub async fn take_over_notifications(&self) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        tx.end_notification_leases().await?;
        Ok(tx.commit().await?)
    }

    /// Forgets the notifications that were over a month ago; how many.
    pub async fn forget_old_notifications(&self) -> Result<u64> {
        let mut tx = self.meta().begin().await?;
        let until = self.now().plus_seconds(-KEPT_SECONDS);
        let forgotten = tx.remove_ended_notifications(until).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use cairn_types::{NotificationId, ProjectId, TargetId};

    use super::*;

    fn waiting(attempts: u64) -> Notification {
        let at = Timestamp::from_micros(0);
        Notification {
            id: NotificationId::random(),
            project: ProjectId::random(),
            target: TargetId::random(),
            target_name: "t".to_owned(),
            event: NotificationEvent::BackupFailed,
            vault: None,
            summary: String::new(),
            body: String::new(),
            status: NotificationStatus::Waiting,
            attempts,
            last_error: String::new(),
            owner: None,
            lease_until: None,
            not_before: at,
            created_at: at,
            ended_at: None,
        }
    }

    #[test]
    fn pauses_double_up_to_an_hour() {
        let pauses: Vec<i64> = (1..=11).map(pause_seconds).collect();
        assert_eq!(
            pauses,
            [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
        );
        assert_eq!(pause_seconds(0), 10);
        assert_eq!(pause_seconds(u64::MAX), 3600);
    }

    #[test]
    fn a_notification_is_tried_for_a_day() {
        let (mut one, mut now, mut attempts) = (waiting(0), Timestamp::from_micros(0), 0);
        while one.status == NotificationStatus::Waiting {
            attempts += 1;
            now = one.not_before;
            one.attempts = attempts;
            after_failure(&mut one, "it does not answer", now);
        }
        assert_eq!(one.status, NotificationStatus::Failed);
        assert_eq!(now.as_micros(), GIVEN_UP_SECONDS * 1_000_000);
        assert_eq!(one.ended_at, Some(now));
        assert!((30..40).contains(&attempts), "{attempts}");
    }

    #[test]
    fn what_nobody_could_send_in_time_is_tried_once() {
        let late = Timestamp::from_micros(0).plus_seconds(3 * GIVEN_UP_SECONDS);
        let mut one = waiting(1);
        after_failure(&mut one, &"é".repeat(1000), late);
        assert_eq!(one.status, NotificationStatus::Failed);
        assert_eq!(one.last_error.chars().count(), MAX_ERROR_CHARS);
    }

    #[test]
    fn a_test_is_not_repeated() {
        let mut one = waiting(1);
        one.event = NotificationEvent::Test;
        after_failure(&mut one, "no", Timestamp::from_micros(5));
        assert_eq!(one.status, NotificationStatus::Failed);
    }
}
