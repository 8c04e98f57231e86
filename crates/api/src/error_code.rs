//! The error codes of CBR and the body they travel in. The server answers with
//! them, the client reads them, operation logs and skipped resources carry them.
//!
//! A code's status and message are fixed here. Messages that the service is
//! known to send are kept to the letter, because clients look for them.

mod never;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use never::{NEVER, Never};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The code, such as `BackupService.6105`.
    pub error_code: String,
    /// One sentence for people.
    pub error_msg: String,
}

impl ErrorCode {
    /// The message with `argument` in the place that the code keeps for one,
    /// or behind the message where there is no such place.
    pub fn message_with(self, argument: impl std::fmt::Display) -> String {
        let message = self.message();
        if message.contains("{}") {
            message.replacen("{}", &argument.to_string(), 1)
        } else {
            format!("{message} ({argument})")
        }
    }

    /// The body of an answer with this code.
    pub fn body(self) -> ErrorBody {
        ErrorBody {
            error_code: self.code().to_owned(),
            error_msg: self.message().replace(": {}", "").replace(" {}", ""),
        }
    }

    /// The body of an answer with this code, about `argument`.
    pub fn body_with(self, argument: impl std::fmt::Display) -> ErrorBody {
        ErrorBody {
            error_code: self.code().to_owned(),
            error_msg: self.message_with(argument),
        }
    }

    /// The code that is written this way, such as `BackupService.6105`.
    pub fn by_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.code() == code)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

macro_rules! error_codes {
    ($( $service:literal $status:literal { $( $number:literal $name:ident $message:literal; )+ } )+) => {
        /// A code that says what went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(
                #[doc = concat!("`", $service, ".", $number, "`, ", stringify!($status), ": ", $message)]
                $name,
            )+)+
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$($( Self::$name, )+)+];

            /// The code as it is written, such as `BackupService.6105`.
            pub const fn code(self) -> &'static str {
                match self { $($( Self::$name => concat!($service, ".", $number), )+)+ }
            }

            /// The status that an answer with this code has.
            pub const fn status(self) -> u16 {
                match self { $($( Self::$name => $status, )+)+ }
            }

            /// One sentence for people; `{}` stands where an argument goes.
            pub const fn message(self) -> &'static str {
                match self { $($( Self::$name => $message, )+)+ }
            }
        }
    };
}

// Source: the error code tables of the Open Telekom Cloud and vendor
// documentation, and the codes that the vendor's OpenAPI definitions declare
// for each operation. Where two sources give one code different statuses, the
// one that clients act on is kept: a missing thing is 404, a refusal 400.
error_codes! {
    "BackupService" 400 {
        "0001" NothingToDo "No resource is left to work on: all were skipped or are busy.";
        "1001" VaultBackupRunning "A backup of the vault is already running.";
        "1002" ImageTypeNotReplicable "Only backups of the types backup and sync can be replicated.";
        "1003" NotAServerBackup "The backup is not a server's and cannot be replicated.";
        "1005" RegionNotReplicable "The destination region takes no replicas.";
        "1009" AlreadyReplicated "The backup is being replicated or was replicated to that region.";
        "1011" ProjectNotReplicable "The destination project takes no replicas.";
        "1012" ReplicaLimit "The limit of replicas is reached.";

        "2001" TargetTooSmall "The target disk {} is smaller than the backup.";
        "2002" RestoreBlockedByBackup "Resource {} is being backed up; restore it later.";
        "2003" RestoreToOther "A backup can only be restored to the resource it was made of.";
        "2005" BackupStateForbidsRestore "The state of backup {} does not allow a restore.";
        "2006" RestoreToBareMetal "A server's backup cannot be restored to bare metal.";
        "2007" RestoreServerGone "Server {} is terminated and cannot be restored to.";
        "2008" ServerStateForbidsRestore "The state of server {} does not allow a restore.";
        "2009" DiskTypeForbidsRestore "The type of disk {} does not allow a restore.";
        "2010" ResourceRestoring "Resource {} is restoring.";
        "2011" DiskStateForbidsRestore "The state of disk {} does not allow a restore.";
        "2012" DisksNotRestorable "Some of the disks named cannot be restored: {}.";
        "2013" DataToSystemDisk "The backup of a data disk cannot be restored to a system disk.";
        "2014" BareMetalToServer "A bare-metal backup cannot be restored to a virtual machine.";
        "2015" ArchitectureDiffers "The backup's processor architecture differs from the target's.";

        "6001" PolicyLimit "The limit of policies of this type is reached.";
        "6003" PolicyRegionFixed "The destination region cannot change while a vault replicates by the policy.";
        "6100" ResourceLimit "Resources of vault over limit: {}.";
        "6101" VaultSizeInvalid "Size of vault invalid";
        "6102" ResourceTypeMismatch "Resource not match vault resource type.";
        "6103" ResourceInOtherVault "Resource already in other vault.";
        "6104" DuplicateResource "Duplicate resource.";
        "6106" DuplicateVault "Duplicate vault.";
        "6107" VaultResourceSize "Vault resource size illegal.";
        "6108" VaultTakesNoResource "The {} vault can not add resource";
        "6109" OrderMissing "There is no such order.";
        "6110" VaultImmutable "The vault cannot be changed that way: {}";
        "6111" VaultUndeletable "The vault is paid in advance and cannot be deleted.";
        "6112" VaultStateWrong "The state of the vault does not allow this.";
        "6113" VaultStateForbidsBackup "The state of the vault does not allow a backup.";
        "6114" VaultFull "The vault is full: used capacity exceeds its size.";
        "6115" RemoveBackupsFailed "Backups of the resource could not be removed.";
        "6116" ResourceTypeUnsupported "Resource type {} is not supported.";
        "6117" PolicyTypeUnknown "Unknown policy type {}.";
        "6118" DestinationVaultCheck "The destination vault did not pass its check.";
        "6119" DestinationVaultKind "The destination vault is not a replication vault.";
        "6120" DestinationVaultMissing "There is no such destination vault.";
        "6121" VaultDeletionFailed "The vault could not be deleted.";
        "6122" ResourceNotReplicable "Resources of this type cannot be replicated.";
        "6123" ExpansionBlocked "An order or an expansion of the vault is under way.";
        "6124" VaultTypeForbidsBackup "A vault of this type makes no backups.";
        "6125" BackupTaskRunning "A backup task is already running.";
        "6126" DatabaseBackupForbidden "The vault makes no application-consistent backups.";
        "6127" PolicyTypeNotApplicable "A policy of this type does not apply to the vault.";
        "6128" VaultTypeForbidsReplication "A vault of this type does not replicate.";
        "6129" DestinationVaultFull "The destination vault is full.";
        "6130" VaultReplicating "The vault is replicating.";
        "6131" TrafficRecordMissing "There is no such traffic record.";
        "6133" VaultLimit "The limit of vaults is reached.";
        "6134" ResourceRemoving "Resource is removing, resources: {}.";
        "6135" ResourceNotInVault "Resources {} does not exist in vault.";
        "6136" HybridVaultPolicy "A backup policy cannot be bound to a hybrid vault.";
        "6137" DiskInSeveralVaults "Disk {} would be protected by several vaults.";
        "6140" EncryptedSystemDisk "An encrypted disk cannot be named as system disk.";
        "6141" ScsiSystemDisk "A SCSI disk cannot be named as system disk.";
        "6142" AllVaultsAtLimit "Every vault has reached its largest size.";

        "6201" BackupUndeletable "Backup {} cannot be deleted.";
        "6202" RestoreNeedsVault "A restore needs an available vault.";
        "6203" BackupRunning "Backup {} is being worked on.";
        "6204" BackupHasImage "An image was made from the backup; delete the image first.";
        "6205" ResourceInLegacyService "The resource has backups in an older backup service.";
        "6206" MetadataUnreadable "The state of the backup does not allow its metadata to be read.";
        "6215" ResourceStateForbidsBackup "The state of resource {} does not allow a backup.";
        "6216" BackupInUse "Backup {} is in use.";
        "6220" BackupLocked "The vault is locked: an automatic backup is kept until it expires.";

        "6300" ProviderMismatch "The resource type does not belong to the provider.";
        "6301" ProviderInvalid "Unknown provider {}.";
        "6400" BucketCreate "The bucket could not be created.";
        "6401" BucketQuota "The bucket's quota could not be set.";
        "6403" BucketUsage "The bucket's usage could not be read.";
        "6404" BucketDelete "The bucket could not be deleted.";
        "6405" ObjectDelete "The object could not be deleted.";
        "6406" ObjectList "The objects could not be listed.";
        "6407" BucketAcl "The bucket's access list could not be set.";
        "6408" BucketPolicy "The bucket's policy could not be set.";

        "6600" TagLimit "A vault can have at most {} tags.";
        "6700" ShareServerOnly "Only backups of servers can be shared.";
        "6701" ShareMemberLimit "The limit of members is reached.";
        "6702" ShareNotAvailable "Only available backups can be shared.";
        "6703" AlreadyShared "The backup is already shared with member {}.";
        "6704" MemberInvalid "Invalid member {}.";
        "6706" MemberUpdateInvalid "The member cannot be changed to that.";
        "6707" ShareForbidden "The backup may not be shared.";
        "6708" MemberUpdateFailed "The member could not be changed.";
        "6709" ShareEncrypted "Servers with encrypted disks cannot be shared.";
        "6710" ShareUsedForImage "The shared backup was used for an image.";
        "6711" ShareDeletionFailed "The shared backup could not be deleted.";
        "6712" ShareVaultState "The state of the vault does not allow sharing.";
        "6713" ShareVaultType "The accepting vault is of another type than the backup.";
        "6714" ShareAgain "A shared backup cannot be shared on.";

        "7001" DiskDess "Disks of dedicated enterprise storage are not supported.";
        "7002" DiskScsi "SCSI disks are not supported.";
        "7003" DiskStateForbidsBackup "The state of disk {} does not allow a backup.";
        "7004" DiskForbidden "Disk {} may be neither backed up nor restored.";
        "7006" DiskInVault "Disk {} is already in the vault.";
        "7007" DiskTooOld "Disk {} is of a generation that cannot be backed up.";
        "7008" DiskOfRecoverySite "Disk {} belongs to a recovery site and cannot be restored.";
        "7101" ServerStateForbidsBackup "The state of server {} does not allow a backup.";
        "7102" ServerStopped "Server {} is terminated or stopped.";
        "7103" ServerUnsupported "Server {} cannot be backed up.";
        "7104" ServerHasScsi "Server {} has SCSI disks.";
        "7105" DisksOnBackends "The server's disks lie on different back ends.";
        "7106" SharedDiskUnsupported "Shared disks are not supported.";
        "7107" SharedDiskLimit "The server has too many shared disks.";
        "7108" ServerWithoutDisk "Server {} has no disk.";
        "7109" BareMetalUnsupported "Bare-metal servers are not supported.";
        "7110" ServerProviderMismatch "The resource type does not belong to that provider id.";
        "7111" ServerHasDess "The server has disks of dedicated enterprise storage.";
        "7113" BareMetalLocalDisk "Local disks of bare-metal servers are not supported.";
        "7114" SystemDiffers "The operating system differs from the source server's.";
        "7115" ServerTypesDiffer "The types of the source and the target server differ.";
        "7116" ServerInVault "Server {} is already in the vault.";
        "7117" ServerOfRecoverySite "Server {} belongs to a recovery site and cannot be restored.";
        "7200" DatabaseBackupRunning "A database backup is running.";
        "7201" DiskNotAttached "Disk {} is attached to no server.";
        "7203" SnapshotState "The snapshot is in the wrong state.";
        "7204" SnapshotMismatch "The snapshot is not of that disk.";
        "7300" SyncUnsupported "The vault does not support synchronisation.";
        "7301" VaultNotEmpty "The vault is not empty.";
        "7302" SyncRunning "A synchronisation of the vault is running.";
        "7303" HybridVaultLimit "The limit of hybrid vaults is reached.";
        "7403" AgentInvalid "Invalid agent {}";
        "7407" AgentPathLimit "Agent {} path count is exceeded.";
        "8300" SnapshotQuota "The quota of snapshots is exhausted.";
        "9900" InvalidRequest "Invalid {} provided.";
    }
    "BackupService" 403 {
        "8600" NotVerified "The account is not verified.";
    }
    "BackupService" 404 {
        "4001" MigrationMissing "Migration record does not exist.";
        "6000" PolicyNotFound "Policy does not exist.";
        "6002" PolicyNotBound "The policy is not bound to the vault.";
        "6105" VaultNotFound "Vault Not Found";
        "6200" BackupNotFound "Backup does not exist.";
        "6217" CheckpointNotFound "Checkpoint does not exist.";
        "6302" ResourceNotFound "Resource {} does not exist.";
        "6402" BucketNotEmpty "The bucket is not empty.";
        "6500" OperationLogNotFound "Operation log does not exist.";
        "6501" TaskNotFound "Task does not exist.";
        "6601" TagNotFound "Tag {} does not exist.";
        "6705" MemberNotFound "Member does not exist.";
        "7000" DiskNotFound "Disk {} does not exist.";
        "7100" ServerNotFound "Server {} does not exist.";
        "7202" SnapshotNotFound "Snapshot does not exist.";
        "7410" AgentNotFound "Agent {} not found.";
    }
    "BackupService" 500 {
        "0002" ResourcesBusy "The resources are being backed up.";
        "1006" ReplicaImportFailed "The replica could not be imported.";
        "4004" MigrationCleanup "The migrated data could not be cleaned up.";
        "4005" MigrationVaultCheck "The destination vault did not pass the migration's check.";
        "4006" MigrationBackupState "A backup in a passing state cannot be migrated.";
        "4007" MigrationProgress "The progress in other regions could not be read.";
        "6132" VaultCreationFailed "The vault could not be created.";
        "6138" BillingLanguage "The billing language could not be read.";
        "6139" AccountType "The type of the account could not be read.";
        "6207" BackupKindForbidsImage "A backup of this kind cannot become an image.";
        "6208" BackupStateForbidsImage "The state of the backup does not allow an image to be made.";
        "6209" ImageNeedsSystemDisk "The backup holds no system disk, an image needs one.";
        "6210" ImageExists "An image was already made from the backup.";
        "6211" ImageCreated "The backup already has an image.";
        "6212" ImageCreationFailed "The image could not be made.";
        "6213" ImageMismatch "The image was not made from that backup.";
        "6214" ImageDeregistration "The image could not be deregistered.";
        "7009" DiskLazyLoading "A backup of the deleted disk is still being loaded.";
        "8400" BillingProduct "The billing product could not be read.";
        "9910" Unknown "Unknown error";
        "9998" AuthenticationFailed "Authentication failed";
    }
    // Cairn's own, for operations that CBR does not have.
    "Cairn" 400 {
        "0001" NotificationTargetLimit "The limit of notification targets is reached.";
        "0004" ExportLimit "The limit of exports is reached.";
        "0005" NotADiskBackup "It is not the backup of one disk.";
        "0008" UnreadableFile "The file cannot be read: {}";
        "0011" AgentTokenLimit "The limit of tokens that no agent has used is reached.";
    }
    "Cairn" 404 {
        "0002" NotificationTargetNotFound "Notification target does not exist.";
        "0003" NotificationNotFound "Notification does not exist.";
        "0006" ExportNotFound "Export does not exist.";
        "0007" FileNotFound "File does not exist.";
    }
    "Cairn" 401 {
        "0010" AgentTokenUnknown "The token was used, has ended, or never was.";
    }
    "Cairn" 409 {
        "0012" AgentIdTaken "The id is that of something else.";
        "0013" AgentElsewhere "Another agent with this identity was connected a moment ago.";
    }
    // What a gateway before the service answers on its behalf.
    "APIGW" 401 {
        "0301" BadCredentials "Incorrect IAM authentication information: {}";
    }
    "APIGW" 403 {
        "0302" NotAuthorized "The user is not authorized to access the API.";
    }
    "APIGW" 404 {
        "0101" NoSuchApi "The API does not exist.";
    }
    "APIGW" 409 {
        "0309" OutcomeUnknown "The request was begun before and its outcome is not known: look before you ask again.";
    }
    "APIGW" 413 {
        "0201" BodyTooLarge "Request entity too large.";
    }
    "APIGW" 429 {
        "0308" Throttled "The throttling threshold has been reached.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_written_once_and_reads_back() {
        let codes: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::by_code(code.code()), Some(*code));
            assert!(code.message().matches("{}").count() <= 1, "{code}");
            assert!((400..=500).contains(&code.status()), "{code}");
        }
    }

    #[test]
    fn messages_take_their_argument() {
        let body = ErrorCode::InvalidRequest.body_with("vault_id");
        assert_eq!(body.error_code, "BackupService.9900");
        assert_eq!(body.error_msg, "Invalid vault_id provided.");
        assert_eq!(
            ErrorCode::ResourceRestoring.body_with("a").error_msg,
            "Resource a is restoring."
        );
        assert_eq!(
            ErrorCode::DuplicateVault.body_with("web").error_msg,
            "Duplicate vault. (web)"
        );
    }

    #[test]
    fn a_message_without_its_argument_leaves_no_hole() {
        for code in ErrorCode::ALL {
            assert!(!code.body().error_msg.contains("{}"), "{code}");
        }
        assert_eq!(
            ErrorCode::TagNotFound.body().error_msg,
            "Tag does not exist."
        );
    }

    #[test]
    fn what_clients_take_for_gone_is_a_404() {
        for code in [
            ErrorCode::VaultNotFound,
            ErrorCode::BackupNotFound,
            ErrorCode::CheckpointNotFound,
            ErrorCode::PolicyNotFound,
            ErrorCode::AgentNotFound,
        ] {
            assert_eq!(code.status(), 404, "{code}");
        }
    }
}
