//! Restoring a disk, and proving of any disk that it is the one that was saved.
//!
//! The tree is walked from its root in windows. Zeros go to the target at once; the blocks of
//! a window are sorted by where they are stored, so that each frame is read and
//! opened once, neighbours in one request. Every node and block is checked against its
//! id before it is written, and in the end the target is flushed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::{BackupId, Progress};
use tokio::runtime::Handle;

use crate::bulk::{BulkReader, Frame, Wanted};
use crate::chunk::{ChunkId, ChunkKind, Hasher};
use crate::error::{Error, Result};
use crate::known::Pin;
use crate::manifest::Content;
use crate::project::Inner;
use crate::read::{ChunkReader, Visit};
use crate::scan::Scan;
use crate::tree::{FANOUT, Geometry, Root, TreeBuilder, encode_node};
use crate::workers::{self, Stop, StopOnDrop, lock};

/// Blocks that are planned at a time: 32 GiB of disk in 24 MiB of memory.
const WINDOW_BLOCKS: usize = 512 << 10;

/// A disk that is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The name of the content.
    pub root: Root,
    /// The size of the disk.
    pub size_bytes: u64,
    /// Bytes of data that were written; the rest is zeros.
    pub data_bytes: u64,
    /// Bytes that were read out of packs for it.
    pub read_bytes: u64,
    /// In how many requests.
    pub requests: u64,
    /// Bytes that the frames with its data hold, of which it needed `data_bytes`.
    pub opened_bytes: u64,
}

/// What the workers of one restore share.
struct Session {
    /// Keeps what is read for as long as any worker lives.
    _pin: Pin,
    bulk: BulkReader,
    geometry: Geometry,
    target: Arc<dyn DiskWriter>,
    data_bytes: AtomicU64,
    zero_bytes: AtomicU64,
}

pub(crate) async fn restore_disk(
    project: &Arc<Inner>,
    backup: BackupId,
    target: Arc<dyn DiskWriter>,
    progress: Arc<Progress>,
) -> Result<Restored> {
    let (manifest, root, pin) = project.pin(backup).await?;
    let Content::Disk { geometry, top, .. } = manifest.content else {
        return Err(Error::NotADisk { backup });
    };
    let (target_bytes, disk_bytes) = (target.size_bytes(), geometry.size_bytes);
    if target_bytes < disk_bytes {
        return Err(Error::TargetTooSmall {
            target_bytes,
            disk_bytes,
        });
    }
    progress.add_total(disk_bytes);
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let session = Arc::new(Session {
        _pin: pin,
        bulk: BulkReader {
            known: project.known().await?,
            project: project.clone(),
            handle: Handle::current(),
            stop,
            fetched: Arc::default(),
        },
        geometry,
        target,
        data_bytes: AtomicU64::new(0),
        zero_bytes: AtomicU64::new(0),
    });
    let this = session.clone();
    workers::one(move || this.write_all(top)).await?;
    let data_bytes = session.data_bytes.load(Ordering::Relaxed);
    let zero_bytes = session.zero_bytes.load(Ordering::Relaxed);
    // All of it came from the root down, and no part was left out.
    if geometry.root(&project.keys.hasher, top) != root || data_bytes + zero_bytes != disk_bytes {
        return Err(Error::RestoreDiffers { backup });
    }
    let fetched = &session.bulk.fetched;
    Ok(Restored {
        root,
        size_bytes: disk_bytes,
        data_bytes,
        read_bytes: fetched.bytes(),
        requests: fetched.requests(),
        opened_bytes: fetched.opened_bytes(),
    })
}

/// Reads a disk and compares its root with the backup's.
pub(crate) async fn compare_disk(
    project: &Arc<Inner>,
    backup: BackupId,
    disk: Arc<dyn DiskReader>,
    progress: Arc<Progress>,
) -> Result<()> {
    let (manifest, root) = project.manifest(backup).await?;
    let Content::Disk { geometry, .. } = manifest.content else {
        return Err(Error::NotADisk { backup });
    };
    progress.add_total(geometry.size_bytes);
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let read = disk.size_bytes() >= geometry.size_bytes
        && read_root(project.clone(), disk, geometry, &stop).await? == root;
    if !read {
        return Err(Error::RestoreDiffers { backup });
    }
    stop.complete();
    Ok(())
}

/// The root of what a disk holds.
async fn read_root(
    project: Arc<Inner>,
    disk: Arc<dyn DiskReader>,
    geometry: Geometry,
    stop: &Arc<Stop>,
) -> Result<Root> {
    let scan = Scan::new(disk, geometry);
    let tree = Arc::new(Mutex::new(TreeBuilder::default()));
    let (keys, leaves, stopped) = (project.clone(), tree.clone(), stop.clone());
    let pieces = geometry.size_bytes.div_ceil(geometry.span(1));
    workers::run(workers::count(pieces), stop, move || {
        hash(&scan, &keys.keys.hasher, &stopped, &leaves)
    })
    .await?;
    let tree = std::mem::take(&mut *lock(&tree));
    let hasher = &project.keys.hasher;
    let nothing_below = |_, _| Ok::<_, Error>([ChunkId::ZERO; FANOUT]);
    let top = tree.build(geometry, hasher, nothing_below, |_, _| Ok(()))?;
    Ok(geometry.root(hasher, top))
}

/// The work of one worker at it.
fn hash(scan: &Scan, hasher: &Hasher, stop: &Stop, leaves: &Mutex<TreeBuilder>) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some(piece) = scan.next_piece()? {
        let mut ids = [ChunkId::ZERO; FANOUT];
        scan.read_piece(&piece, &mut ids, (hasher, stop), &mut buffer, |_| Ok(()))?;
        if let Some(encoded) = encode_node(1, &ids) {
            let id = hasher.id(ChunkKind::Node, &encoded);
            lock(leaves).set_leaf(piece.index, id);
        }
    }
    Ok(())
}

impl Session {
    fn write_all(self: &Arc<Self>, top: ChunkId) -> Result<()> {
        let bulk = &self.bulk;
        let reader = ChunkReader::new(bulk.project.clone(), bulk.known.clone());
        let mut reader = reader.counting(&bulk.fetched);
        let mut window = Window {
            session: self,
            zeros: 0..0,
            blocks: Vec::new(),
        };
        reader.walk(self.geometry, top, &mut window)?;
        window.write_zeros()?;
        window.write_blocks()?;
        Ok(self.target.flush()?)
    }
}

/// The part of the disk that is being planned.
struct Window<'s> {
    session: &'s Arc<Session>,
    /// Zeros that no write has been made for yet.
    zeros: Range<u64>,
    /// Blocks that are not written yet, by id, with their numbers on the disk.
    blocks: Vec<(ChunkId, u64)>,
}

impl Visit for Window<'_> {
    fn zeros(&mut self, range: Range<u64>) -> Result<()> {
        if self.zeros.end != range.start {
            self.write_zeros()?;
            self.zeros = range;
        } else {
            self.zeros.end = range.end;
        }
        Ok(())
    }

    fn block(&mut self, block: u64, id: ChunkId) -> Result<()> {
        self.blocks.push((id, block));
        if self.blocks.len() < WINDOW_BLOCKS {
            Ok(())
        } else {
            self.write_blocks()
        }
    }

    fn piece(&mut self, id: ChunkId) -> Result<()> {
        Err(Error::DamagedChunk {
            id,
            problem: "a disk has no pieces",
        })
    }
}

impl Window<'_> {
    fn write_zeros(&mut self) -> Result<()> {
        let range = std::mem::replace(&mut self.zeros, 0..0);
        if range.is_empty() {
            return Ok(());
        }
        self.session.bulk.stop.check()?;
        let length = range.end - range.start;
        self.session.target.write_zeroes(range.start, length)?;
        self.session.zero_bytes.fetch_add(length, Ordering::Relaxed);
        self.session.bulk.stop.progress().advance(length);
        Ok(())
    }

    /// Writes the blocks gathered so far.
    fn write_blocks(&mut self) -> Result<()> {
        let (blocks, session) = (std::mem::take(&mut self.blocks), self.session.clone());
        self.session.bulk.read(blocks, move || {
            let session = session.clone();
            move |frame: &Frame<'_>, wanted: &[Wanted<u64>]| session.write_chunks(frame, wanted)
        })
    }
}

impl Session {
    /// Writes the wanted chunks of a frame, each checked against its id;
    /// neighbours in the frame that are neighbours on the disk in one piece.
    fn write_chunks(&self, frame: &Frame<'_>, wanted: &[Wanted<u64>]) -> Result<()> {
        let mut run = Run::default();
        let mut checked = None;
        for block in wanted {
            let range = match checked {
                Some((id, ref range)) if id == block.id => Range::clone(range),
                _ => frame.find(block)?,
            };
            checked = Some((block.id, range.clone()));
            let whole = self.geometry.block_range(block.purpose);
            if range.len() as u64 != whole.end - whole.start {
                return Err(Error::DamagedChunk {
                    id: block.id,
                    problem: "its length is not its place's",
                });
            }
            if run.plain.end == range.start && run.disk.end == whole.start {
                (run.plain.end, run.disk.end) = (range.end, whole.end);
            } else {
                let next = Run {
                    plain: range,
                    disk: whole,
                };
                self.write_run(frame.plain, std::mem::replace(&mut run, next))?;
            }
        }
        self.write_run(frame.plain, run)
    }

    fn write_run(&self, plain: &[u8], run: Run) -> Result<()> {
        if run.plain.is_empty() {
            return Ok(());
        }
        let length = run.disk.end - run.disk.start;
        self.target.write_at(run.disk.start, &plain[run.plain])?;
        self.data_bytes.fetch_add(length, Ordering::Relaxed);
        self.bulk.stop.progress().advance(length);
        Ok(())
    }
}

/// Bytes of a frame that go to the disk in one piece.
#[derive(Debug, Default)]
struct Run {
    plain: Range<usize>,
    disk: Range<u64>,
}
