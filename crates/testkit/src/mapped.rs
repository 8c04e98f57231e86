//! A disk whose source says what has changed on it, rightly or not.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_types::disk::{DiskError, DiskReader, Extent, NoChangeMap, Point};

/// One state of a disk, with what is said of it.
pub struct MappedDisk {
    disk: Arc<dyn DiskReader>,
    point: Option<Point>,
    earlier: Option<(Point, Vec<Range<u64>>)>,
    kept: AtomicBool,
}

impl MappedDisk {
    /// The disk as it is now, under this name; the source knows of no other.
    pub fn new(disk: Arc<dyn DiskReader>, point: &str) -> Self {
        Self {
            disk,
            point: Point::new(point),
            earlier: None,
            kept: AtomicBool::new(false),
        }
    }

    /// Lets the source say that it changed in these places since an earlier point.
    pub fn changed_since(mut self, earlier: &str, changes: Vec<Range<u64>>) -> Self {
        self.earlier = Point::new(earlier).map(|point| (point, changes));
        self
    }

    /// Whether the source was told to keep this point.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }
}

impl DiskReader for MappedDisk {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.disk.extent_at(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        self.disk.check_unchanged()
    }

    fn point(&self) -> Option<Point> {
        self.point.clone()
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        match &self.earlier {
            Some((point, changes)) if point == earlier => Ok(changes.clone()),
            _ => Err(NoChangeMap(format!("nothing is known of {earlier}"))),
        }
    }

    fn keep_point(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}
