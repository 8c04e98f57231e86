//! The volume as it is once the log is replayed: what the log changed is kept in memory, in sectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::volume::Volume;

const SECTOR_BYTES: usize = 512;
/// Sectors that are kept at most: 128 MiB.
const SECTORS_MAX: usize = 1 << 18;

/// A volume, and what lies over it.
pub(super) struct View {
    volume: Arc<Volume>,
    sectors: BTreeMap<u64, Box<[u8; SECTOR_BYTES]>>,
}

impl View {
    /// The volume as it is on the disk.
    pub(super) fn new(volume: Arc<Volume>) -> Self {
        Self {
            volume,
            sectors: BTreeMap::new(),
        }
    }

    /// `length` bytes from byte `start`, and whether the log changed any of them. The checksum of a structure is
    /// made when it is written back: where the log changed it, the one that stands in it is an older one's.
    pub(super) fn read(&self, start: u64, length: usize) -> Result<(Vec<u8>, bool)> {
        let mut bytes = self.volume.read_vec(start, length)?;
        let end = start + length as u64;
        let size = SECTOR_BYTES as u64;
        let mut is_changed = false;
        for (sector, content) in self.sectors.range(start / size..end.div_ceil(size)) {
            let at = sector * size;
            let (from, to) = (at.max(start), (at + size).min(end));
            bytes[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&content[(from - at) as usize..(to - at) as usize]);
            is_changed = true;
        }
        Ok((bytes, is_changed))
    }

    /// Lays bytes over the volume, on which they have to lie.
    pub(super) fn write(&mut self, start: u64, bytes: &[u8]) -> Result<()> {
        let size = SECTOR_BYTES as u64;
        let mut done = 0;
        while done < bytes.len() {
            let at = start + done as u64;
            let (sector, within) = (at / size, (at % size) as usize);
            let length = (SECTOR_BYTES - within).min(bytes.len() - done);
            let content = self.sector(sector)?;
            content[within..within + length].copy_from_slice(&bytes[done..done + length]);
            done += length;
        }
        Ok(())
    }

    fn sector(&mut self, sector: u64) -> Result<&mut [u8; SECTOR_BYTES]> {
        if !self.sectors.contains_key(&sector) {
            if self.sectors.len() >= SECTORS_MAX {
                return Err(Error::TooLarge {
                    what: "what the log changes",
                    limit: (SECTORS_MAX * SECTOR_BYTES) as u64,
                });
            }
            let mut content = Box::new([0; SECTOR_BYTES]);
            self.volume
                .read(sector * SECTOR_BYTES as u64, &mut *content)?;
            self.sectors.insert(sector, content);
        }
        let content = self.sectors.get_mut(&sector);
        Ok(content.expect("it was put there"))
    }
}
