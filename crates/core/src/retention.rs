//! Retention: which backups that policies made stay, and until when. `cairn_policy`
//! decides; here the facts are gathered, and what has ended is deleted.
//!
//! A backup that a rule of numbers lets go ends at that instant, as one whose time
//! is over ends by itself; one sweep deletes all that have ended.

use std::collections::HashMap;

use cairn_meta::{AutomaticBackup, Backup, Tx};
use cairn_policy::{
    Decision, FAILED_KEPT_SECONDS, Fact, Retention, decide, failed_to_remove, is_full_due,
};
use cairn_types::{
    BackupId, BackupStatus, OperationDefinition, PolicyId, PolicyOperation, ResourceId, Timestamp,
    VaultId,
};

use crate::policy::replace_definition;
use crate::{Caller, Refusal, Result, Service};

/// Backups whose deletion is queued in one transaction.
const AT_ONCE: u32 = 256;
const REPLICATION: &str = "replication";
/// What keeps a backup that no policy made.
const MADE_BY_HAND: &str = "made_by_hand";
/// What is said of one that could not be made.
const FAILED: &str = "failed";

/// Why a backup stays, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The backup.
    pub backup: Backup,
    /// The policy whose rules of number apply to it now.
    pub rules_of: Option<PolicyId>,
    /// The rules that keep it; none, if it goes with the next sweep, or with the
    /// next backup where it has no end.
    pub kept_by: Vec<String>,
    /// Until when it is kept at the longest, as far as that is known.
    pub until: Option<Timestamp>,
    /// Whether its vault holds it until then.
    pub locked: bool,
}

/// When a backup that is made under a definition ends by its age, if it does.
pub(crate) fn stamp(definition: &OperationDefinition, created_at: Timestamp) -> Option<Timestamp> {
    retention_of(definition)?.stamp(created_at)
}

fn retention_of(definition: &OperationDefinition) -> Option<Retention> {
    match Retention::new(definition) {
        Ok(retention) => Some(retention),
        Err(error) => {
            tracing::error!(%error, "a policy's retention cannot be read: it lets nothing go");
            None
        }
    }
}

impl Service {
    /// After a policy's backup of a resource: has those end that the rules of number let go.
    pub(crate) async fn settle_retention(&self, tx: &mut Tx, backup: &Backup) -> Result<()> {
        if !backup.auto_trigger {
            return Ok(());
        }
        let Some(rules) = rules_in_force(tx, backup).await? else {
            return Ok(());
        };
        if !rules.retention.counts() {
            return Ok(());
        }
        let now = self.now();
        let decided = decisions(tx, backup, &rules, now).await?;
        let gone = decided
            .into_iter()
            .filter(|(_, decision)| !decision.is_kept());
        let gone: Vec<BackupId> = gone.map(|(id, _)| id).collect();
        Ok(tx.end_backups(&gone, Some(now), now).await?)
    }

    /// Whether a policy wants everything to be read again for a backup that it makes.
    pub(crate) async fn is_full_due(&self, tx: &mut Tx, backup: &Backup) -> Result<bool> {
        let Some(definition) = &backup.made_under else {
            return Ok(false);
        };
        let last = tx.last_full(backup.vault, backup.resource).await?;
        Ok(last
            .is_some_and(|(at, since)| is_full_due(definition, since, Some(at), backup.created_at)))
    }

    /// After a policy could not make a backup: only the newest of such stay, and for a while.
    pub(crate) async fn settle_failed(&self, tx: &mut Tx, backup: &Backup) -> Result<()> {
        if !backup.auto_trigger {
            return Ok(());
        }
        let now = self.now();
        let failed = tx
            .failed_automatic_backups(backup.vault, backup.resource)
            .await?;
        let made: Vec<Timestamp> = failed.iter().map(|one| one.created_at).collect();
        let gone = failed_to_remove(&made, now);
        let gone: Vec<BackupId> = gone.into_iter().map(|at| failed[at].id).collect();
        tx.end_backups(&gone, Some(now), now).await?;
        let latest = backup.created_at.plus_seconds(FAILED_KEPT_SECONDS);
        let until = backup.expired_at.map_or(latest, |until| until.min(latest));
        if !gone.contains(&backup.id) {
            tx.end_backups(&[backup.id], Some(until), now).await?;
        }
        Ok(())
    }

    /// Queues the deletion of backups that have ended, of some at a time, and says how many
    /// it looked at. What is in use is left for later: a resource that is being backed up, a
    /// backup that is restored or copied.
    pub async fn remove_ended_backups(&self) -> Result<usize> {
        let now = self.now();
        let next = self.meta().look().await?.next_end().await?;
        if next.is_none_or(|next| next > now) {
            return Ok(0);
        }
        let mut tx = self.meta().begin().await?;
        let ended = tx.ended_backups(now, AT_ONCE).await?;
        let mut held = HashMap::new();
        let count = ended.len();
        for found in ended {
            if self.is_held(&mut tx, &found, &mut held, now).await? {
                // It ends when a later one takes its place.
                tx.end_backups(&[found.id], None, now).await?;
                continue;
            }
            let Some(vault) = tx.lock_vault(found.project, found.vault).await? else {
                continue;
            };
            let Some(mut backup) = tx.lock_backup(found.project, found.id).await? else {
                continue;
            };
            // A member's restore leaves the state alone.
            if backup.status.is_busy() || tx.is_restored_from(backup.id).await? {
                continue;
            }
            tracing::info!(backup.id = %backup.id, vault.id = %vault.id, "a backup has ended");
            let caller = Caller::service(backup.project);
            self.queue_deletion(&mut tx, &caller, &vault, &mut backup)
                .await?;
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(count)
    }

    /// Whether a rule of number still holds a backup whose time is over.
    async fn is_held(
        &self,
        tx: &mut Tx,
        backup: &Backup,
        known: &mut HashMap<(VaultId, ResourceId), Vec<BackupId>>,
        now: Timestamp,
    ) -> Result<bool> {
        if !backup.auto_trigger || backup.status == BackupStatus::Error {
            return Ok(false);
        }
        let of = (backup.vault, backup.resource);
        if let Some(held) = known.get(&of) {
            return Ok(held.contains(&backup.id));
        }
        let mut held = Vec::new();
        if let Some(rules) = rules_in_force(tx, backup).await?
            && rules.retention.counts()
        {
            let decided = decisions(tx, backup, &rules, now).await?;
            let kept = decided
                .into_iter()
                .filter(|(_, decision)| decision.is_kept());
            held.extend(kept.map(|(id, _)| id));
        }
        let answer = held.contains(&backup.id);
        known.insert(of, held);
        Ok(answer)
    }

    /// When the next backup ends, if one ever does.
    pub async fn next_end(&self) -> Result<Option<Timestamp>> {
        Ok(self.meta().look().await?.next_end().await?)
    }

    /// Why a backup stays, and until when.
    ///
    /// Errors: `NotFound`.
    pub async fn explain_backup(&self, caller: &Caller, id: BackupId) -> Result<Explanation> {
        let now = self.now();
        let mut tx = self.meta().read().await?;
        let found = tx.backup(caller.project, id).await?;
        let backup = found.ok_or(Refusal::BackupNotFound)?;
        // A server's disk stays as long as the server's backup.
        let whole = match backup.parent {
            Some(parent) => tx.backup(caller.project, parent).await?,
            None => Some(backup.clone()),
        };
        let whole = whole.ok_or(Refusal::BackupNotFound)?;
        let locked = whole.auto_trigger && is_locked(&mut tx, &whole).await?;
        let mut explanation = Explanation {
            rules_of: None,
            kept_by: Vec::new(),
            until: whole.expired_at,
            locked,
            backup,
        };
        let ends = whole.expired_at.is_some_and(|until| until <= now);
        if whole.status == BackupStatus::Error {
            explanation
                .kept_by
                .extend((!ends).then(|| FAILED.to_owned()));
            return Ok(explanation);
        }
        if !whole.auto_trigger {
            explanation
                .kept_by
                .extend((!ends).then(|| MADE_BY_HAND.to_owned()));
            return Ok(explanation);
        }
        let rules = match rules_in_force(&mut tx, &whole).await? {
            Some(rules) => rules,
            None => Rules::none(),
        };
        explanation.rules_of = rules.policy;
        let decided = decisions(&mut tx, &whole, &rules, now).await?;
        if let Some((_, decision)) = decided.into_iter().find(|(id, _)| *id == whole.id) {
            let names = decision
                .kept_by
                .iter()
                .map(|reason| reason.name().to_owned());
            explanation.kept_by = names.collect();
            explanation.until = decision.until;
        }
        Ok(explanation)
    }

    /// The backups that a change of a policy would let go, and that stay as it is now:
    /// in the vaults that follow it, and in one more if that is named.
    ///
    /// Errors: `NotFound` policy or vault.
    pub async fn preview_policy(
        &self,
        caller: &Caller,
        policy: PolicyId,
        definition: Option<OperationDefinition>,
        vault: Option<VaultId>,
    ) -> Result<Vec<Backup>> {
        let now = self.now();
        let mut tx = self.meta().read().await?;
        let found = tx.policy(caller.project, policy).await?;
        let policy = found.ok_or(Refusal::PolicyNotFound)?;
        let mut changed = policy.definition.clone();
        if let Some(definition) = definition {
            replace_definition(&mut changed, definition);
        }
        let mut vaults: Vec<VaultId> = tx
            .bindings_of(&[policy.id])
            .await?
            .iter()
            .map(|binding| binding.vault)
            .collect();
        if let Some(vault) = vault {
            let found = tx.vault(caller.project, vault).await?;
            vaults.push(found.ok_or(Refusal::VaultNotFound)?.id);
        }
        vaults.sort_unstable();
        vaults.dedup();
        let Some(retention) = retention_of(&changed) else {
            return Ok(Vec::new());
        };
        let then = Rules {
            policy: Some(policy.id),
            retention,
        };
        let mut gone = Vec::new();
        for vault in vaults {
            gone.append(&mut lost_in(&mut tx, vault, &then, now).await?);
        }
        gone.sort_by_key(|backup| (backup.created_at, backup.id));
        Ok(gone)
    }
}

/// The rules of number that apply.
struct Rules {
    policy: Option<PolicyId>,
    retention: Retention,
}

impl Rules {
    /// Where a vault follows no policy.
    fn none() -> Self {
        let none = OperationDefinition::default();
        Self {
            policy: None,
            retention: Retention::new(&none).expect("nothing is a definition"),
        }
    }
}

/// The rules of number are those of the policy that the vault follows now; for a replica,
/// those that it was made under.
async fn rules_in_force(tx: &mut Tx, backup: &Backup) -> Result<Option<Rules>> {
    let (policy, definition) = if backup.image_type == REPLICATION {
        match (&backup.policy, &backup.made_under) {
            (policy, Some(definition)) => (*policy, definition.clone()),
            _ => return Ok(None),
        }
    } else {
        let operation = PolicyOperation::Backup;
        match tx.policy_of_vault(backup.vault, operation).await? {
            Some(policy) => (Some(policy.id), policy.definition),
            None => return Ok(None),
        }
    };
    let retention = retention_of(&definition);
    Ok(retention.map(|retention| Rules { policy, retention }))
}

async fn is_locked(tx: &mut Tx, backup: &Backup) -> Result<bool> {
    let vault = tx.vault(backup.project, backup.vault).await?;
    Ok(vault.is_some_and(|vault| vault.locked))
}

/// What becomes of each backup that policies made of a backup's resource, in its vault.
async fn decisions(
    tx: &mut Tx,
    backup: &Backup,
    rules: &Rules,
    now: Timestamp,
) -> Result<Vec<(BackupId, Decision)>> {
    let locked = is_locked(tx, backup).await?;
    let found = tx.automatic_backups(backup.vault, backup.resource).await?;
    let facts: Vec<Fact> = found.iter().map(|one| fact(one, locked)).collect();
    let decided = decide(&rules.retention, &facts, now);
    Ok(found.iter().map(|one| one.id).zip(decided).collect())
}

fn fact(found: &AutomaticBackup, locked: bool) -> Fact {
    let made_under = found.made_under.as_ref().filter(|_| locked);
    Fact {
        created_at: found.created_at,
        expired_at: found.expired_at,
        held: false,
        made_under: made_under.and_then(retention_of),
    }
}

/// The backups of a vault that stay by the rules that apply to it, and would not by these.
async fn lost_in(tx: &mut Tx, vault: VaultId, then: &Rules, now: Timestamp) -> Result<Vec<Backup>> {
    let mut gone = Vec::new();
    let mut seen: Vec<ResourceId> = Vec::new();
    let backups = tx.backups_of_vault(vault, None).await?;
    for backup in backups.iter().filter(|backup| backup.auto_trigger) {
        if seen.contains(&backup.resource) {
            continue;
        }
        seen.push(backup.resource);
        let today = rules_in_force(tx, backup).await?.unwrap_or(Rules::none());
        let kept: Vec<BackupId> = decisions(tx, backup, &today, now)
            .await?
            .into_iter()
            .filter_map(|(id, decision)| decision.is_kept().then_some(id))
            .collect();
        for (id, decision) in decisions(tx, backup, then, now).await? {
            if kept.contains(&id) && !decision.is_kept() {
                gone.extend(backups.iter().find(|one| one.id == id).cloned());
            }
        }
    }
    Ok(gone)
}
