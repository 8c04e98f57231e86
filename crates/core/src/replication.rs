//! Replication: a backup is copied, byte for byte, into a replication vault of
//! another project, where it stands alone. The project is here, or in another
//! region, whose server is told of the replica first (`replica.rs`); a task moves the bytes.

mod elsewhere;

use std::collections::BTreeMap;

use cairn_meta::{Backup, Checkpoint, Replication, ReplicationEnd, ReplicationView, Tx, Vault};
use cairn_types::{
    BYTES_PER_GB, BackupId, BackupStatus, CheckpointId, ObjectType, OperationLogId, OperationType,
    ProjectId, ReplicationId, ReplicationStatus, ResourceType, Role, Timestamp, VaultId,
    VaultStatus,
};

use crate::operation_log::NewOperation;
use crate::region::ReplicationRules;
use crate::retention::stamp;
use crate::work::Task;
use crate::{Caller, OperationDetail, Refusal, ReplicatedBackup, Result, RunOf, Service};

/// Backups that one call for a whole vault takes; the oldest go first, and the
/// next call takes the rest.
const MAX_AT_ONCE: usize = 1000;

const BACKUP: &str = "backup";
const REPLICATION: &str = "replication";

/// Where replicas are asked to go.
#[derive(Debug, Clone)]
pub struct ReplicaTarget {
    /// The region of this server.
    pub here: String,
    /// The region to copy to.
    pub region: String,
    /// The project there.
    pub project: ProjectId,
    /// The vault there.
    pub vault: VaultId,
    /// The replica's name; the backup's own, if not given.
    pub name: Option<String>,
    /// What is said of the replica; the same, if not given.
    pub description: Option<String>,
    /// The policy whose run it is, if it is one's.
    pub policy: Option<RunOf>,
    /// Whether the request says that a policy asks.
    pub auto_trigger: bool,
    /// How many bytes in a second may go to another region for this, beside other limits.
    pub bandwidth: Option<u64>,
}

impl Service {
    /// Starts the replication of one backup and returns its record before any data moves.
    ///
    /// Errors: `NotFound` backup or destination vault; `Conflict` while the
    /// backup is busy, or once it has a replica there; `Exhausted` the
    /// destination vault; `Invalid` for what is not replicated and for another
    /// region, project or type of vault.
    /// CBR: `CopyBackup`, `POST /v3/{project_id}/backups/{backup_id}/replicate`.
    pub async fn replicate_backup(
        &self,
        caller: &Caller,
        id: BackupId,
        target: &ReplicaTarget,
    ) -> Result<(Replication, ResourceType)> {
        if target.region != target.here {
            return self.replicate_elsewhere(caller, id, target).await;
        }
        let mut tx = self.meta().begin().await?;
        let backup = tx.lock_backup(caller.project, id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        refuse_source(&backup, self.replication_rules())?;
        let vault = tx.lock_vault(caller.project, backup.vault).await?;
        let vault = vault.ok_or(Refusal::VaultNotFound)?;
        refuse_state(&vault)?;
        let destination = destination(&mut tx, caller, target, vault.object_type).await?;
        let known = tx.replications_of(caller.project, &[id]).await?;
        if is_replicated(&known, id, target) {
            return Err(Refusal::AlreadyReplicated.into());
        }
        let plan = Plan {
            made_at: self.now(),
            source: &vault,
            destination: &destination,
            target,
        };
        let checkpoint = self.plan_checkpoint(&mut tx, &plan, &backup).await?;
        let record = self
            .plan_replica(&mut tx, caller, &plan, &backup, checkpoint)
            .await?;
        tx.commit().await?;
        self.wake_engine();
        Ok((record, backup.resource_type))
    }

    /// Starts the replication of every backup of a vault that has no replica
    /// there yet; replicas of one checkpoint share one.
    ///
    /// Errors: as [`Service::replicate_backup`]; `Conflict` while replicas of
    /// the vault are being made; `Invalid` nothing to replicate.
    /// CBR: `CopyCheckpoint`, `POST /v3/{project_id}/checkpoints/replicate`.
    pub async fn replicate_vault(
        &self,
        caller: &Caller,
        vault: VaultId,
        target: &ReplicaTarget,
    ) -> Result<Vec<Replication>> {
        if target.region != target.here {
            return self.replicate_vault_elsewhere(caller, vault, target).await;
        }
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        refuse_vault(&vault, self.replication_rules())?;
        refuse_state(&vault)?;
        let destination = destination(&mut tx, caller, target, vault.object_type).await?;
        let busy = tx.replications_under_way(vault.id, None, None).await?;
        if busy > 0 {
            return Err(Refusal::VaultReplicating.into());
        }
        let plan = Plan {
            made_at: self.now(),
            source: &vault,
            destination: &destination,
            target,
        };
        let mut checkpoints: BTreeMap<CheckpointId, CheckpointId> = BTreeMap::new();
        let mut records = Vec::new();
        let backups = self.without_replica(&mut tx, &vault, target).await?;
        // They are as old as their backups are, one after the other: retention goes by that.
        for (number, backup) in (0..).zip(backups) {
            let plan = Plan {
                made_at: plan.made_at.plus_micros(number),
                ..plan
            };
            let checkpoint = match checkpoints.get(&backup.checkpoint) {
                Some(checkpoint) => *checkpoint,
                None => self.plan_checkpoint(&mut tx, &plan, &backup).await?,
            };
            checkpoints.insert(backup.checkpoint, checkpoint);
            let record = self.plan_replica(&mut tx, caller, &plan, &backup, checkpoint);
            records.push(record.await?);
        }
        if records.is_empty() {
            return Err(Refusal::NothingToReplicate.into());
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(records)
    }

    /// Writes the checkpoint that replicas of a backup's checkpoint belong to.
    async fn plan_checkpoint(
        &self,
        tx: &mut Tx,
        plan: &Plan<'_>,
        backup: &Backup,
    ) -> Result<CheckpointId> {
        let checkpoint = Checkpoint {
            id: CheckpointId::random(),
            project: plan.destination.project,
            vault: plan.destination.id,
            vault_name: plan.destination.name.clone(),
            name: plan.name(backup),
            description: plan.description(backup),
            retention_days: -1,
            skipped: Vec::new(),
            created_at: self.now(),
        };
        tx.insert_checkpoint(&checkpoint).await?;
        Ok(checkpoint.id)
    }

    /// Writes the rows of one replica, its task and its record.
    async fn plan_replica(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        plan: &Plan<'_>,
        backup: &Backup,
        checkpoint: CheckpointId,
    ) -> Result<Replication> {
        let children = tx.children_of(&[backup.id]).await?;
        let mut replica = self.replica_of(plan, backup, checkpoint);
        replica.name = plan.name(backup);
        replica.description = plan.description(backup);
        tx.insert_backup(&replica).await?;
        for child in &children {
            let mut part = self.replica_of(plan, child, checkpoint);
            part.parent = Some(replica.id);
            tx.insert_backup(&part).await?;
        }
        let task = Task::Replicate {
            project: replica.project,
            backup: replica.id,
            source_project: backup.project,
            source: backup.id,
        };
        let log = OperationLogId::random();
        let operation = NewOperation {
            id: log,
            vault: plan.source,
            checkpoint: Some(backup.checkpoint),
            policy: replica.policy,
            operation_type: OperationType::Replication,
            resource: Some((
                backup.resource,
                backup.resource_name.clone(),
                backup.resource_type,
            )),
            detail: OperationDetail::Replication {
                source: logged(backup, &plan.target.here),
                destination: logged(&replica, &plan.target.region),
            },
        };
        self.enqueue(tx, caller, &task, operation).await?;
        let record = Replication {
            id: ReplicationId::random(),
            task: log,
            auto_trigger: plan.target.auto_trigger,
            source: end(backup, &plan.target.here),
            destination: end(&replica, &plan.target.region),
            created_at: self.now(),
        };
        tx.insert_replication(&record).await?;
        Ok(record)
    }

    /// The row of a replica, or of a disk of one, before any of it is there.
    fn replica_of(&self, plan: &Plan<'_>, backup: &Backup, checkpoint: CheckpointId) -> Backup {
        let now = plan.made_at;
        let policy = plan.target.policy.as_ref();
        Backup {
            id: BackupId::random(),
            project: plan.destination.project,
            vault: plan.destination.id,
            checkpoint,
            parent: None,
            status: BackupStatus::WaitingProtect,
            data_bytes: 0,
            used_bytes: 0,
            image_type: REPLICATION.to_owned(),
            incremental: false,
            auto_trigger: plan.target.auto_trigger,
            enterprise_project: plan.destination.enterprise_project.clone(),
            root: None,
            error_message: None,
            created_at: now,
            updated_at: now,
            protected_at: None,
            expired_at: policy.and_then(|run| stamp(&run.definition, now)),
            policy: policy.map(|run| run.id),
            made_under: policy.map(|run| run.definition.clone()),
            ..backup.clone()
        }
    }
}

/// What the replicas of one call share.
#[derive(Clone, Copy)]
struct Plan<'a> {
    made_at: Timestamp,
    source: &'a Vault,
    destination: &'a Vault,
    target: &'a ReplicaTarget,
}

impl Plan<'_> {
    fn name(&self, backup: &Backup) -> String {
        let name = self.target.name.as_ref();
        name.unwrap_or(&backup.name).clone()
    }

    fn description(&self, backup: &Backup) -> String {
        let description = self.target.description.as_ref();
        description.unwrap_or(&backup.description).clone()
    }
}

fn end(backup: &Backup, region: &str) -> ReplicationEnd {
    ReplicationEnd {
        region: region.to_owned(),
        project: backup.project,
        vault: backup.vault,
        checkpoint: backup.checkpoint,
        backup: backup.id,
    }
}

fn logged(backup: &Backup, region: &str) -> ReplicatedBackup {
    ReplicatedBackup {
        backup: backup.id,
        name: backup.name.clone(),
        checkpoint: backup.checkpoint,
        project: backup.project,
        region: region.to_owned(),
    }
}

/// What of a backup speaks against replicating it.
/// Source: CBR's constraints on replication, as far as the rules do not lift them.
fn refuse_source(backup: &Backup, rules: ReplicationRules) -> std::result::Result<(), Refusal> {
    if backup.image_type != BACKUP && !rules.replicas {
        return Err(Refusal::ReplicaNotReplicable);
    }
    let whole_server = backup.resource_type == ResourceType::Server && backup.system_disk;
    let disk = backup.resource_type == ResourceType::Volume && backup.parent.is_none();
    if !(whole_server || disk && rules.disks) {
        return Err(Refusal::NotAServerBackup);
    }
    match backup.status {
        BackupStatus::Available => Ok(()),
        BackupStatus::Error => Err(Refusal::NothingToReplicate),
        _ => Err(Refusal::BackupBusy { id: backup.id }),
    }
}

/// What of a vault speaks against replicating all of it.
fn refuse_vault(vault: &Vault, rules: ReplicationRules) -> std::result::Result<(), Refusal> {
    if vault.protect_type != BACKUP && !(vault.protect_type == REPLICATION && rules.replicas) {
        return Err(Refusal::VaultNotReplicable);
    }
    match vault.object_type {
        ObjectType::Server => Ok(()),
        ObjectType::Disk if rules.disks => Ok(()),
        other => Err(Refusal::ResourceNotReplicable {
            object_type: other.to_string(),
        }),
    }
}

fn refuse_state(vault: &Vault) -> Result<()> {
    match vault.status {
        VaultStatus::Available | VaultStatus::Lock => Ok(()),
        state => Err(Refusal::VaultState {
            state: state.to_string(),
        }
        .into()),
    }
}

/// Whether a backup has a replica where it is asked to go, or soon will.
fn is_replicated(known: &[ReplicationView], backup: BackupId, target: &ReplicaTarget) -> bool {
    known.iter().any(|view| {
        view.record.source.backup == backup
            && view.record.destination.region == target.region
            && view.status != ReplicationStatus::Fail
    })
}

impl Service {
    /// The backups of a vault that can be replicated and are not yet, oldest first.
    async fn without_replica(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        target: &ReplicaTarget,
    ) -> Result<Vec<Backup>> {
        let rules = self.replication_rules();
        let mut backups = tx.backups_of_vault(vault.id, None).await?;
        backups.retain(|backup| refuse_source(backup, rules).is_ok());
        let ids: Vec<BackupId> = backups.iter().map(|backup| backup.id).collect();
        let known = tx.replications_of(vault.project, &ids).await?;
        backups.retain(|backup| !is_replicated(&known, backup.id, target));
        if target.policy.is_some() {
            // What rules of number have let go since is not made again.
            let there = tx.replicated_into(target.vault, &ids).await?;
            backups.retain(|backup| !there.contains(&backup.id));
        }
        backups.truncate(MAX_AT_ONCE);
        let mut locked = Vec::with_capacity(backups.len());
        for backup in backups {
            // It may have changed between the list and the lock.
            let backup = tx.lock_backup(vault.project, backup.id).await?;
            locked.extend(backup.filter(|backup| refuse_source(backup, rules).is_ok()));
        }
        Ok(locked)
    }
}

/// The vault that replicas go to, if they may.
async fn destination(
    tx: &mut Tx,
    caller: &Caller,
    target: &ReplicaTarget,
    object_type: ObjectType,
) -> Result<Vault> {
    // A project that the caller may not change answers as one that is not there.
    let own = caller.is_service() && target.project == caller.project;
    let grant = tx.grant(caller.user, target.project).await?;
    if !own && grant.is_none_or(|grant| grant.role == Role::ReadOnlyAccess) {
        return Err(Refusal::ProjectNotReplicable.into());
    }
    let takes = |there: ObjectType| there == object_type;
    destination_vault(tx, target.project, target.vault, takes).await
}

/// The vault of a project that replicas go to, if it takes them.
pub(crate) async fn destination_vault(
    tx: &mut Tx,
    project: ProjectId,
    vault: VaultId,
    takes: impl Fn(ObjectType) -> bool,
) -> Result<Vault> {
    let vault = tx.lock_vault(project, vault).await?;
    let vault = vault.ok_or(Refusal::DestinationVaultMissing)?;
    if vault.protect_type != REPLICATION {
        return Err(Refusal::DestinationVaultKind.into());
    }
    let in_service = matches!(vault.status, VaultStatus::Available | VaultStatus::Lock);
    if !in_service || !takes(vault.object_type) {
        let state = vault.status.to_string();
        return Err(Refusal::DestinationVaultCheck { state }.into());
    }
    let used = tx.vault_usage(vault.id).await?.used_bytes;
    if used >= vault.size_gb.saturating_mul(BYTES_PER_GB) {
        return Err(Refusal::DestinationVaultFull.into());
    }
    Ok(vault)
}
