//! Saving a tree: from directories to a receipt.
//!
//! Workers share a queue of directories, the newest first. Each takes a part of
//! a directory's names, stores its files, and notes the subdirectories that
//! are to come. When the last of these is done, the directory's entries become
//! nodes, and it goes into the directory above; so memory holds the directories
//! on the way down and no list of all files.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::disk::NoChangeMap;
use cairn_types::tree::{DirectoryReader, FileTime, TreeReader};
use cairn_types::{BackupId, BackupInfo, Kind, Progress, Timestamp};

use crate::chunk::ChunkKey;
use crate::error::{Error, Result};
use crate::filetree::cut::Cutter;
use crate::filetree::directory::{Directory, Slot};
use crate::filetree::entry::Record;
use crate::filetree::queue::Queue;
use crate::filetree::store::Worker;
use crate::filetree::summary::{ProblemKind, Problems, TreeSummary};
use crate::known::{Known, Pin};
use crate::manifest::{Content, Manifest, Tree};
use crate::packer::Packer;
use crate::project::Inner;
use crate::workers::{self, Stop, StopOnDrop, lock};
use crate::write::Written;

/// Workers for a tree at the other end of a line: they wait for it most of the time.
pub(crate) const DISTANT_WORKERS: usize = 8;
/// Pieces that may wait for other sessions to store them; more are stored again.
const DEFERRED_MAX: usize = 1 << 20;

/// A tree of files to be saved.
pub struct WriteTree {
    /// What the backup is of; its id must be new.
    pub info: BackupInfo,
    /// The backup of the same tree that it follows: kept in the manifest. What
    /// has not changed since is not read again.
    pub parent: Option<BackupId>,
    /// The tree.
    pub reader: Arc<dyn TreeReader>,
    /// The time now, by the clock of the tree's file system.
    pub started_at: Timestamp,
    /// How far it is, and the wish to stop.
    pub progress: Arc<Progress>,
    /// Read all files even where nothing of them has changed since the parent.
    pub reread_all: bool,
}

/// A backup of a tree that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenTree {
    /// What is said of any backup.
    pub written: Written,
    /// What it holds, and what could not be saved.
    pub summary: TreeSummary,
}

/// What the workers of one backup share.
pub(crate) struct Session {
    /// Keeps the tree of the backup before, parts of which are taken over.
    _pin: Option<Pin>,
    pub project: Arc<Inner>,
    pub known: Arc<Known>,
    pub packer: Packer,
    /// Whether the tree is at the other end of a line.
    is_distant: bool,
    pub stop: Arc<Stop>,
    pub cutter: Cutter,
    /// When the backup before began to read.
    pub old_read_at: FileTime,
    pub queue: Queue<Task>,
    pub counts: Counts,
    deferred: Mutex<Vec<ChunkKey>>,
    problems: Mutex<Problems>,
    top: Mutex<Option<Record>>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub others: AtomicU64,
    pub size_bytes: AtomicU64,
    /// Bytes of files in pieces that are not zero.
    pub data_bytes: AtomicU64,
    pub read_bytes: AtomicU64,
}

/// Something to be done of a tree.
pub(crate) enum Task {
    /// Opening the tree's own directory.
    Root {
        reader: Arc<dyn DirectoryReader>,
        old: Option<Record>,
    },
    /// Opening a directory.
    Open { slot: Slot, old: Option<Record> },
    /// Storing a part of a directory's names, by its number.
    Part(Arc<Directory>, usize),
}

pub(crate) async fn write_tree(project: &Arc<Inner>, job: WriteTree) -> Result<WrittenTree> {
    project.log()?;
    let _mine = project.reserve(job.info.id)?;
    project.must_be_new(job.info.id).await?;
    let known = project.known().await?;
    let stop = Stop::new(job.progress);
    let _stop = StopOnDrop(stop.clone());
    let old = match job.parent {
        Some(parent) if !job.reread_all => project.old_tree(parent).await?,
        _ => None,
    };
    let (old, pin) = old.unzip();
    let reader = job.reader;
    let root = workers::one(move || {
        let root = reader.root();
        root.map_err(|source| Error::Tree {
            action: "open",
            path: String::new(),
            source,
        })
    });
    let root = root.await?;
    let is_distant = root.distant().is_some();
    let mut packer = Packer::new(project.clone(), known.clone());
    if is_distant {
        packer = packer.in_small_steps();
    }
    let old_read_at = old.as_ref().map_or(job.started_at, |old| old.started_at);
    let first = Task::Root {
        reader: root,
        old: old.map(|old| old.top),
    };
    let session = Arc::new(Session {
        _pin: pin,
        packer,
        is_distant,
        cutter: Cutter::new(project.keys.hasher.cut_seed()),
        project: project.clone(),
        known,
        stop,
        old_read_at: file_time(old_read_at),
        queue: Queue::new(first),
        counts: Counts::default(),
        deferred: Mutex::default(),
        problems: Mutex::default(),
        top: Mutex::default(),
    });
    let stored = match session.store_all().await {
        Ok(top) => {
            session
                .acknowledge(job.info, job.parent, job.started_at, top)
                .await
        }
        Err(error) => Err(error),
    };
    if stored.is_err() {
        session.packer.abandon().await;
    }
    stored
}

fn file_time(at: Timestamp) -> FileTime {
    let micros = at.as_micros();
    FileTime {
        seconds: micros.div_euclid(1_000_000),
        nanoseconds: micros.rem_euclid(1_000_000) as u32 * 1000,
    }
}

impl Inner {
    /// The tree of the backup before, if there is one that can be read.
    async fn old_tree(&self, parent: BackupId) -> Result<Option<(Tree, Pin)>> {
        match self.pin(parent).await {
            Ok((manifest, _, pin)) => match manifest.content {
                Content::Tree(tree) => Ok(Some((tree, pin))),
                Content::Disk { .. } | Content::Group(_) => Ok(None),
            },
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => {
                tracing::warn!(%error, backup.id = %parent, "The backup before cannot be used: every file is read.");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Session {
    /// Stores the tree and returns its own directory once everything is durable and indexed.
    async fn store_all(self: &Arc<Self>) -> Result<Record> {
        let this = self.clone();
        let count = match self.is_distant {
            true => DISTANT_WORKERS,
            false => workers::count(u64::MAX),
        };
        workers::run(count, &self.stop, move || Worker::new(&this).run()).await?;
        self.packer.finish_packs().await?;
        self.settle_deferred().await?;
        self.packer.finish_index().await?;
        self.stop.check()?;
        lock(&self.top).take().ok_or(Error::WorkerLost)
    }

    /// Notes a piece that another session is storing, to be waited for at the
    /// end; says no where there are too many of these.
    pub fn defer(&self, key: ChunkKey) -> bool {
        let mut deferred = lock(&self.deferred);
        let room = deferred.len() < DEFERRED_MAX;
        if room {
            deferred.push(key);
        }
        room
    }

    /// Waits for the pieces that other sessions were storing. All that this
    /// session claimed is stored by now, so no two sessions wait for each other.
    ///
    /// Errors: `Transient` one of them was given up: the tree must be read again.
    async fn settle_deferred(&self) -> Result<()> {
        let mut waiting = std::mem::take(&mut *lock(&self.deferred));
        while !waiting.is_empty() {
            self.stop.check()?;
            let changed = self.known.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (theirs, given_up) =
                self.known
                    .sort_out(self.packer.session(), waiting, |key| *key)?;
            if !given_up.is_empty() {
                return Err(Error::GivenUp);
            }
            waiting = theirs;
            if !waiting.is_empty() {
                self.project.objects.wait(changed).await?;
            }
        }
        Ok(())
    }

    async fn acknowledge(
        &self,
        info: BackupInfo,
        parent: Option<BackupId>,
        started_at: Timestamp,
        top: Record,
    ) -> Result<WrittenTree> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (problems, listed) = lock(&self.problems).finish();
        let summary = TreeSummary {
            files: count(&self.counts.files),
            directories: count(&self.counts.directories),
            others: count(&self.counts.others),
            size_bytes: count(&self.counts.size_bytes),
            problems,
            listed,
        };
        let content = Content::Tree(Tree {
            started_at,
            top,
            summary: summary.clone(),
            parent,
        });
        let (root, stored) = self
            .project
            .acknowledge(&Manifest { info, content })
            .await?;
        self.packer.count_stored(stored as u64);
        self.stop.complete();
        let written = Written {
            root,
            size_bytes: summary.size_bytes,
            data_bytes: count(&self.counts.data_bytes),
            read_bytes: count(&self.counts.read_bytes),
            new_bytes: self.packer.new_bytes(),
            stored_bytes: self.packer.stored_bytes(),
            by_change_map: Err(NoChangeMap("a tree is compared entry by entry".to_owned())),
        };
        Ok(WrittenTree { written, summary })
    }

    /// Notes an entry that is not, or may not be, as it was.
    pub fn note(&self, path: Vec<u8>, kind: ProblemKind, reason: String) {
        lock(&self.problems).add(path, kind, reason);
    }

    /// Notes an entry that failed, unless it is gone by now, which is no problem,
    /// or nothing at all can be opened any more, which is one of the whole backup.
    pub fn note_failed(&self, path: Vec<u8>, source: io::Error) -> Result<()> {
        use io::ErrorKind::{NotFound, OutOfMemory};
        let error = match source.kind() {
            NotFound => return Ok(()),
            OutOfMemory => true,
            _ => false,
        };
        let (reason, path_text) = (source.to_string(), text(&path));
        let failed = Error::Tree {
            action: "read",
            path: path_text,
            source,
        };
        // A tree that is itself a backup must be read in full, and one that is gone cannot be.
        if error || failed.kind() == Kind::Exhausted || failed.is_of_the_whole_tree() {
            return Err(failed);
        }
        self.note(path, ProblemKind::Unreadable, reason);
        Ok(())
    }

    pub fn set_top(&self, top: Record) {
        *lock(&self.top) = Some(top);
    }
}

/// A path to be shown.
pub(crate) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
