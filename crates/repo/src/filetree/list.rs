//! Lists of any length as trees of nodes: the entries of a directory, sorted by
//! their names, and the pieces of a large file.
//!
//! A leaf ends behind an item whose own bytes say so, once it has a certain
//! size, so that what is added to a long list changes few of its nodes. Equal
//! lists have equal nodes.

use crate::chunk::ChunkId;
use crate::codec::{Malformed, Reader};
use crate::error::Result;
use crate::filetree::entry::{
    ENTRY_BYTES_MAX, LEVEL_MAX, NodeRef, Piece, Record, decode_name, encode_name,
};
use crate::frame::FRAME_BYTES;

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The entries of a directory.
    Entries = 0x80,
    /// The pieces of a file.
    Pieces = 0x81,
}

/// What a branch says of a node below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// The name of the first entry.
    Name(&'a [u8]),
    /// How many bytes of the file the pieces cover.
    Bytes(u64),
}

/// Bytes from which on a node may end.
const NODE_BYTES_MIN: usize = 32 << 10;
/// Bytes at which a node ends in any case.
const NODE_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(NODE_BYTES_MAX + ENTRY_BYTES_MAX <= FRAME_BYTES);

/// A node that takes items.
#[derive(Debug, Default)]
struct Open {
    bytes: Vec<u8>,
    first_name: Vec<u8>,
    covered: u64,
    items: usize,
    /// Of the only child so far: a branch of one is not needed.
    only: Option<ChunkId>,
}

/// Builds a list from its items in order.
#[derive(Debug)]
pub(crate) struct ListBuilder {
    kind: ListKind,
    open: Vec<Open>,
}

impl ListBuilder {
    pub fn new(kind: ListKind) -> Self {
        let open = vec![Open::default()];
        Self { kind, open }
    }

    /// Adds an encoded entry, whose name comes behind all before it.
    pub fn push_entry<E>(
        &mut self,
        entry: &[u8],
        emit: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let name = &entry[1..=usize::from(entry[0])];
        let ends = ends_a_leaf(name);
        self.push(0, entry, Key::Name(name), None, ends, emit)
    }

    /// Adds a piece.
    pub fn push_piece<E>(
        &mut self,
        piece: &Piece,
        emit: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let mut item = Vec::with_capacity(40);
        piece.encode(&mut item);
        let ends = piece.id.0[31] == 0;
        self.push(0, &item, Key::Bytes(piece.bytes), None, ends, emit)
    }

    fn push<E>(
        &mut self,
        level: usize,
        item: &[u8],
        key: Key<'_>,
        child: Option<ChunkId>,
        ends: bool,
        emit: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if self.open.len() == level {
            self.open.push(Open::default());
        }
        let open = &mut self.open[level];
        if open.items == 0 {
            open.bytes.extend([self.kind as u8, level as u8]);
            open.only = child;
        }
        match key {
            Key::Name(name) if open.items == 0 => open.first_name.extend_from_slice(name),
            Key::Name(_) => {}
            Key::Bytes(bytes) => open.covered += bytes,
        }
        open.bytes.extend_from_slice(item);
        open.items += 1;
        let length = open.bytes.len();
        if length >= NODE_BYTES_MAX || (ends && length >= NODE_BYTES_MIN) {
            self.close(level, emit)?;
        }
        Ok(())
    }

    /// Stores the open node of a level and adds it to the level above.
    fn close<E>(
        &mut self,
        level: usize,
        emit: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let open = std::mem::take(&mut self.open[level]);
        let id = emit(&open.bytes)?;
        let mut item = id.0.to_vec();
        let key = match self.kind {
            ListKind::Entries => {
                encode_name(&open.first_name, &mut item);
                Key::Name(&open.first_name)
            }
            ListKind::Pieces => {
                item.extend_from_slice(&open.covered.to_le_bytes());
                Key::Bytes(open.covered)
            }
        };
        let ends = id.0[31] & 0x0f == 0;
        self.push(level + 1, &item, key, Some(id), ends, emit)
    }

    /// Stores what is open and returns the top. Of no items, an empty leaf.
    pub fn finish<E>(
        mut self,
        emit: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<NodeRef, E> {
        let mut level = 0;
        while level + 1 < self.open.len() {
            if self.open[level].items > 0 {
                self.close(level, emit)?;
            }
            level += 1;
        }
        let top = std::mem::take(&mut self.open[level]);
        let level = level as u8;
        match top.only {
            Some(id) if top.items == 1 => Ok(NodeRef {
                level: level - 1,
                id,
            }),
            _ if top.items == 0 => {
                let id = emit(&[self.kind as u8, level])?;
                Ok(NodeRef { level, id })
            }
            _ => {
                let id = emit(&top.bytes)?;
                Ok(NodeRef { level, id })
            }
        }
    }
}

/// Whether a leaf may end behind an entry of this name: behind one of some 256.
fn ends_a_leaf(name: &[u8]) -> bool {
    // FNV-1a, folded: fast, and as good as any here.
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u8 == 0
}

/// A node's items, checked against its place.
pub(crate) fn open_node(kind: ListKind, level: u8, bytes: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != kind as u8 || reader.u8()? != level {
        return Err(Malformed("a node is of another list than its place"));
    }
    // Only a whole list can be empty, and that is a leaf.
    if level > 0 && reader.rest().is_empty() {
        return Err(Malformed("a node is empty"));
    }
    Ok(reader)
}

/// A node of a list, with what the branch above says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Below {
    pub node: NodeRef,
    /// The name of its first entry; empty in a list of pieces.
    pub first_name: Box<[u8]>,
    /// The bytes that it covers; 0 in a directory.
    pub bytes: u64,
}

/// Reads a branch.
pub(crate) fn decode_branch(
    kind: ListKind,
    level: u8,
    bytes: &[u8],
) -> Result<Vec<Below>, Malformed> {
    if level == 0 || level > LEVEL_MAX {
        return Err(Malformed("a node has an impossible level"));
    }
    let mut reader = open_node(kind, level, bytes)?;
    let mut nodes: Vec<Below> = Vec::new();
    while !reader.rest().is_empty() {
        let id = ChunkId(reader.array()?);
        let (first_name, bytes) = match kind {
            ListKind::Entries => (decode_name(&mut reader)?.into(), 0),
            ListKind::Pieces => (Box::default(), reader.u64()?),
        };
        let in_order = nodes.last().is_none_or(|last| last.first_name < first_name);
        if id.is_zero() || (kind == ListKind::Entries && !in_order) {
            return Err(Malformed("a branch is out of order"));
        }
        let node = NodeRef {
            level: level - 1,
            id,
        };
        nodes.push(Below {
            node,
            first_name,
            bytes,
        });
    }
    Ok(nodes)
}

/// The entries of a leaf, in order; ends behind the first that is malformed.
pub(crate) struct Entries<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    last: &'a [u8],
}

/// An entry of a leaf.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub name: &'a [u8],
    pub record: Record,
    /// All of it, as it is encoded.
    pub encoded: &'a [u8],
}

pub(crate) fn entries(leaf: &[u8]) -> Result<Entries<'_>, Malformed> {
    let reader = open_node(ListKind::Entries, 0, leaf)?;
    Ok(Entries {
        bytes: reader.rest(),
        reader,
        last: &[],
    })
}

impl<'a> Entries<'a> {
    /// Bytes of the entries that were not taken yet.
    pub fn bytes_left(&self) -> usize {
        self.reader.rest().len()
    }

    fn decode(&mut self) -> Result<Entry<'a>, Malformed> {
        let start = self.bytes.len() - self.reader.rest().len();
        let name = decode_name(&mut self.reader)?;
        if name <= self.last {
            return Err(Malformed("a directory's entries are out of order"));
        }
        self.last = name;
        let record = Record::decode(&mut self.reader)?;
        let end = self.bytes.len() - self.reader.rest().len();
        Ok(Entry {
            name,
            record,
            encoded: &self.bytes[start..end],
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest().is_empty() {
            return None;
        }
        let entry = self.decode();
        if entry.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(entry)
    }
}

/// The pieces of a leaf.
pub(crate) fn pieces(leaf: &[u8]) -> Result<Vec<Piece>, Malformed> {
    let mut reader = open_node(ListKind::Pieces, 0, leaf)?;
    let mut pieces = Vec::with_capacity(reader.rest().len() / 40);
    while !reader.rest().is_empty() {
        pieces.push(Piece::decode(&mut reader)?);
    }
    Ok(pieces)
}

#[cfg(test)]
#[path = "list/tests.rs"]
mod tests;
