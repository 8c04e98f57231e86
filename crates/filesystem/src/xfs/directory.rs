//! Directories: in the inode, or blocks of names. What larger ones have besides, to find a
//! name by its hash, is not needed here, so that a block, a leaf, a node and a tree all read alike.

use std::ops::ControlFlow;

use super::Xfs;
use super::inode::{self, Format};
use crate::bytes::{be16, be32, be64, crc32c_without, le32};
use crate::driver::{DIRECTORY_BYTES_MAX, Driver, Node, Place, Visit};
use crate::error::{Error, Result};

/// Names lie in the first 32 GiB of a directory, indices behind.
const NAMES_BYTES_MAX: u64 = 32 << 30;
/// What marks unused room, where an entry's inode begins otherwise.
const FREE: u16 = 0xffff;
const HEADER_BYTES: usize = 16;
const HEADER_BYTES_V5: usize = 64;

impl Xfs {
    pub(super) fn visit_names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        if inode::format(directory) == Format::Local {
            return self.visit_short(directory, visit);
        }
        let length = directory.content_bytes.min(NAMES_BYTES_MAX);
        if length > DIRECTORY_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a directory",
                limit: DIRECTORY_BYTES_MAX,
            });
        }
        let mut block = vec![0; self.superblock.directory_block_bytes as usize];
        let size = block.len() as u64;
        let mut offset = 0;
        while length.saturating_sub(offset) >= size {
            let run = self.map(directory, offset, &mut None)?;
            if run.place == Place::Hole {
                let blocks = (run.length / size).max(1);
                offset = offset.saturating_add(blocks.saturating_mul(size));
                continue;
            }
            let is_replayed = self.read_block(directory, offset, &mut block)?;
            let names = self.names_in(directory, &block, is_replayed)?;
            if self.visit_block(directory, names, visit)?.is_break() {
                return Ok(());
            }
            offset += size;
        }
        Ok(())
    }

    /// Reads a block at byte `offset`, which may lie in pieces; says whether the log changed any.
    fn read_block(&self, directory: &Node, offset: u64, block: &mut [u8]) -> Result<bool> {
        let mut is_replayed = false;
        let mut done = 0;
        while done < block.len() {
            let run = self.map(directory, offset + done as u64, &mut None)?;
            let Place::Disk(start) = run.place else {
                return Err(bad(directory, "a block has a hole"));
            };
            let rest = &mut block[done..];
            let length = run.length.min(rest.len() as u64) as usize;
            let (bytes, is_changed) = self.view.read(start, length)?;
            rest[..length].copy_from_slice(&bytes);
            is_replayed |= is_changed;
            done += length;
        }
        Ok(is_replayed)
    }

    /// The part of a block that holds names, once the block was checked.
    fn names_in<'b>(
        &self,
        directory: &Node,
        block: &'b [u8],
        is_replayed: bool,
    ) -> Result<&'b [u8]> {
        let checked = self.superblock.has_checksums;
        let (single, header) = match &block[..4] {
            b"XDB3" if checked => (true, HEADER_BYTES_V5),
            b"XDD3" if checked => (false, HEADER_BYTES_V5),
            b"XD2B" if !checked => (true, HEADER_BYTES),
            b"XD2D" if !checked => (false, HEADER_BYTES),
            _ => return Err(bad(directory, "a block is none of a directory")),
        };
        if checked && !is_replayed && crc32c_without(block, 4) != le32(block, 4) {
            return Err(bad(directory, "the checksum of a block is wrong"));
        }
        if checked && (be64(block, 40) != directory.id || block[24..40] != self.superblock.uuid) {
            return Err(bad(directory, "a block is another's"));
        }
        // The only block of a directory ends in its index.
        let index = if single {
            (be32(block, block.len() - 8) as usize)
                .saturating_mul(8)
                .saturating_add(8)
        } else {
            0
        };
        let end = block.len().checked_sub(index);
        end.and_then(|end| block.get(header..end))
            .ok_or_else(|| bad(directory, "the index of a block is too long"))
    }

    fn visit_block(
        &self,
        directory: &Node,
        names: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        let mut at = 0;
        while at + 16 <= names.len() {
            let entry = &names[at..];
            if be16(entry, 0) == FREE {
                let length = usize::from(be16(entry, 2));
                if length == 0 || !length.is_multiple_of(8) {
                    return Err(bad(directory, "unused room has a wrong length"));
                }
                at += length;
                continue;
            }
            let name_length = usize::from(entry[8]);
            // The number, the length, the name, its type, and where the entry begins.
            let length = 8 + 1 + name_length + usize::from(self.superblock.has_file_types) + 2;
            let length = length.next_multiple_of(8);
            let name = entry.get(..length).map(|entry| &entry[9..9 + name_length]);
            let name = name.ok_or_else(|| bad(directory, "a name is longer than its block"))?;
            if visit(name, be64(entry, 0))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at += length;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A directory in the inode: two counts, the directory above, and names with numbers of 4 or 8 bytes.
    fn visit_short(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        let fork = inode::data_fork(directory);
        let short = || bad(directory, "it is longer than its inode");
        let content = usize::try_from(directory.content_bytes)
            .ok()
            .and_then(|length| fork.get(..length))
            .ok_or_else(short)?;
        let [count, wide, ..] = *content else {
            return Err(short());
        };
        let number_bytes = if wide == 0 { 4 } else { 8 };
        let type_bytes = usize::from(self.superblock.has_file_types);
        let mut at = 2 + number_bytes;
        for _ in 0..count {
            let name_length = usize::from(*content.get(at).ok_or_else(short)?);
            let name = at + 3;
            let number = name + name_length + type_bytes;
            let end = number + number_bytes;
            let entry = content.get(..end).ok_or_else(short)?;
            let id = if wide == 0 {
                u64::from(be32(entry, number))
            } else {
                be64(entry, number)
            };
            if visit(&entry[name..name + name_length], id)?.is_break() {
                return Ok(());
            }
            at = end;
        }
        Ok(())
    }
}

fn bad(directory: &Node, why: &'static str) -> Error {
    Error::damaged(format!("directory {}", directory.id), why)
}
