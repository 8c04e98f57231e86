//! What happened, and its way into the outbox.

use cairn_meta::{Notification, NotificationTarget, OperationLog, Tx, Vault};
use cairn_types::{
    NotificationEvent, NotificationId, NotificationStatus, OperationLogId, OperationType, PolicyId,
    ProjectId, Timestamp, VaultId,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Service;
use crate::operation_log::OperationDetail;

/// Notifications of a project that wait to be sent; of more, the oldest go.
const MAX_WAITING: u32 = 1000;
/// Notifications of a project that are over and still known; of more, the oldest go.
const MAX_KEPT: u32 = 10_000;
/// The form of what is told; a receiver that knows it can read what is added later.
const FORMAT: u64 = 1;

/// Something that a project's targets are told of.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    kind: NotificationEvent,
    project: ProjectId,
    vault: Option<VaultId>,
    summary: String,
    body: Value,
    at: Timestamp,
}

impl Event {
    fn new(
        kind: NotificationEvent,
        project: ProjectId,
        vault: Option<(VaultId, &str)>,
        summary: String,
        at: Timestamp,
    ) -> Self {
        let body = json!({
            "format": FORMAT,
            "id": Uuid::new_v4(),
            "event": kind,
            "time": at.format("%Y-%m-%dT%H:%M:%S.%6fZ"),
            "project_id": project,
            "summary": summary,
            "vault": vault.map(|(id, name)| json!({ "id": id, "name": name })),
            "resource": null,
            "backup": null,
            "operation_log_id": null,
            "error": null,
            "details": {},
        });
        Self {
            kind,
            project,
            vault: vault.map(|(id, _)| id),
            summary,
            body,
            at,
        }
    }

    fn of_vault(kind: NotificationEvent, vault: &Vault, summary: String, at: Timestamp) -> Self {
        let named = Some((vault.id, vault.name.as_str()));
        Self::new(kind, vault.project, named, summary, at)
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.body[key] = value;
        self
    }

    /// Somebody tries a target.
    pub(super) fn test(project: ProjectId, at: Timestamp) -> Self {
        let summary = "This is a test: notifications of Cairn arrive here.".to_owned();
        Self::new(NotificationEvent::Test, project, None, summary, at)
    }

    /// A vault is used up to its threshold, or is full.
    pub(crate) fn fill(
        kind: NotificationEvent,
        vault: &Vault,
        used_bytes: u64,
        at: Timestamp,
    ) -> Self {
        let Vault {
            name,
            size_gb,
            threshold,
            ..
        } = vault;
        let summary = match kind {
            NotificationEvent::VaultFull => {
                format!("Vault {name} is full: its {size_gb} GB are used up.")
            }
            _ => format!("Vault {name} is used beyond {threshold} % of its {size_gb} GB."),
        };
        let details =
            json!({ "size_gb": size_gb, "used_bytes": used_bytes, "threshold": threshold });
        Self::of_vault(kind, vault, summary, at).with("details", details)
    }

    /// A full vault has grown to the size that it has now.
    pub(crate) fn expanded(vault: &Vault, before_gb: u64, used_bytes: u64, at: Timestamp) -> Self {
        let (name, size_gb) = (&vault.name, vault.size_gb);
        let summary =
            format!("Vault {name} was full and has grown from {before_gb} to {size_gb} GB.");
        let details =
            json!({ "size_gb": size_gb, "size_before_gb": before_gb, "used_bytes": used_bytes });
        Self::of_vault(NotificationEvent::VaultExpanded, vault, summary, at)
            .with("details", details)
    }

    /// A task has failed for good; `log` is its public record.
    fn failed(
        log: &OperationLog,
        kind: NotificationEvent,
        (code, text): (&str, &str),
        at: Timestamp,
    ) -> Self {
        let what = match kind {
            NotificationEvent::BackupFailed => "The backup",
            NotificationEvent::ReplicationFailed => "The replication",
            NotificationEvent::RestoreFailed => "The restore",
            NotificationEvent::VerificationFailed => "The verification",
            NotificationEvent::SyncFailed => "The synchronisation",
            _ => "The deletion",
        };
        let mut summary = what.to_owned();
        if let Some(name) = &log.resource_name {
            summary.push_str(&format!(" of {name}"));
        }
        if let Some(target) = target_of(log) {
            summary.push_str(&format!(" onto {target}"));
        }
        if log.vault.is_some() {
            summary.push_str(&format!(" in vault {}", log.vault_name));
        }
        summary.push_str(&format!(" failed: {text}"));
        let vault = log.vault.map(|id| (id, log.vault_name.as_str()));
        let resource = log
            .resource
            .map(|id| json!({ "id": id, "name": log.resource_name, "type": log.resource_type }));
        Self::new(kind, log.project, vault, summary, at)
            .with("resource", resource.into())
            .with("backup", backup_of(log))
            .with("operation_log_id", json!(log.id))
            .with("error", json!({ "code": code, "message": text }))
    }

    /// A verification has found backups of a vault that cannot be restored as they were.
    pub(crate) fn hurt(
        vault: &Vault,
        (hurt, total): (&[Value], usize),
        verification: OperationLogId,
        at: Timestamp,
    ) -> Self {
        let summary = format!(
            "{total} of the backups in vault {} cannot be restored as they were.",
            vault.name
        );
        Self::of_vault(NotificationEvent::BackupsHurt, vault, summary, at)
            .with("operation_log_id", json!(verification))
            .with("details", json!({ "count": total, "backups": hurt }))
    }

    /// A policy's run for a vault was left out, or could not start.
    pub(crate) fn policy_run(
        kind: NotificationEvent,
        vault: &Vault,
        (policy, policy_name): (PolicyId, &str),
        why: &str,
        at: Timestamp,
    ) -> Self {
        let what = match kind {
            NotificationEvent::PolicyRunSkipped => "was left out",
            _ => "could not start",
        };
        let summary = format!(
            "A run of policy {policy_name} for vault {} {what}: {why}",
            vault.name
        );
        let details = json!({ "policy": { "id": policy, "name": policy_name }, "reason": why });
        Self::of_vault(kind, vault, summary, at).with("details", details)
    }
}

/// What the failure of an operation is called; nothing for what is done as it is asked for.
const fn kind_of(operation: OperationType) -> Option<NotificationEvent> {
    Some(match operation {
        OperationType::Backup => NotificationEvent::BackupFailed,
        OperationType::Copy | OperationType::Replication => NotificationEvent::ReplicationFailed,
        OperationType::Restore => NotificationEvent::RestoreFailed,
        OperationType::Verify => NotificationEvent::VerificationFailed,
        OperationType::Sync => NotificationEvent::SyncFailed,
        OperationType::Delete | OperationType::VaultDelete | OperationType::RemoveResource => {
            NotificationEvent::DeletionFailed
        }
        OperationType::MigrateResource | OperationType::UpdateExpirationTime => return None,
    })
}

/// What a restore writes to, if that is not what its backup is of.
fn target_of(log: &OperationLog) -> Option<String> {
    match serde_json::from_value(log.detail.clone()) {
        Ok(OperationDetail::Restore {
            target,
            target_name,
            ..
        }) if log.resource != Some(target) => Some(target_name),
        _ => None,
    }
}

/// The backup that an operation is about, if it is about one.
fn backup_of(log: &OperationLog) -> Value {
    let (id, name) = match serde_json::from_value(log.detail.clone()) {
        Ok(
            OperationDetail::Backup {
                backup,
                backup_name,
                ..
            }
            | OperationDetail::Restore {
                backup,
                backup_name,
                ..
            }
            | OperationDetail::Delete {
                backup,
                backup_name,
            }
            | OperationDetail::Import {
                backup,
                backup_name,
            },
        ) => (backup, backup_name),
        Ok(OperationDetail::Replication { source, .. }) => (source.backup, source.name),
        _ => return Value::Null,
    };
    json!({ "id": id, "name": name })
}

impl Service {
    /// Writes for every target that wants to know that something happened, in
    /// the transaction that makes it true.
    pub(crate) async fn tell(&self, tx: &mut Tx, event: &Event) -> cairn_meta::Result<()> {
        let targets = tx.notification_targets(event.project).await?;
        let wanted = targets
            .iter()
            .filter(|target| target.wants(event.kind, event.vault));
        let mut told = false;
        for target in wanted {
            self.tell_one(tx, target, event).await?;
            told = true;
        }
        if told {
            self.make_room(tx, event.project).await?;
            // Whoever looks too early, before the commit, looks again in a moment.
            self.wake_sender();
        }
        Ok(())
    }

    /// As [`tell`](Self::tell), if the vault's owner wants to hear of it.
    pub(crate) async fn tell_of_vault(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        event: &Event,
    ) -> cairn_meta::Result<()> {
        match vault.smn_notify {
            true => self.tell(tx, event).await,
            false => Ok(()),
        }
    }

    /// A task has failed for good: tells so, if it has a public record and its
    /// vault's owner wants to hear of it.
    pub(crate) async fn tell_of_failure(
        &self,
        tx: &mut Tx,
        task: OperationLogId,
        why: (&str, &str),
    ) -> cairn_meta::Result<()> {
        let Some(log) = tx.operation_log_of(task).await? else {
            return Ok(());
        };
        let Some(kind) = kind_of(log.operation_type) else {
            return Ok(());
        };
        let event = Event::failed(&log, kind, why, self.now());
        let vault = match log.vault {
            Some(vault) => tx.vault(log.project, vault).await?,
            None => None,
        };
        match vault {
            Some(vault) => self.tell_of_vault(tx, &vault, &event).await,
            None => self.tell(tx, &event).await,
        }
    }

    pub(super) async fn tell_one(
        &self,
        tx: &mut Tx,
        target: &NotificationTarget,
        event: &Event,
    ) -> cairn_meta::Result<Notification> {
        let notification = Notification {
            id: NotificationId::random(),
            project: event.project,
            target: target.id,
            target_name: target.name.clone(),
            event: event.kind,
            vault: event.vault,
            summary: event.summary.clone(),
            body: event.body.to_string(),
            status: NotificationStatus::Waiting,
            attempts: 0,
            last_error: String::new(),
            owner: None,
            lease_until: None,
            not_before: event.at,
            created_at: event.at,
            ended_at: None,
        };
        tx.insert_notification(&notification).await?;
        Ok(notification)
    }

    /// Keeps what waits, and what is known of the past, within their limits.
    pub(super) async fn make_room(
        &self,
        tx: &mut Tx,
        project: ProjectId,
    ) -> cairn_meta::Result<()> {
        let dropped = tx
            .remove_oldest_notifications(project, true, MAX_WAITING)
            .await?;
        if dropped > 0 {
            tracing::warn!(
                project.id = %project, dropped,
                "notifications were dropped: too many wait"
            );
            tx.count_dropped_notifications(project, dropped).await?;
        }
        tx.remove_oldest_notifications(project, false, MAX_KEPT)
            .await?;
        Ok(())
    }
}
