//! A disk of a running guest, as it was at one moment.

use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_types::disk::{DiskError, DiskOperation, DiskReader, Extent, NoChangeMap, Point};

use super::Session;
use super::bitmaps::Bitmaps;
use super::fleece::{Kind, Part};
use crate::change_map::bitmap::dirty_runs;
use crate::lock::Access;
use crate::nbd::{Context, MAX_CONNECTIONS, NbdError, Pool};

/// The disk, open until it is dropped; then it is taken out of the guest's QEMU.
#[derive(Debug)]
pub(super) struct GuestDisk {
    name: String,
    index: usize,
    pool: Pool,
    bitmaps: Result<Bitmaps, NoChangeMap>,
    kept: AtomicBool,
    session: Arc<Session>,
}

impl GuestDisk {
    /// Connects to the export of a disk at `socket`, and reads what its bitmaps held. All that
    /// is needed of the socket is done when this returns.
    pub(super) fn connect(
        name: &str,
        part: &mut Part,
        socket: &Path,
        session: &Arc<Session>,
    ) -> Result<Self, NbdError> {
        let export = Kind::Export.name(part.index);
        let connect = |context: Context, count: usize| {
            let streams = (0..count).map(|_| UnixStream::connect(socket));
            let streams = streams.collect::<io::Result<Vec<_>>>()?;
            Pool::negotiate(streams, &export, Access::Read, &context)
        };
        let pool = connect(Context::Allocation, MAX_CONNECTIONS)?;
        if let Ok(bitmaps) = &mut part.bitmaps {
            bitmaps.set_changes(part.index, |copy| {
                let asked = connect(Context::DirtyBitmap(copy.to_owned()), 1);
                let asked = asked.map_err(|error| NoChangeMap(error.to_string()))?;
                let changes = dirty_runs(asked.size_bytes(), |at| asked.extent_at(at));
                asked.disconnect();
                changes
            });
        }
        let none = NoChangeMap("its bitmaps were read already".to_owned());
        Ok(Self {
            name: name.to_owned(),
            index: part.index,
            pool,
            bitmaps: std::mem::replace(&mut part.bitmaps, Err(none)),
            kept: AtomicBool::new(false),
            session: Arc::clone(session),
        })
    }

    fn error(
        &self,
        operation: DiskOperation,
        (offset, length): (u64, u64),
        source: io::Error,
    ) -> DiskError {
        let why = "QEMU gives a disk's state up when its scratch file is full or slow";
        DiskError {
            disk: self.name.clone(),
            operation,
            offset,
            length,
            source: io::Error::new(source.kind(), format!("{source} ({why})")),
        }
    }
}

impl DiskReader for GuestDisk {
    fn size_bytes(&self) -> u64 {
        self.pool.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let found = self.pool.extent_at(offset);
        found.map_err(|source| self.error(DiskOperation::Map, (offset, 0), source))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let read = self.pool.read_at(offset, buffer);
        let place = (offset, buffer.len() as u64);
        read.map_err(|source| self.error(DiskOperation::Read, place, source))
    }

    /// What QEMU answers is of the moment, or an error.
    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn point(&self) -> Option<Point> {
        self.bitmaps.as_ref().ok().map(Bitmaps::point)
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let bitmaps = self.bitmaps.as_ref().map_err(Clone::clone)?;
        let extent_at = |at| self.pool.extent_at(at);
        bitmaps.changes_since(earlier, self.size_bytes(), extent_at)
    }

    fn keep_point(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for GuestDisk {
    fn drop(&mut self) {
        self.pool.disconnect();
        let kept = *self.kept.get_mut();
        self.session
            .end_disk(self.index, self.bitmaps.as_ref().ok(), kept);
    }
}
