//! Replicas that come from another region, on the wire: an extension, by which
//! one server tells another of a backup and connects to it. `docs/REPLICATION.md`
//! says what goes over the connection.

use cairn_types::{
    BackupId, BackupStatus, CheckpointId, OperationDefinition, ProjectId, ResourceId, ResourceType,
    Timestamp, VaultId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::check_definition;
use crate::replication::region;
use crate::validate::{self, Invalid, Validate, require};
use crate::wire_time;

/// What a connection is upgraded to.
pub const PROTOCOL: &str = "cairn-replica/1";
/// The header by which each end tells the other its public key, in hexadecimal.
pub const KEY_HEADER: &str = "x-cairn-key";
/// Disks of a server at most.
pub const MAX_DISKS: usize = 256;

/// The body of `AnnounceReplica`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnnounceReplicaRequest {
    /// The backup that is to be copied here.
    pub replica: AnnouncedReplica,
}

/// A backup in another region that is to be copied here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnnouncedReplica {
    /// The vault that takes it.
    pub vault_id: VaultId,
    /// The replica's name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// Asked for by a policy.
    pub auto_trigger: bool,
    /// What is copied.
    pub source: ReplicaSource,
    /// What it is a backup of.
    pub resource: ReplicaResource,
    /// The disks of a server; none for a disk.
    pub disks: Vec<ReplicaResource>,
    /// The state of the resource, where that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
    /// When the replica ends; never, if unset.
    #[serde(default, with = "wire_time::option")]
    pub expired_at: Option<Timestamp>,
    /// What the policy that makes it wants to be kept: its rules of number are those of the
    /// replicas beside it too. As that of a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_definition: Option<OperationDefinition>,
}

/// A backup as its own region knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaSource {
    /// The region.
    pub region: String,
    /// The project there.
    pub project_id: ProjectId,
    /// The vault there.
    pub vault_id: VaultId,
    /// The checkpoint there.
    pub checkpoint_id: CheckpointId,
    /// The backup.
    pub backup_id: BackupId,
}

/// What a backup is one of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaResource {
    /// The resource.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Whether it is, or has, the system disk.
    pub system_disk: bool,
    /// The name of its backup.
    pub backup_name: String,
}

impl Validate for AnnounceReplicaRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let replica = &self.replica;
        validate::name("replica.name", &replica.name)?;
        let (key, max) = ("replica.description", validate::MAX_DESCRIPTION_CHARS);
        validate::description(key, &replica.description, max)?;
        region("replica.source.region", &replica.source.region)?;
        resource("replica.resource", &replica.resource)?;
        validate::count("replica.disks", replica.disks.len(), (0, MAX_DISKS))?;
        for disk in &replica.disks {
            resource("replica.disks", disk)?;
            let is_disk = disk.resource_type == ResourceType::Volume;
            require(is_disk, "replica.disks", "They are volumes.")?;
        }
        if let Some(definition) = &replica.operation_definition {
            check_definition("replica.operation_definition", definition)?;
        }
        Ok(())
    }
}

fn resource(key: &str, resource: &ReplicaResource) -> Result<(), Invalid> {
    let max = validate::MAX_RESOURCE_NAME_CHARS;
    validate::text(key, &resource.name, max)?;
    validate::text(key, &resource.backup_name, max)?;
    let fits = i64::try_from(resource.size_bytes).is_ok();
    require(fits, key, "No disk is that large.")
}

/// What `AnnounceReplica` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnnounceReplicaResponse {
    /// The replica that is waited for.
    pub replica: AwaitedReplica,
}

/// A replica that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwaitedReplica {
    /// The replica: the same as before, if it was announced already.
    pub id: BackupId,
    /// Its checkpoint.
    pub checkpoint_id: CheckpointId,
}

/// What `ShowReplica` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaResponse {
    /// How far the replica is.
    pub replica: ReplicaState,
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaState {
    /// The replica.
    pub id: BackupId,
    /// Its status as a backup.
    pub status: BackupStatus,
    /// Why it failed, if it did.
    pub error_message: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::parse_body;

    fn announcement() -> Value {
        let id = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
        let resource = |kind: &str| {
            json!({ "id": id, "name": "web-1", "type": kind, "size_bytes": 5,
                "system_disk": true, "backup_name": "manualbk" })
        };
        json!({ "replica": {
            "vault_id": id, "name": "copy", "description": "", "auto_trigger": false,
            "source": { "region": "cairn-1", "project_id": "68589cac08274b82b4e254268a3862d8",
                "vault_id": id, "checkpoint_id": id, "backup_id": id },
            "resource": resource("OS::Nova::Server"),
            "disks": [resource("OS::Cinder::Volume")],
        } })
    }

    fn parse(body: &Value) -> Result<AnnounceReplicaRequest, Invalid> {
        parse_body(body.to_string().as_bytes())
    }

    #[test]
    fn an_announcement_has_limits() {
        assert!(parse(&announcement()).is_ok());
        for (pointer, wrong) in [
            ("/replica/name", json!("a b")),
            ("/replica/description", json!("<")),
            ("/replica/source/region", json!("a b")),
            ("/replica/resource/size_bytes", json!(u64::MAX)),
            ("/replica/disks/0/type", json!("OS::Nova::Server")),
            ("/replica/disks/0/name", json!("x".repeat(300))),
        ] {
            let mut body = announcement();
            *body.pointer_mut(pointer).unwrap() = wrong;
            assert!(parse(&body).is_err(), "{pointer}");
        }
        let mut many = announcement();
        let disk = many["replica"]["disks"][0].clone();
        many["replica"]["disks"] = json!(vec![disk; MAX_DISKS + 1]);
        assert!(parse(&many).is_err());
    }
}
