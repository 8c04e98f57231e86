//! What tasks do: the closed list of kinds, and the steps of each.

mod backup;
mod collect;
mod delete;
mod host;
mod import;
mod moment;
mod receive;
mod repair;
mod restore;
mod send;
mod sync;
mod verify;

use std::sync::Arc;

use cairn_meta::Tx;
use cairn_meta::tasks::{
    BACK_UP_HOST, ONE_AT_A_TIME, RECEIVE, RESTORE_HOST, SEND, Task as TaskRow,
};
use cairn_task::{Failure, Work};
use cairn_types::disk::{Because, DiskError};
use cairn_types::{
    AgentId, BackupId, Kind, PolicyId, Progress, ProjectId, ReplicationId, ResourceId, VaultId,
    VerifyLevel,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::backup::{BackUp, ReadFrom};
use crate::restore::{DiskMapping, Power};
use crate::{Error, Result, Service, VerifyScope};

/// Durable work, as the catalogue keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Task {
    /// Makes one resource's backup.
    BackUp {
        project: ProjectId,
        backup: BackupId,
        reread_all: bool,
    },
    /// Makes the backup of a host, by its agent.
    BackUpHost {
        project: ProjectId,
        backup: BackupId,
        agent: AgentId,
        reread_all: bool,
    },
    /// Copies one backup of another project, or of another vault.
    Replicate {
        project: ProjectId,
        backup: BackupId,
        source_project: ProjectId,
        source: BackupId,
    },
    /// Copies what a vault has and its destination has not, as a policy says.
    ReplicateByPolicy {
        project: ProjectId,
        policy: PolicyId,
        vault: VaultId,
        destination: VaultId,
    },
    /// Has another region copy a backup: answers it until its replica is there.
    Send(SendTask),
    /// Tells another region that a replica will not come.
    Withdraw {
        region: String,
        destination: ProjectId,
        replica: BackupId,
    },
    /// Copies a backup of another region.
    Receive {
        project: ProjectId,
        backup: BackupId,
    },
    /// Writes a backup over disks of the project.
    Restore(RestoreTask),
    /// Deletes a backup.
    DeleteBackup {
        project: ProjectId,
        backup: BackupId,
    },
    /// Deletes a vault with its backups.
    DeleteVault { project: ProjectId, vault: VaultId },
    /// Takes resources out of a vault, with their backups in it.
    RemoveResources {
        project: ProjectId,
        vault: VaultId,
        resources: Vec<ResourceId>,
    },
    /// Takes over what is new at the site that a hybrid vault mirrors.
    Sync { project: ProjectId, vault: VaultId },
    /// Takes one backup over from another site.
    ImportBackup {
        project: ProjectId,
        import: ImportedBackup,
    },
    /// Gives back the space of what no backup of a project needs any more.
    Collect { project: ProjectId },
    /// Has a project's packs protected by parity.
    Protect { project: ProjectId },
    /// Takes damaged packs of a project out of use.
    Repair { project: ProjectId },
    /// Looks whether backups could be restored.
    Verify {
        project: ProjectId,
        level: VerifyLevel,
        scope: VerifyScope,
    },
}

/// What is sent to another region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SendTask {
    pub(crate) project: ProjectId,
    pub(crate) backup: BackupId,
    pub(crate) replication: ReplicationId,
    pub(crate) region: String,
    pub(crate) destination: ProjectId,
    pub(crate) replica: BackupId,
    /// Bytes in a second, beside what the region's replications share.
    #[serde(default)]
    pub(crate) bandwidth: Option<u64>,
}

/// What is restored, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoreTask {
    pub(crate) project: ProjectId,
    /// The project that shares the backup, if it is another's.
    #[serde(default)]
    pub(crate) owner: Option<ProjectId>,
    pub(crate) backup: BackupId,
    pub(crate) mappings: Vec<DiskMapping>,
    /// For files: the folder below the share, or the path on the host.
    #[serde(default)]
    pub(crate) folder: String,
    /// For files: what of the backup; all of it, if empty.
    #[serde(default)]
    pub(crate) path: String,
    /// The agent, if it goes to its host.
    #[serde(default)]
    pub(crate) agent: Option<AgentId>,
    /// For a server whose power is in our hands: what becomes of it.
    #[serde(default)]
    pub(crate) power: Option<Power>,
}

/// A backup of another site, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportedBackup {
    pub(crate) bucket: String,
    pub(crate) path: String,
    pub(crate) backup: BackupId,
    pub(crate) name: String,
}

impl Task {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::BackUp { .. } => "back_up",
            Self::BackUpHost { .. } => BACK_UP_HOST,
            Self::Replicate { .. } => "replicate",
            Self::ReplicateByPolicy { .. } => "replicate_by_policy",
            Self::Send(_) => SEND,
            Self::Withdraw { .. } => "withdraw",
            Self::Receive { .. } => RECEIVE,
            Self::Restore(task) if task.agent.is_some() => RESTORE_HOST,
            Self::Restore(_) => restore::KIND,
            Self::DeleteBackup { .. } => "delete_backup",
            Self::DeleteVault { .. } => "delete_vault",
            Self::RemoveResources { .. } => "remove_resources",
            Self::Sync { .. } => "sync",
            Self::ImportBackup { .. } => "import_backup",
            Self::Collect { .. } => "collect",
            Self::Protect { .. } => "protect",
            Self::Repair { .. } => "repair",
            Self::Verify { .. } => ONE_AT_A_TIME,
        }
    }

    pub(crate) fn payload(&self) -> String {
        serde_json::to_string(self).expect("tasks have string keys only")
    }

    const fn steps(&self) -> &'static [&'static str] {
        match self {
            Self::BackUp { .. }
            | Self::BackUpHost { .. }
            | Self::Replicate { .. }
            | Self::Receive { .. } => backup::STEPS,
            Self::Send(_) => send::STEPS,
            Self::Restore(_) => restore::STEPS,
            Self::ReplicateByPolicy { .. } => &["ask"],
            Self::Withdraw { .. } => &["tell"],
            Self::DeleteBackup { .. } => &["delete"],
            Self::DeleteVault { .. } => &["delete backups", "delete vault"],
            Self::RemoveResources { .. } => &["delete backups", "unbind"],
            Self::Sync { .. } | Self::ImportBackup { .. } => &["take over"],
            Self::Collect { .. } => &["collect"],
            Self::Protect { .. } => &["protect"],
            Self::Repair { .. } => &["repair"],
            Self::Verify { .. } => &["verify"],
        }
    }
}

/// Backups and restores that move bytes at the same time. One uses every core;
/// more would only use more memory.
const BYTE_MOVERS: usize = 1;

/// Does the work of tasks; the task engine drives it.
pub struct Worker {
    service: Service,
    byte_movers: Semaphore,
}

impl Worker {
    /// A worker for the tasks of this service.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            byte_movers: Semaphore::new(BYTE_MOVERS),
        }
    }

    /// Waits for a turn to move bytes, unless the work is to end before.
    async fn turn_to_move_bytes(&self, progress: &Progress) -> Result<SemaphorePermit<'_>> {
        tokio::select! {
            turn = self.byte_movers.acquire() => Ok(turn.expect("nobody closes it")),
            () = progress.cancelled() => Err(Error::Cancelled),
        }
    }

    async fn run_step(&self, row: &TaskRow, step: usize, progress: &Arc<Progress>) -> Result<()> {
        match read(row)? {
            Task::BackUp {
                project,
                backup,
                reread_all,
            } => {
                let work = BackUp::new(
                    self,
                    row.id,
                    (project, backup),
                    ReadFrom::Source { reread_all },
                );
                work.run(step, progress).await
            }
            Task::BackUpHost {
                project,
                backup,
                agent,
                reread_all,
            } => {
                let host = host::Host {
                    worker: self,
                    project,
                    agent,
                    asked_at: row.created_at,
                };
                let of = (project, backup);
                let done = host.back_up(row.id, of, reread_all, step, progress);
                done.await
            }
            Task::Replicate {
                project,
                backup,
                source_project,
                source,
            } => {
                let source = ReadFrom::Backup(source_project, source);
                let work = BackUp::new(self, row.id, (project, backup), source);
                work.run(step, progress).await
            }
            Task::Send(task) => self.send(&task).run(progress).await,
            Task::Withdraw {
                region,
                destination,
                replica,
            } => {
                let there = (region.as_str(), destination, replica);
                self.service.withdraw_later(row.created_at, there).await
            }
            Task::Receive { project, backup } => {
                let work = receive::Receive {
                    worker: self,
                    task: row.id,
                    project,
                    backup,
                };
                work.run(step, progress).await
            }
            Task::Restore(task) => self.restore(row, &task).run(step, progress).await,
            Task::ReplicateByPolicy {
                project,
                policy,
                vault,
                destination,
            } => {
                let policy = (project, policy);
                self.service
                    .replicate_by_policy(policy, vault, destination)
                    .await
            }
            Task::DeleteBackup { project, backup } => {
                delete::backup(&self.service, project, backup).await
            }
            Task::DeleteVault { project, vault } => match step {
                0 => delete::backups_of_vault(&self.service, project, vault, progress).await,
                _ => delete::vault(&self.service, project, vault).await,
            },
            Task::RemoveResources {
                project,
                vault,
                resources,
            } => match step {
                0 => delete::backups_of(&self.service, project, vault, &resources, progress).await,
                _ => delete::unbind(&self.service, vault, &resources).await,
            },
            Task::Sync { project, vault } => {
                let work = sync::Sync::new(self, row.id, project);
                work.mirror(vault, progress).await
            }
            Task::ImportBackup { project, import } => {
                let work = sync::Sync::new(self, row.id, project);
                work.import(&import, progress).await
            }
            Task::Collect { project } => collect::run(&self.service, project, progress).await,
            Task::Protect { project } => collect::protect(&self.service, project, progress).await,
            Task::Repair { project } => repair::run(&self.service, project, progress).await,
            Task::Verify {
                project,
                level,
                scope,
            } => {
                let work = verify::Verify::new(&self.service, row.id, project, level, scope);
                work.run(progress).await
            }
        }
    }

    const fn send<'a>(&'a self, task: &'a SendTask) -> send::Send<'a> {
        send::Send { worker: self, task }
    }

    const fn restore<'a>(&'a self, row: &TaskRow, task: &'a RestoreTask) -> restore::Restore<'a> {
        restore::Restore {
            worker: self,
            id: row.id,
            asked_at: row.created_at,
            task,
        }
    }

    async fn undo_step(&self, row: &TaskRow, step: usize, why: &Failure) -> Result<()> {
        match read(row)? {
            Task::BackUp {
                project,
                backup,
                reread_all,
            } => {
                let work = BackUp::new(
                    self,
                    row.id,
                    (project, backup),
                    ReadFrom::Source { reread_all },
                );
                work.undo(step, why).await
            }
            Task::BackUpHost {
                project, backup, ..
            } => {
                let work = BackUp::new(
                    self,
                    row.id,
                    (project, backup),
                    ReadFrom::Source { reread_all: false },
                );
                work.undo(step, why).await
            }
            Task::Replicate {
                project,
                backup,
                source_project,
                source,
            } => {
                let source = ReadFrom::Backup(source_project, source);
                let work = BackUp::new(self, row.id, (project, backup), source);
                work.undo(step, why).await
            }
            Task::Send(task) => self.send(&task).undo().await,
            Task::Receive { project, backup } => {
                let work = receive::Receive {
                    worker: self,
                    task: row.id,
                    project,
                    backup,
                };
                work.undo(step, why).await
            }
            Task::Restore(task) => self.restore(row, &task).undo(step).await,
            Task::DeleteBackup { project, backup } => {
                let of = (project, backup);
                delete::give_up_backup(&self.service, of, row.cancel_asked, &why.text).await
            }
            Task::DeleteVault { project, vault } => {
                delete::give_up_vault(&self.service, project, vault, row.cancel_asked).await
            }
            Task::RemoveResources {
                vault, resources, ..
            } => delete::give_up_removal(&self.service, vault, &resources).await,
            Task::Verify {
                project,
                level,
                scope,
            } => {
                let work = verify::Verify::new(&self.service, row.id, project, level, scope);
                work.give_up(why).await
            }
            Task::Sync { project, .. } => sync::Sync::new(self, row.id, project).give_up().await,
            Task::ImportBackup { project, .. } => {
                let work = sync::Sync::new(self, row.id, project);
                work.forget_unfinished().await
            }
            // They write nothing before they are done.
            Task::ReplicateByPolicy { .. }
            | Task::Withdraw { .. }
            | Task::Collect { .. }
            | Task::Protect { .. }
            | Task::Repair { .. } => Ok(()),
        }
    }
}

fn read(row: &TaskRow) -> Result<Task> {
    serde_json::from_str(&row.payload).map_err(|_| {
        let (column, value) = ("payload".to_owned(), row.payload.chars().take(64).collect());
        cairn_meta::Error::Column { column, value }.into()
    })
}

impl Work for Worker {
    fn steps(&self, row: &TaskRow) -> &'static [&'static str] {
        // A payload that cannot be read fails in its first step, with a reason.
        read(row).map_or(&["read"], |task| task.steps())
    }

    async fn run(
        &self,
        row: &TaskRow,
        step: usize,
        progress: &Arc<Progress>,
    ) -> std::result::Result<(), Failure> {
        let Err(error) = self.run_step(row, step, progress).await else {
            return Ok(());
        };
        let mut failure = failure(row, &error);
        let restores = [restore::KIND, RESTORE_HOST].contains(&row.kind.as_str());
        if restores && let Some(left) = restore::left(step, progress, row.kind == RESTORE_HOST) {
            failure.text.push_str(&left);
        }
        if row.kind == restore::KIND && restore::has_turned_off(&self.service, row.id).await {
            failure.text.push_str(restore::TURNED_OFF);
        }
        Err(failure)
    }

    async fn undo(
        &self,
        row: &TaskRow,
        step: usize,
        why: &Failure,
    ) -> std::result::Result<(), Failure> {
        self.undo_step(row, step, why)
            .await
            .map_err(|error| failure(row, &error))
    }

    async fn failed(&self, row: &TaskRow, why: &Failure, tx: &mut Tx) -> cairn_meta::Result<()> {
        // What somebody cancelled they know.
        if why.kind == Kind::Cancelled || row.cancel_asked {
            return Ok(());
        }
        let why = (why.code.as_str(), why.text.as_str());
        self.service.tell_of_failure(tx, row.id, why).await
    }
}

/// An error as the owner of the task may read it; the chain goes to the log.
fn failure(row: &TaskRow, error: &Error) -> Failure {
    tracing::warn!(
        task.id = %row.id,
        error = error as &(dyn std::error::Error + 'static),
        "work on a task met an error"
    );
    let again_after = match error {
        Error::Later { seconds } => Some(*seconds),
        _ => None,
    };
    Failure {
        again_after,
        ..Failure::new(error.kind(), public_text(error))
    }
}

/// What went wrong, in one sentence that names the place but not the machine.
fn public_text(error: &Error) -> String {
    let reason = match error.kind() {
        Kind::Exhausted => Some("no space is left"),
        Kind::Cancelled => Some("it was cancelled"),
        _ => None,
    };
    let mut text = match error {
        Error::Repository(inner) => match (disk_error(inner), inner) {
            (Some(disk), _) => match Because::of(&disk.source) {
                Some(why) => format!("{disk}: {why}"),
                None => disk.to_string(),
            },
            // Whose files they are, or where they go, is the owner's own.
            (None, cairn_repo::Error::Tree { source, .. }) if reason.is_none() => {
                format!("{inner}: {source}")
            }
            (None, _) => inner.to_string(),
        },
        Error::Source(inner) => inner.to_string(),
        other => other.to_string(),
    };
    if let Some(reason) = reason {
        text = format!("{text}: {reason}");
    }
    text
}

/// The disk at fault, if a disk is.
fn disk_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a DiskError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(disk) = error.downcast_ref() {
            return Some(disk);
        }
        next = error.source();
    }
    None
}
