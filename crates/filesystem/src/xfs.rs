//! XFS, versions 4 and 5, as it stands on the disk.
//!
//! The log is not replayed: what was written to it alone is not seen, and `Log::Dirty` says that there may be
//! such changes. Every structure of version 5 has a checksum, and says whose it is; both are checked.
//!
//! Source: <https://git.kernel.org/pub/scm/fs/xfs/xfs-documentation.git>, "XFS Algorithms & Data Structures".

use std::sync::Arc;

use cairn_types::tree::EntryKind;

use crate::driver::{Driver, Hint, Node, Run, Visit};
use crate::error::{Error, Result};
use crate::file_system::Log;
use crate::volume::Volume;

mod blocks;
mod directory;
mod inode;
mod log;
mod superblock;
mod symlink;

use superblock::Superblock;

/// A file system of this kind.
pub(crate) struct Xfs {
    volume: Arc<Volume>,
    superblock: Superblock,
    log: Log,
}

impl Xfs {
    pub(crate) fn open(volume: Arc<Volume>) -> Result<Self> {
        let superblock = Superblock::read(&volume)?;
        let log = log::state(&volume, &superblock);
        let xfs = Self {
            volume,
            superblock,
            log,
        };
        let root = xfs.node(xfs.superblock.root)?;
        if root.metadata.kind != EntryKind::Directory {
            return Err(Error::damaged(
                format!("inode {}", root.id),
                "the uppermost directory is none",
            ));
        }
        Ok(xfs)
    }

    /// Whether the log may hold what the disk does not.
    pub(crate) fn log(&self) -> Log {
        self.log
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.superblock.block_bytes)
    }
}

impl Driver for Xfs {
    fn root(&self) -> u64 {
        self.superblock.root
    }

    fn node(&self, id: u64) -> Result<Node> {
        self.read_inode(id)
    }

    fn names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        self.visit_names(directory, visit)
    }

    fn map(&self, node: &Node, offset: u64, _hint: &mut Hint) -> Result<Run> {
        if inode::is_realtime(node) {
            return Err(Error::unsupported(format!(
                "inode {} has its content in the realtime section",
                node.id
            )));
        }
        self.fork_run(node, offset)
    }

    fn link_target(&self, node: &Node) -> Result<Vec<u8>> {
        self.read_target(node)
    }
}
