//! One thread's part of saving a tree: it takes what is next in the queue and
//! stores what is new of it.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_types::tree::{DirectoryReader, EntryKind, Metadata, Xattr};

use crate::chunk::{ChunkId, ChunkKey, ChunkKind};
use crate::error::{Error, Result};
use crate::filetree::content::data_bytes;
use crate::filetree::directory::{Directory, Later, PART_NAMES, Part, Slot, advance, leave_out};
use crate::filetree::entry::{
    Held, NodeRef, Piece, Record, TARGET_BYTES_MAX, XATTR_BYTES_MAX, encode_name, xattr_bytes,
};
use crate::filetree::list::ListKind;
use crate::filetree::old::{OldDirectory, OldEntry, is_unchanged, unless_damaged};
use crate::filetree::summary::ProblemKind;
use crate::filetree::walk::{branch, piece_leaf};
use crate::filetree::write::{Session, Task};
use crate::frame::{FrameBuilder, FrameCoder};
use crate::read::ChunkReader;

/// Directories below each other at most: each keeps one open.
pub(crate) const DEPTH_MAX: usize = 512;

/// Bytes of nodes in a frame, unless one alone has more. Who walks a tree meets the frames
/// of all who wrote it by turns and keeps some of each; large ones would fill the memory.
const NODE_FRAME_BYTES: u64 = 1 << 20;

/// One thread's part: its frames and the memory it uses again.
pub(crate) struct Worker<'s> {
    pub session: &'s Session,
    reader: ChunkReader,
    pub coder: FrameCoder,
    pub blocks: FrameBuilder,
    nodes: FrameBuilder,
    pub buffer: Vec<u8>,
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
        let mut distant = self.store_distant_files(directory, start, &candidates)?;
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
                    let stored = match distant.remove(&(start + place)) {
                        Some(stored) => stored,
                        None => self.store_entry(directory, name, metadata)?,
                    };
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

    /// Stores the new files of a part together, if they are at the other end of a line.
    fn store_distant_files(
        &mut self,
        directory: &Directory,
        start: usize,
        candidates: &[Candidate],
    ) -> Result<HashMap<usize, Option<(Record, u64)>>> {
        let Some(distant) = directory.reader.distant() else {
            return Ok(HashMap::new());
        };
        let is_new_file = |candidate: &Candidate| match candidate {
            Candidate::New { metadata, .. } => metadata.kind == EntryKind::File,
            _ => false,
        };
        let places = candidates.iter().enumerate();
        let files = places.filter(|(_, candidate)| is_new_file(candidate));
        let files: Vec<usize> = files.map(|(place, _)| start + place).collect();
        match files.is_empty() {
            true => Ok(HashMap::new()),
            false => self.store_distant(directory, distant, files),
        }
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
    pub fn checked_xattrs(
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

    /// Stores a node unless it is known. Nodes are small: one that another
    /// session is storing is stored again.
    pub fn store_node(&mut self, encoded: &[u8]) -> Result<ChunkId> {
        let session = self.session;
        let id = session.project.keys.hasher.id(ChunkKind::Node, encoded);
        let packer = &session.packer;
        if session.known.claim_anyway(packer.session(), id.key())? {
            if self.nodes.plain_bytes() + encoded.len() as u64 > NODE_FRAME_BYTES {
                packer.store(&mut self.coder, &mut self.nodes)?;
            }
            let chunk = (id, ChunkKind::Node);
            packer.push(&mut self.coder, &mut self.nodes, chunk, encoded)?;
        }
        Ok(id)
    }
}

fn check_target(target: Vec<u8>) -> io::Result<Vec<u8>> {
    if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
        Err(io::Error::other("it points nowhere"))
    } else {
        Ok(target)
    }
}
