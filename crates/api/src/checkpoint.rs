//! Checkpoints on the wire.

use cairn_types::{
    CheckpointId, CheckpointStatus, PolicyId, ProjectId, ProtectStatus, ResourceId, ResourceType,
    Timestamp, VaultId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::resource::Resource;
use crate::validate::{self, Invalid, Validate, require};
use crate::{text, wire_time};

/// The body of `CreateCheckpoint`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateCheckpointRequest {
    /// The checkpoint that is wished for.
    pub checkpoint: NewCheckpoint,
}

/// A checkpoint that is wished for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewCheckpoint {
    /// The vault to back up.
    pub vault_id: VaultId,
    /// What to back up, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<CheckpointParameters>,
}

/// What to back up, and how.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CheckpointParameters {
    /// Made by a policy; `false` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_trigger: Option<bool>,
    /// What the backups are for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Read only what changed; `true` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental: Option<bool>,
    /// The backups' name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The resources to back up; all of the vault's if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<ResourceId>>,
    /// The resources to back up, with a choice of their disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_details: Option<Vec<Resource>>,
    /// How long to keep the backups, in days; -1, or unset, is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_duration_days: Option<i64>,
    /// The policy by which they are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
}

impl Validate for CreateCheckpointRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let Some(parameters) = &self.checkpoint.parameters else {
            return Ok(());
        };
        validate::optional(&parameters.name, |name| {
            validate::name("checkpoint.parameters.name", name)
        })?;
        validate::optional(&parameters.description, |text| {
            let key = "checkpoint.parameters.description";
            validate::description(key, text, validate::MAX_DESCRIPTION_CHARS)
        })?;
        let resources = parameters.resources.as_ref().map_or(0, Vec::len);
        validate::count(
            "checkpoint.parameters.resources",
            resources,
            (0, validate::MAX_RESOURCES),
        )?;
        validate::optional(&parameters.resource_details, |details| {
            let key = "checkpoint.parameters.resource_details";
            validate::count(key, details.len(), (0, validate::MAX_RESOURCES))?;
            details
                .iter()
                .try_for_each(|resource| resource.validate_at(key))
        })?;
        let Some(days) = parameters.retention_duration_days else {
            return Ok(());
        };
        require(
            days == -1 || (1..=validate::MAX_RETENTION_DAYS).contains(&days),
            "checkpoint.parameters.retention_duration_days",
            format_args!("It takes -1 or 1 to {}.", validate::MAX_RETENTION_DAYS),
        )
    }
}

/// What `CreateCheckpoint` and `ShowCheckpoint` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointResponse {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// Its project.
    pub project_id: ProjectId,
    /// Its state.
    pub status: CheckpointStatus,
    /// When it was asked for.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// The vault, and what of it is backed up.
    pub vault: CheckpointVault,
    /// What was asked for.
    pub extra_info: Option<CheckpointExtraInfo>,
}

/// The vault of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointVault {
    /// The vault's id.
    pub id: VaultId,
    /// The vault's name.
    pub name: String,
    /// The provider that stands for what the vault protects.
    pub provider_id: String,
    /// The resources that are backed up.
    pub resources: Vec<CheckpointResource>,
    /// The resources that are not, each with the reason.
    pub skipped_resources: Vec<SkippedResource>,
}

/// A resource of a checkpoint. Its numbers are strings: two client libraries
/// read them as such and fail otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointResource {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// What was happening to it.
    pub protect_status: ProtectStatus,
    /// Its size, in GB.
    #[serde(with = "text::decimal")]
    #[schema(value_type = String)]
    pub resource_size: u64,
    /// What its backups take, in MB.
    #[serde(with = "text::decimal")]
    #[schema(value_type = String)]
    pub backup_size: u64,
    /// How many backups it has in the vault.
    #[serde(with = "text::decimal")]
    #[schema(value_type = String)]
    pub backup_count: u64,
    /// Always `null`: some clients take only a string here, others only an object.
    pub extra_info: (),
}

/// A resource that a checkpoint leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedResource {
    /// Its id.
    pub id: ResourceId,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// Its name.
    pub name: String,
    /// The error code that says why.
    pub code: String,
    /// One sentence that says why.
    pub reason: String,
}

/// What was asked for with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointExtraInfo {
    /// The backups' name.
    pub name: Option<String>,
    /// What the backups are for.
    pub description: Option<String>,
    /// How long they are kept, in days; -1 is for ever.
    pub retention_duration: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    const VAULT: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

    fn request(parameters: &str) -> Result<CreateCheckpointRequest, Invalid> {
        let body =
            format!(r#"{{"checkpoint":{{"vault_id":"{VAULT}","parameters":{parameters}}}}}"#);
        parse_body(body.as_bytes())
    }

    #[test]
    fn the_documented_request_is_read() {
        let read = request(
            r#"{"auto_trigger":true,"description":"backup_description","incremental":true,
                "name":"backup_name","resources":["94eba8b2-acc9-4d82-badc-127144cc5526"]}"#,
        );
        let parameters = read.unwrap().checkpoint.parameters.unwrap();
        assert_eq!(parameters.name.as_deref(), Some("backup_name"));
        assert_eq!(parameters.resources.unwrap().len(), 1);
        assert!(request("null").unwrap().checkpoint.parameters.is_none());
    }

    #[test]
    fn wrong_parameters_are_named() {
        let cases = [
            (r#"{"name":"a b"}"#, "checkpoint.parameters.name"),
            (
                r#"{"description":"<"}"#,
                "checkpoint.parameters.description",
            ),
            (
                r#"{"resources":["x"]}"#,
                "checkpoint.parameters.resources[0]",
            ),
            (
                r#"{"retention_duration_days":0}"#,
                "checkpoint.parameters.retention_duration_days",
            ),
            (
                r#"{"resource_details":[{"id":"x","type":"y"}]}"#,
                "checkpoint.parameters.resource_details[0].id",
            ),
            (r#"{"policy_id":"x"}"#, "checkpoint.parameters.policy_id"),
        ];
        for (parameters, key) in cases {
            let message = request(parameters).unwrap_err().message;
            assert!(
                message.starts_with(&format!("Invalid {key} provided.")),
                "{message}"
            );
        }
        let many = vec![format!("\"{VAULT}\""); 257].join(",");
        assert!(request(&format!(r#"{{"resources":[{many}]}}"#)).is_err());
    }

    #[test]
    fn a_resource_of_a_checkpoint_has_its_numbers_in_strings() {
        let resource = CheckpointResource {
            id: ResourceId::random(),
            name: "web".to_owned(),
            resource_type: ResourceType::Server,
            protect_status: ProtectStatus::Available,
            resource_size: 40,
            backup_size: 0,
            backup_count: 2,
            extra_info: (),
        };
        let value = serde_json::to_value(&resource).unwrap();
        assert_eq!(value["resource_size"], "40");
        assert_eq!(value["backup_count"], "2");
        assert!(value["extra_info"].is_null());
        assert_eq!(
            serde_json::from_value::<CheckpointResource>(value).unwrap(),
            resource
        );
    }
}
