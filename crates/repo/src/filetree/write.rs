//! Saving a tree: from directories to a receipt.
//!
//! Workers share a queue of directories, the newest first. Each takes a part of
//! a directory's names, stores its files, and notes the subdirectories that
//! are to come. When the last of these is done, the directory's entries become
//! nodes, and it goes into the directory above; so memory holds the directories
//! on the way down and no list of all files.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::disk::NoChangeMap;
use cairn_types::tree::{DirectoryReader, FileTime, Metadata, Names, TreeReader, Xattr};
use cairn_types::{BackupId, BackupInfo, Kind, Progress, Timestamp};

use crate::error::{Error, Result};
use crate::filetree::cut::Cutter;
use crate::filetree::entry::{NodeRef, Record};
use crate::filetree::list::{ListBuilder, ListKind};
use crate::filetree::old::OldDirectory;
use crate::filetree::queue::Queue;
use crate::filetree::store::Worker;
use crate::filetree::summary::{ProblemKind, Problems, TreeSummary};
use crate::known::{Known, Pin};
use crate::manifest::{Content, Manifest, Tree};
use crate::packer::Packer;
use crate::project::Inner;
use crate::workers::{self, Stop, StopOnDrop};
use crate::write::Written;

/// Names of a directory that are worked on together.
pub(crate) const PART_NAMES: usize = 512;

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
    pub stop: Arc<Stop>,
    pub cutter: Cutter,
    /// When the backup before began to read.
    pub old_read_at: FileTime,
    pub queue: Queue<Task>,
    pub counts: Counts,
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

/// The place of an entry in the directory above.
#[derive(Clone)]
pub(crate) struct Slot {
    pub above: Arc<Directory>,
    pub part: usize,
    /// Its number among the directory's names.
    pub name: usize,
}

/// A directory that is being stored.
pub(crate) struct Directory {
    /// Nothing for the tree's own.
    pub slot: Option<Slot>,
    pub depth: usize,
    pub reader: Arc<dyn DirectoryReader>,
    pub metadata: Metadata,
    pub xattrs: Vec<Xattr>,
    pub names: Names,
    pub old: Option<OldDirectory>,
    state: Mutex<DirectoryState>,
}

struct DirectoryState {
    /// Parts that have been stored and not been added to the list yet.
    parts: BTreeMap<usize, Part>,
    /// The part that is to be added next.
    next: usize,
    /// Taken when the last has been added.
    list: Option<ListBuilder>,
}

/// The entries of a part of a directory.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Entries one behind the other.
    pub bytes: Vec<u8>,
    /// Where each ends; two alike where one is still to come.
    pub ends: Vec<usize>,
    /// Places of the entries that are to come, and these, once there.
    pub later: BTreeMap<usize, Later>,
}

/// An entry that takes longer.
#[derive(Debug)]
pub(crate) enum Later {
    Coming,
    /// It could not be saved.
    Absent,
    Entry(Vec<u8>),
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
    let old_read_at = old.as_ref().map_or(job.started_at, |old| old.started_at);
    let first = Task::Root {
        reader: root,
        old: old.map(|old| old.top),
    };
    let session = Arc::new(Session {
        _pin: pin,
        packer: Packer::new(project.clone(), known.clone()),
        cutter: Cutter::new(project.keys.hasher.cut_seed()),
        project: project.clone(),
        known,
        stop,
        old_read_at: file_time(old_read_at),
        queue: Queue::new(first),
        counts: Counts::default(),
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
        workers::run(workers::count(u64::MAX), &self.stop, move || {
            Worker::new(&this).run()
        })
        .await?;
        self.packer.finish_packs().await?;
        self.packer.finish_index().await?;
        self.stop.check()?;
        lock(&self.top).take().ok_or(Error::WorkerLost)
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
        // A tree that is itself a backup must be read in full.
        if error || failed.kind() == Kind::Exhausted || failed.is_of_the_repository() {
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

impl Directory {
    pub fn new(
        slot: Option<Slot>,
        reader: Arc<dyn DirectoryReader>,
        (metadata, xattrs): (Metadata, Vec<Xattr>),
        names: Names,
        old: Option<OldDirectory>,
    ) -> Self {
        Self {
            depth: slot.as_ref().map_or(0, |slot| slot.above.depth + 1),
            slot,
            reader,
            metadata,
            xattrs,
            names,
            old,
            state: Mutex::new(DirectoryState {
                parts: BTreeMap::new(),
                next: 0,
                list: Some(ListBuilder::new(ListKind::Entries)),
            }),
        }
    }

    pub fn parts(&self) -> usize {
        self.names.len().div_ceil(PART_NAMES)
    }

    /// The path of an entry of it.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut above = self.slot.as_ref();
        while let Some(slot) = above {
            names.push(slot.name());
            above = slot.above.slot.as_ref();
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Adds a part whose entries are stored, but for those that are to come.
    pub fn add(&self, number: usize, part: Part) {
        lock(&self.state).parts.insert(number, part);
    }

    /// Sets an entry that took longer.
    fn settle(&self, part: usize, name: usize, entry: Later) {
        let mut state = lock(&self.state);
        let place = name - part * PART_NAMES;
        if let Some(part) = state.parts.get_mut(&part) {
            part.later.insert(place, entry);
        }
    }

    /// Puts the parts that are complete into the list. Returns its top when the last one was.
    fn advance(&self, worker: &mut Worker<'_>) -> Result<Option<NodeRef>> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(list) = &mut state.list else {
            return Ok(None);
        };
        while let Some(part) = state.parts.get(&state.next) {
            if !part.is_complete() {
                break;
            }
            for entry in part.entries() {
                list.push_entry(entry, &mut |node| worker.store_node(node))?;
            }
            state.parts.remove(&state.next);
            state.next += 1;
        }
        if state.next < self.parts() {
            return Ok(None);
        }
        let list = state.list.take().expect("it is there until here");
        list.finish(&mut |node| worker.store_node(node)).map(Some)
    }
}

impl Part {
    fn is_complete(&self) -> bool {
        let mut later = self.later.values();
        !later.any(|entry| matches!(entry, Later::Coming))
    }

    /// The entries in order, without those that could not be saved.
    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let spans = starts.zip(&self.ends).enumerate();
        spans.filter_map(|(place, (start, end))| match self.later.get(&place) {
            Some(Later::Entry(entry)) => Some(&entry[..]),
            Some(Later::Absent | Later::Coming) => None,
            None => Some(&self.bytes[start..*end]).filter(|entry| !entry.is_empty()),
        })
    }
}

impl Slot {
    pub fn name(&self) -> &[u8] {
        self.above.names.get(self.name)
    }

    pub fn path(&self) -> Vec<u8> {
        self.above.path_of(self.name())
    }
}

/// Goes on with a directory that something was added to, and with those above
/// that become complete by it.
pub(crate) fn advance(worker: &mut Worker<'_>, directory: &Arc<Directory>) -> Result<()> {
    let mut directory = directory.clone();
    while let Some(top) = directory.advance(worker)? {
        let record = Record {
            metadata: directory.metadata,
            xattrs: directory.xattrs.clone(),
            held: crate::filetree::Held::Directory(top),
        };
        let Some(slot) = &directory.slot else {
            worker.session.set_top(record);
            return Ok(());
        };
        let mut entry = Vec::new();
        crate::filetree::entry::encode_name(slot.name(), &mut entry);
        record.encode(&mut entry);
        slot.above.settle(slot.part, slot.name, Later::Entry(entry));
        let above = slot.above.clone();
        directory = above;
    }
    Ok(())
}

/// Takes an entry that could not be saved out of the directory above.
pub(crate) fn leave_out(worker: &mut Worker<'_>, slot: &Slot) -> Result<()> {
    slot.above.settle(slot.part, slot.name, Later::Absent);
    advance(worker, &slot.above)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
