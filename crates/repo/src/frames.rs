//! The check of every pack and every frame in it, on all cores; used by
//! verification and by repair.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use cairn_types::Kind;
use tokio::runtime::Handle;

use crate::check::Reading;
use crate::chunk::ChunkKey;
use crate::error::{Error, Result};
use crate::frame::{FrameCoder, FrameKey};
use crate::index::PackInfo;
use crate::known::Known;
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::project::Inner;
use crate::read::fetch_ahead;
use crate::store::pack_path;
use crate::workers::{self, Stop, lock};

/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;

/// What a check of frames found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Frames that do not hold what they should.
    pub bad_frames: HashSet<FrameKey>,
    /// Packs that are not as they were written, those of bad frames among them.
    pub bad_packs: BTreeMap<u32, PackId>,
    pub read_bytes: u64,
}

/// A part of a pack that is read at once; those of a pack follow each other from
/// its first byte to its last.
struct Request {
    pack: u32,
    id: PackId,
    range: Range<u64>,
    /// The frames in it.
    frames: Vec<(u16, FrameEntry)>,
    ends_pack: bool,
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
    packs: Vec<u32>,
    next: AtomicUsize,
    checked: Mutex<Checked>,
}

impl FrameCheck {
    /// Checks every pack of the index.
    pub async fn run(self) -> Result<Checked> {
        let known = self.known.clone();
        let packs = workers::one(move || Ok(known.index().packs())).await?;
        self.run_on(packs).await
    }

    /// Reads these packs from end to end, compares their hashes, and opens every frame.
    pub async fn run_on(self, packs: Vec<u32>) -> Result<Checked> {
        let known = self.known.clone();
        let (packs, bytes) = workers::one(move || {
            let mut bytes = 0;
            for number in &packs {
                let pack = known.index().pack(*number)?;
                bytes += pack.map_or(0, |pack| pack.stored_bytes);
            }
            Ok((packs, bytes))
        })
        .await?;
        self.stop.progress().add_total(bytes);
        let (stop, count) = (self.stop.clone(), workers::count(packs.len() as u64));
        let session = Arc::new(Session {
            check: self,
            handle: Handle::current(),
            packs,
            next: AtomicUsize::new(0),
            checked: Mutex::default(),
        });
        let this = session.clone();
        workers::run(count, &stop, move || this.work()).await?;
        let checked = std::mem::take(&mut *session.checked());
        Ok(checked)
    }
}

impl Session {
    fn work(&self) -> Result<()> {
        let (mut coder, mut pack) = (FrameCoder::new(), Reading::default());
        let (mut queue, mut failed) = (VecDeque::new(), Ok(()));
        let project = self.check.project.place.project;
        fetch_ahead(
            &self.check.project.objects,
            &self.handle,
            || {
                while queue.is_empty() {
                    let number = *self.packs.get(self.next.fetch_add(1, Ordering::Relaxed))?;
                    match self.check.known.index().pack(number) {
                        Ok(Some(info)) => queue.extend(requests(number, &info)),
                        // Removed since the check began.
                        Ok(None) => {}
                        Err(error) => {
                            failed = Err(error);
                            return None;
                        }
                    }
                }
                queue.pop_front()
            },
            |request| (pack_path(project, request.id), request.range.clone()),
            |request, stored| {
                self.check.stop.check()?;
                let stored = or_damaged(stored)?;
                // A pack that a collection has taken away holds nothing that is needed.
                let is_gone =
                    || Ok::<_, Error>(self.check.known.index().pack(request.pack)?.is_none());
                pack.add(stored.as_deref());
                let whole = self.check(&request, stored, &mut coder)?;
                let ended = request.ends_pack.then(|| std::mem::take(&mut pack));
                if (!whole || ended.is_some_and(|pack| !pack.is_whole())) && !is_gone()? {
                    self.checked().bad_packs.insert(request.pack, request.id);
                }
                Ok(())
            },
        )?;
        failed
    }

    fn checked(&self) -> MutexGuard<'_, Checked> {
        lock(&self.checked)
    }

    /// Whether all frames of a part are whole.
    fn check(
        &self,
        request: &Request,
        stored: Option<Bytes>,
        coder: &mut FrameCoder,
    ) -> Result<bool> {
        let project = &self.check.project;
        let seal = PackSeal::new(&project.keys, &project.place, request.id);
        let mut all = true;
        for (number, frame) in &request.frames {
            let bytes = match &stored {
                Some(stored) => {
                    let start = (frame.range().start - request.range.start) as usize;
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
            if !whole && self.check.known.index().pack(request.pack)?.is_some() {
                self.checked().bad_frames.insert(place);
                all = false;
            }
        }
        let length = request.range.end - request.range.start;
        self.checked().read_bytes += length;
        self.check.stop.progress().advance(length);
        Ok(all)
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
pub(crate) fn or_damaged(read: Result<Bytes>) -> Result<Option<Bytes>> {
    match read {
        Err(error) if error.kind() != Kind::Corrupt => Err(error),
        read => Ok(read.ok()),
    }
}

/// A pack in reads of a few MiB, each of whole frames.
fn requests(number: u32, pack: &PackInfo) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut rest: Vec<(u16, FrameEntry)> = (0..).zip(pack.frames.iter().copied()).collect();
    let mut start = 0;
    loop {
        let fits = |(_, frame): &&(u16, FrameEntry)| frame.range().end <= start + READ_BYTES;
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let later = rest.split_off(count);
        let ends_pack = later.is_empty();
        let end = match rest.last() {
            Some((_, last)) if !ends_pack => last.range().end,
            _ => pack.stored_bytes,
        };
        requests.push(Request {
            pack: number,
            id: pack.id,
            range: start..end,
            frames: rest,
            ends_pack,
        });
        if ends_pack {
            return requests;
        }
        (start, rest) = (end, later);
    }
}
