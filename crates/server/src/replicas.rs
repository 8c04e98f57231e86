//! Replicas that come from other regions, over HTTP: an extension.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use cairn_api::replica::{
    AnnounceReplicaRequest, AnnounceReplicaResponse, AwaitedReplica, KEY_HEADER, PROTOCOL,
    ReplicaResource, ReplicaResponse, ReplicaState,
};
use cairn_api::sign::{ALGORITHM, Authorization};
use cairn_core::records::ReplicationEnd;
use cairn_core::{Caller, NewReplica, Refusal, ReplicatedResource};
use cairn_link::{Connection, End, EphemeralKey, Keys, PUBLIC_KEY_BYTES, Purpose};
use cairn_types::BackupId;
use hyper_util::rt::TokioIo;

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;
use crate::upgrade;

/// How long the other end may take to prove that it knows the secret.
const PROVING: Duration = Duration::from_secs(10);

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
    let upgrade = upgrade::asked(request, PROTOCOL)?;
    let (keys, public) = agree(app, request, id).await?;
    app.service.expect_connection(caller, id).await?;
    let place = Arc::clone(&app.handshakes).try_acquire_owned();
    let place = place.map_err(|_| Failure::unavailable("Too many connections begin at once."))?;
    let (service, project) = (app.service.clone(), caller.project);
    app.calls.spawn(async move {
        let proving = async {
            let stream = TokioIo::new(upgrade.await?);
            let connection = Connection::new(Box::new(stream), keys);
            let handed = service.replica_connected(project, id, connection).await;
            handed.map_err(Into::into)
        };
        let proven: std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> =
            match tokio::time::timeout(PROVING, proving).await {
                Ok(proven) => proven,
                Err(late) => Err(late.into()),
            };
        if let Err(error) = proven {
            tracing::warn!(backup.id = %id, error, "A connection for a replica came to nothing.");
        }
        drop(place);
    });
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(KEY_HEADER), public);
    Ok(upgrade::switched(PROTOCOL, headers))
}

/// The keys of a connection, and what the other end is to be told.
async fn agree(app: &App, request: &Request, id: BackupId) -> Result<(Keys, HeaderValue)> {
    let mut theirs = [0; PUBLIC_KEY_BYTES];
    let told = request.header(KEY_HEADER).unwrap_or_default();
    let no_key = || Failure::invalid(KEY_HEADER);
    hex::decode_to_slice(told, &mut theirs).map_err(|_| no_key())?;
    // Whoever came as far as this by a signature, it was a good one.
    let header = request.header("authorization");
    let header = header.filter(|header| header.starts_with(ALGORITHM));
    let signed = header.and_then(|header| Authorization::parse(header).ok());
    let signed = signed.ok_or(Refusal::NotAuthenticated)?;
    let (_, secret) = app.service.secret_of(&signed.access_key).await?;
    let ours = EphemeralKey::generate();
    let public = HeaderValue::from_str(&hex::encode(ours.public()));
    let keys = ours.agree(End::Asking, &theirs, (Purpose::Replica(id), &secret));
    Ok((
        keys.map_err(|_| no_key())?,
        public.expect("digits are plain text"),
    ))
}
