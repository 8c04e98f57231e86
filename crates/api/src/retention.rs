//! Retention on the wire: why a backup stays and until when, and what a change of a
//! policy would let go. Extensions: CBR has nothing of the kind.

use cairn_types::{BackupId, BackupStatus, PolicyId, ResourceId, Timestamp, VaultId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::{PolicyChange, UpdatePolicyRequest};
use crate::validate::{Invalid, Validate};
use crate::wire_time;

/// What `ExplainBackup` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplanationResponse {
    /// Why the backup stays.
    pub explanation: Explanation,
}

/// Why a backup stays, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub backup_name: String,
    /// Its vault.
    pub vault_id: VaultId,
    /// The resource.
    pub resource_id: ResourceId,
    /// Its state.
    pub status: BackupStatus,
    /// When it was asked for.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// The policy that made it; none, if a user did.
    pub policy_id: Option<PolicyId>,
    /// The policy whose rules of number apply to it now: the one that its vault follows.
    pub rules_of: Option<PolicyId>,
    /// The rules that keep it, such as `max_backups`; empty, if it goes with the next
    /// sweep, or with the next backup where `until` is `null`.
    pub kept_by: Vec<String>,
    /// Until when it is kept at the longest, as far as that is known.
    #[serde(with = "wire_time::option")]
    pub until: Option<Timestamp>,
    /// Whether its vault holds it until then, whoever asks for its deletion.
    pub locked: bool,
    /// The same in a sentence.
    pub text: String,
}

/// The body of `PreviewPolicy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PreviewPolicyRequest {
    /// The change that is thought of, as `UpdatePolicy` takes it.
    pub policy: PolicyChange,
    /// A vault that is to follow the policy, beside those that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_id: Option<VaultId>,
}

impl Validate for PreviewPolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let policy = self.policy.clone();
        UpdatePolicyRequest { policy }.validate()
    }
}

/// What `PreviewPolicy` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewPolicyResponse {
    /// The backups that would go, once the next backup of their resource is made, and would
    /// not go as the policy is now; oldest first.
    pub removed: Vec<RemovedBackup>,
    /// How many they are.
    pub count: u64,
}

/// A backup that would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// Its vault.
    pub vault_id: VaultId,
    /// The resource.
    pub resource_id: ResourceId,
    /// When it was asked for.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
}
