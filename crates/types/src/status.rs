//! States of the public objects, and which state may follow which.

use crate::named::named;

named! {
    /// The state of a vault (`billing.status`).
    pub enum VaultStatus: "vault status" {
        /// In service.
        Available = "available",
        /// Being resized.
        Lock = "lock",
        /// Out of service for arrears.
        Frozen = "frozen",
        /// Being deleted with all its backups.
        Deleting = "deleting",
        /// Its deletion failed.
        Error = "error",
    }
}

named! {
    /// The state of a backup.
    pub enum BackupStatus: "backup status" {
        /// Queued, no byte has moved.
        WaitingProtect = "waiting_protect",
        /// Being made.
        Protecting = "protecting",
        /// Whole, durable and restorable.
        Available = "available",
        /// A restore is queued.
        WaitingRestore = "waiting_restore",
        /// Being restored from.
        Restoring = "restoring",
        /// A deletion is queued.
        WaitingDelete = "waiting_delete",
        /// Being deleted.
        Deleting = "deleting",
        /// Could not be made, or not be deleted: it can only be deleted.
        Error = "error",
    }
}

impl BackupStatus {
    /// Whether a backup in this state may go over to `next`. The deletion of a
    /// vault or a resource does not queue each backup's by itself.
    pub const fn may_become(self, next: Self) -> bool {
        use BackupStatus::{
            Available, Deleting, Error, Protecting, Restoring, WaitingDelete, WaitingProtect,
            WaitingRestore,
        };
        match self {
            WaitingProtect => matches!(next, Protecting | Error),
            Protecting => matches!(next, Available | Error),
            Available => matches!(next, WaitingRestore | WaitingDelete | Deleting),
            WaitingRestore => matches!(next, Restoring | Available),
            Restoring => matches!(next, Available),
            WaitingDelete => matches!(next, Deleting | Error),
            Deleting => matches!(next, Error),
            Error => matches!(next, WaitingDelete | Deleting),
        }
    }

    /// Whether a task is at work on the backup or queued for it.
    pub const fn is_busy(self) -> bool {
        !matches!(self, Self::Available | Self::Error)
    }
}

named! {
    /// The state of a checkpoint.
    pub enum CheckpointStatus: "checkpoint status" {
        /// Backups are being made.
        Protecting = "protecting",
        /// Every backup is available.
        Available = "available",
        /// At least one backup failed.
        Error = "error",
        /// Its backups are being deleted.
        Deleting = "deleting",
    }
}

named! {
    /// What is happening to a bound resource.
    pub enum ProtectStatus: "protect status" {
        /// Nothing.
        Available = "available",
        /// Its last backup failed.
        Error = "error",
        /// It is being backed up.
        Protecting = "protecting",
        /// It is being restored.
        Restoring = "restoring",
        /// It is being taken out of the vault.
        Removing = "removing",
    }
}

named! {
    /// What an operation log records.
    pub enum OperationType: "operation type" {
        /// A backup of one resource.
        Backup = "backup",
        /// A copy.
        Copy = "copy",
        /// A replication to another region.
        Replication = "replication",
        /// A restore.
        Restore = "restore",
        /// The deletion of a backup.
        Delete = "delete",
        /// A synchronisation of a hybrid vault.
        Sync = "sync",
        /// The deletion of a vault.
        VaultDelete = "vault_delete",
        /// The removal of resources from a vault.
        RemoveResource = "remove_resource",
    }
}

named! {
    /// The state of an operation.
    pub enum OperationStatus: "operation status" {
        /// Queued.
        Waiting = "waiting",
        /// At work.
        Running = "running",
        /// Done.
        Success = "success",
        /// Not done, because there was nothing to do.
        Skipped = "skipped",
        /// Given up, with a reason.
        Failed = "failed",
        /// Given up after too long.
        Timeout = "timeout",
    }
}

impl OperationStatus {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

named! {
    /// What a project made of a backup that is shared with it.
    pub enum MemberStatus: "member status" {
        /// Nothing yet.
        Pending = "pending",
        /// It took the backup into a vault.
        Accepted = "accepted",
        /// It turned the backup down.
        Rejected = "rejected",
    }
}

named! {
    /// How far a replica is.
    pub enum ReplicationStatus: "replication status" {
        /// Queued.
        Waiting = "waiting_replicate",
        /// Being copied.
        Replicating = "replicating",
        /// There, whole and durable.
        Success = "success",
        /// Given up, with a reason.
        Fail = "fail",
        /// Not made, because there was nothing to do.
        Skip = "skip",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for status in BackupStatus::ALL {
            assert_eq!(status.name().parse::<BackupStatus>().unwrap(), *status);
        }
        assert!("gone".parse::<BackupStatus>().is_err());
    }

    #[test]
    fn an_error_backup_can_only_be_deleted() {
        for next in BackupStatus::ALL {
            let allowed = BackupStatus::Error.may_become(*next);
            let deletion = matches!(next, BackupStatus::WaitingDelete | BackupStatus::Deleting);
            assert_eq!(allowed, deletion, "{next}");
        }
    }

    #[test]
    fn only_a_backup_that_was_being_made_becomes_available_for_the_first_time() {
        assert!(BackupStatus::Protecting.may_become(BackupStatus::Available));
        assert!(!BackupStatus::WaitingProtect.may_become(BackupStatus::Available));
        assert!(!BackupStatus::Error.may_become(BackupStatus::Available));
        assert!(!BackupStatus::Deleting.may_become(BackupStatus::Available));
    }
}
