//! Records of the log: where they lie in its circle, and what is in them.
//!
//! Each block of the log begins with the number of the cycle, that is of the round, that it was written in; the four bytes
//! that belong there stand in the record's headers.

use crate::bytes::{be32, be64, crc32c_from, le32};
use crate::error::Result;
use crate::volume::Volume;

/// The log is counted in blocks of this size.
pub(super) const BLOCK_BYTES: u64 = 512;
const MAGIC: u32 = 0xFEED_BABE;
/// Bytes of the longest record, without its headers.
const BODY_BYTES_MAX: u32 = 256 * 1024;
/// Blocks of the longest record, with a header for each 32 KiB.
pub(super) const BLOCKS_MAX: u64 = 512 + 8;
/// What each of a record's headers is for.
const HEADER_COVERS_BYTES: u32 = 32 * 1024;
const HEADER_COVERS_BLOCKS: usize = 64;
/// As much of the header as its checksum covers, by machines with 64 and with 32 bits.
const HEADER_BYTES: [usize; 2] = [328, 324];
/// The same of each further header.
const MORE_BYTES: usize = 260;
const CHECKSUM: usize = 32;
/// Of what the log holds: numbers in the order of little-endian machines, as all have that XFS is met on today.
const LITTLE_ENDIAN: u32 = 1;
/// Records that may be on their way at once, of which a crash leaves any, whole or in part.
pub(super) const IN_FLIGHT: usize = 8;

/// The blocks of the log, in a circle.
pub(super) struct Circle<'a> {
    pub(super) volume: &'a Volume,
    /// The byte that it begins at.
    pub(super) start: u64,
    pub(super) count: u64,
}

/// The first block of a record.
pub(super) struct Header {
    pub(super) block: u64,
    cycle: u32,
    /// How many headers there are.
    pub(super) headers: u64,
    /// How long the body is.
    length: u32,
    /// The number of the record, which is its cycle and its block.
    pub(super) lsn: u64,
    /// The number of the oldest record that is still needed.
    pub(super) tail: u64,
    pub(super) operations: u32,
    bytes: Vec<u8>,
}

impl Header {
    fn parse(block: u64, bytes: Vec<u8>) -> Option<Self> {
        let (version, length, size) = (be32(&bytes, 8), be32(&bytes, 12), be32(&bytes, 320));
        if be32(&bytes, 0) != MAGIC || be32(&bytes, 300) != LITTLE_ENDIAN {
            return None;
        }
        if !(1..=3).contains(&version) || length.max(size) > BODY_BYTES_MAX {
            return None;
        }
        let headers = if version & 2 != 0 {
            size.div_ceil(HEADER_COVERS_BYTES).max(1)
        } else {
            1
        };
        let cycle = be32(&bytes, 4);
        let header = Self {
            block,
            cycle,
            headers: u64::from(headers),
            length,
            lsn: be64(&bytes, 16),
            tail: be64(&bytes, 24),
            operations: be32(&bytes, 40),
            bytes,
        };
        (header.lsn == u64::from(cycle) << 32 | block).then_some(header)
    }

    /// Blocks of the whole record.
    pub(super) fn blocks(&self) -> u64 {
        self.headers + u64::from(self.length).div_ceil(BLOCK_BYTES)
    }

    /// Whether the checksum is that of the record. A record that is shorter than it could be has
    /// more headers than those that say something of it, which alone are summed.
    fn is_right(&self, more: &[u8], body: &[u8]) -> bool {
        let summed = body
            .len()
            .div_ceil(HEADER_COVERS_BLOCKS * BLOCK_BYTES as usize);
        let stored = le32(&self.bytes, CHECKSUM);
        let is_sum = |length: usize| {
            let after = &self.bytes[CHECKSUM + 4..length];
            let mut parts = vec![&self.bytes[..CHECKSUM], &[0; 4], after];
            parts.extend(
                more.chunks(BLOCK_BYTES as usize)
                    .take(summed.saturating_sub(1))
                    .map(|header| &header[..MORE_BYTES]),
            );
            parts.push(body);
            !crc32c_from(!0, &parts) == stored
        };
        HEADER_BYTES.into_iter().any(is_sum)
    }
}

impl Circle<'_> {
    /// Blocks that lie one behind the other; behind the last of the log comes the first.
    pub(super) fn read(&self, block: u64, count: u64) -> Result<Vec<u8>> {
        let block = block % self.count;
        let first = count.min(self.count - block);
        let read = |block: u64, count: u64| {
            let at = self.start + block * BLOCK_BYTES;
            self.volume.read_vec(at, (count * BLOCK_BYTES) as usize)
        };
        let mut bytes = read(block, first)?;
        if count > first {
            bytes.extend(read(0, count - first)?);
        }
        Ok(bytes)
    }

    pub(super) fn cycle(&self, block: u64) -> Result<u32> {
        Ok(cycle_of(&self.read(block, 1)?))
    }

    /// The block that the next record would be written to. Behind what was written last the cycle is an older
    /// one; and so it may be in holes before, where a crash came between writes that were on their way together.
    pub(super) fn head(&self) -> Result<u64> {
        let cycle = self.cycle(0)?;
        let (mut low, mut high) = (1, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.cycle(middle)? == cycle {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let window = (IN_FLIGHT as u64 * BLOCKS_MAX).min(self.count);
        // Where the window reaches over the log's beginning, it was the cycle before there.
        let first = low + self.count - window;
        let bytes = self.read(first, window)?;
        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK_BYTES as usize)) {
            let expected = if block >= self.count {
                cycle
            } else {
                before(cycle)
            };
            if cycle_of(bytes) != expected {
                return Ok(block % self.count);
            }
        }
        Ok(low % self.count)
    }

    pub(super) fn header(&self, block: u64) -> Result<Option<Header>> {
        let block = block % self.count;
        Ok(Header::parse(block, self.read(block, 1)?))
    }

    /// The last header before a block, and how far before it is.
    pub(super) fn header_before(&self, block: u64) -> Result<Option<(Header, u64)>> {
        for back in 1..=BLOCKS_MAX.min(self.count) {
            let at = block + self.count - back;
            if let Some(header) = self.header(at)? {
                return Ok(Some((header, back)));
            }
        }
        Ok(None)
    }

    /// What is in a record; nothing if not all of it was written, or not by whom its header is.
    pub(super) fn body(&self, header: &Header) -> Result<Option<Vec<u8>>> {
        let blocks = header.blocks();
        let covered = header.headers as usize * HEADER_COVERS_BLOCKS;
        let mut body = self.read(header.block, blocks.min(self.count))?;
        let body_start = (header.headers * BLOCK_BYTES) as usize;
        if blocks > self.count || (blocks - header.headers) as usize > covered {
            return Ok(None);
        }
        for (block, bytes) in (header.block..).zip(body.chunks(BLOCK_BYTES as usize)) {
            let expected = if block < self.count {
                header.cycle
            } else {
                after(header.cycle)
            };
            if cycle_of(bytes) != expected {
                return Ok(None);
            }
        }
        let more: Vec<u8> = body
            .drain(..body_start)
            .skip(BLOCK_BYTES as usize)
            .collect();
        if !header.is_right(&more, &body[..header.length as usize]) {
            return Ok(None);
        }
        for (index, block) in body.chunks_mut(BLOCK_BYTES as usize).enumerate() {
            let (which, within) = (index / HEADER_COVERS_BLOCKS, index % HEADER_COVERS_BLOCKS);
            let from = match which.checked_sub(1) {
                None => &header.bytes[44 + within * 4..],
                Some(which) => &more[which * BLOCK_BYTES as usize + 4 + within * 4..],
            };
            block[..4].copy_from_slice(&from[..4]);
        }
        body.truncate(header.length as usize);
        Ok(Some(body))
    }
}

/// The cycle that a block was written in; a record's header has it behind the magic number.
fn cycle_of(block: &[u8]) -> u32 {
    match be32(block, 0) {
        MAGIC => be32(block, 4),
        cycle => cycle,
    }
}

/// Cycles are counted without the number that marks a header.
fn after(cycle: u32) -> u32 {
    match cycle.wrapping_add(1) {
        MAGIC => MAGIC + 1,
        cycle => cycle,
    }
}

fn before(cycle: u32) -> u32 {
    match cycle.wrapping_sub(1) {
        MAGIC => MAGIC - 1,
        cycle => cycle,
    }
}
