//! The codes of CBR that Cairn never answers, and why not. Every other one is
//! answered by some test; a test of the server holds the two together.

use super::ErrorCode;

/// There is nothing here that a code could be about.
pub struct Never {
    /// Why.
    pub reason: &'static str,
    /// The codes.
    pub codes: &'static [ErrorCode],
}

/// Every code that is never answered.
pub const NEVER: &[Never] = &[
    Never {
        reason: "a vault's resources are backed up one by one; one that is busy is skipped with its own \
                 code, and a checkpoint with nothing left is refused with 0001",
        codes: &[ErrorCode::VaultBackupRunning, ErrorCode::ResourcesBusy],
    },
    Never {
        reason: "a backup may have as many replicas as there are vaults to hold them, one in each region",
        codes: &[ErrorCode::ReplicaLimit],
    },
    Never {
        reason: "servers and disks are images at rest: they have no power state, no hypervisor, no \
                 operating system that Cairn looks at, no snapshots and no storage back ends",
        codes: &[
            ErrorCode::RestoreServerGone,
            ErrorCode::DiskTypeForbidsRestore,
            ErrorCode::ArchitectureDiffers,
            ErrorCode::EncryptedSystemDisk,
            ErrorCode::ScsiSystemDisk,
            ErrorCode::DiskDess,
            ErrorCode::DiskScsi,
            ErrorCode::DiskForbidden,
            ErrorCode::DiskTooOld,
            ErrorCode::DiskLazyLoading,
            ErrorCode::ServerStopped,
            ErrorCode::ServerUnsupported,
            ErrorCode::ServerHasScsi,
            ErrorCode::ServerHasDess,
            ErrorCode::DisksOnBackends,
            ErrorCode::SharedDiskUnsupported,
            ErrorCode::SharedDiskLimit,
            ErrorCode::SystemDiffers,
            ErrorCode::ServerTypesDiffer,
            ErrorCode::DiskNotAttached,
            ErrorCode::SnapshotState,
            ErrorCode::SnapshotMismatch,
            ErrorCode::SnapshotNotFound,
            ErrorCode::SnapshotQuota,
            ErrorCode::ShareEncrypted,
        ],
    },
    Never {
        reason: "there is no bare metal to protect",
        codes: &[
            ErrorCode::RestoreToBareMetal,
            ErrorCode::BareMetalToServer,
            ErrorCode::BareMetalUnsupported,
            ErrorCode::BareMetalLocalDisk,
        ],
    },
    Never {
        reason: "vaults may share a name",
        codes: &[ErrorCode::DuplicateVault],
    },
    Never {
        reason: "the code of its type is answered: 7003 for a disk, 7101 for a server",
        codes: &[ErrorCode::ResourceStateForbidsBackup],
    },
    Never {
        reason: "a resource that is not there is 6302, whatever its type",
        codes: &[ErrorCode::DiskNotFound],
    },
    Never {
        reason: "a hybrid vault is synchronised whatever it holds, and there may be as many as of any other (6133)",
        codes: &[ErrorCode::VaultNotEmpty, ErrorCode::HybridVaultLimit],
    },
    Never {
        reason: "there are no sites for disaster recovery",
        codes: &[
            ErrorCode::DiskOfRecoverySite,
            ErrorCode::ServerOfRecoverySite,
        ],
    },
    Never {
        reason: "no image is ever made of a backup",
        codes: &[
            ErrorCode::BackupHasImage,
            ErrorCode::BackupKindForbidsImage,
            ErrorCode::BackupStateForbidsImage,
            ErrorCode::ImageNeedsSystemDisk,
            ErrorCode::ImageExists,
            ErrorCode::ImageCreated,
            ErrorCode::ImageCreationFailed,
            ErrorCode::ImageMismatch,
            ErrorCode::ImageDeregistration,
            ErrorCode::ShareUsedForImage,
        ],
    },
    Never {
        reason: "bytes lie in Cairn's own repository, never in a bucket that it manages",
        codes: &[
            ErrorCode::BucketCreate,
            ErrorCode::BucketQuota,
            ErrorCode::BucketUsage,
            ErrorCode::BucketDelete,
            ErrorCode::BucketNotEmpty,
            ErrorCode::ObjectDelete,
            ErrorCode::BucketAcl,
            ErrorCode::BucketPolicy,
        ],
    },
    Never {
        reason: "nothing is sold: orders settle at once, and there is no billing service to ask",
        codes: &[
            ErrorCode::ExpansionBlocked,
            ErrorCode::TrafficRecordMissing,
            ErrorCode::AllVaultsAtLimit,
            ErrorCode::BillingLanguage,
            ErrorCode::AccountType,
            ErrorCode::BillingProduct,
            ErrorCode::NotVerified,
        ],
    },
    Never {
        reason: "there is no older backup service to come from; a migration is over when it is asked for",
        codes: &[
            ErrorCode::ResourceInLegacyService,
            ErrorCode::MigrationCleanup,
            ErrorCode::MigrationVaultCheck,
            ErrorCode::MigrationBackupState,
            ErrorCode::MigrationProgress,
        ],
    },
    Never {
        reason: "databases are not backed up as such",
        codes: &[
            ErrorCode::DatabaseBackupForbidden,
            ErrorCode::DatabaseBackupRunning,
        ],
    },
    Never {
        reason: "a request names no provider; the type of a resource or of a protectable is checked when it \
                 is read, and an unknown one is 9900",
        codes: &[
            ErrorCode::ProviderMismatch,
            ErrorCode::ProviderInvalid,
            ErrorCode::ServerProviderMismatch,
            ErrorCode::ResourceTypeUnsupported,
        ],
    },
    Never {
        reason: "to make a vault, to change a member and to end a sharing are one step each: it is done, or \
                 refused with the code of what speaks against it",
        codes: &[
            ErrorCode::VaultCreationFailed,
            ErrorCode::ShareDeletionFailed,
            ErrorCode::MemberUpdateFailed,
        ],
    },
    Never {
        reason: "no operation asks about a task other than by its operation log (6500)",
        codes: &[ErrorCode::TaskNotFound],
    },
    Never {
        reason: "who cannot prove who they are gets the gateway's 401, as from the real service",
        codes: &[ErrorCode::AuthenticationFailed],
    },
];
