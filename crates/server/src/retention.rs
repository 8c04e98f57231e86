//! Retention over HTTP: extensions, CBR has nothing of the kind.

use cairn_api::retention::{
    Explanation as WireExplanation, ExplanationResponse, PreviewPolicyRequest,
    PreviewPolicyResponse, RemovedBackup,
};
use cairn_core::{Caller, Explanation};

use crate::App;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn explain(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ExplanationResponse> {
    let id = request.path("backup_id")?;
    let found = app.service.explain_backup(caller, id).await?;
    let text = text(&found);
    let Explanation {
        backup,
        rules_of,
        kept_by,
        until,
        locked,
    } = found;
    Ok(ExplanationResponse {
        explanation: WireExplanation {
            backup_id: backup.id,
            backup_name: backup.name,
            vault_id: backup.vault,
            resource_id: backup.resource,
            status: backup.status,
            created_at: backup.created_at,
            policy_id: backup.policy,
            rules_of,
            kept_by,
            until,
            locked,
            text,
        },
    })
}

fn text(found: &Explanation) -> String {
    let rules = found.kept_by.join(" and ");
    match (rules.as_str(), found.until) {
        ("", Some(_)) => "Nothing keeps it: it is deleted with the next sweep.".to_owned(),
        ("", None) => {
            "Nothing keeps it: it goes when the next backup of its resource is made.".to_owned()
        }
        (rules, Some(until)) => {
            let until = until.format("%Y-%m-%d %H:%M:%S");
            format!("It is kept by {rules}, until {until} UTC.")
        }
        (rules, None) => format!("It is kept by {rules}, with no end that is known now."),
    }
}

pub(crate) async fn preview(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<PreviewPolicyResponse> {
    let id = request.path("policy_id")?;
    let body: PreviewPolicyRequest = request.json()?;
    let definition = body.policy.operation_definition;
    let removed = app
        .service
        .preview_policy(caller, id, definition, body.vault_id)
        .await?;
    let removed: Vec<RemovedBackup> = removed
        .into_iter()
        .map(|backup| RemovedBackup {
            backup_id: backup.id,
            vault_id: backup.vault,
            resource_id: backup.resource,
            created_at: backup.created_at,
        })
        .collect();
    Ok(PreviewPolicyResponse {
        count: removed.len() as u64,
        removed,
    })
}
