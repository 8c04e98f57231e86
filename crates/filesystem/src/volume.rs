//! The bytes of one file system: a range of a disk, with a small cache, since
//! structures of a few bytes are read much more often than whole blocks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::DiskReader;

use crate::error::{Error, Result};

/// What the disk is asked for at a time for small reads, at a multiple of itself. A backup is
/// stored in blocks of this size or of a part of it.
const UNIT_BYTES: u64 = 64 * 1024;
/// Units kept at most: 16 MiB.
const UNITS_MAX: usize = 256;

/// A range of a disk.
pub(crate) struct Volume {
    disk: Arc<dyn DiskReader>,
    start: u64,
    size_bytes: u64,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    units: HashMap<u64, (u64, Arc<[u8]>)>,
    /// Counts every use, so that the unit that was not used for longest goes first.
    uses: u64,
}

impl Volume {
    /// Errors: the range does not lie on the disk.
    pub(crate) fn new(disk: Arc<dyn DiskReader>, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > disk.size_bytes() {
            return Err(Error::BadRange {
                start: range.start,
                end: range.end,
            });
        }
        Ok(Self {
            disk,
            start: range.start,
            size_bytes: range.end - range.start,
            cache: Mutex::default(),
        })
    }

    /// Fills `buffer` from `offset`: a small one through the cache, a large one past it.
    ///
    /// Errors: it reaches behind the end; the disk.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size_bytes) {
            return Err(Error::damaged(
                format!("{} bytes at {offset}", buffer.len()),
                "they lie behind its end",
            ));
        }
        let start = self.start + offset;
        if buffer.len() as u64 >= UNIT_BYTES {
            return Ok(self.disk.read_at(start, buffer)?);
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = start + done as u64;
            let unit = self.unit(at / UNIT_BYTES)?;
            let within = (at % UNIT_BYTES) as usize;
            let length = (buffer.len() - done).min(unit.len() - within);
            buffer[done..done + length].copy_from_slice(&unit[within..within + length]);
            done += length;
        }
        Ok(())
    }

    /// `length` bytes from `offset`; the caller has limited the length.
    pub(crate) fn read_vec(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// One unit of the disk, which is shorter at its end.
    fn unit(&self, index: u64) -> Result<Arc<[u8]>> {
        if let Some(unit) = self.cached(index) {
            return Ok(unit);
        }
        let offset = index * UNIT_BYTES;
        let length = UNIT_BYTES.min(self.disk.size_bytes() - offset);
        let mut bytes = vec![0; length as usize];
        self.disk.read_at(offset, &mut bytes)?;
        let unit: Arc<[u8]> = bytes.into();
        self.keep(index, &unit);
        Ok(unit)
    }

    fn cached(&self, index: u64) -> Option<Arc<[u8]>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.uses += 1;
        let now = cache.uses;
        let (used, unit) = cache.units.get_mut(&index)?;
        *used = now;
        Some(Arc::clone(unit))
    }

    fn keep(&self, index: u64, unit: &Arc<[u8]>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.units.len() >= UNITS_MAX {
            let oldest = cache.units.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(index, _)| *index) {
                cache.units.remove(&oldest);
            }
        }
        let now = cache.uses;
        cache.units.insert(index, (now, Arc::clone(unit)));
    }
}
