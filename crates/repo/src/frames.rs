//! The check of every frame of every pack, on all cores; used by verification
//! and by repair.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cairn_types::Kind;
use tokio::runtime::Handle;

use crate::chunk::ChunkKey;
use crate::error::Result;
use crate::frame::FrameCoder;
use crate::known::Known;
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::project::Inner;
use crate::read::fetch_ahead;
use crate::workers::{self, Stop};

/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;

/// A frame: its pack's number in the index, and its own in the pack.
pub(crate) type FrameKey = (u32, u16);

/// Frames of a pack that are read together; never none.
struct Request {
    pack: u32,
    id: PackId,
    frames: Vec<(u16, FrameEntry)>,
}

impl Request {
    fn range(&self) -> Range<u64> {
        let end = self.frames.last().map_or(0, |(_, last)| last.range().end);
        self.frames
            .first()
            .map_or(0, |(_, first)| first.range().start)..end
    }
}

/// The check of every frame, on all cores.
pub(crate) struct FrameCheck {
    pub project: Arc<Inner>,
    pub known: Arc<Known>,
    pub stop: Arc<Stop>,
}

/// What the workers of a check share.
struct Session {
    check: FrameCheck,
    handle: Handle,
    requests: Vec<Request>,
    next: AtomicUsize,
    read_bytes: AtomicU64,
    bad: Mutex<HashSet<FrameKey>>,
}

impl FrameCheck {
    /// Opens every frame. Returns those that are damaged, and how many bytes were read.
    pub async fn run(self) -> Result<(HashSet<FrameKey>, u64)> {
        let known = self.known.clone();
        let requests = workers::one(move || requests(&known)).await?;
        self.stop.progress().add_total(
            requests
                .iter()
                .map(|r| r.range().end - r.range().start)
                .sum(),
        );
        let (stop, count) = (self.stop.clone(), workers::count(requests.len() as u64));
        let session = Arc::new(Session {
            check: self,
            handle: Handle::current(),
            requests,
            next: AtomicUsize::new(0),
            read_bytes: AtomicU64::new(0),
            bad: Mutex::default(),
        });
        let this = session.clone();
        workers::run(count, &stop, move || this.work()).await?;
        let bad = std::mem::take(&mut *session.bad.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((bad, session.read_bytes.load(Ordering::Relaxed)))
    }
}

impl Session {
    fn work(&self) -> Result<()> {
        let mut coder = FrameCoder::new();
        fetch_ahead(
            &self.check.project,
            &self.handle,
            || self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)),
            |request| (request.id, request.range()),
            |request, stored| {
                self.check.stop.check()?;
                self.check(request, stored, &mut coder)
            },
        )
    }

    fn check(
        &self,
        request: &Request,
        stored: Result<Bytes>,
        coder: &mut FrameCoder,
    ) -> Result<()> {
        let project = &self.check.project;
        let seal = PackSeal::new(&project.keys, &project.place, request.id);
        let range = request.range();
        let stored = or_damaged(stored)?;
        for (number, frame) in &request.frames {
            let bytes = match &stored {
                Some(stored) => {
                    let start = (frame.range().start - range.start) as usize;
                    Some(stored.slice(start..start + frame.length as usize))
                }
                // What cannot be read together may be readable alone.
                None => or_damaged(self.handle.block_on(project.read_frame(request.id, *frame)))?,
            };
            let place = (request.pack, *number);
            let whole = match bytes {
                Some(bytes) => self.frame_is_whole(place, &seal, &bytes, coder)?,
                None => false,
            };
            // A pack that a collection has taken away holds nothing that is needed.
            if !whole && self.check.known.index().pack(request.pack)?.is_some() {
                let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
                bad.insert(place);
            }
        }
        let length = range.end - range.start;
        self.read_bytes.fetch_add(length, Ordering::Relaxed);
        self.check.stop.progress().advance(length);
        Ok(())
    }

    /// Whether the frame opens and holds as many chunks as the index says, each
    /// one that the index knows by its id.
    fn frame_is_whole(
        &self,
        (pack, number): FrameKey,
        seal: &PackSeal,
        stored: &[u8],
        coder: &mut FrameCoder,
    ) -> Result<bool> {
        let Ok(frame) = coder.open(seal, u32::from(number), stored) else {
            return Ok(false);
        };
        let Ok(chunks) = frame.chunks() else {
            return Ok(false);
        };
        let keys: Vec<ChunkKey> = chunks
            .into_iter()
            .map(|(kind, range)| {
                self.check
                    .project
                    .keys
                    .hasher
                    .id(kind, &frame.bytes()[range])
                    .key()
            })
            .collect();
        let index = self.check.known.index();
        let Some(pack) = index.pack(pack)? else {
            return Ok(false);
        };
        Ok(pack.chunks_of(usize::from(number)).len() == keys.len()
            && index.get_many(&keys)?.iter().all(Option::is_some))
    }
}

/// Nothing where the bytes cannot be had; a store that stumbles stays an error.
fn or_damaged(read: Result<Bytes>) -> Result<Option<Bytes>> {
    match read {
        Err(error) if error.kind() != Kind::Corrupt => Err(error),
        read => Ok(read.ok()),
    }
}

/// Every frame of every pack, in reads of a few MiB.
fn requests(known: &Known) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for number in known.index().packs() {
        let Some(info) = known.index().pack(number)? else {
            continue;
        };
        let frames = (0..)
            .zip(info.frames.iter().copied())
            .collect::<Vec<(u16, _)>>();
        let mut rest = &frames[..];
        while let Some((_, first)) = rest.first() {
            let limit = first.range().start + READ_BYTES;
            let count = rest
                .iter()
                .take_while(|(_, f)| f.range().end <= limit)
                .count()
                .max(1);
            let (now, later) = rest.split_at(count);
            requests.push(Request {
                pack: number,
                id: info.id,
                frames: now.to_vec(),
            });
            rest = later;
        }
    }
    Ok(requests)
}
