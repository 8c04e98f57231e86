//! Writing packs anew and taking old ones away, in the order that makes every
//! crash harmless: new packs, new index objects, then the old index objects go
//! and the old packs last. Used by collection and repair, which run alone.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_types::Progress;
use tokio::runtime::Handle;

use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::frame::{FrameBuilder, FrameCoder};
use crate::index::{INDEX_BYTES, IndexedPack};
use crate::known::Known;
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::packer::Packer;
use crate::project::{Gate, Inner, or_corrupt};
use crate::store::{Folder, pack_path};
use crate::workers;

/// Index objects may become this many before they are written together.
const INDEX_OBJECTS: usize = 64;

/// What is to be copied out of a pack.
#[derive(Debug)]
pub(crate) struct PackCopy {
    pub id: PackId,
    pub frames: Box<[FrameEntry]>,
    /// Which chunks of each frame.
    pub live: Vec<Vec<bool>>,
}

/// The means to write packs anew.
pub(crate) struct Rewrite {
    pub gate: Arc<Gate>,
    pub project: Arc<Inner>,
    pub known: Arc<Known>,
    pub progress: Arc<Progress>,
}

impl Rewrite {
    /// Copies what is needed into new packs, which are durable and indexed when
    /// it returns. A pack that cannot be read is left as it is. Returns the
    /// packs that may go.
    pub async fn copy(&self, packs: Vec<PackCopy>) -> Result<Vec<PackId>> {
        let mut copier = Copier::new(self);
        let mut copied = Vec::new();
        for pack in packs {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (id, gate) = (pack.id, self.gate.clone());
            let (back, result) = workers::one(move || {
                let _gate = gate;
                let result = copier.copy(&pack);
                Ok((copier, result))
            })
            .await?;
            copier = back;
            if or_corrupt(result)?.is_some() {
                copied.push(id);
            }
        }
        let gate = self.gate.clone();
        let packer = workers::one(move || {
            let _gate = gate;
            copier.finish()
        })
        .await?;
        packer.finish_packs().await?;
        packer.finish_index().await?;
        Ok(copied)
    }

    /// Removes packs, and everything that names them before. Returns how many
    /// index objects were removed.
    pub async fn remove(&self, gone: &HashSet<PackId>) -> Result<u64> {
        let removed = self.replace_index(gone).await?;
        let (known, packs) = (self.known.clone(), gone.iter().copied().collect::<Vec<_>>());
        workers::one(move || known.index().remove(&packs)).await?;
        for pack in gone {
            let path = pack_path(self.project.place.project, *pack);
            self.project.objects.delete(&path).await?;
        }
        Ok(removed)
    }

    /// Writes index objects for all packs that stay, and removes those that
    /// name packs that go, that are damaged, or that became too many. Returns
    /// how many were removed.
    async fn replace_index(&self, gone: &HashSet<PackId>) -> Result<u64> {
        let project = self.project.place.project;
        let objects = self.project.objects.list(project, Folder::Index).await?;
        let all = objects.len() > INDEX_OBJECTS;
        let (mut stale, mut named, mut packs) = (Vec::new(), HashSet::new(), Vec::new());
        let mut bytes = 0;
        let present = self.project.pack_sizes().await?;
        for found in &objects {
            let read = or_corrupt(self.project.read_index(found).await)?;
            let stays = |pack: &IndexedPack| {
                !gone.contains(&pack.id) && present.get(&pack.id) == Some(&pack.stored_bytes)
            };
            let Some(listed) = read else {
                stale.push(found);
                continue;
            };
            if !all && listed.iter().all(stays) {
                named.extend(listed.iter().map(|pack| pack.id));
                continue;
            }
            stale.push(found);
            for pack in listed.into_iter().filter(stays) {
                if !named.insert(pack.id) {
                    continue;
                }
                bytes += pack.table.encoded_bytes();
                packs.push(pack);
                self.write_if_full(&mut packs, &mut bytes).await?;
            }
        }
        for (id, size) in present {
            if gone.contains(&id) || named.contains(&id) {
                continue;
            }
            if let Some(pack) = or_corrupt(self.project.read_pack_table(id, size).await)? {
                bytes += pack.table.encoded_bytes();
                packs.push(pack);
                self.write_if_full(&mut packs, &mut bytes).await?;
            }
        }
        if !packs.is_empty() {
            self.project.write_index(&packs).await?;
        }
        for found in &stale {
            self.project.objects.delete(&found.path).await?;
        }
        Ok(stale.len() as u64)
    }

    async fn write_if_full(&self, packs: &mut Vec<IndexedPack>, bytes: &mut usize) -> Result<()> {
        if *bytes >= INDEX_BYTES {
            self.project.write_index(packs).await?;
            packs.clear();
            *bytes = 0;
        }
        Ok(())
    }
}

/// Copies chunks from pack to pack.
struct Copier {
    project: Arc<Inner>,
    known: Arc<Known>,
    packer: Packer,
    handle: Handle,
    reading: FrameCoder,
    writing: FrameCoder,
    frame: FrameBuilder,
}

impl Copier {
    fn new(rewrite: &Rewrite) -> Self {
        let (project, known) = (rewrite.project.clone(), rewrite.known.clone());
        Self {
            packer: Packer::new(project.clone(), known.clone()),
            project,
            known,
            handle: Handle::current(),
            reading: FrameCoder::new(),
            writing: FrameCoder::new(),
            frame: FrameBuilder::default(),
        }
    }

    /// Copies the chunks of a pack that are needed. Their ids are made anew of
    /// their bytes, and must be known.
    fn copy(&mut self, pack: &PackCopy) -> Result<()> {
        let project = self.project.clone();
        let damaged = |problem| project.damaged_pack(pack.id, problem);
        let seal = PackSeal::new(&project.keys, &project.place, pack.id);
        for (number, (entry, live)) in (0..).zip(pack.frames.iter().zip(&pack.live)) {
            if !live.contains(&true) {
                continue;
            }
            let stored = self.handle.block_on(project.read_frame(pack.id, *entry))?;
            let opened = self.reading.open(&seal, number, &stored).map_err(damaged)?;
            let chunks = opened.chunks().map_err(damaged)?;
            if chunks.len() != live.len() {
                return Err(damaged(Malformed(
                    "a frame has other chunks than the index says",
                )));
            }
            for ((kind, range), _) in chunks.into_iter().zip(live).filter(|(_, live)| **live) {
                let plain = &opened.bytes()[range];
                let id = project.keys.hasher.id(kind, plain);
                if self.known.index().get(&id.key())?.is_none() {
                    let problem = "it is not in the index";
                    return Err(Error::DamagedChunk { id, problem });
                }
                if !self.frame.fits(plain.len()) {
                    self.packer.store(&mut self.writing, &mut self.frame)?;
                }
                self.frame.push(id, kind, plain);
            }
        }
        Ok(())
    }

    /// Stores what is left and gives the packer back.
    fn finish(mut self) -> Result<Packer> {
        self.packer.store(&mut self.writing, &mut self.frame)?;
        Ok(self.packer)
    }
}
