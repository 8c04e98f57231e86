//! A stored disk, open for reading at any place: what a replica is copied from.
//!
//! Every block is checked against its id before a byte of it is handed out.
//! Holes stay holes: whoever copies the disk never reads them.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use cairn_types::BackupId;
use cairn_types::disk::{DiskError, DiskOperation, DiskReader, Extent, NoChangeMap, Point};
use tokio::runtime::Handle;

use crate::changes;
use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::frame_cache::FrameCache;
use crate::known::{Known, Pin};
use crate::manifest::Content;
use crate::project::Inner;
use crate::read::ChunkReader;
use crate::tree::{FANOUT, Geometry, Root};
use crate::workers::lock;

/// What the name of a stored disk's state begins with.
const POINT: &str = "cairn";
/// Frames that are kept after use, for all who read the disk.
const FRAMES_KEPT: usize = 16;

/// A disk's backup as a disk.
pub(crate) struct StoredDisk {
    /// Keeps what is read for as long as the disk is open.
    _pin: Pin,
    backup: BackupId,
    project: Arc<Inner>,
    known: Arc<Known>,
    handle: Handle,
    geometry: Geometry,
    top: ChunkId,
    root: Root,
    frames: Arc<FrameCache>,
    /// One for each thread that has read at the same time as others.
    idle: Mutex<Vec<Cursor>>,
}

/// Where one thread is in the disk, with what it has read on the way there.
struct Cursor {
    reader: ChunkReader,
    /// The node of level 1 that was needed last, by its place in the line of such nodes.
    leaf: Option<u64>,
    /// That node's children.
    children: [ChunkId; FANOUT],
}

pub(crate) async fn open_disk(
    project: &Arc<Inner>,
    backup: BackupId,
) -> Result<Arc<dyn DiskReader>> {
    let (manifest, root, pin) = project.pin(backup).await?;
    let Content::Disk { geometry, top, .. } = manifest.content else {
        return Err(Error::NotADisk { backup });
    };
    Ok(Arc::new(StoredDisk {
        _pin: pin,
        backup,
        known: project.known().await?,
        project: project.clone(),
        handle: Handle::current(),
        geometry,
        top,
        root,
        frames: FrameCache::new(FRAMES_KEPT),
        idle: Mutex::default(),
    }))
}

impl StoredDisk {
    /// Lends a cursor out, and keeps none of its frames but those that all share. One that met an
    /// error is not used again.
    fn with_cursor<T>(&self, work: impl FnOnce(&mut Cursor) -> Result<T>) -> Result<T> {
        let idle = || lock(&self.idle);
        let lent = idle().pop();
        let mut cursor = lent.unwrap_or_else(|| Cursor {
            reader: self.reader(),
            leaf: None,
            children: [ChunkId::ZERO; FANOUT],
        });
        let done = work(&mut cursor)?;
        cursor.reader.let_go();
        idle().push(cursor);
        Ok(done)
    }

    fn reader(&self) -> ChunkReader {
        let (project, known) = (self.project.clone(), self.known.clone());
        ChunkReader::on(project, known, self.handle.clone()).sharing(&self.frames)
    }

    /// Where this disk differs from an earlier backup in the same project.
    fn changes(&self, backup: BackupId, root: Root) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let no = |error: Error| NoChangeMap(error.to_string());
        let (earlier, is_root, _pin) =
            self.handle.block_on(self.project.pin(backup)).map_err(no)?;
        let Content::Disk { geometry, top, .. } = earlier.content else {
            return Err(no(Error::NotADisk { backup }));
        };
        if is_root != root {
            return Err(NoChangeMap("the earlier backup is another".to_owned()));
        }
        let (before, now) = ((geometry, top), (self.geometry, self.top));
        changes::between(&mut self.reader(), before, now).map_err(no)
    }

    /// Takes the cursor to the node of level 1 at a place in their line. Where
    /// there is none, because all is zero, returns how far the zeros go.
    fn go_to(&self, cursor: &mut Cursor, index: u64) -> Result<Option<u64>> {
        if cursor.leaf == Some(index) {
            return Ok(None);
        }
        let start = index * self.geometry.span(1);
        let (mut id, mut level) = (self.top, self.geometry.height());
        loop {
            if id.is_zero() {
                let span = self.geometry.span(level);
                let end = (start / span).saturating_add(1).saturating_mul(span);
                return Ok(Some(end.min(self.geometry.size_bytes)));
            }
            let children = cursor.reader.node(id, level)?;
            if level == 1 {
                (cursor.leaf, cursor.children) = (Some(index), children);
                return Ok(None);
            }
            level -= 1;
            let below = start / self.geometry.span(level);
            id = children[(below % FANOUT as u64) as usize];
        }
    }

    fn extent(&self, cursor: &mut Cursor, offset: u64) -> Result<Extent> {
        let until = |end: u64, data| Extent {
            offset,
            length: end - offset,
            data,
        };
        if let Some(end) = self.go_to(cursor, offset / self.geometry.span(1))? {
            return Ok(until(end, false));
        }
        let first = offset / u64::from(self.geometry.block_bytes);
        let slot = (first % FANOUT as u64) as usize;
        let data = !cursor.children[slot].is_zero();
        let alike = |id: &&ChunkId| id.is_zero() != data;
        let blocks = cursor.children[slot..].iter().take_while(alike).count() as u64;
        let end = (first + blocks) * u64::from(self.geometry.block_bytes);
        Ok(until(end.min(self.geometry.size_bytes), data))
    }

    fn read(&self, cursor: &mut Cursor, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let block = at / u64::from(self.geometry.block_bytes);
            let range = self.geometry.block_range(block);
            let length = rest.len().min((range.end - at) as usize);
            let (now, later) = rest.split_at_mut(length);
            match self.block_id(cursor, block)? {
                id if id.is_zero() => now.fill(0),
                id => copy_part(cursor, id, &range, at, now)?,
            }
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }

    fn block_id(&self, cursor: &mut Cursor, block: u64) -> Result<ChunkId> {
        let slot = (block % FANOUT as u64) as usize;
        Ok(match self.go_to(cursor, block / FANOUT as u64)? {
            Some(_) => ChunkId::ZERO,
            None => cursor.children[slot],
        })
    }

    fn failed(&self, operation: DiskOperation, range: Range<u64>, error: Error) -> DiskError {
        DiskError {
            disk: format!("backup {}", self.backup),
            operation,
            offset: range.start,
            length: range.end - range.start,
            source: io::Error::other(error),
        }
    }
}

/// Copies the part of a block that begins at byte `at` of the disk.
fn copy_part(
    cursor: &mut Cursor,
    id: ChunkId,
    range: &Range<u64>,
    at: u64,
    target: &mut [u8],
) -> Result<()> {
    let plain = cursor.reader.block(id)?;
    let from = (at - range.start) as usize;
    let part = plain.get(from..from + target.len());
    let whole = plain.len() as u64 == range.end - range.start;
    let part = part.filter(|_| whole).ok_or(Error::DamagedChunk {
        id,
        problem: "it is not as long as its block",
    })?;
    target.copy_from_slice(part);
    Ok(())
}

impl DiskReader for StoredDisk {
    fn size_bytes(&self) -> u64 {
        self.geometry.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.with_cursor(|cursor| self.extent(cursor, offset))
            .map_err(|error| self.failed(DiskOperation::Map, offset..offset, error))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let range = offset..offset.saturating_add(buffer.len() as u64);
        if range.end > self.geometry.size_bytes {
            return Err(DiskError {
                disk: format!("backup {}", self.backup),
                operation: DiskOperation::Read,
                offset,
                length: buffer.len() as u64,
                source: io::ErrorKind::UnexpectedEof.into(),
            });
        }
        self.with_cursor(|cursor| self.read(cursor, offset, buffer))
            .map_err(|error| self.failed(DiskOperation::Read, range, error))
    }

    /// What is stored does not change.
    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }

    /// The backup's id and root: a copy of it can be told later what has changed since.
    fn point(&self) -> Option<Point> {
        Point::new(&format!("{POINT}:{}:{}", self.backup, self.root))
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let named = read_point(earlier);
        let (backup, root) =
            named.ok_or_else(|| NoChangeMap("it is no backup's copy".to_owned()))?;
        self.changes(backup, root)
    }
}

/// The backup and the root that a point names.
fn read_point(point: &Point) -> Option<(BackupId, Root)> {
    let mut parts = point.as_str().split(':');
    let (POINT, Some(backup), Some(root), None) =
        (parts.next()?, parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let mut bytes = [0; 32];
    hex::decode_to_slice(root, &mut bytes).ok()?;
    Some((backup.parse().ok()?, Root(bytes)))
}
