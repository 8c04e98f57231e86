//! Policies over HTTP, and the vaults that follow them.

use cairn_api::policy::{
    AssociatePolicyRequest, AssociatePolicyResponse, AssociatedVault, CreatePolicyRequest,
    DissociatePolicyRequest, DissociatePolicyResponse, ListPoliciesQuery, ListPoliciesResponse,
    Policy as WirePolicy, PolicyResponse, UpdatePolicyRequest, VaultPolicy,
};
use cairn_api::simulation::{MAX_ANSWERED, SimulatePolicyRequest, SimulatePolicyResponse};
use cairn_api::trigger::{NewTrigger, Trigger, TriggerProperties};
use cairn_api::{ErrorCode, Invalid};
use cairn_core::records::{PolicyBinding, PolicyFilter};
use cairn_core::{Caller, NewPolicy, NewSchedule, PolicyChange, PolicyView, ScheduleChange};
use cairn_types::{PolicyId, PolicyOperation, VaultId};

use crate::App;
use crate::convert;
use crate::error::{Failure, Result};
use crate::request::Request;

/// What CBR calls every trigger, and the one type that there is.
const TRIGGER: (&str, &str) = ("default", "time");

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListPoliciesResponse> {
    let query = ListPoliciesQuery::parse(request.query())?;
    let page = convert::page(&query.page());
    let filter = PolicyFilter {
        operation: query.operation_type,
        vault: query.vault_id,
    };
    let (policies, count) = app.service.policies(caller, &filter, &page).await?;
    let policies = policies.iter().map(policy).collect();
    Ok(ListPoliciesResponse { policies, count })
}

pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<PolicyResponse> {
    let body: CreatePolicyRequest = request.json()?;
    let wish = body.policy;
    let operation = operation(&wish.operation_type)?;
    let new = NewPolicy {
        name: wish.name,
        operation,
        enabled: wish.enabled.unwrap_or(true),
        definition: wish.operation_definition,
        schedule: new_schedule(wish.trigger),
    };
    let made = app.service.create_policy(caller, new).await?;
    Ok(response(&made))
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<PolicyResponse> {
    Ok(response(&app.service.policy(caller, id(request)?).await?))
}

pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<PolicyResponse> {
    let id = id(request)?;
    let body: UpdatePolicyRequest = request.json()?;
    let change = PolicyChange {
        name: body.policy.name,
        enabled: body.policy.enabled,
        definition: body.policy.operation_definition,
        schedule: body.policy.trigger.map(schedule_change),
    };
    let changed = app.service.update_policy(caller, id, change).await?;
    Ok(response(&changed))
}

pub(crate) async fn delete(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    Ok(app.service.delete_policy(caller, id(request)?).await?)
}

/// What a policy would do, without making it.
pub(crate) async fn simulate(app: &App, request: &Request) -> Result<SimulatePolicyResponse> {
    let body: SimulatePolicyRequest = request.json()?;
    let _: PolicyOperation = operation(&body.policy.operation_type)?;
    let now = app.clock.now();
    Ok(body.simulate(now, MAX_ANSWERED)?)
}

fn operation(name: &str) -> Result<PolicyOperation> {
    let unknown = |_| Failure::code(ErrorCode::PolicyTypeUnknown);
    name.parse().map_err(unknown)
}

pub(crate) async fn associate(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AssociatePolicyResponse> {
    let vault: VaultId = request.path("vault_id")?;
    let body: AssociatePolicyRequest = request.json()?;
    let mut ids = body.add_policy_ids.unwrap_or_default();
    ids.extend(body.policy_id);
    let bound = app
        .service
        .associate_policies(caller, vault, &ids, body.destination_vault_id)
        .await?;
    let first = bound.first().ok_or_else(|| Invalid::key("policy_id"))?;
    Ok(AssociatePolicyResponse {
        associate_policy: vault_policy(first),
    })
}

pub(crate) async fn dissociate(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<DissociatePolicyResponse> {
    let vault: VaultId = request.path("vault_id")?;
    let body: DissociatePolicyRequest = request.json()?;
    let unbound = app
        .service
        .dissociate_policy(caller, vault, body.policy_id)
        .await?;
    Ok(DissociatePolicyResponse {
        dissociate_policy: vault_policy(&unbound),
    })
}

fn id(request: &Request) -> Result<PolicyId> {
    request.path("policy_id")
}

/// A trigger as a schedule, where there was none before.
pub(crate) fn new_schedule(trigger: NewTrigger) -> NewSchedule {
    let properties = trigger.properties;
    NewSchedule {
        pattern: properties.pattern.unwrap_or_default(),
        timezone: properties.timezone.flatten(),
        recurrence_rules: properties.recurrence_rules.flatten().unwrap_or_default(),
        start_window_minutes: properties.start_window_minutes.flatten(),
    }
}

/// A trigger as a change of the schedule.
pub(crate) fn schedule_change(trigger: NewTrigger) -> ScheduleChange {
    let properties = trigger.properties;
    ScheduleChange {
        pattern: properties.pattern,
        timezone: properties.timezone,
        recurrence_rules: properties.recurrence_rules.map(Option::unwrap_or_default),
        start_window_minutes: properties.start_window_minutes,
    }
}

fn vault_policy(binding: &PolicyBinding) -> VaultPolicy {
    VaultPolicy {
        vault_id: binding.vault,
        policy_id: binding.policy,
        destination_vault_id: binding.destination,
    }
}

fn response(view: &PolicyView) -> PolicyResponse {
    PolicyResponse {
        policy: policy(view),
    }
}

fn policy(view: &PolicyView) -> WirePolicy {
    let policy = &view.policy;
    let bindings = view.bindings.iter();
    WirePolicy {
        id: policy.id,
        name: policy.name.clone(),
        enabled: policy.enabled,
        operation_type: policy.operation,
        policy_type: policy.policy_type,
        operation_definition: policy.definition.clone(),
        trigger: Trigger {
            id: policy.schedule.id,
            name: TRIGGER.0.to_owned(),
            trigger_type: TRIGGER.1.to_owned(),
            properties: TriggerProperties {
                pattern: policy.schedule.pattern.clone(),
                timezone: policy.schedule.timezone.clone(),
                recurrence_rules: policy.schedule.recurrence_rules.clone(),
                start_time: policy.created_at,
                start_window_minutes: policy.schedule.start_window_minutes,
            },
        },
        associated_vaults: bindings
            .map(|binding| AssociatedVault {
                vault_id: binding.vault,
                destination_vault_id: binding.destination,
            })
            .collect(),
    }
}
