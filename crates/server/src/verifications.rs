//! Verification over HTTP: an extension, CBR has nothing of the kind.

use cairn_api::verification::{
    BegunVerification, ListVerificationsQuery, ListVerificationsResponse, StartVerificationRequest,
    StartVerificationResponse, Verification as WireVerification, VerificationResponse,
};
use cairn_core::records::{VerificationFilter, VerifiedBackup};
use cairn_core::{Caller, VerifyScope};
use cairn_types::VerificationStatus;

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn start(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<StartVerificationResponse> {
    let wish = request.json::<StartVerificationRequest>()?.verification;
    let scope = match (wish.vault_id, wish.backup_id) {
        (Some(vault), _) => VerifyScope::Vault(vault),
        (None, Some(backup)) => VerifyScope::Backup(backup),
        (None, None) => VerifyScope::Project,
    };
    let begun = app.service.start_verification(caller, wish.level, scope);
    Ok(StartVerificationResponse {
        verification: BegunVerification {
            operation_log_id: begun.await?,
            level: wish.level,
            vault_id: wish.vault_id,
            backup_id: wish.backup_id,
        },
    })
}

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListVerificationsResponse> {
    let query = ListVerificationsQuery::parse(request.query())?;
    let wanted = query.page();
    let filter = VerificationFilter {
        status: query.status,
        vault: query.vault_id,
        resource: query.resource_id,
        task: query.operation_log_id,
    };
    let page = convert::page(&wanted);
    let (found, count) = app.service.verifications(caller, &filter, &page).await?;
    Ok(ListVerificationsResponse {
        verifications: found.into_iter().map(verification).collect(),
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<VerificationResponse> {
    let id = request.path("backup_id")?;
    let found = app.service.verification(caller, id).await?;
    Ok(VerificationResponse {
        verification: verification(found),
    })
}

fn verification(view: VerifiedBackup) -> WireVerification {
    let (backup, found) = (view.backup, view.verification);
    let known = found.as_ref();
    WireVerification {
        backup_id: backup.id,
        backup_name: backup.name,
        parent_id: backup.parent,
        vault_id: backup.vault,
        resource_id: backup.resource,
        resource_name: backup.resource_name,
        status: known.map_or(VerificationStatus::Unverified, |found| found.status),
        level: known.map(|found| found.level),
        verified_at: known.map(|found| found.verified_at),
        quick_at: known.and_then(|found| found.quick_at),
        full_at: known.and_then(|found| found.full_at),
        operation_log_id: known.map(|found| found.task),
        problem: known.and_then(|found| found.problem.clone()),
        lost: found.and_then(|found| found.lost),
    }
}
