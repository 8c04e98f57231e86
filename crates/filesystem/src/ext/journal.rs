//! The journal: blocks that were committed to it and not written back yet.
//!
//! Nothing is written: the newest committed copy of each block is remembered by its place in the journal.
//! A transaction whose commit is missing or torn did not happen, as at a mount.
//!
//! Source: <https://docs.kernel.org/filesystems/ext4/journal.html>.

use std::collections::BTreeMap;

use crc::{Digest, Table};

use super::Ext;
use crate::bytes::{CRC32_BE, be16, be32, be64, crc32c_from, le16, le32};
use crate::driver::{Driver, Node, Place};
use crate::error::{Error, Result};
use crate::file_system::Log;
use crate::volume::Volume;

const MAGIC: u32 = 0xC03B_3998;
/// How long the header of each block of the journal's own is.
const HEADER_BYTES: usize = 12;
/// Blocks that are remembered at most; more than a journal of 4 GiB has.
const COPIES_MAX: usize = 1 << 20;

// Types of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_OLD: u32 = 3;
const SUPERBLOCK: u32 = 4;
const REVOKE: u32 = 5;

/// A compatible feature: commits have a checksum of all blocks of the transaction.
const CHECKSUM: u32 = 0x1;

// Incompatible features.
const BITS_64: u32 = 0x2;
const ASYNC_COMMIT: u32 = 0x4;
const CHECKSUM_V2: u32 = 0x8;
const CHECKSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Revocations, and all of the above.
const KNOWN: u32 = 0x3f;

// Flags of a tag.
const ESCAPED: u32 = 0x1;
const SAME_UUID: u32 = 0x2;
const LAST: u32 = 0x8;

/// The newest copy of a block, in the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    /// Where it is, in bytes of the volume.
    at: u64,
    /// Whether its first four bytes were the journal's magic number and are zeros there.
    escaped: bool,
}

impl Copied {
    /// Fills `buffer` from byte `within` of the block.
    pub(super) fn read(self, volume: &Volume, within: usize, buffer: &mut [u8]) -> Result<()> {
        volume.read(self.at + within as u64, buffer)?;
        if self.escaped && within < 4 {
            let magic = &MAGIC.to_be_bytes()[within..];
            let length = magic.len().min(buffer.len());
            buffer[..length].copy_from_slice(&magic[..length]);
        }
        Ok(())
    }
}

/// What the journal lays over the blocks of the disk.
#[derive(Debug, Default)]
pub(super) struct Overlay(BTreeMap<u64, Copied>);

impl Overlay {
    pub(super) fn get(&self, block: u64) -> Option<Copied> {
        self.0.get(&block).copied()
    }

    /// The first block behind this one that there is a copy of.
    pub(super) fn next(&self, block: u64) -> Option<u64> {
        let next = self.0.range(block.saturating_add(1)..).next();
        next.map(|(block, _)| *block)
    }
}

/// Reads the journal of a file system that says it needs it.
pub(super) fn load(ext: &Ext) -> Result<(Overlay, Log)> {
    if ext.superblock.journal_inode == 0 {
        // It lies on another disk.
        return Ok((Overlay::default(), Log::Dirty));
    }
    let node = ext.node(u64::from(ext.superblock.journal_inode))?;
    let Some(journal) = Journal::open(ext, node)? else {
        return Ok((Overlay::default(), Log::Clean));
    };
    if journal.features & ASYNC_COMMIT != 0 && !journal.has_checksums() {
        // Whether a transaction is whole cannot be told by its commit.
        return Ok((Overlay::default(), Log::Dirty));
    }
    let next = journal.first_sequence;
    let mut replay = Replay {
        journal,
        overlay: Overlay::default(),
        sequence: next,
        pending: Transaction::default(),
    };
    replay.run()?;
    let log = if replay.has_fast_commits()? {
        Log::Dirty
    } else {
        Log::Replayed
    };
    Ok((replay.overlay, log))
}

/// The journal's own superblock.
struct Journal<'a> {
    ext: &'a Ext,
    node: Node,
    features: u32,
    /// Whether a commit has one checksum for the whole transaction, the older way.
    sums_transactions: bool,
    seed: u32,
    /// The blocks that transactions are written to, in a circle.
    first: u32,
    end: u32,
    start: u32,
    first_sequence: u32,
}

impl<'a> Journal<'a> {
    /// Nothing if it holds nothing.
    fn open(ext: &'a Ext, node: Node) -> Result<Option<Self>> {
        let mut journal = Self {
            ext,
            node,
            features: 0,
            sums_transactions: false,
            seed: 0,
            first: 0,
            end: 1,
            start: 0,
            first_sequence: 0,
        };
        let bytes = journal.block(0)?;
        let kind = be32(&bytes, 4);
        if be32(&bytes, 0) != MAGIC || !matches!(kind, SUPERBLOCK | SUPERBLOCK_OLD) {
            return Err(bad("its superblock is none"));
        }
        let features = if kind == SUPERBLOCK {
            be32(&bytes, 40)
        } else {
            0
        };
        if features & !KNOWN != 0 {
            return Err(Error::unsupported(format!(
                "a journal with the features {:#x}",
                features & !KNOWN
            )));
        }
        journal.features = features;
        journal.sums_transactions = kind == SUPERBLOCK && be32(&bytes, 36) & CHECKSUM != 0;
        journal.seed = crc32c_from(!0, &[&bytes[48..64]]);
        if journal.has_checksums() {
            let parts = [&bytes[..0xfc], &[0; 4], &bytes[0x100..1024]];
            if crc32c_from(!0, &parts) != be32(&bytes, 0xfc) {
                return Err(bad("the checksum of its superblock is wrong"));
            }
        }
        let length = be32(&bytes, 16);
        let blocks = journal.node.content_bytes / ext.block_bytes() as u64;
        if be32(&bytes, 12) as usize != ext.block_bytes() || u64::from(length) > blocks {
            return Err(bad("its size is wrong"));
        }
        let fast = if features & FAST_COMMIT == 0 {
            0
        } else {
            // 256 blocks where none are said.
            Some(be32(&bytes, 84))
                .filter(|blocks| *blocks != 0)
                .unwrap_or(256)
        };
        journal.first = be32(&bytes, 20);
        journal.end = length.saturating_sub(fast);
        journal.start = be32(&bytes, 28);
        journal.first_sequence = be32(&bytes, 24);
        if journal.start == 0 {
            return Ok(None);
        }
        let circle = journal.first..journal.end;
        if journal.first == 0 || !circle.contains(&journal.start) {
            return Err(bad("it begins outside of itself"));
        }
        Ok(Some(journal))
    }

    fn has_checksums(&self) -> bool {
        self.features & (CHECKSUM_V2 | CHECKSUM_V3) != 0
    }

    fn next(&self, block: u32) -> u32 {
        let next = block + 1;
        if next < self.end { next } else { self.first }
    }

    /// Where a block of the journal lies on the volume.
    fn place(&self, block: u32) -> Result<u64> {
        let offset = u64::from(block) * self.ext.block_bytes() as u64;
        if offset >= self.node.content_bytes {
            return Err(bad("it is shorter than it says"));
        }
        match self.ext.map(&self.node, offset, &mut None)?.place {
            Place::Disk(at) => Ok(at),
            Place::Hole | Place::Bytes(_) => Err(bad("it has holes")),
        }
    }

    fn block(&self, block: u32) -> Result<Vec<u8>> {
        let at = self.place(block)?;
        self.ext.volume.read_vec(at, self.ext.block_bytes())
    }

    /// Whether the checksum at byte `hole` of one of the journal's own blocks is right.
    fn is_whole(&self, bytes: &[u8], hole: usize) -> bool {
        let parts = [&bytes[..hole], &[0; 4], &bytes[hole + 4..]];
        !self.has_checksums() || crc32c_from(self.seed, &parts) == be32(bytes, hole)
    }
}

/// What a transaction did, until its commit is found.
struct Transaction {
    copies: Vec<(u64, Copied)>,
    revoked: Vec<u64>,
    /// The checksum of its descriptors and copies, the older way.
    sum: Digest<'static, u32, Table<16>>,
    /// Whether a copy is not what its tag says.
    damaged: bool,
}

impl Default for Transaction {
    fn default() -> Self {
        Self {
            copies: Vec::new(),
            revoked: Vec::new(),
            sum: CRC32_BE.digest(),
            damaged: false,
        }
    }
}

struct Replay<'a> {
    journal: Journal<'a>,
    overlay: Overlay,
    /// The number of the transaction that is read.
    sequence: u32,
    pending: Transaction,
}

impl Replay<'_> {
    fn run(&mut self) -> Result<()> {
        let mut block = self.journal.start;
        // No log is longer than its circle.
        let mut left = self.journal.end - self.journal.first;
        while left > 0 {
            let bytes = self.journal.block(block)?;
            if be32(&bytes, 0) != MAGIC || be32(&bytes, 8) != self.sequence {
                return Ok(());
            }
            let tail = bytes.len() - 4;
            let used = match be32(&bytes, 4) {
                DESCRIPTOR if self.journal.is_whole(&bytes, tail) => {
                    self.descriptor(&bytes, block, left)?
                }
                REVOKE if self.journal.is_whole(&bytes, tail) => self.revoke(&bytes)?,
                COMMIT if self.journal.is_whole(&bytes, 16) && self.is_sum_right(&bytes) => {
                    self.commit()?
                }
                _ => return Ok(()),
            };
            for _ in 0..used {
                block = self.journal.next(block);
            }
            left = left.saturating_sub(used);
        }
        Ok(())
    }

    /// Remembers the copies that follow a descriptor; says how many blocks it and they take.
    fn descriptor(&mut self, bytes: &[u8], block: u32, left: u32) -> Result<u32> {
        let journal = &self.journal;
        let end = bytes.len() - if journal.has_checksums() { 4 } else { 0 };
        if journal.sums_transactions {
            self.pending.sum.update(bytes);
        }
        let mut at = HEADER_BYTES;
        let (mut copy, mut used) = (block, 1);
        while let Some(tag) = Tag::parse(journal.features, &bytes[at..end]) {
            if used >= left {
                // A log that is longer than its circle has no commit.
                return Ok(left);
            }
            copy = journal.next(copy);
            used += 1;
            let copied = Copied {
                at: journal.place(copy)?,
                escaped: tag.flags & ESCAPED != 0,
            };
            if journal.sums_transactions {
                let bytes = journal.block(copy)?;
                self.pending.sum.update(&bytes);
            }
            if journal.has_checksums() && !self.is_copy_whole(&tag, copied)? {
                self.pending.damaged = true;
            }
            self.pending.copies.push((tag.block, copied));
            self.check_size()?;
            at += tag.bytes;
            if tag.flags & LAST != 0 {
                break;
            }
        }
        Ok(used)
    }

    fn is_copy_whole(&self, tag: &Tag, copied: Copied) -> Result<bool> {
        let journal = &self.journal;
        let bytes = journal
            .ext
            .volume
            .read_vec(copied.at, journal.ext.block_bytes())?;
        let sum = crc32c_from(journal.seed, &[&self.sequence.to_be_bytes(), &bytes]);
        Ok(if journal.features & CHECKSUM_V3 != 0 {
            tag.checksum == sum
        } else {
            tag.checksum == sum & 0xffff
        })
    }

    /// Whether the checksum of a whole transaction is the one in its commit, or none is there.
    fn is_sum_right(&self, commit: &[u8]) -> bool {
        const CRC32: [u8; 2] = [1, 4];
        let stored = be32(commit, 16);
        let is_unused = commit[12..14] == [0, 0] && stored == 0;
        let is_right = || commit[12..14] == CRC32 && self.pending.sum.clone().finalize() == stored;
        !self.journal.sums_transactions || is_unused || is_right()
    }

    fn revoke(&mut self, bytes: &[u8]) -> Result<u32> {
        let size = if self.journal.features & BITS_64 != 0 {
            8
        } else {
            4
        };
        let end = (be32(bytes, HEADER_BYTES) as usize).min(bytes.len());
        let entries = bytes[..end].get(HEADER_BYTES + 4..).unwrap_or(&[]);
        for entry in entries.chunks_exact(size) {
            self.pending.revoked.push(match size {
                8 => be64(entry, 0),
                _ => u64::from(be32(entry, 0)),
            });
        }
        self.check_size()?;
        Ok(1)
    }

    fn commit(&mut self) -> Result<u32> {
        let transaction = std::mem::take(&mut self.pending);
        if transaction.damaged {
            return Err(bad(
                "a block of a committed transaction has a wrong checksum",
            ));
        }
        self.overlay.0.extend(transaction.copies);
        // A block that a transaction revokes is not to be taken from it or from any before.
        for block in transaction.revoked {
            self.overlay.0.remove(&block);
        }
        self.check_size()?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(1)
    }

    fn check_size(&self) -> Result<()> {
        let pending = &self.pending;
        if self
            .overlay
            .0
            .len()
            .max(pending.copies.len())
            .max(pending.revoked.len())
            > COPIES_MAX
        {
            return Err(Error::TooLarge {
                what: "the number of blocks in the journal",
                limit: COPIES_MAX as u64,
            });
        }
        Ok(())
    }

    /// Whether changes were noted behind the last transaction in the short form, which is not replayed.
    fn has_fast_commits(&self) -> Result<bool> {
        const HEAD: u16 = 0x9;
        if self.journal.features & FAST_COMMIT == 0 {
            return Ok(false);
        }
        let bytes = self.journal.block(self.journal.end)?;
        // A tag and a length of 2 bytes, 4 of features, 4 of the transaction that it follows.
        Ok(le16(&bytes, 0) == HEAD && le32(&bytes, 8) == self.sequence)
    }
}

/// Which block a copy is of.
struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
    /// How long the tag is.
    bytes: usize,
}

impl Tag {
    /// The first tag; nothing where none fits any more.
    fn parse(features: u32, bytes: &[u8]) -> Option<Self> {
        let wide = features & BITS_64 != 0;
        let third = features & CHECKSUM_V3 != 0;
        let base = match (third, features & CHECKSUM_V2 != 0) {
            (true, _) => 16,
            (false, true) => 10,
            (false, false) => 8,
        };
        let length = if wide && !third { base + 4 } else { base };
        let bytes_of_tag = bytes.get(..length)?;
        let low = u64::from(be32(bytes_of_tag, 0));
        let (flags, checksum) = if third {
            (be32(bytes_of_tag, 4), be32(bytes_of_tag, 12))
        } else {
            let checksum = u32::from(be16(bytes_of_tag, 4));
            (u32::from(be16(bytes_of_tag, 6)), checksum)
        };
        let high = if wide {
            u64::from(be32(bytes_of_tag, 8))
        } else {
            0
        };
        let uuid = if flags & SAME_UUID == 0 { 16 } else { 0 };
        Some(Self {
            block: high << 32 | low,
            flags,
            checksum,
            bytes: (length + uuid).min(bytes.len()),
        })
    }
}

fn bad(why: &'static str) -> Error {
    Error::damaged("the journal", why)
}
