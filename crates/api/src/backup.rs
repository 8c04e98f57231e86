//! Backups and restores on the wire.

use cairn_types::{
    BackupId, BackupStatus, CheckpointId, FileProblems, OperationLogId, PolicyId, ProjectId,
    ReplicationId, ReplicationStatus, ResourceId, ResourceType, Timestamp, VaultId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::{QueryValue, query};
use crate::validate::{self, Invalid, Validate, require};
use crate::{BackupSortKey, ImageType, MemberStatus, OwnType, wire_time};

/// The longest `sort`, in characters.
const MAX_SORT_CHARS: usize = 255;
/// The longest path of a host, in characters.
const MAX_PATH_CHARS: usize = 4096;

query! {
    /// Which backups are listed.
    ///
    /// CBR: `ListBackups`.
    pub struct ListBackupsQuery {
        one {
            /// Page size.
            limit: u32,
            /// Backups left out first.
            offset: u32,
            /// Go on behind this backup.
            marker: BackupId,
            /// In which order.
            sort: Sort,
            /// By checkpoint.
            checkpoint_id: CheckpointId,
            /// Whether dedicated clouds are meant.
            dec: bool,
            /// Asked for before this instant.
            end_time: Timestamp,
            /// Asked for after this instant.
            start_time: Timestamp,
            /// By how they came to be.
            image_type: ImageType,
            /// By name.
            name: String,
            /// By the resource's availability zone.
            resource_az: String,
            /// By resource.
            resource_id: ResourceId,
            /// By the resource's name.
            resource_name: String,
            /// By the resource's type.
            resource_type: ResourceType,
            /// By vault.
            vault_id: VaultId,
            /// By enterprise project; `all_granted_eps` is every one.
            enterprise_project_id: String,
            /// Whose.
            own_type: OwnType,
            /// By whether the sharing was accepted.
            member_status: MemberStatus,
            /// The disks of this server's backup.
            parent_id: BackupId,
            /// Of vaults that are in use by at least this share, in percent.
            used_percent: u8,
            /// Show replication records.
            show_replication: bool,
            /// By whether they read only what changed.
            incremental: bool,
            /// Those that a rule keeps by number.
            existed_quantity_based_retention_backups: bool,
        }
        many {
            /// By state.
            status: BackupStatus,
        }
    }
}

impl ListBackupsQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<BackupId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListBackupsQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)?;
        let share = self.used_percent.unwrap_or(1);
        validate::range("used_percent", share, (1, 100))
    }
}

/// An order of backups: keys, the first counting most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort(pub Vec<SortKey>);

/// One key of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// What is compared.
    pub key: BackupSortKey,
    /// The smallest first; the largest first is the default.
    pub ascending: bool,
}

impl QueryValue for Sort {
    fn read(text: &str) -> Option<Self> {
        if text.chars().count() > MAX_SORT_CHARS {
            return None;
        }
        let key = |item: &str| {
            let (key, direction) = item.trim().split_once(':').unwrap_or((item.trim(), "desc"));
            let ascending = match direction {
                "asc" => true,
                "desc" => false,
                _ => return None,
            };
            Some(SortKey {
                key: key.parse().ok()?,
                ascending,
            })
        };
        text.split(',')
            .map(key)
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    fn write(&self) -> String {
        let direction = |key: &SortKey| if key.ascending { "asc" } else { "desc" };
        let keys: Vec<_> = self
            .0
            .iter()
            .map(|key| format!("{}:{}", key.key, direction(key)))
            .collect();
        keys.join(",")
    }
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new().schema_type(Type::String);
        object.max_length(Some(MAX_SORT_CHARS)).into()
    }
}

/// What `ListBackups` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListBackupsResponse {
    /// The backups of the page.
    pub backups: Vec<Backup>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Backups left out first.
    pub offset: u32,
}

/// What `ShowBackup` and `UpdateBackup` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupResponse {
    /// The backup.
    pub backup: Backup,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its state.
    pub status: BackupStatus,
    /// How it came to be.
    pub image_type: ImageType,
    /// Its checkpoint.
    pub checkpoint_id: CheckpointId,
    /// For a disk of a server: the server's backup.
    pub parent_id: Option<BackupId>,
    /// Its project.
    pub project_id: ProjectId,
    /// Its enterprise project, `"0"` for none.
    pub enterprise_project_id: String,
    /// Its vault.
    pub vault_id: VaultId,
    /// The provider that stands for the resource's type.
    pub provider_id: String,
    /// The resource.
    pub resource_id: ResourceId,
    /// The resource's name at the time.
    pub resource_name: String,
    /// The resource's type.
    pub resource_type: ResourceType,
    /// The resource's size at the time, in GB.
    pub resource_size: u64,
    /// The resource's availability zone.
    pub resource_az: Option<String>,
    /// When it was asked for.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When it was finished.
    #[serde(with = "wire_time::option")]
    pub protected_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(with = "wire_time::option")]
    pub updated_at: Option<Timestamp>,
    /// When it is deleted by itself.
    #[serde(with = "wire_time::option")]
    pub expired_at: Option<Timestamp>,
    /// More about it.
    pub extend_info: BackupExtendInfo,
    /// For a server: the backups of its disks.
    #[schema(no_recursion)]
    pub children: Vec<Backup>,
    /// Only what changed was read.
    pub incremental: bool,
    /// Its copies in other regions.
    pub replication_records: Vec<ReplicationRecord>,
    /// The policy that it was made by.
    pub scheduled_operation_id: Option<PolicyId>,
    /// Always 3.
    pub version: u32,
    /// Where it is from, if it was taken over from another site; an extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<BackupOrigin>,
}

/// Where a backup was taken over from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupOrigin {
    /// What the configuration calls the other site's repository.
    pub external: String,
    /// The project there.
    pub project_id: ProjectId,
    /// The backup there.
    pub backup_id: BackupId,
    /// Since when it is known to be there no more. It stays here.
    #[serde(with = "wire_time::option")]
    pub gone_at: Option<Timestamp>,
}

/// More about a backup.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct BackupExtendInfo {
    /// Made by a policy.
    pub auto_trigger: bool,
    /// The disk can be booted from.
    pub bootable: Option<bool>,
    /// The server's backup holds its system disk.
    pub contain_system_disk: Option<bool>,
    /// The disk was encrypted at its source.
    pub encrypted: Option<bool>,
    /// Only what changed was read: here too, for clients of the older documents.
    pub incremental: bool,
    /// Spread over availability zones.
    pub is_multi_az: bool,
    /// The images that were made from it.
    pub os_images_data: Option<Vec<ImageData>>,
    /// The snapshot behind it.
    pub snapshot_id: Option<String>,
    /// It can be read from before it is restored.
    pub support_lld: Option<bool>,
    /// How it can be restored: `na`, `backup` or `snapshot`.
    pub supported_restore_mode: Option<String>,
    /// It is a system disk's.
    pub system_disk: Option<bool>,
    /// How far it is, 0 to 100.
    pub progress: Option<u8>,
    /// The server's processor architecture.
    pub architecture: Option<String>,
    /// Whether applications were brought to rest for it.
    pub app_consistency: Option<AppConsistency>,
    /// Cairn: of which moment its files are: `snapshot` all of one, `each_file` each of one of its
    /// own, `none` those that are written to meanwhile of none. Of disks there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_moment: Option<String>,
    /// Cairn: which files are not in it as they were: not there, or a mixture, or without attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_problems: Option<FileProblems>,
}

/// Whether applications were brought to rest for a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppConsistency {
    /// `"1"` if it was asked for.
    pub app_consistency: String,
    /// `"1"` if it worked.
    pub app_consistency_status: String,
    /// Why it did not.
    pub app_consistency_error_code: String,
    /// Why it did not, in a sentence.
    pub app_consistency_error_message: String,
}

/// An image that was made from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageData {
    /// The image.
    pub image_id: String,
}

/// A copy of a backup in another region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicationRecord {
    /// The record.
    pub id: ReplicationId,
    /// When it was asked for.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// How far it is.
    pub status: ReplicationStatus,
    /// The backup that is copied.
    pub source_backup_id: BackupId,
    /// Its checkpoint.
    pub source_checkpoint_id: CheckpointId,
    /// Its project.
    pub source_project_id: ProjectId,
    /// Its region.
    pub source_region: String,
    /// The copy.
    pub destination_backup_id: BackupId,
    /// The copy's checkpoint.
    pub destination_checkpoint_id: CheckpointId,
    /// The copy's project.
    pub destination_project_id: ProjectId,
    /// The copy's region.
    pub destination_region: String,
    /// The copy's vault.
    pub destination_vault_id: VaultId,
    /// The vault of the backup that is copied.
    pub vault_id: VaultId,
    /// More about it.
    pub extra_info: ReplicationExtraInfo,
}

/// More about a copy. The vault comes in two spellings: the documents have one,
/// the SDKs read the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicationExtraInfo {
    /// How far it is, 0 to 100.
    pub progress: u8,
    /// The error code; empty unless it failed.
    pub fail_code: String,
    /// One sentence; empty unless it failed.
    pub fail_reason: String,
    /// Asked for by a policy.
    pub auto_trigger: bool,
    /// The copy's vault.
    pub destination_vault_id: VaultId,
    /// The copy's vault again, as the documents spell it.
    pub destinatio_vault_id: VaultId,
}

/// The body of `UpdateBackup`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateBackupRequest {
    /// What changes.
    pub backup: BackupChange,
}

/// What changes about a backup.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Validate for UpdateBackupRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::optional(&self.backup.name, |name| {
            validate::name("backup.name", name)
        })
    }
}

/// The body of `RestoreBackup`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RestoreBackupRequest {
    /// Where to.
    pub restore: NewRestore,
}

/// Where a backup is restored to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NewRestore {
    /// For a server: which disk's backup goes to which disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mappings: Option<Vec<RestoreMapping>>,
    /// Start the server behind it; `true` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_on: Option<bool>,
    /// The server to restore to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ResourceId>,
    /// The disk to restore to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<ResourceId>,
    /// The resource of another type to restore to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<ResourceId>,
    /// For files: where to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<RestoreDetails>,
}

/// Which disk's backup goes to which disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreMapping {
    /// The disk's backup.
    pub backup_id: BackupId,
    /// The disk.
    pub volume_id: ResourceId,
}

/// Where files are restored to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RestoreDetails {
    /// The folder on the host. Cairn: without it files go back to where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_path: Option<String>,
    /// Cairn: what of the backup, by its path; all of it, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
}

impl Validate for RestoreBackupRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let restore = &self.restore;
        let targets = [restore.server_id, restore.volume_id, restore.resource_id];
        let rule = "It names none of server_id, volume_id and resource_id.";
        require(targets.iter().any(Option::is_some), "restore", rule)?;
        let rule = "It names more than one of server_id, volume_id and resource_id.";
        require(targets.iter().flatten().count() == 1, "restore", rule)?;
        let mappings = restore.mappings.as_deref().unwrap_or_default();
        validate::count(
            "restore.mappings",
            mappings.len(),
            (0, validate::MAX_VOLUMES),
        )?;
        for (at, mapping) in mappings.iter().enumerate() {
            let twice = mappings[..at].iter().any(|other| {
                other.backup_id == mapping.backup_id || other.volume_id == mapping.volume_id
            });
            require(
                !twice,
                "restore.mappings",
                "A backup or a disk comes twice.",
            )?;
        }
        let Some(details) = &restore.details else {
            return Ok(());
        };
        for (key, path, longest) in [
            (
                "restore.details.destination_path",
                &details.destination_path,
                255,
            ),
            (
                "restore.details.source_path",
                &details.source_path,
                MAX_PATH_CHARS,
            ),
        ] {
            validate::optional(path, |path| {
                validate::range(key, path.chars().count(), (1, longest))
            })?;
        }
        Ok(())
    }
}

/// What `RestoreBackup` answers: beyond the documents, but Terraform waits by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreBackupResponse {
    /// The operation log of the restore.
    pub job_id: OperationLogId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    #[test]
    fn a_list_query_reads_all_it_may_hold() {
        let raw = "status=available&status=error&sort=name:asc,created_at&limit=10\
                   &used_percent=80&own_type=shared&show_replication=False";
        let query = ListBackupsQuery::parse(raw).unwrap();
        assert_eq!(query.status, [BackupStatus::Available, BackupStatus::Error]);
        let keys = query.sort.clone().unwrap().0;
        assert_eq!(
            keys[0],
            SortKey {
                key: BackupSortKey::Name,
                ascending: true
            }
        );
        assert_eq!(
            keys[1],
            SortKey {
                key: BackupSortKey::CreatedAt,
                ascending: false
            }
        );
        assert_eq!(query.page().limit, 10);
        assert_eq!(ListBackupsQuery::parse(&query.write()).unwrap(), query);
    }

    #[test]
    fn a_wrong_list_query_names_its_key() {
        let long_sort = format!("sort={}", "name,".repeat(60));
        for (raw, key) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("offset=-1", "offset"),
            ("marker=x", "marker"),
            ("sort=size", "sort"),
            ("sort=name:up", "sort"),
            (&long_sort, "sort"),
            ("used_percent=0", "used_percent"),
            ("used_percent=101", "used_percent"),
            ("resource_type=OS::Nova::Cat", "resource_type"),
            ("end_time=2020-01-01", "end_time"),
        ] {
            let message = ListBackupsQuery::parse(raw).unwrap_err().message;
            assert!(
                message.starts_with(&format!("Invalid {key} provided.")),
                "{raw}: {message}"
            );
        }
    }

    fn restore(body: &str) -> Result<RestoreBackupRequest, Invalid> {
        parse_body(format!(r#"{{"restore":{body}}}"#).as_bytes())
    }

    #[test]
    fn a_restore_names_exactly_one_target() {
        let (a, b) = (ResourceId::random(), BackupId::random());
        assert!(restore(&format!(r#"{{"volume_id":"{a}"}}"#)).is_ok());
        assert!(restore("{}").is_err());
        assert!(restore(&format!(r#"{{"volume_id":"{a}","server_id":"{a}"}}"#)).is_err());
        let mapping = format!(r#"{{"backup_id":"{b}","volume_id":"{a}"}}"#);
        assert!(restore(&format!(r#"{{"server_id":"{a}","mappings":[{mapping}]}}"#)).is_ok());
        let twice = restore(&format!(
            r#"{{"server_id":"{a}","mappings":[{mapping},{mapping}]}}"#
        ));
        assert!(twice.unwrap_err().message.contains("restore.mappings"));
    }

    #[test]
    fn a_new_name_follows_the_pattern() {
        assert!(parse_body::<UpdateBackupRequest>(br#"{"backup":{"name":"a"}}"#).is_ok());
        assert!(parse_body::<UpdateBackupRequest>(br#"{"backup":{"name":"a/b"}}"#).is_err());
    }
}
