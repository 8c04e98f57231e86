//! Policies of organizations over HTTP.

use cairn_api::Invalid;
use cairn_api::organization_policy::{
    CreateOrganizationPolicyRequest, ListOrganizationPoliciesQuery,
    ListOrganizationPoliciesResponse, ListOrganizationPolicyDetailQuery,
    ListOrganizationPolicyDetailResponse, OrganizationPolicy as WirePolicy,
    OrganizationPolicyResponse, OrganizationTrigger, OrganizationTriggerProperties,
    PolicyDeployment, UpdateOrganizationPolicyRequest,
};
use cairn_core::{Caller, NewOrganizationPolicy, OrganizationPolicyChange, OrganizationPolicyView};
use cairn_types::{DeploymentStatus, OrganizationPolicyId};

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::policies::{new_schedule, schedule_change};
use crate::request::Request;

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListOrganizationPoliciesResponse> {
    let query = ListOrganizationPoliciesQuery::parse(request.query())?;
    let wanted = query.page();
    let operation = query
        .operation_type
        .ok_or_else(|| Invalid::key("operation_type"))?;
    let (policies, count) = app
        .service
        .organization_policies(caller, operation, &convert::page(&wanted))
        .await?;
    Ok(ListOrganizationPoliciesResponse {
        policies: policies.into_iter().map(policy).collect(),
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<OrganizationPolicyResponse> {
    let body: CreateOrganizationPolicyRequest = request.json()?;
    let wish = body.policy;
    let new = NewOrganizationPolicy {
        name: wish.name,
        description: wish.description.unwrap_or_default(),
        operation: wish.operation_type,
        policy_name: wish.policy_name,
        policy_enabled: wish.policy_enabled,
        definition: wish.policy_operation_definition,
        schedule: new_schedule(wish.policy_trigger),
        effective_scope: wish.effective_scope,
    };
    let made = app.service.create_organization_policy(caller, new).await?;
    Ok(response(made))
}

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<OrganizationPolicyResponse> {
    let shown = app
        .service
        .organization_policy(caller, id(request)?)
        .await?;
    Ok(response(shown))
}

pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<OrganizationPolicyResponse> {
    let id = id(request)?;
    let body: UpdateOrganizationPolicyRequest = request.json()?;
    let change = OrganizationPolicyChange {
        name: body.policy.name,
        description: body.policy.description,
        policy_name: body.policy.policy_name,
        policy_enabled: body.policy.policy_enabled,
        definition: body.policy.policy_operation_definition,
        schedule: body.policy.policy_trigger.map(schedule_change),
        effective_scope: body.policy.effective_scope,
    };
    let changed = app
        .service
        .update_organization_policy(caller, id, change)
        .await?;
    Ok(response(changed))
}

pub(crate) async fn delete(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = id(request)?;
    Ok(app.service.delete_organization_policy(caller, id).await?)
}

pub(crate) async fn detail(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListOrganizationPolicyDetailResponse> {
    let id = id(request)?;
    let query = ListOrganizationPolicyDetailQuery::parse(request.query())?;
    let wanted = query.page();
    let (policy, pushed, count) = app
        .service
        .organization_policy_detail(caller, id, &convert::page(&wanted))
        .await?;
    let deployments = pushed.into_iter().map(|pushed| PolicyDeployment {
        domain_id: policy.domain,
        project_id: pushed.project,
        policy_id: pushed.id,
        status: DeploymentStatus::Available,
    });
    Ok(ListOrganizationPolicyDetailResponse {
        policies: deployments.collect(),
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

fn id(request: &Request) -> Result<OrganizationPolicyId> {
    request.path("organization_policy_id")
}

fn response(view: OrganizationPolicyView) -> OrganizationPolicyResponse {
    OrganizationPolicyResponse {
        policy: policy(view),
    }
}

fn policy(view: OrganizationPolicyView) -> WirePolicy {
    let policy = view.policy;
    WirePolicy {
        id: policy.id,
        name: policy.name,
        description: policy.description,
        domain_id: policy.domain,
        domain_name: view.domain_name,
        operation_type: policy.operation,
        policy_enabled: policy.policy_enabled,
        policy_name: policy.policy_name,
        policy_operation_definition: policy.definition,
        policy_trigger: OrganizationTrigger {
            properties: OrganizationTriggerProperties {
                pattern: policy.schedule.pattern,
                timezone: policy.schedule.timezone,
                recurrence_rules: policy.schedule.recurrence_rules,
                start_window_minutes: policy.schedule.start_window_minutes,
            },
        },
        effective_scope: policy.effective_scope,
        status: view.status,
    }
}
