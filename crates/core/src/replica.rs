//! Replicas that come from other regions: announced, awaited, given up.
//!
//! A replica has rows, an operation log and a task from its announcement on. The
//! task waits for the source's connection and takes no place meanwhile: it is due
//! when a connection has come, or when nothing was heard for too long.

use std::time::Duration;

use cairn_link::{Connection, Line};
use cairn_meta::tasks::{Task as TaskRow, TaskState};
use cairn_meta::{Backup, Checkpoint, Replication, ReplicationEnd, ReplicationView, Tx, Vault};
use cairn_types::{
    BackupId, BackupStatus, CheckpointId, ObjectType, OperationLogId, OperationType, ProjectId,
    ReplicationId, ReplicationStatus, ResourceType,
};

use crate::operation_log::NewOperation;
use crate::region::{AwaitedReplica, NewReplica, ReplicaState, ReplicatedResource};
use crate::replication::destination_vault;
use crate::work::Task;
use crate::{Caller, OperationDetail, Refusal, ReplicatedBackup, Result, Service};

/// How often a task is told that a connection for it has come, unless it takes it.
const TOLD: usize = 10;
const TOLD_EVERY: Duration = Duration::from_millis(300);
/// Disks of a server at most.
const DISKS_MAX: usize = 256;

impl Service {
    /// Has the project wait for a replica that `here`, this region, is to get.
    /// While it is not there yet, the same announcement gives the same replica.
    ///
    /// Errors: as [`Service::replicate_backup`] of the destination.
    /// Cairn: `AnnounceReplica`, `POST /v3/{project_id}/replicas`.
    pub async fn announce_replica(
        &self,
        caller: &Caller,
        here: &str,
        new: &NewReplica,
    ) -> Result<AwaitedReplica> {
        self.refuse_resource(here, new)?;
        let resource_type = new.resource.resource_type;
        let takes = |object_type: ObjectType| object_type.accepts(resource_type);
        let mut tx = self.meta().begin().await?;
        let vault = destination_vault(&mut tx, caller.project, new.vault, takes).await?;
        for known in tx.replications_from(caller.project, &new.source).await? {
            match known.status {
                ReplicationStatus::Success => return Err(Refusal::AlreadyReplicated.into()),
                _ if is_awaited(&known) => {
                    return Ok(AwaitedReplica {
                        backup: known.record.destination.backup,
                        checkpoint: known.record.destination.checkpoint,
                    });
                }
                _ => {}
            }
        }
        let checkpoint = self.checkpoint_for(&mut tx, &vault, new).await?;
        let replica = self.await_replica(&mut tx, (caller, here), (&vault, checkpoint), new);
        let backup = replica.await?;
        tx.commit().await?;
        Ok(AwaitedReplica { backup, checkpoint })
    }

    fn refuse_resource(&self, here: &str, new: &NewReplica) -> Result<()> {
        if new.source.region == here {
            let region = here.to_owned();
            return Err(Refusal::RegionNotReplicable { region }.into());
        }
        let whole_server = new.resource.resource_type == ResourceType::Server
            && !new.disks.is_empty()
            && new.disks.len() <= DISKS_MAX;
        let disk = new.resource.resource_type == ResourceType::Volume && new.disks.is_empty();
        if whole_server || disk && self.replication_rules().disks {
            return Ok(());
        }
        Err(Refusal::NotAServerBackup.into())
    }

    /// The checkpoint that a replica belongs to: that of the others of its checkpoint, if
    /// there are any.
    async fn checkpoint_for(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        new: &NewReplica,
    ) -> Result<CheckpointId> {
        if let Some(known) = tx.checkpoint_copied_from(vault.id, &new.source).await? {
            return Ok(known);
        }
        let checkpoint = Checkpoint {
            id: CheckpointId::random(),
            project: vault.project,
            vault: vault.id,
            vault_name: vault.name.clone(),
            name: new.name.clone(),
            description: new.description.clone(),
            retention_days: -1,
            skipped: Vec::new(),
            created_at: self.now(),
        };
        tx.insert_checkpoint(&checkpoint).await?;
        Ok(checkpoint.id)
    }

    /// Writes the rows of a replica, its task, its log and its record.
    async fn await_replica(
        &self,
        tx: &mut Tx,
        (caller, here): (&Caller, &str),
        (vault, checkpoint): (&Vault, CheckpointId),
        new: &NewReplica,
    ) -> Result<BackupId> {
        let mut replica = self.replica_row(vault, checkpoint, &new.resource, new);
        replica.name.clone_from(&new.name);
        replica.metadata.clone_from(&new.metadata);
        tx.insert_backup(&replica).await?;
        for disk in &new.disks {
            let mut part = self.replica_row(vault, checkpoint, disk, new);
            part.parent = Some(replica.id);
            tx.insert_backup(&part).await?;
        }
        let (log, now) = (OperationLogId::random(), self.now());
        let task = Task::Receive {
            project: replica.project,
            backup: replica.id,
        };
        let mut row = TaskRow::new(log, task.kind(), task.payload(), &caller.request_id, now);
        row.not_before = now.plus_seconds(self.replication_rules().patience_seconds);
        tx.insert_task(&row).await?;
        let destination = ReplicationEnd {
            region: here.to_owned(),
            project: replica.project,
            vault: vault.id,
            checkpoint,
            backup: replica.id,
        };
        let operation = NewOperation {
            id: log,
            vault,
            checkpoint: Some(checkpoint),
            policy: None,
            operation_type: OperationType::Replication,
            resource: Some((
                replica.resource,
                replica.resource_name.clone(),
                replica.resource_type,
            )),
            detail: OperationDetail::Replication {
                source: logged(&new.source, &new.resource.backup_name),
                destination: logged(&destination, &replica.name),
            },
        };
        self.log_operation(tx, caller, operation).await?;
        let record = Replication {
            id: ReplicationId::random(),
            task: log,
            auto_trigger: new.auto_trigger,
            source: new.source.clone(),
            destination,
            created_at: now,
        };
        tx.insert_replication(&record).await?;
        tx.set_heard(record.id, now).await?;
        Ok(replica.id)
    }

    fn replica_row(
        &self,
        vault: &Vault,
        checkpoint: CheckpointId,
        resource: &ReplicatedResource,
        new: &NewReplica,
    ) -> Backup {
        let now = self.now();
        Backup {
            id: BackupId::random(),
            project: vault.project,
            vault: vault.id,
            checkpoint,
            parent: None,
            name: resource.backup_name.clone(),
            description: new.description.clone(),
            status: BackupStatus::WaitingProtect,
            resource: resource.id,
            resource_name: resource.name.clone(),
            resource_type: resource.resource_type,
            size_bytes: resource.size_bytes,
            used_bytes: 0,
            data_bytes: 0,
            image_type: "replication".to_owned(),
            incremental: false,
            auto_trigger: new.auto_trigger,
            system_disk: resource.system_disk,
            enterprise_project: vault.enterprise_project.clone(),
            root: None,
            error_message: None,
            created_at: now,
            updated_at: now,
            protected_at: None,
            expired_at: new.expired_at,
            metadata: None,
            policy: None,
            made_under: new.made_under.clone(),
            app_consistency: None,
            files_moment: None,
            file_problems: None,
        }
    }

    /// How far a replica is that the project waits for, or waited for.
    ///
    /// Errors: `NotFound`.
    /// Cairn: `ShowReplica`, `GET /v3/{project_id}/replicas/{replica_id}`.
    pub async fn replica_state(&self, caller: &Caller, replica: BackupId) -> Result<ReplicaState> {
        let mut tx = self.meta().read().await?;
        let known = tx.replication_into(caller.project, replica).await?;
        known.ok_or(Refusal::BackupNotFound)?;
        let backup = tx.backup(caller.project, replica).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        Ok(ReplicaState {
            status: backup.status,
            error: backup.error_message,
        })
    }

    /// Whether a connection may come for a replica now.
    ///
    /// Errors: `NotFound`; `Conflict` it is there, or is being given up.
    /// Cairn: `ConnectReplica`, `GET /v3/{project_id}/replicas/{replica_id}/connection`.
    pub async fn expect_connection(&self, caller: &Caller, replica: BackupId) -> Result<()> {
        let mut tx = self.meta().read().await?;
        let known = tx.replication_into(caller.project, replica).await?;
        match known.ok_or(Refusal::BackupNotFound)? {
            known if is_awaited(&known) => Ok(()),
            known if known.status == ReplicationStatus::Success => {
                Err(Refusal::AlreadyReplicated.into())
            }
            _ => Err(Refusal::BackupBusy { id: replica }.into()),
        }
    }

    /// Hands a connection that has come for a replica to the task that waits for it, once
    /// the other end has proven that it knows the secret.
    pub async fn replica_connected(
        &self,
        project: ProjectId,
        replica: BackupId,
        mut connection: Connection,
    ) -> Result<()> {
        Line::prove(&mut connection).await?;
        let mut tx = self.meta().begin().await?;
        let known = tx.replication_into(project, replica).await?;
        let known = known
            .filter(is_awaited)
            .ok_or(Refusal::BackupBusy { id: replica })?;
        tx.set_heard(known.record.id, self.now()).await?;
        tx.commit().await?;
        if !self.links().park(replica, connection) {
            tracing::warn!(backup.id = %replica, "Too many replicas come at once: one has to wait.");
            return Ok(());
        }
        // A task that is just being put aside would not see that it is due.
        for _ in 0..TOLD {
            let mut tx = self.meta().begin().await?;
            tx.make_due(known.record.task, self.now()).await?;
            tx.commit().await?;
            self.wake_engine();
            tokio::time::sleep(TOLD_EVERY).await;
            if !self.links().has(replica) {
                break;
            }
        }
        Ok(())
    }

    /// Gives up a replica that is not there yet, as its source asks; one that is there stays.
    ///
    /// Errors: `NotFound`.
    /// Cairn: `WithdrawReplica`, `DELETE /v3/{project_id}/replicas/{replica_id}`.
    pub async fn withdraw_replica(&self, caller: &Caller, replica: BackupId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let known = tx.replication_into(caller.project, replica).await?;
        let backup = tx.backup(caller.project, replica).await?;
        let (Some(known), Some(_)) = (known, backup) else {
            return Err(Refusal::BackupNotFound.into());
        };
        tx.set_withdrawn(known.record.id).await?;
        tx.make_due(known.record.task, self.now()).await?;
        tx.commit().await?;
        self.links().give_up(replica);
        self.wake_engine();
        Ok(())
    }
}

/// Whether a replica is not there yet, and nobody has given it up.
fn is_awaited(known: &ReplicationView) -> bool {
    let coming = matches!(
        known.status,
        ReplicationStatus::Waiting | ReplicationStatus::Replicating
    );
    let at_work = matches!(known.task_state, TaskState::Waiting | TaskState::Running);
    coming && at_work && !known.withdrawn
}

fn logged(end: &ReplicationEnd, name: &str) -> ReplicatedBackup {
    ReplicatedBackup {
        backup: end.backup,
        name: name.to_owned(),
        checkpoint: end.checkpoint,
        project: end.project,
        region: end.region.clone(),
    }
}
