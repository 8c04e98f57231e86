//! A filter in front of a run: tells of most keys that the run does not have
//! them, without reading it. It never denies a key that the run has.
//!
//! A key has a few bits in one block of 64 bytes (a blocked Bloom filter), so a
//! question costs one line of the processor's cache.

use crate::chunk::ChunkKey;

const BLOCK_BYTES: usize = 64;
const BLOCK_BITS_LOG2: u32 = 9;
/// Bits a key that are worth their memory: about 3 of 100 unknown keys pass.
const BITS: u64 = 8;
/// Below this the filter lets too much pass to be worth anything.
const BITS_MIN: u64 = 4;
/// Bits that are set for a key, as many as the fewest bits a key want and few
/// enough for a 64-bit word to tell.
const PROBES: u32 = 4;
/// Bytes of one filter at most, and of all filters of an index together. A run of
/// more than 200 million chunks, 12 TiB in blocks, has none: a question costs a read.
pub(super) const FILTERS_BYTES: u64 = 96 << 20;

/// The filter of one run.
#[derive(Debug)]
pub(super) struct Filter {
    bytes: Vec<u8>,
}

impl Filter {
    /// The length of the filter for this many keys; 0 if they are too many.
    pub fn bytes_for(keys: u64) -> u64 {
        let bytes = (keys * BITS / 8).min(FILTERS_BYTES);
        if bytes * 8 < keys * BITS_MIN {
            0
        } else {
            bytes.next_multiple_of(BLOCK_BYTES as u64)
        }
    }

    /// The empty filter for this many keys, if they are not too many.
    pub fn for_keys(keys: u64) -> Option<Self> {
        let bytes = usize::try_from(Self::bytes_for(keys)).expect("a filter is small");
        (bytes > 0).then(|| Self {
            bytes: vec![0; bytes],
        })
    }

    /// Bytes that a filter was written as.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let whole = !bytes.is_empty() && bytes.len().is_multiple_of(BLOCK_BYTES);
        whole.then_some(Self { bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn insert(&mut self, key: &ChunkKey) {
        let start = self.block(key);
        for bit in bits(key) {
            self.bytes[start + bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Whether the key may have been inserted.
    pub fn may_have(&self, key: &ChunkKey) -> bool {
        let block = &self.bytes[self.block(key)..][..BLOCK_BYTES];
        bits(key).all(|bit| block[bit / 8] & (1 << (bit % 8)) != 0)
    }

    /// Where the key's block starts. Keys are hashes: any of their bytes serve.
    fn block(&self, key: &ChunkKey) -> usize {
        let [.., a, b, c, d] = *key;
        let spread = u64::from(u32::from_le_bytes([a, b, c, d]));
        let blocks = (self.bytes.len() / BLOCK_BYTES) as u64;
        ((spread * blocks) >> 32) as usize * BLOCK_BYTES
    }
}

/// The bits of a key in its block, from bytes that do not choose the block.
fn bits(key: &ChunkKey) -> impl Iterator<Item = usize> {
    let spread = u64::from_le_bytes(*key[4..].first_chunk().expect("a key has 16 bytes"));
    let mask = (1 << BLOCK_BITS_LOG2) - 1;
    (0..PROBES).map(move |probe| ((spread >> (probe * BLOCK_BITS_LOG2)) & mask) as usize)
}
