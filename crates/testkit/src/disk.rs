//! A disk in memory, sparse and of any size.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_types::disk::{DiskError, DiskOperation, DiskReader, DiskWriter, Extent};

/// Bytes of the pages that a disk is kept in.
const PAGE_BYTES: u64 = 4096;

/// A disk in memory; pages that were never written are holes.
#[derive(Debug)]
pub struct MemoryDisk {
    size_bytes: u64,
    pages: Mutex<BTreeMap<u64, Box<[u8]>>>,
    unreadable: Mutex<Option<u64>>,
    unwritable: Mutex<Option<u64>>,
    changes: AtomicU64,
    /// What `changes` was when the disk was taken for a snapshot, if it was.
    frozen_at: Mutex<Option<u64>>,
    read_bytes: AtomicU64,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            pages: Mutex::default(),
            unreadable: Mutex::default(),
            unwritable: Mutex::default(),
            changes: AtomicU64::new(0),
            frozen_at: Mutex::default(),
            read_bytes: AtomicU64::new(0),
        }
    }

    /// A disk that holds these bytes.
    pub fn with(bytes: &[u8]) -> Self {
        let disk = Self::new(bytes.len() as u64);
        disk.write(0, bytes);
        disk
    }

    /// Writes without failing.
    pub fn write(&self, offset: u64, data: &[u8]) {
        assert!(
            offset + data.len() as u64 <= self.size_bytes,
            "a write behind the end"
        );
        self.changes.fetch_add(1, Ordering::Relaxed);
        let mut pages = self.pages();
        self.each_page(offset, data.len(), |page, inside, range| {
            let bytes = pages
                .entry(page)
                .or_insert_with(|| vec![0; PAGE_BYTES as usize].into());
            bytes[inside..inside + range.len()].copy_from_slice(&data[range]);
        });
    }

    /// All the bytes; for small disks.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size_bytes).expect("a small disk")];
        self.copy_out(0, &mut bytes);
        bytes
    }

    /// Another disk with the same bytes, which does not change with this one.
    pub fn copy(&self) -> Self {
        let copy = Self::new(self.size_bytes);
        *copy.pages() = self.pages().clone();
        copy
    }

    /// Whether two disks, which are not one and the same, hold the same bytes.
    pub fn holds_the_same_as(&self, other: &Self) -> bool {
        const HOLE: &[u8] = &[0; PAGE_BYTES as usize];
        let (mine, others) = (self.pages(), other.pages());
        let same = |number| {
            let page = mine.get(number).map_or(HOLE, |page| page);
            page == others.get(number).map_or(HOLE, |page| page)
        };
        self.size_bytes == other.size_bytes && mine.keys().chain(others.keys()).all(same)
    }

    /// Makes every read that touches this byte fail.
    pub fn fail_reads_at(&self, offset: u64) {
        *lock(&self.unreadable) = Some(offset);
    }

    /// Makes every write that touches this byte fail.
    pub fn fail_writes_at(&self, offset: u64) {
        *lock(&self.unwritable) = Some(offset);
    }

    /// From now on `check_unchanged` fails if anything is written.
    pub fn watch(&self) {
        *lock(&self.frozen_at) = Some(self.changes.load(Ordering::Relaxed));
    }

    /// How many bytes have been read from it.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, Box<[u8]>>> {
        lock(&self.pages)
    }

    fn copy_out(&self, offset: u64, buffer: &mut [u8]) {
        let pages = self.pages();
        self.each_page(offset, buffer.len(), |page, inside, range| {
            match pages.get(&page) {
                Some(bytes) => {
                    let length = range.len();
                    buffer[range].copy_from_slice(&bytes[inside..inside + length]);
                }
                None => buffer[range].fill(0),
            }
        });
    }

    /// Calls `each` with a page, where in it, and the range of the buffer, for all of a range.
    fn each_page(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, usize, std::ops::Range<usize>),
    ) {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let inside = (at % PAGE_BYTES) as usize;
            let count = (PAGE_BYTES as usize - inside).min(length - done);
            each(at / PAGE_BYTES, inside, done..done + count);
            done += count;
        }
    }

    fn check(
        &self,
        bad: &Mutex<Option<u64>>,
        operation: DiskOperation,
        offset: u64,
        length: u64,
    ) -> Result<(), DiskError> {
        let outside = offset
            .checked_add(length)
            .is_none_or(|end| end > self.size_bytes);
        let hit = lock(bad).is_some_and(|bad| (offset..offset + length).contains(&bad));
        if outside || hit {
            let message = if outside {
                "outside the disk"
            } else {
                "a bad sector"
            };
            return Err(self.error(operation, offset, length, message));
        }
        Ok(())
    }

    fn error(
        &self,
        operation: DiskOperation,
        offset: u64,
        length: u64,
        message: &str,
    ) -> DiskError {
        let (disk, source) = ("memory".to_owned(), io::Error::other(message.to_owned()));
        DiskError {
            disk,
            operation,
            offset,
            length,
            source,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskReader for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let pages = self.pages();
        let page = offset / PAGE_BYTES;
        let data = pages.contains_key(&page);
        let end = if data {
            let mut end = page;
            while pages.contains_key(&end) {
                end += 1;
            }
            end * PAGE_BYTES
        } else {
            pages
                .range(page..)
                .next()
                .map_or(self.size_bytes, |(next, _)| next * PAGE_BYTES)
        };
        Ok(Extent {
            offset,
            length: end.min(self.size_bytes) - offset,
            data,
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.check(
            &self.unreadable,
            DiskOperation::Read,
            offset,
            buffer.len() as u64,
        )?;
        self.read_bytes
            .fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.copy_out(offset, buffer);
        Ok(())
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        match *lock(&self.frozen_at) {
            Some(then) if then != self.changes.load(Ordering::Relaxed) => Err(self.error(
                DiskOperation::Read,
                0,
                self.size_bytes,
                "the disk was written to",
            )),
            _ => Ok(()),
        }
    }
}

impl DiskWriter for MemoryDisk {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.check(
            &self.unwritable,
            DiskOperation::Write,
            offset,
            data.len() as u64,
        )?;
        self.write(offset, data);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.check(&self.unwritable, DiskOperation::Write, offset, length)?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        let (end, mut pages) = (offset + length, self.pages());
        let last = end.div_ceil(PAGE_BYTES);
        let touched: Vec<u64> = pages
            .range(offset / PAGE_BYTES..last)
            .map(|(page, _)| *page)
            .collect();
        for page in touched {
            let start = page * PAGE_BYTES;
            let (from, to) = (
                offset.max(start) - start,
                end.min(start + PAGE_BYTES) - start,
            );
            if to - from == PAGE_BYTES {
                pages.remove(&page);
            } else if let Some(bytes) = pages.get_mut(&page) {
                bytes[from as usize..to as usize].fill(0);
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }
}
