//! Inodes: the log has them in the order of the machine's bytes, the disk has them in another, but for their forks.

use super::bad;
use super::record::BLOCK_BYTES;
use super::replay::{Replay, is_at_least, sector};
use super::transaction::Item;
use crate::bytes::{be16, be64, le16, le32, le64};
use crate::error::Result;
use crate::xfs::inode::{BIG_TIME, CORE_BYTES, MANY_EXTENTS};

/// How long the description is, by machines with 64 and with 32 bits.
const DESCRIPTION_BYTES: usize = 56;
const DESCRIPTION_BYTES_32: usize = 52;

// What of an inode is written.
const LOCAL: u32 = 0x2;
const EXTENTS: u32 = 0x4;
const ROOT: u32 = 0x8;
const DEVICE: u32 = 0x10;
/// The blocks of its tree are another's and become its own.
const OWNER: u32 = 0x200;

/// Numbers at the same place in both forms, and how long they are.
#[rustfmt::skip]
const NUMBERS: [(usize, usize); 21] = [
    (0, 2), (2, 2), (6, 2), (8, 4), (12, 4), (16, 4), (20, 2), (22, 2), (56, 8), (64, 8), (72, 4),
    (76, 4), (80, 2), (84, 4), (88, 2), (90, 2), (92, 4), (104, 8), (120, 8), (128, 4), (152, 8),
];
const TIMES: [usize; 4] = [32, 40, 48, 144];
/// Where the next inode without a name stands, which is kept by other means, and then the checksum.
const NEXT: usize = 96;
/// Where the log goes on to say what the disk is to have.
const CHANGES: usize = 104;
/// Where the number of the record stands that an inode was written back with.
const LSN: usize = 112;
/// How long the header of a block of a tree is.
const TREE_HEADER_BYTES: usize = 72;

/// The description of an inode.
struct Described {
    fields: u32,
    device: u32,
    first: u64,
    sectors: u32,
    within: u32,
}

impl Described {
    fn parse(bytes: &[u8]) -> Result<Self> {
        // Where the fields of 64 bits begin.
        let wide = match bytes.len() {
            DESCRIPTION_BYTES => 16,
            DESCRIPTION_BYTES_32 => 12,
            _ => return Err(bad("the description of an inode has a wrong length")),
        };
        Ok(Self {
            fields: le32(bytes, 4),
            device: le32(bytes, wide + 8),
            first: sector(le64(bytes, wide + 24))?,
            sectors: le32(bytes, wide + 32),
            within: le32(bytes, wide + 36),
        })
    }
}

impl Replay {
    pub(super) fn inode(&mut self, lsn: u64, item: &Item) -> Result<()> {
        let described = Described::parse(&item.regions[0])?;
        if self.is_cancelled(described.first, described.sectors) {
            return Ok(());
        }
        if described.fields & OWNER != 0 {
            return Err(bad("an inode takes over a tree, which is not replayed"));
        }
        let start = described.first * BLOCK_BYTES + u64::from(described.within);
        let length = usize::from(self.superblock.inode_bytes);
        let (mut raw, _) = self.view.read(start, length)?;
        let core = item.regions.get(1);
        let core = core.and_then(|core| core.get(..CORE_BYTES));
        let core = core.ok_or_else(|| bad("an inode is too short"))?;
        if &raw[..2] != b"IN" || le16(core, 0) != u16::from_be_bytes(*b"IN") {
            return Err(bad("what is to be an inode is none"));
        }
        // The same number: other transactions that begin in that record may not be there yet.
        if is_at_least(be64(&raw, LSN), lsn + 1) {
            return Ok(());
        }
        turn(core, &mut raw[..CORE_BYTES]);
        raw[LSN..LSN + 8].copy_from_slice(&lsn.to_be_bytes());
        let end = match usize::from(raw[82]) * 8 {
            0 => length,
            attributes => CORE_BYTES + attributes,
        };
        let fork = raw.get_mut(CORE_BYTES..end);
        let fork = fork.ok_or_else(|| bad("an inode has its attributes behind its end"))?;
        if described.fields & DEVICE != 0 && fork.len() >= 4 {
            fork[..4].copy_from_slice(&described.device.to_be_bytes());
        }
        if let Some(region) = item.regions.get(2) {
            let too_long = || bad("what is in an inode is longer than fits");
            match described.fields & (LOCAL | EXTENTS | ROOT) {
                // It is the fork of its attributes, which are not read.
                0 => {}
                ROOT => write_root(region, fork)?,
                LOCAL | EXTENTS => fork
                    .get_mut(..region.len())
                    .ok_or_else(too_long)?
                    .copy_from_slice(region),
                _ => return Err(bad("an inode is kept in several ways at once")),
            }
        }
        self.view.write(start, &raw)
    }
}

/// Writes what the log has of an inode as the disk has it.
fn turn(core: &[u8], raw: &mut [u8]) {
    let flags = le64(core, 120);
    raw[..NEXT].copy_from_slice(&core[..NEXT]);
    raw[CHANGES..].copy_from_slice(&core[CHANGES..]);
    let mut reverse = |at: usize, length: usize| raw[at..at + length].reverse();
    for (at, length) in NUMBERS {
        reverse(at, length);
    }
    if flags & MANY_EXTENTS != 0 {
        reverse(24, 8);
    }
    for at in TIMES {
        if flags & BIG_TIME != 0 {
            reverse(at, 8);
        } else {
            reverse(at, 4);
            reverse(at + 4, 4);
        }
    }
}

/// Writes the root of a tree of extents, which has the header of a block in the log and a short one on the
/// disk. Behind its keys, as many as there is room for, come the numbers of its blocks.
fn write_root(region: &[u8], fork: &mut [u8]) -> Result<()> {
    let too_long = || bad("the root of a tree is longer than fits");
    let body = region.get(TREE_HEADER_BYTES..).ok_or_else(too_long)?;
    let count = usize::from(be16(region, 6));
    let (room, room_there) = (body.len() / 16, fork.len().saturating_sub(4) / 16);
    if count > room || count > room_there {
        return Err(too_long());
    }
    fork[..4].copy_from_slice(&region[4..8]);
    let there = &mut fork[4..];
    there[..count * 8].copy_from_slice(&body[..count * 8]);
    there[room_there * 8..][..count * 8].copy_from_slice(&body[room * 8..][..count * 8]);
    Ok(())
}
