//! Policies of an organization: made in one project, they become a policy in
//! every project of their scope, which those may follow but not change.
//!
//! The scope never reaches further than who asks: only into projects of the
//! same domain in which they may make policies themselves. What such a policy became
//! is settled in the transaction that changes it, so that `available` is what
//! every later call sees.

use cairn_meta::{OrganizationPolicy, Page, Policy, PolicySchedule, Tx};
use cairn_types::{
    DeploymentStatus, OperationDefinition, OrganizationPolicyId, PolicyId, PolicyOperation,
    PolicyType, ProjectId, Role, Timestamp,
};

use uuid::Uuid;

use crate::policy::{NewSchedule, ScheduleChange, new_schedule, replace_definition};
use crate::policy_run::{plan_next, replan};
use crate::{Caller, Refusal, Result, Service};

/// The scope that is every project within reach.
const EVERYWHERE: &str = "all";

/// A policy of an organization, as its makers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationPolicyView {
    /// The policy.
    pub policy: OrganizationPolicy,
    /// The name of its domain.
    pub domain_name: String,
    /// How far it is in the projects.
    pub status: DeploymentStatus,
}

/// A policy of an organization to be made; its values have passed the contract's limits.
#[derive(Debug, Clone)]
pub struct NewOrganizationPolicy {
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// What its policies do.
    pub operation: PolicyOperation,
    /// What its policies are called.
    pub policy_name: String,
    /// Whether its policies run.
    pub policy_enabled: bool,
    /// What its policies do with what they make.
    pub definition: OperationDefinition,
    /// When they run.
    pub schedule: NewSchedule,
    /// `all`, or the ids of projects with commas between.
    pub effective_scope: Option<String>,
}

/// What of it is to change; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct OrganizationPolicyChange {
    /// A new name.
    pub name: Option<String>,
    /// Something else to be said of it.
    pub description: Option<String>,
    /// Another name for its policies.
    pub policy_name: Option<String>,
    /// Run, or no longer.
    pub policy_enabled: Option<bool>,
    /// What its policies do instead.
    pub definition: Option<OperationDefinition>,
    /// When they run instead.
    pub schedule: Option<ScheduleChange>,
    /// Other projects.
    pub effective_scope: Option<String>,
}

impl Service {
    /// Makes a policy for an organization, and the policies that it becomes.
    ///
    /// Errors: `Exhausted` if the project made enough of its type; `Invalid`
    /// for a scope with a project out of reach.
    /// CBR: `CreateOrganizationPolicy`, `POST /v3/{project_id}/organization-policies`.
    pub async fn create_organization_policy(
        &self,
        caller: &Caller,
        new: NewOrganizationPolicy,
    ) -> Result<OrganizationPolicyView> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        let made = tx
            .count_organization_policies(caller.project, new.operation)
            .await?;
        let limit = self.quotas().organization_policies_per_type;
        if made >= limit {
            return Err(Refusal::PolicyLimit { limit }.into());
        }
        let project = tx
            .project(caller.project)
            .await?
            .ok_or(Refusal::NotAllowed)?;
        let scope = new.effective_scope.filter(|scope| !scope.is_empty());
        let policy = OrganizationPolicy {
            id: OrganizationPolicyId::random(),
            project: caller.project,
            domain: project.domain,
            name: new.name,
            description: new.description,
            operation: new.operation,
            policy_name: new.policy_name,
            policy_enabled: new.policy_enabled,
            definition: new.definition,
            schedule: new_schedule(new.schedule),
            effective_scope: scope.unwrap_or_else(|| EVERYWHERE.to_owned()),
            created_at: now,
            updated_at: now,
        };
        tx.insert_organization_policy(&policy).await?;
        settle(&mut tx, caller, &policy, now).await?;
        let view = view(&mut tx, policy, DeploymentStatus::Syncing).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// A page of those that were made in the project, newest first, and how many there are.
    ///
    /// CBR: `ListOrganizationPolicies`, `GET /v3/{project_id}/organization-policies`.
    pub async fn organization_policies(
        &self,
        caller: &Caller,
        operation: PolicyOperation,
        page: &Page,
    ) -> Result<(Vec<OrganizationPolicyView>, u64)> {
        let mut tx = self.meta().read().await?;
        let (policies, count) = tx
            .organization_policies(caller.project, operation, page)
            .await?;
        let mut views = Vec::with_capacity(policies.len());
        for policy in policies {
            views.push(view(&mut tx, policy, DeploymentStatus::Available).await?);
        }
        Ok((views, count))
    }

    /// One of those that were made in the project.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowOrganizationPolicy`,
    /// `GET /v3/{project_id}/organization-policies/{organization_policy_id}`.
    pub async fn organization_policy(
        &self,
        caller: &Caller,
        policy: OrganizationPolicyId,
    ) -> Result<OrganizationPolicyView> {
        let mut tx = self.meta().read().await?;
        let policy = tx
            .organization_policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        view(&mut tx, policy, DeploymentStatus::Available).await
    }

    /// Changes one, and what it became.
    ///
    /// Errors: `NotFound`; `Denied` if it reaches a project in which the
    /// caller may make none; `Invalid` for a scope out of reach, or another destination
    /// while vaults replicate by it.
    /// CBR: `UpdateOrganizationPolicy`,
    /// `PUT /v3/{project_id}/organization-policies/{organization_policy_id}`.
    pub async fn update_organization_policy(
        &self,
        caller: &Caller,
        policy: OrganizationPolicyId,
        change: OrganizationPolicyChange,
    ) -> Result<OrganizationPolicyView> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        let mut policy = tx
            .lock_organization_policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        apply_change(&mut policy, change)?;
        policy.updated_at = now;
        tx.update_organization_policy(&policy).await?;
        settle(&mut tx, caller, &policy, now).await?;
        let view = view(&mut tx, policy, DeploymentStatus::Syncing).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Deletes one, and what it became. The vaults that follow such a policy
    /// keep their backups and follow it no longer.
    ///
    /// Errors: `NotFound`; `Denied` if it reaches a project in which the caller may make none.
    /// CBR: `DeleteOrganizationPolicy`,
    /// `DELETE /v3/{project_id}/organization-policies/{organization_policy_id}`.
    pub async fn delete_organization_policy(
        &self,
        caller: &Caller,
        policy: OrganizationPolicyId,
    ) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let policy = tx
            .lock_organization_policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        let reach = reach(&mut tx, caller, &policy).await?;
        for mut pushed in tx.policies_of_organization(policy.id).await? {
            // What a project kept when it left the scope is that project's own affair.
            if pushed.policy_type == PolicyType::OrganizationRemoved {
                continue;
            }
            refuse_out_of_reach(&reach, &pushed)?;
            tx.lock_policy(pushed.project, pushed.id).await?;
            if tx.bindings_of(&[pushed.id]).await?.is_empty() {
                tx.remove_policy(pushed.id).await?;
            } else {
                // No vault loses its schedule because somebody elsewhere tidies up.
                pushed.policy_type = PolicyType::OrganizationRemoved;
                pushed.updated_at = self.now();
                tx.update_policy(&pushed).await?;
            }
        }
        tx.remove_organization_policy(policy.id).await?;
        Ok(tx.commit().await?)
    }

    /// The policies that it became, one for each project, oldest first, and how
    /// far each is; a page of them, and how many there are in all.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ListOrganizationPolicyDetail`,
    /// `GET /v3/{project_id}/organization-policies/{organization_policy_id}/policy-detail`.
    pub async fn organization_policy_detail(
        &self,
        caller: &Caller,
        policy: OrganizationPolicyId,
        page: &Page,
    ) -> Result<(OrganizationPolicy, Vec<Policy>, u64)> {
        let mut tx = self.meta().read().await?;
        let policy = tx
            .organization_policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        let mut pushed = tx.policies_of_organization(policy.id).await?;
        pushed.retain(|pushed| pushed.policy_type == PolicyType::OrganizationV2);
        let count = pushed.len() as u64;
        if let Some(marker) = &page.marker {
            let found = pushed.iter().position(|one| one.id.to_string() == *marker);
            let behind = found.map_or(pushed.len(), |position| position + 1);
            pushed.drain(..behind);
        }
        let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let take = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let pushed = pushed.into_iter().skip(skip).take(take).collect();
        Ok((policy, pushed, count))
    }
}

async fn view(
    tx: &mut Tx,
    policy: OrganizationPolicy,
    status: DeploymentStatus,
) -> Result<OrganizationPolicyView> {
    let domain = tx.domain(policy.domain).await?;
    Ok(OrganizationPolicyView {
        domain_name: domain.map(|domain| domain.name).unwrap_or_default(),
        policy,
        status,
    })
}

fn apply_change(policy: &mut OrganizationPolicy, change: OrganizationPolicyChange) -> Result<()> {
    let replace = |old: &mut String, new: Option<String>| {
        if let Some(new) = new {
            *old = new;
        }
    };
    replace(&mut policy.name, change.name);
    replace(&mut policy.description, change.description);
    replace(&mut policy.policy_name, change.policy_name);
    let scope = change.effective_scope.filter(|scope| !scope.is_empty());
    replace(&mut policy.effective_scope, scope);
    policy.policy_enabled = change.policy_enabled.unwrap_or(policy.policy_enabled);
    if let Some(definition) = change.definition {
        replace_definition(&mut policy.definition, definition);
    }
    if let Some(schedule) = change.schedule {
        schedule.apply(&mut policy.schedule)?;
    }
    Ok(())
}

/// The projects of the policy's domain in which the caller may make policies.
async fn reach(
    tx: &mut Tx,
    caller: &Caller,
    policy: &OrganizationPolicy,
) -> Result<Vec<ProjectId>> {
    let mut reach = Vec::new();
    for project in tx.projects_of(caller.user, None).await? {
        let grant = tx.grant(caller.user, project.id).await?;
        let makes_policies =
            grant.is_some_and(|grant| matches!(grant.role, Role::Administrator | Role::FullAccess));
        if project.domain == policy.domain && makes_policies {
            reach.push(project.id);
        }
    }
    Ok(reach)
}

fn refuse_out_of_reach(reach: &[ProjectId], pushed: &Policy) -> Result<()> {
    match reach.contains(&pushed.project) {
        true => Ok(()),
        false => Err(Refusal::NotAllowed.into()),
    }
}

/// The projects that a scope names, in the order of `reach`.
fn scope_of(scope: &str, reach: &[ProjectId]) -> Result<Vec<ProjectId>> {
    if scope == EVERYWHERE {
        return Ok(reach.to_vec());
    }
    let wrong = || {
        let text = "It takes all, or ids of projects that you may work in, with commas between.";
        Refusal::Invalid(format!("Invalid policy.effective_scope provided. {text}"))
    };
    let named: std::result::Result<Vec<ProjectId>, _> =
        scope.split(',').map(|id| id.trim().parse()).collect();
    let named = named.map_err(|_| wrong())?;
    if named.iter().any(|id| !reach.contains(id)) {
        return Err(wrong().into());
    }
    let wanted = reach.iter().filter(|id| named.contains(id));
    Ok(wanted.copied().collect())
}

/// Makes, changes and takes away policies until each project of the scope has
/// one that is as the organization wants it.
async fn settle(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &OrganizationPolicy,
    now: Timestamp,
) -> Result<()> {
    let reach = reach(tx, caller, wanted).await?;
    let scope = scope_of(&wanted.effective_scope, &reach)?;
    let pushed = tx.policies_of_organization(wanted.id).await?;
    for mut policy in pushed.iter().cloned() {
        let wants = scope.contains(&policy.project);
        if policy.policy_type == PolicyType::OrganizationRemoved && !wants {
            continue;
        }
        refuse_out_of_reach(&reach, &policy)?;
        tx.lock_policy(policy.project, policy.id).await?;
        let bound = !tx.bindings_of(&[policy.id]).await?.is_empty();
        match (wants, bound) {
            (true, bound) => {
                if bound && moves(&policy.definition, &wanted.definition) {
                    return Err(Refusal::PolicyRegionFixed.into());
                }
                let before = policy.clone();
                become_wanted(&mut policy, wanted);
                policy.updated_at = now;
                replan(&before, &mut policy, now);
                tx.update_policy(&policy).await?;
            }
            (false, true) => {
                policy.policy_type = PolicyType::OrganizationRemoved;
                policy.updated_at = now;
                tx.update_policy(&policy).await?;
            }
            (false, false) => tx.remove_policy(policy.id).await?,
        }
    }
    let has_one = |project: &ProjectId| pushed.iter().any(|policy| policy.project == *project);
    for project in scope.iter().filter(|project| !has_one(project)) {
        tx.insert_policy(&new_policy(wanted, *project, now)).await?;
    }
    Ok(())
}

/// Whether replicas would go to another place.
fn moves(old: &OperationDefinition, new: &OperationDefinition) -> bool {
    old.destination_region != new.destination_region
        || old.destination_project_id != new.destination_project_id
}

fn become_wanted(policy: &mut Policy, wanted: &OrganizationPolicy) {
    policy.policy_type = PolicyType::OrganizationV2;
    policy.name.clone_from(&wanted.policy_name);
    policy.enabled = wanted.policy_enabled;
    policy.definition = wanted.definition.clone();
    policy.schedule = PolicySchedule {
        id: policy.schedule.id,
        ..wanted.schedule.clone()
    };
}

fn new_policy(wanted: &OrganizationPolicy, project: ProjectId, now: Timestamp) -> Policy {
    let mut policy = Policy {
        id: PolicyId::random(),
        project,
        name: wanted.policy_name.clone(),
        operation: wanted.operation,
        policy_type: PolicyType::OrganizationV2,
        enabled: wanted.policy_enabled,
        definition: wanted.definition.clone(),
        schedule: PolicySchedule {
            id: Uuid::new_v4(),
            ..wanted.schedule.clone()
        },
        organization_policy: Some(wanted.id),
        created_at: now,
        updated_at: now,
        next_slot: None,
        next_run_at: None,
    };
    plan_next(&mut policy, now);
    policy
}
