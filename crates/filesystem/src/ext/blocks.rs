//! Which blocks the content of an inode lies in: a tree of extents, or tables of blocks.

use super::{Ext, inode};
use crate::bytes::{crc32c_from, le16, le32};
use crate::driver::{Node, Place, Run};
use crate::error::{Error, Result};

const EXTENT_MAGIC: u16 = 0xF30A;
const EXTENT_DEPTH_MAX: u16 = 5;
/// How long an extent, the header of a node and an entry of an inner node are.
const EXTENT_BYTES: usize = 12;
/// Extents longer than this are allocated and not written yet.
const EXTENT_BLOCKS_MAX: u16 = 32768;
/// Blocks of a file are numbered with 32 bits.
const FILE_BLOCKS_MAX: u64 = 1 << 32;

/// Blocks of a file that lie together: where, unless they are a hole, and how many.
struct Blocks {
    first: Option<u64>,
    count: u64,
}

impl Blocks {
    fn hole(count: u64) -> Self {
        Self { first: None, count }
    }
}

impl Ext {
    /// The run of content at byte `offset`.
    pub(super) fn block_run(&self, node: &Node, offset: u64) -> Result<Run> {
        let block_bytes = self.block_bytes() as u64;
        let (block, within) = (offset / block_bytes, offset % block_bytes);
        let blocks = if block >= FILE_BLOCKS_MAX {
            Blocks::hole(u64::MAX / block_bytes - block)
        } else if inode::has_extents(node) {
            self.by_extents(node, block)?
        } else {
            self.by_tables(node, block)?
        };
        let Some(first) = blocks.first else {
            return Ok(Run {
                length: blocks.count * block_bytes - within,
                place: Place::Hole,
            });
        };
        if first == 0
            || first
                .checked_add(blocks.count)
                .is_none_or(|end| end > self.superblock.blocks)
        {
            return Err(bad(node, "its blocks lie outside"));
        }
        // What the journal has newer copies of is read one block at a time.
        if self.overlay.get(first).is_some() {
            let mut bytes = self.read_block(first)?;
            bytes.drain(..within as usize);
            return Ok(Run {
                length: bytes.len() as u64,
                place: Place::Bytes(bytes),
            });
        }
        let count = self
            .overlay
            .next(first)
            .map_or(blocks.count, |next| blocks.count.min(next - first));
        Ok(Run {
            length: count * block_bytes - within,
            place: Place::Disk(first * block_bytes + within),
        })
    }

    fn by_extents(&self, node: &Node, block: u64) -> Result<Blocks> {
        let mut bytes = inode::block_field(node).to_vec();
        let mut expected = None;
        // Where the next extent begins, as far as the nodes above know.
        let mut limit = FILE_BLOCKS_MAX;
        loop {
            let (entries, depth) = check_extent_node(node, &bytes, expected)?;
            // The last entry that begins at the block or before it.
            let entry =
                |index: usize| &bytes[EXTENT_BYTES * (index + 1)..EXTENT_BYTES * (index + 2)];
            let start = |index: usize| u64::from(le32(entry(index), 0));
            let after = first_after(entries, |index| start(index) > block);
            if after < entries {
                limit = limit.min(start(after));
            }
            let Some(index) = after.checked_sub(1) else {
                return Ok(Blocks::hole(limit - block));
            };
            if depth == 0 {
                return extent(node, entry(index), block, limit);
            }
            let high = u64::from(le16(entry(index), 8)) << 32;
            let child = high | u64::from(le32(entry(index), 4));
            bytes = self.read_block(child)?;
            self.check_extent_sum(node, &bytes)?;
            expected = Some(depth - 1);
        }
    }

    fn check_extent_sum(&self, node: &Node, bytes: &[u8]) -> Result<()> {
        if !self.superblock.has_checksums() {
            return Ok(());
        }
        let tail = EXTENT_BYTES * (1 + usize::from(le16(bytes, 4)));
        let sum = crc32c_from(self.inode_seed(node), &[&bytes[..tail.min(bytes.len())]]);
        if tail + 4 > bytes.len() || le32(bytes, tail) != sum {
            return Err(bad(node, "the checksum of its extents is wrong"));
        }
        Ok(())
    }

    /// The older way: 12 blocks in the inode, then tables of blocks, of tables, and of tables of tables.
    fn by_tables(&self, node: &Node, block: u64) -> Result<Blocks> {
        const DIRECT: u64 = 12;
        let per_table = self.block_bytes() as u64 / 4;
        let field = inode::block_field(node);
        if block < DIRECT {
            return Ok(neighbours(&field[..DIRECT as usize * 4], block as usize));
        }
        let mut index = block - DIRECT;
        let mut span = per_table;
        let mut level = 0;
        while index >= span {
            index -= span;
            span = span.saturating_mul(per_table);
            level += 1;
            if level == 3 {
                return Err(bad(node, "it is longer than it can be"));
            }
        }
        let mut table = u64::from(le32(field, (DIRECT as usize + level) * 4));
        loop {
            if table == 0 {
                return Ok(Blocks::hole(span - index));
            }
            let bytes = self.read_block(table)?;
            span /= per_table;
            if span == 1 {
                return Ok(neighbours(&bytes, index as usize));
            }
            table = u64::from(le32(&bytes, (index / span) as usize * 4));
            index %= span;
        }
    }
}

fn bad(node: &Node, why: &'static str) -> Error {
    Error::damaged(format!("inode {}", node.id), why)
}

/// How many entries a node of extents has, and how many levels are below it.
fn check_extent_node(node: &Node, bytes: &[u8], expected: Option<u16>) -> Result<(usize, u16)> {
    let (magic, entries, depth) = (le16(bytes, 0), le16(bytes, 2), le16(bytes, 6));
    if magic != EXTENT_MAGIC {
        return Err(bad(node, "its extents have a wrong magic number"));
    }
    if depth > EXTENT_DEPTH_MAX || expected.is_some_and(|expected| depth != expected) {
        return Err(bad(node, "its extents have a wrong depth"));
    }
    let entries = usize::from(entries);
    if EXTENT_BYTES * (entries + 1) > bytes.len() {
        return Err(bad(node, "a node of its extents is longer than a block"));
    }
    Ok((entries, depth))
}

/// The first of `count` for which something is true that is true for all behind it.
fn first_after(count: usize, is_after: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_after(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// What an extent that begins at `block` or before it says of that block.
fn extent(node: &Node, entry: &[u8], block: u64, limit: u64) -> Result<Blocks> {
    let start = u64::from(le32(entry, 0));
    let length = le16(entry, 4);
    let written = length <= EXTENT_BLOCKS_MAX;
    let length = u64::from(if written {
        length
    } else {
        length - EXTENT_BLOCKS_MAX
    });
    if length == 0 {
        return Err(bad(node, "an extent is empty"));
    }
    let end = (start + length).min(limit);
    if end <= block {
        return Ok(Blocks::hole(limit - block));
    }
    let first = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
    Ok(Blocks {
        first: written.then_some(first + (block - start)),
        count: end - block,
    })
}

/// The entry of a table, and those behind it that carry it on.
fn neighbours(table: &[u8], index: usize) -> Blocks {
    let entry = |index: usize| u64::from(le32(table, index * 4));
    let first = entry(index);
    let carries_on = |ahead: usize| {
        let expected = if first == 0 { 0 } else { first + ahead as u64 };
        entry(index + ahead) == expected
    };
    let rest = table.len() / 4 - index;
    let count = (1..rest).find(|ahead| !carries_on(*ahead)).unwrap_or(rest);
    Blocks {
        first: (first != 0).then_some(first),
        count: count as u64,
    }
}
