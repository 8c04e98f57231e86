//! What a project's targets are told of, how, and what became of it.

use crate::named::named;

named! {
    /// Something that a project's targets are told of.
    pub enum NotificationEvent: "notification event" {
        /// A vault is used up to its threshold.
        VaultThreshold = "vault_threshold",
        /// A vault is full.
        VaultFull = "vault_full",
        /// A full vault has grown by itself.
        VaultExpanded = "vault_expanded",
        /// A backup could not be made.
        BackupFailed = "backup_failed",
        /// A backup could not be replicated.
        ReplicationFailed = "replication_failed",
        /// A backup could not be restored.
        RestoreFailed = "restore_failed",
        /// Backups could not be looked at.
        VerificationFailed = "verification_failed",
        /// A verification found backups that cannot be restored as they were.
        BackupsHurt = "backups_hurt",
        /// Another site could not be synchronised with.
        SyncFailed = "sync_failed",
        /// Backups, a vault or resources could not be deleted.
        DeletionFailed = "deletion_failed",
        /// A policy's run was left out.
        PolicyRunSkipped = "policy_run_skipped",
        /// A policy's run could not start.
        PolicyRunFailed = "policy_run_failed",
        /// Somebody tries a target.
        Test = "test",
    }
}

named! {
    /// How a target is reached.
    pub enum TargetKind: "kind of notification target" {
        /// By a signed request.
        Webhook = "webhook",
        /// By mail.
        Mail = "mail",
    }
}

named! {
    /// What became of a notification.
    pub enum NotificationStatus: "notification status" {
        /// It is to be sent, for the first time or again.
        Waiting = "waiting",
        /// The target has taken it.
        Delivered = "delivered",
        /// It was given up.
        Failed = "failed",
    }
}
