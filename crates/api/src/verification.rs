//! Verification on the wire: whether backups could be restored. An extension:
//! CBR has nothing of the kind.

use cairn_types::{
    BackupId, Lost, OperationLogId, ResourceId, Timestamp, VaultId, VerificationStatus, VerifyLevel,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::query;
use crate::validate::{Invalid, Validate, require};
use crate::wire_time;

/// The body of `StartVerification`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StartVerificationRequest {
    /// What to look at, and how closely.
    pub verification: NewVerification,
}

/// What to look at, and how closely: all of the project, or one vault, or one backup.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct NewVerification {
    /// How closely.
    pub level: VerifyLevel,
    /// The backups of this vault alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_id: Option<VaultId>,
    /// This backup alone; for a server's, with those of its disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<BackupId>,
}

impl Validate for StartVerificationRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let wish = &self.verification;
        require(
            wish.vault_id.is_none() || wish.backup_id.is_none(),
            "verification.backup_id",
            "A vault or a backup is named, not both.",
        )
    }
}

/// What `StartVerification` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartVerificationResponse {
    /// The verification that waits for its turn.
    pub verification: BegunVerification,
}

/// A verification that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunVerification {
    /// The operation log to watch: that of an earlier request, if one for the same still waits.
    pub operation_log_id: OperationLogId,
    /// How closely.
    pub level: VerifyLevel,
    /// The vault, if one was named.
    pub vault_id: Option<VaultId>,
    /// The backup, if one was named.
    pub backup_id: Option<BackupId>,
}

query! {
    /// Which results are listed.
    pub struct ListVerificationsQuery {
        one {
            /// Page size.
            limit: u32,
            /// Results left out first.
            offset: u32,
            /// Go on behind the result of this backup.
            marker: BackupId,
            /// By what was found.
            status: VerificationStatus,
            /// By vault.
            vault_id: VaultId,
            /// By resource.
            resource_id: ResourceId,
            /// By the verification that last looked at the backup.
            operation_log_id: OperationLogId,
        }
        many {}
    }
}

impl ListVerificationsQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<BackupId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListVerificationsQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)
    }
}

/// What `ListVerifications` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListVerificationsResponse {
    /// The results of the page, the newest first: one for each backup that was looked at.
    pub verifications: Vec<Verification>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Results left out first.
    pub offset: u32,
}

/// What `ShowVerification` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerificationResponse {
    /// What is known of the backup.
    pub verification: Verification,
}

/// What is known of whether a backup could be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub backup_name: String,
    /// For a disk of a server: the server's backup.
    pub parent_id: Option<BackupId>,
    /// Its vault.
    pub vault_id: VaultId,
    /// The resource.
    pub resource_id: ResourceId,
    /// The resource's name.
    pub resource_name: String,
    /// What was found.
    pub status: VerificationStatus,
    /// How closely it was looked at to find that.
    pub level: Option<VerifyLevel>,
    /// When that was found.
    #[serde(with = "wire_time::option")]
    pub verified_at: Option<Timestamp>,
    /// When it was last looked at, at whichever level.
    #[serde(with = "wire_time::option")]
    pub quick_at: Option<Timestamp>,
    /// When all of it was last opened.
    #[serde(with = "wire_time::option")]
    pub full_at: Option<Timestamp>,
    /// The verification that last looked at it.
    pub operation_log_id: Option<OperationLogId>,
    /// What is wrong with it, or why it could not be looked at.
    pub problem: Option<String>,
    /// What of it is lost.
    pub lost: Option<Lost>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_body;

    #[test]
    fn a_vault_or_a_backup_is_named_and_not_both() {
        let vault = r#""vault_id":"3b5816b5-f29c-4172-9d9a-76c719a659ce""#;
        let backup = r#""backup_id":"0ca3eb86-8800-46da-9c37-9d657a825274""#;
        let parse = |body: String| parse_body::<StartVerificationRequest>(body.as_bytes());
        for good in [r#""level":"quick""#, r#""level":"full","vault_id":null"#] {
            assert!(parse(format!(r#"{{"verification":{{{good}}}}}"#)).is_ok());
        }
        for one in [vault, backup] {
            let body = format!(r#"{{"verification":{{"level":"full",{one}}}}}"#);
            assert!(parse(body).is_ok());
        }
        let both = format!(r#"{{"verification":{{"level":"full",{vault},{backup}}}}}"#);
        let message = parse(both).unwrap_err().message;
        assert!(message.starts_with("Invalid verification.backup_id provided."));
        for wrong in [
            r#"{"verification":{}}"#,
            r#"{"verification":{"level":"deep"}}"#,
            "{}",
        ] {
            assert!(parse(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_has_its_limits() {
        assert!(ListVerificationsQuery::parse("limit=1000&status=hurt").is_ok());
        for wrong in ["limit=0", "limit=1001", "status=bad", "marker=x"] {
            assert!(ListVerificationsQuery::parse(wrong).is_err(), "{wrong}");
        }
    }
}
