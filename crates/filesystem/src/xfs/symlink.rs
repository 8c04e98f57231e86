//! Targets of symbolic links, which stand in the inode or in blocks of their own.

use super::Xfs;
use super::inode::{self, Format};
use crate::bytes::{be32, be64, crc32c_without, le32};
use crate::driver::{Driver, LINK_BYTES_MAX, Node, Place};
use crate::error::{Error, Result};

/// How long the header is that each extent of a target begins with in version 5.
const HEADER_BYTES: usize = 56;

impl Xfs {
    pub(super) fn read_target(&self, node: &Node) -> Result<Vec<u8>> {
        let bad = |why| Error::damaged(format!("inode {}", node.id), why);
        if node.content_bytes > LINK_BYTES_MAX {
            return Err(bad("a symbolic link is too long"));
        }
        let length = node.content_bytes as usize;
        if inode::format(node) == Format::Local {
            let target = inode::data_fork(node).get(..length);
            return Ok(target
                .ok_or_else(|| bad("a symbolic link is too long"))?
                .to_vec());
        }
        let header = if self.superblock.has_checksums {
            HEADER_BYTES
        } else {
            0
        };
        let mut target = Vec::new();
        let mut offset = 0;
        while target.len() < length {
            let run = self.map(node, offset, &mut None)?;
            let Place::Disk(start) = run.place else {
                return Err(bad("a symbolic link has a hole"));
            };
            // An extent is as long as the target needs, in whole blocks.
            let rest = length - target.len();
            let needed = ((header + rest) as u64).next_multiple_of(self.block_bytes());
            let (bytes, is_replayed) = self.view.read(start, run.length.min(needed) as usize)?;
            if header != 0 {
                self.check_target(node, &bytes, is_replayed, target.len())?;
            }
            let part = &bytes[header..];
            target.extend_from_slice(&part[..part.len().min(rest)]);
            offset += bytes.len() as u64;
        }
        Ok(target)
    }

    fn check_target(
        &self,
        node: &Node,
        bytes: &[u8],
        is_replayed: bool,
        done: usize,
    ) -> Result<()> {
        let bad = |why| Error::damaged(format!("inode {}", node.id), why);
        if &bytes[..4] != b"XSLM" || be32(bytes, 4) as usize != done {
            return Err(bad("a block of its target is none"));
        }
        if !is_replayed && crc32c_without(bytes, 12) != le32(bytes, 12) {
            return Err(bad("a block of its target has a wrong checksum"));
        }
        if be64(bytes, 32) != node.id || bytes[16..32] != self.superblock.uuid {
            return Err(bad("a block of its target is another's"));
        }
        Ok(())
    }
}
