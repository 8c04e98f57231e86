//! What the items of committed transactions do to the volume, as far as it is read here.
//!
//! Of free room, of what is shared, of quotas and of attributes nothing is read, so that what is said of them is passed over.

use std::collections::{BTreeMap, HashSet};

use super::bad;
use super::record::BLOCK_BYTES;
use super::transaction::{Item, Transaction};
use crate::bytes::{be32, be64, le16, le32, le64};
use crate::error::{Error, Result};
use crate::file_system::Log;
use crate::xfs::superblock::Superblock;
use crate::xfs::view::View;

// Kinds of items.
const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
const NEW_INODES: u16 = 0x123f;
/// What is to be mapped elsewhere, by transactions that follow, and that it was done.
const MAPPING: u16 = 0x1244;
const MAPPING_DONE: u16 = 0x1245;
/// What two files are to exchange, and that it was done.
const EXCHANGE: u16 = 0x1248;
const EXCHANGE_DONE: u16 = 0x1249;
/// The first and the last kind that there is.
const FIRST: u16 = 0x1236;
const LAST: u16 = 0x124f;

// Flags of a buffer.
/// It holds inodes, of which a list of those without names is kept in this way and nothing else.
const INODE_LISTS: u16 = 0x1;
const CANCELLED: u16 = 0x2;
const QUOTAS: u16 = 0x1c;

// What is in a buffer.
const UNKNOWN: u16 = 0;
const TREE: u16 = 4;
const INODES: u16 = 8;
const LINK: u16 = 9;
const NAMES_SINGLE: u16 = 10;
const NAMES: u16 = 11;
const SUPERBLOCK: u16 = 18;

/// The unit of what is written of a buffer.
const CHUNK_BYTES: usize = 128;
/// How long the description of a buffer is before its bits.
const BUFFER_BYTES: usize = 20;
const NEW_INODES_BYTES: usize = 28;
/// Inodes that are made at a time at most: a block of the largest size full of the smallest.
const NEW_INODES_MAX: u64 = 256;
/// Buffers given up and things not done that are remembered.
const NOTES_MAX: usize = 1 << 20;

/// What the log is replayed onto.
pub(super) struct Replay {
    pub(super) view: View,
    pub(super) superblock: Superblock,
    /// How often buffers are given up from here on: by their first sector and how many they have.
    cancelled: BTreeMap<(u64, u32), u32>,
    /// What was begun, by its kind and its number, and is not known to be done.
    begun: HashSet<(u16, u64)>,
}

/// The description of a buffer.
struct Buffer<'i> {
    flags: u16,
    sectors: u32,
    first: u64,
    bits: &'i [u8],
}

impl<'i> Buffer<'i> {
    fn parse(item: &'i Item) -> Result<Self> {
        let bytes = item.regions[0].as_slice();
        let short = || bad("the description of a buffer is too short");
        let (fixed, bits) = bytes.split_at_checked(BUFFER_BYTES).ok_or_else(short)?;
        let length = (le32(fixed, 16) as usize).saturating_mul(4);
        Ok(Self {
            flags: le16(fixed, 4),
            sectors: u32::from(le16(fixed, 6)),
            first: sector(le64(fixed, 8))?,
            bits: bits.get(..length).ok_or_else(short)?,
        })
    }

    fn holds(&self) -> u16 {
        self.flags >> 11
    }

    fn has(&self, chunk: usize) -> bool {
        let byte = self.bits.get(chunk / 8);
        byte.is_some_and(|byte| byte >> (chunk % 8) & 1 != 0)
    }

    fn chunks(&self) -> usize {
        self.bits.len() * 8
    }
}

impl Replay {
    pub(super) fn new(view: View, superblock: Superblock) -> Self {
        Self {
            view,
            superblock,
            cancelled: BTreeMap::new(),
            begun: HashSet::new(),
        }
    }

    /// Notes, before anything is applied, what is given up and what is begun.
    pub(super) fn note(&mut self, transaction: &Transaction) -> Result<()> {
        for item in &transaction.items {
            let number = |item: &Item| {
                let bytes = item.regions[0].get(8..16);
                bytes.map(|bytes| le64(bytes, 0))
            };
            let number = || number(item).ok_or_else(|| bad("an item is too short"));
            match item.kind() {
                BUFFER => {
                    let buffer = Buffer::parse(item)?;
                    if buffer.flags & CANCELLED != 0 {
                        let key = (buffer.first, buffer.sectors);
                        *self.cancelled.entry(key).or_default() += 1;
                    }
                }
                kind @ (MAPPING | EXCHANGE) => {
                    self.begun.insert((kind, number()?));
                }
                MAPPING_DONE => {
                    self.begun.remove(&(MAPPING, number()?));
                }
                EXCHANGE_DONE => {
                    self.begun.remove(&(EXCHANGE, number()?));
                }
                FIRST..=LAST => {}
                _ => return Err(bad("an item is of no known kind")),
            }
        }
        if self.cancelled.len().max(self.begun.len()) > NOTES_MAX {
            return Err(Error::TooLarge {
                what: "what the log gives up or begins",
                limit: NOTES_MAX as u64,
            });
        }
        Ok(())
    }

    /// Applies a transaction: buffers before the inodes that lie in them, and what is given up last.
    pub(super) fn apply(&mut self, transaction: Transaction) -> Result<()> {
        let (lsn, items) = (transaction.lsn, transaction.items);
        for item in &items {
            match item.kind() {
                BUFFER => self.buffer(lsn, item)?,
                NEW_INODES => self.new_inodes(item)?,
                _ => {}
            }
        }
        for item in items.iter().filter(|item| item.kind() == INODE) {
            self.inode(lsn, item)?;
        }
        for item in items.iter().filter(|item| item.kind() == BUFFER) {
            let buffer = Buffer::parse(item)?;
            if buffer.flags & CANCELLED != 0 {
                self.give_up((buffer.first, buffer.sectors));
            }
        }
        Ok(())
    }

    /// The volume, and whether all was replayed that a mount would.
    pub(super) fn finish(self) -> (View, Log) {
        let log = if self.begun.is_empty() {
            Log::Replayed
        } else {
            // A mount would bring it to its end.
            Log::Dirty
        };
        (self.view, log)
    }

    /// What is said of a buffer before it is given up is about what it was then.
    pub(super) fn is_cancelled(&self, first: u64, sectors: u32) -> bool {
        self.cancelled.contains_key(&(first, sectors))
    }

    fn give_up(&mut self, key: (u64, u32)) {
        if let Some(times) = self.cancelled.get_mut(&key) {
            *times -= 1;
            if *times == 0 {
                self.cancelled.remove(&key);
            }
        }
    }

    fn buffer(&mut self, lsn: u64, item: &Item) -> Result<()> {
        let buffer = Buffer::parse(item)?;
        let is_read = matches!(
            buffer.holds(),
            UNKNOWN | TREE | INODES | LINK | NAMES_SINGLE | NAMES | SUPERBLOCK
        );
        if !is_read
            || buffer.flags & (CANCELLED | INODE_LISTS | QUOTAS) != 0
            || self.is_cancelled(buffer.first, buffer.sectors)
        {
            return Ok(());
        }
        let start = buffer.first * BLOCK_BYTES;
        if self.is_newer(start, lsn)? {
            return Ok(());
        }
        let end = buffer.sectors as usize * BLOCK_BYTES as usize;
        let mut regions = item.regions[1..].iter();
        let mut chunk = 0;
        while chunk < buffer.chunks() {
            if !buffer.has(chunk) {
                chunk += 1;
                continue;
            }
            // A region has chunks that lie together, though not always all of them.
            let region = regions
                .next()
                .ok_or_else(|| bad("a buffer has too few regions"))?;
            let together = (chunk..buffer.chunks()).take_while(|chunk| buffer.has(*chunk));
            let count = together.count().min(region.len() / CHUNK_BYTES);
            let (at, length) = (chunk * CHUNK_BYTES, count * CHUNK_BYTES);
            if count == 0 || at + length > end {
                return Err(bad("a region is longer than its buffer, or empty"));
            }
            self.view.write(start + at as u64, &region[..length])?;
            chunk += count;
        }
        if buffer.holds() == SUPERBLOCK && buffer.first == 0 {
            // The file system may have been made larger.
            self.superblock = Superblock::read(&self.view)?;
        }
        Ok(())
    }

    /// Whether what stands in a place was written back after a transaction.
    fn is_newer(&self, start: u64, lsn: u64) -> Result<bool> {
        let (block, _) = self.view.read(start, BLOCK_BYTES as usize)?;
        let (number, uuid) = match &block[..4] {
            b"BMA3" => (32, 40),
            b"XDB3" | b"XDD3" => (16, 24),
            b"XSLM" => (48, 16),
            b"XFSB" => return Ok(is_at_least(be64(&block, 240), lsn)),
            _ => return Ok(false),
        };
        let is_own = block[uuid..uuid + 16] == self.superblock.uuid;
        Ok(is_own && is_at_least(be64(&block, number), lsn))
    }

    /// Inodes that were made together, none of which is in use yet.
    fn new_inodes(&mut self, item: &Item) -> Result<()> {
        let bytes = &item.regions[0];
        if bytes.len() < NEW_INODES_BYTES {
            return Err(bad("the description of new inodes is too short"));
        }
        let (group, block) = (be32(bytes, 4), be32(bytes, 8));
        let (count, size) = (u64::from(be32(bytes, 12)), be32(bytes, 16));
        let blocks = u64::from(be32(bytes, 20));
        let superblock = &self.superblock;
        let total = count * u64::from(size);
        if size != u32::from(superblock.inode_bytes)
            || count > NEW_INODES_MAX
            || total > blocks * u64::from(superblock.block_bytes)
        {
            return Err(bad("new inodes have a wrong size"));
        }
        let (start, first) = superblock.inodes_of(group, block, blocks)?;
        let sectors = start / BLOCK_BYTES..(start + total).div_ceil(BLOCK_BYTES);
        let mut given_up = self.cancelled.range((sectors.start, 0)..(sectors.end, 0));
        if given_up.next().is_some() {
            return Ok(());
        }
        let mut inode = vec![0; size as usize];
        inode[..2].copy_from_slice(b"IN");
        inode[4] = 3;
        inode[160..176].copy_from_slice(&superblock.uuid);
        for index in 0..count {
            inode[152..160].copy_from_slice(&(first + index).to_be_bytes());
            let at = start + index * u64::from(size);
            self.view.write(at, &inode)?;
        }
        Ok(())
    }
}

/// A number of a record is the number of no record where nothing was written back.
pub(super) fn is_at_least(number: u64, lsn: u64) -> bool {
    number != u64::MAX && number >= lsn
}

/// The number of a sector, of which no disk has more than fit.
pub(super) fn sector(number: u64) -> Result<u64> {
    if number > u64::MAX / 4 / BLOCK_BYTES {
        return Err(bad("a sector has a number that none has"));
    }
    Ok(number)
}
