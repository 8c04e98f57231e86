//! Policies: their rules, and which vaults follow which. What runs them is elsewhere.

use cairn_meta::{Page, Policy, PolicyBinding, PolicyFilter, PolicySchedule, Tx, Vault};
use cairn_policy::Schedule;
use cairn_types::{
    ObjectType, OperationDefinition, PolicyId, PolicyOperation, PolicyType, VaultId, VaultStatus,
};
use uuid::Uuid;

use crate::policy_run::{plan_next, replan};
use crate::{Caller, Refusal, Result, Service};

/// A policy with the vaults that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyView {
    /// The policy.
    pub policy: Policy,
    /// The vaults, in the order in which they were bound.
    pub bindings: Vec<PolicyBinding>,
}

/// A policy to be made; its values have passed the contract's limits.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// Its name.
    pub name: String,
    /// What it does.
    pub operation: PolicyOperation,
    /// Whether it runs.
    pub enabled: bool,
    /// What it does with what it makes.
    pub definition: OperationDefinition,
    /// When it runs.
    pub schedule: NewSchedule,
}

/// A schedule to be made.
#[derive(Debug, Clone, Default)]
pub struct NewSchedule {
    /// CBR's rules.
    pub pattern: Vec<String>,
    /// The zone that its hours are meant in; UTC if unset.
    pub timezone: Option<String>,
    /// The rules of iCalendar.
    pub recurrence_rules: Vec<String>,
    /// How late a run may begin, in minutes.
    pub start_window_minutes: Option<u32>,
}

/// What of a policy is to change; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct PolicyChange {
    /// A new name.
    pub name: Option<String>,
    /// Run, or no longer.
    pub enabled: Option<bool>,
    /// What it does instead.
    pub definition: Option<OperationDefinition>,
    /// When it runs instead.
    pub schedule: Option<ScheduleChange>,
}

/// Another schedule: `None` leaves a thing as it is, `Some(None)` ends it.
#[derive(Debug, Clone, Default)]
pub struct ScheduleChange {
    /// CBR's rules.
    pub pattern: Option<Vec<String>>,
    /// The zone that its hours are meant in.
    pub timezone: Option<Option<String>>,
    /// The rules of iCalendar.
    pub recurrence_rules: Option<Vec<String>>,
    /// How late a run may begin, in minutes.
    pub start_window_minutes: Option<Option<u32>>,
}

impl ScheduleChange {
    /// Errors: `Invalid` what is left is no schedule.
    pub(crate) fn apply(self, schedule: &mut PolicySchedule) -> Result<()> {
        if let Some(pattern) = self.pattern {
            schedule.pattern = pattern;
        }
        if let Some(timezone) = self.timezone {
            schedule.timezone = timezone;
        }
        if let Some(rules) = self.recurrence_rules {
            schedule.recurrence_rules = rules;
        }
        if let Some(window) = self.start_window_minutes {
            schedule.start_window_minutes = window;
        }
        let zone = schedule.timezone.as_deref();
        let whole = Schedule::new(&schedule.pattern, zone, &schedule.recurrence_rules);
        match whole.and_then(|whole| whole.check_for_policy()) {
            Ok(()) if !schedule.pattern.is_empty() || !schedule.recurrence_rules.is_empty() => {
                Ok(())
            }
            Ok(()) => Err(Refusal::Invalid("The policy would have no schedule.".to_owned()).into()),
            Err(error) => Err(Refusal::Invalid(error.to_string()).into()),
        }
    }
}

/// Where a policy lets replicas go stays as it is unless the change names another place.
pub(crate) fn replace_definition(old: &mut OperationDefinition, mut new: OperationDefinition) {
    new.destination_region = new.destination_region.or(old.destination_region.take());
    new.destination_project_id = new.destination_project_id.or(old.destination_project_id);
    *old = new;
}

/// A schedule with an id of its own.
pub(crate) fn new_schedule(new: NewSchedule) -> PolicySchedule {
    PolicySchedule {
        id: Uuid::new_v4(),
        pattern: new.pattern,
        timezone: new.timezone,
        recurrence_rules: new.recurrence_rules,
        start_window_minutes: new.start_window_minutes,
    }
}

impl Service {
    /// Makes a policy.
    ///
    /// Errors: `Exhausted` if the project has enough of its type.
    /// CBR: `CreatePolicy`, `POST /v3/{project_id}/policies`.
    pub async fn create_policy(&self, caller: &Caller, new: NewPolicy) -> Result<PolicyView> {
        let now = self.now();
        let mut policy = Policy {
            id: PolicyId::random(),
            project: caller.project,
            name: new.name,
            operation: new.operation,
            policy_type: PolicyType::Custom,
            enabled: new.enabled,
            definition: new.definition,
            schedule: new_schedule(new.schedule),
            organization_policy: None,
            created_at: now,
            updated_at: now,
            next_slot: None,
            next_run_at: None,
        };
        plan_next(&mut policy, now);
        let mut tx = self.meta().begin().await?;
        let own = tx
            .count_own_policies(caller.project, policy.operation)
            .await?;
        let limit = self.quotas().policies_per_type;
        if own >= limit {
            return Err(Refusal::PolicyLimit { limit }.into());
        }
        tx.insert_policy(&policy).await?;
        tx.commit().await?;
        let bindings = Vec::new();
        Ok(PolicyView { policy, bindings })
    }

    /// A page of the project's policies, newest first, and how many match in all.
    ///
    /// CBR: `ListPolicies`, `GET /v3/{project_id}/policies`.
    pub async fn policies(
        &self,
        caller: &Caller,
        filter: &PolicyFilter,
        page: &Page,
    ) -> Result<(Vec<PolicyView>, u64)> {
        let mut tx = self.meta().read().await?;
        let (policies, count) = tx.policies(caller.project, filter, page).await?;
        let ids: Vec<PolicyId> = policies.iter().map(|policy| policy.id).collect();
        let all = tx.bindings_of(&ids).await?;
        let views = policies.into_iter().map(|policy| {
            let of_this = |binding: &&PolicyBinding| binding.policy == policy.id;
            PolicyView {
                bindings: all.iter().filter(of_this).cloned().collect(),
                policy,
            }
        });
        Ok((views.collect(), count))
    }

    /// One of the project's policies.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowPolicy`, `GET /v3/{project_id}/policies/{policy_id}`.
    pub async fn policy(&self, caller: &Caller, policy: PolicyId) -> Result<PolicyView> {
        let mut tx = self.meta().read().await?;
        let policy = tx
            .policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        view(&mut tx, policy).await
    }

    /// Changes a policy.
    ///
    /// Errors: `NotFound`; `Invalid` for an organization's policy, and for
    /// another destination while vaults replicate by it.
    /// CBR: `UpdatePolicy`, `PUT /v3/{project_id}/policies/{policy_id}`.
    pub async fn update_policy(
        &self,
        caller: &Caller,
        policy: PolicyId,
        change: PolicyChange,
    ) -> Result<PolicyView> {
        let mut tx = self.meta().begin().await?;
        let policy = tx
            .lock_policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        if policy.policy_type != PolicyType::Custom {
            return Err(set_by_organization("changed"));
        }
        let mut view = view(&mut tx, policy).await?;
        let before = view.policy.clone();
        apply_change(&mut view, change)?;
        let now = self.now();
        view.policy.updated_at = now;
        replan(&before, &mut view.policy, now);
        tx.update_policy(&view.policy).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Deletes a policy. The vaults that follow it keep their backups and
    /// follow it no longer.
    ///
    /// Errors: `NotFound`; `Invalid` for an organization's policy that still covers the project.
    /// CBR: `DeletePolicy`, `DELETE /v3/{project_id}/policies/{policy_id}`.
    pub async fn delete_policy(&self, caller: &Caller, policy: PolicyId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let policy = tx
            .lock_policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        match policy.policy_type {
            PolicyType::Custom | PolicyType::OrganizationRemoved => {}
            PolicyType::OrganizationV1 | PolicyType::OrganizationV2 => {
                return Err(set_by_organization("deleted"));
            }
        }
        tx.remove_policy(policy.id).await?;
        Ok(tx.commit().await?)
    }

    /// Has a vault follow policies, each instead of the one of its type that it
    /// followed. Binding what is bound already succeeds. Answers in the order given.
    ///
    /// Errors: `NotFound` vault or policy; `Invalid` for a policy that the
    /// vault's type does not follow, two of one type, or a destination vault
    /// that cannot take the vault's replicas.
    /// CBR: `AssociateVaultPolicy`, `POST /v3/{project_id}/vaults/{vault_id}/associatepolicy`.
    pub async fn associate_policies(
        &self,
        caller: &Caller,
        vault: VaultId,
        policies: &[PolicyId],
        destination: Option<VaultId>,
    ) -> Result<Vec<PolicyBinding>> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if !matches!(vault.status, VaultStatus::Available | VaultStatus::Lock) {
            return Err(Refusal::VaultState {
                state: vault.status.to_string(),
            }
            .into());
        }
        // Whoever binds several takes them in one order, so that no two wait for each other.
        let mut ordered = policies.to_vec();
        ordered.sort_unstable();
        let mut bound: Vec<PolicyBinding> = Vec::with_capacity(policies.len());
        for policy in ordered {
            let binding = self
                .bind_policy(&mut tx, &vault, policy, destination)
                .await?;
            if bound
                .iter()
                .any(|other| other.operation == binding.operation)
            {
                let text = "Invalid add_policy_ids provided. A vault follows one policy of a type.";
                return Err(Refusal::Invalid(text.to_owned()).into());
            }
            bound.push(binding);
        }
        tx.commit().await?;
        bound.sort_by_key(|binding| policies.iter().position(|id| *id == binding.policy));
        Ok(bound)
    }

    /// Has a vault follow a policy no longer.
    ///
    /// Errors: `NotFound` vault, policy, or that the one does not follow the other.
    /// CBR: `DisassociateVaultPolicy`, `POST /v3/{project_id}/vaults/{vault_id}/dissociatepolicy`.
    pub async fn dissociate_policy(
        &self,
        caller: &Caller,
        vault: VaultId,
        policy: PolicyId,
    ) -> Result<PolicyBinding> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        let policy = tx
            .policy(caller.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        let unbound = tx
            .unbind_policy(vault.id, policy.id)
            .await?
            .ok_or(Refusal::PolicyNotBound)?;
        tx.commit().await?;
        Ok(unbound)
    }

    /// Binds a backup policy to a vault that the transaction makes.
    pub(crate) async fn bind_backup_policy(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        policy: PolicyId,
    ) -> Result<()> {
        let found = tx.policy(vault.project, policy).await?;
        match found.ok_or(Refusal::PolicyNotFound)?.operation {
            PolicyOperation::Backup => self.bind_policy(tx, vault, policy, None).await?,
            PolicyOperation::Replication => return Err(Refusal::PolicyNotApplicable.into()),
        };
        Ok(())
    }

    /// Binds a policy to a vault that the transaction holds.
    async fn bind_policy(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        policy: PolicyId,
        destination: Option<VaultId>,
    ) -> Result<PolicyBinding> {
        let policy = tx
            .lock_policy(vault.project, policy)
            .await?
            .ok_or(Refusal::PolicyNotFound)?;
        applies(vault, policy.operation)?;
        if policy.policy_type == PolicyType::OrganizationRemoved {
            let bindings = tx.bindings_of(&[policy.id]).await?;
            if !bindings.iter().any(|binding| binding.vault == vault.id) {
                return Err(Refusal::PolicyNotApplicable.into());
            }
        }
        let destination = match policy.operation {
            PolicyOperation::Backup => None,
            PolicyOperation::Replication => {
                let destination = destination.ok_or_else(|| {
                    let text =
                        "Invalid destination_vault_id provided. A replication policy needs it.";
                    Refusal::Invalid(text.to_owned())
                })?;
                if !self.goes_elsewhere(&policy)? {
                    refuse_destination(tx, vault, destination).await?;
                }
                Some(destination)
            }
        };
        let binding = PolicyBinding {
            vault: vault.id,
            policy: policy.id,
            operation: policy.operation,
            destination,
            bound_at: self.now(),
        };
        tx.bind_policy(&binding).await?;
        Ok(binding)
    }

    /// Whether replicas by a policy go to another server. Its vault is asked for there, by
    /// each run: what is there today may be gone by then.
    ///
    /// Errors: `Invalid` for a project there that this server may not use.
    fn goes_elsewhere(&self, policy: &Policy) -> Result<bool> {
        let region = policy.definition.destination_region.as_deref();
        let region = region.filter(|region| *region != self.region());
        let names = self.regions().names();
        let Some(region) = region.filter(|region| names.iter().any(|name| name == region)) else {
            return Ok(false);
        };
        let there = policy.definition.destination_project_id;
        match there.is_some_and(|there| self.regions().allows(region, policy.project, there)) {
            true => Ok(true),
            false => Err(Refusal::ProjectNotReplicable.into()),
        }
    }
}

fn set_by_organization(verb: &str) -> crate::Error {
    let text =
        format!("Invalid policy_id provided. An organization's policy cannot be {verb} here.");
    Refusal::Invalid(text).into()
}

async fn view(tx: &mut Tx, policy: Policy) -> Result<PolicyView> {
    let bindings = tx.bindings_of(&[policy.id]).await?;
    Ok(PolicyView { policy, bindings })
}

fn apply_change(view: &mut PolicyView, change: PolicyChange) -> Result<()> {
    let policy = &mut view.policy;
    if let Some(definition) = change.definition {
        let place =
            |of: &OperationDefinition| (of.destination_region.clone(), of.destination_project_id);
        let before = place(&policy.definition);
        replace_definition(&mut policy.definition, definition);
        let replicates = policy.operation == PolicyOperation::Replication;
        if replicates && !view.bindings.is_empty() && place(&policy.definition) != before {
            return Err(Refusal::PolicyRegionFixed.into());
        }
    }
    if let Some(schedule) = change.schedule {
        schedule.apply(&mut policy.schedule)?;
    }
    if let Some(name) = change.name {
        policy.name = name;
    }
    policy.enabled = change.enabled.unwrap_or(policy.enabled);
    Ok(())
}

/// Whether a vault follows policies of a type.
/// Source: the constraints of replication policies in the user guide, and error 6136.
fn applies(vault: &Vault, operation: PolicyOperation) -> Result<()> {
    let hybrid = is_hybrid(vault);
    let takes_replicas = vault.protect_type == "replication";
    match operation {
        _ if takes_replicas => Err(Refusal::PolicyNotApplicable.into()),
        // Files of hosts are backed up by the hosts' agents, by policies too.
        PolicyOperation::Backup if hybrid && vault.object_type != ObjectType::File => {
            Err(Refusal::HybridVaultPolicy.into())
        }
        PolicyOperation::Backup => Ok(()),
        PolicyOperation::Replication => match vault.object_type {
            ObjectType::Server | ObjectType::Turbo => Ok(()),
            ObjectType::Vmware if hybrid => Ok(()),
            _ => Err(Refusal::PolicyNotApplicable.into()),
        },
    }
}

fn is_hybrid(vault: &Vault) -> bool {
    vault.protect_type == "hybrid" || vault.cloud_type == "hybrid"
}

/// What speaks against a vault of this server taking another's replicas: it is one for
/// replicas, in the same project.
async fn refuse_destination(tx: &mut Tx, vault: &Vault, destination: VaultId) -> Result<()> {
    let target = tx
        .vault(vault.project, destination)
        .await?
        .ok_or(Refusal::DestinationVaultNotFound)?;
    if target.protect_type != "replication" {
        return Err(Refusal::DestinationVaultType.into());
    }
    let usable = matches!(target.status, VaultStatus::Available | VaultStatus::Lock);
    if !usable || (target.object_type != vault.object_type && !is_hybrid(vault)) {
        return Err(Refusal::DestinationVaultUnfit.into());
    }
    Ok(())
}
