//! ext2, ext3 and ext4, with their journal replayed in memory.
//!
//! A journal that was not written back yet is laid over the blocks of the disk
//! (`journal`), so that a disk copied from a running machine reads as it would after a mount.
//! Every structure that has a checksum is checked.
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/index.html>.

use std::sync::Arc;

use cairn_types::tree::EntryKind;

use crate::bytes::{crc32c_from, le16, le32};
use crate::driver::{self, Driver, Hint, LINK_BYTES_MAX, Node, Run, Visit};
use crate::error::{Error, Result};
use crate::file_system::Log;
use crate::volume::Volume;

mod blocks;
mod directory;
mod inline;
mod inode;
mod journal;
mod superblock;

pub(crate) use superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};

/// The inode of the uppermost directory.
const ROOT: u64 = 2;

/// A file system of this family.
pub(crate) struct Ext {
    volume: Arc<Volume>,
    superblock: Superblock,
    overlay: journal::Overlay,
    log: Log,
}

impl Ext {
    pub(crate) fn open(volume: Arc<Volume>) -> Result<Self> {
        let bytes = volume.read_vec(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)?;
        let mut ext = Self {
            superblock: Superblock::parse(&bytes)?,
            volume,
            overlay: journal::Overlay::default(),
            log: Log::Clean,
        };
        if ext.superblock.needs_recovery() {
            (ext.overlay, ext.log) = journal::load(&ext)?;
            // The file system may have been made larger since it was last written back.
            let block_bytes = u64::from(ext.superblock.block_bytes);
            let within = (SUPERBLOCK_OFFSET % block_bytes) as usize;
            let mut bytes = vec![0; SUPERBLOCK_BYTES];
            ext.read_block_part(SUPERBLOCK_OFFSET / block_bytes, within, &mut bytes)?;
            ext.superblock = Superblock::parse(&bytes)?;
        }
        if ext.superblock.is_unclean() {
            ext.log = Log::Dirty;
        }
        ext.node(ROOT)?;
        Ok(ext)
    }

    /// What became of the journal.
    pub(crate) fn log(&self) -> Log {
        self.log
    }

    fn block_bytes(&self) -> usize {
        self.superblock.block_bytes as usize
    }

    /// A block as it is once the journal is replayed.
    fn read_block(&self, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.block_bytes()];
        self.read_block_part(block, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The part of a block from byte `within`; the caller has made sure that it ends in the block.
    fn read_block_part(&self, block: u64, within: usize, buffer: &mut [u8]) -> Result<()> {
        if block >= self.superblock.blocks {
            return Err(Error::damaged(
                format!("block {block}"),
                "it lies behind the last one",
            ));
        }
        match self.overlay.get(block) {
            Some(copy) => copy.read(&self.volume, within, buffer),
            None => {
                let offset = block * self.block_bytes() as u64 + within as u64;
                self.volume.read(offset, buffer)
            }
        }
    }

    /// What the checksums of an inode and of its blocks begin with.
    fn inode_seed(&self, node: &Node) -> u32 {
        self.seed_of(node.id as u32, &node.raw)
    }

    fn seed_of(&self, id: u32, raw: &[u8]) -> u32 {
        let seed = self.superblock.checksum_seed;
        crc32c_from(seed, &[&id.to_le_bytes(), &raw[0x64..0x68]])
    }

    /// Whether the content of a node can be read at all.
    fn check_readable(&self, node: &Node) -> Result<()> {
        const ENCRYPTED: u32 = 0x800;
        const COMPRESSED: u32 = 0x4;
        let flags = le32(&node.raw, 0x20);
        if flags & ENCRYPTED != 0 {
            return Err(Error::unsupported(format!(
                "inode {} is encrypted by its file system",
                node.id
            )));
        }
        if flags & COMPRESSED != 0 && node.metadata.kind == EntryKind::File {
            return Err(Error::unsupported(format!(
                "inode {} is compressed by its file system",
                node.id
            )));
        }
        Ok(())
    }
}

impl Driver for Ext {
    fn root(&self) -> u64 {
        ROOT
    }

    fn node(&self, id: u64) -> Result<Node> {
        self.read_inode(id)
    }

    fn names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        self.check_readable(directory)?;
        self.visit_names(directory, visit)
    }

    fn map(&self, node: &Node, offset: u64, _hint: &mut Hint) -> Result<Run> {
        self.check_readable(node)?;
        if inode::is_inline(node) {
            self.inline_run(node, offset)
        } else {
            self.block_run(node, offset)
        }
    }

    fn link_target(&self, node: &Node) -> Result<Vec<u8>> {
        self.check_readable(node)?;
        if node.content_bytes > LINK_BYTES_MAX {
            return Err(Error::damaged(
                format!("inode {}", node.id),
                "a symbolic link is too long",
            ));
        }
        let length = node.content_bytes as usize;
        if self.is_fast_link(node) {
            return Ok(inode::block_field(node)[..length].to_vec());
        }
        let mut target = vec![0; length];
        driver::read(self, &self.volume, node, &mut None, 0, &mut target)?;
        Ok(target)
    }
}

impl Ext {
    /// Whether a link's target stands where other inodes have their blocks.
    fn is_fast_link(&self, node: &Node) -> bool {
        if inode::is_inline(node) || node.content_bytes >= inode::BLOCK_FIELD_BYTES as u64 {
            return false;
        }
        let has_attribute_block = le32(&node.raw, 0x68) != 0 || le16(&node.raw, 0x76) != 0;
        let attributes = if has_attribute_block {
            self.superblock.cluster_bytes / 512
        } else {
            0
        };
        u64::from(le32(&node.raw, 0x1c)) <= attributes && !inode::has_extents(node)
    }
}
