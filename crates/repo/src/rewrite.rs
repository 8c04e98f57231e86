//! Copying what is needed out of packs into new ones, beside everything else.
//!
//! What newest backups need is kept apart from what only older ones do, in packs
//! of its own: a restore opens frames full of what it wants, and the others die together.
//! A frame that is needed in full, and all of one sort, is sealed again as it is, without
//! being decompressed; what is needed of others goes into new frames. The new packs
//! are durable, known and indexed when it is done: from then on every chunk
//! that was copied is found there.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::chunk::{ChunkKey, ChunkKind};
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::frame::{FrameBuilder, FrameCoder};
use crate::index::PackInfo;
use crate::known::Known;
use crate::marks::Bits;
use crate::objects::or_corrupt;
use crate::pack::{ChunkEntry, PackId, PackSeal, PackTable};
use crate::packer::{Lane, Packer};
use crate::project::Inner;
use crate::store::pack_path;
use crate::workers::{self, Stop, lock};

/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;
/// Bytes that are read for nothing rather than making one more request.
const GAP_BYTES: u64 = 256 << 10;

/// What is to be copied out of a pack.
#[derive(Debug)]
pub(crate) struct PackCopy {
    pub number: u32,
    pub pack: Arc<PackInfo>,
    /// Which of its chunks.
    pub live: Bits,
    /// Those of them, and maybe others, that are to lie apart from the rest.
    pub hot: Bits,
}

/// What a rewrite did.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// Packs of which all that was asked for is elsewhere now.
    pub packs: Vec<PackId>,
    /// Packs, by number, that could not be read, and stay as they are.
    pub left: Vec<u32>,
    /// Bytes of the new packs.
    pub stored_bytes: u64,
}

/// Copies on all cores. Progress counts the bytes of frames.
pub(crate) async fn copy(
    project: &Arc<Inner>,
    known: &Arc<Known>,
    stop: &Arc<Stop>,
    packs: Vec<PackCopy>,
) -> Result<Rewritten> {
    let mut rewritten = Rewritten::default();
    if packs.is_empty() {
        return Ok(rewritten);
    }
    let count = workers::count(packs.len() as u64);
    let shared = Arc::new(Shared {
        packer: Packer::new(project.clone(), known.clone()),
        project: project.clone(),
        stop: stop.clone(),
        handle: Handle::current(),
        packs,
        next: AtomicUsize::new(0),
        copied: Mutex::default(),
    });
    let this = shared.clone();
    workers::run(count, stop, move || Copier::new(&this).run()).await?;
    shared.packer.finish_packs().await?;
    shared.packer.finish_index().await?;
    rewritten.stored_bytes = shared.packer.stored_bytes();
    let copied = std::mem::take(&mut *lock(&shared.copied));
    let known = known.clone();
    workers::one(move || {
        for Copied { at, keys } in copied {
            let copy = &shared.packs[at];
            match keys {
                Some(keys) if is_elsewhere(&known, copy.number, &keys)? => {
                    rewritten.packs.push(copy.pack.id);
                }
                _ => rewritten.left.push(copy.number),
            }
        }
        Ok(rewritten)
    })
    .await
}

/// Whether none of these chunks is found in a pack any more.
fn is_elsewhere(known: &Known, pack: u32, keys: &[ChunkKey]) -> Result<bool> {
    let places = known.index().get_many(keys)?;
    Ok(places
        .iter()
        .all(|place| place.is_some_and(|place| place.pack != pack)))
}

/// What the workers of one rewrite share.
struct Shared {
    packer: Packer,
    project: Arc<Inner>,
    stop: Arc<Stop>,
    handle: Handle,
    packs: Vec<PackCopy>,
    next: AtomicUsize,
    copied: Mutex<Vec<Copied>>,
}

/// A pack that has been worked on, by its place in the list.
struct Copied {
    at: usize,
    /// What was copied; nothing if the pack cannot be read.
    keys: Option<Vec<ChunkKey>>,
}

/// One thread's part.
struct Copier<'s> {
    shared: &'s Shared,
    reading: FrameCoder,
    writing: FrameCoder,
    /// Frames that are being filled, by the sort of what is in them.
    frames: [FrameBuilder; SORTS],
}

/// Frames of a pack that are read together.
struct Request {
    frames: Vec<usize>,
    range: Range<u64>,
}

impl<'s> Copier<'s> {
    fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            reading: FrameCoder::new(),
            writing: FrameCoder::new(),
            frames: Default::default(),
        }
    }

    fn run(mut self) -> Result<()> {
        loop {
            let at = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(copy) = self.shared.packs.get(at) else {
                return self.finish();
            };
            let keys = or_corrupt(self.copy(copy))?;
            lock(&self.shared.copied).push(Copied { at, keys });
        }
    }

    fn finish(mut self) -> Result<()> {
        for (sort, frame) in self.frames.iter_mut().enumerate() {
            let packer = &self.shared.packer;
            packer.store_in(lane(sort), &mut self.writing, frame)?;
        }
        Ok(())
    }

    /// Copies what is needed of a pack.
    fn copy(&mut self, copy: &PackCopy) -> Result<Vec<ChunkKey>> {
        let project = &self.shared.project;
        let pack = &copy.pack;
        let table = project.read_pack_table(pack.id, pack.stored_bytes);
        // Without its table every frame is opened to learn what it holds.
        let table = or_corrupt(self.shared.handle.block_on(table))?.map(|read| read.table);
        let table = table.filter(|table| table.frames[..] == pack.frames[..]);
        let seal = PackSeal::new(&project.keys, &project.place, pack.id);
        let path = pack_path(project.place.project, pack.id);
        let mut keys = Vec::new();
        for request in requests(copy) {
            let read = project.objects.get_range(&path, request.range.clone());
            let stored = self.shared.handle.block_on(read)?;
            for number in request.frames {
                self.shared.stop.check()?;
                let frame = pack.frames[number];
                let start = (frame.range().start - request.range.start) as usize;
                let stored = stored.slice(start..start + frame.length as usize);
                self.copy_frame(copy, number, (&seal, stored), table.as_ref(), &mut keys)?;
                self.shared.stop.progress().advance(u64::from(frame.length));
            }
        }
        Ok(keys)
    }

    fn copy_frame(
        &mut self,
        copy: &PackCopy,
        number: usize,
        (seal, stored): (&PackSeal, Bytes),
        table: Option<&PackTable>,
        keys: &mut Vec<ChunkKey>,
    ) -> Result<()> {
        let project = &self.shared.project;
        let damaged = |problem| project.damaged_pack(copy.pack.id, problem);
        let counter = number as u32;
        let range = copy.pack.chunks_of(number);
        let listed: Option<&[ChunkEntry]> = table.map(|table| &table.chunks[range.clone()]);
        let hot = copy.hot.count(range.clone());
        if let Some(listed) = listed
            && copy.live.count(range.clone()) == range.len()
            && (hot == 0 || hot == range.len())
        {
            let lane = if hot > 0 { Lane::Main } else { Lane::Cold };
            let unsealed = self
                .reading
                .unseal(seal, counter, &stored)
                .map_err(damaged)?;
            keys.extend(listed.iter().map(|chunk| chunk.id.key()));
            let packer = &self.shared.packer;
            return packer.store_again(lane, &mut self.reading, unsealed, listed);
        }
        let opened = self.reading.open(seal, counter, &stored).map_err(damaged)?;
        let chunks = opened.chunks().map_err(damaged)?;
        if chunks.len() != range.len() {
            return Err(damaged(Malformed(
                "a frame has other chunks than its table",
            )));
        }
        for (at, (kind, bytes)) in chunks.into_iter().enumerate() {
            let chunk = (range.start + at) as u32;
            if !copy.live.contains(chunk) {
                continue;
            }
            let plain = &opened.bytes()[bytes];
            let id = project.keys.hasher.id(kind, plain);
            if listed.is_some_and(|listed| listed[at].id != id) {
                let problem = "its bytes are others";
                return Err(Error::DamagedChunk { id, problem });
            }
            let sort = sort_of(copy.hot.contains(chunk), kind);
            let frame = &mut self.frames[sort];
            if !frame.fits(plain.len()) {
                let packer = &self.shared.packer;
                packer.store_in(lane(sort), &mut self.writing, frame)?;
            }
            frame.push(id, kind, plain);
            keys.push(id.key());
        }
        Ok(())
    }
}

/// What goes into frames of its own: hot or not, nodes or blocks.
const SORTS: usize = 4;

fn sort_of(hot: bool, kind: ChunkKind) -> usize {
    usize::from(hot) * 2 + usize::from(kind == ChunkKind::Node)
}

/// Where the frames of a sort go.
fn lane(sort: usize) -> Lane {
    if sort >= 2 { Lane::Main } else { Lane::Cold }
}

/// Cuts the frames of which something is needed into reads: near ones go together.
fn requests(copy: &PackCopy) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for (number, frame) in copy.pack.frames.iter().enumerate() {
        if copy.live.count(copy.pack.chunks_of(number)) == 0 {
            continue;
        }
        let stored = frame.range();
        match requests.last_mut() {
            Some(last)
                if stored.start - last.range.end <= GAP_BYTES
                    && stored.end - last.range.start <= READ_BYTES =>
            {
                last.range.end = stored.end;
                last.frames.push(number);
            }
            _ => requests.push(Request {
                frames: vec![number],
                range: stored,
            }),
        }
    }
    requests
}
