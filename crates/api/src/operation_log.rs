//! Operation logs on the wire: the public record of long work.

use cairn_types::{
    BackupId, CheckpointId, FileProblems, OperationLogId, OperationStatus, OperationType, PolicyId,
    ProjectId, ResourceId, Timestamp, VaultId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::query;
use crate::resource::Resource;
use crate::validate::{self, Invalid, Validate};
use crate::{text, wire_time};

query! {
    /// Which operation logs are listed.
    ///
    /// CBR: `ListOpLogs`.
    pub struct ListOpLogsQuery {
        one {
            /// Page size.
            limit: u32,
            /// Logs left out first.
            offset: u32,
            /// Go on behind this log.
            marker: OperationLogId,
            /// Begun before this instant.
            end_time: Timestamp,
            /// Begun after this instant.
            start_time: Timestamp,
            /// By what is done.
            operation_type: OperationType,
            /// By the resource type's provider.
            provider_id: Uuid,
            /// By resource.
            resource_id: ResourceId,
            /// By the resource's name.
            resource_name: String,
            /// By state.
            status: OperationStatus,
            /// By vault.
            vault_id: VaultId,
            /// By the vault's name.
            vault_name: String,
            /// By enterprise project; `all_granted_eps` is every one.
            enterprise_project_id: String,
            /// By the region that is replicated to.
            destination_region: String,
            /// By the project that is replicated to.
            destination_project_id: ProjectId,
        }
        many {}
    }
}

impl ListOpLogsQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<OperationLogId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListOpLogsQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)?;
        validate::optional(&self.destination_region, |region| {
            crate::replication::region("destination_region", region)
        })
    }
}

/// What `ListOpLogs` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListOpLogsResponse {
    /// The logs of the page.
    pub operation_logs: Vec<OperationLog>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Logs left out first.
    pub offset: u32,
}

/// What `ShowOpLog` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationLogResponse {
    /// The log.
    pub operation_log: OperationLog,
}

/// An operation log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationLog {
    /// Its id.
    pub id: OperationLogId,
    /// What is done.
    pub operation_type: OperationType,
    /// How it stands.
    pub status: OperationStatus,
    /// The project.
    pub project_id: ProjectId,
    /// The checkpoint, if it is about one.
    pub checkpoint_id: Option<CheckpointId>,
    /// The policy, if it was begun by one.
    pub policy_id: Option<PolicyId>,
    /// The provider that stands for the resource's type.
    pub provider_id: Option<String>,
    /// The vault.
    pub vault_id: Option<VaultId>,
    /// The vault's name.
    pub vault_name: Option<String>,
    /// When it was asked for.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When it began; while it waits, when it was asked for.
    #[serde(with = "wire_time")]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(with = "wire_time::option")]
    pub ended_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(with = "wire_time")]
    pub updated_at: Timestamp,
    /// Why it failed; empty texts if it did not.
    pub error_info: OperationError,
    /// More about it.
    pub extra_info: OperationExtraInfo,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct OperationError {
    /// The error code, or empty.
    pub code: String,
    /// One sentence, or empty.
    pub message: String,
}

/// More about an operation: two parts that are always there, and one that is
/// named by the type. The others are left out, as the service does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationExtraInfo {
    /// How far it is.
    pub common: OperationCommon,
    /// The resource.
    pub resource: Resource,
    /// For a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<OperationBackup>,
    /// For a restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<OperationRestore>,
    /// For the deletion of a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<OperationDelete>,
    /// For the removal of resources from a vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_resources: Option<OperationRemoveResources>,
    /// For a replication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<OperationReplication>,
    /// For a synchronisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<OperationSync>,
    /// For the deletion of a vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault_delete: Option<OperationVaultDelete>,
    /// For the move of resources to another vault; Cairn's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrate_resources: Option<OperationMigrateResources>,
    /// For another day on which backups end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_expiration_time: Option<OperationUpdateExpirationTime>,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct OperationCommon {
    /// 0 to 100.
    pub progress: u8,
    /// The request that began it.
    pub request_id: String,
    /// The task behind it.
    pub task_id: Option<String>,
    /// Bytes done; Cairn's own, for clients that show a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<u64>,
    /// Bytes to do in all; Cairn's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
}

/// The part of an operation that makes a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub backup_name: String,
    /// Only what changed is read; a string on the wire.
    #[serde(with = "text::truth")]
    #[schema(value_type = String)]
    pub incremental: bool,
    /// Why applications were not brought to rest.
    pub app_consistency_error_code: Option<String>,
    /// The same in a sentence.
    pub app_consistency_error_message: Option<String>,
    /// `"0"` or `"1"`.
    pub app_consistency_status: Option<String>,
    /// Cairn: which files are not in it as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_problems: Option<FileProblems>,
}

/// The part of an operation that restores a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationRestore {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub backup_name: String,
    /// Where it is restored to.
    pub target_resource_id: ResourceId,
    /// That resource's name.
    pub target_resource_name: String,
    /// Cairn: which files were not restored as they were: without owner, mode, times or attributes, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_problems: Option<FileProblems>,
}

/// The part of an operation that deletes a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationDelete {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub backup_name: String,
}

/// The part of an operation that takes resources out of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationRemoveResources {
    /// How many failed.
    pub fail_count: u32,
    /// How many there are.
    pub total_count: u32,
    /// The resources.
    pub resources: Vec<Resource>,
}

/// The part of an operation that copies a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationReplication {
    /// The backup that is copied.
    pub source_backup_id: BackupId,
    /// Its name.
    pub source_backup_name: String,
    /// Its checkpoint.
    pub source_checkpoint_id: CheckpointId,
    /// Its project.
    pub source_project_id: ProjectId,
    /// Its region.
    pub source_region: String,
    /// The copy.
    pub destination_backup_id: BackupId,
    /// Its name.
    pub destination_backup_name: String,
    /// Its checkpoint.
    pub destination_checkpoint_id: CheckpointId,
    /// Its project.
    pub destination_project_id: ProjectId,
    /// Its region.
    pub destination_region: String,
}

/// The part of an operation that takes backups over from another site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationSync {
    /// How many were taken over.
    pub sync_backup_num: u32,
    /// How many were deleted because the site has them no more.
    pub delete_backup_num: u32,
    /// How many could not be taken over.
    pub err_sync_backup_num: u32,
}

/// The part of an operation that deletes a vault. Both spellings of the two
/// numbers are sent: the documents have one, Terraform reads the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationVaultDelete {
    /// How many backups could not be deleted.
    pub fail_count: u32,
    /// How many backups there were.
    pub total_count: u32,
    /// `fail_count` again.
    pub fail_delete_count: u32,
    /// `total_count` again.
    pub total_delete_count: u32,
}

/// The part of an operation that moves resources to another vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationMigrateResources {
    /// Where they are now.
    pub destination_vault_id: VaultId,
    /// How many failed.
    pub fail_count: u32,
    /// How many there are.
    pub total_count: u32,
    /// The resources.
    pub resources: Vec<Resource>,
}

/// The part of an operation that gives backups another day to end on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationUpdateExpirationTime {
    /// How many backups.
    pub affected_backups_count: u32,
    /// The day, as `2025-12-31`.
    pub expiration_day: String,
}

impl OperationVaultDelete {
    /// The numbers, in both spellings.
    pub const fn new(fail_count: u32, total_count: u32) -> Self {
        Self {
            fail_count,
            total_count,
            fail_delete_count: fail_count,
            total_delete_count: total_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log in the form of the vendor's example.
    const LOG: &str = r#"{
        "id": "4827f2da-b008-4507-ab7d-42d0df5ed912", "operation_type": "backup", "status": "success",
        "project_id": "04f1829c788037ac2fb8c01eb2b04b95", "checkpoint_id": null, "policy_id": null,
        "provider_id": "0daac4c5-6707-4851-97ba-169e36266b66", "vault_id": null, "vault_name": null,
        "created_at": "2019-05-23T14:31:36.039365", "started_at": "2019-05-23T14:31:36.007230",
        "ended_at": "2019-05-23T14:35:23.511155", "updated_at": "2019-05-23T14:35:23.584418",
        "error_info": {"code": "", "message": ""},
        "extra_info": {
            "common": {"progress": 100, "request_id": "req-cdb98cc4-e87b-4f40-9b4a-57ec036620bc", "task_id": null},
            "resource": {"id": "1dab32fa-ebf2-415a-ab0b-eabe6353bc86", "type": "OS::Nova::Server", "name": "web"},
            "backup": {"backup_id": "0e5d0ef6-7f0a-4890-b98c-cb12490e31c1", "backup_name": "manualbk_1234",
                "incremental": "true", "app_consistency_error_code": null,
                "app_consistency_error_message": null, "app_consistency_status": null}
        }
    }"#;

    #[test]
    fn a_log_is_read_and_written_alike() {
        let log: OperationLog = serde_json::from_str(LOG).unwrap();
        assert!(log.status.is_final());
        assert!(log.extra_info.backup.as_ref().unwrap().incremental);
        let expected: serde_json::Value = serde_json::from_str(LOG).unwrap();
        assert_eq!(serde_json::to_value(&log).unwrap(), expected);
    }

    #[test]
    fn bytes_are_told_only_where_they_are_known() {
        let common = OperationCommon {
            bytes_done: Some(1),
            ..OperationCommon::default()
        };
        let value = serde_json::to_value(common).unwrap();
        assert_eq!(value["bytes_done"], 1);
        assert!(value.get("bytes_total").is_none());
        assert!(value["task_id"].is_null());
    }

    #[test]
    fn both_spellings_of_a_vault_deletion_agree() {
        let value = serde_json::to_value(OperationVaultDelete::new(1, 7)).unwrap();
        assert_eq!(value["fail_delete_count"], value["fail_count"]);
        assert_eq!(value["total_delete_count"], 7);
    }

    #[test]
    fn a_query_checks_the_region() {
        assert!(ListOpLogsQuery::parse("destination_region=eu-west_1.a&limit=5").is_ok());
        assert!(ListOpLogsQuery::parse("destination_region=a%20b").is_err());
        assert!(ListOpLogsQuery::parse("status=done").is_err());
    }
}
