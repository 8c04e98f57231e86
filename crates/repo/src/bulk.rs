//! Reading many chunks, in the order of the store and on all cores: each frame
//! is read and opened once, and neighbours come in one request. Blocks.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use crate::chunk::{ChunkId, ChunkKind, Hasher};
use crate::error::{Error, Result};
use crate::frame::FrameCoder;
use crate::index::{Index, Place};
use crate::known::Known;
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::project::Inner;
use crate::read::{Fetched, MOVES_MAX, fetch_ahead};
use crate::store::pack_path;
use crate::workers::{self, Stop, lock};

/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;
/// Bytes that are read for nothing rather than making one more request.
const GAP_BYTES: u64 = 256 << 10;
/// Chunks that are looked up in the index at a time.
const LOOK_UPS: usize = 4096;

/// Who reads.
#[derive(Clone)]
pub(crate) struct BulkReader {
    pub project: Arc<Inner>,
    pub known: Arc<Known>,
    pub handle: Handle,
    pub stop: Arc<Stop>,
    pub fetched: Arc<Fetched>,
}

/// A chunk that is wanted, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<T> {
    place: Place,
    pub id: ChunkId,
    pub purpose: T,
}

/// An opened frame.
pub(crate) struct Frame<'f> {
    pub plain: &'f [u8],
    chunks: &'f [(ChunkKind, Range<usize>)],
    /// Its first chunk, counted through the pack.
    first_chunk: usize,
    hasher: &'f Hasher,
}

/// How chunks are read.
struct Plan<T> {
    wanted: Vec<Wanted<T>>,
    requests: Vec<Request>,
    next: AtomicUsize,
    /// Chunks whose packs a collection has taken away meanwhile.
    moved: Mutex<Vec<(ChunkId, T)>>,
}

/// Frames of a pack that are read together.
#[derive(Debug)]
struct Request {
    pack: PackId,
    range: Range<u64>,
    frames: Vec<FrameWanted>,
}

/// A frame, and which of the wanted chunks are in it.
#[derive(Debug)]
struct FrameWanted {
    number: u16,
    entry: FrameEntry,
    first_chunk: usize,
    wanted: Range<usize>,
}

impl BulkReader {
    /// Gives each frame with the wanted chunks in it to one of the workers that
    /// `worker` makes, wherever a collection moves the chunks meanwhile.
    pub fn read<T, W>(
        &self,
        mut chunks: Vec<(ChunkId, T)>,
        worker: impl Fn() -> W + Send + Sync + 'static,
    ) -> Result<()>
    where
        T: Copy + Ord + Send + Sync + 'static,
        W: FnMut(&Frame<'_>, &[Wanted<T>]) -> Result<()>,
    {
        let worker = Arc::new(worker);
        for _ in 0..MOVES_MAX {
            if chunks.is_empty() {
                return Ok(());
            }
            let plan = Arc::new(Plan::new(&chunks, self.known.index())?);
            let count = workers::count_waiting(plan.requests.len() as u64);
            let (this, planned, worker) = (self.clone(), plan.clone(), worker.clone());
            let work = move || this.work(&planned, worker());
            self.handle
                .block_on(workers::run(count, &self.stop, work))?;
            chunks = std::mem::take(&mut *lock(&plan.moved));
        }
        let lost = chunks.first().map(|(id, _)| Error::NoChunk { id: *id });
        lost.map_or(Ok(()), Err)
    }

    fn work<T: Copy>(
        &self,
        plan: &Plan<T>,
        mut each: impl FnMut(&Frame<'_>, &[Wanted<T>]) -> Result<()>,
    ) -> Result<()> {
        let mut coder = FrameCoder::new();
        fetch_ahead(
            &self.project.objects,
            &self.handle,
            || plan.requests.get(plan.next.fetch_add(1, Ordering::Relaxed)),
            |request| {
                let path = pack_path(self.project.place.project, request.pack);
                self.fetched.count(&request.range);
                (path, request.range.clone())
            },
            |request, stored| {
                self.stop.check()?;
                match stored {
                    Err(Error::Missing { .. }) if !self.known.has_pack(request.pack) => {
                        let frames = request.frames.iter();
                        let wanted = frames.flat_map(|frame| &plan.wanted[frame.wanted.clone()]);
                        lock(&plan.moved).extend(wanted.map(|w| (w.id, w.purpose)));
                        Ok(())
                    }
                    stored => self.open(request, &stored?, &mut coder, |frame, wanted| {
                        each(frame, &plan.wanted[wanted])
                    }),
                }
            },
        )
    }

    /// Opens the frames of what was read.
    fn open(
        &self,
        request: &Request,
        stored: &[u8],
        coder: &mut FrameCoder,
        mut each: impl FnMut(&Frame<'_>, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let project = &self.project;
        let seal = PackSeal::new(&project.keys, &project.place, request.pack);
        let damaged = |problem| project.damaged_pack(request.pack, problem);
        for frame in &request.frames {
            let start = (u64::from(frame.entry.offset) - request.range.start) as usize;
            let sealed = stored.get(start..start + frame.entry.length as usize);
            let opened = coder.open(&seal, u32::from(frame.number), sealed.unwrap_or_default());
            let opened = opened.map_err(damaged)?;
            self.fetched.count_opened(opened.bytes().len());
            let frame_here = Frame {
                plain: opened.bytes(),
                chunks: &opened.chunks().map_err(damaged)?,
                first_chunk: frame.first_chunk,
                hasher: &project.keys.hasher,
            };
            each(&frame_here, frame.wanted.clone())?;
        }
        Ok(())
    }
}

impl<T: Copy + Ord> Plan<T> {
    fn new(chunks: &[(ChunkId, T)], index: &Index) -> Result<Self> {
        let wanted = find(chunks, index)?;
        let (requests, moved) = requests(&wanted, index)?;
        Ok(Self {
            wanted,
            requests,
            next: AtomicUsize::new(0),
            moved: Mutex::new(moved),
        })
    }
}

/// Looks up where chunks are, and sorts them by that.
fn find<T: Copy + Ord>(chunks: &[(ChunkId, T)], index: &Index) -> Result<Vec<Wanted<T>>> {
    let mut found = Vec::with_capacity(chunks.len());
    for some in chunks.chunks(LOOK_UPS) {
        let keys: Vec<_> = some.iter().map(|(id, _)| id.key()).collect();
        for ((id, purpose), place) in some.iter().copied().zip(index.get_many(&keys)?) {
            let place = place.ok_or(Error::NoChunk { id })?;
            found.push(Wanted { place, id, purpose });
        }
    }
    found.sort_unstable_by_key(|wanted| (wanted.place, wanted.purpose));
    Ok(found)
}

/// Cuts sorted chunks into requests: near frames of one pack go together.
/// Returns with them the chunks whose packs have been taken away since.
#[expect(clippy::type_complexity, reason = "its only caller takes it apart")]
fn requests<T: Copy>(
    wanted: &[Wanted<T>],
    index: &Index,
) -> Result<(Vec<Request>, Vec<(ChunkId, T)>)> {
    let (mut requests, mut moved) = (Vec::new(), Vec::new());
    let mut start = 0;
    for same_pack in wanted.chunk_by(|a, b| a.place.pack == b.place.pack) {
        let end = start + same_pack.len();
        let Some(pack) = index.pack(same_pack[0].place.pack)? else {
            moved.extend(same_pack.iter().map(|w| (w.id, w.purpose)));
            start = end;
            continue;
        };
        while start < end {
            let (frame, _) = pack.frame_of(wanted[start].place.chunk);
            let chunks = pack.chunks_of(usize::from(frame));
            let inside = |w: &&Wanted<T>| chunks.contains(&(w.place.chunk as usize));
            let count = wanted[start..end].iter().take_while(inside).count();
            let frame = FrameWanted {
                number: frame,
                entry: pack.frames[usize::from(frame)],
                first_chunk: chunks.start,
                wanted: start..start + count,
            };
            start += count;
            push(&mut requests, pack.id, frame);
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

impl Frame<'_> {
    /// Where a wanted chunk's bytes are, having checked them against its id.
    pub fn find<T>(&self, wanted: &Wanted<T>) -> Result<Range<usize>> {
        let damaged = |problem| Error::DamagedChunk {
            id: wanted.id,
            problem,
        };
        let slot = (wanted.place.chunk as usize).wrapping_sub(self.first_chunk);
        let (kind, range) = self.chunks.get(slot).ok_or(damaged("its frame is short"))?;
        let plain = &self.plain[range.clone()];
        if *kind != ChunkKind::Block || self.hasher.id(*kind, plain) != wanted.id {
            return Err(damaged("its bytes are others"));
        }
        Ok(range.clone())
    }
}
