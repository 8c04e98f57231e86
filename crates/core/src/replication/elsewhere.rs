//! Replication to another region: its server is asked first, and refuses as this one
//! would; then the task that answers it and the record are written.

use cairn_meta::{Backup, Replication, ReplicationEnd, Tx, Vault};
use cairn_types::{
    BackupId, Kind, OperationLogId, OperationType, ReplicationId, ReplicationStatus, ResourceType,
    VaultId,
};

use super::{end, is_replicated, logged, refuse_source, refuse_state, refuse_vault};
use crate::operation_log::NewOperation;
use crate::region::{AwaitedReplica, NewReplica, RegionError, ReplicatedResource};
use crate::retention::stamp;
use crate::work::{SendTask, Task};
use crate::{
    Caller, Error, OperationDetail, Refusal, ReplicaTarget, ReplicatedBackup, Result, Service,
};

/// Backups that one call for a whole vault takes: the region is asked for each of them.
const MAX_AT_ONCE: usize = 100;

impl Service {
    pub(super) async fn replicate_elsewhere(
        &self,
        caller: &Caller,
        id: BackupId,
        target: &ReplicaTarget,
    ) -> Result<(Replication, ResourceType)> {
        self.refuse_region(caller, target)?;
        let mut tx = self.meta().read().await?;
        let backup = tx.backup(caller.project, id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        refuse_source(&backup, self.replication_rules())?;
        let vault = tx.vault(caller.project, backup.vault).await?;
        refuse_state(&vault.ok_or(Refusal::VaultNotFound)?)?;
        let known = tx.replications_of(caller.project, &[id]).await?;
        let children = tx.children_of(&[id]).await?;
        drop(tx);
        let mut there = known.iter().filter(|view| {
            view.record.destination.region == target.region
                && view.status == ReplicationStatus::Success
        });
        if is_replicated(&known, id, target) {
            // Whether a replica was deleted its region alone knows.
            match there.next() {
                Some(replica) if self.is_deleted(&replica.record.destination).await? => {}
                _ => return Err(Refusal::AlreadyReplicated.into()),
            }
        }
        let record = self
            .begin_elsewhere(caller, &backup, &children, target)
            .await?;
        Ok((record, backup.resource_type))
    }

    pub(super) async fn replicate_vault_elsewhere(
        &self,
        caller: &Caller,
        vault: VaultId,
        target: &ReplicaTarget,
    ) -> Result<Vec<Replication>> {
        self.refuse_region(caller, target)?;
        let mut tx = self.meta().begin().await?;
        let vault = tx.lock_vault(caller.project, vault).await?;
        let vault = vault.ok_or(Refusal::VaultNotFound)?;
        refuse_vault(&vault, self.replication_rules())?;
        refuse_state(&vault)?;
        if tx.replications_under_way(vault.id, None, None).await? > 0 {
            return Err(Refusal::VaultReplicating.into());
        }
        let mut backups = self.without_replica(&mut tx, &vault, target).await?;
        backups.truncate(MAX_AT_ONCE);
        let mut found = Vec::with_capacity(backups.len());
        for backup in backups {
            let children = tx.children_of(&[backup.id]).await?;
            found.push((backup, children));
        }
        drop(tx);
        let mut records = Vec::with_capacity(found.len());
        for (backup, children) in found {
            let begun = self.begin_elsewhere(caller, &backup, &children, target);
            match begun.await {
                Ok(record) => records.push(record),
                // What has begun goes on; the next call takes the rest.
                Err(error) if !records.is_empty() => {
                    tracing::warn!(
                        backup.id = %backup.id,
                        error = &error as &(dyn std::error::Error + 'static),
                        "not all backups of a vault are replicated now"
                    );
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        match records.is_empty() {
            true => Err(Refusal::NothingToReplicate.into()),
            false => Ok(records),
        }
    }

    fn refuse_region(&self, caller: &Caller, target: &ReplicaTarget) -> Result<()> {
        let regions = self.regions();
        if !regions.names().contains(&target.region) {
            let region = target.region.clone();
            return Err(Refusal::RegionNotReplicable { region }.into());
        }
        match regions.allows(&target.region, caller.project, target.project) {
            true => Ok(()),
            false => Err(Refusal::ProjectNotReplicable.into()),
        }
    }

    async fn is_deleted(&self, replica: &ReplicationEnd) -> Result<bool> {
        let asked = self
            .regions()
            .replica(&replica.region, replica.project, replica.backup);
        match asked.await {
            Ok(_) => Ok(false),
            Err(error) if error.kind == Kind::NotFound => Ok(true),
            Err(error) => Err(refusal(&replica.region, error).into()),
        }
    }

    /// Tells the region, and writes the task and the record.
    async fn begin_elsewhere(
        &self,
        caller: &Caller,
        backup: &Backup,
        children: &[Backup],
        target: &ReplicaTarget,
    ) -> Result<Replication> {
        let run = target.policy.as_ref();
        let new = NewReplica {
            expired_at: run.and_then(|run| stamp(&run.definition, self.now())),
            made_under: run.map(|run| run.definition.clone()),
            ..new_replica(backup, children, target)
        };
        let announced = self
            .regions()
            .announce(&target.region, target.project, &new);
        let there = announced
            .await
            .map_err(|error| refusal(&target.region, error))?;
        let begun = self.record_elsewhere(caller, backup, target, (&new, there));
        let begun = begun.await;
        // The same replica may be on its way for another call.
        let on_its_way = matches!(begun, Err(Error::Refused(Refusal::AlreadyReplicated)));
        if begun.is_err() && !on_its_way {
            let there = (target.region.as_str(), target.project, there.backup);
            if let Err(error) = self.withdraw_from(there).await {
                tracing::warn!(%error, "A region waits for a replica that will not come.");
            }
        }
        begun
    }

    async fn record_elsewhere(
        &self,
        caller: &Caller,
        backup: &Backup,
        target: &ReplicaTarget,
        (new, there): (&NewReplica, AwaitedReplica),
    ) -> Result<Replication> {
        let mut tx = self.meta().begin().await?;
        // It may have changed while the region was asked.
        let backup = tx.lock_backup(caller.project, backup.id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        refuse_source(&backup, self.replication_rules())?;
        let known = tx.replications_of(caller.project, &[backup.id]).await?;
        if known.iter().any(|view| {
            view.record.destination.backup == there.backup && view.status != ReplicationStatus::Fail
        }) {
            return Err(Refusal::AlreadyReplicated.into());
        }
        let vault = tx.vault(caller.project, backup.vault).await?;
        let vault = vault.ok_or(Refusal::VaultNotFound)?;
        let destination = ReplicationEnd {
            region: target.region.clone(),
            project: target.project,
            vault: target.vault,
            checkpoint: there.checkpoint,
            backup: there.backup,
        };
        let log = OperationLogId::random();
        let record = Replication {
            id: ReplicationId::random(),
            task: log,
            auto_trigger: target.auto_trigger,
            source: end(&backup, &target.here),
            destination,
            created_at: self.now(),
        };
        self.enqueue_send(&mut tx, caller, (&vault, &backup), (&record, new, target))
            .await?;
        tx.insert_replication(&record).await?;
        tx.set_heard(record.id, self.now()).await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(record)
    }

    async fn enqueue_send(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        (vault, backup): (&Vault, &Backup),
        (record, new, target): (&Replication, &NewReplica, &ReplicaTarget),
    ) -> Result<()> {
        let there = &record.destination;
        let task = Task::Send(SendTask {
            project: backup.project,
            backup: backup.id,
            replication: record.id,
            region: there.region.clone(),
            destination: there.project,
            replica: there.backup,
            bandwidth: target.bandwidth,
        });
        let operation = NewOperation {
            id: record.task,
            vault,
            checkpoint: Some(backup.checkpoint),
            policy: target.policy.as_ref().map(|run| run.id),
            operation_type: OperationType::Replication,
            resource: Some((
                backup.resource,
                backup.resource_name.clone(),
                backup.resource_type,
            )),
            detail: OperationDetail::Replication {
                source: logged(backup, &target.here),
                destination: ReplicatedBackup {
                    backup: there.backup,
                    name: new.name.clone(),
                    checkpoint: there.checkpoint,
                    project: there.project,
                    region: there.region.clone(),
                },
            },
        };
        self.enqueue(tx, caller, &task, operation).await
    }
}

fn new_replica(backup: &Backup, children: &[Backup], target: &ReplicaTarget) -> NewReplica {
    let (name, description) = (target.name.as_ref(), target.description.as_ref());
    NewReplica {
        vault: target.vault,
        name: name.unwrap_or(&backup.name).clone(),
        description: description.unwrap_or(&backup.description).clone(),
        auto_trigger: target.auto_trigger,
        source: end(backup, &target.here),
        resource: resource_of(backup),
        disks: children.iter().map(resource_of).collect(),
        metadata: backup.metadata.clone(),
        expired_at: None,
        made_under: None,
    }
}

fn resource_of(backup: &Backup) -> ReplicatedResource {
    ReplicatedResource {
        id: backup.resource,
        name: backup.resource_name.clone(),
        resource_type: backup.resource_type,
        size_bytes: backup.size_bytes,
        system_disk: backup.system_disk,
        backup_name: backup.name.clone(),
    }
}

/// What a region says, as a refusal of this one.
fn refusal(region: &str, error: RegionError) -> Refusal {
    tracing::warn!(%error, region, "a region does not take a replica");
    match error.kind {
        Kind::Transient => Refusal::RegionUnreachable {
            region: region.to_owned(),
        },
        _ => Refusal::OtherRegion {
            code: error.code,
            message: error.message,
        },
    }
}
