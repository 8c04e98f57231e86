//! Where the content of an inode lies: in it, by a list of extents, or by a tree of them.

use super::Xfs;
use super::inode::{self, Format};
use crate::bytes::{be16, be32, be64, crc32c_without, le32};
use crate::driver::{Node, Place, Run};
use crate::error::{Error, Result};

/// How long an extent is.
const EXTENT_BYTES: usize = 16;
/// Levels of a tree at most; the format allows 9.
const LEVELS_MAX: u16 = 9;
/// How long the header of a block of the tree is, of version 4 and of version 5.
const HEADER_BYTES: usize = 24;
const HEADER_BYTES_V5: usize = 72;
/// Blocks of a file are numbered with 54 bits.
const FILE_BLOCKS_MAX: u64 = 1 << 54;

/// Blocks of a file that lie together.
struct Extent {
    /// The first, in the file.
    start: u64,
    /// The first, on the disk.
    block: u64,
    count: u64,
    /// Whether they were written to; they read as zeros otherwise.
    written: bool,
}

impl Extent {
    fn parse(bytes: &[u8]) -> Self {
        let (high, low) = (be64(bytes, 0), be64(bytes, 8));
        Self {
            start: (high & !(1 << 63)) >> 9,
            block: (high & 0x1ff) << 43 | low >> 21,
            count: low & 0x1f_ffff,
            written: high >> 63 == 0,
        }
    }
}

impl Xfs {
    /// The run of content at byte `offset`.
    pub(super) fn fork_run(&self, node: &Node, offset: u64) -> Result<Run> {
        if inode::format(node) == Format::Local {
            return local_run(node, offset);
        }
        let (block, within) = (offset / self.block_bytes(), offset % self.block_bytes());
        let (extent, limit) = self.extent(node, block)?;
        let run = |count: u64, place| Run {
            length: count.saturating_mul(self.block_bytes()) - within,
            place,
        };
        let Some(extent) = extent.filter(|extent| block - extent.start < extent.count) else {
            return Ok(run(limit - block, Place::Hole));
        };
        let ahead = block - extent.start;
        let count = (extent.count - ahead).min(limit - block);
        if !extent.written {
            return Ok(run(count, Place::Hole));
        }
        let start = self.superblock.block_start(extent.block + ahead, count)?;
        Ok(run(count, Place::Disk(start + within)))
    }

    /// The last extent that begins at a block or before it, and where the next one begins.
    fn extent(&self, node: &Node, block: u64) -> Result<(Option<Extent>, u64)> {
        let fork = inode::data_fork(node);
        if block >= FILE_BLOCKS_MAX {
            return Ok((None, u64::MAX));
        }
        if inode::format(node) == Format::Extents {
            let length = usize::try_from(inode::extents(node))
                .ok()
                .and_then(|count| count.checked_mul(EXTENT_BYTES));
            let list = length.and_then(|length| fork.get(..length));
            let list = list.ok_or_else(|| bad(node, "it has more extents than fit"))?;
            return Ok(last_extent(list, block, FILE_BLOCKS_MAX));
        }
        self.extent_in_tree(node, fork, block)
    }

    fn extent_in_tree(
        &self,
        node: &Node,
        fork: &[u8],
        block: u64,
    ) -> Result<(Option<Extent>, u64)> {
        if fork.len() < 4 {
            return Err(bad(node, "it has no room for a tree of extents"));
        }
        let mut level = be16(fork, 0);
        if !(1..=LEVELS_MAX).contains(&level) {
            return Err(bad(node, "its tree of extents has a wrong height"));
        }
        let mut limit = FILE_BLOCKS_MAX;
        let mut child = self.child(node, &fork[4..], be16(fork, 2), block, &mut limit)?;
        let header = if self.superblock.has_checksums {
            HEADER_BYTES_V5
        } else {
            HEADER_BYTES
        };
        loop {
            let Some(at) = child else {
                return Ok((None, limit));
            };
            level -= 1;
            let bytes = self.tree_block(node, at, level)?;
            let records = be16(&bytes, 6);
            let body = &bytes[header..];
            if level == 0 {
                let list = body.get(..usize::from(records) * EXTENT_BYTES);
                let list = list.ok_or_else(|| bad(node, "a block has more extents than fit"))?;
                return Ok(last_extent(list, block, limit));
            }
            child = self.child(node, body, records, block, &mut limit)?;
        }
    }

    /// Which block to go on with: that of the last key that is at most `block`. The keys come
    /// first, and the blocks' numbers behind as many keys as there is room for.
    fn child(
        &self,
        node: &Node,
        body: &[u8],
        records: u16,
        block: u64,
        limit: &mut u64,
    ) -> Result<Option<u64>> {
        let (records, room) = (usize::from(records), body.len() / 16);
        if records > room {
            return Err(bad(node, "a block has more children than fit"));
        }
        let keys = &body[..records * 8];
        let after = first_after(keys, 8, block, |key| be64(key, 0));
        if after < records {
            *limit = (*limit).min(be64(keys, after * 8));
        }
        Ok(after
            .checked_sub(1)
            .map(|index| be64(body, (room + index) * 8)))
    }

    fn tree_block(&self, node: &Node, block: u64, level: u16) -> Result<Vec<u8>> {
        let start = self.superblock.block_start(block, 1)?;
        let (bytes, is_replayed) = self
            .view
            .read(start, self.superblock.block_bytes as usize)?;
        let checked = self.superblock.has_checksums;
        let magic = if checked { *b"BMA3" } else { *b"BMAP" };
        if be32(&bytes, 0).to_be_bytes() != magic || be16(&bytes, 4) != level {
            return Err(bad(node, "a block of its tree of extents is none"));
        }
        if checked && !is_replayed && crc32c_without(&bytes, 64) != le32(&bytes, 64) {
            return Err(bad(
                node,
                "a block of its tree of extents has a wrong checksum",
            ));
        }
        if checked && (be64(&bytes, 56) != node.id || bytes[40..56] != self.superblock.uuid) {
            return Err(bad(node, "a block of its tree of extents is another's"));
        }
        Ok(bytes)
    }
}

fn bad(node: &Node, why: &'static str) -> Error {
    Error::damaged(format!("inode {}", node.id), why)
}

/// Content that stands in the inode.
fn local_run(node: &Node, offset: u64) -> Result<Run> {
    let fork = inode::data_fork(node);
    let content = usize::try_from(node.content_bytes)
        .ok()
        .and_then(|length| fork.get(..length));
    let content = content.ok_or_else(|| bad(node, "its content is longer than fits"))?;
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| content.get(offset..));
    let bytes = rest.unwrap_or(&[]).to_vec();
    Ok(Run {
        length: bytes.len() as u64,
        place: Place::Bytes(bytes),
    })
}

/// The last extent of a list that begins at `block` or before it, and where the next one begins.
fn last_extent(list: &[u8], block: u64, limit: u64) -> (Option<Extent>, u64) {
    let after = first_after(list, EXTENT_BYTES, block, |bytes| {
        Extent::parse(bytes).start
    });
    let next = list
        .get(after * EXTENT_BYTES..)
        .filter(|rest| !rest.is_empty());
    let limit = next.map_or(limit, |next| limit.min(Extent::parse(next).start));
    let last = after
        .checked_sub(1)
        .map(|index| Extent::parse(&list[index * EXTENT_BYTES..]));
    (last, limit)
}

/// The first record of a sorted list whose start is behind `block`.
fn first_after(list: &[u8], size: usize, block: u64, start: impl Fn(&[u8]) -> u64) -> usize {
    let (mut low, mut high) = (0, list.len() / size);
    while low < high {
        let middle = low + (high - low) / 2;
        if start(&list[middle * size..]) > block {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
