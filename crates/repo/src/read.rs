//! Reading chunks and trees out of packs. Blocks; called by workers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::buffer::Buffer;
use crate::chunk::{ChunkId, ChunkKind, Hasher};
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::filetree;
use crate::frame::{FrameCoder, FrameKey, OwnedFrame};
use crate::frame_cache::FrameCache;
use crate::index::{PackInfo, Place};
use crate::known::Known;
use crate::manifest::Content;
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::project::Inner;
use crate::store::{Objects, pack_path};
use crate::tree::{FANOUT, Geometry, decode_node};

/// Frames that are kept after use: neighbouring nodes share them.
const FRAMES_KEPT: usize = 8;
/// How often a chunk may move while a reader is on its way to it.
pub(crate) const MOVES_MAX: usize = 64;

/// What a piece of work has read out of the store's packs.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    bytes: AtomicU64,
    requests: AtomicU64,
    opened: AtomicU64,
}

impl Fetched {
    /// Counts one request.
    pub fn count(&self, range: &Range<u64>) {
        let bytes = range.end - range.start;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the plain bytes of a frame that was opened.
    pub fn count_opened(&self, bytes: usize) {
        self.opened.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn opened_bytes(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Reads single chunks, each checked against its id.
pub(crate) struct ChunkReader {
    project: Arc<Inner>,
    known: Arc<Known>,
    handle: Handle,
    frames: Arc<FrameCache>,
    /// The frame that was needed last.
    current: Option<(FrameKey, Arc<OwnedFrame>)>,
    fetched: Arc<Fetched>,
}

impl ChunkReader {
    /// Must be called on a runtime.
    pub fn new(project: Arc<Inner>, known: Arc<Known>) -> Self {
        Self::on(project, known, Handle::current())
    }

    /// For a thread of no runtime: the store works on this one.
    pub fn on(project: Arc<Inner>, known: Arc<Known>, handle: Handle) -> Self {
        Self {
            project,
            known,
            handle,
            frames: FrameCache::new(FRAMES_KEPT),
            current: None,
            fetched: Arc::default(),
        }
    }

    /// Has it count what it reads together with others.
    pub fn counting(mut self, fetched: &Arc<Fetched>) -> Self {
        self.fetched = fetched.clone();
        self
    }

    /// Has it keep what it opens together with others.
    pub fn sharing(mut self, frames: &Arc<FrameCache>) -> Self {
        self.frames = frames.clone();
        self
    }

    /// The keys of the ids that it reads by.
    pub fn hasher(&self) -> &Hasher {
        &self.project.keys.hasher
    }

    /// The children of a node.
    pub fn node(&mut self, id: ChunkId, level: u8) -> Result<[ChunkId; FANOUT]> {
        let plain = self.chunk(id, ChunkKind::Node)?;
        decode_node(level, plain).map_err(|problem| Error::DamagedChunk {
            id,
            problem: problem.0,
        })
    }

    /// The bytes of a node.
    pub fn node_bytes(&mut self, id: ChunkId) -> Result<&[u8]> {
        self.chunk(id, ChunkKind::Node)
    }

    /// The bytes of a block.
    pub fn block(&mut self, id: ChunkId) -> Result<&[u8]> {
        self.chunk(id, ChunkKind::Block)
    }

    /// The bytes of a chunk, which are what its id names.
    fn chunk(&mut self, id: ChunkId, kind: ChunkKind) -> Result<&[u8]> {
        let (key, frame, slot) = self.find(id)?;
        let damaged = |problem| Error::DamagedChunk { id, problem };
        let (_, frame) = self.current.insert((key, frame));
        let (found, plain) = frame.chunk(slot).ok_or(damaged("its frame is short"))?;
        if found != kind || self.project.keys.hasher.id(kind, plain) != id {
            return Err(damaged("its bytes are others"));
        }
        Ok(plain)
    }

    /// Lets go of the frame that was needed last, which is as large as many chunks.
    pub fn let_go(&mut self) {
        self.current = None;
    }

    /// The frame of a chunk, wherever a collection moves it meanwhile, and the
    /// chunk's number in it.
    fn find(&self, id: ChunkId) -> Result<(FrameKey, Arc<OwnedFrame>, u16)> {
        for _ in 0..MOVES_MAX {
            let place = self.known.index().get(&id.key())?;
            let place = place.ok_or(Error::NoChunk { id })?;
            let Some(pack) = self.known.index().pack(place.pack)? else {
                continue;
            };
            match self.frame_at(place, &pack) {
                Err(Error::Missing { .. }) if !self.known.has_pack(pack.id) => {}
                found => return found,
            }
        }
        Err(Error::NoChunk { id })
    }

    fn frame_at(&self, place: Place, pack: &PackInfo) -> Result<(FrameKey, Arc<OwnedFrame>, u16)> {
        let (number, slot) = pack.frame_of(place.chunk);
        let key = (place.pack, number);
        let frame = match &self.current {
            Some((current, frame)) if *current == key => frame.clone(),
            _ => self.frames.get(key, |coder, buffer| {
                self.open_frame((coder, buffer), pack, number)
            })?,
        };
        Ok((key, frame, slot))
    }

    fn open_frame(
        &self,
        (coder, buffer): (&mut FrameCoder, Buffer),
        pack: &PackInfo,
        number: u16,
    ) -> Result<OwnedFrame> {
        let frame = pack.frames[usize::from(number)];
        self.fetched.count(&frame.range());
        let stored = self
            .handle
            .block_on(self.project.read_frame(pack.id, frame))?;
        let seal = PackSeal::new(&self.project.keys, &self.project.place, pack.id);
        let place = (&seal, u32::from(number));
        coder
            .open_in(buffer, place, &stored)
            .map_err(|problem| self.project.damaged_pack(pack.id, problem))
    }

    /// Visits everything that a backup's content needs, but the disks of a group.
    pub fn walk_content(&mut self, content: &Content, visit: &mut dyn Visit) -> Result<()> {
        match content {
            Content::Disk { geometry, top, .. } => self.walk(*geometry, *top, visit),
            Content::Tree(tree) => filetree::walk(self, &tree.top, visit),
            Content::Group(_) => Ok(()),
        }
    }

    /// Visits a disk's tree in the disk's order.
    pub fn walk(&mut self, geometry: Geometry, top: ChunkId, visit: &mut dyn Visit) -> Result<()> {
        if geometry.size_bytes == 0 {
            return Ok(());
        }
        self.walk_node(geometry, (top, geometry.height()), 0, visit)
    }

    fn walk_node(
        &mut self,
        geometry: Geometry,
        (id, level): (ChunkId, u8),
        index: u64,
        visit: &mut dyn Visit,
    ) -> Result<()> {
        let span = geometry.span(level);
        let start = index.saturating_mul(span);
        if start >= geometry.size_bytes {
            return if id.is_zero() {
                Ok(())
            } else {
                Err(behind_the_end(id))
            };
        }
        if id.is_zero() {
            return visit.zeros(start..start.saturating_add(span).min(geometry.size_bytes));
        }
        if level == 0 {
            return visit.block(index, id);
        }
        if !visit.enter(id)? {
            return Ok(());
        }
        let children = self.node(id, level)?;
        for (slot, child) in (0..).zip(children) {
            self.walk_node(
                geometry,
                (child, level - 1),
                index * FANOUT as u64 + slot,
                visit,
            )?;
        }
        Ok(())
    }
}

/// Gives each request's bytes to `each`, having asked for the next one's before,
/// so that the store works while the frames are opened.
pub(crate) fn fetch_ahead<R>(
    objects: &Objects,
    handle: &Handle,
    mut next: impl FnMut() -> Option<R>,
    place: impl Fn(&R) -> (Path, Range<u64>),
    mut each: impl FnMut(R, Result<Bytes>) -> Result<()>,
) -> Result<()> {
    let start = |request| {
        let ((path, range), objects) = (place(&request), objects.clone());
        let mut fetch = JoinSet::new();
        fetch.spawn_on(async move { objects.get_range(&path, range).await }, handle);
        (request, fetch)
    };
    let mut current = next().map(start);
    while let Some((request, mut fetch)) = current {
        current = next().map(start);
        let bytes = handle.block_on(fetch.join_next());
        each(
            request,
            bytes
                .and_then(|joined| joined.ok())
                .unwrap_or(Err(Error::WorkerLost)),
        )?;
    }
    Ok(())
}

impl Inner {
    /// The stored bytes of a frame.
    pub async fn read_frame(&self, pack: PackId, frame: FrameEntry) -> Result<Bytes> {
        let path = pack_path(self.place.project, pack);
        self.objects.get_range(&path, frame.range()).await
    }

    /// The error for a pack that holds something else than it should.
    pub fn damaged_pack(&self, pack: PackId, Malformed(problem): Malformed) -> Error {
        Error::Damaged {
            object: pack_path(self.place.project, pack).to_string(),
            problem,
        }
    }
}

fn behind_the_end(id: ChunkId) -> Error {
    Error::DamagedChunk {
        id,
        problem: "it lies behind the end of the disk",
    }
}

/// What is done at the places of a tree.
pub(crate) trait Visit {
    /// Whether to go into a node.
    fn enter(&mut self, _node: ChunkId) -> Result<bool> {
        Ok(true)
    }

    /// Bytes of the disk that are zero.
    fn zeros(&mut self, range: Range<u64>) -> Result<()>;

    /// A block that is not zero.
    fn block(&mut self, block: u64, id: ChunkId) -> Result<()>;

    /// A piece of a file that is not zero.
    fn piece(&mut self, id: ChunkId) -> Result<()>;
}
