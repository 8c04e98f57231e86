//! Chunks: the pieces of plain bytes that the repository stores once, and
//! their ids.
//!
//! An id is a keyed hash of the plain bytes, under one key per project and
//! kind of chunk, so that equal bytes in two projects have nothing in common
//! that the store could see. Bytes that are all zero are no chunk: their id is
//! `ChunkId::ZERO` and they are stored nowhere.

use std::fmt;

/// Bytes in the aligned blocks that a disk is cut into.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// The name of a chunk: a keyed hash of its plain bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

/// The first half of an id, which memory keeps: 128 bits of a keyed hash tell chunks apart.
pub(crate) type ChunkKey = [u8; 16];

impl ChunkId {
    /// The id of bytes that are all zero.
    pub const ZERO: Self = Self([0; 32]);

    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    pub(crate) fn key(&self) -> ChunkKey {
        self.0[..16].try_into().expect("an id has 32 bytes")
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// A block of a disk or a piece of a file.
    Block,
    /// A node of a Merkle tree: of a disk, a directory or a large file.
    Node,
}

/// The keys that chunk ids are made with.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub(crate) struct Hasher {
    block: [u8; 32],
    node: [u8; 32],
    root: [u8; 32],
    cuts: [u8; 32],
}

impl Hasher {
    pub fn new(data_key: &[u8; 32]) -> Self {
        Self {
            block: blake3::derive_key("cairn repository format 1: block id", data_key),
            node: blake3::derive_key("cairn repository format 1: node id", data_key),
            root: blake3::derive_key("cairn repository format 1: root", data_key),
            cuts: blake3::derive_key("cairn repository format 1: cuts", data_key),
        }
    }

    /// The id of a chunk's plain bytes.
    pub fn id(&self, kind: ChunkKind, plain: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Block => &self.block,
            ChunkKind::Node => &self.node,
        };
        ChunkId(*blake3::keyed_hash(key, plain).as_bytes())
    }

    /// The key of blocks' ids.
    pub fn block_key(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.block)
    }

    /// What makes the places where files are cut other than any other project's.
    pub fn cut_seed(&self) -> u64 {
        let (seed, _) = self.cuts.split_first_chunk().expect("a key has 32 bytes");
        u64::from_le_bytes(*seed)
    }

    /// The hash under which a manifest names what it describes.
    pub fn root(&self, description: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.root, description).as_bytes()
    }
}

/// The id of a block of plain bytes under [`Project::block_key`](crate::Project::block_key).
pub fn block_id(key: &[u8; 32], plain: &[u8]) -> ChunkId {
    match is_zero(plain) {
        true => ChunkId::ZERO,
        false => ChunkId(*blake3::keyed_hash(key, plain).as_bytes()),
    }
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Wide pieces first: the compiler turns each test into a few vector instructions.
    let (pieces, rest) = bytes.as_chunks::<256>();
    pieces
        .iter()
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        for length in [0, 1, 255, 256, 257, 1000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn ids_depend_on_key_and_kind() {
        let (one, two) = (Hasher::new(&[1; 32]), Hasher::new(&[2; 32]));
        let id = one.id(ChunkKind::Block, b"bytes");
        assert_eq!(id, one.id(ChunkKind::Block, b"bytes"));
        assert_ne!(id, one.id(ChunkKind::Node, b"bytes"));
        assert_ne!(id, two.id(ChunkKind::Block, b"bytes"));
    }
}
