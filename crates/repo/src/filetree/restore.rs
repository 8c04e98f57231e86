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
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::tree::{DirectoryWriter, EntryKind, FileWriter, Metadata, TreeWriter, Xattr};
use cairn_types::{BackupId, Progress};
use tokio::runtime::Handle;

use crate::chunk::{ChunkId, is_zero};
use crate::error::{Error, Result};
use crate::filetree::compare;
use crate::filetree::entry::{Held, NodeRef, Piece, Record};
use crate::filetree::list::ListKind;
use crate::filetree::store::DEPTH_MAX;
use crate::filetree::summary::{ProblemKind, Problems, TreeSummary};
use crate::filetree::walk::{Named, branch, find, leaf, piece_leaf, too_deep};
use crate::filetree::write::{lock, text};
use crate::frame::FrameCoder;
use crate::known::{Known, Pin};
use crate::manifest::Content;
use crate::pack::PackSeal;
use crate::plan::{self, Request, Wanted};
use crate::project::Inner;
use crate::read::{ChunkReader, fetch_ahead};
use crate::store::pack_path;
use crate::workers::{self, Stop, StopOnDrop};

/// Pieces and files that are planned at a time: some 20 MiB of memory.
const WINDOW: usize = 32 << 10;
/// Runs of zeros from this length on are not written: they become holes.
const HOLE_BYTES: usize = 32 << 10;

/// A tree to be restored.
pub struct RestoreTree {
    /// The backup.
    pub backup: BackupId,
    /// What of it, by its path; empty for all of it. Of a directory, what is in
    /// it goes into the target's own; anything else is created there by its name.
    pub path: Vec<u8>,
    /// Where to.
    pub target: Arc<dyn TreeWriter>,
    /// How far it is, and the wish to stop. Every byte counts twice: written, and read back.
    pub progress: Arc<Progress>,
}

/// What the workers of one restore share.
pub(crate) struct Session {
    /// Keeps what is read for as long as any worker lives.
    _pin: Pin,
    pub project: Arc<Inner>,
    pub known: Arc<Known>,
    handle: Handle,
    pub target: Arc<dyn TreeWriter>,
    pub stop: Arc<Stop>,
    pub problems: Mutex<Problems>,
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
    });
    let (this, path) = (session.clone(), job.path);
    let (chosen, mut summary) = workers::one(move || {
        let mut reader = ChunkReader::new(this.project.clone(), this.known.clone());
        let chosen = choose(&mut reader, tree.top, &path)?;
        let chosen = chosen.ok_or_else(|| Error::NoEntry {
            backup,
            path: text(&path),
        })?;
        if path.is_empty() {
            this.expect(tree.summary.size_bytes);
        }
        let summary = this.write_all(reader, &chosen, path.is_empty())?;
        Ok((chosen, summary))
    })
    .await?;
    compare::compare(&session, chosen).await?;
    (summary.problems, summary.listed) = lock(&session.problems).finish();
    session.stop.complete();
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
    /// Counts bytes to be done: each is written once and read back once.
    fn expect(&self, bytes: u64) {
        self.stop.progress().add_total(bytes.saturating_mul(2));
    }

    /// Restores what was chosen, but for the directories' own metadata. Says what it was.
    fn write_all(
        self: &Arc<Self>,
        reader: ChunkReader,
        chosen: &Chosen,
        expected: bool,
    ) -> Result<TreeSummary> {
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
            Chosen::Entry(named) => {
                let root = self.open(b"")?;
                planner.entry(&Arc::from(&b""[..]), &*root, named, 0)?;
            }
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

    /// Notes what of an entry could not be set.
    pub fn note_not_set(&self, path: &[u8], reason: &str) {
        let mut problems = lock(&self.problems);
        problems.add(path.to_vec(), ProblemKind::Attributes, reason.to_owned());
    }
}

/// The error for an entry of the target.
pub(crate) fn failed(action: &'static str, path: &[u8]) -> impl Fn(io::Error) -> Error {
    move |source| Error::Tree {
        action,
        path: text(path),
        source,
    }
}

/// A path with one more name.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, name].join(&b'/'),
    }
}

/// A file that is to be written.
struct Target {
    directory: Arc<[u8]>,
    name: Box<[u8]>,
    metadata: Metadata,
    xattrs: Vec<Xattr>,
    /// Pieces that are not written yet, and one while more are being planned.
    left: AtomicUsize,
    /// Open from the first piece to the last.
    writer: Mutex<Option<Arc<dyn FileWriter>>>,
}

/// What is planned and not written yet.
#[derive(Default)]
struct Window {
    files: Vec<Arc<Target>>,
    /// Each piece, with the number of its file and its place in that.
    pieces: Vec<(ChunkId, Purpose)>,
    /// Files without pieces, by number.
    empty: Vec<usize>,
    links: Vec<Link>,
}

/// A name of a file that has another.
struct Link {
    directory: Arc<[u8]>,
    name: Box<[u8]>,
    /// The other's path.
    first: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy)]
struct Purpose {
    file: u32,
    bytes: u32,
    offset: u64,
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
                let made = writer.create_directory(name);
                made.map_err(|source| failed("create", &entry_path())(source))?;
                return self.directory(entry_path().into(), *list, depth + 1);
            }
            Held::Target(target) => writer.create_symlink(name, target),
            Held::Nothing => writer.create_special(name, &record.metadata),
        };
        self.summary.others += 1;
        let set = created.and_then(|()| writer.set(name, &record.metadata, &record.xattrs));
        set.map_err(|source| failed("create", &entry_path())(source))
    }

    fn file(&mut self, directory: &Arc<[u8]>, named: &Named) -> Result<()> {
        let (name, record) = (&named.name, &named.record);
        let size_bytes = record.metadata.size_bytes;
        self.summary.files += 1;
        self.summary.size_bytes += size_bytes;
        if !self.expected {
            self.session.expect(size_bytes);
        }
        if record.metadata.linked {
            let path: Arc<[u8]> = join(directory, name).into();
            let known = self.linked.entry(identity(record));
            if let std::collections::hash_map::Entry::Occupied(first) = &known {
                let first = first.get().clone();
                self.session.stop.progress().advance(size_bytes);
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
                self.session.stop.progress().advance(piece.bytes);
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

    /// Writes what was planned, on all cores.
    fn write_window(&mut self) -> Result<()> {
        let window = std::mem::take(&mut self.window);
        let index = self.session.known.index();
        let (wanted, requests) = plan::find_and_plan(&window.pieces, index)?;
        let links = window.links;
        let batch = Arc::new(Batch {
            session: self.session.clone(),
            files: window.files,
            empty: window.empty,
            wanted,
            requests,
            next_empty: AtomicUsize::new(0),
            next_request: AtomicUsize::new(0),
        });
        let count = workers::count((batch.requests.len() + batch.empty.len()) as u64);
        let this = batch.clone();
        let work = move || this.work();
        let done = workers::run(count, &self.session.stop, work);
        self.session.handle.block_on(done)?;
        for link in links {
            self.session.stop.check()?;
            let path = join(&link.directory, &link.name);
            let writer = self.session.open(&link.directory)?;
            let linked = writer.create_link(&link.name, &link.first);
            linked.map_err(failed("link", &path))?;
        }
        Ok(())
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

/// A window that is being written.
struct Batch {
    session: Arc<Session>,
    files: Vec<Arc<Target>>,
    empty: Vec<usize>,
    wanted: Vec<Wanted<Purpose>>,
    requests: Vec<Request>,
    next_empty: AtomicUsize,
    next_request: AtomicUsize,
}

/// The directory that a worker wrote to last: the next file is often in it too.
type Last = Option<(Arc<[u8]>, Arc<dyn DirectoryWriter>)>;

impl Batch {
    fn work(&self) -> Result<()> {
        let session = &self.session;
        let (mut coder, mut last) = (FrameCoder::new(), None);
        let next = || self.next_empty.fetch_add(1, Ordering::Relaxed);
        while let Some(file) = self.empty.get(next()) {
            session.stop.check()?;
            let target = &self.files[*file];
            let writer = self.writer(target, &mut last)?;
            self.finish(target, &*writer)?;
        }
        fetch_ahead(
            &session.project.objects,
            &session.handle,
            || {
                let next = self.next_request.fetch_add(1, Ordering::Relaxed);
                self.requests.get(next)
            },
            |request| {
                let path = pack_path(session.project.place.project, request.pack);
                (path, request.range.clone())
            },
            |request, stored| {
                session.stop.check()?;
                match stored {
                    Err(Error::Missing { .. }) if !session.known.has_pack(request.pack) => {
                        self.fulfil_moved(request, &mut last)
                    }
                    stored => self.fulfil(request, &stored?, &mut coder, &mut last),
                }
            },
        )
    }

    fn fulfil(
        &self,
        request: &Request,
        stored: &[u8],
        coder: &mut FrameCoder,
        last: &mut Last,
    ) -> Result<()> {
        let project = &self.session.project;
        let seal = PackSeal::new(&project.keys, &project.place, request.pack);
        let damaged = |problem| project.damaged_pack(request.pack, problem);
        for frame in &request.frames {
            let sealed = slice(stored, &request.range, &frame.entry.range());
            let opened = coder.open(&seal, u32::from(frame.number), sealed);
            let opened = opened.map_err(damaged)?;
            let chunks = opened.chunks().map_err(damaged)?;
            for wanted in &self.wanted[frame.wanted.clone()] {
                let hasher = &project.keys.hasher;
                let plain = wanted.find_in(frame, &chunks, opened.bytes(), hasher)?;
                self.write_whole(wanted, plain, last)?;
            }
        }
        Ok(())
    }

    /// As `fulfil`, where a collection has taken the pack away: the chunks are elsewhere.
    fn fulfil_moved(&self, request: &Request, last: &mut Last) -> Result<()> {
        let session = &self.session;
        let (project, known) = (session.project.clone(), session.known.clone());
        let mut reader = ChunkReader::on(project, known, session.handle.clone());
        for frame in &request.frames {
            for wanted in &self.wanted[frame.wanted.clone()] {
                let plain = reader.block(wanted.id)?;
                self.write_whole(wanted, plain, last)?;
            }
        }
        Ok(())
    }

    fn write_whole(&self, wanted: &Wanted<Purpose>, plain: &[u8], last: &mut Last) -> Result<()> {
        if plain.len() != wanted.purpose.bytes as usize {
            return Err(Error::DamagedChunk {
                id: wanted.id,
                problem: "its length is not its place's",
            });
        }
        self.write(wanted.purpose, plain, last)
    }

    fn write(&self, purpose: Purpose, plain: &[u8], last: &mut Last) -> Result<()> {
        let target = &self.files[purpose.file as usize];
        let writer = self.writer(target, last)?;
        let written = write_but_zeros(&*writer, purpose.offset, plain);
        written.map_err(|source| failed("write", &target.path())(source))?;
        self.session.stop.progress().advance(plain.len() as u64);
        if target.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(target, &*writer)?;
        }
        Ok(())
    }

    /// The file, created for its first piece.
    fn writer(&self, target: &Target, last: &mut Last) -> Result<Arc<dyn FileWriter>> {
        let mut open = lock(&target.writer);
        if let Some(writer) = &*open {
            return Ok(writer.clone());
        }
        let directory = match last {
            Some((path, directory)) if *path == target.directory => directory.clone(),
            _ => {
                let opened = self.session.open(&target.directory)?;
                *last = Some((target.directory.clone(), opened.clone()));
                opened
            }
        };
        let created = directory.create_file(&target.name);
        let writer = created.map_err(|source| failed("create", &target.path())(source))?;
        *open = Some(writer.clone());
        Ok(writer)
    }

    fn finish(&self, target: &Target, writer: &dyn FileWriter) -> Result<()> {
        let set = writer.finish(&target.metadata, &target.xattrs);
        *lock(&target.writer) = None;
        set.map_err(|source| failed("finish", &target.path())(source))
    }
}

impl Target {
    fn path(&self) -> Vec<u8> {
        join(&self.directory, &self.name)
    }
}

/// The part of what was read that a frame is.
fn slice<'s>(stored: &'s [u8], read: &Range<u64>, frame: &Range<u64>) -> &'s [u8] {
    let (start, end) = (frame.start - read.start, frame.end - read.start);
    stored.get(start as usize..end as usize).unwrap_or_default()
}

/// Writes a piece into a new file, without the long runs of zeros in it.
fn write_but_zeros(writer: &dyn FileWriter, offset: u64, plain: &[u8]) -> io::Result<()> {
    let mut data = 0..0;
    for start in (0..plain.len()).step_by(HOLE_BYTES) {
        let end = plain.len().min(start + HOLE_BYTES);
        let hole = end - start == HOLE_BYTES && is_zero(&plain[start..end]);
        if !hole {
            data.end = end;
            continue;
        }
        if !data.is_empty() {
            writer.write_at(offset + data.start as u64, &plain[data.clone()])?;
        }
        data = end..end;
    }
    match data.is_empty() {
        true => Ok(()),
        false => writer.write_at(offset + data.start as u64, &plain[data]),
    }
}
