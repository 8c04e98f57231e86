//! Runs of policies: when one is due, what it starts, and what is said where it starts
//! nothing. Whether a policy is due is decided by `cairn_policy` alone.
//!
//! A slot is used up in the transaction that starts its run, so that it runs once,
//! whoever else looks at the same time and whenever the process ends.

use std::collections::HashMap;

use cairn_meta::{Policy, PolicyBinding, Tx, Vault};
use cairn_policy::{Due, Schedule, due, start_of};
use cairn_source::{Inventory, Protectable};
use cairn_types::{
    NotificationEvent, OperationDefinition, OperationLogId, OperationType, PolicyId,
    PolicyOperation, ProjectId, Timestamp, VaultId,
};

use crate::checkpoint::{NewCheckpoint, RunOf};
use crate::notification::Event;
use crate::operation_log::NewOperation;
use crate::service::Outcome;
use crate::work::Task;
use crate::{Caller, Error, OperationDetail, Refusal, ReplicaTarget, Result, Service};

/// Policies whose runs start in one transaction, and about as many backups.
const AT_ONCE: u32 = 64;
const BACKUPS_AT_ONCE: usize = 512;

const STILL_AT_WORK: &str = "The slot was skipped: the run before it is still at work.";
const NOTHING_BOUND: &str =
    "The slot was skipped: the vault has no resource that policies back up.";

impl Service {
    /// Starts the runs of policies that are due, of some at a time, and says how many
    /// policies those were: none, if none is due any more.
    pub async fn run_due_policies(&self) -> Result<usize> {
        let now = self.now();
        let next = self.meta().look().await?.next_policy_run().await?;
        if next.is_none_or(|next| next > now) {
            return Ok(0);
        }
        let resources = self.all_protectables().await?;
        let mut tx = self.meta().begin().await?;
        let policies = tx.due_policies(now, AT_ONCE).await?;
        let ids: Vec<_> = policies.iter().map(|policy| policy.id).collect();
        let bindings = tx.bindings_of(&ids).await?;
        let (mut runs, mut backups) = (0, 0);
        for mut policy in policies {
            if backups >= BACKUPS_AT_ONCE {
                break;
            }
            if let Some(due) = due_run(&policy, now) {
                let vaults = bindings
                    .iter()
                    .filter(|binding| binding.policy == policy.id);
                for binding in vaults {
                    let run = (&policy, binding, due);
                    backups += self.run(&mut tx, run, &resources).await?;
                }
            }
            plan_next(&mut policy, now);
            tx.update_policy(&policy).await?;
            runs += 1;
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(runs)
    }

    /// When the next policy runs, if one ever does.
    pub async fn next_policy_run(&self) -> Result<Option<Timestamp>> {
        Ok(self.meta().look().await?.next_policy_run().await?)
    }

    /// Starts a policy's run for one vault, or records why it does not; how many backups it makes.
    async fn run(
        &self,
        tx: &mut Tx,
        (policy, binding, due): (&Policy, &PolicyBinding, Due),
        resources: &Protectables,
    ) -> Result<usize> {
        let Some(vault) = tx.lock_vault(policy.project, binding.vault).await? else {
            return Ok(0);
        };
        let caller = Caller::service(policy.project);
        let started = match policy.operation {
            PolicyOperation::Backup => {
                self.run_backup(tx, &caller, (policy, &vault), resources.of(policy.project))
                    .await
            }
            PolicyOperation::Replication => {
                let of = (policy, &vault, due);
                self.run_replication(tx, &caller, of, binding.destination)
                    .await
            }
        };
        let outcome = match started {
            Ok(started) => return Ok(started),
            Err(Error::Refused(Refusal::RunStillAtWork)) => Outcome::Skipped {
                why: STILL_AT_WORK.to_owned(),
            },
            Err(Error::Refused(Refusal::NothingToBackUp)) => match &resources.trouble {
                Some(why) => Outcome::Failed { why: why.clone() },
                None => Outcome::Skipped {
                    why: NOTHING_BOUND.to_owned(),
                },
            },
            Err(Error::Refused(refusal)) => Outcome::Failed {
                why: refusal.to_string(),
            },
            Err(error) => return Err(error),
        };
        tracing::warn!(policy.id = %policy.id, vault.id = %vault.id, ?outcome, "a run of a policy does not start");
        self.record_run(tx, &caller, (policy, &vault, due), outcome)
            .await?;
        Ok(0)
    }

    async fn run_backup(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        (policy, vault): (&Policy, &Vault),
        resources: &[Protectable],
    ) -> Result<usize> {
        if tx.is_policy_at_work(vault.id).await? {
            return Err(Refusal::RunStillAtWork.into());
        }
        if vault.auto_bind {
            self.bind_by_rules(tx, vault, resources).await?;
        }
        let new = NewCheckpoint {
            vault: vault.id,
            name: None,
            description: String::new(),
            auto_trigger: true,
            incremental: true,
            retention_days: None,
            resources: Vec::new(),
            policy: Some(RunOf {
                id: policy.id,
                definition: policy.definition.clone(),
            }),
        };
        let view = self
            .plan_backups(tx, caller, vault, &new, resources)
            .await?;
        Ok(view.resources.len())
    }

    /// Has the vault's backups copied by a task of its own: another server may have to be asked.
    async fn run_replication(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        (policy, vault, due): (&Policy, &Vault, Due),
        destination: Option<VaultId>,
    ) -> Result<usize> {
        let destination = destination.ok_or(Refusal::DestinationVaultNotFound)?;
        let task = Task::ReplicateByPolicy {
            project: policy.project,
            policy: policy.id,
            vault: vault.id,
            destination,
        };
        let at_work = tx.replications_under_way(vault.id, None, None).await? > 0;
        if at_work || tx.unfinished_task(task.kind(), &task.payload()).await? {
            return Err(Refusal::RunStillAtWork.into());
        }
        let operation = run_log((policy, vault, due));
        self.enqueue(tx, caller, &task, operation).await?;
        Ok(1)
    }

    /// Copies what a vault has and its destination has not, as a policy's run.
    /// That there is nothing to copy is no failure.
    pub(crate) async fn replicate_by_policy(
        &self,
        (project, policy): (ProjectId, PolicyId),
        vault: VaultId,
        destination: VaultId,
    ) -> Result<()> {
        let found = self.meta().look().await?.policy(project, policy).await?;
        // It was deleted since.
        let Some(policy) = found else {
            return Ok(());
        };
        let here = self.region().to_owned();
        let definition = &policy.definition;
        let region = definition.destination_region.clone();
        let target = ReplicaTarget {
            region: region.unwrap_or_else(|| here.clone()),
            here,
            project: definition.destination_project_id.unwrap_or(project),
            vault: destination,
            name: None,
            description: None,
            policy: Some(RunOf {
                id: policy.id,
                definition: definition.clone(),
            }),
            auto_trigger: true,
            bandwidth: bytes_per_second(definition),
        };
        match self
            .replicate_vault(&Caller::service(project), vault, &target)
            .await
        {
            Err(Error::Refused(Refusal::NothingToReplicate)) => Ok(()),
            done => done.map(drop),
        }
    }

    async fn record_run(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        (policy, vault, due): (&Policy, &Vault, Due),
        outcome: Outcome,
    ) -> Result<()> {
        if let Some((kind, why)) = told_as(&outcome) {
            let event = Event::policy_run(kind, vault, (policy.id, &policy.name), why, self.now());
            self.tell_of_vault(tx, vault, &event).await?;
        }
        let operation = run_log((policy, vault, due));
        self.record(tx, caller, operation, outcome).await
    }

    /// What can be protected, as far as the sources can be listed.
    async fn all_protectables(&self) -> Result<Protectables> {
        let list = |inventory: &Inventory| Ok(inventory.list_readable());
        let (all, errors) = self.ask_inventory(list).await?;
        let owner = self.first_project().await?.map(|project| project.id);
        let mut found = Protectables::default();
        for error in errors {
            tracing::warn!(%error, "a source cannot be listed: policies pass what it holds by");
            found.trouble.get_or_insert_with(|| error.to_string());
        }
        for protectable in all {
            if let Some(project) = protectable.project.or(owner) {
                let own = found.by_project.entry(project).or_default();
                own.push(protectable);
            }
        }
        Ok(found)
    }
}

/// What can be protected.
#[derive(Default)]
struct Protectables {
    by_project: HashMap<ProjectId, Vec<Protectable>>,
    /// Why some of it cannot be told.
    trouble: Option<String>,
}

impl Protectables {
    fn of(&self, project: ProjectId) -> &[Protectable] {
        self.by_project.get(&project).map_or(&[], Vec::as_slice)
    }
}

/// What is told of a run that did not start, and why it did not.
fn told_as(outcome: &Outcome) -> Option<(NotificationEvent, &str)> {
    match outcome {
        Outcome::Done => None,
        Outcome::Skipped { why } => Some((NotificationEvent::PolicyRunSkipped, why)),
        Outcome::Failed { why } => Some((NotificationEvent::PolicyRunFailed, why)),
    }
}

/// How fast a policy's replicas may go over a line.
fn bytes_per_second(definition: &OperationDefinition) -> Option<u64> {
    let mbit = u64::try_from(definition.bandwidth_mbit?).ok()?;
    Some(mbit * 1_000_000 / 8)
}

/// The record of a run as such.
fn run_log<'a>((policy, vault, due): (&Policy, &'a Vault, Due)) -> NewOperation<'a> {
    NewOperation {
        id: OperationLogId::random(),
        vault,
        checkpoint: None,
        policy: Some(policy.id),
        operation_type: match policy.operation {
            PolicyOperation::Backup => OperationType::Backup,
            PolicyOperation::Replication => OperationType::Replication,
        },
        resource: None,
        detail: OperationDetail::PolicyRun {
            slot: due.slot,
            missed: due.missed,
        },
    }
}

/// The slot that a policy is to run for now, if one is.
fn due_run(policy: &Policy, now: Timestamp) -> Option<Due> {
    let slot = policy.next_slot?;
    let done = Timestamp::from_micros(slot.as_micros() - 1);
    due(&schedule_of(policy)?, policy.created_at, Some(done), now)
}

/// Decides when a policy runs next, after an instant.
pub(crate) fn plan_next(policy: &mut Policy, after: Timestamp) {
    let schedule = schedule_of(policy).filter(|_| policy.enabled);
    policy.next_slot = schedule.and_then(|schedule| schedule.next_after(policy.created_at, after));
    let window = policy.schedule.start_window_minutes;
    policy.next_run_at = policy
        .next_slot
        .map(|slot| start_of(slot, window, policy.id.uuid()));
}

/// After a change of a policy: a slot that it waits for stays, unless it is another
/// policy's by now.
pub(crate) fn replan(before: &Policy, policy: &mut Policy, now: Timestamp) {
    if before.schedule != policy.schedule || before.enabled != policy.enabled {
        plan_next(policy, now);
    }
}

/// A policy's schedule. One that cannot be read was written by another version.
fn schedule_of(policy: &Policy) -> Option<Schedule> {
    let kept = &policy.schedule;
    let zone = kept.timezone.as_deref();
    match Schedule::new(&kept.pattern, zone, &kept.recurrence_rules) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            tracing::error!(policy.id = %policy.id, %error, "a policy's schedule cannot be read: it does not run");
            None
        }
    }
}
