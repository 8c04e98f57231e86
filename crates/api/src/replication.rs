//! Replication on the wire: copies of backups in replication vaults.

use cairn_types::{BackupId, ProjectId, ReplicationId, VaultId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid, Validate, require};

/// The longest name of a region, in characters.
const MAX_REGION_CHARS: usize = 255;

/// What `ShowReplicationCapabilities` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicationCapabilitiesResponse {
    /// The regions that replicas can be made in.
    pub regions: Vec<ReplicationRegion>,
}

/// A region and where its backups can be copied to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicationRegion {
    /// Its name.
    pub name: String,
    /// The regions that take its replicas.
    pub replication_destinations: Vec<String>,
}

/// The body of `CopyBackup`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CopyBackupRequest {
    /// Where to, and how.
    pub replicate: BackupReplication,
}

/// Where a backup is copied to, and how.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupReplication {
    /// The project to copy to.
    pub destination_project_id: ProjectId,
    /// The region to copy to.
    pub destination_region: String,
    /// The vault to copy to.
    pub destination_vault_id: VaultId,
    /// What the copy is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The copy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Never `true`: nothing here makes a copy faster for more money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_acceleration: Option<bool>,
}

impl Validate for CopyBackupRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let wish = &self.replicate;
        region("replicate.destination_region", &wish.destination_region)?;
        no_acceleration(wish.enable_acceleration)?;
        validate::optional(&wish.name, |name| validate::name("replicate.name", name))?;
        validate::optional(&wish.description, |text| {
            let key = "replicate.description";
            validate::description(key, text, validate::MAX_DESCRIPTION_CHARS)
        })
    }
}

/// The name of a region.
/// Source: the pattern `^[a-zA-Z0-9._\-]*$` of the vendor's definitions.
pub(crate) fn region(key: &str, name: &str) -> Result<(), Invalid> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    validate::text(key, name, MAX_REGION_CHARS)?;
    require(name.chars().all(fits), key, "It is no region's name.")
}

fn no_acceleration(wish: Option<bool>) -> Result<(), Invalid> {
    let key = "replicate.enable_acceleration";
    require(wish != Some(true), key, "There is no acceleration here.")
}

/// What `CopyBackup` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyBackupResponse {
    /// The replication that has begun.
    pub replication: BegunReplication,
}

/// A replication that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunReplication {
    /// The backup that is copied.
    pub backup_id: BackupId,
    /// The project that it is copied to.
    pub destination_project_id: ProjectId,
    /// The region that it is copied to.
    pub destination_region: String,
    /// The vault that it is copied to.
    pub destination_vault_id: VaultId,
    /// Its project.
    pub project_id: ProjectId,
    /// The provider that stands for the resource's type.
    pub provider_id: String,
    /// The record to watch.
    pub replication_record_id: ReplicationId,
    /// Its region.
    pub source_region: String,
}

/// The body of `CopyCheckpoint`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CopyCheckpointRequest {
    /// Which vault, where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicate: Option<VaultReplication>,
    /// The same, in the box that one client library puts around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CopyCheckpointBox>,
}

/// What one client library puts around the body of `CopyCheckpoint`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CopyCheckpointBox {
    /// Which vault, where to.
    pub replicate: VaultReplication,
}

/// Which vault's backups are copied, and where to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VaultReplication {
    /// The vault whose backups are copied.
    pub vault_id: VaultId,
    /// The project to copy to.
    pub destination_project_id: ProjectId,
    /// The region to copy to.
    pub destination_region: String,
    /// The vault to copy to.
    pub destination_vault_id: VaultId,
    /// Asked for by a policy; `false` if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_trigger: Option<bool>,
    /// Never `true`: nothing here makes a copy faster for more money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_acceleration: Option<bool>,
}

impl CopyCheckpointRequest {
    /// Which vault, where to.
    ///
    /// Errors: it is missing.
    pub fn into_replication(self) -> Result<VaultReplication, Invalid> {
        let boxed = self.checkpoint.map(|boxed| boxed.replicate);
        let wish = self.replicate.or(boxed);
        wish.ok_or_else(|| Invalid::rule("replicate", "It is missing."))
    }
}

impl Validate for CopyCheckpointRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let boxed = self.checkpoint.iter().map(|boxed| &boxed.replicate);
        for wish in self.replicate.iter().chain(boxed) {
            region("replicate.destination_region", &wish.destination_region)?;
            no_acceleration(wish.enable_acceleration)?;
        }
        Ok(())
    }
}

/// What `CopyCheckpoint` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyCheckpointResponse {
    /// The replications that have begun.
    pub replication: BegunReplications,
}

/// The replications of a vault's backups that have begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunReplications {
    /// Each backup with the record to watch.
    pub backups: Vec<BegunCopy>,
    /// The project that they are copied to.
    pub destination_project_id: ProjectId,
    /// The region that they are copied to.
    pub destination_region: String,
    /// The vault that they are copied to.
    pub destination_vault_id: VaultId,
    /// Their project.
    pub project_id: ProjectId,
    /// The provider that stands for what the vault protects.
    pub provider_id: String,
    /// Their region.
    pub source_region: String,
    /// Their vault.
    pub vault_id: VaultId,
}

/// A backup whose replication has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunCopy {
    /// The backup.
    pub backup_id: BackupId,
    /// The record to watch.
    pub replication_record_id: ReplicationId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    const DESTINATION: &str = r#""destination_project_id":"68589cac08274b82b4e254268a3862d8",
        "destination_region":"region2",
        "destination_vault_id":"0ca3eb86-8800-46da-9c37-9d657a825274""#;
    const VAULT: &str = r#""vault_id":"3b5816b5-f29c-4172-9d9a-76c719a659ce""#;

    fn copy(more: &str) -> Result<CopyBackupRequest, Invalid> {
        parse_body(format!(r#"{{"replicate":{{{DESTINATION}{more}}}}}"#).as_bytes())
    }

    #[test]
    fn a_copy_has_limits_of_its_own() {
        assert!(copy("").is_ok());
        assert!(copy(r#","name":"copy","description":"","enable_acceleration":false"#).is_ok());
        for (more, key) in [
            (
                r#","enable_acceleration":true"#,
                "replicate.enable_acceleration",
            ),
            (r#","name":"a b""#, "replicate.name"),
            (r#","description":"<""#, "replicate.description"),
        ] {
            let message = copy(more).unwrap_err().message;
            assert!(
                message.starts_with(&format!("Invalid {key} provided.")),
                "{message}"
            );
        }
        let body = format!(r#"{{"replicate":{{{DESTINATION}}}}}"#).replace("region2", "a b");
        assert!(parse_body::<CopyBackupRequest>(body.as_bytes()).is_err());
    }

    #[test]
    fn a_vaults_copies_are_asked_for_in_two_forms() {
        let parse = |body: String| {
            let request: CopyCheckpointRequest = parse_body(body.as_bytes())?;
            request.into_replication()
        };
        let plain = format!(r#"{{"replicate":{{{VAULT},{DESTINATION}}}}}"#);
        assert!(parse(plain.clone()).is_ok());
        assert!(parse(format!(r#"{{"checkpoint":{plain}}}"#)).is_ok());
        let missing = parse("{}".to_owned()).unwrap_err().message;
        assert_eq!(missing, "Invalid replicate provided. It is missing.");
        let boxed = format!(r#"{{"checkpoint":{plain}}}"#).replace("region2", "?");
        assert!(parse(boxed).is_err());
    }
}
