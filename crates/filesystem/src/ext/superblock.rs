//! What the superblock says, and where inodes lie.

use crate::bytes::{crc32c_from, le16, le32};
use crate::error::{Error, Result};

/// Where the superblock lies.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// How long it is.
pub(crate) const SUPERBLOCK_BYTES: usize = 1024;

const MAGIC: u16 = 0xEF53;

// Compatible features.
pub(crate) const HAS_JOURNAL: u32 = 0x4;
const SPARSE_SUPER2: u32 = 0x200;

// Incompatible features.
const FILETYPE: u32 = 0x2;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const BITS_64: u32 = 0x80;
const CHECKSUM_SEED: u32 = 0x2000;
const LARGE_DIRECTORY: u32 = 0x4000;
/// filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, metadata_csum_seed, large_dir,
/// inline_data, encrypt and casefold.
const KNOWN: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x38000;
const JOURNAL_DEVICE: u32 = 0x8;

// Read-only compatible features.
const SPARSE_SUPER: u32 = 0x1;
const METADATA_CHECKSUMS: u32 = 0x400;

/// The features that ext3 has, and no others: what is beyond is ext4.
const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x10;
const EXT3_READ_ONLY: u32 = 0x1 | 0x2 | 0x4;

/// The parts of a superblock that reading needs.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    pub(crate) block_bytes: u32,
    pub(crate) cluster_bytes: u64,
    pub(crate) blocks: u64,
    pub(crate) inodes: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) inode_bytes: u16,
    blocks_per_group: u32,
    first_data_block: u32,
    descriptor_bytes: u16,
    first_meta_group: u32,
    backup_groups: [u32; 2],
    compatible: u32,
    incompatible: u32,
    read_only: u32,
    state: u16,
    pub(crate) checksum_seed: u32,
    pub(crate) journal_inode: u32,
}

impl Superblock {
    /// Errors: it is damaged, or has a feature that is not known.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why| Error::damaged("the superblock", why);
        if le16(bytes, 0x38) != MAGIC {
            return Err(bad("its magic number is wrong"));
        }
        let incompatible = le32(bytes, 0x60);
        if incompatible & JOURNAL_DEVICE != 0 {
            return Err(Error::unsupported("the journal of another file system"));
        }
        if incompatible & !KNOWN != 0 {
            let features = incompatible & !KNOWN;
            return Err(Error::unsupported(format!(
                "ext4 with the incompatible features {features:#x}"
            )));
        }
        let (log_block, log_cluster) = (le32(bytes, 0x18), le32(bytes, 0x1c));
        if log_block > 6 || log_cluster > 20 {
            return Err(bad("the size of a block is wrong"));
        }
        let (old, wide) = (le32(bytes, 0x4c) == 0, incompatible & BITS_64 != 0);
        let high = if wide { le32(bytes, 0x150) } else { 0 };
        let superblock = Self {
            block_bytes: 1024 << log_block,
            cluster_bytes: 1024 << log_cluster,
            blocks: u64::from(high) << 32 | u64::from(le32(bytes, 0x4)),
            inodes: le32(bytes, 0),
            inodes_per_group: le32(bytes, 0x28),
            inode_bytes: if old { 128 } else { le16(bytes, 0x58) },
            blocks_per_group: le32(bytes, 0x20),
            first_data_block: le32(bytes, 0x14),
            descriptor_bytes: if wide { le16(bytes, 0xfe) } else { 32 },
            first_meta_group: le32(bytes, 0x104),
            backup_groups: [le32(bytes, 0x24c), le32(bytes, 0x250)],
            compatible: le32(bytes, 0x5c),
            incompatible,
            read_only: le32(bytes, 0x64),
            state: le16(bytes, 0x3a),
            checksum_seed: if incompatible & CHECKSUM_SEED != 0 {
                le32(bytes, 0x270)
            } else {
                crc32c_from(!0, &[&bytes[0x68..0x78]])
            },
            journal_inode: le32(bytes, 0xe0),
        };
        if superblock.has_checksums() && crc32c_from(!0, &[&bytes[..0x3fc]]) != le32(bytes, 0x3fc) {
            return Err(bad("its checksum is wrong"));
        }
        superblock.check()?;
        Ok(superblock)
    }

    /// That no number leads astray.
    fn check(&self) -> Result<()> {
        let bad = |why| Err(Error::damaged("the superblock", why));
        let inode_bytes = u32::from(self.inode_bytes);
        if !inode_bytes.is_power_of_two() || !(128..=self.block_bytes).contains(&inode_bytes) {
            return bad("the size of an inode is wrong");
        }
        let descriptor_bytes = u32::from(self.descriptor_bytes);
        if !descriptor_bytes.is_power_of_two() || !(32..=1024).contains(&descriptor_bytes) {
            return bad("the size of a group's descriptor is wrong");
        }
        if self.inodes_per_group == 0 || self.blocks_per_group == 0 {
            return bad("the size of a group is wrong");
        }
        let most = u64::MAX / 2 / u64::from(self.block_bytes);
        if self.blocks <= u64::from(self.first_data_block) || self.blocks > most {
            return bad("the number of its blocks is wrong");
        }
        Ok(())
    }

    pub(crate) fn has_checksums(&self) -> bool {
        self.read_only & METADATA_CHECKSUMS != 0
    }

    pub(crate) fn has_file_types(&self) -> bool {
        self.incompatible & FILETYPE != 0
    }

    pub(crate) fn has_large_directories(&self) -> bool {
        self.incompatible & LARGE_DIRECTORY != 0
    }

    /// Whether the journal is to be replayed before anything is read.
    pub(crate) fn needs_recovery(&self) -> bool {
        self.compatible & HAS_JOURNAL != 0 && self.incompatible & RECOVER != 0
    }

    /// Whether it has no journal and was in use, or has known errors.
    pub(crate) fn is_unclean(&self) -> bool {
        const CLEAN: u16 = 0x1;
        self.compatible & HAS_JOURNAL == 0 && self.state & CLEAN == 0
    }

    /// Which of the family a superblock is of: 2, 3 or 4.
    pub(crate) fn generation(bytes: &[u8]) -> Option<u8> {
        if bytes.len() < SUPERBLOCK_BYTES || le16(bytes, 0x38) != MAGIC {
            return None;
        }
        let beyond =
            le32(bytes, 0x60) & !EXT3_INCOMPATIBLE != 0 || le32(bytes, 0x64) & !EXT3_READ_ONLY != 0;
        let has_journal = le32(bytes, 0x5c) & HAS_JOURNAL != 0;
        Some(match (beyond, has_journal) {
            (true, _) => 4,
            (false, true) => 3,
            (false, false) => 2,
        })
    }

    /// Where the descriptor of a group lies: its block, and the byte in that.
    pub(crate) fn descriptor_place(&self, group: u32) -> (u64, usize) {
        let size = u32::from(self.descriptor_bytes);
        let per_block = self.block_bytes / size;
        let (table, index) = (group / per_block, group % per_block);
        let superblock_block = 1024 / u64::from(self.block_bytes);
        let block = if self.incompatible & META_BG == 0 || table < self.first_meta_group {
            superblock_block + u64::from(table) + 1
        } else {
            let first = u64::from(table) * u64::from(per_block);
            let mut skipped = u64::from(self.has_superblock(first));
            // Block 0 of a file system with 1 KiB blocks is none of its groups'.
            if self.block_bytes == 1024 && table == 0 && self.first_data_block == 0 {
                skipped += 1;
            }
            first * u64::from(self.blocks_per_group) + u64::from(self.first_data_block) + skipped
        };
        (block, (index * size) as usize)
    }

    pub(crate) fn descriptor_bytes(&self) -> usize {
        usize::from(self.descriptor_bytes)
    }

    /// Whether a group begins with a copy of the superblock.
    fn has_superblock(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compatible & SPARSE_SUPER2 != 0 {
            return self
                .backup_groups
                .iter()
                .any(|one| u64::from(*one) == group);
        }
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group == 1 || self.read_only & SPARSE_SUPER == 0 || [3, 5, 7].into_iter().any(power_of)
    }
}
