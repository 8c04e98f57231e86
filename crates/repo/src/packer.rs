//! Writing packs: frames go in, durable and indexed packs come out.
//!
//! Workers share the open packs: each takes one, adds its frame and puts it
//! back, so there are at most as many as workers. A full pack is finished in
//! the background. Only when the store has answered that all of a pack is
//! there are its chunks made known to others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::buffer::BufferPool;
use crate::chunk::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::frame::{FrameBuilder, FrameCoder, Unsealed};
use crate::index::{self, INDEX_BYTES, INDEX_MAGIC, IndexedPack};
use crate::known::{Known, Session};
use crate::pack::{ChunkEntry, NewPack};
use crate::project::Inner;
use crate::store::{Folder, Found, Objects, object_path, pack_path};
use crate::upload::{self, Upload};
use crate::workers::lock;
use crate::{random, seal, workers};

/// Packs being finished at a time.
const PACKS_FINISHING: usize = 2;
/// A pack written in small steps gets no more frames once it has this size. One is open
/// and one being finished, so that a crash takes twice as much, and what workers hold.
const SMALL_PACK_BYTES: u64 = 16 << 20;

/// What shares packs: a rewrite puts what only older backups need into packs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Everything that a backup writes, and what newest backups need.
    Main,
    /// What only older backups need.
    Cold,
}

/// Writes the packs and index objects of one session.
pub(crate) struct Packer {
    project: Arc<Inner>,
    known: Arc<Known>,
    session: Session,
    handle: Handle,
    open: Mutex<Vec<(Lane, OpenPack)>>,
    finishing: Mutex<JoinSet<Result<IndexedPack>>>,
    parts: Arc<BufferPool>,
    unindexed: Mutex<Vec<IndexedPack>>,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    /// Held while a frame is added, where packs are written in small steps: then one is open.
    in_small_steps: Option<Mutex<()>>,
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.known.release(self.session);
    }
}

impl Packer {
    /// Must be called on a runtime.
    pub fn new(project: Arc<Inner>, known: Arc<Known>) -> Self {
        Self {
            session: known.start_session(),
            project,
            known,
            handle: Handle::current(),
            open: Mutex::default(),
            finishing: Mutex::default(),
            parts: upload::buffers(),
            unindexed: Mutex::default(),
            new_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            in_small_steps: None,
        }
    }

    /// Has packs end early and one after the other, so that little is lost in a crash, and
    /// nobody wait for them: for what is slow to come, and dear to get again.
    pub fn in_small_steps(mut self) -> Self {
        self.known.set_slow(self.session);
        self.in_small_steps = Some(Mutex::default());
        self
    }

    pub fn session(&self) -> Session {
        self.session
    }

    /// Plain bytes of chunks stored so far.
    pub fn new_bytes(&self) -> u64 {
        self.new_bytes.load(Ordering::Relaxed)
    }

    /// By how much the repository has grown.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    pub fn count_stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds a chunk to a frame, storing the frame first where it does not fit. Blocks.
    pub fn push(
        &self,
        coder: &mut FrameCoder,
        frame: &mut FrameBuilder,
        (id, kind): (ChunkId, ChunkKind),
        plain: &[u8],
    ) -> Result<()> {
        if !frame.fits(plain.len()) {
            self.store(coder, frame)?;
        }
        frame.push(id, kind, plain);
        Ok(())
    }

    /// Stores a frame's chunks and empties it. Blocks; called by workers.
    pub fn store(&self, coder: &mut FrameCoder, frame: &mut FrameBuilder) -> Result<()> {
        self.store_in(Lane::Main, coder, frame)
    }

    /// As `store`, into a pack of this lane.
    pub fn store_in(
        &self,
        lane: Lane,
        coder: &mut FrameCoder,
        frame: &mut FrameBuilder,
    ) -> Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        self.new_bytes
            .fetch_add(frame.plain_bytes(), Ordering::Relaxed);
        self.add(lane, |pack, out| pack.append(coder, frame, out))
    }

    /// Stores the frame that `coder` has unsealed, with these chunks. Blocks.
    pub fn store_again(
        &self,
        lane: Lane,
        coder: &mut FrameCoder,
        unsealed: Unsealed,
        chunks: &[ChunkEntry],
    ) -> Result<()> {
        self.add(lane, |pack, out| {
            pack.append_again(coder, unsealed, chunks, out)
        })
    }

    /// Lets `append` add a frame to an open pack, and its bytes to those on their way.
    fn add(
        &self,
        lane: Lane,
        append: impl FnOnce(&mut NewPack, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let _alone = self.in_small_steps.as_ref().map(lock);
        let mut pack = self.take(lane).unwrap_or_else(|| {
            let pack = OpenPack::new(&self.project, &self.parts);
            self.known.begin_pack(self.session, pack.pack.id());
            self.project.note_pack(pack.pack.id());
            pack
        });
        if let Err(error) = self.fill(&mut pack, append) {
            let abort = pack.upload.abort(&self.project.objects);
            self.handle.block_on(abort);
            return Err(error);
        }
        let small_steps = self.in_small_steps.is_some();
        if pack.pack.is_full() || small_steps && pack.pack.length() >= SMALL_PACK_BYTES {
            self.finish_later(pack)
        } else {
            lock(&self.open).push((lane, pack));
            Ok(())
        }
    }

    /// Takes an open pack of a lane.
    fn take(&self, lane: Lane) -> Option<OpenPack> {
        let mut open = lock(&self.open);
        let at = open.iter().rposition(|(of, _)| *of == lane)?;
        Some(open.remove(at).1)
    }

    fn fill(
        &self,
        pack: &mut OpenPack,
        append: impl FnOnce(&mut NewPack, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let OpenPack {
            pack,
            upload,
            stored,
        } = pack;
        append(pack, stored)?;
        let added = upload.add(stored, &self.project.objects);
        self.handle.block_on(added)?;
        stored.clear();
        Ok(())
    }

    /// Starts to finish a pack; waits where too many are being finished. Blocks.
    fn finish_later(&self, pack: OpenPack) -> Result<()> {
        let mut finishing = lock(&self.finishing);
        let at_a_time = match self.in_small_steps {
            Some(_) => 1,
            None => PACKS_FINISHING,
        };
        while finishing.len() >= at_a_time {
            let ended = self.handle.block_on(finishing.join_next());
            let ended = ended.map_or(Err(Error::WorkerLost), |joined| {
                joined.unwrap_or(Err(Error::WorkerLost))
            });
            self.handle.block_on(self.finished(ended?))?;
        }
        let objects = self.project.objects.clone();
        finishing.spawn_on(pack.finish(objects), &self.handle);
        Ok(())
    }

    /// Makes the chunks of a pack that is durable known, and writes an index object when it is time.
    async fn finished(&self, pack: IndexedPack) -> Result<()> {
        self.stored_bytes
            .fetch_add(pack.stored_bytes, Ordering::Relaxed);
        let (known, session) = (self.known.clone(), self.session);
        let pack = workers::one(move || known.publish(session, &pack).map(|()| pack)).await?;
        let full = {
            let mut unindexed = lock(&self.unindexed);
            unindexed.push(pack);
            let bytes: usize = unindexed
                .iter()
                .map(|pack| pack.table.encoded_bytes())
                .sum();
            (bytes >= INDEX_BYTES).then(|| std::mem::take(&mut *unindexed))
        };
        match full {
            Some(packs) => self.write_index(&packs).await,
            None => Ok(()),
        }
    }

    /// Finishes every open pack; when it returns, all that was stored is durable and known.
    pub async fn finish_packs(&self) -> Result<()> {
        let mut finishing = std::mem::take(&mut *lock(&self.finishing));
        let open = std::mem::take(&mut *lock(&self.open));
        for (_, pack) in open {
            finishing.spawn(pack.finish(self.project.objects.clone()));
        }
        while let Some(ended) = finishing.join_next().await {
            self.finished(ended.unwrap_or(Err(Error::WorkerLost))?)
                .await?;
        }
        Ok(())
    }

    /// Writes the index of what no index object names yet.
    pub async fn finish_index(&self) -> Result<()> {
        let packs = std::mem::take(&mut *lock(&self.unindexed));
        if packs.is_empty() {
            Ok(())
        } else {
            self.write_index(&packs).await
        }
    }

    async fn write_index(&self, packs: &[IndexedPack]) -> Result<()> {
        let written = self.project.write_index(&self.known, packs).await?;
        let named = packs.iter().map(|pack| pack.id);
        self.known.end_packs(self.session, named);
        self.count_stored(written.size_bytes);
        Ok(())
    }

    /// Gives up what was begun, as far as the store lets us.
    pub async fn abandon(&self) {
        lock(&self.finishing).abort_all();
        let mut open = std::mem::take(&mut *lock(&self.open));
        let objects = &self.project.objects;
        let open = open.iter_mut();
        join_all(open.map(|(_, pack)| pack.upload.abort(objects))).await;
    }
}

impl Inner {
    /// Writes one index object that names these packs, which must be durable.
    pub async fn write_index(&self, known: &Arc<Known>, packs: &[IndexedPack]) -> Result<Found> {
        let name = hex::encode(random::bytes::<16>());
        let bound = self.place.bound(&name);
        let plain = index::encode(packs);
        let object = seal::seal_object(&self.keys.objects, INDEX_MAGIC, &bound, &plain);
        let size_bytes = object.len() as u64;
        let path = object_path(self.place.project, Folder::Index, &name);
        self.objects.put(&path, object).await?;
        let (known, found) = (known.clone(), name.clone());
        workers::one(move || known.index().take_in(&found)).await?;
        Ok(Found {
            name,
            path,
            size_bytes,
        })
    }
}

/// A pack that takes frames.
struct OpenPack {
    pack: NewPack,
    upload: Upload,
    /// Its next bytes.
    stored: Vec<u8>,
}

impl OpenPack {
    fn new(project: &Inner, parts: &Arc<BufferPool>) -> Self {
        let mut stored = Vec::new();
        let pack = NewPack::begin(&project.keys, &project.place, &mut stored);
        let path = pack_path(project.place.project, pack.id());
        Self {
            pack,
            upload: Upload::new(path, parts),
            stored,
        }
    }

    /// Writes the table and returns when the whole pack is durable.
    async fn finish(mut self, objects: Objects) -> Result<IndexedPack> {
        let id = self.pack.id();
        let (table, stored_bytes) = self.pack.end(&mut self.stored);
        let ended = async {
            self.upload.add(&self.stored, &objects).await?;
            self.upload.complete(&objects).await
        };
        if let Err(error) = ended.await {
            self.upload.abort(&objects).await;
            return Err(error);
        }
        let path = &self.upload.path;
        if objects.size(path).await? != stored_bytes {
            return Err(Error::Damaged {
                object: path.to_string(),
                problem: "the store cut it short",
            });
        }
        Ok(IndexedPack {
            id,
            stored_bytes,
            table,
        })
    }
}
