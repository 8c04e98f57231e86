//! Which calls leave a trace, under which name, and what it says.
//!
//! A call that changes something leaves one before it is carried out, durable
//! on disk, and one when its answer is known: no trace, no change. The reads
//! that CTS records leave the second alone.

use axum::http::StatusCode;
use cairn_api::{Group, Operation};
use cairn_audit::{Stage, Trace};

use crate::App;
use crate::auth::Proven;
use crate::error::{Failure, Result};
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
        user_id: proven.caller.user,
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
        tracing::error!(
            error = &*error as &dyn std::error::Error,
            "the audit trail failed"
        );
        return Err(Failure::unavailable(
            "The audit trail cannot be written; nothing was changed.",
        ));
    }
    Ok(Some(trace))
}

/// Ends the trace of a call with what it was answered.
pub(crate) async fn answered(app: &App, trace: Trace, status: StatusCode, code: Option<String>) {
    let looks = trace.method == "GET";
    let trace = Trace {
        time: app.clock.now(),
        stage: Stage::Answered,
        status: Some(status.as_u16()),
        error_code: code,
        ..trace
    };
    // What was done is done, and what was begun stands in the trail: the answer goes out.
    let added = match looks {
        true => app.trail.add_later(&trace).await,
        false => app.trail.add(&trace).await,
    };
    if let Err(error) = added {
        tracing::error!(
            error = &*error as &dyn std::error::Error,
            "the audit trail failed"
        );
    }
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
        Group::Backup | Group::Member => "backup",
        Group::Agent => "agent",
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
