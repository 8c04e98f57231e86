//! Chunks that are wanted, in the order of the store: each frame is read and
//! opened once, and neighbours come in one request.

use std::ops::Range;

use crate::chunk::{ChunkId, ChunkKind, Hasher};
use crate::error::{Error, Result};
use crate::index::{Index, Place};
use crate::pack::{FrameEntry, PackId};
use crate::read::MOVES_MAX;

/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;
/// Bytes that are read for nothing rather than making one more request.
const GAP_BYTES: u64 = 256 << 10;
/// Chunks that are looked up in the index at a time.
const LOOK_UPS: usize = 4096;

/// A chunk that is wanted, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<T> {
    pub place: Place,
    pub id: ChunkId,
    pub purpose: T,
}

/// Frames of a pack that are read together.
#[derive(Debug)]
pub(crate) struct Request {
    pub pack: PackId,
    pub range: Range<u64>,
    pub frames: Vec<FrameWanted>,
}

/// A frame, and which of the wanted chunks are in it.
#[derive(Debug)]
pub(crate) struct FrameWanted {
    pub number: u16,
    pub entry: FrameEntry,
    /// Its first chunk, counted through the pack.
    pub first_chunk: usize,
    pub wanted: Range<usize>,
}

/// Looks up where chunks are, and plans how they are read.
pub(crate) fn find_and_plan<T: Copy>(
    chunks: &[(ChunkId, T)],
    index: &Index,
) -> Result<(Vec<Wanted<T>>, Vec<Request>)> {
    for _ in 0..MOVES_MAX {
        let wanted = find(chunks, index)?;
        if let Some(requests) = plan(&wanted, index)? {
            return Ok((wanted, requests));
        }
    }
    let lost = chunks.first().map(|(id, _)| Error::NoChunk { id: *id });
    Err(lost.unwrap_or(Error::WorkerLost))
}

/// Looks up where chunks are, and sorts them by that.
fn find<T: Copy>(chunks: &[(ChunkId, T)], index: &Index) -> Result<Vec<Wanted<T>>> {
    let mut found = Vec::with_capacity(chunks.len());
    for some in chunks.chunks(LOOK_UPS) {
        let keys: Vec<_> = some.iter().map(|(id, _)| id.key()).collect();
        for ((id, purpose), place) in some.iter().copied().zip(index.get_many(&keys)?) {
            let place = place.ok_or(Error::NoChunk { id })?;
            found.push(Wanted { place, id, purpose });
        }
    }
    found.sort_by_key(|wanted| wanted.place);
    Ok(found)
}

/// Cuts sorted chunks into requests: near frames of one pack go together.
/// Nothing if a collection has taken a pack away since.
fn plan<T>(wanted: &[Wanted<T>], index: &Index) -> Result<Option<Vec<Request>>> {
    let mut requests: Vec<Request> = Vec::new();
    let mut start = 0;
    for same_pack in wanted.chunk_by(|a, b| a.place.pack == b.place.pack) {
        let Some(pack) = index.pack(same_pack[0].place.pack)? else {
            return Ok(None);
        };
        let end = start + same_pack.len();
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
    Ok(Some(requests))
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

impl<T> Wanted<T> {
    /// The chunk's bytes out of its opened frame, checked against its id.
    pub fn find_in<'p>(
        &self,
        frame: &FrameWanted,
        chunks: &[(ChunkKind, Range<usize>)],
        plain: &'p [u8],
        hasher: &Hasher,
    ) -> Result<&'p [u8]> {
        let damaged = |problem| Error::DamagedChunk {
            id: self.id,
            problem,
        };
        let slot = (self.place.chunk as usize).wrapping_sub(frame.first_chunk);
        let (kind, range) = chunks.get(slot).ok_or(damaged("its frame is short"))?;
        let bytes = &plain[range.clone()];
        if *kind != ChunkKind::Block || hasher.id(*kind, bytes) != self.id {
            return Err(damaged("its bytes are others"));
        }
        Ok(bytes)
    }
}
