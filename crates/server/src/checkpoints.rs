//! Checkpoints over HTTP.

use cairn_api::checkpoint::{
    Checkpoint, CheckpointExtraInfo, CheckpointResource, CheckpointResponse, CheckpointVault,
    CreateCheckpointRequest, SkippedResource,
};
use cairn_core::records::{BoundResource, Skipped};
use cairn_core::{Caller, CheckpointView, NewCheckpoint, ResourceChoice};
use cairn_types::{ByteCount, ResourceType};

use crate::App;
use crate::error::{Result, skip_reason};
use crate::request::Request;

pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CheckpointResponse> {
    let body: CreateCheckpointRequest = request.json()?;
    let parameters = body.checkpoint.parameters.unwrap_or_default();
    let plain = parameters.resources.unwrap_or_default().into_iter();
    let detailed = parameters.resource_details.unwrap_or_default().into_iter();
    let plain = plain.map(|id| ResourceChoice {
        id,
        exclude_volumes: Vec::new(),
    });
    let detailed = detailed.map(|resource| ResourceChoice {
        id: resource.id,
        exclude_volumes: resource
            .extra_info
            .and_then(|extra| extra.exclude_volumes)
            .unwrap_or_default(),
    });
    let new = NewCheckpoint {
        policy: None,
        vault: body.checkpoint.vault_id,
        name: parameters.name,
        description: parameters.description.unwrap_or_default(),
        auto_trigger: parameters.auto_trigger.unwrap_or(false),
        incremental: parameters.incremental.unwrap_or(true),
        retention_days: parameters
            .retention_duration_days
            .and_then(|days| u32::try_from(days).ok()),
        // A resource in both lists is meant once, as its details say.
        resources: detailed.chain(plain).collect(),
    };
    let view = app.service.create_checkpoint(caller, new).await?;
    Ok(CheckpointResponse {
        checkpoint: checkpoint(view),
    })
}

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CheckpointResponse> {
    let view = app
        .service
        .checkpoint(caller, request.path("checkpoint_id")?)
        .await?;
    Ok(CheckpointResponse {
        checkpoint: checkpoint(view),
    })
}

fn checkpoint(view: CheckpointView) -> Checkpoint {
    let record = view.checkpoint;
    let provider = view
        .resources
        .first()
        .map_or(ResourceType::Server, |one| one.resource_type);
    Checkpoint {
        id: record.id,
        project_id: record.project,
        status: view.status,
        created_at: record.created_at,
        vault: CheckpointVault {
            id: record.vault,
            name: record.vault_name,
            provider_id: provider.provider_id().to_owned(),
            resources: view.resources.into_iter().map(resource).collect(),
            skipped_resources: record.skipped.into_iter().map(skipped).collect(),
        },
        extra_info: Some(CheckpointExtraInfo {
            name: Some(record.name),
            description: Some(record.description),
            retention_duration: record.retention_days,
        }),
    }
}

fn resource(bound: BoundResource) -> CheckpointResource {
    CheckpointResource {
        id: bound.id,
        name: bound.name,
        resource_type: bound.resource_type,
        protect_status: bound.protect_status,
        resource_size: ByteCount(bound.size_bytes).gb_ceil(),
        backup_size: ByteCount(bound.backup_bytes).mb_ceil(),
        backup_count: bound.backup_count,
        extra_info: (),
    }
}

fn skipped(skipped: Skipped) -> SkippedResource {
    let (code, reason) = skip_reason(skipped.reason);
    SkippedResource {
        id: skipped.id,
        resource_type: skipped.resource_type,
        name: skipped.name,
        code: code.code().to_owned(),
        reason: reason.to_owned(),
    }
}
