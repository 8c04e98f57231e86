//! Other regions over HTTP: this server is their client like any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use cairn_api::client::Error as ClientError;
use cairn_api::replica::{
    AnnounceReplicaRequest, AnnouncedReplica, ReplicaResource, ReplicaSource,
};
use cairn_api::vault::{ListVaultQuery, ListVaultResponse};
use cairn_api::{Client, Credentials, ErrorCode};
use cairn_core::{
    AwaitedReplica, NewReplica, RegionError, Regions, ReplicaState, ReplicatedResource,
};
use cairn_link::{Connection, End, EphemeralKey, Limit, Purpose};
use cairn_types::{BackupId, Clock, Kind, ProjectId};

/// Another region, as the configuration names it.
#[derive(Debug, Clone)]
pub struct RegionSettings {
    /// Its name.
    pub name: String,
    /// Its address, and who this server is there. The project counts for nothing.
    pub credentials: Credentials,
    /// Bytes that may go there in a second.
    pub bytes_per_second: Option<u64>,
    /// Which projects here may use it, and for which projects there; all, if not given.
    pub projects: Option<BTreeMap<ProjectId, Vec<ProjectId>>>,
}

/// The regions that this server has credentials for.
pub struct HttpRegions {
    regions: BTreeMap<String, Region>,
}

struct Region {
    client: Client,
    secret_key: String,
    limits: Vec<Arc<Limit>>,
    projects: Option<BTreeMap<ProjectId, Vec<ProjectId>>>,
}

impl HttpRegions {
    /// These regions; all together are sent no more than so many bytes in a second.
    ///
    /// Errors: `Invalid` an address is none.
    pub fn new(
        settings: Vec<RegionSettings>,
        bytes_per_second: Option<u64>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let of_all = bytes_per_second.map(|rate| Arc::new(Limit::new(rate)));
        let mut regions = BTreeMap::new();
        for one in settings {
            let own = one.bytes_per_second.map(|rate| Arc::new(Limit::new(rate)));
            let region = Region {
                secret_key: one.credentials.secret_key.0.clone(),
                client: Client::new(one.credentials, Arc::clone(clock))?,
                limits: of_all.iter().cloned().chain(own).collect(),
                projects: one.projects,
            };
            regions.insert(one.name, region);
        }
        Ok(Self { regions })
    }

    /// Lists vaults of a project there.
    pub(crate) async fn vaults(
        &self,
        region: &str,
        project: ProjectId,
        query: &ListVaultQuery,
    ) -> Result<ListVaultResponse, RegionError> {
        let client = self.client(region, project)?;
        client.list_vaults(query).await.map_err(region_error)
    }

    fn region(&self, name: &str) -> Result<&Region, RegionError> {
        self.regions.get(name).ok_or_else(|| RegionError {
            kind: Kind::Invalid,
            code: None,
            message: format!("the configuration names no region {name:?}"),
        })
    }

    fn client(&self, region: &str, project: ProjectId) -> Result<Client, RegionError> {
        Ok(self.region(region)?.client.in_project(project))
    }
}

#[async_trait]
impl Regions for HttpRegions {
    fn names(&self) -> Vec<String> {
        self.regions.keys().cloned().collect()
    }

    fn allows(&self, region: &str, here: ProjectId, there: ProjectId) -> bool {
        let projects = self.regions.get(region).map(|region| &region.projects);
        match projects {
            None => false,
            Some(None) => true,
            Some(Some(projects)) => projects
                .get(&here)
                .is_some_and(|projects| projects.contains(&there)),
        }
    }

    fn limits(&self, region: &str) -> Vec<Arc<Limit>> {
        let region = self.regions.get(region);
        region
            .map(|region| region.limits.clone())
            .unwrap_or_default()
    }

    async fn announce(
        &self,
        region: &str,
        project: ProjectId,
        replica: &NewReplica,
    ) -> Result<AwaitedReplica, RegionError> {
        let client = self.client(region, project)?;
        let request = announcement(replica);
        let answer = client.announce_replica(&request).await;
        let awaited = answer.map_err(region_error)?.replica;
        Ok(AwaitedReplica {
            backup: awaited.id,
            checkpoint: awaited.checkpoint_id,
        })
    }

    async fn replica(
        &self,
        region: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<ReplicaState, RegionError> {
        let answer = self.client(region, project)?.show_replica(replica).await;
        let replica = answer.map_err(region_error)?.replica;
        Ok(ReplicaState {
            status: replica.status,
            error: replica.error_message,
        })
    }

    async fn connect(
        &self,
        region: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<Connection, RegionError> {
        let client = self.client(region, project)?;
        let ours = EphemeralKey::generate();
        let connected = client.connect_replica(replica, &ours.public()).await;
        let (stream, theirs) = connected.map_err(region_error)?;
        let secret = self.region(region)?.secret_key.as_bytes();
        let keys = ours.agree(End::Answering, &theirs, (Purpose::Replica(replica), secret));
        let keys = keys.map_err(|error| RegionError {
            kind: error.kind(),
            code: None,
            message: error.to_string(),
        })?;
        Ok(Connection::new(Box::new(stream), keys))
    }

    async fn withdraw(
        &self,
        region: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<(), RegionError> {
        let client = self.client(region, project)?;
        let answer = client.withdraw_replica(replica).await;
        answer.map_err(region_error)
    }
}

fn announcement(replica: &NewReplica) -> AnnounceReplicaRequest {
    let source = &replica.source;
    AnnounceReplicaRequest {
        replica: AnnouncedReplica {
            vault_id: replica.vault,
            name: replica.name.clone(),
            description: replica.description.clone(),
            auto_trigger: replica.auto_trigger,
            source: ReplicaSource {
                region: source.region.clone(),
                project_id: source.project,
                vault_id: source.vault,
                checkpoint_id: source.checkpoint,
                backup_id: source.backup,
            },
            resource: resource(&replica.resource),
            disks: replica.disks.iter().map(resource).collect(),
            metadata: replica.metadata.clone(),
            expired_at: replica.expired_at,
            operation_definition: replica.made_under.clone(),
        },
    }
}

fn resource(resource: &ReplicatedResource) -> ReplicaResource {
    ReplicaResource {
        id: resource.id,
        name: resource.name.clone(),
        resource_type: resource.resource_type,
        size_bytes: resource.size_bytes,
        system_disk: resource.system_disk,
        backup_name: resource.backup_name.clone(),
    }
}

/// What went wrong, in words that may go on to whoever asked this server.
fn region_error(error: ClientError) -> RegionError {
    let kind = error.kind();
    tracing::debug!(
        error = &error as &(dyn std::error::Error + 'static),
        "another region did not do what it was asked"
    );
    match error {
        ClientError::Service { code, message, .. } => RegionError {
            kind: match ErrorCode::by_code(&code) {
                Some(ErrorCode::BackupRunning | ErrorCode::AlreadyReplicated) => Kind::Conflict,
                _ => kind,
            },
            code: Some(code),
            message,
        },
        other => RegionError {
            kind,
            code: None,
            message: other.to_string(),
        },
    }
}
