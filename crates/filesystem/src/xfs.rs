//! XFS, versions 4 and 5, with its log replayed in memory.
//!
//! What the log has and the disk does not is laid over the volume (`log`, `view`), so that a disk copied from a
//! running machine reads as it would after a mount. Every structure of version 5 has a checksum, and says whose it
//! is; both are checked, the checksum where the log did not change the structure.
//!
//! Source: <https://git.kernel.org/pub/scm/fs/xfs/xfs-documentation.git>, "XFS Algorithms & Data Structures".

use std::sync::Arc;

use cairn_types::Kind;
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
mod view;

use superblock::Superblock;
use view::View;

/// A file system of this kind.
pub(crate) struct Xfs {
    /// Where all is read but the content of files, which no log has.
    view: View,
    superblock: Superblock,
    log: Log,
}

impl Xfs {
    pub(crate) fn open(volume: Arc<Volume>) -> Result<Self> {
        let disk = View::new(Arc::clone(&volume));
        let superblock = Superblock::read(&disk)?;
        let (view, log) = match log::load(&volume, &superblock)? {
            (_, Log::Clean) => (disk, Log::Clean),
            replayed => match Self::over(replayed.0, replayed.1) {
                // Whoever shaped a log shall not keep the disk from being read.
                Err(error) if error.kind() != Kind::Transient => (disk, Log::Dirty),
                opened => return opened,
            },
        };
        Self::over(view, log)
    }

    fn over(view: View, log: Log) -> Result<Self> {
        let superblock = Superblock::read(&view)?;
        let xfs = Self {
            view,
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
