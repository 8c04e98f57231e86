//! Which calls leave a trace, under which name, and what it says.
//!
//! A call that changes something leaves one before it is carried out, durable
//! on disk, and one when its answer is known: no trace, no change. The reads
//! that CTS records leave the second alone.

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cairn_api::{Group, Operation};
use cairn_audit::{Stage, Trace};

use crate::App;
use crate::auth::Proven;
use crate::error::{Failure, RefusedWith, Result};
use crate::permission;
use crate::request::Request;

/// Begins the trace of a call; nothing for those that leave none.
///
/// Errors: 503 if the trail cannot be written; then nothing may be done.
pub(crate) async fn asked(
    app: &App,
    operation: Operation,
    proven: &Proven,
    request: &Request,
) -> Result<Option<Trace>> {
    let changes = !permission::only_looks(operation);
    if !changes && !is_recorded_read(operation) {
        return Ok(None);
    }
    let trace = Trace {
        time: app.clock.now(),
        stage: Stage::Asked,
        trace_name: trace_name(operation),
        resource_type: resource_type(operation).to_owned(),
        resource_id: request.path_id().map(str::to_owned),
        method: request.parts.method.to_string(),
        target: request.target().to_owned(),
        request_id: request.id.clone(),
        user_id: Some(proven.caller.user),
        access_key: proven
            .signed
            .as_ref()
            .map(|signed| signed.access_key.clone()),
        project_id: Some(proven.caller.project),
        source_ip: request.source_ip(),
        forwarded_for: request.header("x-forwarded-for").map(str::to_owned),
        status: None,
        error_code: None,
    };
    if changes && let Err(error) = app.trail.add(&trace).await {
        return Err(unwritten(&*error));
    }
    Ok(Some(trace))
}

/// The answer while the trail cannot be written.
fn unwritten(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error, "the audit trail failed");
    Failure::unavailable("The audit trail cannot be written; nothing was changed.")
}

/// Ends the trace of a call with its answer, and gives that back.
pub(crate) async fn answered(app: &App, mut trace: Trace, response: Response) -> Response {
    let looks = trace.method == "GET" && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    let (parts, mut body) = response.into_parts();
    if trace.resource_id.is_none() && trace.method == "POST" && parts.status.is_success() {
        let bytes = to_bytes(body, usize::MAX).await;
        let bytes = bytes.expect("what a handler answers is in memory");
        trace.resource_id = id_in(&bytes);
        body = Body::from(bytes);
    }
    let code = parts.extensions.get::<RefusedWith>();
    let trace = Trace {
        time: app.clock.now(),
        stage: Stage::Answered,
        status: Some(parts.status.as_u16()),
        error_code: code.map(|code| code.0.clone()),
        ..trace
    };
    let added = match looks {
        true => app.trail.add_later(&trace).await,
        false => app.trail.add(&trace).await,
    };
    let Err(error) = added else {
        return Response::from_parts(parts, body);
    };
    let failure = unwritten(&*error);
    match looks {
        true => failure.into_response(),
        // What was done is done, and what was begun stands in the trail: the answer goes out.
        false => Response::from_parts(parts, body),
    }
}

/// The id of what a call made: that of the one object in its answer.
fn id_in(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let mut objects = answer.as_object()?.values();
    let id = objects.find_map(|object| object.get("id")?.as_str());
    id.map(str::to_owned)
}

/// The reads that CTS records.
const fn is_recorded_read(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::ListBackups
            | Operation::ShowBackup
            | Operation::ShowMetadata
            | Operation::ShowMembersDetail
            | Operation::ShowMemberDetail
    )
}

/// The name of an operation's trace. Source: the operations that the Open
/// Telekom Cloud and vendor documentation list for CTS; those that it does not
/// list have the operation's own name.
fn trace_name(operation: Operation) -> String {
    use Operation as Op;

    let name = match operation {
        Op::AddVaultResource => "addResources",
        Op::RemoveVaultResource => "removeResources",
        Op::SetVaultResource => "setResources",
        Op::MigrateVaultResource => "migrateResources",
        Op::AssociateVaultPolicy => "associatePolicy",
        Op::DisassociateVaultPolicy => "dissociatePolicy",
        Op::CreateCheckpoint => "createVaultBackup",
        Op::ImportCheckpoint => "syncVaultBackup",
        Op::CopyCheckpoint => "replicateVaultBackup",
        Op::CreateVaultTags => "createVaultTag",
        Op::DeleteVaultTag => "deleteVaultTag",
        Op::BatchCreateAndDeleteVaultTags => "bulkCreateDeleteVaultTag",
        Op::CopyBackup => "replicateBackup",
        Op::ImportBackup => "syncBackup",
        Op::AddMember => "createBackupMember",
        Op::UpdateMemberStatus => "updateBackupMember",
        Op::DeleteMember => "deleteBackupMember",
        Op::ShowMembersDetail | Op::ShowMemberDetail => "queryBackupMembers",
        Op::ShowBackup => "showBackupDetail",
        Op::ShowMetadata => "showBackupMeta",
        Op::UnregisterAgent => "deleteAgent",
        Op::AddAgentPath => "addAgentPath",
        Op::RemoveAgentPath => "removeAgentPath",
        _ => {
            let id = operation.spec().id;
            return id[..1].to_ascii_lowercase() + &id[1..];
        }
    };
    name.to_owned()
}

/// What an operation's trace is about.
fn resource_type(operation: Operation) -> &'static str {
    match operation.spec().group {
        Group::Policy | Group::OrganizationPolicy => "policy",
        Group::Backup
        | Group::Member
        | Group::Replica
        | Group::Export
        | Group::File
        | Group::Download => "backup",
        Group::Agent | Group::AgentLine => "agent",
        Group::Notification => "notification_target",
        Group::Replication | Group::Import => match operation {
            Operation::CopyBackup | Operation::ImportBackup => "backup",
            _ => "vault",
        },
        _ => "vault",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_have_the_names_of_cts() {
        for (operation, name) in [
            (Operation::CreateVault, "createVault"),
            (Operation::DeletePolicy, "deletePolicy"),
            (Operation::RegisterAgent, "registerAgent"),
            (Operation::CreateCheckpoint, "createVaultBackup"),
            (Operation::ListBackups, "listBackups"),
        ] {
            assert_eq!(trace_name(operation), name);
        }
    }
}
