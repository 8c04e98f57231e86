//! Restoring a tree, or a part of it, and proving that it is what was saved.
//!
//! One thread goes through the directories, makes them, and gathers the files'
//! pieces in windows; those of a window are written by all cores in the order
//! of the store, each checked against its id. Hard links come behind the files
//! of their window. Then everything is read back and compared (`compare`),
//! which also gives the directories what they had last: a directory that may
//! not be written to must be filled before.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::tree::{DirectoryWriter, EntryFailed, EntryKind, TreeWriter};
use cairn_types::{BackupId, Progress};
use tokio::runtime::Handle;

use crate::bulk::BulkReader;
use crate::error::{Error, Result};
use crate::filetree::compare;
use crate::filetree::entry::{Held, NodeRef, Piece, Record};
use crate::filetree::list::ListKind;
use crate::filetree::store::DEPTH_MAX;
use crate::filetree::summary::{ProblemKind, Problems, TreeSummary};
use crate::filetree::walk::{Named, branch, find, leaf, piece_leaf, too_deep};
use crate::filetree::window::{Link, Purpose, Target, Window};
use crate::filetree::write::text;
use crate::known::{Known, Pin};
use crate::manifest::Content;
use crate::project::Inner;
use crate::read::{ChunkReader, Fetched};
use crate::workers::{self, Stop, StopOnDrop, lock};

/// Pieces and files that are planned at a time: some 20 MiB of memory.
const WINDOW: usize = 32 << 10;

/// A tree to be restored.
pub struct RestoreTree {
    /// The backup.
    pub backup: BackupId,
    /// What of it, by its path; empty for all of it. Of a directory, what is in
    /// it goes into the target's own; anything else is created there by its name.
    pub path: Vec<u8>,
    /// Where to.
    pub target: Arc<dyn TreeWriter>,
    /// How far it is, and the wish to stop. A byte counts half when it is written, and half when it is read back.
    /// Entries count once they are made; those of a distant target once they are on their way.
    pub progress: Arc<Progress>,
}

/// What the workers of one restore share.
pub(crate) struct Session {
    /// Keeps what is read for as long as any worker lives.
    _pin: Pin,
    pub project: Arc<Inner>,
    pub known: Arc<Known>,
    pub handle: Handle,
    pub target: Arc<dyn TreeWriter>,
    pub stop: Arc<Stop>,
    pub problems: Mutex<Problems>,
    fetched: Arc<Fetched>,
    /// Bytes that were written, and those that were read back.
    counted: AtomicU64,
}

/// What is restored: a directory's list, or a single entry.
#[derive(Debug, Clone)]
pub(crate) enum Chosen {
    Directory(Record),
    Entry(Named),
}

pub(crate) async fn restore_tree(project: &Arc<Inner>, job: RestoreTree) -> Result<TreeSummary> {
    let backup = job.backup;
    let (manifest, _, pin) = project.pin(backup).await?;
    let Content::Tree(tree) = manifest.content else {
        return Err(Error::NotATree { backup });
    };
    let stop = Stop::new(job.progress);
    let _stop = StopOnDrop(stop.clone());
    let session = Arc::new(Session {
        _pin: pin,
        known: project.known().await?,
        project: project.clone(),
        handle: Handle::current(),
        target: job.target,
        stop,
        problems: Mutex::default(),
        fetched: Arc::default(),
        counted: AtomicU64::new(0),
    });
    let (this, path) = (session.clone(), job.path);
    let (chosen, mut summary) = workers::one(move || {
        let reader = ChunkReader::new(this.project.clone(), this.known.clone());
        let mut reader = reader.counting(&this.fetched);
        let chosen = choose(&mut reader, tree.top, &path)?;
        let chosen = chosen.ok_or_else(|| Error::NoEntry {
            backup,
            path: text(&path),
        })?;
        if path.is_empty() {
            this.stop.progress().add_total(tree.summary.size_bytes);
        }
        let summary = this.write_all(reader, &chosen, path.is_empty())?;
        Ok((chosen, summary))
    })
    .await?;
    compare::compare(&session, chosen).await?;
    (summary.problems, summary.listed) = lock(&session.problems).finish();
    session.stop.complete();
    tracing::info!(
        backup.id = %backup,
        size_bytes = summary.size_bytes,
        read_bytes = session.fetched.bytes(),
        requests = session.fetched.requests(),
        opened_bytes = session.fetched.opened_bytes(),
        "A tree was restored."
    );
    Ok(summary)
}

/// Finds what a path names; nothing if the tree does not have it.
fn choose(reader: &mut ChunkReader, top: Record, path: &[u8]) -> Result<Option<Chosen>> {
    let mut found = Chosen::Directory(top);
    for name in path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        let Chosen::Directory(Record {
            held: Held::Directory(list),
            ..
        }) = found
        else {
            return Ok(None);
        };
        found = match find(reader, list, name)? {
            None => return Ok(None),
            Some(named) if named.record.metadata.kind == EntryKind::Directory => {
                Chosen::Directory(named.record)
            }
            Some(named) => Chosen::Entry(named),
        };
    }
    Ok(Some(found))
}

impl Session {
    /// Who reads the pieces of files.
    pub fn bulk(&self) -> BulkReader {
        BulkReader {
            project: self.project.clone(),
            known: self.known.clone(),
            handle: self.handle.clone(),
            stop: self.stop.clone(),
            fetched: self.fetched.clone(),
        }
    }

    /// Counts bytes that are written, or read back: half of the way of each.
    pub fn count(&self, bytes: u64) {
        let before = self.counted.fetch_add(bytes, Ordering::Relaxed);
        let done = (before + bytes) / 2 - before / 2;
        self.stop.progress().advance(done);
    }

    /// Restores what was chosen, but for the directories' own metadata. Says what it was.
    fn write_all(
        self: &Arc<Self>,
        reader: ChunkReader,
        chosen: &Chosen,
        expected: bool,
    ) -> Result<TreeSummary> {
        // Who may not write there at all is told so before anything is done.
        let top = self.open(b"")?;
        top.metadata().map_err(failed("open", b""))?;
        let mut planner = Planner {
            session: self,
            reader,
            expected,
            window: Window::default(),
            linked: HashMap::new(),
            summary: TreeSummary::default(),
        };
        match chosen {
            Chosen::Directory(record) => {
                let Held::Directory(list) = record.held else {
                    unreachable!("a directory holds entries");
                };
                planner.directory(Arc::from(&b""[..]), list, 0)?;
            }
            Chosen::Entry(named) => planner.entry(&Arc::from(&b""[..]), &*top, named, 0)?,
        }
        planner.write_window()?;
        let summary = planner.summary;
        self.target.flush().map_err(failed("flush", b""))?;
        Ok(summary)
    }

    /// Opens a directory of the target.
    pub fn open(&self, path: &[u8]) -> Result<Arc<dyn DirectoryWriter>> {
        self.target.directory(path).map_err(failed("open", path))
    }

    /// Notes an entry that is not as it was.
    pub fn note(&self, path: &[u8], kind: ProblemKind, reason: &str) {
        lock(&self.problems).add(path.to_vec(), kind, reason.to_owned());
    }
}

/// The error for an entry of the target: this one, unless the error names another.
pub(crate) fn failed(action: &'static str, path: &[u8]) -> impl Fn(io::Error) -> Error {
    move |source| match source.downcast::<EntryFailed>() {
        Ok(failed) => Error::Tree {
            action: "restore",
            path: text(&failed.path),
            source: failed.source,
        },
        Err(source) => Error::Tree {
            action,
            path: text(path),
            source,
        },
    }
}

/// A path with one more name.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, name].join(&b'/'),
    }
}

/// Goes through the tree and plans.
struct Planner<'s> {
    session: &'s Arc<Session>,
    reader: ChunkReader,
    /// Whether the bytes to be done have been counted already.
    expected: bool,
    window: Window,
    /// The first path of files that have several names, by a hash of all else.
    linked: HashMap<[u8; 16], Arc<[u8]>>,
    summary: TreeSummary,
}

impl Planner<'_> {
    fn directory(&mut self, path: Arc<[u8]>, list: NodeRef, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(too_deep(list.id));
        }
        self.summary.directories += 1;
        let writer = self.session.open(&path)?;
        self.entries(&path, &*writer, list, depth)
    }

    fn entries(
        &mut self,
        path: &Arc<[u8]>,
        writer: &dyn DirectoryWriter,
        node: NodeRef,
        depth: usize,
    ) -> Result<()> {
        if node.level > 0 {
            for below in branch(&mut self.reader, ListKind::Entries, node)? {
                self.entries(path, writer, below.node, depth)?;
            }
            return Ok(());
        }
        for named in leaf(&mut self.reader, node.id)? {
            self.session.stop.check()?;
            self.entry(path, writer, &named, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &Arc<[u8]>,
        writer: &dyn DirectoryWriter,
        named: &Named,
        depth: usize,
    ) -> Result<()> {
        let (name, record) = (&*named.name, &named.record);
        let entry_path = || join(path, name);
        let created = match &record.held {
            Held::Pieces(_) | Held::PieceList(_) => return self.file(path, named),
            Held::Directory(list) => {
                // Who is distant is not asked: that would cost an answer for each directory.
                let was_there = writer.distant().is_none()
                    && writer
                        .metadata_of(name)
                        .is_ok_and(|found| found.kind == EntryKind::Directory);
                let made = writer.create_directory(name);
                made.map_err(|source| failed("create", &entry_path())(source))?;
                if !was_there {
                    self.session.stop.progress().count_entry();
                }
                return self.directory(entry_path().into(), *list, depth + 1);
            }
            Held::Target(target) => writer.create_symlink(name, target),
            Held::Nothing => writer.create_special(name, &record.metadata),
        };
        self.summary.others += 1;
        let set = created.and_then(|()| {
            self.session.stop.progress().count_entry();
            writer.set(name, &record.metadata, &record.xattrs)
        });
        set.map_err(|source| failed("create", &entry_path())(source))
    }

    fn file(&mut self, directory: &Arc<[u8]>, named: &Named) -> Result<()> {
        let (name, record) = (&named.name, &named.record);
        let size_bytes = record.metadata.size_bytes;
        self.summary.files += 1;
        self.summary.size_bytes += size_bytes;
        if !self.expected {
            self.session.stop.progress().add_total(size_bytes);
        }
        if record.metadata.linked {
            let path: Arc<[u8]> = join(directory, name).into();
            let known = self.linked.entry(identity(record));
            if let std::collections::hash_map::Entry::Occupied(first) = &known {
                let first = first.get().clone();
                self.session.count(size_bytes);
                self.window.links.push(Link {
                    directory: directory.clone(),
                    name: name.clone(),
                    first,
                });
                return self.write_if_full();
            }
            known.or_insert(path);
        }
        let target = Arc::new(Target {
            directory: directory.clone(),
            name: name.clone(),
            metadata: record.metadata,
            xattrs: record.xattrs.clone(),
            left: AtomicUsize::new(1),
            writer: Mutex::default(),
        });
        self.add_file(target.clone());
        let mut offset = 0;
        match &record.held {
            Held::PieceList(list) => self.pieces(&target, *list, &mut offset)?,
            Held::Pieces(pieces) => self.add_pieces(&target, pieces, &mut offset)?,
            _ => {}
        }
        if offset != size_bytes {
            return Err(failed("restore", &join(directory, name))(io::Error::other(
                "its pieces are not as long as it",
            )));
        }
        // The last piece may have been written already.
        if target.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let number = self.window.files.len() - 1;
            self.window.empty.push(number);
        }
        self.write_if_full()
    }

    fn add_file(&mut self, target: Arc<Target>) {
        self.window.files.push(target);
    }

    fn pieces(&mut self, target: &Arc<Target>, node: NodeRef, offset: &mut u64) -> Result<()> {
        if node.level == 0 {
            let pieces = piece_leaf(&mut self.reader, node.id)?;
            return self.add_pieces(target, &pieces, offset);
        }
        for below in branch(&mut self.reader, ListKind::Pieces, node)? {
            self.pieces(target, below.node, offset)?;
        }
        Ok(())
    }

    fn add_pieces(
        &mut self,
        target: &Arc<Target>,
        pieces: &[Piece],
        offset: &mut u64,
    ) -> Result<()> {
        for piece in pieces {
            let end = offset.checked_add(piece.bytes);
            let end = end.filter(|end| *end <= target.metadata.size_bytes);
            let end = end.ok_or(Error::DamagedChunk {
                id: piece.id,
                problem: "it lies behind the end of its file",
            })?;
            if piece.id.is_zero() {
                self.session.count(piece.bytes);
            } else {
                target.left.fetch_add(1, Ordering::AcqRel);
                let purpose = Purpose {
                    file: (self.window.files.len() - 1) as u32,
                    bytes: piece.bytes as u32,
                    offset: *offset,
                };
                self.window.pieces.push((piece.id, purpose));
            }
            *offset = end;
            if self.window.pieces.len() >= WINDOW {
                self.write_window()?;
                // The file goes on in the next window.
                self.add_file(target.clone());
            }
        }
        Ok(())
    }

    fn write_if_full(&mut self) -> Result<()> {
        let window = &self.window;
        if window.pieces.len() + window.files.len() + window.links.len() < 2 * WINDOW {
            return Ok(());
        }
        self.write_window()
    }

    /// Writes what was planned.
    fn write_window(&mut self) -> Result<()> {
        std::mem::take(&mut self.window).write(self.session)
    }
}

/// What two names of one file have in common and two files have not, as far as
/// anyone who restores them could tell.
fn identity(record: &Record) -> [u8; 16] {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let hash = blake3::hash(&bytes);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}
