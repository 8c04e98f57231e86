//! The volume as it is once the log is replayed: what the log changed is kept in memory, in sectors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::volume::Volume;

const SECTOR_BYTES: usize = 512;
/// Sectors that are kept at most: 128 MiB.
const SECTORS_MAX: usize = 1 << 18;

/// Of all file systems that are open: 512 MiB.
static TOGETHER: Together = Together {
    sectors: AtomicUsize::new(0),
    max: 4 * SECTORS_MAX,
};

/// What views keep together.
struct Together {
    sectors: AtomicUsize,
    max: usize,
}

/// A volume, and what lies over it.
pub(super) struct View {
    volume: Arc<Volume>,
    sectors: BTreeMap<u64, Box<[u8; SECTOR_BYTES]>>,
    together: &'static Together,
}

impl View {
    /// The volume as it is on the disk.
    pub(super) fn new(volume: Arc<Volume>) -> Self {
        Self {
            volume,
            sectors: BTreeMap::new(),
            together: &TOGETHER,
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
            let Together { sectors, max } = self.together;
            if sectors.fetch_add(1, Ordering::Relaxed) >= *max {
                sectors.fetch_sub(1, Ordering::Relaxed);
                return Err(Error::Busy);
            }
            self.sectors.insert(sector, content);
        }
        let content = self.sectors.get_mut(&sector);
        Ok(content.expect("it was put there"))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let kept = self.sectors.len();
        self.together.sectors.fetch_sub(kept, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use cairn_types::Kind;
    use cairn_types::disk::{DiskError, DiskReader, Extent};

    use super::*;

    /// A disk of zeros.
    struct Zeros;

    impl DiskReader for Zeros {
        fn size_bytes(&self) -> u64 {
            u64::MAX / 2
        }

        fn extent_at(&self, _: u64) -> std::result::Result<Extent, DiskError> {
            unreachable!("nobody asks")
        }

        fn read_at(&self, _: u64, buffer: &mut [u8]) -> std::result::Result<(), DiskError> {
            buffer.fill(0);
            Ok(())
        }

        fn check_unchanged(&self) -> std::result::Result<(), DiskError> {
            Ok(())
        }
    }

    #[test]
    fn what_all_keep_together_has_a_limit_and_is_given_back() {
        static TWO: Together = Together {
            sectors: AtomicUsize::new(0),
            max: 2,
        };
        let size = Zeros.size_bytes();
        let volume = Arc::new(Volume::new(Arc::new(Zeros), 0..size).unwrap());
        let view = || {
            let mut view = View::new(Arc::clone(&volume));
            view.together = &TWO;
            view
        };
        let (mut one, mut other) = (view(), view());
        one.write(0, &[1]).unwrap();
        one.write(1, &[1]).unwrap();
        other.write(0, &[1]).unwrap();
        let refused = other.write(512, &[1]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Transient);
        drop(one);
        other.write(512, &[1]).unwrap();
        drop(other);
        assert_eq!(TWO.sectors.load(Ordering::Relaxed), 0);
    }
}
