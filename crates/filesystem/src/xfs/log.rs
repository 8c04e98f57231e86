//! Whether the log was emptied: the last thing written to it then is a record that says so.

use super::superblock::Superblock;
use crate::bytes::be32;
use crate::error::Result;
use crate::file_system::Log;
use crate::volume::Volume;

/// The log is counted in blocks of this size, each of which begins with the cycle that it was written in.
const BLOCK_BYTES: u64 = 512;
const RECORD_MAGIC: u32 = 0xFEED_BABE;
/// Blocks of the longest record: 256 KiB, with a header for each 32 KiB.
const RECORD_BLOCKS_MAX: u64 = 512 + 8;
/// What each of a record's headers is for, in bytes.
const HEADER_COVERS_BYTES: u32 = 32 * 1024;
/// Of an operation: the file system was unmounted.
const UNMOUNT: u8 = 0x20;

/// Clean, or dirty where that cannot be told.
pub(super) fn state(volume: &Volume, superblock: &Superblock) -> Log {
    match is_clean(volume, superblock) {
        Ok(true) => Log::Clean,
        Ok(false) | Err(_) => Log::Dirty,
    }
}

struct Blocks<'a> {
    volume: &'a Volume,
    start: u64,
    count: u64,
}

impl Blocks<'_> {
    fn read(&self, block: u64) -> Result<Vec<u8>> {
        let at = self.start + block % self.count * BLOCK_BYTES;
        self.volume.read_vec(at, BLOCK_BYTES as usize)
    }

    /// The cycle that a block was written in; a record's header has it behind the magic number.
    fn cycle(&self, block: u64) -> Result<u32> {
        let bytes = self.read(block)?;
        let first = be32(&bytes, 0);
        Ok(if first == RECORD_MAGIC {
            be32(&bytes, 4)
        } else {
            first
        })
    }

    /// The first block that was not written in the cycle of block 0.
    fn head(&self) -> Result<u64> {
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
        Ok(low)
    }
}

fn is_clean(volume: &Volume, superblock: &Superblock) -> Result<bool> {
    if superblock.log_start == 0 || superblock.log_blocks == 0 {
        // It lies on another disk.
        return Ok(false);
    }
    let blocks = u64::from(superblock.log_blocks);
    let log = Blocks {
        volume,
        start: superblock.block_start(superblock.log_start, blocks)?,
        count: blocks * u64::from(superblock.block_bytes) / BLOCK_BYTES,
    };
    let head = log.head()?;
    if log.cycle(0)? == 0 {
        // Nothing was ever written to it.
        return Ok(true);
    }
    for back in 1..=RECORD_BLOCKS_MAX.min(log.count) {
        // Behind the last block comes the first.
        let block = (head + log.count - back) % log.count;
        let header = log.read(block)?;
        if be32(&header, 0) == RECORD_MAGIC {
            return is_unmount(&log, block, &header, back);
        }
    }
    Ok(false)
}

/// Whether the record of a header is the one of an unmount, and reaches to the head.
fn is_unmount(log: &Blocks<'_>, block: u64, header: &[u8], to_head: u64) -> Result<bool> {
    let (version, length, size) = (be32(header, 8), be32(header, 12), be32(header, 320));
    let headers = if version & 2 != 0 {
        size.div_ceil(HEADER_COVERS_BYTES).max(1)
    } else {
        1
    };
    let blocks = u64::from(headers) + u64::from(length).div_ceil(BLOCK_BYTES);
    if be32(header, 40) != 1 || blocks != to_head {
        return Ok(false);
    }
    let operation = log.read(block + u64::from(headers))?;
    Ok(operation[9] & UNMOUNT != 0)
}
