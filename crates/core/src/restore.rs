//! Restores: what may be restored where. The bytes are moved by a task.
//!
//! A backup goes back to the resource that it was made of. Where the project
//! does not have that, because another project shares the backup or because it
//! came from another site or region, it goes to any resource of the project's own that
//! it fits on.

use cairn_meta::{Backup, Tx, Vault};
use cairn_source::Protectable;
use cairn_types::tree::{is_name, read_name};
use cairn_types::{
    AgentId, BackupId, BackupStatus, BackupStep, ByteCount, Kind, MemberStatus, OperationLogId,
    OperationType, ProjectId, ResourceId, ResourceType, VaultId,
};
use serde::{Deserialize, Serialize};

use crate::agent_line::agent_of;
use crate::operation_log::NewOperation;
use crate::work::{RestoreTask, Task};
use crate::{Caller, OperationDetail, Refusal, Result, Service};

/// Where a restore is asked to go.
#[derive(Debug, Clone, Default)]
pub struct RestoreTarget {
    /// For a disk: the volume.
    pub volume: Option<ResourceId>,
    /// For a server: the server.
    pub server: Option<ResourceId>,
    /// For files: the share or the host, their own or another one of the project.
    pub files: Option<ResourceId>,
    /// For files: the folder below the share, or the path on the host, which is made if it is
    /// not there; the share itself or where the files were, if unset.
    pub folder: Option<String>,
    /// For a server: whether it is started afterwards; started where it is known how, if unset.
    pub power_on: Option<bool>,
    /// For files: what of the backup, by its path; all of it, if unset.
    pub path: Option<String>,
    /// For a server: which disk's backup goes onto which disk; each onto its own, if empty.
    pub mappings: Vec<DiskMapping>,
}

/// A backup that is to be restored.
struct Source {
    backup: Backup,
    children: Vec<Backup>,
    /// The vault of the one who restores.
    vault: Vault,
    /// Whether it is another project's, which shares it.
    shared: bool,
}

/// What becomes of a server that is restored, if its power is in our hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Power {
    /// The server.
    pub(crate) server: ResourceId,
    /// It runs when the restore is asked for, and is turned off.
    runs: bool,
    /// It is started when its disks are written.
    pub(crate) on: bool,
}

/// A disk's backup and the disk that it goes onto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMapping {
    /// The disk's backup: a child of the server's, or a disk's own.
    pub backup: BackupId,
    /// The disk to overwrite, or the share to restore into.
    pub volume: ResourceId,
}

impl Service {
    /// Starts a restore and returns the operation log to watch.
    ///
    /// A member's restore leaves the backup's state alone: it is its owner's.
    ///
    /// Errors: `NotFound`; `Conflict` while backup or resource is at work, or before
    /// a member has accepted; `Invalid` for another resource where the backup's own
    /// is needed, a smaller disk, a data disk onto a system disk.
    /// CBR: `RestoreBackup`, `POST /v3/{project_id}/backups/{backup_id}/restore`.
    pub async fn restore_backup(
        &self,
        caller: &Caller,
        id: BackupId,
        target: &RestoreTarget,
    ) -> Result<OperationLogId> {
        let resource = self.restorable(caller, id, target).await?;
        let folder = target.folder.as_deref().unwrap_or_default();
        check_path("restore.details.destination_path", folder.as_bytes())?;
        let path = target.path.as_deref().unwrap_or_default();
        let key = "restore.details.source_path";
        let named = read_name(path).ok_or_else(|| {
            Refusal::Invalid(format!(
                "{key}: a \\ in a name is written \\\\, a byte \\xNN"
            ))
        })?;
        check_path(key, &named)?;
        let protectable = self.own_protectable(caller.project, resource).await?;
        let power = self.power(&protectable, target.power_on).await?;
        let held = match power {
            // What runs is turned off before its disks are written.
            Some(Power { runs: true, .. }) => Vec::new(),
            _ => self.held_disks(&protectable).await?,
        };
        let mut tx = self.meta().begin().await?;
        let mut source = source(&mut tx, caller, id).await?;
        let mappings = source.map(&protectable, &target.mappings)?;
        let agent = source.agent_asked(&protectable, target)?;
        refuse_busy_resource(&mut tx, &source, &mappings).await?;
        if let Some(mapping) = mappings
            .iter()
            .find(|mapping| held.contains(&mapping.volume))
        {
            let (id, state) = (mapping.volume, "open elsewhere or read-only".to_owned());
            return Err(Refusal::DiskState { id, state }.into());
        }
        if !source.shared {
            tx.step_backup(&mut source.backup, BackupStep::QueueRestore, self.now())
                .await?;
        }
        let log = OperationLogId::random();
        let mut overwritten: Vec<_> = mappings.iter().map(|mapping| mapping.volume).collect();
        if !overwritten.contains(&protectable.id) {
            overwritten.push(protectable.id);
        }
        tx.insert_restore(log, id, &overwritten).await?;
        let task = Task::Restore(RestoreTask {
            project: caller.project,
            owner: source.shared.then_some(source.backup.project),
            backup: id,
            mappings,
            folder: folder.to_owned(),
            power,
            path: path.trim_matches('/').to_owned(),
            agent,
        });
        let operation = source.operation(log, protectable);
        self.enqueue(&mut tx, caller, &task, operation).await?;
        tx.commit().await?;
        self.wake_engine();
        Ok(log)
    }

    /// Whether a server runs now, and whether it is started afterwards; nothing, if it is none
    /// or its power is not in our hands.
    ///
    /// Errors: `Conflict` it runs, is to be started again, and nobody has said how.
    async fn power(&self, target: &Protectable, asked: Option<bool>) -> Result<Option<Power>> {
        let id = target.id;
        if !matches!(
            target.resource_type,
            ResourceType::Server | ResourceType::Desktop
        ) {
            return Ok(None);
        }
        let (runs, known) = self
            .ask_inventory(move |inventory| Ok((inventory.runs(id)?, inventory.check_power_on(id))))
            .await?;
        let (on, must) = match (asked, runs) {
            (Some(false), _) => (false, false),
            (_, true) => (true, true),
            // Clients ask for it without being asked: what nobody knows how to start stays off.
            (_, false) => (known.is_ok(), false),
        };
        match known {
            Err(error) if must => {
                let why = error.to_string();
                Err(Refusal::ServerState { id, why }.into())
            }
            Err(_) if !runs => Ok(None),
            _ => Ok(Some(Power {
                server: id,
                runs,
                on,
            })),
        }
    }

    /// The disks of a resource that could not be overwritten now: somebody has
    /// them open, or they are read-only.
    async fn held_disks(&self, protectable: &Protectable) -> Result<Vec<ResourceId>> {
        let own = std::iter::once(protectable)
            .filter(|found| found.resource_type == ResourceType::Volume);
        let disks = own.chain(&protectable.children);
        let mut held = Vec::new();
        for disk in disks.filter(|disk| disk.status.is_usable()) {
            let id = disk.id;
            let checked = self
                .ask_inventory(move |inventory| inventory.check_writable(id))
                .await;
            match checked {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Denied) => {
                    held.push(id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// The resource that the target names, if the backup may go there.
    async fn restorable(
        &self,
        caller: &Caller,
        id: BackupId,
        target: &RestoreTarget,
    ) -> Result<ResourceId> {
        let mut tx = self.meta().read().await?;
        let backup = tx.visible_backup(caller.project, id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        if backup.parent.is_some() {
            let text = "backup_id: a disk of a server backup is restored through the server backup";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        let shared = backup.project != caller.project;
        if shared {
            accepted_into(&mut tx, caller, id).await?;
        }
        let elsewhere = shared || is_from_elsewhere(&mut tx, caller.project, id).await?;
        drop(tx);
        let (named, key) = match backup.resource_type {
            ResourceType::Volume => (target.volume, "volume_id"),
            ResourceType::Turbo | ResourceType::NativeServer => (target.files, "resource_id"),
            _ => (target.server, "server_id"),
        };
        match named {
            Some(resource) if resource == backup.resource || elsewhere => Ok(resource),
            // What is not there any more can be put beside what took its place.
            Some(resource) if has_files(backup.resource_type) => Ok(resource),
            Some(_) => Err(Refusal::RestoreElsewhere.into()),
            None => {
                let kind = backup.resource_type;
                Err(Refusal::Invalid(format!("{key} is needed to restore a {kind}")).into())
            }
        }
    }
}

/// Whether a project's backup came from another site or another region: then a resource
/// that has the same id here may be another one.
pub(crate) async fn is_from_elsewhere(
    tx: &mut Tx,
    project: ProjectId,
    backup: BackupId,
) -> Result<bool> {
    Ok(tx.is_imported(backup).await? || tx.replication_into(project, backup).await?.is_some())
}

/// The backup, locked, if the caller may restore it now: its own, or one that
/// it has taken into a vault.
async fn source(tx: &mut Tx, caller: &Caller, id: BackupId) -> Result<Source> {
    let seen = tx.visible_backup(caller.project, id).await?;
    let owner = seen.ok_or(Refusal::BackupNotFound)?.project;
    let backup = tx.lock_backup(owner, id).await?;
    let backup = backup.ok_or(Refusal::BackupNotFound)?;
    let shared = owner != caller.project;
    let vault = match shared {
        true => accepted_into(tx, caller, id).await?,
        false => backup.vault,
    };
    match backup.status {
        BackupStatus::Available => {}
        // Its owner restores it at the same time.
        BackupStatus::WaitingRestore | BackupStatus::Restoring if shared => {}
        state => {
            let state = state.to_string();
            return Err(Refusal::BackupStateForbidsRestore { state }.into());
        }
    }
    let vault = tx.lock_vault(caller.project, vault).await?;
    let vault = vault.ok_or(Refusal::VaultNotFound)?;
    if !vault.status.is_in_service() {
        let state = vault.status.to_string();
        return Err(Refusal::RestoreNeedsVault { state }.into());
    }
    Ok(Source {
        children: tx.children_of(&[id]).await?,
        backup,
        vault,
        shared,
    })
}

/// The vault that a member has taken a backup into.
async fn accepted_into(tx: &mut Tx, caller: &Caller, id: BackupId) -> Result<VaultId> {
    let share = tx.share(id, caller.project).await?;
    let share = share.ok_or(Refusal::BackupNotFound)?;
    match (share.status, share.vault) {
        (MemberStatus::Accepted, Some(vault)) => Ok(vault),
        (status, _) => {
            let status = status.to_string();
            Err(Refusal::ShareNotAccepted { status }.into())
        }
    }
}

impl Source {
    /// Which disk's backup goes onto which disk of the target.
    fn map(&self, target: &Protectable, wishes: &[DiskMapping]) -> Result<Vec<DiskMapping>> {
        let in_place = target.id == self.backup.resource;
        match self.backup.resource_type {
            ResourceType::Volume => map_volume(&self.backup, target, wishes),
            kind if has_files(kind) => map_files(&self.backup, target, wishes),
            _ if wishes.is_empty() && !in_place => {
                let text = "mappings: they are needed to restore onto another server";
                Err(Refusal::Invalid(text.to_owned()).into())
            }
            _ => map_server(&self.children, target, wishes),
        }
    }

    /// The agent that is to write the files, if they go to a host. Onto a host that they are not
    /// of they go by a path that somebody has named.
    fn agent_asked(&self, target: &Protectable, asked: &RestoreTarget) -> Result<Option<AgentId>> {
        let is_files = has_files(self.backup.resource_type);
        if !is_files && asked.path.is_some() {
            let text = "restore.details.source_path: it is for backups of files";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        if target.resource_type != ResourceType::NativeServer {
            return Ok(None);
        }
        let own = !self.shared && target.id == self.backup.resource;
        let folder = asked.folder.as_deref().unwrap_or_default();
        if !own && folder.is_empty() {
            let text = "restore.details.destination_path is needed to restore onto another host";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        if !folder.is_empty() && !folder.starts_with('/') {
            let text = "restore.details.destination_path: on a host it begins with /";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        Ok(Some(agent_of(target.id)))
    }

    fn operation(&self, id: OperationLogId, target: Protectable) -> NewOperation<'_> {
        let Backup {
            resource,
            resource_name,
            resource_type,
            ..
        } = &self.backup;
        NewOperation {
            id,
            vault: &self.vault,
            checkpoint: Some(self.backup.checkpoint),
            policy: None,
            operation_type: OperationType::Restore,
            resource: Some((*resource, resource_name.clone(), *resource_type)),
            detail: OperationDetail::Restore {
                backup: self.backup.id,
                backup_name: self.backup.name.clone(),
                target: target.id,
                target_name: target.name,
                file_problems: None,
            },
        }
    }
}

/// A disk goes where the target says; mappings beside it may say the same, and nothing else.
fn map_volume(
    backup: &Backup,
    volume: &Protectable,
    wishes: &[DiskMapping],
) -> Result<Vec<DiskMapping>> {
    if volume.resource_type != ResourceType::Volume {
        return Err(Refusal::UnknownMapping.into());
    }
    if volume.id != backup.resource && volume.system_disk && !backup.system_disk {
        return Err(Refusal::DataOntoSystemDisk.into());
    }
    check_disk(backup, volume)?;
    let own = DiskMapping {
        backup: backup.id,
        volume: volume.id,
    };
    let same = |wish: &DiskMapping| (wish.backup, wish.volume) == (own.backup, own.volume);
    if !wishes.iter().all(same) {
        return Err(Refusal::UnknownMapping.into());
    }
    Ok(vec![own])
}

/// Whether a backup of such a resource holds files.
const fn has_files(kind: ResourceType) -> bool {
    matches!(kind, ResourceType::Turbo | ResourceType::NativeServer)
}

/// Files go where the target says, which must be a share or a host.
fn map_files(
    backup: &Backup,
    share: &Protectable,
    wishes: &[DiskMapping],
) -> Result<Vec<DiskMapping>> {
    if !has_files(share.resource_type) || !wishes.is_empty() {
        return Err(Refusal::UnknownMapping.into());
    }
    if !share.status.is_usable() {
        let (id, state) = (share.id, share.status.to_string());
        return Err(Refusal::DiskState { id, state }.into());
    }
    Ok(vec![DiskMapping {
        backup: backup.id,
        volume: share.id,
    }])
}

/// Files are named by a path that leads downwards only.
fn check_path(key: &str, path: &[u8]) -> Result<()> {
    let mut names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    if names.all(is_name) {
        return Ok(());
    }
    Err(Refusal::Invalid(format!("{key}: it leads upwards")).into())
}

fn map_server(
    children: &[Backup],
    server: &Protectable,
    wishes: &[DiskMapping],
) -> Result<Vec<DiskMapping>> {
    let own = children.iter().map(|child| DiskMapping {
        backup: child.id,
        volume: child.resource,
    });
    let mappings = if wishes.is_empty() {
        own.collect()
    } else {
        wishes.to_vec()
    };
    for (position, mapping) in mappings.iter().enumerate() {
        let child = children.iter().find(|child| child.id == mapping.backup);
        let disk = server
            .children
            .iter()
            .find(|disk| disk.id == mapping.volume);
        let (Some(child), Some(disk)) = (child, disk) else {
            return Err(Refusal::UnknownMapping.into());
        };
        let same = |earlier: &DiskMapping| {
            earlier.volume == mapping.volume || earlier.backup == mapping.backup
        };
        if mappings[..position].iter().any(same) {
            return Err(Refusal::UnknownMapping.into());
        }
        if disk.system_disk && !child.system_disk {
            return Err(Refusal::DataOntoSystemDisk.into());
        }
        check_disk(child, disk)?;
    }
    Ok(mappings)
}

fn check_disk(backup: &Backup, disk: &Protectable) -> Result<()> {
    if !disk.status.is_usable() {
        let (id, state) = (disk.id, disk.status.to_string());
        return Err(Refusal::DiskState { id, state }.into());
    }
    if disk.size_bytes < backup.size_bytes {
        let target = ByteCount(disk.size_bytes);
        return Err(Refusal::TargetTooSmall {
            target,
            backup: ByteCount(backup.size_bytes),
        }
        .into());
    }
    Ok(())
}

/// Nothing else may be at work on the resource, nor on any disk that would be
/// overwritten: a disk can have backups of its own and of its server.
async fn refuse_busy_resource(
    tx: &mut Tx,
    source: &Source,
    mappings: &[DiskMapping],
) -> Result<()> {
    let disks = mappings.iter().map(|mapping| mapping.volume);
    // What a shared backup was made of is its owner's, and stays as it is.
    let own = (!source.shared).then_some(source.backup.resource);
    for resource in disks.chain(own) {
        if tx.is_restored_onto(resource).await? {
            return Err(Refusal::ResourceRestoring { id: resource }.into());
        }
        for busy in tx.busy_backups_of(resource).await? {
            match busy.status {
                BackupStatus::WaitingProtect | BackupStatus::Protecting => {
                    return Err(Refusal::ResourceBackingUp { id: resource }.into());
                }
                BackupStatus::WaitingRestore | BackupStatus::Restoring => {
                    return Err(Refusal::ResourceRestoring { id: resource }.into());
                }
                _ => {}
            }
        }
    }
    Ok(())
}
