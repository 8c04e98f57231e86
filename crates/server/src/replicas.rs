//! Replicas that come from other regions, over HTTP: an extension.

use axum::response::Response;
use cairn_api::replica::{
    AnnounceReplicaRequest, AnnounceReplicaResponse, AwaitedReplica, PROTOCOL, ReplicaResource,
    ReplicaResponse, ReplicaState,
};
use cairn_api::sign::{ALGORITHM, Authorization};
use cairn_core::records::ReplicationEnd;
use cairn_core::{Caller, NewReplica, Refusal, ReplicatedResource};
use cairn_link::Purpose;
use cairn_types::BackupId;
use zeroize::Zeroizing;

use crate::App;
use crate::error::Result;
use crate::lines::Asked;
use crate::request::Request;

pub(crate) async fn announce(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AnnounceReplicaResponse> {
    let wish = request.json::<AnnounceReplicaRequest>()?.replica;
    let source = wish.source;
    let new = NewReplica {
        vault: wish.vault_id,
        name: wish.name,
        description: wish.description,
        auto_trigger: wish.auto_trigger,
        source: ReplicationEnd {
            region: source.region,
            project: source.project_id,
            vault: source.vault_id,
            checkpoint: source.checkpoint_id,
            backup: source.backup_id,
        },
        resource: resource(wish.resource),
        disks: wish.disks.into_iter().map(resource).collect(),
        metadata: wish.metadata,
        expired_at: wish.expired_at,
        made_under: wish.operation_definition,
    };
    let here = &app.site.region;
    let awaited = app.service.announce_replica(caller, here, &new).await?;
    Ok(AnnounceReplicaResponse {
        replica: AwaitedReplica {
            id: awaited.backup,
            checkpoint_id: awaited.checkpoint,
        },
    })
}

fn resource(wish: ReplicaResource) -> ReplicatedResource {
    ReplicatedResource {
        id: wish.id,
        name: wish.name,
        resource_type: wish.resource_type,
        size_bytes: wish.size_bytes,
        system_disk: wish.system_disk,
        backup_name: wish.backup_name,
    }
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<ReplicaResponse> {
    let id = request.path("replica_id")?;
    let state = app.service.replica_state(caller, id).await?;
    Ok(ReplicaResponse {
        replica: ReplicaState {
            id,
            status: state.status,
            error_message: state.error,
        },
    })
}

pub(crate) async fn withdraw(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = request.path("replica_id")?;
    Ok(app.service.withdraw_replica(caller, id).await?)
}

/// Makes the request's connection one by which the replica is asked for. Its keys follow
/// from the secret of the access key that signed the request.
pub(crate) async fn connect(app: &App, caller: &Caller, request: &Request) -> Result<Response> {
    let id: BackupId = request.path("replica_id")?;
    let asked = Asked::by(request, PROTOCOL)?;
    let secret = secret(app, request).await?;
    let agreed = asked.agree(Purpose::Replica(id), &secret)?;
    app.service.expect_connection(caller, id).await?;
    let (service, project) = (app.service.clone(), caller.project);
    agreed.hand_on(app, move |connection| async move {
        service.replica_connected(project, id, connection).await
    })
}

/// The secret of the access key that signed a request. Whoever came as far as this by a
/// signature, it was a good one.
async fn secret(app: &App, request: &Request) -> Result<Zeroizing<Vec<u8>>> {
    let header = request.header("authorization");
    let header = header.filter(|header| header.starts_with(ALGORITHM));
    let signed = header.and_then(|header| Authorization::parse(header).ok());
    let signed = signed.ok_or(Refusal::NotAuthenticated)?;
    let (_, secret) = app.service.secret_of(&signed.access_key).await?;
    Ok(secret)
}
