//! A disk of a running guest, as it was at one moment: what an NBD server in
//! its QEMU exports, and what stands behind that export.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_types::disk::{
    Because, DiskError, DiskOperation, DiskReader, Extent, NoChangeMap, Point,
};

use crate::change_map::bitmap::dirty_runs;
use crate::lock::Access;
use crate::nbd::{Context, MAX_CONNECTIONS, NbdError, Pool};

/// What keeps the moment of a disk in its guest's QEMU, and knows what has changed until then.
pub(crate) trait Held: Debug + Send + Sync {
    /// What is to be known of an error: why the moment may be lost.
    const HINT: &'static str;

    fn point(&self) -> Option<Point>;

    /// As [`DiskReader::changes_since`], of a disk of this size whose runs `extent_at` tells.
    fn changes_since(
        &self,
        earlier: &Point,
        size_bytes: u64,
        extent_at: impl Fn(u64) -> io::Result<Extent>,
    ) -> Result<Vec<Range<u64>>, NoChangeMap>;

    /// An error if what was read last may be of another moment.
    fn check(&self) -> io::Result<()>;

    /// Lets go of the moment, once nobody reads it any more; `kept` says whether a
    /// later backup will count from it.
    fn end(&self, kept: bool);
}

/// The disk, open until it is dropped.
#[derive(Debug)]
pub(crate) struct LiveDisk<H: Held> {
    name: String,
    pool: Pool,
    held: H,
    kept: AtomicBool,
}

impl<H: Held> LiveDisk<H> {
    pub(crate) fn new(name: &str, pool: Pool, held: H) -> Self {
        Self {
            name: name.to_owned(),
            pool,
            held,
            kept: AtomicBool::new(false),
        }
    }

    fn error(
        &self,
        operation: DiskOperation,
        (offset, length): (u64, u64),
        source: io::Error,
    ) -> DiskError {
        DiskError {
            disk: self.name.clone(),
            operation,
            offset,
            length,
            source: Because::error(kind_of(&source), format!("{source} ({})", H::HINT)),
        }
    }
}

/// A guest that ends has its connections end: that is no damage, and another attempt reads its images at rest.
fn kind_of(error: &io::Error) -> io::ErrorKind {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::ErrorKind::ConnectionReset,
        kind => kind,
    }
}

/// Connections to an export of the NBD server at `socket`. Nothing more is needed of
/// the socket's path when this returns.
pub(crate) fn connect(socket: &Path, export: &str) -> Result<Pool, NbdError> {
    negotiate(socket, export, &Context::Allocation, MAX_CONNECTIONS)
}

/// What a bitmap of an export notes.
pub(crate) fn read_bitmap(
    socket: &Path,
    export: &str,
    bitmap: &str,
) -> Result<Vec<Range<u64>>, NoChangeMap> {
    let asked = negotiate(socket, export, &Context::DirtyBitmap(bitmap.to_owned()), 1);
    let asked = asked.map_err(|error| NoChangeMap(error.to_string()))?;
    let changes = dirty_runs(asked.size_bytes(), |at| asked.extent_at(at));
    asked.disconnect();
    changes
}

fn negotiate(
    socket: &Path,
    export: &str,
    context: &Context,
    count: usize,
) -> Result<Pool, NbdError> {
    let streams = (0..count).map(|_| UnixStream::connect(socket));
    let streams = streams.collect::<io::Result<Vec<_>>>()?;
    Pool::negotiate(streams, export, Access::Read, context)
}

impl<H: Held> DiskReader for LiveDisk<H> {
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

    fn check_unchanged(&self) -> Result<(), DiskError> {
        let all = (0, self.size_bytes());
        let checked = self.held.check();
        checked.map_err(|source| self.error(DiskOperation::Read, all, source))
    }

    fn point(&self) -> Option<Point> {
        self.held.point()
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let extent_at = |at| self.pool.extent_at(at);
        self.held
            .changes_since(earlier, self.size_bytes(), extent_at)
    }

    fn keep_point(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl<H: Held> Drop for LiveDisk<H> {
    fn drop(&mut self) {
        self.pool.disconnect();
        self.held.end(*self.kept.get_mut());
    }
}
