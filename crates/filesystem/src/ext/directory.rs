//! Directories: lists of names in blocks. Indices over them are laid out so that they
//! look like blocks without names, and are not needed here.

use std::ops::ControlFlow;

use super::{Ext, inline, inode};
use crate::bytes::{crc32c_from, le16, le32};
use crate::driver::{self, DIRECTORY_BYTES_MAX, Driver, Node, Place, Visit};
use crate::error::{Error, Result};

/// How long an entry is without its name, and the checksum at the end of a block, which looks like one.
const ENTRY_BYTES: usize = 8;
const TAIL_BYTES: usize = 12;
const TAIL_TYPE: u8 = 0xDE;

impl Ext {
    pub(super) fn visit_names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        if inode::is_inline(directory) {
            // The number of the directory above comes first.
            let first = &inode::block_field(directory)[4..];
            if self.visit_block(directory, first, visit)?.is_continue() {
                let _ = self.visit_block(directory, inline::inline_rest(directory)?, visit)?;
            }
            return Ok(());
        }
        if directory.content_bytes > DIRECTORY_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a directory",
                limit: DIRECTORY_BYTES_MAX,
            });
        }
        let mut block = vec![0; self.block_bytes()];
        let size = block.len() as u64;
        let mut offset = 0u64;
        while directory.content_bytes.saturating_sub(offset) >= size {
            let run = self.map(directory, offset, &mut None)?;
            if run.place == Place::Hole {
                offset = offset.saturating_add(run.length);
                continue;
            }
            driver::read(self, &self.volume, directory, &mut None, offset, &mut block)?;
            self.check_block(directory, offset, &block)?;
            if self.visit_block(directory, &block, visit)?.is_break() {
                break;
            }
            offset += size;
        }
        Ok(())
    }

    /// The names in one block.
    fn visit_block(
        &self,
        directory: &Node,
        block: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        let bad = |why| Error::damaged(format!("directory {}", directory.id), why);
        let mut at = 0;
        while at + ENTRY_BYTES <= block.len() {
            let entry = &block[at..];
            let length = entry_bytes(le16(entry, 4), block.len());
            let name_length = if self.superblock.has_file_types() {
                usize::from(entry[6])
            } else {
                usize::from(le16(entry, 6))
            };
            if length < ENTRY_BYTES || !length.is_multiple_of(4) || length > entry.len() {
                return Err(bad("an entry has a wrong length"));
            }
            let id = le32(entry, 0);
            if id != 0 {
                let name = entry[..length]
                    .get(ENTRY_BYTES..ENTRY_BYTES + name_length)
                    .ok_or_else(|| bad("a name is longer than its entry"))?;
                if visit(name, u64::from(id))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            at += length;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The checksum of a block, be it one of names or of an index.
    fn check_block(&self, directory: &Node, offset: u64, block: &[u8]) -> Result<()> {
        if !self.superblock.has_checksums() {
            return Ok(());
        }
        let seed = self.inode_seed(directory);
        let is_whole = if is_index(directory, offset, block) {
            is_index_whole(seed, block)
        } else {
            are_names_whole(seed, block)
        };
        if !is_whole {
            return Err(Error::damaged(
                format!("directory {}", directory.id),
                "the checksum of a block is wrong",
            ));
        }
        Ok(())
    }
}

/// Whether a block is one of an index: the first, or one that has no names at all.
fn is_index(directory: &Node, offset: u64, block: &[u8]) -> bool {
    const INDEXED: u32 = 0x1000;
    let is_empty = le32(block, 0) == 0 && entry_bytes(le16(block, 4), block.len()) == block.len();
    le32(&directory.raw, 0x20) & INDEXED != 0 && (offset == 0 || is_empty)
}

/// Names end in an entry of no name and a type of its own, which has the checksum.
fn are_names_whole(seed: u32, block: &[u8]) -> bool {
    let (names, tail) = block.split_at(block.len() - TAIL_BYTES);
    let is_tail = le32(tail, 0) == 0
        && usize::from(le16(tail, 4)) == TAIL_BYTES
        && tail[6] == 0
        && tail[7] == TAIL_TYPE;
    is_tail && crc32c_from(seed, &[names]) == le32(tail, 8)
}

/// An index begins behind an entry that fills the block, or behind `.`, `..` and 8 bytes in the first
/// block: how much there is room for and how much there is, then the checksum behind that room.
fn is_index_whole(seed: u32, block: &[u8]) -> bool {
    const ENTRY: usize = 8;
    let is_first = usize::from(le16(block, 4)) == 12;
    let start = if is_first { 32 } else { 8 };
    let (limit, count) = (le16(block, start), le16(block, start + 2));
    let used = start + usize::from(count) * ENTRY;
    let tail = start + usize::from(limit) * ENTRY;
    if count > limit || tail + 8 > block.len() {
        return false;
    }
    let parts = [&block[..used], &block[tail..tail + 4], &[0; 4]];
    crc32c_from(seed, &parts) == le32(block, tail + 4)
}

/// The length of an entry, which has 16 bits also in blocks of 64 KiB.
fn entry_bytes(stored: u16, block_bytes: usize) -> usize {
    let stored = usize::from(stored);
    if block_bytes < 65536 {
        stored
    } else if stored == 65535 || stored == 0 {
        block_bytes
    } else {
        stored & 65532 | (stored & 3) << 16
    }
}
