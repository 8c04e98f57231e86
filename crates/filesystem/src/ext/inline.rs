//! Content that stands in the inode itself: 60 bytes, and the rest in an extended attribute.

use super::{Ext, inode};
use crate::bytes::{le16, le32};
use crate::driver::{Node, Place, Run};
use crate::error::{Error, Result};

const ATTRIBUTES_MAGIC: u32 = 0xEA02_0000;
/// The number of the namespace `system`.
const SYSTEM: u8 = 7;

impl Ext {
    /// The run of such content at byte `offset`.
    pub(super) fn inline_run(&self, node: &Node, offset: u64) -> Result<Run> {
        let mut bytes = inode::block_field(node).to_vec();
        bytes.extend_from_slice(inline_rest(node)?);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start >= bytes.len() {
            return Ok(Run {
                length: u64::MAX - offset,
                place: Place::Hole,
            });
        }
        bytes.drain(..start);
        Ok(Run {
            length: bytes.len() as u64,
            place: Place::Bytes(bytes),
        })
    }
}

/// The value of `system.data` in the inode; empty if it has none.
pub(super) fn inline_rest(node: &Node) -> Result<&[u8]> {
    let bad = || {
        Error::damaged(
            format!("inode {}", node.id),
            "its extended attributes are in disorder",
        )
    };
    let raw = &node.raw;
    let start = inode::OLD_BYTES + inode::extra_bytes(raw);
    if start + 4 > raw.len() || le32(raw, start) != ATTRIBUTES_MAGIC {
        return Ok(&[]);
    }
    let area = &raw[start + 4..];
    let mut at = 0;
    // Four zero bytes end the list.
    while at + 16 <= area.len() && le32(area, at) != 0 {
        let (name_length, namespace) = (usize::from(area[at]), area[at + 1]);
        let name = area.get(at + 16..at + 16 + name_length).ok_or_else(bad)?;
        if namespace == SYSTEM && name == b"data" {
            if le32(area, at + 4) != 0 {
                return Err(bad());
            }
            let offset = usize::from(le16(area, at + 2));
            let length = le32(area, at + 8) as usize;
            let end = offset.checked_add(length).ok_or_else(bad)?;
            return area.get(offset..end).ok_or_else(bad);
        }
        at += (16 + name_length).next_multiple_of(4);
    }
    Ok(&[])
}
