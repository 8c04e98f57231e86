//! A backup: the disks of one resource, or the files of a share, are read, stored
//! and acknowledged. They are read from their source, or, for a replica, from the backup it
//! copies, which is here or in another region, or from a backup in the repository of another site.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_link::Line;
use cairn_meta::{Backup, Tx};
use cairn_repo::{
    OnPack, Project as ProjectRepository, StoredBackup, WriteDisk, WriteTree, Written,
};
use cairn_source::{Folder, Inventory, Moment};
use cairn_task::Failure;
use cairn_types::disk::DiskReader;
use cairn_types::tree::TreeReader;
use cairn_types::{
    BackupId, BackupInfo, BackupStatus, FileProblems, Kind, OperationLogId, Progress, ProjectId,
    ResourceId, ResourceType, Timestamp,
};
use tokio::runtime::Handle;

use super::Worker;
use crate::metadata::ResourceMetadata;
use crate::protect::Protected;
use crate::{Error, OperationDetail, Refusal, Result};

/// The files of a host, and its time when they were opened.
pub(super) type HostFiles = (Arc<dyn TreeReader>, Timestamp);

pub(super) const STEPS: &[&str] = &["begin", "write disks", "acknowledge"];
/// The step in which bytes move.
pub(super) const WRITING: usize = 1;

pub(super) struct BackUp<'a> {
    pub(super) worker: &'a Worker,
    /// The task that does it.
    pub(super) task: OperationLogId,
    pub(super) project: ProjectId,
    pub(super) backup: BackupId,
    from: ReadFrom<'a>,
}

/// What a backup is read from.
#[derive(Clone)]
pub(super) enum ReadFrom<'a> {
    /// The resource itself.
    Source { reread_all: bool },
    /// A backup, in whose project it is read.
    Backup(ProjectId, BackupId),
    /// A backup in another region, while there is a line to it.
    Region(Option<Line>),
    /// A backup of another site.
    External(&'a StoredBackup),
    /// The files of a host, while there is a line to its agent.
    Host {
        files: Option<HostFiles>,
        reread_all: bool,
    },
}

impl<'a> BackUp<'a> {
    /// The work of making a backup by a task.
    pub(super) const fn new(
        worker: &'a Worker,
        task: OperationLogId,
        (project, backup): (ProjectId, BackupId),
        from: ReadFrom<'a>,
    ) -> Self {
        Self {
            worker,
            task,
            project,
            backup,
            from,
        }
    }

    pub(super) async fn run(&self, step: usize, progress: &Arc<Progress>) -> Result<()> {
        match step {
            0 => self.begin().await,
            1 => self.write_disks(progress).await,
            _ => self.acknowledge().await,
        }
    }

    /// Whatever the repository holds of the backup goes, and the row says that
    /// it failed. Once the row says `available` somebody may have seen it:
    /// then the backup stays, whatever else went wrong.
    pub(super) async fn undo(&self, step: usize, why: &Failure) -> Result<()> {
        let status = match self.rows().await {
            Ok((backup, _)) => backup.status,
            Err(Error::Refused(Refusal::BackupNotFound)) => return Ok(()),
            Err(error) => return Err(error),
        };
        match step {
            _ if status == BackupStatus::Available => Ok(()),
            0 => self.fail(why).await,
            1 => self.forget_disks().await,
            _ => Ok(()),
        }
    }

    async fn begin(&self) -> Result<()> {
        let service = &self.worker.service;
        service.begin_protect(self.project, self.backup).await
    }

    async fn write_disks(&self, progress: &Arc<Progress>) -> Result<()> {
        // What comes over a line takes as long as the line does: nobody waits for that.
        let _turn = match self.from {
            ReadFrom::Region(_) | ReadFrom::Host { .. } => None,
            _ => Some(self.worker.turn_to_move_bytes(progress).await?),
        };
        let service = &self.worker.service;
        let (backup, children) = self.rows().await?;
        let vault_name = self.vault_name(&backup).await?;
        let repository = service.repository().project(self.project).await?;
        let repository = repository.telling_of_packs(self.holding_packs());
        // After a crash, what was acknowledged by the repository stays as it is.
        if is_written(&repository, backup.id).await? {
            return Ok(());
        }
        match backup.resource_type {
            ResourceType::Volume => {
                return self
                    .write_disk(&repository, &backup, &vault_name, None, progress)
                    .await;
            }
            ResourceType::Turbo | ResourceType::NativeServer => {
                return self
                    .write_tree(&repository, &backup, &vault_name, progress)
                    .await;
            }
            _ => {}
        }
        self.write_server(&repository, backup, &children, &vault_name, progress)
            .await
    }

    /// Writes the disks of a server, all of one moment, and then that they are one backup.
    async fn write_server(
        &self,
        repository: &ProjectRepository,
        mut backup: Backup,
        children: &[Backup],
        vault_name: &str,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        if children.is_empty() {
            return Err(Refusal::NoVolumeLeft {
                id: backup.resource,
            }
            .into());
        }
        let (mut written, mut left) = (Vec::new(), Vec::new());
        for child in children {
            match is_written(repository, child.id).await? {
                true => written.push(child),
                false => left.push(child),
            }
        }
        let mut opened = HashMap::new();
        if let ReadFrom::Source { .. } = self.from
            && !left.is_empty()
        {
            // What an earlier attempt wrote is of another moment, also where nothing runs: it may have since.
            for child in written {
                repository.delete(child.id).await?;
            }
            left = children.iter().collect();
            self.record_definition(&mut backup).await?;
            let volumes = children.iter().map(|child| child.resource).collect();
            let server = self.open_server(repository, &backup, volumes, progress);
            opened = server.await?.disks.into_iter().collect();
        }
        for child in left {
            // Each is closed when it is written: a guest need not keep for it any longer what it had.
            let reader = opened.remove(&child.resource);
            self.write_disk(repository, child, vault_name, reader, progress)
                .await?;
        }
        let ids = children.iter().map(|child| child.id).collect();
        repository
            .write_group(info(&backup, vault_name), ids)
            .await?;
        Ok(())
    }

    async fn write_disk(
        &self,
        repository: &ProjectRepository,
        backup: &Backup,
        vault_name: &str,
        opened: Option<Arc<dyn DiskReader>>,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let base = self.base(repository, backup.resource).await?;
        let (parent, reader, reread_all) = match &self.from {
            ReadFrom::Source { reread_all } => {
                let reader = match opened {
                    Some(reader) => reader,
                    None => self.open_source(backup.resource).await?,
                };
                (base, reader, *reread_all)
            }
            ReadFrom::Backup(project, copied) => {
                let service = &self.worker.service;
                let stored = service.open_stored(*project, *copied, backup.resource);
                (base, stored.await?, false)
            }
            ReadFrom::Region(line) => {
                let line = line.as_ref().ok_or(cairn_link::Error::Lost(None))?;
                (base, line.open_disk(backup.resource).await?, false)
            }
            ReadFrom::External(theirs) => (None, open_part(theirs, backup.resource).await?, true),
            ReadFrom::Host { .. } => return Err(Refusal::NotADiskBackup.into()),
        };
        // What is lost of an earlier backup may be what has not changed since.
        let reread_all = reread_all || self.is_hurt(backup.resource).await?;
        let job = WriteDisk {
            info: info(backup, vault_name),
            parent,
            reader,
            progress: Arc::clone(progress),
            reread_all,
        };
        let written = repository.write_disk(job).await?;
        let all_read_because = written.by_change_map.as_ref().err();
        tracing::info!(
            backup.id = %backup.id,
            data_bytes = written.data_bytes,
            read_bytes = written.read_bytes,
            new_bytes = written.new_bytes,
            all_read_because = all_read_because.map(tracing::field::display),
            "A disk is in the repository."
        );
        self.record(backup, &written).await
    }

    /// Notes how a server is defined where it runs, if its source can tell: a backup of the disks alone is
    /// better than none.
    async fn record_definition(&self, backup: &mut Backup) -> Result<()> {
        let Some(mut known) = ResourceMetadata::recorded(backup) else {
            return Ok(());
        };
        let (service, server) = (&self.worker.service, backup.resource);
        let told = service
            .ask_inventory(move |inventory| inventory.definition(server))
            .await;
        known.definition = told.unwrap_or_else(|error| {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(error, backup.id = %backup.id, "How a server is defined is not in its backup.");
            None
        });
        backup.metadata = Some(known.to_json());
        let mut tx = self.worker.service.meta().begin().await?;
        let metadata = backup.metadata.clone();
        let change = |row: &mut Backup| row.metadata = metadata;
        self.change_row(&mut tx, backup, change).await?;
        Ok(tx.commit().await?)
    }

    /// Whether a part of an earlier backup of the disk or the share is known to be lost.
    async fn is_hurt(&self, resource: ResourceId) -> Result<bool> {
        let mut tx = self.worker.service.meta().read().await?;
        Ok(tx.is_hurt(self.project, resource).await?)
    }

    async fn write_tree(
        &self,
        repository: &ProjectRepository,
        backup: &Backup,
        vault_name: &str,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let mut started_at = self.worker.service.now();
        let (parent, reader, reread_all): (_, Arc<dyn TreeReader>, _) = match &self.from {
            ReadFrom::Source { reread_all } => {
                let base = self.base(repository, backup.resource).await?;
                let reread_all = *reread_all || self.is_hurt(backup.resource).await?;
                let folder = self.open_share(backup.resource).await?;
                self.record_moment(backup, folder.moment()).await?;
                (base, Arc::new(folder), reread_all)
            }
            ReadFrom::External(theirs) => {
                let reader = theirs.open_tree(theirs.listed().info.id).await?;
                (None, reader, true)
            }
            ReadFrom::Host { files, reread_all } => {
                let (files, host_time) = files.as_ref().ok_or(cairn_link::Error::Lost(None))?;
                // Its files' times are by its own clock.
                started_at = *host_time;
                let base = self.base(repository, backup.resource).await?;
                let reread_all = *reread_all || self.is_hurt(backup.resource).await?;
                (base, Arc::clone(files), reread_all)
            }
            ReadFrom::Backup(..) | ReadFrom::Region(_) => {
                return Err(Refusal::NotAServerBackup.into());
            }
        };
        let job = WriteTree {
            info: info(backup, vault_name),
            parent,
            reader,
            started_at,
            progress: Arc::clone(progress),
            reread_all,
        };
        let tree = repository.write_tree(job).await?;
        let problems = FileProblems::found(tree.summary.problems, &tree.summary.listed);
        if let Some(FileProblems { count, first }) = &problems {
            tracing::warn!(
                backup.id = %backup.id,
                entries = count,
                first = first.first(),
                "Entries of a tree of files could not be saved as they were."
            );
        }
        self.record_problems(backup, problems).await?;
        self.record(backup, &tree.written).await
    }

    async fn open_share(&self, share: ResourceId) -> Result<Folder> {
        let open = move |inventory: &Inventory| inventory.open_share(share);
        self.worker.service.ask_inventory(open).await
    }

    /// Notes of which moment the files are.
    async fn record_moment(&self, backup: &Backup, moment: Moment) -> Result<()> {
        let mut tx = self.worker.service.meta().begin().await?;
        let change = |row: &mut Backup| row.files_moment = Some(moment.name().to_owned());
        self.change_row(&mut tx, backup, change).await?;
        Ok(tx.commit().await?)
    }

    /// Notes which files are not in the backup as they were.
    async fn record_problems(&self, backup: &Backup, problems: Option<FileProblems>) -> Result<()> {
        let mut tx = self.worker.service.meta().begin().await?;
        let change = |row: &mut Backup| row.file_problems = problems.clone();
        self.change_row(&mut tx, backup, change).await?;
        OperationDetail::change(&mut tx, self.task, |detail| {
            if let OperationDetail::Backup { file_problems, .. } = detail {
                *file_problems = problems;
            }
        })
        .await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn change_row(
        &self,
        tx: &mut Tx,
        backup: &Backup,
        change: impl FnOnce(&mut Backup),
    ) -> Result<()> {
        let row = tx.lock_backup(self.project, backup.id).await?;
        let mut row = row.ok_or(Refusal::BackupNotFound)?;
        change(&mut row);
        row.updated_at = self.worker.service.now();
        Ok(tx.update_backup(&row).await?)
    }

    async fn open_source(&self, volume: ResourceId) -> Result<Arc<dyn DiskReader>> {
        let open = move |inventory: &Inventory| inventory.open_reader(volume);
        self.worker.service.ask_inventory(open).await
    }

    /// Has the catalogue note every pack that is begun: if the work is interrupted,
    /// no collection takes away what it has stored.
    fn holding_packs(&self) -> OnPack {
        let (service, handle) = (self.worker.service.clone(), Handle::current());
        let (task, project) = (self.task, self.project);
        Arc::new(move |pack| {
            let noted = handle.block_on(async {
                let mut tx = service.meta().begin().await?;
                tx.hold_pack(task, project, &pack.to_string()).await?;
                tx.commit().await
            });
            if let Err(error) = noted {
                tracing::warn!(%error, "If the work is interrupted now, it may store a pack again.");
            }
        })
    }

    /// The newest earlier backup of the disk that the repository still has.
    async fn base(
        &self,
        repository: &ProjectRepository,
        disk: ResourceId,
    ) -> Result<Option<BackupId>> {
        let mut tx = self.worker.service.meta().read().await?;
        let Some(newest) = tx.newest_available(self.project, disk).await? else {
            return Ok(None);
        };
        match repository.find(newest.id).await {
            Ok(found) => Ok(Some(found.info.id)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::error!(
                    backup.id = %newest.id,
                    error = &error as &(dyn std::error::Error + 'static),
                    "an earlier backup of a disk is damaged: the next one builds on none"
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Notes what a disk's backup came to, before it is acknowledged.
    async fn record(&self, backup: &Backup, written: &Written) -> Result<()> {
        let mut tx = self.worker.service.meta().begin().await?;
        let change = |row: &mut Backup| {
            row.size_bytes = written.size_bytes;
            row.data_bytes = written.data_bytes;
            row.used_bytes = written.new_bytes;
            row.root = Some(written.root.to_string());
        };
        self.change_row(&mut tx, backup, change).await?;
        Ok(tx.commit().await?)
    }

    /// Makes the backup available: the repository has acknowledged all of it.
    async fn acknowledge(&self) -> Result<()> {
        let service = &self.worker.service;
        let repository = service.repository().existing_project(self.project).await?;
        let listed = repository.find(self.backup).await?;
        let (backup, children) = self.rows().await?;
        let (data_bytes, used_bytes) = self.charge(&backup, &children).await?;
        let protected = Protected {
            size_bytes: listed.size_bytes,
            data_bytes,
            used_bytes,
            root: listed.root.to_string(),
        };
        service
            .finish_protect(self.project, self.backup, &protected)
            .await?;
        self.enqueue_protection().await?;
        service.settle_capacity(self.project, backup.vault).await
    }

    /// A backup is acknowledged without parity: that is made behind it.
    async fn enqueue_protection(&self) -> Result<()> {
        let service = &self.worker.service;
        if !service.repository().has_parity() {
            return Ok(());
        }
        let mut tx = service.meta().begin().await?;
        service.enqueue_protection(&mut tx, self.project).await?;
        tx.commit().await?;
        service.wake_engine();
        Ok(())
    }

    /// The data in the backup, and what its vault is charged for it.
    async fn charge(&self, backup: &Backup, children: &[Backup]) -> Result<(u64, u64)> {
        let (data, new) = match children {
            [] => (backup.data_bytes, backup.used_bytes),
            disks => disks.iter().fold((0, 0), |(data, new), disk| {
                (data + disk.data_bytes, new + disk.used_bytes)
            }),
        };
        let mut tx = self.worker.service.meta().read().await?;
        let all = tx
            .backups_of_vault(backup.vault, Some(backup.resource))
            .await?;
        // A restore takes nothing away from a backup.
        let holds = |other: &Backup| other.id != backup.id && other.protected_at.is_some();
        Ok((data, if all.iter().any(holds) { new } else { data }))
    }

    async fn forget_disks(&self) -> Result<()> {
        let service = &self.worker.service;
        let (backup, children) = self.rows().await?;
        let repository = service.repository().project(self.project).await?;
        repository.delete(backup.id).await?;
        for child in children {
            repository.delete(child.id).await?;
        }
        let mut tx = service.meta().begin().await?;
        tx.release_packs(self.task).await?;
        service.enqueue_collection(&mut tx, self.project, 0).await?;
        tx.commit().await?;
        service.wake_engine();
        Ok(())
    }

    async fn fail(&self, why: &Failure) -> Result<()> {
        let service = &self.worker.service;
        service
            .fail_protect(self.project, self.backup, &why.text)
            .await
    }

    async fn rows(&self) -> Result<(Backup, Vec<Backup>)> {
        let mut tx = self.worker.service.meta().read().await?;
        let backup = tx.backup(self.project, self.backup).await?;
        let children = tx.children_of(&[self.backup]).await?;
        Ok((backup.ok_or(Refusal::BackupNotFound)?, children))
    }

    async fn vault_name(&self, backup: &Backup) -> Result<String> {
        let mut tx = self.worker.service.meta().read().await?;
        let vault = tx
            .vault(self.project, backup.vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        Ok(vault.name)
    }
}

/// Opens the disk of a backup that is a copy of this one.
async fn open_part(backup: &StoredBackup, disk: ResourceId) -> Result<Arc<dyn DiskReader>> {
    let listed = backup.listed();
    let own = std::iter::once(listed.info.id);
    for part in own.chain(listed.children.iter().map(|child| child.backup)) {
        if backup.find(part).await?.info.resource == disk {
            return Ok(backup.open_disk(part).await?);
        }
    }
    Err(Refusal::BackupNotFound.into())
}

/// Whether an earlier attempt has written a backup. One that lacks anything goes:
/// it is that of a process which did not know that its time was over.
async fn is_written(repository: &ProjectRepository, backup: BackupId) -> Result<bool> {
    match repository.find_whole(backup).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) if error.kind() == Kind::Corrupt => {
            tracing::warn!(backup.id = %backup, %error, "A backup that nobody acknowledged is written anew.");
            repository.delete(backup).await?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn info(backup: &Backup, vault_name: &str) -> BackupInfo {
    BackupInfo {
        id: backup.id,
        project: backup.project,
        checkpoint: backup.checkpoint,
        parent: backup.parent,
        vault: backup.vault,
        vault_name: vault_name.to_owned(),
        name: backup.name.clone(),
        description: backup.description.clone(),
        resource: backup.resource,
        resource_type: backup.resource_type,
        resource_name: backup.resource_name.clone(),
        created_at: backup.created_at,
        auto_trigger: backup.auto_trigger,
        system_disk: backup.system_disk,
        definition: ResourceMetadata::recorded(backup).and_then(|known| known.definition),
    }
}
