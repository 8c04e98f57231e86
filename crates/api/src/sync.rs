//! Synchronisation on the wire: hybrid vaults, and backups in buckets of another site.

use cairn_types::{BackupId, OperationLogId, ResourceId, ResourceType, VaultId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid, Validate, require};

/// The most backups in one request. Source: `BackupSyncReq` in the vendor's definitions.
const MAX_IMPORTS: usize = 50;
/// The longest name of a bucket, in characters.
const MAX_BUCKET_CHARS: usize = 255;
/// The longest path in a bucket, in characters: the longest key of an object.
const MAX_PATH_CHARS: usize = 1024;

/// The body of `ImportCheckpoint`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SyncVaultRequest {
    /// Which vault.
    pub sync: VaultToSync,
}

/// The vault to synchronise.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct VaultToSync {
    /// A hybrid vault.
    pub vault_id: VaultId,
    /// Asked for by a policy.
    pub auto_trigger: bool,
}

impl Validate for SyncVaultRequest {
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// What `ImportCheckpoint` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncVaultResponse {
    /// The synchronisation that has begun.
    pub sync: BegunSync,
}

/// A synchronisation that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunSync {
    /// The operation log to watch.
    pub operation_log_id: OperationLogId,
    /// The vault.
    pub vault_id: VaultId,
}

/// The body of `ImportBackup`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImportBackupsRequest {
    /// The backups to take over.
    pub sync: Vec<BackupInBucket>,
}

/// A backup in a bucket of another site.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupInBucket {
    /// Its id.
    pub backup_id: BackupId,
    /// Its name.
    pub backup_name: String,
    /// The bucket, or what the configuration calls the repository.
    pub bucket_name: String,
    /// When it was made, in seconds since 1970.
    pub created_at: i32,
    /// Where it lies: `project/backup` of the other site, either of them, or empty.
    pub image_path: String,
    /// The resource.
    pub resource_id: ResourceId,
    /// The resource's name.
    pub resource_name: String,
    /// The resource's type.
    pub resource_type: ResourceType,
}

impl Validate for ImportBackupsRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::count("sync", self.sync.len(), (1, MAX_IMPORTS))?;
        for (at, backup) in self.sync.iter().enumerate() {
            validate::name("sync.backup_name", &backup.backup_name)?;
            required("sync.bucket_name", &backup.bucket_name, MAX_BUCKET_CHARS)?;
            validate::text("sync.image_path", &backup.image_path, MAX_PATH_CHARS)?;
            let limit = validate::MAX_RESOURCE_NAME_CHARS;
            required("sync.resource_name", &backup.resource_name, limit)?;
            let before = "It lies before 1970.";
            require(backup.created_at >= 0, "sync.created_at", before)?;
            let mut earlier = self.sync[..at].iter();
            let twice = earlier.any(|other| other.backup_id == backup.backup_id);
            require(!twice, "sync.backup_id", "A backup comes twice.")?;
        }
        Ok(())
    }
}

fn required(key: &str, text: &str, max: usize) -> Result<(), Invalid> {
    require(!text.is_empty(), key, "It is empty.")?;
    validate::text(key, text, max)
}

/// What `ImportBackup` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportBackupsResponse {
    /// The imports that have begun.
    pub sync: Vec<BegunImport>,
}

/// An import that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunImport {
    /// The backup.
    pub backup_id: BackupId,
    /// The operation log to watch.
    pub operation_log_id: OperationLogId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    const BACKUP: &str = r#"{"backup_id":"1f9e6b47-7655-4a19-b563-21b4ef023025",
        "backup_name":"backup_name","bucket_name":"bucket","created_at":1553587260,
        "image_path":"a/b/c","resource_id":"96f7512d-239d-3f31-80cf-d1ce041df9a6",
        "resource_name":"resource_name","resource_type":"OS::Native::Server"}"#;

    fn import(backups: &str) -> Result<ImportBackupsRequest, Invalid> {
        parse_body(format!(r#"{{"sync":[{backups}]}}"#).as_bytes())
    }

    #[test]
    fn one_to_fifty_backups_are_imported_each_once() {
        assert!(import(BACKUP).is_ok());
        assert!(import("").is_err());
        let twice = import(&format!("{BACKUP},{BACKUP}")).unwrap_err().message;
        assert!(twice.contains("twice"), "{twice}");
        assert!(import(&vec![BACKUP; 51].join(",")).is_err());
    }

    #[test]
    fn wrong_backups_are_named() {
        for (from, to, key) in [
            (
                "\"backup_name\",\"bucket",
                "\"a b\",\"bucket",
                "sync.backup_name",
            ),
            ("\"bucket\"", "\"\"", "sync.bucket_name"),
            ("1553587260", "-1", "sync.created_at"),
            ("1553587260", "2147483648", "sync[0].created_at"),
            (
                "OS::Native::Server",
                "OS::Nova::Cat",
                "sync[0].resource_type",
            ),
        ] {
            let message = import(&BACKUP.replace(from, to)).unwrap_err().message;
            assert!(
                message.starts_with(&format!("Invalid {key} provided.")),
                "{message}"
            );
        }
    }
}
