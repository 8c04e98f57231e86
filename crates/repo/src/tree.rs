//! The Merkle tree of a disk's plain bytes.
//!
//! A disk is cut into aligned blocks; the last may be short. A node names 256
//! children: blocks at level 1, nodes above. The id of a node is the keyed hash
//! of its encoding, which holds its level and its children's ids and no
//! locations, so equal parts of two disks are the same node. A child that is
//! all zero, or lies behind the end of the disk, has the zero id, and so has a
//! node of nothing but such children: an empty disk of any size has no nodes.
//! The root binds the top node to the size of the disk and of its blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::chunk::{BLOCK_BYTES, ChunkId, ChunkKind, Hasher};
use crate::codec::{Malformed, Reader};

/// Children of a node.
pub(crate) const FANOUT: usize = 256;
/// Bytes of an encoded node at most.
pub(crate) const NODE_BYTES_MAX: usize = 1 + FANOUT / 8 + FANOUT * 32;

/// The name of a disk's exact bytes and size, or of a group of disks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root(pub [u8; 32]);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({self})")
    }
}

/// The size of a disk and of the blocks it is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub size_bytes: u64,
    pub block_bytes: u32,
}

impl Geometry {
    /// A disk of this size in blocks of the usual size.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            block_bytes: BLOCK_BYTES as u32,
        }
    }

    /// How many blocks there are, the short one included.
    pub fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(u64::from(self.block_bytes))
    }

    /// The level of the top node: the least, from 1, whose node covers the disk.
    pub fn height(&self) -> u8 {
        let mut height = 1;
        let mut covered = FANOUT as u64;
        while covered < self.blocks() {
            covered = covered.saturating_mul(FANOUT as u64);
            height += 1;
        }
        height
    }

    /// Bytes of the disk that a node of this level covers; 0 is a block.
    pub fn span(&self, level: u8) -> u64 {
        let mut span = u64::from(self.block_bytes);
        for _ in 0..level {
            span = span.saturating_mul(FANOUT as u64);
        }
        span
    }

    /// Where a block lies on the disk.
    pub fn block_range(&self, block: u64) -> Range<u64> {
        let start = block * u64::from(self.block_bytes);
        start..(start + u64::from(self.block_bytes)).min(self.size_bytes)
    }

    /// Bytes in those of the blocks under the node of level 1 at a place in the
    /// line of such nodes that are not zero.
    pub fn data_bytes(&self, index: u64, ids: &[ChunkId; FANOUT]) -> u64 {
        let blocks = (index * FANOUT as u64..).zip(ids);
        let data = blocks.filter(|(_, id)| !id.is_zero()).map(|(block, _)| {
            let range = self.block_range(block);
            range.end - range.start
        });
        data.sum()
    }

    /// The name of the disk with this top node.
    pub fn root(&self, hasher: &Hasher, top: ChunkId) -> Root {
        let mut description = b"disk".to_vec();
        description.extend_from_slice(&self.size_bytes.to_le_bytes());
        description.extend_from_slice(&self.block_bytes.to_le_bytes());
        description.push(self.height());
        description.extend_from_slice(&top.0);
        Root(hasher.root(&description))
    }
}

/// Encodes a node, or returns nothing for one of zeros only.
pub(crate) fn encode_node(level: u8, children: &[ChunkId; FANOUT]) -> Option<Vec<u8>> {
    let mut bitmap = [0; FANOUT / 8];
    let mut out = Vec::with_capacity(NODE_BYTES_MAX);
    out.push(level);
    out.extend_from_slice(&bitmap);
    for (slot, child) in children.iter().enumerate() {
        if !child.is_zero() {
            bitmap[slot / 8] |= 1 << (slot % 8);
            out.extend_from_slice(&child.0);
        }
    }
    out[1..=bitmap.len()].copy_from_slice(&bitmap);
    (bitmap != [0; FANOUT / 8]).then_some(out)
}

/// Reads a node of this level; there is one encoding only of the same children.
pub(crate) fn decode_node(level: u8, bytes: &[u8]) -> Result<[ChunkId; FANOUT], Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != level {
        return Err(Malformed("a node has another level than its place"));
    }
    let bitmap: [u8; FANOUT / 8] = reader.array()?;
    let mut children = [ChunkId::ZERO; FANOUT];
    for (slot, child) in children.iter_mut().enumerate() {
        if bitmap[slot / 8] & (1 << (slot % 8)) != 0 {
            *child = ChunkId(reader.array()?);
            if child.is_zero() {
                return Err(Malformed("a node names zeros in full"));
            }
        }
    }
    reader.finish()?;
    if bitmap == [0; FANOUT / 8] {
        Err(Malformed("a node is empty"))
    } else {
        Ok(children)
    }
}

/// Gathers the nodes of level 1 that are new, and builds the tree above them.
#[derive(Debug, Default)]
pub(crate) struct TreeBuilder {
    /// The top of the tree that this one is a change of; zero if it is none.
    base: ChunkId,
    leaves: BTreeMap<u64, ChunkId>,
}

impl TreeBuilder {
    /// A tree that is the one with this top wherever no leaf is set.
    pub fn on(base: ChunkId) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// Sets the node of level 1 at this place in the line of such nodes.
    pub fn set_leaf(&mut self, index: u64, id: ChunkId) {
        self.leaves.insert(index, id);
    }

    /// Builds the nodes above, gives each that the base has not in its place to
    /// `emit`, and returns the top. Asks `children` for the children of the
    /// base's nodes that have a leaf set below them, and for no others.
    pub fn build<E>(
        self,
        geometry: Geometry,
        hasher: &Hasher,
        mut children: impl FnMut(u8, ChunkId) -> Result<[ChunkId; FANOUT], E>,
        mut emit: impl FnMut(ChunkId, &[u8]) -> Result<(), E>,
    ) -> Result<ChunkId, E> {
        let leaves: Vec<_> = self.leaves.into_iter().collect();
        let mut build = Build {
            hasher,
            children: &mut children,
            emit: &mut emit,
        };
        build.node(geometry.height(), self.base, &leaves)
    }
}

type Children<'a, E> = dyn FnMut(u8, ChunkId) -> Result<[ChunkId; FANOUT], E> + 'a;
type Emit<'a, E> = dyn FnMut(ChunkId, &[u8]) -> Result<(), E> + 'a;

/// A tree being built.
struct Build<'a, E> {
    hasher: &'a Hasher,
    children: &'a mut Children<'a, E>,
    emit: &'a mut Emit<'a, E>,
}

impl<E> Build<'_, E> {
    /// The node that was `base` before these leaves below it were set.
    fn node(&mut self, level: u8, base: ChunkId, leaves: &[(u64, ChunkId)]) -> Result<ChunkId, E> {
        let Some((_, first)) = leaves.first() else {
            return Ok(base);
        };
        if level == 1 {
            return Ok(*first);
        }
        let mut children = match base.is_zero() {
            true => [ChunkId::ZERO; FANOUT],
            false => (self.children)(level, base)?,
        };
        // Leaves below one child.
        let span = (FANOUT as u64).pow(u32::from(level) - 2);
        for below in leaves.chunk_by(|(one, _), (two, _)| one / span == two / span) {
            let child = &mut children[(below[0].0 / span % FANOUT as u64) as usize];
            *child = self.node(level - 1, *child, below)?;
        }
        let Some(encoded) = encode_node(level, &children) else {
            return Ok(ChunkId::ZERO);
        };
        let id = self.hasher.id(ChunkKind::Node, &encoded);
        if id != base {
            (self.emit)(id, &encoded)?;
        }
        Ok(id)
    }
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
