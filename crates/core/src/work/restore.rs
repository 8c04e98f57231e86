//! A restore: a backup is written over disks, or into a share. One that another
//! project shares is read by a handle that opens this backup and nothing else.

use std::sync::Arc;

use cairn_link::Target;
use cairn_repo::{RestoreTree, StoredBackup};
use cairn_source::Inventory;
use cairn_types::disk::DiskReader;
use cairn_types::tree::{EntryKind, TreeWriter, read_name};
use cairn_types::{
    AgentId, BackupId, BackupStep, FileProblems, MemberStatus, OperationLogId, Progress, Timestamp,
};

use super::host::Host;
use super::{RestoreTask, Worker};
use crate::files;
use crate::restore::{DiskMapping, Power, is_from_elsewhere};
use crate::{OperationDetail, Refusal, Result, Service};

pub(super) const KIND: &str = "restore";
/// What whoever reads of a failed restore must know of the disks, or of the files.
const MIXTURE: &str = "; what it was restored to may hold a part of the backup and a part of what was there before: \
     restore it again";
/// What they must know where that was done, and something behind it failed.
const RESTORED: &str = "; what was to be restored is restored";
pub(super) const STEPS: &[&str] = &["begin", "turn off", "write disks", "turn on", "finish"];
/// The step in which bytes move.
const WRITING: usize = 2;
/// What whoever reads of a failed restore must know of the server.
pub(super) const TURNED_OFF: &str = "; the server was turned off for it, and not turned on again";

pub(super) struct Restore<'a> {
    pub(super) worker: &'a Worker,
    /// The task that does it.
    pub(super) id: OperationLogId,
    /// When it was asked for.
    pub(super) asked_at: Timestamp,
    pub(super) task: &'a RestoreTask,
}

impl Restore<'_> {
    pub(super) async fn run(&self, step: usize, progress: &Arc<Progress>) -> Result<()> {
        match step {
            0 => self.begin().await,
            1 => self.turn_off().await,
            2 => self.write_disks(progress).await,
            3 => self.turn_on().await,
            _ => self.end().await,
        }
    }

    /// The backup is as good as before, whatever became of the disks.
    pub(super) async fn undo(&self, step: usize) -> Result<()> {
        match step {
            0 => self.end().await,
            _ => Ok(()),
        }
    }

    /// Turns the server off whose disks are overwritten, if it runs.
    async fn turn_off(&self) -> Result<()> {
        let Some(Power { server, .. }) = self.task.power else {
            return Ok(());
        };
        let service = &self.worker.service;
        let turned_off = service.ask_inventory(move |inventory| inventory.power_off(server));
        if turned_off.await?.was_running {
            tracing::info!(server.id = %server, "A server was turned off to be restored.");
            let mut tx = service.meta().begin().await?;
            tx.set_was_running(self.id).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn turn_on(&self) -> Result<()> {
        match self.task.power {
            Some(Power {
                server, on: true, ..
            }) => {
                let service = &self.worker.service;
                let turned_on = service.ask_inventory(move |inventory| inventory.power_on(server));
                turned_on.await
            }
            _ => Ok(()),
        }
    }

    async fn write_disks(&self, progress: &Arc<Progress>) -> Result<()> {
        if let Some(agent) = self.task.agent {
            return self.write_to_host(agent, progress).await;
        }
        let _turn = self.worker.turn_to_move_bytes(progress).await?;
        let made_here = self.is_made_here().await?;
        for mapping in &self.task.mappings {
            let source = self.open(mapping.backup).await?;
            let found = source.find(mapping.backup).await?;
            if found.tree.is_some() {
                self.write_tree(&source, mapping, progress).await?;
                continue;
            }
            let (service, volume) = (&self.worker.service, mapping.volume);
            // A disk that has grown is to be as it was; another one keeps its size.
            let size = match made_here && volume == found.info.resource {
                true => found.size_bytes,
                false => u64::MAX,
            };
            let target = service
                .ask_inventory(move |inventory| inventory.open_writer(volume, size))
                .await?;
            let backup = mapping.backup;
            let disk: Arc<dyn DiskReader> = target.clone();
            let restored = source
                .restore_disk(backup, target, Arc::clone(progress))
                .await?;
            tracing::info!(
                backup.id = %backup,
                size_bytes = restored.size_bytes,
                data_bytes = restored.data_bytes,
                read_bytes = restored.read_bytes,
                requests = restored.requests,
                opened_bytes = restored.opened_bytes,
                "A disk was restored."
            );
            if service.compares_restored() {
                let compared = source.compare_disk(backup, Arc::clone(&disk), Arc::clone(progress));
                compared.await?;
            }
            // Somebody may have put another image there meanwhile: then this one is of no use.
            files::blocking(move || Ok(disk.check_unchanged().map_err(cairn_repo::Error::from)?))
                .await?;
        }
        Ok(())
    }

    async fn write_tree(
        &self,
        source: &StoredBackup,
        mapping: &DiskMapping,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        // Nothing is made for what is not in the backup.
        let folder = match self.task.folder.as_str() {
            "" => in_place(source, mapping.backup, self.chosen()).await?,
            folder => {
                kind_of(source, mapping.backup, self.chosen()).await?;
                folder.to_owned()
            }
        };
        let share = mapping.volume;
        let open = move |inventory: &Inventory| inventory.open_share_writer(share, &folder);
        let target = Arc::new(self.worker.service.ask_inventory(open).await?);
        self.write_files(source, mapping.backup, target, progress)
            .await
    }

    /// What of the backup is restored, by its path.
    fn chosen(&self) -> Vec<u8> {
        read_name(&self.task.path).expect("it was checked when it was asked for")
    }

    /// Writes files by the line to an agent.
    async fn write_to_host(&self, agent: AgentId, progress: &Arc<Progress>) -> Result<()> {
        let host = Host {
            worker: self.worker,
            project: self.task.project,
            agent,
            asked_at: self.asked_at,
        };
        let source = self.open(self.task.backup).await?;
        let path = match self.task.folder.as_str() {
            "" => in_place(&source, self.task.backup, self.chosen()).await?,
            folder => format!("/{}", folder.trim_matches('/')),
        };
        host.over_line(progress, async |line| {
            let target = line.open_tree_writer(Target { path });
            self.write_files(&source, self.task.backup, target, progress)
                .await
        })
        .await
    }

    async fn write_files(
        &self,
        source: &StoredBackup,
        backup: BackupId,
        target: Arc<dyn TreeWriter>,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let job = RestoreTree {
            backup,
            path: self.chosen(),
            target,
            progress: Arc::clone(progress),
        };
        let restored = source.restore_tree(job).await?;
        let problems = FileProblems::found(restored.problems, &restored.listed);
        if let Some(FileProblems { count, first }) = &problems {
            tracing::warn!(
                backup.id = %backup,
                entries = count,
                first = first.first(),
                "Entries were not restored as they were."
            );
        }
        self.record_problems(problems).await
    }

    /// Notes which files were not restored as they were.
    async fn record_problems(&self, problems: Option<FileProblems>) -> Result<()> {
        let mut tx = self.worker.service.meta().begin().await?;
        OperationDetail::change(&mut tx, self.id, |detail| {
            if let OperationDetail::Restore { file_problems, .. } = detail {
                *file_problems = problems;
            }
        })
        .await?;
        Ok(tx.commit().await?)
    }

    /// Whether the project made the backup itself, of its own resource: what comes
    /// from elsewhere may name a resource that has the same id there.
    async fn is_made_here(&self) -> Result<bool> {
        let mut tx = self.worker.service.meta().read().await?;
        if self.task.owner.is_some() {
            return Ok(false);
        }
        Ok(!is_from_elsewhere(&mut tx, self.task.project, self.task.backup).await?)
    }

    /// Opens the backup that a mapping names. A member gets at it through the
    /// backup that is shared, an owner even where a server's own part is lost.
    async fn open(&self, part: BackupId) -> Result<StoredBackup> {
        let repository = self.worker.service.repository();
        let (project, backup) = match self.task.owner {
            Some(owner) => (owner, self.task.backup),
            None => (self.task.project, part),
        };
        let project = repository.existing_project(project).await?;
        Ok(project.open_backup(backup).await?)
    }

    async fn begin(&self) -> Result<()> {
        if self.task.owner.is_none() {
            return self.start().await;
        }
        let mut tx = self.worker.service.meta().read().await?;
        let share = tx.share(self.task.backup, self.task.project).await?;
        match share.map(|share| share.status) {
            Some(MemberStatus::Accepted) => Ok(()),
            _ => Err(Refusal::BackupNotFound.into()),
        }
    }

    /// What the restore had taken is free, and the backup is as before.
    async fn end(&self) -> Result<()> {
        let service = &self.worker.service;
        let mut tx = service.meta().begin().await?;
        if self.task.owner.is_none()
            && let Some(mut backup) = tx.lock_backup(self.task.project, self.task.backup).await?
        {
            let (step, now) = (BackupStep::EndRestore, service.now());
            tx.step_backup(&mut backup, step, now).await?;
        }
        tx.remove_restore(self.id).await?;
        Ok(tx.commit().await?)
    }

    async fn start(&self) -> Result<()> {
        let service = &self.worker.service;
        let mut tx = service.meta().begin().await?;
        if let Some(mut backup) = tx.lock_backup(self.task.project, self.task.backup).await? {
            let (step, now) = (BackupStep::StartRestore, service.now());
            tx.step_backup(&mut backup, step, now).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// What a restore that failed in this step has left, if it has written anything. How many entries an
/// agent has made of those that it was sent, nobody may have told.
pub(super) fn left(step: usize, progress: &Progress, by_agent: bool) -> Option<String> {
    if step > WRITING {
        return Some(RESTORED.to_owned());
    }
    let most = if by_agent { "at most " } else { "" };
    match progress.entries() {
        0 if progress.done() == 0 => None,
        0 => Some(MIXTURE.to_owned()),
        entries => Some(format!(
            "; entries that were made or replaced: {most}{entries}{MIXTURE}"
        )),
    }
}

/// Whether a server was turned off for the restore of a task. Where that cannot be told, it is not.
pub(super) async fn has_turned_off(service: &Service, task: OperationLogId) -> bool {
    match service.meta().read().await {
        Ok(mut tx) => tx.was_running(task).await.unwrap_or(false),
        Err(_) => false,
    }
}

/// Where on its host, or below its share, a path of a backup was: what is in a directory goes there again, and anything
/// else into the directory that it was in.
async fn in_place(source: &StoredBackup, backup: BackupId, path: Vec<u8>) -> Result<String> {
    let kind = kind_of(source, backup, path.clone()).await?;
    let above = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let folder = match kind {
        EntryKind::Directory => &path[..],
        _ => &path[..above],
    };
    match std::str::from_utf8(folder) {
        Ok(folder) => Ok(format!("/{folder}")),
        Err(_) => {
            let text =
                "restore.details.destination_path is needed where a folder's name is no text";
            Err(Refusal::Invalid(text.to_owned()).into())
        }
    }
}

/// What a path of a backup is.
///
/// Errors: `NotFound` it is not in there.
async fn kind_of(source: &StoredBackup, backup: BackupId, path: Vec<u8>) -> Result<EntryKind> {
    let tree = source.open_tree(backup).await?;
    files::blocking(move || files::kind(&*tree, &path)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_restore_has_left_depends_on_how_far_it_came() {
        let progress = Progress::default();
        assert_eq!(left(1, &progress, false), None);
        assert_eq!(left(WRITING, &progress, false), None);
        progress.advance(1);
        let mixture = left(WRITING, &progress, false).unwrap();
        assert!(mixture.contains("restore it again"), "{mixture}");
        // All is written where only the server did not start.
        let restored = left(WRITING + 1, &progress, false).unwrap();
        assert!(!restored.contains("again"), "{restored}");
    }
}
