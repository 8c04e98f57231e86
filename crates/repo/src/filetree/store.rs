//! One thread's part of saving a tree: it takes what is next in the queue and
//! stores what is new of it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_types::tree::{DirectoryReader, EntryKind, FileReader, Metadata, Xattr};

use crate::chunk::{ChunkId, ChunkKey, ChunkKind, is_zero};
use crate::error::{Error, Result};
use crate::filetree::PIECE_BYTES_MAX;
use crate::filetree::entry::{
    Held, INLINE_PIECES, NodeRef, Piece, Record, TARGET_BYTES_MAX, XATTR_BYTES_MAX, encode_name,
    xattr_bytes,
};
use crate::filetree::list::{ListBuilder, ListKind};
use crate::filetree::old::{OldDirectory, OldEntry, is_unchanged, unless_damaged};
use crate::filetree::summary::ProblemKind;
use crate::filetree::walk::{branch, piece_leaf};
use crate::filetree::write::{
    Directory, Later, PART_NAMES, Part, Session, Slot, Task, advance, leave_out,
};
use crate::frame::{FrameBuilder, FrameCoder};
use crate::read::ChunkReader;
use crate::write::push;

/// Directories below each other at most: each keeps one open.
pub(crate) const DEPTH_MAX: usize = 512;
/// Bytes of a large file that are read at a time; two pieces at least.
const READ_BYTES: usize = 2 << 20;
/// How often a file is read that changes meanwhile.
const READINGS: usize = 2;

/// One thread's part: its frames and the memory it uses again.
pub(crate) struct Worker<'s> {
    pub session: &'s Session,
    reader: ChunkReader,
    coder: FrameCoder,
    blocks: FrameBuilder,
    nodes: FrameBuilder,
    buffer: Vec<u8>,
}

/// A name of a part, before anything of it is stored.
enum Candidate {
    /// It is gone, or could not be asked about.
    Nothing,
    /// As the backup before has it: its entry, encoded too.
    Unchanged {
        encoded: Vec<u8>,
        record: Record,
        /// Bytes of it in pieces that are not zero.
        data: u64,
    },
    /// To be looked at, perhaps beside what it was.
    New {
        metadata: Metadata,
        old: Option<Record>,
    },
}

impl<'s> Worker<'s> {
    pub fn new(session: &'s Session) -> Self {
        let (blocks, nodes, buffer) = Default::default();
        Self {
            session,
            reader: ChunkReader::new(session.project.clone(), session.known.clone()),
            coder: FrameCoder::new(),
            blocks,
            nodes,
            buffer,
        }
    }

    pub fn run(mut self) -> Result<()> {
        let session = self.session;
        while let Some((task, taken)) = session.queue.take() {
            session.stop.check()?;
            match task {
                Task::Root { reader, old } => self.open_root(reader, old)?,
                Task::Open { slot, old } => self.open(slot, old)?,
                Task::Part(directory, number) => self.store_part(&directory, number)?,
            }
            taken.done();
        }
        let packer = &session.packer;
        packer.store(&mut self.coder, &mut self.blocks)?;
        packer.store(&mut self.coder, &mut self.nodes)
    }

    /// The tree's own directory must be readable.
    fn open_root(&mut self, reader: Arc<dyn DirectoryReader>, old: Option<Record>) -> Result<()> {
        let opened = self.read_directory(None, reader, old);
        let opened = opened?.map_err(|source| Error::Tree {
            action: "read",
            path: String::new(),
            source,
        });
        self.begin(opened?)
    }

    fn open(&mut self, slot: Slot, old: Option<Record>) -> Result<()> {
        if slot.above.depth + 1 >= DEPTH_MAX {
            let reason = format!("it lies in more than {DEPTH_MAX} directories");
            self.session.note(slot.path(), ProblemKind::TooDeep, reason);
            return leave_out(self, &slot);
        }
        let opened = match slot.above.reader.directory(slot.name()) {
            Ok(reader) => self.read_directory(Some(slot.clone()), reader, old)?,
            Err(error) => Err(error),
        };
        match opened {
            Ok(directory) => self.begin(directory),
            Err(error) => {
                self.session.note_failed(slot.path(), error)?;
                leave_out(self, &slot)
            }
        }
    }

    /// Reads what a directory is and the names in it.
    fn read_directory(
        &mut self,
        slot: Option<Slot>,
        reader: Arc<dyn DirectoryReader>,
        old: Option<Record>,
    ) -> Result<io::Result<Directory>> {
        let read = reader
            .metadata()
            .and_then(|metadata| Ok((metadata, reader.names()?)));
        let (metadata, names) = match read {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        let path = || slot.as_ref().map_or_else(Vec::new, Slot::path);
        let xattrs = match &old {
            Some(old) if is_unchanged(&old.metadata, &metadata, self.session.old_read_at) => {
                old.xattrs.clone()
            }
            _ => self.checked_xattrs(path, reader.xattrs())?,
        };
        let old = match old.map(|old| old.held) {
            Some(Held::Directory(top)) => OldDirectory::open(&mut self.reader, top)?,
            _ => None,
        };
        Ok(Ok(Directory::new(
            slot,
            reader,
            (metadata, xattrs),
            names,
            old,
        )))
    }

    fn begin(&mut self, directory: Directory) -> Result<()> {
        self.session
            .counts
            .directories
            .fetch_add(1, Ordering::Relaxed);
        let directory = Arc::new(directory);
        match directory.parts() {
            0 => advance(self, &directory),
            _ => self.store_part(&directory, 0),
        }
    }

    /// Stores a part of a directory; another worker may be at the next meanwhile.
    fn store_part(&mut self, directory: &Arc<Directory>, number: usize) -> Result<()> {
        if number + 1 < directory.parts() {
            let next = Task::Part(directory.clone(), number + 1);
            self.session.queue.push(next);
        }
        let start = number * PART_NAMES;
        let end = directory.names.len().min(start + PART_NAMES);
        let mut candidates = self.candidates(directory, start..end)?;
        self.doubt_unknown(&mut candidates)?;
        let (mut part, mut below) = (Part::default(), Vec::new());
        for (place, candidate) in candidates.into_iter().enumerate() {
            self.session.stop.check()?;
            let name = directory.names.get(start + place);
            match candidate {
                Candidate::Nothing => {}
                Candidate::Unchanged {
                    encoded,
                    record,
                    data,
                } => {
                    self.count(&record.metadata, data);
                    part.bytes.extend_from_slice(&encoded);
                }
                Candidate::New { metadata, old } if metadata.kind == EntryKind::Directory => {
                    part.later.insert(place, Later::Coming);
                    let slot = Slot {
                        above: directory.clone(),
                        part: number,
                        name: start + place,
                    };
                    below.push(Task::Open { slot, old });
                }
                Candidate::New { metadata, .. } => {
                    let stored = self.store_entry(directory, name, metadata)?;
                    if let Some((record, data)) = stored {
                        self.count(&record.metadata, data);
                        encode_name(name, &mut part.bytes);
                        record.encode(&mut part.bytes);
                    }
                }
            }
            part.ends.push(part.bytes.len());
        }
        directory.add(number, part);
        self.session.queue.push_all(below);
        advance(self, directory)
    }

    /// Asks what each name of a part is, and compares it with the backup before.
    fn candidates(&mut self, directory: &Directory, names: Range<usize>) -> Result<Vec<Candidate>> {
        let session = self.session;
        let first = directory.names.get(names.start);
        let mut cursor = directory.old.as_ref().map(|old| old.cursor(first));
        let mut candidates = Vec::with_capacity(names.len());
        for name in names {
            let name = directory.names.get(name);
            let metadata = match directory.reader.metadata_of(name) {
                Ok(metadata) => metadata,
                Err(error) => {
                    session.note_failed(directory.path_of(name), error)?;
                    candidates.push(Candidate::Nothing);
                    continue;
                }
            };
            let old = match &mut cursor {
                Some(cursor) => cursor.find(&mut self.reader, name)?,
                None => None,
            };
            session.stop.progress().add_total(metadata.size_bytes);
            let as_before = |old: &OldEntry<'_>| {
                metadata.kind != EntryKind::Directory
                    && is_unchanged(&old.record.metadata, &metadata, session.old_read_at)
            };
            candidates.push(match old {
                Some(old) if as_before(&old) => Candidate::Unchanged {
                    encoded: old.encoded.to_vec(),
                    record: old.record.clone(),
                    data: 0,
                },
                old => Candidate::New {
                    metadata,
                    old: old.map(|old| old.record.clone()),
                },
            });
        }
        Ok(candidates)
    }

    /// Counts an entry that is stored.
    fn count(&self, metadata: &Metadata, data: u64) {
        let counts = &self.session.counts;
        counts.data_bytes.fetch_add(data, Ordering::Relaxed);
        let counter = match metadata.kind {
            EntryKind::File => &counts.files,
            _ => &counts.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        counts
            .size_bytes
            .fetch_add(metadata.size_bytes, Ordering::Relaxed);
        self.session.stop.progress().advance(metadata.size_bytes);
    }

    /// Files of which a piece is stored nowhere any more are to be read, though they have not changed.
    fn doubt_unknown(&mut self, candidates: &mut [Candidate]) -> Result<()> {
        let (mut keys, mut owners) = (Vec::new(), Vec::new());
        let mut doubted = Vec::new();
        for (place, candidate) in candidates.iter_mut().enumerate() {
            let Candidate::Unchanged { record, data, .. } = candidate else {
                continue;
            };
            match &record.held {
                Held::Pieces(pieces) => {
                    *data = data_bytes(pieces);
                    for piece in pieces.iter().filter(|piece| !piece.id.is_zero()) {
                        keys.push(piece.id.key());
                        owners.push(place);
                    }
                }
                Held::PieceList(list) => match self.known_data_bytes(*list) {
                    Ok(Some(bytes)) => *data = bytes,
                    Ok(None) => doubted.push(place),
                    Err(error) => {
                        unless_damaged(error)?;
                        doubted.push(place);
                    }
                },
                Held::Directory(_) | Held::Target(_) | Held::Nothing => {}
            }
        }
        let session = self.session.packer.session();
        let stored = self.session.known.are_stored(session, &keys)?;
        let lost = owners.iter().zip(stored).filter(|(_, stored)| !stored);
        doubted.extend(lost.map(|(owner, _)| *owner));
        for place in doubted {
            if let Candidate::Unchanged { record, .. } = &candidates[place] {
                let (metadata, old) = (record.metadata, None);
                candidates[place] = Candidate::New { metadata, old };
            }
        }
        Ok(())
    }

    fn are_known(&self, pieces: &[Piece]) -> Result<bool> {
        let stored = pieces.iter().filter(|piece| !piece.id.is_zero());
        let keys: Vec<ChunkKey> = stored.map(|piece| piece.id.key()).collect();
        let session = self.session.packer.session();
        let stored = self.session.known.are_stored(session, &keys)?;
        Ok(stored.iter().all(|stored| *stored))
    }

    /// Bytes in the pieces of a list that are not zero; nothing if one is stored nowhere.
    fn known_data_bytes(&mut self, list: NodeRef) -> Result<Option<u64>> {
        if list.level == 0 {
            let pieces = piece_leaf(&mut self.reader, list.id)?;
            return Ok(self.are_known(&pieces)?.then(|| data_bytes(&pieces)));
        }
        let mut sum = 0;
        for below in branch(&mut self.reader, ListKind::Pieces, list)? {
            match self.known_data_bytes(below.node)? {
                Some(bytes) => sum += bytes,
                None => return Ok(None),
            }
        }
        Ok(Some(sum))
    }

    /// Stores an entry that is no directory, and tells how much data it has;
    /// nothing if it cannot be saved.
    fn store_entry(
        &mut self,
        directory: &Directory,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<Option<(Record, u64)>> {
        let stored = match metadata.kind {
            EntryKind::File => self.store_file(directory, name)?,
            EntryKind::Symlink => directory.reader.link_target(name).and_then(|target| {
                let held = Held::Target(check_target(target)?);
                Ok((metadata, held, 0, directory.reader.xattrs_of(name)))
            }),
            _ => Ok((metadata, Held::Nothing, 0, directory.reader.xattrs_of(name))),
        };
        match stored {
            Ok((metadata, held, data, xattrs)) => {
                let xattrs = self.checked_xattrs(|| directory.path_of(name), xattrs)?;
                let record = Record {
                    metadata,
                    xattrs,
                    held,
                };
                Ok(Some((record, data)))
            }
            Err(error) => {
                self.session.note_failed(directory.path_of(name), error)?;
                Ok(None)
            }
        }
    }

    /// Attributes that fit an entry; where they do not, or cannot be read, there are none.
    fn checked_xattrs(
        &self,
        path: impl Fn() -> Vec<u8>,
        read: io::Result<Vec<Xattr>>,
    ) -> Result<Vec<Xattr>> {
        let reason = match read {
            Ok(xattrs) if xattr_bytes(&xattrs) <= XATTR_BYTES_MAX => return Ok(xattrs),
            Ok(_) => format!("they are larger than {XATTR_BYTES_MAX} bytes"),
            Err(error) => error.to_string(),
        };
        self.session.note(path(), ProblemKind::Attributes, reason);
        Ok(Vec::new())
    }

    /// Reads and stores a file, once more if it changes meanwhile.
    fn store_file(&mut self, directory: &Directory, name: &[u8]) -> Result<io::Result<StoredFile>> {
        let mut readings = 0;
        loop {
            let read = match directory.reader.file(name) {
                Ok(file) => self.store_once(&*file)?,
                Err(error) => Err(error),
            };
            let (file, stable) = match read {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            readings += 1;
            if !stable && readings < READINGS {
                continue;
            }
            if !stable {
                let reason = format!("it changed during each of {READINGS} readings");
                let path = directory.path_of(name);
                self.session.note(path, ProblemKind::Changed, reason);
            }
            return Ok(Ok(file));
        }
    }

    /// Reads and stores a file; says whether it stayed the same meanwhile.
    fn store_once(&mut self, file: &dyn FileReader) -> Result<io::Result<(StoredFile, bool)>> {
        let before = match file.metadata() {
            Ok(metadata) if metadata.kind == EntryKind::File => metadata,
            Ok(_) => return Ok(Err(io::Error::other("it is no file any more"))),
            Err(error) => return Ok(Err(error)),
        };
        let pieces = if before.size_bytes <= PIECE_BYTES_MAX as u64 {
            self.store_small(file, before.size_bytes as usize)?
        } else {
            self.store_large(file, before.size_bytes)?
        };
        let ended = pieces.and_then(|pieces| Ok((pieces, file.xattrs(), file.metadata()?)));
        let (pieces, xattrs, after) = match ended {
            Ok(ended) => ended,
            Err(error) => return Ok(Err(error)),
        };
        let size_bytes = pieces.iter().map(|piece| piece.bytes).sum();
        let stable = before == after && size_bytes == before.size_bytes;
        let metadata = Metadata {
            size_bytes,
            ..before
        };
        let data_bytes = data_bytes(&pieces);
        let held = self.hold(pieces)?;
        Ok(Ok(((metadata, held, data_bytes, xattrs), stable)))
    }

    /// A file that is one piece, or none.
    fn store_small(
        &mut self,
        file: &dyn FileReader,
        size: usize,
    ) -> Result<io::Result<Vec<Piece>>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        // One byte more tells whether the file has grown.
        buffer.resize((size + 1).max(buffer.len()), 0);
        let read = file.read_at(0, &mut buffer[..=size]);
        let stored = match read {
            Ok(0) => Ok(Vec::new()),
            Ok(length) => {
                let length = length.min(PIECE_BYTES_MAX);
                Ok(vec![self.store_piece(&buffer[..length])?])
            }
            Err(error) => Err(error),
        };
        self.buffer = buffer;
        Ok(stored)
    }

    /// A file of many pieces: holes are left out, and each run of data is cut.
    fn store_large(&mut self, file: &dyn FileReader, size: u64) -> Result<io::Result<Vec<Piece>>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES.max(buffer.len()), 0);
        let mut pieces = Vec::new();
        let mut at = 0;
        let stored = loop {
            let data = match file.data_from(at) {
                Ok(data) => data.unwrap_or(size..size),
                Err(error) => break Err(error),
            };
            let (start, end) = (data.start.clamp(at, size), data.end.min(size));
            add_piece(&mut pieces, ChunkId::ZERO, start - at);
            if start == size {
                break Ok(pieces);
            }
            match self.store_run(file, start..end, &mut buffer, &mut pieces)? {
                // It ends before its size: it was cut short meanwhile.
                Ok(reached) if reached < end => break Ok(pieces),
                Ok(reached) => at = reached,
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        Ok(stored)
    }

    /// Stores a run of a file's data. Returns how far the file goes.
    fn store_run(
        &mut self,
        file: &dyn FileReader,
        run: Range<u64>,
        buffer: &mut [u8],
        pieces: &mut Vec<Piece>,
    ) -> Result<io::Result<u64>> {
        // Bytes in the buffer that are in no piece yet, and where they are in the file.
        let (mut held, mut at) = (0, run.start);
        loop {
            self.session.stop.check()?;
            let wanted = (run.end - at - held as u64).min((READ_BYTES - held) as u64) as usize;
            let length = match file.read_at(at + held as u64, &mut buffer[held..held + wanted]) {
                Ok(length) => length,
                Err(error) => return Ok(Err(error)),
            };
            held += length;
            let last = length < wanted || at + held as u64 == run.end;
            let mut cut = 0;
            while cut < held && (last || held - cut >= PIECE_BYTES_MAX) {
                let length = self.session.cutter.first(&buffer[cut..held]);
                let piece = self.store_piece(&buffer[cut..cut + length])?;
                add_piece(pieces, piece.id, piece.bytes);
                cut += length;
            }
            buffer.copy_within(cut..held, 0);
            (held, at) = (held - cut, at + cut as u64);
            if last {
                return Ok(Ok(at));
            }
        }
    }

    /// Stores bytes of a file unless they are zeros or known.
    fn store_piece(&mut self, plain: &[u8]) -> Result<Piece> {
        let session = self.session;
        let bytes = plain.len() as u64;
        session
            .counts
            .read_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        if is_zero(plain) {
            let id = ChunkId::ZERO;
            return Ok(Piece { id, bytes });
        }
        let id = session.project.keys.hasher.id(ChunkKind::Block, plain);
        let packer = &session.packer;
        // What another session is storing is stored again rather than waited for.
        if session.known.claim_anyway(packer.session(), id.key())? {
            let chunk = (id, ChunkKind::Block);
            push(&mut self.blocks, &mut self.coder, packer, chunk, plain)?;
        }
        Ok(Piece { id, bytes })
    }

    /// Puts many pieces into a list.
    fn hold(&mut self, pieces: Vec<Piece>) -> Result<Held> {
        if pieces.len() <= INLINE_PIECES {
            return Ok(Held::Pieces(pieces));
        }
        let mut list = ListBuilder::new(ListKind::Pieces);
        for piece in &pieces {
            list.push_piece(piece, &mut |node| self.store_node(node))?;
        }
        list.finish(&mut |node| self.store_node(node))
            .map(Held::PieceList)
    }

    /// Stores a node unless it is known. Nodes are small: one that another
    /// session is storing is stored again.
    pub fn store_node(&mut self, encoded: &[u8]) -> Result<ChunkId> {
        let session = self.session;
        let id = session.project.keys.hasher.id(ChunkKind::Node, encoded);
        let packer = &session.packer;
        if session.known.claim_anyway(packer.session(), id.key())? {
            let chunk = (id, ChunkKind::Node);
            push(&mut self.nodes, &mut self.coder, packer, chunk, encoded)?;
        }
        Ok(id)
    }
}

/// What is to be kept of a file, and how much data it has.
type StoredFile = (Metadata, Held, u64, io::Result<Vec<Xattr>>);

/// Bytes in pieces that are not zero.
fn data_bytes(pieces: &[Piece]) -> u64 {
    let data = pieces.iter().filter(|piece| !piece.id.is_zero());
    data.map(|piece| piece.bytes).sum()
}

/// Adds a run to a file's pieces; zeros go together.
fn add_piece(pieces: &mut Vec<Piece>, id: ChunkId, bytes: u64) {
    match pieces.last_mut() {
        _ if bytes == 0 => {}
        Some(last) if last.id.is_zero() && id.is_zero() => last.bytes += bytes,
        _ => pieces.push(Piece { id, bytes }),
    }
}

fn check_target(target: Vec<u8>) -> io::Result<Vec<u8>> {
    if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
        Err(io::Error::other("it points nowhere"))
    } else {
        Ok(target)
    }
}
