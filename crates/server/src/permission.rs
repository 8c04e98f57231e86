//! Which role may do what.

use cairn_api::{ErrorCode, Group, Operation};
use cairn_core::Caller;
use cairn_types::Role;
use http::Method;

use crate::error::{Failure, Result};

/// What an operation needs of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// It looks, and changes nothing.
    Looking,
    /// It changes what is in the project.
    Changing,
    /// It makes, changes or deletes a policy, or says whom the server sends what.
    Policies,
    /// It concerns other projects of the domain.
    Domain,
}

/// Refuses an operation that the caller's role does not allow.
///
/// Errors: 403 `APIGW.0302`, with the IAM action that is missing.
pub(crate) fn check(operation: Operation, caller: &Caller) -> Result<()> {
    let allowed = match needs(operation) {
        Needs::Looking => true,
        Needs::Changing => caller.role != Role::ReadOnlyAccess,
        Needs::Policies => matches!(caller.role, Role::Administrator | Role::FullAccess),
        Needs::Domain => caller.role == Role::Administrator,
    };
    if allowed {
        return Ok(());
    }
    let spec = operation.spec();
    let missing = spec.iam_action.unwrap_or(spec.id);
    Err(Failure::code_with(
        ErrorCode::NotAuthorized,
        format_args!("{} does not allow {missing}", caller.role),
    ))
}

/// Whether an operation changes nothing.
pub(crate) fn only_looks(operation: Operation) -> bool {
    needs(operation) == Needs::Looking
}

fn needs(operation: Operation) -> Needs {
    use Operation as Op;

    let spec = operation.spec();
    match operation {
        // Questions that are asked by POST.
        Op::ShowVaultResourceInstances
        | Op::CheckAgent
        | Op::SimulatePolicy
        | Op::PreviewPolicy => Needs::Looking,
        Op::CreatePolicy | Op::UpdatePolicy | Op::DeletePolicy => Needs::Policies,
        Op::MigrateDomain => Needs::Domain,
        // What comes by the connection changes what is in the project.
        Op::ConnectReplica => Needs::Changing,
        // They give out what a restore would.
        Op::ConnectExport | Op::ListBackupFiles | Op::FetchBackupFile | Op::DownloadBackup => {
            Needs::Changing
        }
        _ if spec.method == Method::GET => Needs::Looking,
        _ if spec.group == Group::Notification => Needs::Policies,
        _ if spec.group == Group::OrganizationPolicy => Needs::Domain,
        _ => Needs::Changing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verbs of IAM actions that only look.
    const LOOKING: [&str; 4] = ["list", "get", "query", "check"];

    #[test]
    fn the_iam_actions_say_the_same() {
        for operation in Operation::ALL {
            let Some(action) = operation.spec().iam_action else {
                continue;
            };
            let verb = action.rsplit(':').next().unwrap();
            let looks = LOOKING.iter().any(|looking| verb.starts_with(looking));
            assert_eq!(only_looks(*operation), looks, "{operation}: {action}");
        }
    }
}
