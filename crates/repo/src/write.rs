//! Writing a backup: from a disk's bytes to a receipt.
//!
//! Identical workers each take the next 16 MiB that hold data, read them, leave
//! out zeros, and hash what remains. Blocks that nobody stored yet go into the
//! worker's own frame, and frames into packs. Then the tree is closed and its
//! new nodes stored, and packs, index, manifest and receipt become durable in
//! this order.

mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::disk::{DiskReader, NoChangeMap};
use cairn_types::{BackupId, BackupInfo, Progress};

use crate::base::Base;
use crate::chunk::{ChunkId, ChunkKey};
use crate::error::{Error, Result};
use crate::known::Known;
use crate::losses::LossMark;
use crate::manifest::{CHILDREN_MAX, Child, Content, MANIFEST_MAGIC, Manifest};
use crate::packer::Packer;
use crate::project::Inner;
use crate::read::ChunkReader;
use crate::receipt::Receipt;
use crate::scan::Scan;
use crate::seal;
use crate::store::receipt_path;
use crate::tree::{FANOUT, Geometry, Root, TreeBuilder};
use crate::whole;
use crate::workers::{self, Stop, StopOnDrop, lock};

use worker::Worker;

/// Blocks that may wait for other sessions to store them; more are stored again.
const DEFERRED_MAX: usize = 1 << 20;

/// Workers on a disk at the other end of a line, at most: what they hold comes over
/// again after a crash.
const DISTANT_WORKERS_MAX: usize = 4;

/// A disk to be saved.
pub struct WriteDisk {
    /// What the backup is of; its id must be new.
    pub info: BackupInfo,
    /// The backup of the same disk that it follows: kept in the manifest, and
    /// what is unchanged since, as the disk itself says, is taken over from it.
    pub parent: Option<BackupId>,
    /// The disk.
    pub reader: Arc<dyn DiskReader>,
    /// How far it is, and the wish to stop.
    pub progress: Arc<Progress>,
    /// Read all data even where the disk can tell what has changed since the parent.
    pub reread_all: bool,
}

/// A backup that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The name of its content.
    pub root: Root,
    /// The size of the disk, or of all disks of a group.
    pub size_bytes: u64,
    /// Bytes in blocks that are not zero.
    pub data_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Plain bytes of chunks that the repository did not hold.
    pub new_bytes: u64,
    /// By how much the repository has grown.
    pub stored_bytes: u64,
    /// Whether only what had changed since the parent was read, or why all data was.
    pub by_change_map: Result<(), NoChangeMap>,
}

/// What the workers of one backup share.
struct Session {
    project: Arc<Inner>,
    known: Arc<Known>,
    packer: Packer,
    scan: Scan,
    /// What is taken over from an earlier backup, or why nothing is.
    base: Result<Base, NoChangeMap>,
    stop: Arc<Stop>,
    tree: Mutex<TreeBuilder>,
    deferred: Mutex<Vec<Deferred>>,
    data_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

/// A block that another session was storing when this one met it.
#[derive(Debug, Clone, Copy)]
struct Deferred {
    key: ChunkKey,
    block: u64,
}

pub(crate) async fn write_disk(project: &Arc<Inner>, job: WriteDisk) -> Result<Written> {
    project.log()?;
    let _mine = project.reserve(job.info.id)?;
    project.must_be_new(job.info.id).await?;
    let geometry = Geometry::new(job.reader.size_bytes());
    // The index is read before the mark: it tells of losses.
    project.known().await?;
    let losses = project.loss_mark().await?;
    let mut base = Base::find(project, &job, geometry, losses).await;
    loop {
        let stop = Stop::new(job.progress.clone());
        let _stop = StopOnDrop(stop.clone());
        let session = Session::start(project, &job, (base, stop)).await?;
        match session.store_all().await {
            Ok(top) => return session.acknowledge(job, top, losses).await,
            Err(error) => {
                session.packer.abandon().await;
                let doubt = session.base.as_ref().ok().and_then(Base::doubted);
                base = Err(doubt.cloned().ok_or(error)?);
            }
        }
    }
}

pub(crate) async fn write_group(
    project: &Arc<Inner>,
    info: BackupInfo,
    backups: Vec<BackupId>,
) -> Result<Written> {
    project.log()?;
    let _mine = project.reserve(info.id)?;
    project.must_be_new(info.id).await?;
    if backups.len() > CHILDREN_MAX {
        return Err(Error::GroupTooLarge {
            disks: backups.len(),
            limit: CHILDREN_MAX,
        });
    }
    let mut children = Vec::with_capacity(backups.len());
    for backup in backups {
        let disk = project.listed(backup).await?;
        children.push(Child {
            backup,
            root: disk.root,
            size_bytes: disk.size_bytes,
        });
    }
    let content = Content::Group(children);
    let size_bytes = content.size_bytes();
    let (root, stored) = project.acknowledge(&Manifest { info, content }).await?;
    Ok(Written {
        root,
        size_bytes,
        data_bytes: 0,
        read_bytes: 0,
        new_bytes: 0,
        stored_bytes: stored as u64,
        by_change_map: Ok(()),
    })
}

impl Inner {
    pub(crate) async fn must_be_new(&self, backup: BackupId) -> Result<()> {
        match self.receipt(backup).await? {
            Some(_) => Err(Error::BackupExists { backup }),
            None => Ok(()),
        }
    }

    /// Writes manifest and receipt; everything they need must be durable.
    /// Returns the root, and the bytes that were stored.
    pub(crate) async fn acknowledge(&self, manifest: &Manifest) -> Result<(Root, usize)> {
        let backup = manifest.info.id;
        let root = manifest.content.root(&self.keys.hasher);
        let bound = self.place.bound(&backup.to_string());
        let plain = manifest.encode();
        let object = seal::seal_object(&self.keys.objects, MANIFEST_MAGIC, &bound, &plain);
        let receipt = Receipt {
            backup,
            root,
            size_bytes: manifest.content.size_bytes(),
            manifest: whole::hash_of(&object).expect("a sealed object ends in its hash"),
            created_at: manifest.info.created_at,
        };
        let receipt_bytes = receipt.sign(&self.keys.receipts, &self.place);
        let stored = object.len() + receipt_bytes.len();
        // A writer that was paused would leave what nobody asked for any more.
        self.check_log().await?;
        self.objects
            .put(&self.manifest_path(&receipt), object)
            .await?;
        let path = receipt_path(self.place.project, backup);
        // Cancelled in the middle of this, a backup could come to exist after
        // it was forgotten.
        let objects = self.objects.to_the_end()?;
        if !objects.create(&path, receipt_bytes).await? {
            return Err(Error::BackupExists { backup });
        }
        // If somebody has become the writer meanwhile he may have collected what
        // it needs: he acknowledges it after a look at all of it, or not at all.
        self.log()?.check().await?;
        self.remember(backup);
        Ok((root, stored))
    }
}

impl Session {
    async fn start(
        project: &Arc<Inner>,
        job: &WriteDisk,
        (base, stop): (Result<Base, NoChangeMap>, Arc<Stop>),
    ) -> Result<Arc<Self>> {
        let known = project.known().await?;
        let reader = job.reader.clone();
        let geometry = Geometry::new(reader.size_bytes());
        let (scan, top, data_bytes) = match &base {
            Ok(base) => {
                let scan = Scan::of_changed(reader, geometry, base.changed.clone());
                (scan, base.top, base.data_bytes)
            }
            Err(_) => (Scan::new(reader, geometry), ChunkId::ZERO, 0),
        };
        let mut packer = Packer::new(project.clone(), known.clone());
        if scan.reader.distant().is_some() {
            packer = packer.in_small_steps();
        }
        Ok(Arc::new(Self {
            packer,
            project: project.clone(),
            known,
            scan,
            base,
            stop,
            tree: Mutex::new(TreeBuilder::on(top)),
            deferred: Mutex::default(),
            data_bytes: AtomicU64::new(data_bytes),
            read_bytes: AtomicU64::new(0),
        }))
    }

    /// Stores all of the disk and returns its top node once everything is durable and indexed.
    async fn store_all(self: &Arc<Self>) -> Result<ChunkId> {
        let this = self.clone();
        let bytes = workers::one(move || {
            this.check_base()?;
            Ok(this.scan.bytes_to_read()?)
        })
        .await?;
        self.stop.progress().add_total(bytes);
        let this = self.clone();
        let pieces = bytes.div_ceil(self.scan.geometry.span(1));
        let count = match self.is_distant() {
            // They wait for the line, one for the ids while another stores.
            true => workers::count_waiting(pieces).min(DISTANT_WORKERS_MAX),
            false => workers::count(pieces),
        };
        workers::run(count, &self.stop, move || Worker::new(&this).run()).await?;
        let this = self.clone();
        let top = workers::one(move || this.close_tree()).await?;
        self.packer.finish_packs().await?;
        self.settle_deferred().await?;
        self.packer.finish_index().await?;
        let this = self.clone();
        workers::one(move || Ok(this.scan.reader.check_unchanged()?)).await?;
        self.stop.check()?;
        Ok(top)
    }

    /// Whether the disk is at the other end of a line.
    fn is_distant(&self) -> bool {
        self.scan.reader.distant().is_some()
    }

    /// Holds some of what is taken over against the disk.
    fn check_base(&self) -> Result<()> {
        let Ok(base) = &self.base else {
            return Ok(());
        };
        let mut reader = ChunkReader::new(self.project.clone(), self.known.clone());
        let read_bytes = base.check_samples(&self.scan, &mut reader)?;
        self.read_bytes.fetch_add(read_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the backup exist.
    async fn acknowledge(&self, job: WriteDisk, top: ChunkId, losses: LossMark) -> Result<Written> {
        let manifest = Manifest {
            info: job.info,
            content: Content::Disk {
                geometry: self.scan.geometry,
                top,
                data_bytes: self.data_bytes.load(Ordering::Relaxed),
                parent: job.parent,
                losses,
                point: job.reader.point(),
            },
        };
        let (root, stored) = self.project.acknowledge(&manifest).await?;
        self.packer.count_stored(stored as u64);
        self.stop.complete();
        workers::one(move || {
            job.reader.keep_point();
            Ok(())
        })
        .await?;
        Ok(self.written(root))
    }

    /// Builds the tree above the nodes of level 1 and stores its new nodes.
    fn close_tree(&self) -> Result<ChunkId> {
        let tree = std::mem::take(&mut *lock(&self.tree));
        let mut worker = Worker::new(self);
        let mut reader = ChunkReader::new(self.project.clone(), self.known.clone());
        let children = |level, id| match &self.base {
            Ok(base) => base.children(&mut reader, level, id),
            Err(_) => Ok([ChunkId::ZERO; FANOUT]),
        };
        let top = tree.build(
            self.scan.geometry,
            &self.project.keys.hasher,
            children,
            |id, encoded| worker.store_node(id, encoded),
        )?;
        worker.flush()?;
        Ok(top)
    }

    /// Waits for the blocks that other sessions were storing, and stores those
    /// that they gave up. All that this session claimed is stored by now, so no
    /// two sessions wait for each other.
    async fn settle_deferred(self: &Arc<Self>) -> Result<()> {
        let mut waiting = std::mem::take(&mut *self.lock_deferred());
        while !waiting.is_empty() {
            self.stop.check()?;
            let changed = self.known.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (known, held) = (self.known.clone(), waiting);
            let session = self.packer.session();
            let (theirs, given_up) =
                workers::one(move || known.sort_out(session, held, |deferred| deferred.key))
                    .await?;
            waiting = theirs;
            if given_up.is_empty() {
                if !waiting.is_empty() {
                    self.project.objects.wait(changed).await?;
                }
                continue;
            }
            let this = self.clone();
            workers::one(move || Worker::new(&this).store_given_up(&given_up)).await?;
            self.packer.finish_packs().await?;
            waiting.append(&mut self.lock_deferred());
        }
        Ok(())
    }

    /// Notes a block that another session is storing, if it may still wait.
    fn defer(&self, block: u64, key: ChunkKey) -> bool {
        let mut deferred = self.lock_deferred();
        let room = deferred.len() < DEFERRED_MAX;
        if room {
            deferred.push(Deferred { key, block });
        }
        room
    }

    fn lock_deferred(&self) -> std::sync::MutexGuard<'_, Vec<Deferred>> {
        lock(&self.deferred)
    }

    fn written(&self, root: Root) -> Written {
        Written {
            root,
            size_bytes: self.scan.geometry.size_bytes,
            data_bytes: self.data_bytes.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            new_bytes: self.packer.new_bytes(),
            stored_bytes: self.packer.stored_bytes(),
            by_change_map: self.base.as_ref().map(|_| ()).map_err(Clone::clone),
        }
    }
}
