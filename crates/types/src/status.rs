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

impl VaultStatus {
    /// The state that every vault begins in.
    pub const FIRST: Self = Self::Available;

    /// Whether resources may be bound to the vault, backed up and restored:
    /// a resize does not stand in their way.
    pub const fn is_in_service(self) -> bool {
        matches!(self, Self::Available | Self::Lock)
    }
}

/// A legal change of a vault's state: the catalogue writes no other. A resize
/// is over within one transaction and nothing is sold that could be in arrears,
/// so no step leads to `lock` or `frozen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VaultStep {
    /// Its deletion was asked for.
    StartDelete,
    /// Its deletion was given up.
    FailDelete,
    /// Somebody had its deletion ended.
    CancelDelete,
}

impl VaultStep {
    /// Every step.
    pub const ALL: &'static [Self] = &[Self::StartDelete, Self::FailDelete, Self::CancelDelete];

    /// The states that the step leads away from.
    pub const fn from(self) -> &'static [VaultStatus] {
        match self {
            Self::StartDelete => &[VaultStatus::Available, VaultStatus::Error],
            Self::FailDelete => &[VaultStatus::Deleting, VaultStatus::Error],
            Self::CancelDelete => &[VaultStatus::Deleting, VaultStatus::Available],
        }
    }

    /// The state that the step leads to.
    pub const fn to(self) -> VaultStatus {
        match self {
            Self::StartDelete => VaultStatus::Deleting,
            Self::FailDelete => VaultStatus::Error,
            Self::CancelDelete => VaultStatus::Available,
        }
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
    /// The state that every backup begins in.
    pub const FIRST: Self = Self::WaitingProtect;

    /// Whether a task is at work on the backup or queued for it.
    pub const fn is_busy(self) -> bool {
        !matches!(self, Self::Available | Self::Error)
    }
}

/// A legal change of a backup's state: the catalogue writes no other.
///
/// Steps that a request takes lead away from rest alone. Those that a task
/// takes lead to where they led before as well, because work may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupStep {
    /// Work on it begins.
    StartProtect,
    /// It is whole and durable.
    FinishProtect,
    /// It could not be made.
    FailProtect,
    /// A restore was asked for.
    QueueRestore,
    /// The restore begins.
    StartRestore,
    /// The restore is over, whatever became of the disks.
    EndRestore,
    /// Its deletion was asked for.
    QueueDelete,
    /// The deletion begins; a vault's or a resource's does not queue each backup's.
    StartDelete,
    /// The deletion was given up.
    FailDelete,
    /// Somebody had the deletion ended before any of the backup was gone.
    CancelDelete,
}

impl BackupStep {
    /// Every step.
    pub const ALL: &'static [Self] = &[
        Self::StartProtect,
        Self::FinishProtect,
        Self::FailProtect,
        Self::QueueRestore,
        Self::StartRestore,
        Self::EndRestore,
        Self::QueueDelete,
        Self::StartDelete,
        Self::FailDelete,
        Self::CancelDelete,
    ];

    /// The states that the step leads away from.
    pub const fn from(self) -> &'static [BackupStatus] {
        use BackupStatus::{
            Available, Deleting, Error, Protecting, Restoring, WaitingDelete, WaitingProtect,
            WaitingRestore,
        };
        match self {
            Self::StartProtect => &[WaitingProtect, Protecting],
            Self::FinishProtect => &[Protecting, Available],
            Self::FailProtect => &[WaitingProtect, Protecting, Error],
            Self::QueueRestore => &[Available],
            Self::StartRestore => &[WaitingRestore, Restoring],
            Self::EndRestore => &[WaitingRestore, Restoring, Available],
            Self::QueueDelete => &[Available, Error],
            Self::StartDelete => &[Available, Error, WaitingDelete, Deleting],
            Self::FailDelete => &[WaitingDelete, Deleting, Error],
            Self::CancelDelete => &[WaitingDelete, Deleting, Available],
        }
    }

    /// The state that the step leads to.
    pub const fn to(self) -> BackupStatus {
        match self {
            Self::StartProtect => BackupStatus::Protecting,
            Self::FinishProtect | Self::EndRestore | Self::CancelDelete => BackupStatus::Available,
            Self::FailProtect | Self::FailDelete => BackupStatus::Error,
            Self::QueueRestore => BackupStatus::WaitingRestore,
            Self::StartRestore => BackupStatus::Restoring,
            Self::QueueDelete => BackupStatus::WaitingDelete,
            Self::StartDelete => BackupStatus::Deleting,
        }
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
        /// The move of resources to another vault.
        MigrateResource = "migrate_resource",
        /// The change of the day on which a vault's backups end.
        UpdateExpirationTime = "update_expiration_time",
        /// A look at whether backups could be restored; Cairn's own.
        Verify = "verify",
    }
}

named! {
    /// How closely a verification looks.
    pub enum VerifyLevel: "verification level" {
        /// Whether everything is there and as it was written.
        Quick = "quick",
        /// Also whether it opens, and holds what it should.
        Full = "full",
    }
}

named! {
    /// What is known of whether a backup could be restored.
    pub enum VerificationStatus: "verification status" {
        /// It was not looked at since it was made.
        Unverified = "unverified",
        /// All of it is there.
        Whole = "whole",
        /// A part of it is lost.
        Hurt = "hurt",
        /// The store could not be asked.
        Unchecked = "unchecked",
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

    /// Whether some step leads from one state to another one.
    fn leads(from: BackupStatus, to: BackupStatus) -> bool {
        let mut steps = BackupStep::ALL.iter();
        steps.any(|step| step.to() == to && step.from().contains(&from))
    }

    #[test]
    fn an_error_backup_can_only_be_deleted() {
        for to in BackupStatus::ALL {
            let deletion = matches!(to, BackupStatus::WaitingDelete | BackupStatus::Deleting);
            let stays = *to == BackupStatus::Error;
            assert_eq!(leads(BackupStatus::Error, *to), deletion || stays, "{to}");
        }
    }

    #[test]
    fn only_a_backup_that_was_being_made_becomes_available_for_the_first_time() {
        for from in BackupStatus::ALL {
            let may = BackupStep::FinishProtect.from().contains(from);
            let was_made = matches!(from, BackupStatus::Protecting | BackupStatus::Available);
            assert_eq!(may, was_made, "{from}");
        }
        for never in [BackupStatus::WaitingProtect, BackupStatus::Error] {
            assert!(!leads(never, BackupStatus::Available), "{never}");
        }
    }

    #[test]
    fn a_deletion_leads_back_only_where_it_is_cancelled() {
        for from in [BackupStatus::WaitingDelete, BackupStatus::Deleting] {
            let back = BackupStep::ALL
                .iter()
                .filter(|step| step.to() == BackupStatus::Available && step.from().contains(&from));
            assert!(back.eq([&BackupStep::CancelDelete]), "{from}");
        }
    }

    #[test]
    fn every_state_of_a_backup_is_reached_and_left() {
        for status in BackupStatus::ALL {
            let reached = *status == BackupStatus::FIRST
                || BackupStep::ALL.iter().any(|step| step.to() == *status);
            let mut others = BackupStatus::ALL.iter().filter(|other| *other != status);
            let left = others.any(|other| leads(*status, *other));
            assert!(reached && left, "{status}");
        }
    }

    #[test]
    fn a_vault_is_deleted_from_rest_alone() {
        for from in VaultStatus::ALL {
            let at_rest = matches!(from, VaultStatus::Available | VaultStatus::Error);
            assert_eq!(
                VaultStep::StartDelete.from().contains(from),
                at_rest,
                "{from}"
            );
        }
    }
}
