//! A stored tree, open for reading: what a copy of it is made from.
//!
//! Every node and piece is checked against its id before anything of it is
//! handed out. Holes stay holes. Whatever fails here is one of the backup, so that
//! whoever copies it fails as a whole.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use cairn_types::BackupId;
use cairn_types::tree::{DirectoryReader, FileReader, Metadata, Names, TreeReader, Xattr};
use tokio::runtime::Handle;

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::filetree::entry::{Held, NodeRef, Piece, Record};
use crate::filetree::list::ListKind;
use crate::filetree::walk::{Named, branch, leaf, piece_leaf};
use crate::known::{Known, Pin};
use crate::manifest::Content;
use crate::project::Inner;
use crate::read::ChunkReader;
use crate::workers::lock;

/// Leaves of a directory that are kept: parts of it are worked on at the same time.
const LEAVES_KEPT: usize = 8;

/// A tree's backup as a tree.
struct StoredTree {
    store: Arc<Store>,
    top: Record,
}

/// What everything that is open of a tree reads from.
struct Store {
    /// Keeps what is read for as long as anything of it is open.
    _pin: Pin,
    project: Arc<Inner>,
    known: Arc<Known>,
    handle: Handle,
    /// One for each thread that has read at the same time as others.
    idle: Mutex<Vec<ChunkReader>>,
}

struct StoredDirectory {
    store: Arc<Store>,
    record: Record,
    list: NodeRef,
    /// Those that were needed last, the newest behind the others.
    leaves: Mutex<VecDeque<Arc<Vec<Named>>>>,
}

struct StoredFile {
    store: Arc<Store>,
    record: Record,
    /// Each with its place in the file, in order.
    pieces: Vec<(u64, Piece)>,
}

pub(crate) async fn open_tree(
    project: &Arc<Inner>,
    backup: BackupId,
) -> Result<Arc<dyn TreeReader>> {
    let (manifest, _, pin) = project.pin(backup).await?;
    let Content::Tree(tree) = manifest.content else {
        return Err(Error::NotATree { backup });
    };
    let store = Store {
        _pin: pin,
        known: project.known().await?,
        project: project.clone(),
        handle: Handle::current(),
        idle: Mutex::default(),
    };
    Ok(Arc::new(StoredTree {
        store: Arc::new(store),
        top: tree.top,
    }))
}

impl Store {
    /// Lends a reader out. One that met an error is not used again.
    fn read<T>(&self, work: impl FnOnce(&mut ChunkReader) -> Result<T>) -> io::Result<T> {
        let lent = lock(&self.idle).pop();
        let mut reader = lent.unwrap_or_else(|| {
            ChunkReader::on(
                self.project.clone(),
                self.known.clone(),
                self.handle.clone(),
            )
        });
        let done = work(&mut reader).map_err(io::Error::other)?;
        lock(&self.idle).push(reader);
        Ok(done)
    }
}

/// What is not what it is asked as.
fn other_kind() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl TreeReader for StoredTree {
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>> {
        StoredDirectory::open(&self.store, self.top.clone())
    }
}

impl StoredDirectory {
    fn open(store: &Arc<Store>, record: Record) -> io::Result<Arc<dyn DirectoryReader>> {
        let Held::Directory(list) = record.held else {
            return Err(other_kind());
        };
        Ok(Arc::new(Self {
            store: store.clone(),
            record,
            list,
            leaves: Mutex::default(),
        }))
    }

    /// An entry; out of the leaves that are kept, if one of them has it.
    fn entry(&self, name: &[u8]) -> io::Result<Record> {
        let place_in = |leaf: &[Named]| leaf.binary_search_by(|entry| (*entry.name).cmp(name));
        let kept = lock(&self.leaves)
            .iter()
            .find_map(|leaf| Some(leaf[place_in(leaf).ok()?].record.clone()));
        if let Some(record) = kept {
            return Ok(record);
        }
        let leaf = self.store.read(|reader| leaf_of(reader, self.list, name))?;
        let record = place_in(&leaf).map(|place| leaf[place].record.clone());
        let mut leaves = lock(&self.leaves);
        if leaves.len() == LEAVES_KEPT {
            leaves.pop_front();
        }
        leaves.push_back(Arc::new(leaf));
        record.map_err(|_| io::ErrorKind::NotFound.into())
    }
}

/// The leaf of a directory's list where a name is, if it is anywhere.
fn leaf_of(reader: &mut ChunkReader, list: NodeRef, name: &[u8]) -> Result<Vec<Named>> {
    let mut node = list;
    while node.level > 0 {
        let below = branch(reader, ListKind::Entries, node)?;
        let behind = below.partition_point(|below| *below.first_name <= *name);
        match behind.checked_sub(1) {
            Some(place) => node = below[place].node,
            None => return Ok(Vec::new()),
        }
    }
    leaf(reader, node.id)
}

fn names(reader: &mut ChunkReader, node: NodeRef, found: &mut Vec<Box<[u8]>>) -> Result<()> {
    if node.level == 0 {
        let entries = leaf(reader, node.id)?.into_iter();
        found.extend(entries.map(|entry| entry.name));
        return Ok(());
    }
    for below in branch(reader, ListKind::Entries, node)? {
        names(reader, below.node, found)?;
    }
    Ok(())
}

impl DirectoryReader for StoredDirectory {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.record.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(self.record.xattrs.clone())
    }

    fn names(&self) -> io::Result<Names> {
        let found = self.store.read(|reader| {
            let mut found = Vec::new();
            names(reader, self.list, &mut found)?;
            Ok(found)
        })?;
        Names::collect(found.iter()).map_err(io::Error::other)
    }

    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        Ok(self.entry(name)?.metadata)
    }

    fn xattrs_of(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        Ok(self.entry(name)?.xattrs)
    }

    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>> {
        Self::open(&self.store, self.entry(name)?)
    }

    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        let record = self.entry(name)?;
        let mut pieces = Pieces::default();
        match &record.held {
            Held::Pieces(few) => few.iter().for_each(|piece| pieces.add(*piece)),
            Held::PieceList(list) => self.store.read(|reader| pieces.gather(reader, *list))?,
            _ => return Err(other_kind()),
        }
        if pieces.end != record.metadata.size_bytes {
            let id = pieces
                .all
                .last()
                .map_or(ChunkId::ZERO, |(_, piece)| piece.id);
            let problem = "its file's pieces are not as long as it";
            return Err(io::Error::other(Error::DamagedChunk { id, problem }));
        }
        Ok(Arc::new(StoredFile {
            store: self.store.clone(),
            record,
            pieces: pieces.all,
        }))
    }

    fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        match self.entry(name)?.held {
            Held::Target(target) => Ok(target),
            _ => Err(other_kind()),
        }
    }
}

/// A file's pieces as they are gathered.
#[derive(Default)]
struct Pieces {
    all: Vec<(u64, Piece)>,
    end: u64,
}

impl Pieces {
    fn add(&mut self, piece: Piece) {
        self.all.push((self.end, piece));
        // What is longer than any file is not as long as its file.
        self.end = self.end.saturating_add(piece.bytes);
    }

    fn gather(&mut self, reader: &mut ChunkReader, node: NodeRef) -> Result<()> {
        if node.level == 0 {
            let pieces = piece_leaf(reader, node.id)?;
            pieces.into_iter().for_each(|piece| self.add(piece));
            return Ok(());
        }
        for below in branch(reader, ListKind::Pieces, node)? {
            self.gather(reader, below.node)?;
        }
        Ok(())
    }
}

impl StoredFile {
    /// The pieces from the one on that has the byte at `offset`.
    fn from(&self, offset: u64) -> &[(u64, Piece)] {
        let behind = self.pieces.partition_point(|(start, _)| *start <= offset);
        &self.pieces[behind.saturating_sub(1)..]
    }
}

impl FileReader for StoredFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.record.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(self.record.xattrs.clone())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if offset >= self.record.metadata.size_bytes {
            return Ok(None);
        }
        let mut pieces = self.from(offset).iter();
        let Some((start, first)) = pieces.find(|(_, piece)| !piece.id.is_zero()) else {
            return Ok(None);
        };
        let data = pieces.take_while(|(_, piece)| !piece.id.is_zero());
        let end = data.fold(start + first.bytes, |end, (_, piece)| end + piece.bytes);
        Ok(Some(offset.max(*start)..end))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.record.metadata.size_bytes.saturating_sub(offset);
        let length = left.min(buffer.len() as u64) as usize;
        let mut rest = &mut buffer[..length];
        let mut at = offset;
        for (start, piece) in self.from(offset) {
            if rest.is_empty() {
                break;
            }
            let skip = (at - start) as usize;
            let count = rest.len().min((piece.bytes - skip as u64) as usize);
            let (now, later) = rest.split_at_mut(count);
            if piece.id.is_zero() {
                now.fill(0);
            } else {
                self.store.read(|reader| {
                    let plain = reader.block(piece.id)?;
                    let part = plain.get(skip..skip + count);
                    let whole = plain.len() as u64 == piece.bytes;
                    let part = part.filter(|_| whole).ok_or(Error::DamagedChunk {
                        id: piece.id,
                        problem: "it is not as long as its piece",
                    })?;
                    now.copy_from_slice(part);
                    Ok(())
                })?;
            }
            at += count as u64;
            rest = later;
        }
        Ok(length)
    }
}
