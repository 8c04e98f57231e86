//! A disk that stops its reader at a chosen place.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use cairn_types::disk::{DiskError, DiskOperation, DiskReader, Extent};
use tokio::sync::Notify;

use crate::MemoryDisk;

/// A disk whose byte at a chosen offset cannot be read until it is told how
/// that read ends.
#[derive(Debug)]
pub struct GatedDisk {
    disk: MemoryDisk,
    offset: u64,
    reached: Notify,
    ending: Mutex<Option<Ending>>,
    told: Condvar,
}

/// How a read at the gate ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the disk's bytes.
    Reads,
    /// With an error.
    Fails,
}

impl GatedDisk {
    /// This disk with a gate at `offset`.
    pub fn new(disk: MemoryDisk, offset: u64) -> Self {
        let (reached, told) = (Notify::new(), Condvar::new());
        Self {
            disk,
            offset,
            reached,
            ending: Mutex::new(None),
            told,
        }
    }

    /// Returns when a read has arrived at the gate.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Tells every read at the gate, now and later, how it ends.
    pub fn end(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        self.told.notify_all();
    }

    fn wait(&self) -> Ending {
        self.reached.notify_one();
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *ending {
                Some(ending) => return ending,
                None => {
                    ending = self
                        .told
                        .wait(ending)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }
}

impl DiskReader for GatedDisk {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.disk.extent_at(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let length = buffer.len() as u64;
        let at_gate = (offset..offset + length).contains(&self.offset);
        if at_gate && self.wait() == Ending::Fails {
            let source = io::Error::other("the gate was told to fail");
            let (disk, operation) = ("gated".to_owned(), DiskOperation::Read);
            return Err(DiskError {
                disk,
                operation,
                offset,
                length,
                source,
            });
        }
        self.disk.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.disk.check_unchanged()
    }
}
