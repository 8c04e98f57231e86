//! Visiting all that a tree needs, and finding single entries of it.

use crate::chunk::ChunkId;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::filetree::entry::{Held, NodeRef, Piece, Record};
use crate::filetree::list::{Below, ListKind, decode_branch, entries, pieces};
use crate::filetree::store::DEPTH_MAX;
use crate::read::{ChunkReader, Visit};

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub name: Box<[u8]>,
    pub record: Record,
}

fn damaged(id: ChunkId) -> impl Fn(Malformed) -> Error {
    move |problem| Error::DamagedChunk {
        id,
        problem: problem.0,
    }
}

/// Reads a branch of a list.
pub(crate) fn branch(
    reader: &mut ChunkReader,
    kind: ListKind,
    node: NodeRef,
) -> Result<Vec<Below>> {
    let bytes = reader.node_bytes(node.id)?;
    decode_branch(kind, node.level, bytes).map_err(damaged(node.id))
}

/// Reads a leaf of a directory's list.
pub(crate) fn leaf(reader: &mut ChunkReader, id: ChunkId) -> Result<Vec<Named>> {
    let bytes = reader.node_bytes(id)?;
    let listed = entries(bytes).map_err(damaged(id))?;
    let named = listed.map(|entry| {
        let entry = entry.map_err(damaged(id))?;
        Ok(Named {
            name: entry.name.into(),
            record: entry.record,
        })
    });
    named.collect()
}

/// Reads a leaf of a file's list.
pub(crate) fn piece_leaf(reader: &mut ChunkReader, id: ChunkId) -> Result<Vec<Piece>> {
    pieces(reader.node_bytes(id)?).map_err(damaged(id))
}

/// Visits every node and piece of a tree.
pub(crate) fn walk(reader: &mut ChunkReader, top: &Record, visit: &mut dyn Visit) -> Result<()> {
    walk_record(reader, top, 0, visit)
}

fn walk_record(
    reader: &mut ChunkReader,
    record: &Record,
    depth: usize,
    visit: &mut dyn Visit,
) -> Result<()> {
    match &record.held {
        Held::Pieces(pieces) => visit_pieces(pieces, visit),
        Held::PieceList(list) => walk_pieces(reader, *list, visit),
        Held::Directory(list) if depth > DEPTH_MAX => Err(too_deep(list.id)),
        Held::Directory(list) => walk_entries(reader, *list, depth, visit),
        Held::Target(_) | Held::Nothing => Ok(()),
    }
}

/// What is deeper than any directory was ever saved is forged.
pub(crate) fn too_deep(id: ChunkId) -> Error {
    Error::DamagedChunk {
        id,
        problem: "it lies in too many directories",
    }
}

fn walk_entries(
    reader: &mut ChunkReader,
    node: NodeRef,
    depth: usize,
    visit: &mut dyn Visit,
) -> Result<()> {
    if !visit.enter(node.id)? {
        return Ok(());
    }
    if node.level > 0 {
        for below in branch(reader, ListKind::Entries, node)? {
            walk_entries(reader, below.node, depth, visit)?;
        }
        return Ok(());
    }
    for entry in leaf(reader, node.id)? {
        walk_record(reader, &entry.record, depth + 1, visit)?;
    }
    Ok(())
}

fn walk_pieces(reader: &mut ChunkReader, node: NodeRef, visit: &mut dyn Visit) -> Result<()> {
    if !visit.enter(node.id)? {
        return Ok(());
    }
    if node.level == 0 {
        return visit_pieces(&piece_leaf(reader, node.id)?, visit);
    }
    for below in branch(reader, ListKind::Pieces, node)? {
        walk_pieces(reader, below.node, visit)?;
    }
    Ok(())
}

fn visit_pieces(pieces: &[Piece], visit: &mut dyn Visit) -> Result<()> {
    for piece in pieces.iter().filter(|piece| !piece.id.is_zero()) {
        visit.piece(piece.id)?;
    }
    Ok(())
}

/// Finds an entry of a directory by its name.
pub(crate) fn find(reader: &mut ChunkReader, list: NodeRef, name: &[u8]) -> Result<Option<Named>> {
    let mut node = list;
    while node.level > 0 {
        let below = branch(reader, ListKind::Entries, node)?;
        let behind = below.partition_point(|below| *below.first_name <= *name);
        match behind.checked_sub(1) {
            Some(place) => node = below[place].node,
            None => return Ok(None),
        }
    }
    let mut entries = leaf(reader, node.id)?;
    let place = entries.binary_search_by(|entry| (*entry.name).cmp(name));
    Ok(place.ok().map(|place| entries.swap_remove(place)))
}
