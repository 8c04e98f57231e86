//! Inodes: where they lie, and what they say.

use cairn_types::tree::{EntryKind, FileTime, Metadata};

use super::{Ext, ROOT};
use crate::bytes::{crc32c_from, le16, le32};
use crate::driver::{Node, is_device, kind_of_mode};
use crate::error::{Error, Result};

/// Where the blocks of an inode stand, or a short target, or the beginning of short content.
const BLOCK_FIELD: usize = 0x28;
/// How long that is.
pub(super) const BLOCK_FIELD_BYTES: usize = 60;
/// How long every inode is at least.
pub(super) const OLD_BYTES: usize = 128;

const EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;

pub(super) fn block_field(node: &Node) -> &[u8] {
    &node.raw[BLOCK_FIELD..BLOCK_FIELD + BLOCK_FIELD_BYTES]
}

pub(super) fn has_extents(node: &Node) -> bool {
    le32(&node.raw, 0x20) & EXTENTS != 0
}

pub(super) fn is_inline(node: &Node) -> bool {
    le32(&node.raw, 0x20) & INLINE_DATA != 0
}

/// The bytes of an inode behind the first 128 that are in use.
pub(super) fn extra_bytes(raw: &[u8]) -> usize {
    if raw.len() < OLD_BYTES + 2 {
        return 0;
    }
    usize::from(le16(raw, OLD_BYTES)).min(raw.len() - OLD_BYTES)
}

impl Ext {
    pub(super) fn read_inode(&self, id: u64) -> Result<Node> {
        let bad = |why| Error::damaged(format!("inode {id}"), why);
        let number = u32::try_from(id).unwrap_or(0);
        if number == 0 || number > self.superblock.inodes {
            return Err(bad("there is no such one"));
        }
        let raw = self.raw_inode(number)?;
        if self.superblock.has_checksums() && !self.inode_is_whole(number, &raw) {
            return Err(bad("its checksum is wrong"));
        }
        let links = u32::from(le16(&raw, 0x1a));
        if links == 0 {
            return Err(bad("it is not in use"));
        }
        let mode = le16(&raw, 0);
        let kind = kind_of_mode(mode).ok_or_else(|| bad("it is of no known kind"))?;
        if id == ROOT && kind != EntryKind::Directory {
            return Err(bad("the uppermost directory is none"));
        }
        let content_bytes = self.content_bytes(kind, &raw);
        if content_bytes > i64::MAX as u64 {
            return Err(bad("its length is wrong"));
        }
        let is_file = kind == EntryKind::File;
        let metadata = Metadata {
            kind,
            mode: mode & 0o7777,
            uid: u32::from(le16(&raw, 0x78)) << 16 | u32::from(le16(&raw, 0x02)),
            gid: u32::from(le16(&raw, 0x7a)) << 16 | u32::from(le16(&raw, 0x18)),
            size_bytes: if is_file { content_bytes } else { 0 },
            modified: time(&raw, 0x10, 0x88),
            changed: time(&raw, 0x0c, 0x84),
            inode: id,
            linked: is_file && links > 1,
            device: if is_device(kind) {
                device(&raw)
            } else {
                (0, 0)
            },
        };
        Ok(Node {
            id,
            metadata,
            links,
            content_bytes,
            raw,
        })
    }

    fn content_bytes(&self, kind: EntryKind, raw: &[u8]) -> u64 {
        let wide = kind == EntryKind::File
            || kind == EntryKind::Directory && self.superblock.has_large_directories();
        let high = if wide { le32(raw, 0x6c) } else { 0 };
        u64::from(high) << 32 | u64::from(le32(raw, 0x04))
    }

    fn raw_inode(&self, number: u32) -> Result<Vec<u8>> {
        let superblock = &self.superblock;
        let group = (number - 1) / superblock.inodes_per_group;
        let index = (number - 1) % superblock.inodes_per_group;
        let table = self.inode_table(group)?;
        let offset = u64::from(index) * u64::from(superblock.inode_bytes);
        let block_bytes = u64::from(superblock.block_bytes);
        let block = table.checked_add(offset / block_bytes).ok_or_else(|| {
            Error::damaged(
                format!("the descriptor of group {group}"),
                "its table of inodes lies behind the last block",
            )
        })?;
        let mut raw = vec![0; usize::from(superblock.inode_bytes)];
        self.read_block_part(block, (offset % block_bytes) as usize, &mut raw)?;
        Ok(raw)
    }

    /// The first block of a group's table of inodes.
    fn inode_table(&self, group: u32) -> Result<u64> {
        let (block, within) = self.superblock.descriptor_place(group);
        let mut bytes = vec![0; self.superblock.descriptor_bytes()];
        self.read_block_part(block, within, &mut bytes)?;
        if self.superblock.has_checksums() {
            let seed = self.superblock.checksum_seed;
            let parts = [
                &group.to_le_bytes(),
                &bytes[..0x1e],
                &[0; 2],
                &bytes[0x20..],
            ];
            if crc32c_from(seed, &parts) as u16 != le16(&bytes, 0x1e) {
                return Err(Error::damaged(
                    format!("the descriptor of group {group}"),
                    "its checksum is wrong",
                ));
            }
        }
        let high = if bytes.len() >= 64 {
            le32(&bytes, 0x28)
        } else {
            0
        };
        Ok(u64::from(high) << 32 | u64::from(le32(&bytes, 0x08)))
    }

    fn inode_is_whole(&self, number: u32, raw: &[u8]) -> bool {
        let seed = self.seed_of(number, raw);
        let low = le16(raw, 0x7c);
        if extra_bytes(raw) < 4 {
            let parts = [&raw[..0x7c], &[0; 2], &raw[0x7e..]];
            return crc32c_from(seed, &parts) as u16 == low;
        }
        let parts = [
            &raw[..0x7c],
            &[0; 2],
            &raw[0x7e..0x82],
            &[0; 2],
            &raw[0x84..],
        ];
        let stored = u32::from(le16(raw, 0x82)) << 16 | u32::from(low);
        crc32c_from(seed, &parts) == stored
    }
}

/// A time at `at`, with its further bits at `extra` where the inode is that long.
fn time(raw: &[u8], at: usize, extra: usize) -> FileTime {
    let seconds = i64::from(le32(raw, at).cast_signed());
    if OLD_BYTES + extra_bytes(raw) < extra + 4 {
        return FileTime {
            seconds,
            nanoseconds: 0,
        };
    }
    let more = le32(raw, extra);
    FileTime {
        seconds: seconds + (i64::from(more & 3) << 32),
        nanoseconds: (more >> 2).min(999_999_999),
    }
}

/// The numbers of a device, in the older form of 16 bits or the newer of 32.
fn device(raw: &[u8]) -> (u32, u32) {
    let old = le32(raw, BLOCK_FIELD);
    if old != 0 {
        return (old >> 8 & 0xff, old & 0xff);
    }
    let new = le32(raw, BLOCK_FIELD + 4);
    (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00)
}
