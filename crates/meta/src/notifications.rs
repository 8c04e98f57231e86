//! Targets of notifications, and what is on its way to them: an outbox, whose
//! rows are written with what they tell of and claimed by one sender at a time.

use cairn_types::{
    NotificationEvent, NotificationId, NotificationStatus, ProjectId, TargetId, TargetKind,
    Timestamp, VaultId,
};
use sqlx::any::AnyRow;

use crate::query::{
    Columns, FromRow, Order, Page, SortKey, Statement, insert, json, optional, text,
};
use crate::vaults::signed;
use crate::{Result, Tx};

/// Who is told, of what, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationTarget {
    /// Its id.
    pub id: TargetId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub kind: TargetKind,
    /// Where a webhook is; empty for mail.
    pub url: String,
    /// What a webhook's requests are signed with, sealed, in hexadecimal; empty for mail.
    pub sealed_secret: String,
    /// Who gets mail; nobody for a webhook.
    pub addresses: Vec<String>,
    /// What it is told of; everything, if empty.
    pub events: Vec<NotificationEvent>,
    /// The one vault that it is told of, if there is one.
    pub vault: Option<VaultId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl NotificationTarget {
    /// Whether it wants to be told of such an event, of this vault or of none.
    pub fn wants(&self, event: NotificationEvent, vault: Option<VaultId>) -> bool {
        let of_event = self.events.is_empty() || self.events.contains(&event);
        of_event && (self.vault.is_none() || self.vault == vault)
    }
}

/// One event for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its id, the same however often it is sent.
    pub id: NotificationId,
    /// The project.
    pub project: ProjectId,
    /// The target.
    pub target: TargetId,
    /// The target's name at the time.
    pub target_name: String,
    /// What happened.
    pub event: NotificationEvent,
    /// The vault that it happened to, if it is about one.
    pub vault: Option<VaultId>,
    /// What happened, in one sentence.
    pub summary: String,
    /// All that is told, as JSON.
    pub body: String,
    /// What became of it.
    pub status: NotificationStatus,
    /// How often it was sent.
    pub attempts: u64,
    /// Why it did not arrive the last time; empty if nothing went wrong.
    pub last_error: String,
    /// Who is sending it.
    pub owner: Option<String>,
    /// Until when that sender counts as alive.
    pub lease_until: Option<Timestamp>,
    /// Not to be sent before this.
    pub not_before: Timestamp,
    /// When it happened.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
}

/// Which notifications of a project a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationFilter {
    /// Only those in this state.
    pub status: Option<NotificationStatus>,
    /// Only those of this event.
    pub event: Option<NotificationEvent>,
    /// Only those for this target.
    pub target: Option<TargetId>,
    /// Only those about this vault.
    pub vault: Option<VaultId>,
}

/// What the targets know of how full a vault is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VaultMark {
    /// That it is used up to its threshold.
    pub over_threshold: bool,
    /// That it is full.
    pub is_full: bool,
}

impl FromRow for NotificationTarget {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            name: row.text("name")?,
            kind: row.parsed("kind")?,
            url: row.text("url")?,
            sealed_secret: row.text("sealed_secret")?,
            addresses: row.json("addresses")?,
            events: row.json("events")?,
            vault: row.optional_parsed("vault_id")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

impl FromRow for Notification {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            target: row.parsed("target_id")?,
            target_name: row.text("target_name")?,
            event: row.parsed("event")?,
            vault: row.optional_parsed("vault_id")?,
            summary: row.text("summary")?,
            body: row.text("body")?,
            status: row.parsed("status")?,
            attempts: row.unsigned("attempts")?,
            last_error: row.text("last_error")?,
            owner: row.optional_text("owner")?,
            lease_until: row.optional_time("lease_until")?,
            not_before: row.time("not_before")?,
            created_at: row.time("created_at")?,
            ended_at: row.optional_time("ended_at")?,
        })
    }
}

impl FromRow for VaultMark {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            over_threshold: row.flag("over_threshold")?,
            is_full: row.flag("is_full")?,
        })
    }
}

/// Notifications of a project on their way at the same time.
const PROJECT_AT_ONCE: i64 = 8;
/// The order of a list of notifications.
const NEWEST_FIRST: Order<'_> = Order {
    table: "notifications",
    prefix: "",
    shared: false,
    keys: &[SortKey::newest("created_at")],
};

fn filtered(select: &str, project: ProjectId, filter: &NotificationFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("project_id", Some(project))
        .equals("status", filter.status)
        .equals("event", filter.event)
        .equals("target_id", filter.target)
        .equals("vault_id", filter.vault);
    statement
}

impl Tx {
    /// Adds a target.
    pub async fn insert_notification_target(&mut self, target: &NotificationTarget) -> Result<()> {
        let columns = [
            ("id", text(target.id)),
            ("project_id", text(target.project)),
            ("name", text(&target.name)),
            ("kind", text(target.kind)),
            ("url", text(&target.url)),
            ("sealed_secret", text(&target.sealed_secret)),
            ("addresses", json(&target.addresses)),
            ("events", json(&target.events)),
            ("vault_id", optional(target.vault)),
            ("created_at", target.created_at.into()),
            ("updated_at", target.updated_at.into()),
        ];
        insert(self, "notification_targets", columns).await
    }

    /// Writes what of a target can change: all but its kind.
    pub async fn update_notification_target(&mut self, target: &NotificationTarget) -> Result<()> {
        let mut statement = Statement::new("UPDATE notification_targets SET name = ");
        statement.bind(text(&target.name));
        statement.push(", url = ").bind(text(&target.url));
        statement
            .push(", sealed_secret = ")
            .bind(text(&target.sealed_secret));
        statement
            .push(", addresses = ")
            .bind(json(&target.addresses));
        statement.push(", events = ").bind(json(&target.events));
        statement.push(", vault_id = ").bind(optional(target.vault));
        statement.push(", updated_at = ").bind(target.updated_at);
        statement.equals("id", Some(target.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes a target and what is on its way to it; what was told already stays known.
    pub async fn remove_notification_target(&mut self, target: TargetId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM notifications");
        statement
            .equals("target_id", Some(target))
            .equals("status", Some(NotificationStatus::Waiting));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM notification_targets");
        statement.equals("id", Some(target));
        statement.run(self).await?;
        Ok(())
    }

    /// A project's target.
    pub async fn notification_target(
        &mut self,
        project: ProjectId,
        target: TargetId,
    ) -> Result<Option<NotificationTarget>> {
        let mut statement = Statement::new("SELECT * FROM notification_targets");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(target));
        statement.one(self).await
    }

    /// A project's targets in the order in which they were made; how many it may have is limited.
    pub async fn notification_targets(
        &mut self,
        project: ProjectId,
    ) -> Result<Vec<NotificationTarget>> {
        let mut statement = Statement::new("SELECT * FROM notification_targets");
        statement
            .equals("project_id", Some(project))
            .push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// Adds a notification.
    pub async fn insert_notification(&mut self, new: &Notification) -> Result<()> {
        let columns = [
            ("id", text(new.id)),
            ("project_id", text(new.project)),
            ("target_id", text(new.target)),
            ("target_name", text(&new.target_name)),
            ("event", text(new.event)),
            ("vault_id", optional(new.vault)),
            ("summary", text(&new.summary)),
            ("body", text(&new.body)),
            ("status", text(new.status)),
            ("attempts", signed(new.attempts).into()),
            ("last_error", text(&new.last_error)),
            ("owner", optional(new.owner.as_ref())),
            ("lease_until", new.lease_until.into()),
            ("not_before", new.not_before.into()),
            ("created_at", new.created_at.into()),
            ("ended_at", new.ended_at.into()),
        ];
        insert(self, "notifications", columns).await
    }

    /// A project's notification.
    pub async fn notification(
        &mut self,
        project: ProjectId,
        id: NotificationId,
    ) -> Result<Option<Notification>> {
        let mut statement = Statement::new("SELECT * FROM notifications");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(id));
        statement.one(self).await
    }

    /// A page of a project's notifications, newest first, and how many match in all.
    pub async fn notifications(
        &mut self,
        project: ProjectId,
        filter: &NotificationFilter,
        page: &Page,
    ) -> Result<(Vec<Notification>, u64)> {
        let count = "SELECT COUNT(*) FROM notifications";
        let count = filtered(count, project, filter).number(self).await?;
        let mut statement = filtered("SELECT * FROM notifications", project, filter);
        statement.ordered_page(&NEWEST_FIRST, project, page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// Removes the oldest notifications of a project until `keep` are left, of
    /// those that wait or of those that are over; how many went.
    pub async fn remove_oldest_notifications(
        &mut self,
        project: ProjectId,
        waiting: bool,
        keep: u32,
    ) -> Result<u64> {
        let of_these = match waiting {
            true => "status = 'waiting'",
            false => "status <> 'waiting'",
        };
        let mut statement = Statement::new("DELETE FROM notifications");
        statement
            .condition("id IN (SELECT id FROM notifications WHERE project_id = ")
            .bind(text(project))
            .push(" AND ")
            .push(of_these)
            .push(" ORDER BY created_at DESC, id DESC LIMIT ")
            .bind(i64::MAX)
            .push(" OFFSET ")
            .bind(i64::from(keep))
            .push(")");
        statement.run(self).await
    }

    /// Counts notifications of a project that went without having been sent.
    pub async fn count_dropped_notifications(
        &mut self,
        project: ProjectId,
        dropped: u64,
    ) -> Result<()> {
        let mut statement =
            Statement::new("INSERT INTO notifications_dropped (project_id, dropped) VALUES (");
        statement
            .bind(text(project))
            .push(", ")
            .bind(signed(dropped));
        statement.push(") ON CONFLICT (project_id) DO UPDATE SET ");
        statement.push("dropped = notifications_dropped.dropped + excluded.dropped");
        statement.run(self).await?;
        Ok(())
    }

    /// How many notifications of a project ever went without having been sent.
    pub async fn dropped_notifications(&mut self, project: ProjectId) -> Result<u64> {
        let mut statement = Statement::new("SELECT MAX(dropped) FROM notifications_dropped");
        statement.equals("project_id", Some(project));
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// Whether a notification is due that nobody is sending.
    pub async fn has_due_notification(&mut self, now: Timestamp) -> Result<bool> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM notifications n");
        push_due(&mut statement, now);
        Ok(statement.number(self).await? > 0)
    }

    /// Takes for `owner` the notification that has been due for longest: one that nobody
    /// is sending, or whose sender let its lease end. A target is sent one at a time.
    pub async fn claim_notification(
        &mut self,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<(Notification, NotificationTarget)>> {
        let lock = self.claim_lock();
        let mut statement = Statement::new("SELECT n.* FROM notifications n");
        push_due(&mut statement, now);
        statement
            .push(" ORDER BY n.not_before, n.created_at, n.id LIMIT 1 ")
            .push(lock);
        let Some(mut found) = statement.one::<Notification>(self).await? else {
            return Ok(None);
        };
        found.owner = Some(owner.to_owned());
        found.lease_until = Some(lease_until);
        found.attempts += 1;
        let mut statement = Statement::new("UPDATE notifications SET owner = ");
        statement.bind(owner);
        statement.push(", lease_until = ").bind(lease_until);
        statement.push(", attempts = ").bind(signed(found.attempts));
        statement.equals("id", Some(found.id));
        statement.run(self).await?;
        let target = self
            .notification_target(found.project, found.target)
            .await?;
        if target.is_none() {
            // It was written while its target was being removed.
            let mut statement = Statement::new("DELETE FROM notifications");
            statement.equals("id", Some(found.id));
            statement.run(self).await?;
        }
        Ok(target.map(|target| (found, target)))
    }

    /// Writes what became of a notification that `owner` was sending; false if
    /// somebody else has taken it since or it is gone, and then nothing is written.
    pub async fn save_notification(&mut self, sent: &Notification, owner: &str) -> Result<bool> {
        let mut statement = Statement::new("UPDATE notifications SET status = ");
        statement.bind(text(sent.status));
        statement
            .push(", last_error = ")
            .bind(text(&sent.last_error));
        statement.push(", not_before = ").bind(sent.not_before);
        statement.push(", ended_at = ").bind(sent.ended_at);
        statement.push(", owner = NULL, lease_until = NULL");
        statement
            .equals("id", Some(sent.id))
            .equals("owner", Some(owner));
        Ok(statement.run(self).await? == 1)
    }

    /// Has what waits for a target wait until `not_before` at least.
    pub async fn hold_notifications(
        &mut self,
        target: TargetId,
        not_before: Timestamp,
    ) -> Result<()> {
        let mut statement = Statement::new("UPDATE notifications SET not_before = ");
        statement.bind(not_before);
        statement
            .equals("target_id", Some(target))
            .equals("status", Some(NotificationStatus::Waiting))
            .condition("not_before < ")
            .bind(not_before);
        statement.run(self).await?;
        Ok(())
    }

    /// Ends every sender's lease: for the one process that owns the catalogue, when it starts.
    pub async fn end_notification_leases(&mut self) -> Result<u64> {
        let mut statement =
            Statement::new("UPDATE notifications SET owner = NULL, lease_until = NULL");
        statement.condition("owner IS NOT NULL");
        statement.run(self).await
    }

    /// Forgets the notifications that were over at `until` or before.
    pub async fn remove_ended_notifications(&mut self, until: Timestamp) -> Result<u64> {
        let mut statement = Statement::new("DELETE FROM notifications");
        statement
            .condition("status <> 'waiting' AND ended_at <= ")
            .bind(until);
        statement.run(self).await
    }

    /// What the targets know of a vault.
    pub async fn vault_mark(&mut self, vault: VaultId) -> Result<VaultMark> {
        let mut statement = Statement::new("SELECT * FROM vault_marks");
        statement.equals("vault_id", Some(vault));
        Ok(statement.one(self).await?.unwrap_or_default())
    }

    /// Writes what the targets know of a vault.
    pub async fn set_vault_mark(&mut self, vault: VaultId, mark: VaultMark) -> Result<()> {
        let mut statement =
            Statement::new("INSERT INTO vault_marks (vault_id, over_threshold, is_full) VALUES (");
        statement.bind(text(vault));
        statement.push(", ").bind(mark.over_threshold);
        statement.push(", ").bind(mark.is_full);
        statement.push(") ON CONFLICT (vault_id) DO UPDATE SET ");
        statement.push("over_threshold = excluded.over_threshold, is_full = excluded.is_full");
        statement.run(self).await?;
        Ok(())
    }
}

/// What is due and may be sent: nothing else is on its way to the same target, and not
/// too much of the same project, whose receivers may all hang.
fn push_due(statement: &mut Statement, now: Timestamp) {
    statement
        .condition("n.status = 'waiting' AND n.not_before <= ")
        .bind(now);
    statement
        .condition("NOT EXISTS (SELECT 1 FROM notifications o WHERE o.target_id = n.target_id")
        .push(" AND o.status = 'waiting' AND o.lease_until > ")
        .bind(now)
        .push(")");
    statement
        .condition("(SELECT COUNT(*) FROM notifications p WHERE p.project_id = n.project_id")
        .push(" AND p.status = 'waiting' AND p.lease_until > ")
        .bind(now)
        .push(") < ")
        .bind(PROJECT_AT_ONCE);
}
