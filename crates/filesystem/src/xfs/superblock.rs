//! What the superblock says, and where blocks and inodes lie by it.

use super::view::View;
use crate::bytes::{be16, be32, be64, crc32c_without, le32};
use crate::error::{Error, Result};

/// The largest sector, which the superblock fills.
const SECTOR_BYTES_MAX: u32 = 32768;
/// As much of the superblock as has fields.
const FIELDS_BYTES: usize = 272;
const CHECKSUM: usize = 224;

// Bits of the version, and of the second word of features of version 4.
const DIRECTORIES_V2: u16 = 0x2000;
const MORE_FEATURES: u16 = 0x8000;
const FILE_TYPES_V4: u32 = 0x200;

// Incompatible features of version 5.
const FILE_TYPES: u32 = 0x1;
const OWN_UUID: u32 = 0x4;
const NEEDS_REPAIR: u32 = 0x10;
/// The above, and spinodes, bigtime, nrext64, exchrange, parent, metadir, zoned and its gaps: what they change
/// shows in the inodes, or concerns only what is not read here.
const KNOWN: u32 = 0x7ff;

/// The parts of a superblock that reading needs.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) block_bytes: u32,
    pub(super) inode_bytes: u16,
    /// The bytes of a block of a directory.
    pub(super) directory_block_bytes: u32,
    pub(super) root: u64,
    /// Whether structures have checksums: version 5.
    pub(super) has_checksums: bool,
    /// Whether entries of directories have a byte for the type.
    pub(super) has_file_types: bool,
    /// What structures say for whose they are.
    pub(super) uuid: [u8; 16],
    /// Where the log begins, in blocks; 0 if it is on another disk.
    pub(super) log_start: u64,
    pub(super) log_blocks: u32,
    blocks: u64,
    groups: u32,
    group_blocks: u32,
    group_blocks_log: u8,
    inodes_per_block_log: u8,
}

impl Superblock {
    pub(super) fn read(view: &View) -> Result<Self> {
        let bad = |why| Error::damaged("the superblock", why);
        let (bytes, _) = view.read(0, FIELDS_BYTES)?;
        if &bytes[..4] != b"XFSB" {
            return Err(bad("its magic number is wrong"));
        }
        let version = be16(&bytes, 100);
        let has_checksums = match version & 0xf {
            4 => false,
            5 => true,
            other => return Err(Error::unsupported(format!("XFS of version {other}"))),
        };
        if has_checksums {
            check_version_5(view, &bytes)?;
        }
        if version & DIRECTORIES_V2 == 0 {
            return Err(Error::unsupported("XFS with directories of version 1"));
        }
        let incompatible = if has_checksums { be32(&bytes, 216) } else { 0 };
        let more = version & MORE_FEATURES != 0;
        // An early mistake of alignment put the features of version 4 in one of two places.
        let features = if more {
            be32(&bytes, 200) | be32(&bytes, 204)
        } else {
            0
        };
        let uuid = if incompatible & OWN_UUID != 0 {
            248
        } else {
            32
        };
        let superblock = Self {
            block_bytes: be32(&bytes, 4),
            inode_bytes: be16(&bytes, 104),
            directory_block_bytes: be32(&bytes, 4)
                .checked_shl(u32::from(bytes[192]))
                .unwrap_or(0),
            root: be64(&bytes, 56),
            has_checksums,
            has_file_types: if has_checksums {
                incompatible & FILE_TYPES != 0
            } else {
                features & FILE_TYPES_V4 != 0
            },
            uuid: bytes[uuid..uuid + 16].try_into().expect("sixteen bytes"),
            log_start: be64(&bytes, 48),
            log_blocks: be32(&bytes, 96),
            blocks: be64(&bytes, 8),
            groups: be32(&bytes, 88),
            group_blocks: be32(&bytes, 84),
            group_blocks_log: bytes[124],
            inodes_per_block_log: bytes[123],
        };
        superblock.check()?;
        Ok(superblock)
    }

    /// That no number leads astray.
    fn check(&self) -> Result<()> {
        let bad = |why| Err(Error::damaged("the superblock", why));
        let (block, inode) = (self.block_bytes, u32::from(self.inode_bytes));
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return bad("the size of a block is wrong");
        }
        let directory = self.directory_block_bytes;
        if !(block..=65536).contains(&directory) {
            return bad("the size of a directory's block is wrong");
        }
        if !inode.is_power_of_two()
            || !(256..=2048).contains(&inode)
            || inode > block
            || 1u32.checked_shl(u32::from(self.inodes_per_block_log)) != Some(block / inode)
        {
            return bad("the size of an inode is wrong");
        }
        let log = u32::from(self.group_blocks_log);
        if self.groups == 0 || self.group_blocks == 0 || log > 31 || self.group_blocks > 1 << log {
            return bad("the size of a group is wrong");
        }
        // Numbers of inodes have 64 bits, bytes of a disk 63.
        let linear = u64::from(self.groups) * u64::from(self.group_blocks);
        if self.blocks == 0 || self.blocks > linear || linear > u64::MAX / 2 / u64::from(block) {
            return bad("the number of its blocks is wrong");
        }
        Ok(())
    }

    /// Where `count` blocks from a number on lie.
    pub(super) fn block_start(&self, block: u64, count: u64) -> Result<u64> {
        let log = u32::from(self.group_blocks_log);
        let (group, within) = (block >> log, block & ((1 << log) - 1));
        self.linear(group, within, count).ok_or_else(|| {
            Error::damaged(format!("block {block:#x}"), "it lies outside of its group")
        })
    }

    /// Where an inode lies.
    pub(super) fn inode_start(&self, id: u64) -> Result<u64> {
        let in_block = u32::from(self.inodes_per_block_log);
        let in_group = in_block + u32::from(self.group_blocks_log);
        let group = id >> in_group;
        let block = id >> in_block & ((1 << self.group_blocks_log) - 1);
        let index = id & ((1 << in_block) - 1);
        let start = self
            .linear(group, block, 1)
            .ok_or_else(|| Error::damaged(format!("inode {id}"), "it lies outside of its group"))?;
        Ok(start + index * u64::from(self.inode_bytes))
    }

    /// Where the inodes in blocks of a group lie, and the number of the first.
    pub(super) fn inodes_of(&self, group: u32, block: u32, count: u64) -> Result<(u64, u64)> {
        let (group, block) = (u64::from(group), u64::from(block));
        let start = self.linear(group, block, count);
        let start =
            start.ok_or_else(|| Error::damaged("new inodes", "they lie outside of their group"))?;
        let blocks = group << self.group_blocks_log | block;
        Ok((start, blocks << self.inodes_per_block_log))
    }

    /// The byte at which blocks of a group begin that lie in it and on the disk.
    fn linear(&self, group: u64, within: u64, count: u64) -> Option<u64> {
        let end = within.checked_add(count)?;
        if group >= u64::from(self.groups) || end > u64::from(self.group_blocks) {
            return None;
        }
        let first = group * u64::from(self.group_blocks) + within;
        (first + count <= self.blocks).then_some(first * u64::from(self.block_bytes))
    }
}

fn check_version_5(view: &View, bytes: &[u8]) -> Result<()> {
    let bad = |why| Error::damaged("the superblock", why);
    let sector = u32::from(be16(bytes, 102));
    if !sector.is_power_of_two() || !(512..=SECTOR_BYTES_MAX).contains(&sector) {
        return Err(bad("the size of a sector is wrong"));
    }
    let (whole, is_replayed) = view.read(0, sector as usize)?;
    if !is_replayed && crc32c_without(&whole, CHECKSUM) != le32(&whole, CHECKSUM) {
        return Err(bad("its checksum is wrong"));
    }
    let incompatible = be32(bytes, 216);
    if incompatible & NEEDS_REPAIR != 0 {
        return Err(Error::unsupported("XFS that says it needs xfs_repair"));
    }
    if incompatible & !KNOWN != 0 {
        let features = incompatible & !KNOWN;
        return Err(Error::unsupported(format!(
            "XFS with the incompatible features {features:#x}"
        )));
    }
    Ok(())
}
