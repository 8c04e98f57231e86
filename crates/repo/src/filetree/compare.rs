//! Reading a restored tree back: every byte must be the one that was saved.
//! What is not as it was of an entry's owner, mode, times and attributes is
//! noted: a user or a file system may not be able to keep them. So is a device,
//! a pipe or a socket that is not there: they may not let it be made.
//!
//! Directories get theirs here, each behind all that is in it.

mod distant;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_types::tree::{DirectoryWriter, EntryKind, FileReader, Metadata, Xattr};

use crate::chunk::{ChunkId, ChunkKind, is_zero};
use crate::error::{Error, Result};
use crate::filetree::PIECE_BYTES_MAX;
use crate::filetree::entry::{Held, NodeRef, Piece, Record};
use crate::filetree::list::ListKind;
use crate::filetree::queue::Queue;
use crate::filetree::restore::{Chosen, Session, failed, join};
use crate::filetree::summary::ProblemKind;
use crate::filetree::walk::{Named, branch, leaf, piece_leaf};
use crate::filetree::write::{DISTANT_WORKERS, text};
use crate::read::ChunkReader;
use crate::workers;
use distant::Checks;

/// A directory that is being compared.
struct Open {
    path: Vec<u8>,
    writer: Arc<dyn DirectoryWriter>,
    record: Record,
    /// What is in it and not compared yet, and one while more is being found.
    left: AtomicUsize,
    above: Option<Arc<Open>>,
}

enum Task {
    /// A directory, with the one that it is in.
    Directory(Vec<u8>, Record, Option<Arc<Open>>),
    /// Some of a directory's entries.
    Leaf(Arc<Open>, ChunkId),
    /// An entry of the target's own directory.
    Entry(Named),
}

pub(crate) async fn compare(session: &Arc<Session>, chosen: Chosen) -> Result<()> {
    let first = match chosen {
        Chosen::Directory(record) => Task::Directory(Vec::new(), record, None),
        Chosen::Entry(named) => Task::Entry(named),
    };
    let (queue, this) = (Queue::new(first), session.clone());
    let root = session.target.root().map_err(failed("open", b""))?;
    let count = match root.distant() {
        Some(_) => DISTANT_WORKERS,
        None => workers::count(u64::MAX),
    };
    workers::run(count, &session.stop, move || {
        let mut worker = Worker {
            reader: ChunkReader::new(this.project.clone(), this.known.clone()),
            session: &this,
            queue: &queue,
            buffer: vec![0; PIECE_BYTES_MAX],
        };
        while let Some((task, taken)) = queue.take() {
            this.stop.check()?;
            worker.run(task)?;
            taken.done();
        }
        Ok(())
    })
    .await
}

/// A directory of the target, with its path.
type Place<'d> = (&'d [u8], &'d dyn DirectoryWriter);

struct Worker<'s> {
    session: &'s Session,
    queue: &'s Queue<Task>,
    reader: ChunkReader,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    fn run(&mut self, task: Task) -> Result<()> {
        match task {
            Task::Directory(path, record, above) => self.directory(path, record, above),
            Task::Leaf(open, id) => {
                let mut below = Vec::new();
                let mut checks = Checks::default();
                for named in leaf(&mut self.reader, id)? {
                    if named.record.metadata.kind == EntryKind::Directory {
                        open.left.fetch_add(1, Ordering::AcqRel);
                        let path = join(&open.path, &named.name);
                        below.push(Task::Directory(path, named.record, Some(open.clone())));
                    } else {
                        self.entry((&open.path, &*open.writer), &named, &mut checks)?;
                    }
                }
                checks.finish(self, (&open.path, &*open.writer))?;
                self.queue.push_all(below);
                self.release(open)
            }
            Task::Entry(named) => {
                let writer = self.session.open(b"")?;
                let mut checks = Checks::default();
                self.entry((b"", &*writer), &named, &mut checks)?;
                checks.finish(self, (b"", &*writer))
            }
        }
    }

    fn directory(&mut self, path: Vec<u8>, record: Record, above: Option<Arc<Open>>) -> Result<()> {
        let Held::Directory(list) = record.held else {
            return Err(differs(&path));
        };
        let mut leaves = Vec::new();
        self.gather(ListKind::Entries, list, &mut leaves)?;
        let open = Arc::new(Open {
            writer: self.session.open(&path)?,
            path,
            record,
            left: AtomicUsize::new(leaves.len()),
            above,
        });
        let tasks = leaves.into_iter().map(|id| Task::Leaf(open.clone(), id));
        self.queue.push_all(tasks.collect());
        Ok(())
    }

    fn gather(&mut self, kind: ListKind, node: NodeRef, leaves: &mut Vec<ChunkId>) -> Result<()> {
        if node.level == 0 {
            leaves.push(node.id);
            return Ok(());
        }
        for below in branch(&mut self.reader, kind, node)? {
            self.gather(kind, below.node, leaves)?;
        }
        Ok(())
    }

    /// Takes one from what is left of a directory; the last finishes it, and perhaps those above.
    fn release(&self, open: Arc<Open>) -> Result<()> {
        let mut open = Some(open);
        while let Some(done) = open.take_if(|open| open.left.fetch_sub(1, Ordering::AcqRel) == 1) {
            let (path, record) = (&done.path, &done.record);
            let set = done.writer.set_own(&record.metadata, &record.xattrs);
            set.map_err(failed("finish", path))?;
            let found = done.writer.metadata().map_err(failed("read", path))?;
            self.note_metadata(path, record, &found, done.writer.xattrs());
            open = done.above.clone();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        (directory, reader): Place<'_>,
        named: &Named,
        checks: &mut Checks,
    ) -> Result<()> {
        let (name, record) = (&*named.name, &named.record);
        let path = join(directory, name);
        let read = failed("read back", &path);
        let mut found = match reader.metadata_of(name) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && matches!(record.held, Held::Nothing) =>
            {
                let reason = "the system does not let it be made there";
                self.session.note(&path, ProblemKind::NotMade, reason);
                return Ok(());
            }
            found => found.map_err(&read)?,
        };
        // What was in a device went back into it; what else it is, is not the backup's.
        let kinds = (record.metadata.kind, found.kind);
        let is_in_device = kinds == (EntryKind::File, EntryKind::BlockDevice);
        if is_in_device {
            let content = reader.file(name).and_then(|file| file.metadata());
            found = content.map_err(&read)?;
        }
        let same_kind = found.kind == record.metadata.kind;
        if !same_kind || found.size_bytes != record.metadata.size_bytes {
            return Err(differs(&path));
        }
        let xattrs = match &record.held {
            Held::Pieces(_) | Held::PieceList(_) if reader.distant().is_some() => {
                self.check_distant((directory, reader), named, checks)?;
                match record.xattrs.is_empty() {
                    true => Ok(Vec::new()),
                    false => reader.file(name).and_then(|file| file.xattrs()),
                }
            }
            Held::Pieces(_) | Held::PieceList(_) => {
                let file = reader.file(name).map_err(&read)?;
                self.content(&path, &*file, record)?;
                file.xattrs()
            }
            Held::Target(target) if reader.link_target(name).map_err(&read)? != *target => {
                return Err(differs(&path));
            }
            _ => reader.xattrs_of(name),
        };
        if found.device != record.metadata.device {
            return Err(differs(&path));
        }
        if !is_in_device {
            self.note_metadata(&path, record, &found, xattrs);
        }
        Ok(())
    }

    /// Compares what is not content, and notes a difference.
    fn note_metadata(
        &self,
        path: &[u8],
        record: &Record,
        found: &Metadata,
        xattrs: io::Result<Vec<Xattr>>,
    ) {
        let saved = &record.metadata;
        // The mode of a link cannot be set, and means nothing.
        let same_mode = found.mode == saved.mode || saved.kind == EntryKind::Symlink;
        let has = |found: &Vec<Xattr>| record.xattrs.iter().all(|xattr| found.contains(xattr));
        let reason = if (found.uid, found.gid) != (saved.uid, saved.gid) {
            "its owner could not be set"
        } else if !same_mode {
            "its mode could not be set"
        } else if found.modified != saved.modified {
            "its time could not be set"
        } else if !record.xattrs.is_empty() && !xattrs.is_ok_and(|found| has(&found)) {
            "its extended attributes could not be set"
        } else {
            return;
        };
        self.session.note(path, ProblemKind::NotSet, reason);
    }

    fn content(&mut self, path: &[u8], file: &dyn FileReader, record: &Record) -> Result<()> {
        let mut offset = 0;
        match &record.held {
            Held::Pieces(pieces) => self.pieces(path, file, pieces, &mut offset)?,
            Held::PieceList(list) => self.piece_list(path, file, *list, &mut offset)?,
            Held::Directory(_) | Held::Target(_) | Held::Nothing => {}
        }
        if offset == record.metadata.size_bytes {
            Ok(())
        } else {
            Err(differs(path))
        }
    }

    fn piece_list(
        &mut self,
        path: &[u8],
        file: &dyn FileReader,
        node: NodeRef,
        offset: &mut u64,
    ) -> Result<()> {
        if node.level == 0 {
            let pieces = piece_leaf(&mut self.reader, node.id)?;
            return self.pieces(path, file, &pieces, offset);
        }
        for below in branch(&mut self.reader, ListKind::Pieces, node)? {
            self.piece_list(path, file, below.node, offset)?;
        }
        Ok(())
    }

    fn pieces(
        &mut self,
        path: &[u8],
        file: &dyn FileReader,
        pieces: &[Piece],
        offset: &mut u64,
    ) -> Result<()> {
        for piece in pieces {
            self.session.stop.check()?;
            let same = if piece.id.is_zero() {
                self.is_zero(file, *offset, piece.bytes)
            } else {
                self.is_chunk(file, *offset, piece)
            };
            if !same.map_err(failed("read back", path))? {
                return Err(differs(path));
            }
            *offset += piece.bytes;
            self.session.count(piece.bytes);
        }
        Ok(())
    }

    fn is_chunk(&mut self, file: &dyn FileReader, offset: u64, piece: &Piece) -> io::Result<bool> {
        let buffer = &mut self.buffer[..piece.bytes as usize];
        let whole = file.read_at(offset, buffer)? == buffer.len();
        let hasher = &self.session.project.keys.hasher;
        Ok(whole && hasher.id(ChunkKind::Block, buffer) == piece.id)
    }

    /// Whether a run reads as zeros; holes are not read.
    fn is_zero(&mut self, file: &dyn FileReader, offset: u64, bytes: u64) -> io::Result<bool> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let data = file.data_from(at)?.unwrap_or(end..end);
            at = data.start.max(at);
            let data_end = data.end.min(end);
            while at < data_end {
                let length = (data_end - at).min(self.buffer.len() as u64) as usize;
                let buffer = &mut self.buffer[..length];
                if file.read_at(at, buffer)? != length || !is_zero(buffer) {
                    return Ok(false);
                }
                at += length as u64;
            }
        }
        Ok(true)
    }
}

fn differs(path: &[u8]) -> Error {
    Error::TreeDiffers { path: text(path) }
}
