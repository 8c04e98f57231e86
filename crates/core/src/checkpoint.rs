//! Checkpoints: planning what a vault's protection takes, and showing it.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cairn_meta::{Backup, BoundResource, Checkpoint, SkipReason, Skipped, Tx, Vault};
use cairn_source::Protectable;
use cairn_types::{
    BackupId, BackupStatus, CheckpointId, CheckpointStatus, OperationDefinition, OperationLogId,
    OperationType, PolicyId, ProtectStatus, ResourceId, ResourceType, Timestamp, VaultId,
};

use crate::agent_line::agent_of;
use crate::candidate::choice_takes;
use crate::capacity::refuse_full;
use crate::metadata::ResourceMetadata;
use crate::operation_log::NewOperation;
use crate::retention::stamp;
use crate::work::Task;
use crate::{Caller, Error, OperationDetail, Refusal, Result, Service};

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// A checkpoint that is asked for.
#[derive(Debug, Clone)]
pub struct NewCheckpoint {
    /// The vault to protect.
    pub vault: VaultId,
    /// The name for its backups; one is made up if none is given.
    pub name: Option<String>,
    /// What is said of them.
    pub description: String,
    /// Whether the request says that a policy made it.
    pub auto_trigger: bool,
    /// False to read everything again instead of building on earlier backups.
    pub incremental: bool,
    /// Days until the backups end; for ever, if not given.
    pub retention_days: Option<u32>,
    /// The resources to back up; all of the vault's, if empty.
    pub resources: Vec<ResourceChoice>,
    /// The policy whose run it is, if it is one's.
    pub policy: Option<RunOf>,
}

/// The policy whose run a checkpoint is.
#[derive(Debug, Clone)]
pub struct RunOf {
    /// The policy.
    pub id: PolicyId,
    /// What it does with what it makes.
    pub definition: OperationDefinition,
}

/// A resource that a checkpoint is asked to take.
#[derive(Debug, Clone)]
pub struct ResourceChoice {
    /// The resource.
    pub id: ResourceId,
    /// Disks to leave out this once.
    pub exclude_volumes: Vec<ResourceId>,
}

/// A checkpoint with what it covers.
#[derive(Debug, Clone)]
pub struct CheckpointView {
    /// The record.
    pub checkpoint: Checkpoint,
    /// Its state, as it follows from its backups.
    pub status: CheckpointStatus,
    /// The resources it covers, as they stand in their vault now.
    pub resources: Vec<BoundResource>,
}

impl Service {
    /// Starts a backup of a vault's resources and returns before any data moves.
    ///
    /// Checkpoint, backups, operation logs and tasks commit together, so a
    /// checkpoint that nobody works on cannot exist.
    ///
    /// Errors: `NotFound` vault; `Exhausted` capacity; `Invalid` nothing to back up.
    /// CBR: `CreateCheckpoint`, `POST /v3/{project_id}/checkpoints`.
    pub async fn create_checkpoint(
        &self,
        caller: &Caller,
        new: NewCheckpoint,
    ) -> Result<CheckpointView> {
        let inventory = self.own_protectables(caller.project).await?;
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, new.vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        let view = self
            .plan_backups(&mut tx, caller, &vault, &new, &inventory)
            .await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(view)
    }

    /// Writes what a checkpoint of a vault takes, which the transaction holds; nothing,
    /// where it is refused.
    ///
    /// Errors: as [`Service::create_checkpoint`].
    pub(crate) async fn plan_backups(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        vault: &Vault,
        new: &NewCheckpoint,
        inventory: &[Protectable],
    ) -> Result<CheckpointView> {
        refuse_backup(tx, vault).await?;
        let bound = tx.resources_of(vault.id).await?;
        let (chosen, skipped) = choose(new, bound, inventory)?;
        if chosen.is_empty() {
            return Err(Refusal::NothingToBackUp.into());
        }
        let checkpoint = self.plan(caller, vault, new, skipped)?;
        tx.insert_checkpoint(&checkpoint).await?;
        let several = chosen.len() > 1;
        for (position, resource) in chosen.iter().enumerate() {
            let protectable = inventory.iter().find(|found| found.id == resource.id);
            let name = match several {
                true => format!("{}_{:04}", checkpoint.name, position + 1),
                false => checkpoint.name.clone(),
            };
            let planned = Planned {
                vault,
                checkpoint: &checkpoint,
                new,
                name,
            };
            self.plan_backup(tx, caller, &planned, resource, protectable)
                .await?;
        }
        // The answer shows the resources as they stood when they were called for.
        Ok(CheckpointView {
            checkpoint,
            status: CheckpointStatus::Protecting,
            resources: chosen,
        })
    }

    /// One of the project's checkpoints.
    ///
    /// Errors: `NotFound`, also once its last backup is gone.
    /// CBR: `ShowCheckpoint`, `GET /v3/{project_id}/checkpoints/{checkpoint_id}`.
    pub async fn checkpoint(&self, caller: &Caller, id: CheckpointId) -> Result<CheckpointView> {
        let mut tx = self.meta().read().await?;
        let checkpoint = tx
            .checkpoint(caller.project, id)
            .await?
            .ok_or(Refusal::CheckpointNotFound)?;
        let backups = tx.backups_of_checkpoint(id).await?;
        let bound = tx.resources_of(checkpoint.vault).await?;
        let resources = backups
            .iter()
            .map(|backup| covered(backup, &bound))
            .collect();
        Ok(CheckpointView {
            status: status_of(&backups),
            checkpoint,
            resources,
        })
    }

    fn plan(
        &self,
        caller: &Caller,
        vault: &Vault,
        new: &NewCheckpoint,
        skipped: Vec<Skipped>,
    ) -> Result<Checkpoint> {
        let name = match &new.name {
            Some(name) => name.clone(),
            None => default_name(new.auto_trigger, &vault.backup_name_prefix)?,
        };
        Ok(Checkpoint {
            id: CheckpointId::random(),
            project: caller.project,
            vault: vault.id,
            vault_name: vault.name.clone(),
            name,
            description: new.description.clone(),
            retention_days: new.retention_days.map_or(-1, i64::from),
            skipped,
            created_at: self.now(),
        })
    }

    /// Writes the rows of one resource's backup, its disks' if it is a server, and its task.
    async fn plan_backup(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        planned: &Planned<'_>,
        resource: &BoundResource,
        protectable: Option<&Protectable>,
    ) -> Result<()> {
        let disks = protectable.map_or(&[][..], |found| &found.children);
        let disks = disks.iter().filter(|disk| {
            choice_takes(&resource.extra_info, disk.id) && planned.takes(resource.id, disk.id)
        });
        let disks: Vec<&Protectable> = disks.collect();
        let mut backup = planned.backup(self.now(), resource);
        let base = tx.newest_available(caller.project, resource.id).await?;
        let reread_all = !planned.new.incremental || self.is_full_due(tx, &backup).await?;
        backup.incremental = !reread_all && base.is_some();
        backup.system_disk = match protectable {
            Some(found) if found.resource_type == ResourceType::Volume => found.system_disk,
            _ => disks.iter().any(|disk| disk.system_disk),
        };
        if let Some(found) = protectable {
            let whole = disks.iter().map(|disk| disk.size_bytes).sum();
            backup.size_bytes = if disks.is_empty() {
                found.size_bytes
            } else {
                whole
            };
            backup.metadata = Some(ResourceMetadata::of(found, &disks).to_json());
        }
        tx.insert_backup(&backup).await?;
        for disk in &disks {
            tx.insert_backup(&child_of(&backup, disk)).await?;
        }
        let (project, id) = (caller.project, backup.id);
        let task = match resource.resource_type {
            ResourceType::NativeServer => Task::BackUpHost {
                project,
                backup: id,
                agent: agent_of(resource.id),
                reread_all,
            },
            _ => Task::BackUp {
                project,
                backup: id,
                reread_all,
            },
        };
        let operation = NewOperation {
            id: OperationLogId::random(),
            vault: planned.vault,
            checkpoint: Some(planned.checkpoint.id),
            policy: backup.policy,
            operation_type: OperationType::Backup,
            resource: Some((resource.id, resource.name.clone(), resource.resource_type)),
            detail: OperationDetail::Backup {
                backup: backup.id,
                backup_name: backup.name.clone(),
                incremental: backup.incremental,
                app_consistency: None,
                file_problems: None,
            },
        };
        self.enqueue(tx, caller, &task, operation).await
    }
}

/// What the backups of one checkpoint share.
struct Planned<'a> {
    vault: &'a Vault,
    checkpoint: &'a Checkpoint,
    new: &'a NewCheckpoint,
    name: String,
}

impl Planned<'_> {
    fn takes(&self, server: ResourceId, disk: ResourceId) -> bool {
        let choice = self.new.resources.iter().find(|choice| choice.id == server);
        choice.is_none_or(|choice| !choice.exclude_volumes.contains(&disk))
    }

    fn backup(&self, now: Timestamp, resource: &BoundResource) -> Backup {
        let life = self.new.retention_days.filter(|_| !self.new.auto_trigger);
        let life = life.map(|days| now.plus_seconds(i64::from(days) * SECONDS_PER_DAY));
        let policy = self.new.policy.as_ref();
        let stamp = policy.and_then(|run| stamp(&run.definition, now));
        Backup {
            id: BackupId::random(),
            project: self.checkpoint.project,
            vault: self.vault.id,
            checkpoint: self.checkpoint.id,
            parent: None,
            name: self.name.clone(),
            description: self.checkpoint.description.clone(),
            status: BackupStatus::FIRST,
            resource: resource.id,
            resource_name: resource.name.clone(),
            resource_type: resource.resource_type,
            size_bytes: resource.size_bytes,
            data_bytes: 0,
            used_bytes: 0,
            image_type: "backup".to_owned(),
            incremental: false,
            auto_trigger: self.new.auto_trigger,
            system_disk: false,
            enterprise_project: self.vault.enterprise_project.clone(),
            root: None,
            error_message: None,
            created_at: now,
            updated_at: now,
            protected_at: None,
            expired_at: life.or(stamp),
            metadata: None,
            policy: policy.map(|run| run.id),
            made_under: policy.map(|run| run.definition.clone()),
            app_consistency: None,
            files_moment: None,
            file_problems: None,
        }
    }
}

fn child_of(parent: &Backup, disk: &Protectable) -> Backup {
    Backup {
        id: BackupId::random(),
        parent: Some(parent.id),
        name: format!("{}_{}", parent.name, parent.resource_name),
        resource: disk.id,
        resource_name: disk.name.clone(),
        resource_type: ResourceType::Volume,
        size_bytes: disk.size_bytes,
        system_disk: disk.system_disk,
        metadata: Some(ResourceMetadata::of(disk, &[]).to_json()),
        ..parent.clone()
    }
}

/// Which resources the checkpoint takes, and which it skips and why.
fn choose(
    new: &NewCheckpoint,
    bound: Vec<BoundResource>,
    inventory: &[Protectable],
) -> Result<(Vec<BoundResource>, Vec<Skipped>)> {
    let strangers: Vec<String> = new
        .resources
        .iter()
        .filter(|choice| !bound.iter().any(|resource| resource.id == choice.id))
        .map(|choice| choice.id.to_string())
        .collect();
    if !strangers.is_empty() {
        return Err(Refusal::ResourceNotInVault {
            ids: strangers.join(","),
        }
        .into());
    }
    let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
    for resource in bound {
        let chosen_by_name =
            new.resources.is_empty() || new.resources.iter().any(|one| one.id == resource.id);
        let passed_by = new.policy.is_some() && !resource.auto_protect;
        if !chosen_by_name || passed_by {
            continue;
        }
        let gone = !inventory.iter().any(|found| found.id == resource.id);
        let reason = match resource.protect_status {
            _ if gone => SkipReason::Gone,
            ProtectStatus::Restoring => SkipReason::Restoring,
            ProtectStatus::Protecting => SkipReason::Protecting,
            ProtectStatus::Removing => SkipReason::Removing,
            ProtectStatus::Available | ProtectStatus::Error => {
                chosen.push(resource);
                continue;
            }
        };
        let BoundResource {
            id,
            resource_type,
            name,
            ..
        } = resource;
        skipped.push(Skipped {
            id,
            resource_type,
            name,
            reason,
        });
    }
    Ok((chosen, skipped))
}

/// What of a vault speaks against a backup.
async fn refuse_backup(tx: &mut Tx, vault: &Vault) -> Result<()> {
    if vault.protect_type != "backup" {
        return Err(Refusal::VaultMakesNoBackups.into());
    }
    if !vault.status.is_in_service() {
        let state = vault.status.to_string();
        return Err(Refusal::VaultStateForbidsBackup { state }.into());
    }
    let used = tx.vault_usage(vault.id).await?.used_bytes;
    refuse_full(vault, used)
}

/// A checkpoint's status, from the states of its backups.
fn status_of(backups: &[Backup]) -> CheckpointStatus {
    let any =
        |states: &[BackupStatus]| backups.iter().any(|backup| states.contains(&backup.status));
    if any(&[BackupStatus::WaitingProtect, BackupStatus::Protecting]) {
        CheckpointStatus::Protecting
    } else if any(&[BackupStatus::WaitingDelete, BackupStatus::Deleting]) {
        CheckpointStatus::Deleting
    } else if any(&[BackupStatus::Error]) {
        CheckpointStatus::Error
    } else {
        CheckpointStatus::Available
    }
}

/// A resource as its binding shows it, or as its backup remembers it once it is unbound.
fn covered(backup: &Backup, bound: &[BoundResource]) -> BoundResource {
    if let Some(resource) = bound.iter().find(|resource| resource.id == backup.resource) {
        return resource.clone();
    }
    BoundResource {
        id: backup.resource,
        vault: backup.vault,
        resource_type: backup.resource_type,
        name: backup.resource_name.clone(),
        size_bytes: backup.size_bytes,
        removing: false,
        auto_protect: false,
        extra_info: cairn_meta::ResourceExtraInfo::default(),
        bound_at: backup.created_at,
        backup_count: 1,
        backup_bytes: backup.used_bytes,
        protect_status: ProtectStatus::Available,
    }
}

/// The name that a backup gets when the request gives none.
/// Source: CBR's concepts: `manualbk_xxxx` and `autobk_xxxx`, four hexadecimal digits.
fn default_name(auto_trigger: bool, prefix: &str) -> Result<String> {
    let mut digits = [0; 2];
    SystemRandom::new()
        .fill(&mut digits)
        .map_err(|_| Error::Random)?;
    let digits = hex::encode(digits);
    Ok(match (auto_trigger, prefix) {
        (false, _) => format!("manualbk_{digits}"),
        (true, "") => format!("autobk_{digits}"),
        (true, prefix) => format!("{prefix}_autobk_{digits}"),
    })
}
