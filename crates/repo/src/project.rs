//! One project's part of the repository: its backups, and who may work on them
//! at the same time.
//!
//! Everything may run beside everything else; what each needs of the others is
//! in `known.rs`, which is loaded when it is first needed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::tree::TreeReader;
use cairn_types::{BackupId, BackupInfo, Kind, Progress, VerifyLevel};
use futures::{StreamExt, TryStreamExt, stream};

use crate::collect::{self, Collected};
use crate::error::{Error, Result};
use crate::filetree::{self, RestoreTree, TreeSummary, WriteTree, WrittenTree};
use crate::index::{Index, LocalFolder};
use crate::keys::{Place, ProjectKeys};
use crate::known::{Known, Pin};
use crate::log::Log;
use crate::manifest::{Child, Manifest};
use crate::pack::PackId;
use crate::parity::{self, Parity, Protected};
use crate::repair::{self, Repaired};
use crate::restore::{self, Restored};
use crate::store::{Folder, Objects, receipt_path};
use crate::stored;
use crate::stored_backup::StoredBackup;
use crate::tree::Root;
use crate::verify::{self, VerifyReport};
use crate::workers::{self, lock};
use crate::write::{self, WriteDisk, Written};

/// Small objects that are read at a time.
pub(crate) const READS: usize = 8;

/// One tenant's part of a repository: key ring, index, packs. Clones share it.
#[derive(Clone)]
pub struct Project {
    pub(crate) inner: Arc<Inner>,
}

/// A project as one piece of work sees it.
#[derive(Clone)]
pub(crate) struct Inner {
    pub place: Place,
    /// Those of the work, which it may be cancelled in the middle of.
    pub objects: Objects,
    pub keys: Arc<ProjectKeys>,
    shared: Arc<Shared>,
    /// Told of every pack that a backup begins.
    on_pack: Option<OnPack>,
}

/// Told of a pack before the store hears of it. Blocks.
pub type OnPack = Arc<dyn Fn(PackId) + Send + Sync>;

/// What all work on a project shares.
struct Shared {
    /// Where the local index lies.
    local: Arc<LocalFolder>,
    /// The repository's log, if it is open for writing.
    log: Option<Arc<Log>>,
    /// How packs are protected, if they are.
    parity: Option<Parity>,
    known: tokio::sync::Mutex<Option<Arc<Known>>>,
    /// Held by collection and repair: one at a time.
    collecting: tokio::sync::Mutex<()>,
    backups: Mutex<Backups>,
}

/// What is remembered of backups.
#[derive(Debug, Default)]
struct Backups {
    /// That are being written.
    writing: HashSet<BackupId>,
    /// That have been acknowledged since the repository was opened, and not deleted.
    acknowledged: HashSet<BackupId>,
}

/// An acknowledged backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is a backup of.
    pub info: BackupInfo,
    /// The name of its content.
    pub root: Root,
    /// The size of the disk, or of all disks of a group.
    pub size_bytes: u64,
    /// The backup that it was said to follow.
    pub parent: Option<BackupId>,
    /// The disks of a group.
    pub children: Vec<Child>,
    /// What a tree of files holds.
    pub tree: Option<TreeSummary>,
}

impl Project {
    pub(crate) fn new(
        place: Place,
        objects: Objects,
        keys: ProjectKeys,
        local: Arc<LocalFolder>,
        (log, parity): (Option<Arc<Log>>, Option<Parity>),
    ) -> Self {
        let shared = Shared {
            local,
            log,
            parity,
            known: tokio::sync::Mutex::default(),
            collecting: tokio::sync::Mutex::default(),
            backups: Mutex::default(),
        };
        let inner = Inner {
            place,
            objects,
            keys: Arc::new(keys),
            shared: Arc::new(shared),
            on_pack: None,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same project, which tells `on_pack` of every pack that a backup written
    /// by this one begins: what [`collect_beside`](Self::collect_beside) is to leave.
    pub fn telling_of_packs(&self, on_pack: OnPack) -> Self {
        let inner = Inner {
            on_pack: Some(on_pack),
            ..(*self.inner).clone()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The key by which blocks of the project have their ids: a disk at the other end
    /// of a line tells its blocks' ids with it. It opens nothing.
    pub fn block_key(&self) -> zeroize::Zeroizing<[u8; 32]> {
        self.inner.keys.hasher.block_key()
    }

    /// What says where large files are cut: for those at the other end of a line, too.
    pub fn cut_seed(&self) -> u64 {
        self.inner.keys.hasher.cut_seed()
    }

    /// Saves a disk. The backup exists when this returns, and not before.
    ///
    /// May be repeated after a failure with the same backup's id. If the caller
    /// goes away the work stops, and leaves only what collection finds.
    ///
    /// Errors: `Conflict` the backup exists or is being written; the disk's own; `Cancelled`.
    pub async fn write_disk(&self, job: WriteDisk) -> Result<Written> {
        let work = self.inner.for_work(&job.progress);
        let written = write::write_disk(&work, job).await;
        self.inner.or_fenced(written).await
    }

    /// Saves a tree of files. What of it cannot be read is named in the summary,
    /// and only the tree's own directory must be readable. May be repeated as `write_disk`.
    ///
    /// Errors: `Conflict` as `write_disk`; the tree's own; `Cancelled`.
    pub async fn write_tree(&self, job: WriteTree) -> Result<WrittenTree> {
        let work = self.inner.for_work(&job.progress);
        let written = filetree::write_tree(&work, job).await;
        self.inner.or_fenced(written).await
    }

    /// Saves the backup of a server: the names of its disks' backups.
    ///
    /// Errors: `NotFound` no such backup of a disk; `Conflict` as `write_disk`.
    pub async fn write_group(&self, info: BackupInfo, children: Vec<BackupId>) -> Result<Written> {
        write::write_group(&self.inner, info, children).await
    }

    /// Writes a disk's bytes to `target`, each checked before it is, and returns once they are
    /// durable there. A larger target keeps what it has behind the disk's end.
    ///
    /// Errors: `NotFound`; `Invalid` a group, or too small a target; `Corrupt`; `Cancelled`.
    pub async fn restore_disk(
        &self,
        backup: BackupId,
        target: Arc<dyn DiskWriter>,
        progress: Arc<Progress>,
    ) -> Result<Restored> {
        let work = self.inner.for_work(&progress);
        let restored = restore::restore_disk(&work, backup, target, progress).await;
        self.inner.or_fenced(restored).await
    }

    /// Reads a disk, and returns if its bytes are those of a backup. What it has behind the
    /// backup's end is not looked at.
    ///
    /// Errors: `NotFound`; `Invalid` a group; `Corrupt` it holds something else; `Cancelled`.
    pub async fn compare_disk(
        &self,
        backup: BackupId,
        disk: Arc<dyn DiskReader>,
        progress: Arc<Progress>,
    ) -> Result<()> {
        let work = self.inner.for_work(&progress);
        restore::compare_disk(&work, backup, disk, progress).await
    }

    /// Writes a tree of files, or a part of it, to a target and returns once all
    /// of it has been read back there and is what was saved. What was there
    /// stays, unless the tree has another entry of that name. Returns what was
    /// restored; its problems are entries whose owner, mode, times or attributes
    /// could not be set, and devices, pipes and sockets that could not be made.
    ///
    /// Errors: `NotFound` the backup, or the path in it; `Invalid` it is no tree;
    /// `Corrupt`; the target's own; `Cancelled`.
    pub async fn restore_tree(&self, job: RestoreTree) -> Result<TreeSummary> {
        let work = self.inner.for_work(&job.progress);
        let restored = filetree::restore_tree(&work, job).await;
        self.inner.or_fenced(restored).await
    }

    /// Opens a disk's backup for reading at any place, from any thread that may
    /// block. The backup may be deleted meanwhile and stays readable here.
    ///
    /// Errors: `NotFound`; `Invalid` a group; `Corrupt`. What a read fails by
    /// has the kind of the repository's error once it is one of a backup again.
    pub async fn open_disk(&self, backup: BackupId) -> Result<Arc<dyn DiskReader>> {
        stored::open_disk(&self.inner, backup).await
    }

    /// As `open_disk`, of a tree of files.
    ///
    /// Errors: `NotFound`; `Invalid` it is no tree; `Corrupt`.
    pub async fn open_tree(&self, backup: BackupId) -> Result<Arc<dyn TreeReader>> {
        filetree::open_tree(&self.inner, backup).await
    }

    /// One backup, and a server's disks with it, for whoever may read nothing
    /// else of the project.
    ///
    /// Errors: `NotFound`; `Corrupt`.
    pub async fn open_backup(&self, backup: BackupId) -> Result<StoredBackup> {
        StoredBackup::open(self.clone(), backup).await
    }

    /// Every acknowledged backup, oldest first.
    ///
    /// Errors: `Corrupt` names the first whose receipt or manifest is not whole;
    /// `verify` names all.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let (found, _) = self.inner.backups_in(Folder::Receipts).await?;
        let reads = found
            .into_iter()
            .map(|backup| self.inner.still_listed(backup));
        let listed: Vec<_> = stream::iter(reads).buffered(READS).try_collect().await?;
        let mut listed: Vec<Listed> = listed.into_iter().flatten().collect();
        listed.sort_by_key(|backup| (backup.info.created_at, backup.info.id));
        Ok(listed)
    }

    /// One acknowledged backup.
    ///
    /// Errors: `NotFound`; `Corrupt`.
    pub async fn find(&self, backup: BackupId) -> Result<Listed> {
        self.inner.listed(backup).await
    }

    /// As `find`, of a backup of which nothing is missing: it reads all of its
    /// tree, but no blocks. For a backup that this process has not acknowledged
    /// itself: its writer may have been none any more, and it may lack data.
    ///
    /// Errors: `NotFound`; `Corrupt` something is missing.
    pub async fn find_whole(&self, backup: BackupId) -> Result<Listed> {
        verify::find_whole(&self.inner, backup).await
    }

    /// Deletes a backup: from the moment its receipt is gone it does not exist.
    /// What only it needed stays until the next collection. A backup that is
    /// not there is fine.
    ///
    /// Errors: `Conflict` it is being written, or another process is the writer now.
    pub async fn delete(&self, backup: BackupId) -> Result<()> {
        let _mine = self.inner.reserve(backup)?;
        self.inner.delete(backup).await
    }

    /// Removes everything that no backup needs, beside all other work on the
    /// project. `promised` are the backups that must be there, as far as the
    /// caller knows: a listing that lacks one is not believed. A second
    /// collection waits until the first has ended.
    ///
    /// Errors: `Transient` the store's listing lacks what is there; `Corrupt` a backup
    /// that must be there is gone, or one cannot be read in full: nothing was removed,
    /// and nothing is until it is deleted. If it was since the caller drew up the
    /// list, he draws up another. `Conflict` another process is the writer now; `Cancelled`.
    pub async fn collect(
        &self,
        promised: &[BackupId],
        progress: Arc<Progress>,
    ) -> Result<Collected> {
        self.collect_beside(promised, &[], progress).await
    }

    /// As `collect`, and leaves these packs as they are: those of backups that were
    /// interrupted and go on later.
    pub async fn collect_beside(
        &self,
        promised: &[BackupId],
        kept: &[PackId],
        progress: Arc<Progress>,
    ) -> Result<Collected> {
        let work = self.inner.for_work(&progress);
        let collected = collect::collect(&work, promised, kept, progress).await;
        self.inner.or_fenced(collected).await
    }

    /// Makes packs that are lost or damaged anew from parity where there is enough of
    /// it, and takes the other damaged packs out of use: copies what is whole out of them and
    /// removes them. What was lost is stored anew by the next backup that has
    /// it, which makes the backups that were hurt whole again.
    ///
    /// Errors: `Conflict` another process is the writer now; `Cancelled`.
    pub async fn repair(&self, progress: Arc<Progress>) -> Result<Repaired> {
        let work = self.inner.for_work(&progress);
        let repaired = repair::repair(&work, progress).await;
        self.inner.or_fenced(repaired).await
    }

    /// Has every pack protected by parity, if the repository has a setting for
    /// it, beside all other work on the project. A collection and a repair end with the same.
    ///
    /// Errors: `Conflict` another process is the writer now; `Cancelled`.
    pub async fn protect(&self, progress: Arc<Progress>) -> Result<Protected> {
        let work = self.inner.for_work(&progress);
        let protected = parity::protect(&work, progress).await;
        self.inner.or_fenced(protected).await
    }

    /// Finds out which backups could not be restored, and names exactly those.
    /// Where the repository is open for writing, later backups of this process
    /// store anew what is damaged; nothing else is changed.
    pub async fn verify(
        &self,
        level: VerifyLevel,
        progress: Arc<Progress>,
    ) -> Result<VerifyReport> {
        let work = self.inner.for_work(&progress);
        verify::verify(&work, level, None, progress).await
    }

    /// As [`verify`](Self::verify), of these backups alone. One that is not
    /// there is neither whole nor hurt.
    pub async fn verify_backups(
        &self,
        level: VerifyLevel,
        backups: impl IntoIterator<Item = BackupId>,
        progress: Arc<Progress>,
    ) -> Result<VerifyReport> {
        let only = Some(backups.into_iter().collect());
        let work = self.inner.for_work(&progress);
        verify::verify(&work, level, only, progress).await
    }
}

/// A backup's id that nobody else may write or delete meanwhile.
pub(crate) struct Reserved {
    inner: Arc<Inner>,
    backup: BackupId,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.inner.backups().writing.remove(&self.backup);
    }
}

impl Inner {
    /// The project as work sees it that can be cancelled: from then on it waits
    /// for nothing any more, not for the store and not for others.
    pub fn for_work(&self, progress: &Arc<Progress>) -> Arc<Self> {
        Arc::new(Self {
            objects: self.objects.for_work(progress),
            ..self.clone()
        })
    }

    /// The log of the repository.
    ///
    /// Errors: `Denied` it is open for reading only.
    pub fn log(&self) -> Result<&Arc<Log>> {
        self.shared.log.as_ref().ok_or(Error::ReadOnly)
    }

    /// As `Log::check`; not while the work is cancelled.
    pub async fn check_log(&self) -> Result<()> {
        self.objects.wait(self.log()?.check()).await?
    }

    /// Returns when no collection or repair is at work, and keeps others away.
    pub async fn turn_to_collect(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        self.objects.wait(self.shared.collecting.lock()).await
    }

    /// As `turn_to_collect`; nothing where one is at work.
    pub fn try_to_collect(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.shared.collecting.try_lock().ok()
    }

    /// Says that a pack begins, to whoever wants to know.
    pub fn note_pack(&self, pack: PackId) {
        if let Some(on_pack) = &self.on_pack {
            on_pack(pack);
        }
    }

    /// How packs are protected, if they are.
    pub fn parity(&self) -> Option<Parity> {
        self.shared.parity
    }

    /// Tells damage from what it looks like that another process is the writer
    /// now and has taken packs away.
    async fn or_fenced<T>(&self, done: Result<T>) -> Result<T> {
        match (done, &self.shared.log) {
            (Err(error), Some(log)) if error.kind() == Kind::Corrupt => {
                log.check().await?;
                Err(error)
            }
            (done, _) => done,
        }
    }

    fn backups(&self) -> MutexGuard<'_, Backups> {
        lock(&self.shared.backups)
    }

    /// Keeps others from writing or deleting the same backup.
    pub fn reserve(self: &Arc<Self>, backup: BackupId) -> Result<Reserved> {
        if self.backups().writing.insert(backup) {
            Ok(Reserved {
                inner: self.clone(),
                backup,
            })
        } else {
            Err(Error::BackupExists { backup })
        }
    }

    pub fn is_being_written(&self, backup: BackupId) -> bool {
        self.backups().writing.contains(&backup)
    }

    /// Remembers a backup that exists from now on.
    pub fn remember(&self, backup: BackupId) {
        self.backups().acknowledged.insert(backup);
    }

    async fn delete(&self, backup: BackupId) -> Result<()> {
        self.check_log().await?;
        let path = receipt_path(self.place.project, backup);
        let receipt = match self.receipt(backup).await {
            // Which manifest it names cannot be told: a collection can.
            Err(error) if error.kind() == Kind::Corrupt => None,
            Ok(None) => return Ok(()),
            receipt => receipt?,
        };
        self.backups().acknowledged.remove(&backup);
        self.objects.delete(&path).await?;
        match receipt {
            Some(receipt) => self.objects.delete(&self.manifest_path(&receipt)).await,
            None => Ok(()),
        }
    }

    /// All backups that have a receipt; those that are promised must be among
    /// them, and all that this process has acknowledged.
    pub async fn backups_for_sure(&self, promised: &[BackupId]) -> Result<Vec<BackupId>> {
        let promised: HashSet<BackupId> = promised.iter().copied().collect();
        let mut expected = promised.clone();
        expected.extend(&self.backups().acknowledged);
        let (listed, _) = self.backups_in(Folder::Receipts).await?;
        for backup in &listed {
            expected.remove(backup);
        }
        for backup in expected {
            let object = receipt_path(self.place.project, backup).to_string();
            if !self.is_gone(backup).await? {
                return Err(Error::StaleListing { object });
            }
            // What is deleted is forgotten before it goes.
            if promised.contains(&backup) || self.backups().acknowledged.contains(&backup) {
                return Err(Error::Missing { object });
            }
        }
        Ok(listed)
    }

    /// Keeps what a backup holds readable until the pin is dropped, whatever
    /// becomes of the backup.
    pub async fn pin(&self, backup: BackupId) -> Result<(Manifest, Root, Pin)> {
        let known = self.known().await?;
        let (manifest, root) = self.manifest(backup).await?;
        let pin = known.pin(backup, manifest.content.clone());
        // It may have been deleted, and its data collected, before it was pinned.
        if self.is_gone(backup).await? {
            return Err(Error::NoBackup { backup });
        }
        Ok((manifest, root, pin))
    }

    /// What is known of the project's chunks; the first time, and after the
    /// local index was found unsound, it is brought up to date with the store.
    ///
    /// Errors: `Transient` somebody is still at work with an unsound index.
    pub async fn known(&self) -> Result<Arc<Known>> {
        let mut known = self.objects.wait(self.shared.known.lock()).await?;
        if let Some(loaded) = &*known {
            if !loaded.index().is_unsound() {
                return Ok(loaded.clone());
            }
            if Arc::strong_count(loaded) > 1 {
                return Err(Error::UnsoundIndexInUse);
            }
            // Its folder is locked for as long as it is open.
            let last = known.take();
            workers::one(move || {
                drop(last);
                Ok(())
            })
            .await?;
        }
        let (folder, place) = (self.shared.local.clone(), self.place);
        let index = workers::one(move || Index::open(folder, &place)).await?;
        let loaded = Arc::new(Known::new(index));
        self.sync_index(&loaded).await?;
        *known = Some(loaded.clone());
        Ok(loaded)
    }

    /// Packs that the log condemns.
    pub async fn condemned(&self) -> HashSet<PackId> {
        match &self.shared.log {
            Some(log) => {
                let slots = log.condemned(self.place.project).await;
                slots.into_iter().flat_map(|(_, packs)| packs).collect()
            }
            None => HashSet::new(),
        }
    }
}
