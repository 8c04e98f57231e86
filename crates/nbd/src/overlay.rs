//! A disk to write to over one that stays as it is: what is written goes to a
//! file of its own, block by block, and is read from there.
//!
//! The file has no name and goes with the overlay, however the process ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::disk::{DiskError, DiskOperation, DiskReader, DiskWriter, Extent};
use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::error::{Error, Result};

/// Bytes that become the overlay's own at once.
const BLOCK_BYTES: u64 = 64 << 10;
/// Blocks that share a lock; so many are written to at the same time.
const LOCKS: usize = 64;
/// Blocks that are looked at to find where a run ends.
const RUN_BLOCKS_MAX: u64 = 1 << 14;
const WORD_BITS: u64 = u64::BITS as u64;

/// A disk to write to over one that stays as it is.
pub struct Overlay {
    base: Arc<dyn DiskReader>,
    size_bytes: u64,
    file: File,
    /// A bit for each block: whether it is in the file.
    own: Vec<AtomicU64>,
    /// Held while a block becomes the overlay's own, by its number.
    locks: [Mutex<()>; LOCKS],
    own_blocks: AtomicU64,
    own_blocks_max: u64,
}

impl Overlay {
    /// An overlay that keeps at most `limit_bytes` of what is written to it, in a
    /// file of the folder's file system.
    ///
    /// Errors: `Transient`, `Exhausted` there can be no such file.
    pub fn new(base: Arc<dyn DiskReader>, folder: &Path, limit_bytes: u64) -> Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(opened.map_err(|error| Error::Scratch(error.into()))?);
        let size_bytes = base.size_bytes();
        file.set_len(size_bytes).map_err(Error::Scratch)?;
        let words = size_bytes.div_ceil(BLOCK_BYTES).div_ceil(WORD_BITS);
        Ok(Self {
            base,
            size_bytes,
            file,
            own: (0..words).map(|_| AtomicU64::new(0)).collect(),
            locks: [const { Mutex::new(()) }; LOCKS],
            own_blocks: AtomicU64::new(0),
            own_blocks_max: limit_bytes / BLOCK_BYTES,
        })
    }

    /// Bytes that were written and are kept.
    pub fn written_bytes(&self) -> u64 {
        self.own_blocks.load(Ordering::Relaxed) * BLOCK_BYTES
    }

    fn is_own(&self, block: u64) -> bool {
        let word = &self.own[(block / WORD_BITS) as usize];
        word.load(Ordering::Acquire) & (1 << (block % WORD_BITS)) != 0
    }

    /// Called with all of the block in the file, and its lock held.
    fn set_own(&self, block: u64) {
        let word = &self.own[(block / WORD_BITS) as usize];
        word.fetch_or(1 << (block % WORD_BITS), Ordering::Release);
    }

    fn lock(&self, block: u64) -> MutexGuard<'_, ()> {
        let lock = &self.locks[(block % LOCKS as u64) as usize];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of a range, none of which reaches into another block.
    fn parts(&self, offset: u64, length: u64) -> impl Iterator<Item = Part> + use<> {
        let (size_bytes, mut at, end) = (self.size_bytes, offset, offset + length);
        std::iter::from_fn(move || {
            let block = at / BLOCK_BYTES;
            let block_end = ((block + 1) * BLOCK_BYTES).min(size_bytes);
            let part = Part {
                block,
                offset: at,
                length: end.min(block_end) - at,
                block_bytes: block_end - block * BLOCK_BYTES,
            };
            at += part.length;
            (part.length > 0).then_some(part)
        })
    }

    /// Makes a block the overlay's own, with what it holds below, and has `write` change it.
    fn change(&self, part: &Part, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _alone = self.lock(part.block);
        if self.is_own(part.block) {
            return write();
        }
        if self.own_blocks.fetch_add(1, Ordering::Relaxed) >= self.own_blocks_max {
            self.own_blocks.fetch_sub(1, Ordering::Relaxed);
            let full = "as much is written to it as may be";
            return Err(io::Error::new(io::ErrorKind::StorageFull, full));
        }
        let made = self.copy_up(part).and_then(|()| write());
        match made {
            Ok(()) => self.set_own(part.block),
            Err(_) => drop(self.own_blocks.fetch_sub(1, Ordering::Relaxed)),
        }
        made
    }

    /// Copies what a block holds below into the file, unless all of it is about to change.
    fn copy_up(&self, part: &Part) -> io::Result<()> {
        if part.length == part.block_bytes {
            return Ok(());
        }
        let start = part.block * BLOCK_BYTES;
        let mut bytes = vec![0; part.block_bytes as usize];
        let read = self.base.read_at(start, &mut bytes);
        read.map_err(|error| io::Error::other(error.to_string()))?;
        self.file.write_all_at(&bytes, start)
    }

    fn failed(&self, operation: DiskOperation, place: (u64, u64), source: io::Error) -> DiskError {
        DiskError {
            disk: "overlay".to_owned(),
            operation,
            offset: place.0,
            length: place.1,
            source,
        }
    }

    fn refuse_outside(
        &self,
        operation: DiskOperation,
        place: (u64, u64),
    ) -> std::result::Result<(), DiskError> {
        match place.0.checked_add(place.1) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => Err(self.failed(operation, place, io::ErrorKind::InvalidInput.into())),
        }
    }
}

/// A part of a range within one block.
struct Part {
    block: u64,
    offset: u64,
    length: u64,
    /// What of the block is on the disk: less than a block at its end.
    block_bytes: u64,
}

impl DiskReader for Overlay {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> std::result::Result<Extent, DiskError> {
        let block = offset / BLOCK_BYTES;
        let until = |end: u64, data| Extent {
            offset,
            length: end.min(self.size_bytes) - offset,
            data,
        };
        let same = |end: u64, own| {
            let end = end.min(block + RUN_BLOCKS_MAX);
            let other = (block + 1..end).find(|next| self.is_own(*next) != own);
            other.unwrap_or(end) * BLOCK_BYTES
        };
        if self.is_own(block) {
            let blocks = self.size_bytes.div_ceil(BLOCK_BYTES);
            return Ok(until(same(blocks, true), true));
        }
        let below = self.base.extent_at(offset)?;
        let end = same(below.end().div_ceil(BLOCK_BYTES), false);
        Ok(until(end.min(below.end()), below.data))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), DiskError> {
        let place = (offset, buffer.len() as u64);
        self.refuse_outside(DiskOperation::Read, place)?;
        let mut rest = buffer;
        for part in self.parts(place.0, place.1) {
            let (now, later) = rest.split_at_mut(part.length as usize);
            if self.is_own(part.block) {
                let read = self.file.read_exact_at(now, part.offset);
                read.map_err(|error| self.failed(DiskOperation::Read, place, error))?;
            } else {
                self.base.read_at(part.offset, now)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn check_unchanged(&self) -> std::result::Result<(), DiskError> {
        self.base.check_unchanged()
    }
}

impl DiskWriter for Overlay {
    fn write_at(&self, offset: u64, data: &[u8]) -> std::result::Result<(), DiskError> {
        let place = (offset, data.len() as u64);
        self.refuse_outside(DiskOperation::Write, place)?;
        let mut rest = data;
        for part in self.parts(place.0, place.1) {
            let (now, later) = rest.split_at(part.length as usize);
            self.change(&part, || self.file.write_all_at(now, part.offset))
                .map_err(|error| self.failed(DiskOperation::Write, place, error))?;
            rest = later;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> std::result::Result<(), DiskError> {
        let place = (offset, length);
        self.refuse_outside(DiskOperation::Write, place)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for part in self.parts(offset, length) {
            self.change(&part, || {
                let punched = rustix::fs::fallocate(&self.file, punch, part.offset, part.length);
                Ok(punched?)
            })
            .map_err(|error| self.failed(DiskOperation::Write, place, error))?;
        }
        Ok(())
    }

    /// Nothing of it outlives the process, so there is nothing to make durable.
    fn flush(&self) -> std::result::Result<(), DiskError> {
        Ok(())
    }
}
