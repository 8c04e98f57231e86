//! Inodes: where they lie, and what they say.

use cairn_types::tree::{EntryKind, FileTime, Metadata};

use super::Xfs;
use crate::bytes::{be16, be32, be64, crc32c_without, le32};
use crate::driver::{Node, is_device, kind_of_mode};
use crate::error::{Error, Result};

/// How long an inode is before its forks, before version 3 and from that on.
const OLD_BYTES: usize = 100;
pub(super) const CORE_BYTES: usize = 176;
const CHECKSUM: usize = 100;

const REALTIME: u16 = 0x1;
// Of the second word of flags, which version 3 has.
pub(super) const BIG_TIME: u64 = 0x8;
pub(super) const MANY_EXTENTS: u64 = 0x10;

/// Times with 64 bits count nanoseconds from the earliest that fits into 32 bits of seconds.
const BIG_TIME_EPOCH: i64 = 1 << 31;

/// How the content of an inode is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// It has none, but the number of a device.
    Device,
    /// In the inode.
    Local,
    /// By a list of extents in the inode.
    Extents,
    /// By a tree of extents whose root is in the inode.
    Tree,
}

impl Format {
    fn of(raw: &[u8]) -> Option<Self> {
        Some(match raw[5] {
            0 => Self::Device,
            1 => Self::Local,
            2 => Self::Extents,
            3 => Self::Tree,
            _ => return None,
        })
    }
}

pub(super) fn format(node: &Node) -> Format {
    Format::of(&node.raw).expect("checked when the inode was read")
}

/// The part of an inode that says where its content is.
pub(super) fn data_fork(node: &Node) -> &[u8] {
    let start = core_bytes(&node.raw);
    let end = match usize::from(node.raw[82]) * 8 {
        0 => node.raw.len(),
        attributes => (start + attributes).min(node.raw.len()),
    };
    &node.raw[start..end]
}

/// How many extents the content has.
pub(super) fn extents(node: &Node) -> u64 {
    if flags_2(&node.raw) & MANY_EXTENTS != 0 {
        be64(&node.raw, 24)
    } else {
        u64::from(be32(&node.raw, 76))
    }
}

pub(super) fn is_realtime(node: &Node) -> bool {
    node.metadata.kind == EntryKind::File && be16(&node.raw, 90) & REALTIME != 0
}

fn core_bytes(raw: &[u8]) -> usize {
    if raw[4] >= 3 { CORE_BYTES } else { OLD_BYTES }
}

fn flags_2(raw: &[u8]) -> u64 {
    if raw[4] >= 3 { be64(raw, 120) } else { 0 }
}

impl Xfs {
    pub(super) fn read_inode(&self, id: u64) -> Result<Node> {
        let bad = |why| Error::damaged(format!("inode {id}"), why);
        let start = self.superblock.inode_start(id)?;
        let length = usize::from(self.superblock.inode_bytes);
        let (raw, is_replayed) = self.view.read(start, length)?;
        if &raw[..2] != b"IN" {
            return Err(bad("its magic number is wrong"));
        }
        let version = raw[4];
        if self.superblock.has_checksums {
            if version != 3 {
                return Err(bad("it has a wrong version"));
            }
            if !is_replayed && crc32c_without(&raw, CHECKSUM) != le32(&raw, CHECKSUM) {
                return Err(bad("its checksum is wrong"));
            }
            if be64(&raw, 152) != id || raw[160..176] != self.superblock.uuid {
                return Err(bad("it is another's"));
            }
        } else if !matches!(version, 1 | 2) {
            return Err(bad("it has a wrong version"));
        }
        let mode = be16(&raw, 2);
        if mode == 0 {
            return Err(bad("it is not in use"));
        }
        let kind = kind_of_mode(mode).ok_or_else(|| bad("it is of no known kind"))?;
        let format = Format::of(&raw).ok_or_else(|| bad("its content is kept in no known way"))?;
        let has_content = matches!(
            kind,
            EntryKind::File | EntryKind::Directory | EntryKind::Symlink
        );
        if has_content == (format == Format::Device) {
            return Err(bad("its content is kept in a way that it cannot have"));
        }
        let content_bytes = be64(&raw, 56);
        if content_bytes > i64::MAX as u64 {
            return Err(bad("its length is wrong"));
        }
        let links = if version == 1 {
            u32::from(be16(&raw, 6))
        } else {
            be32(&raw, 16)
        };
        let is_file = kind == EntryKind::File;
        let mut node = Node {
            id,
            metadata: Metadata {
                kind,
                mode: mode & 0o7777,
                uid: be32(&raw, 8),
                gid: be32(&raw, 12),
                size_bytes: if is_file { content_bytes } else { 0 },
                modified: time(&raw, 40),
                changed: time(&raw, 48),
                inode: id,
                linked: is_file && links > 1,
                device: (0, 0),
            },
            links,
            content_bytes,
            raw,
        };
        if is_device(kind) {
            let fork = data_fork(&node);
            if fork.len() < 4 {
                return Err(bad("a device has no number"));
            }
            let number = be32(fork, 0);
            node.metadata.device = (number >> 18, number & 0x3_ffff);
        }
        Ok(node)
    }
}

fn time(raw: &[u8], at: usize) -> FileTime {
    if flags_2(raw) & BIG_TIME == 0 {
        return FileTime {
            seconds: i64::from(be32(raw, at).cast_signed()),
            nanoseconds: be32(raw, at + 4).min(999_999_999),
        };
    }
    const NANOSECONDS: u64 = 1_000_000_000;
    let time = be64(raw, at);
    FileTime {
        seconds: (time / NANOSECONDS).cast_signed() - BIG_TIME_EPOCH,
        nanoseconds: (time % NANOSECONDS) as u32,
    }
}
