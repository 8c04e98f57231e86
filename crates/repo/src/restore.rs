//! Restoring a disk, and proving that it is the one that was saved.
//!
//! The tree is walked in windows. Zeros go to the target at once; the blocks of
//! a window are sorted by where they are stored, so that each frame is read and
//! opened once, neighbours in one request. Every block is checked against its
//! id before it is written. In the end the target is flushed and read back,
//! and its root must be the backup's.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::{BackupId, Progress};
use tokio::runtime::Handle;

use crate::chunk::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::frame::FrameCoder;
use crate::index::{Index, Place};
use crate::known::{Known, Pin};
use crate::manifest::Content;
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::project::Inner;
use crate::read::{ChunkReader, MOVES_MAX, Visit, fetch_ahead};
use crate::scan::Scan;
use crate::store::pack_path;
use crate::tree::{FANOUT, Geometry, Root, TreeBuilder, encode_node};
use crate::workers::{self, Stop, StopOnDrop};

/// Blocks that are planned at a time: 32 GiB of disk in 24 MiB of memory.
const WINDOW_BLOCKS: usize = 512 << 10;
/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;
/// Bytes that are read for nothing rather than making one more request.
const GAP_BYTES: u64 = 256 << 10;
/// Chunks that are looked up in the index at a time.
const LOOK_UPS: usize = 4096;

/// A disk that is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The name of the content, as it was read back from the target.
    pub root: Root,
    /// The size of the disk.
    pub size_bytes: u64,
    /// Bytes of data that were written; the rest is zeros.
    pub data_bytes: u64,
}

/// What the workers of one restore share.
struct Session {
    /// Keeps what is read for as long as any worker lives.
    _pin: Pin,
    project: Arc<Inner>,
    known: Arc<Known>,
    handle: Handle,
    geometry: Geometry,
    target: Arc<dyn DiskWriter>,
    stop: Arc<Stop>,
    data_bytes: AtomicU64,
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
    // Every byte is written or made zero once, and read back once.
    progress.add_total(disk_bytes.saturating_mul(2));
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let session = Arc::new(Session {
        _pin: pin,
        known: project.known().await?,
        project: project.clone(),
        handle: Handle::current(),
        geometry,
        target,
        stop,
        data_bytes: AtomicU64::new(0),
    });
    let this = session.clone();
    workers::one(move || this.write_all(top)).await?;
    if session.read_back().await? != root {
        return Err(Error::RestoreDiffers { backup });
    }
    session.stop.complete();
    let data_bytes = session.data_bytes.load(Ordering::Relaxed);
    Ok(Restored {
        root,
        size_bytes: disk_bytes,
        data_bytes,
    })
}

impl Session {
    fn write_all(self: &Arc<Self>, top: ChunkId) -> Result<()> {
        let mut reader = ChunkReader::new(self.project.clone(), self.known.clone());
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

    /// Reads the target back and returns the root of what it holds.
    async fn read_back(self: &Arc<Self>) -> Result<Root> {
        let reader: Arc<dyn DiskReader> = self.target.clone();
        let scan = Arc::new(Scan::new(reader, self.geometry));
        let tree = Arc::new(Mutex::new(TreeBuilder::default()));
        let (this, leaves) = (self.clone(), tree.clone());
        let pieces = self.geometry.size_bytes.div_ceil(self.geometry.span(1));
        workers::run(workers::count(pieces), &self.stop, move || {
            this.hash(&scan, &leaves)
        })
        .await?;
        let tree = std::mem::take(&mut *tree.lock().unwrap_or_else(PoisonError::into_inner));
        let hasher = &self.project.keys.hasher;
        let nothing_below = |_, _| Ok::<_, Error>([ChunkId::ZERO; FANOUT]);
        let top = tree.build(self.geometry, hasher, nothing_below, |_, _| Ok(()))?;
        Ok(self.geometry.root(hasher, top))
    }

    fn hash(&self, scan: &Scan, leaves: &Mutex<TreeBuilder>) -> Result<()> {
        let hasher = &self.project.keys.hasher;
        let mut buffer = Vec::new();
        while let Some(piece) = scan.next_piece()? {
            let mut ids = [ChunkId::ZERO; FANOUT];
            let with = (hasher, &*self.stop);
            scan.read_piece(&piece, &mut ids, with, &mut buffer, |_| Ok(()))?;
            if let Some(encoded) = encode_node(1, &ids) {
                let id = hasher.id(ChunkKind::Node, &encoded);
                leaves
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .set_leaf(piece.index, id);
            }
        }
        Ok(())
    }
}

/// A block by its number on the disk and its id.
type Block = (u64, ChunkId);

/// A block to be written, and where its bytes are.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    place: Place,
    block: u64,
    id: ChunkId,
}

/// The part of the disk that is being planned.
struct Window<'s> {
    session: &'s Arc<Session>,
    /// Zeros that no write has been made for yet.
    zeros: Range<u64>,
    blocks: Vec<Block>,
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
        self.blocks.push((block, id));
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
        self.session.stop.check()?;
        let length = range.end - range.start;
        self.session.target.write_zeroes(range.start, length)?;
        self.session.stop.progress().advance(length);
        Ok(())
    }

    /// Writes the blocks gathered so far, wherever a collection moves them meanwhile.
    fn write_blocks(&mut self) -> Result<()> {
        let mut blocks = std::mem::take(&mut self.blocks);
        for _ in 0..MOVES_MAX {
            if blocks.is_empty() {
                return Ok(());
            }
            blocks = self.write_found(&blocks)?;
        }
        let lost = blocks.first().map(|(_, id)| Error::NoChunk { id: *id });
        lost.map_or(Ok(()), Err)
    }

    /// Writes blocks on all cores. Returns those whose packs were taken away.
    fn write_found(&self, blocks: &[Block]) -> Result<Vec<Block>> {
        let session = self.session.clone();
        let index = session.known.index();
        let blocks = find(blocks, index)?;
        let (requests, moved) = plan(&blocks, index)?;
        let moved = Arc::new(Mutex::new(moved));
        let count = workers::count(requests.len() as u64);
        let next = AtomicUsize::new(0);
        let (this, still_moved) = (session.clone(), moved.clone());
        let work = move || {
            let mut coder = FrameCoder::new();
            fetch_ahead(
                &this.project.objects,
                &this.handle,
                || requests.get(next.fetch_add(1, Ordering::Relaxed)),
                |request| {
                    let project = this.project.place.project;
                    (pack_path(project, request.pack), request.range.clone())
                },
                |request, stored| {
                    this.stop.check()?;
                    match stored {
                        Err(Error::Missing { .. }) if !this.known.has_pack(request.pack) => {
                            let wanted = request
                                .frames
                                .iter()
                                .flat_map(|f| &blocks[f.blocks.clone()]);
                            lock(&still_moved).extend(wanted.map(|w| (w.block, w.id)));
                            Ok(())
                        }
                        stored => this.fulfil(request, &stored?, &blocks, &mut coder),
                    }
                },
            )
        };
        let ended = workers::run(count, &session.stop, work);
        session.handle.block_on(ended)?;
        Ok(std::mem::take(&mut *lock(&moved)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frames of a pack that are read together.
#[derive(Debug)]
struct Request {
    pack: PackId,
    range: Range<u64>,
    frames: Vec<FrameWanted>,
}

/// A frame, and which of the wanted blocks are in it.
#[derive(Debug)]
struct FrameWanted {
    number: u16,
    entry: FrameEntry,
    /// Its chunks, counted through the pack.
    chunks: Range<usize>,
    blocks: Range<usize>,
}

/// Looks up where blocks are, and sorts them by that.
fn find(blocks: &[Block], index: &Index) -> Result<Vec<Wanted>> {
    let mut found = Vec::with_capacity(blocks.len());
    for some in blocks.chunks(LOOK_UPS) {
        let keys: Vec<_> = some.iter().map(|(_, id)| id.key()).collect();
        for ((block, id), place) in some.iter().copied().zip(index.get_many(&keys)?) {
            let place = place.ok_or(Error::NoChunk { id })?;
            found.push(Wanted { place, block, id });
        }
    }
    found.sort_unstable_by_key(|wanted| (wanted.place, wanted.block));
    Ok(found)
}

/// Cuts sorted blocks into requests: near frames of one pack go together.
/// Returns with them the blocks whose packs have been taken away since.
fn plan(blocks: &[Wanted], index: &Index) -> Result<(Vec<Request>, Vec<Block>)> {
    let (mut requests, mut moved) = (Vec::new(), Vec::new());
    let mut start = 0;
    while let Some(first) = blocks.get(start) {
        let number = first.place.pack;
        let Some(pack) = index.pack(number)? else {
            moved.push((first.block, first.id));
            start += 1;
            continue;
        };
        while let Some(first) = blocks.get(start).filter(|b| b.place.pack == number) {
            let (frame, _) = pack.frame_of(first.place.chunk);
            let chunks = pack.chunks_of(usize::from(frame));
            let inside =
                |b: &&Wanted| b.place.pack == number && chunks.contains(&(b.place.chunk as usize));
            let count = blocks[start..].iter().take_while(inside).count();
            let wanted = FrameWanted {
                number: frame,
                entry: pack.frames[usize::from(frame)],
                chunks,
                blocks: start..start + count,
            };
            start += count;
            push(&mut requests, pack.id, wanted);
        }
    }
    Ok((requests, moved))
}

/// Adds a frame to the last request, or as the first of a new one.
fn push(requests: &mut Vec<Request>, pack: PackId, frame: FrameWanted) {
    let stored = frame.entry.range();
    match requests.last_mut() {
        Some(last)
            if last.pack == pack
                && stored.start - last.range.end <= GAP_BYTES
                && stored.end - last.range.start <= READ_BYTES =>
        {
            last.range.end = stored.end;
            last.frames.push(frame);
        }
        _ => requests.push(Request {
            pack,
            range: stored,
            frames: vec![frame],
        }),
    }
}

impl Session {
    fn fulfil(
        &self,
        request: &Request,
        stored: &[u8],
        blocks: &[Wanted],
        coder: &mut FrameCoder,
    ) -> Result<()> {
        let seal = PackSeal::new(&self.project.keys, &self.project.place, request.pack);
        for frame in &request.frames {
            let start = (u64::from(frame.entry.offset) - request.range.start) as usize;
            let sealed = &stored[start..start + frame.entry.length as usize];
            let damaged = |problem| self.project.damaged_pack(request.pack, problem);
            let opened = coder
                .open(&seal, u32::from(frame.number), sealed)
                .map_err(damaged)?;
            let chunks = opened.chunks().map_err(damaged)?;
            let wanted = &blocks[frame.blocks.clone()];
            self.write_chunks(opened.bytes(), &chunks, frame.chunks.start, wanted)?;
        }
        Ok(())
    }

    /// Writes the wanted chunks of a frame, each checked against its id;
    /// neighbours in the frame that are neighbours on the disk in one piece.
    fn write_chunks(
        &self,
        plain: &[u8],
        chunks: &[(ChunkKind, Range<usize>)],
        first_chunk: usize,
        wanted: &[Wanted],
    ) -> Result<()> {
        let hasher = &self.project.keys.hasher;
        let mut run = Run::default();
        let mut checked = None;
        for block in wanted {
            let damaged = |problem| Error::DamagedChunk {
                id: block.id,
                problem,
            };
            let slot = block.place.chunk as usize - first_chunk;
            let (kind, range) = chunks
                .get(slot)
                .ok_or(damaged("its frame is short"))?
                .clone();
            let whole = self.geometry.block_range(block.block);
            if checked != Some(block.id) && hasher.id(kind, &plain[range.clone()]) != block.id {
                return Err(damaged("its bytes are others"));
            }
            if kind != ChunkKind::Block || range.len() as u64 != whole.end - whole.start {
                return Err(damaged("its length is not its place's"));
            }
            checked = Some(block.id);
            if run.plain.end == range.start && run.disk.end == whole.start {
                (run.plain.end, run.disk.end) = (range.end, whole.end);
            } else {
                self.write_run(
                    plain,
                    std::mem::replace(
                        &mut run,
                        Run {
                            plain: range,
                            disk: whole,
                        },
                    ),
                )?;
            }
        }
        self.write_run(plain, run)
    }

    fn write_run(&self, plain: &[u8], run: Run) -> Result<()> {
        if run.plain.is_empty() {
            return Ok(());
        }
        let length = run.disk.end - run.disk.start;
        self.target.write_at(run.disk.start, &plain[run.plain])?;
        self.data_bytes.fetch_add(length, Ordering::Relaxed);
        self.stop.progress().advance(length);
        Ok(())
    }
}

/// Bytes of a frame that go to the disk in one piece.
#[derive(Debug, Default)]
struct Run {
    plain: Range<usize>,
    disk: Range<u64>,
}
