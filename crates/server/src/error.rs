//! Failures as answers: the one table from what the service refuses to the
//! codes of the contract.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cairn_api::{ErrorBody, ErrorCode, Invalid};
use cairn_core::records::SkipReason;
use cairn_core::{Error, Refusal};
use cairn_types::{Kind, ResourceType};

/// What a handler gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u16,
    body: ErrorBody,
}

impl Failure {
    /// The plain answer with a code.
    pub(crate) fn code(code: ErrorCode) -> Self {
        Self {
            status: code.status(),
            body: code.body(),
        }
    }

    /// The answer with a code and what it is about.
    pub(crate) fn code_with(code: ErrorCode, about: impl std::fmt::Display) -> Self {
        Self {
            status: code.status(),
            body: code.body_with(about),
        }
    }

    /// The answer to a value that cannot be.
    pub(crate) fn invalid(key: &str) -> Self {
        Invalid::key(key).into()
    }

    /// The answer to a request whose body did not arrive.
    pub(crate) fn late() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT.as_u16(),
            ..Self::invalid("body")
        }
    }

    /// The answer while the server cannot do what it is asked.
    pub(crate) fn unavailable(message: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            ..Self::message(ErrorCode::Unknown, message.to_owned())
        }
    }

    fn message(code: ErrorCode, message: String) -> Self {
        let body = ErrorBody {
            error_code: code.code().to_owned(),
            error_msg: message,
        };
        Self {
            status: code.status(),
            body,
        }
    }

    /// As an answer of the identity service: OpenStack's clients look for
    /// `error`, CBR's for `error_code`, so it has both.
    pub(crate) fn into_identity_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let title = status.canonical_reason().unwrap_or("Error");
        let body = serde_json::json!({
            "error": { "code": self.status, "message": self.body.error_msg, "title": title },
            "error_code": self.body.error_code,
            "error_msg": self.body.error_msg,
        });
        (status, Json(body)).into_response()
    }
}

/// The code of a failure, kept beside its response for the audit trail.
#[derive(Debug, Clone)]
pub(crate) struct RefusedWith(pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = RefusedWith(self.body.error_code.clone());
        (status, Extension(code), Json(self.body)).into_response()
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self {
            status: ErrorCode::InvalidRequest.status(),
            body: invalid.body(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = code_of(&refusal);
        match refusal {
            Refusal::RegionUnreachable { .. } | Refusal::DownloadNotReady => {
                Self::unavailable(&refusal.to_string())
            }
            _ => Self::message(code, refusal.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Error::Refused(refusal) = error {
            return refusal.into();
        }
        tracing::error!(
            error = &error as &(dyn std::error::Error + 'static),
            "a request could not be served"
        );
        match error.kind() {
            Kind::Exhausted => {
                Self::unavailable("The server's storage is full; nothing was changed.")
            }
            Kind::Transient => Self::unavailable("The server cannot answer now; try again."),
            _ => Self::code(ErrorCode::Unknown),
        }
    }
}

/// The code of each refusal; the text is the refusal's own.
fn code_of(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::NotAuthenticated => ErrorCode::BadCredentials,
        Refusal::NotAllowed => ErrorCode::NotAuthorized,
        Refusal::Invalid(_) => ErrorCode::InvalidRequest,
        Refusal::VaultNotFound => ErrorCode::VaultNotFound,
        Refusal::BackupNotFound => ErrorCode::BackupNotFound,
        Refusal::CheckpointNotFound => ErrorCode::CheckpointNotFound,
        Refusal::OperationLogNotFound => ErrorCode::OperationLogNotFound,
        Refusal::ResourceNotFound { .. } => ErrorCode::ResourceNotFound,
        Refusal::ResourceTypeMismatch => ErrorCode::ResourceTypeMismatch,
        Refusal::ResourceInOtherVault => ErrorCode::ResourceInOtherVault,
        Refusal::ResourceInVault {
            resource_type: ResourceType::Server,
            ..
        } => ErrorCode::ServerInVault,
        Refusal::ResourceInVault { .. } => ErrorCode::DiskInVault,
        Refusal::DuplicateResource => ErrorCode::DuplicateResource,
        Refusal::TooManyResources { .. } => ErrorCode::ResourceLimit,
        Refusal::TooManyVaults => ErrorCode::VaultLimit,
        Refusal::VaultTooSmall => ErrorCode::VaultSizeInvalid,
        Refusal::ResourcesTooLarge => ErrorCode::VaultResourceSize,
        Refusal::VaultTakesNoResources { .. } => ErrorCode::VaultTakesNoResource,
        Refusal::NoVolumeLeft { .. } => ErrorCode::ServerWithoutDisk,
        Refusal::ResourceNotInVault { .. } => ErrorCode::ResourceNotInVault,
        Refusal::ResourceRemoving { .. } => ErrorCode::ResourceRemoving,
        Refusal::VaultState { .. } => ErrorCode::VaultStateWrong,
        Refusal::VaultStateForbidsBackup { .. } => ErrorCode::VaultStateForbidsBackup,
        Refusal::VaultPaid => ErrorCode::VaultUndeletable,
        Refusal::PaidInAdvance | Refusal::NotByUse { .. } => ErrorCode::VaultImmutable,
        Refusal::OrderNotFound => ErrorCode::OrderMissing,
        Refusal::DestinationNotFound => ErrorCode::DestinationVaultMissing,
        Refusal::DestinationFull => ErrorCode::DestinationVaultFull,
        Refusal::MetadataUnreadable { .. } => ErrorCode::MetadataUnreadable,
        Refusal::ProjectNotFound => ErrorCode::ResourceNotFound,
        Refusal::MigrationNotFound => ErrorCode::MigrationMissing,
        Refusal::VaultFull => ErrorCode::VaultFull,
        Refusal::VaultMakesNoBackups => ErrorCode::VaultTypeForbidsBackup,
        Refusal::CannotUnlock | Refusal::VaultLocked => ErrorCode::VaultImmutable,
        Refusal::NothingToBackUp => ErrorCode::NothingToDo,
        Refusal::DiskInSeveralVaults { .. } => ErrorCode::DiskInSeveralVaults,
        Refusal::RestoreNeedsVault { .. } => ErrorCode::RestoreNeedsVault,
        Refusal::BackupBusy { .. } => ErrorCode::BackupRunning,
        Refusal::BackupIsChild { .. } => ErrorCode::BackupUndeletable,
        Refusal::BackupLocked => ErrorCode::BackupLocked,
        Refusal::BackupStateForbidsRestore { .. } | Refusal::ShareNotAccepted { .. } => {
            ErrorCode::BackupStateForbidsRestore
        }
        Refusal::ResourceBackingUp { .. } => ErrorCode::RestoreBlockedByBackup,
        Refusal::ResourceRestoring { .. } => ErrorCode::ResourceRestoring,
        Refusal::RestoreElsewhere => ErrorCode::RestoreToOther,
        Refusal::TargetTooSmall { .. } => ErrorCode::TargetTooSmall,
        Refusal::UnknownMapping => ErrorCode::DisksNotRestorable,
        Refusal::DataOntoSystemDisk => ErrorCode::DataToSystemDisk,
        Refusal::NotProtectable {
            resource_type: ResourceType::Server,
            ..
        } => ErrorCode::ServerStateForbidsBackup,
        Refusal::NotProtectable { .. } => ErrorCode::DiskStateForbidsBackup,
        Refusal::ServerState { .. } => ErrorCode::ServerStateForbidsRestore,
        Refusal::DiskState { .. } => ErrorCode::DiskStateForbidsRestore,
        Refusal::PolicyNotFound => ErrorCode::PolicyNotFound,
        Refusal::PolicyNotBound => ErrorCode::PolicyNotBound,
        Refusal::PolicyLimit { .. } => ErrorCode::PolicyLimit,
        Refusal::PolicyRegionFixed => ErrorCode::PolicyRegionFixed,
        Refusal::PolicyNotApplicable => ErrorCode::PolicyTypeNotApplicable,
        Refusal::HybridVaultPolicy => ErrorCode::HybridVaultPolicy,
        Refusal::DestinationVaultUnfit => ErrorCode::DestinationVaultCheck,
        Refusal::DestinationVaultType => ErrorCode::DestinationVaultKind,
        Refusal::DestinationVaultNotFound => ErrorCode::DestinationVaultMissing,
        Refusal::TagLimit { .. } => ErrorCode::TagLimit,
        Refusal::TagNotFound { .. } => ErrorCode::TagNotFound,
        Refusal::AgentNotFound { .. } => ErrorCode::AgentNotFound,
        Refusal::TooManyAgentPaths { .. } => ErrorCode::AgentPathLimit,
        Refusal::NoAgentPath { .. } => ErrorCode::AgentInvalid,
        Refusal::TooManyAgentTokens => ErrorCode::AgentTokenLimit,
        Refusal::AgentTokenUnknown => ErrorCode::AgentTokenUnknown,
        Refusal::AgentIdTaken { .. } => ErrorCode::AgentIdTaken,
        Refusal::AgentElsewhere { .. } => ErrorCode::AgentElsewhere,
        Refusal::TargetNotFound => ErrorCode::NotificationTargetNotFound,
        Refusal::NotificationNotFound => ErrorCode::NotificationNotFound,
        Refusal::TooManyTargets { .. } => ErrorCode::NotificationTargetLimit,
        Refusal::ExportNotFound => ErrorCode::ExportNotFound,
        Refusal::FileNotFound => ErrorCode::FileNotFound,
        Refusal::UnreadableFile { .. } => ErrorCode::UnreadableFile,
        Refusal::TooManyExports { .. } | Refusal::TooManyExportConnections { .. } => {
            ErrorCode::ExportLimit
        }
        Refusal::ServerHasDisks | Refusal::NotADiskBackup => ErrorCode::NotADiskBackup,
        Refusal::TargetKindFixed { .. } => ErrorCode::InvalidRequest,
        Refusal::ServerNotFound { .. } => ErrorCode::ServerNotFound,
        Refusal::SyncUnsupported | Refusal::NoHybridVault { .. } => ErrorCode::SyncUnsupported,
        Refusal::SyncRunning => ErrorCode::SyncRunning,
        Refusal::NoBucket { .. } | Refusal::SyncIncomplete { .. } => ErrorCode::ObjectList,
        Refusal::NothingToImport => ErrorCode::BackupNotFound,
        Refusal::ReplicaNotReplicable => ErrorCode::ImageTypeNotReplicable,
        Refusal::NotAServerBackup => ErrorCode::NotAServerBackup,
        Refusal::NothingToReplicate => ErrorCode::NothingToDo,
        Refusal::RegionNotReplicable { .. } => ErrorCode::RegionNotReplicable,
        Refusal::ProjectNotReplicable => ErrorCode::ProjectNotReplicable,
        Refusal::OtherRegion { code, .. } => match code.as_deref().and_then(ErrorCode::by_code) {
            // Who this server is there concerns nobody who asks here.
            None | Some(ErrorCode::BadCredentials) => ErrorCode::RegionNotReplicable,
            Some(ErrorCode::NotAuthorized) => ErrorCode::ProjectNotReplicable,
            Some(code) => code,
        },
        Refusal::RegionUnreachable { .. } | Refusal::DownloadNotReady => ErrorCode::Unknown,
        Refusal::AlreadyReplicated => ErrorCode::AlreadyReplicated,
        Refusal::DestinationVaultMissing => ErrorCode::DestinationVaultMissing,
        Refusal::DestinationVaultKind => ErrorCode::DestinationVaultKind,
        Refusal::DestinationVaultCheck { .. } => ErrorCode::DestinationVaultCheck,
        Refusal::DestinationVaultFull => ErrorCode::DestinationVaultFull,
        Refusal::ResourceNotReplicable { .. } => ErrorCode::ResourceNotReplicable,
        Refusal::VaultNotReplicable => ErrorCode::VaultTypeForbidsReplication,
        Refusal::VaultReplicating => ErrorCode::VaultReplicating,
        Refusal::BackupInUse { .. } => ErrorCode::BackupInUse,
        Refusal::PartNotShared => ErrorCode::ShareForbidden,
        Refusal::TypeNotShared => ErrorCode::ShareServerOnly,
        Refusal::TooManyMembers => ErrorCode::ShareMemberLimit,
        Refusal::ShareNotAvailable => ErrorCode::ShareNotAvailable,
        Refusal::AlreadyShared { .. } => ErrorCode::AlreadyShared,
        Refusal::InvalidMember { .. } => ErrorCode::MemberInvalid,
        Refusal::MemberNotFound => ErrorCode::MemberNotFound,
        Refusal::NoDecision => ErrorCode::MemberUpdateInvalid,
        Refusal::ShareVaultState => ErrorCode::ShareVaultState,
        Refusal::ShareVaultType => ErrorCode::ShareVaultType,
        Refusal::SharedOn => ErrorCode::ShareAgain,
        Refusal::RunStillAtWork => ErrorCode::BackupTaskRunning,
    }
}

/// The code and sentence for a resource that a checkpoint leaves out.
pub(crate) const fn skip_reason(reason: SkipReason) -> (ErrorCode, &'static str) {
    match reason {
        SkipReason::Gone => (
            ErrorCode::ResourceNotFound,
            "The resource no longer exists.",
        ),
        SkipReason::Protecting => (ErrorCode::BackupTaskRunning, "It is being backed up."),
        SkipReason::Restoring => (ErrorCode::ResourceRestoring, "It is being restored."),
        SkipReason::Removing => (ErrorCode::ResourceRemoving, "It is being removed."),
    }
}
