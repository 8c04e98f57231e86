//! Collection: removing what no backup needs.
//!
//! It holds the gate alone, so nothing is written meanwhile, and a manifest
//! without a receipt is of no backup. What all backups reach is marked chunk by
//! chunk; packs with nothing marked go, packs with much that is not are
//! written anew. The order makes every crash harmless: new packs, new index
//! objects, then the old index objects are removed and the old packs last. If
//! any backup cannot be read in full, nothing is removed.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use cairn_types::{BackupId, Progress};
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockWriteGuard;

use crate::chunk::ChunkId;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::frame::{FrameBuilder, FrameCoder};
use crate::index::{INDEX_BYTES, Index, IndexedPack, PackInfo};
use crate::known::Known;
use crate::manifest::Content;
use crate::pack::{PackId, PackSeal};
use crate::packer::Packer;
use crate::project::{Inner, or_corrupt};
use crate::read::{ChunkReader, Visit};
use crate::store::{Folder, Found, manifest_path, pack_path};
use crate::workers;

/// A pack is written anew when more than one byte in this many is dead.
const DEAD_SHARE: u64 = 4;
/// Index objects may become this many before they are written together.
const INDEX_OBJECTS: usize = 64;

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests without a receipt that were removed.
    pub manifests_removed: u64,
    /// Packs that were removed, those written anew included.
    pub packs_removed: u64,
    /// Packs whose chunks in use were copied into new packs.
    pub packs_rewritten: u64,
    /// Index objects that were removed.
    pub index_objects_removed: u64,
    /// By how much the packs have shrunk.
    pub freed_bytes: u64,
    /// What the packs hold now.
    pub stored_bytes: u64,
}

pub(crate) async fn collect(project: &Arc<Inner>, progress: Arc<Progress>) -> Result<Collected> {
    // Whoever waits for the gate keeps all others from it: a collection that
    // waited for a long backup would hold up everything else until its end.
    let gate = project.gate.clone().try_write_owned();
    let gate = gate.map_err(|_| Error::InUse)?;
    // What is known is read anew, before and after: packs that a failed session
    // left are found, and those that are removed here are forgotten.
    project.forget_known().await;
    let collected = Collection {
        project: project.clone(),
        gate: Arc::new(gate),
        progress,
    };
    let result = collected.run().await;
    project.forget_known().await;
    result
}

struct Collection {
    project: Arc<Inner>,
    /// Shared with the threads that work for it, which may outlive the caller.
    gate: Arc<OwnedRwLockWriteGuard<()>>,
    progress: Arc<Progress>,
}

/// What becomes of the packs that are there.
#[derive(Debug, Default)]
struct Plan {
    /// To be removed; their chunks are not needed.
    dead: Vec<PackId>,
    /// To be written anew, with which of their chunks are needed.
    sparse: Vec<(PackId, Vec<bool>)>,
}

impl Collection {
    async fn run(&self) -> Result<Collected> {
        let mut done = Collected::default();
        let (backups, _) = self.project.backups_in(Folder::Receipts).await?;
        done.manifests_removed = self.remove_manifests(&backups).await?;
        let known = self.project.known().await?;
        let marks = self.mark(&backups, &known).await?;
        self.check()?;
        let project = self.project.place.project;
        let packs = self.project.objects.list(project, Folder::Packs).await?;
        let stored = |packs: &[Found]| packs.iter().map(|pack| pack.size_bytes).sum::<u64>();
        let before = stored(&packs);
        let plan = known.index(|index| plan(&packs, &marks, index));
        let rewritten = self.rewrite(&known, &plan.sparse).await?;
        done.packs_rewritten = rewritten.len() as u64;
        let gone: HashSet<PackId> = plan.dead.into_iter().chain(rewritten).collect();
        done.index_objects_removed = self.replace_index(&gone).await?;
        for pack in &gone {
            self.project
                .objects
                .delete(&pack_path(project, *pack))
                .await?;
            done.packs_removed += 1;
        }
        done.stored_bytes = stored(&self.project.objects.list(project, Folder::Packs).await?);
        done.freed_bytes = before.saturating_sub(done.stored_bytes);
        Ok(done)
    }

    fn check(&self) -> Result<()> {
        if self.progress.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Removes manifests that have no receipt.
    async fn remove_manifests(&self, backups: &[BackupId]) -> Result<u64> {
        let project = self.project.place.project;
        let backups: HashSet<BackupId> = backups.iter().copied().collect();
        let mut removed = 0;
        let (manifests, _) = self.project.backups_in(Folder::Manifests).await?;
        for backup in manifests {
            if !backups.contains(&backup) {
                self.project
                    .objects
                    .delete(&manifest_path(project, backup))
                    .await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Marks every chunk that a backup reaches.
    async fn mark(&self, backups: &[BackupId], known: &Arc<Known>) -> Result<Marks> {
        let mut marks = Marks::new(known.clone());
        self.progress.set_total(backups.len() as u64);
        for backup in backups {
            self.check()?;
            let (manifest, _) = self.project.manifest(*backup).await?;
            if let Content::Disk { geometry, top, .. } = manifest.content {
                let (mut reader, gate) = (self.reader(known), self.gate.clone());
                marks = workers::one(move || {
                    let _gate = gate;
                    reader.walk(geometry, top, &mut marks)?;
                    Ok(marks)
                })
                .await?;
            }
            self.progress.advance(1);
        }
        Ok(marks)
    }

    fn reader(&self, known: &Arc<Known>) -> ChunkReader {
        ChunkReader::new(self.project.clone(), known.clone())
    }

    /// Copies what is needed out of sparse packs into new ones, which are
    /// durable and indexed when it returns. A pack that cannot be read is left
    /// as it is. Returns the packs that may go.
    async fn rewrite(
        &self,
        known: &Arc<Known>,
        sparse: &[(PackId, Vec<bool>)],
    ) -> Result<Vec<PackId>> {
        let mut copier = Copier::new(self.project.clone(), known.clone());
        let mut rewritten = Vec::new();
        for (pack, live) in sparse {
            self.check()?;
            let (pack, live, gate) = (*pack, live.clone(), self.gate.clone());
            let (back, result) = workers::one(move || {
                let _gate = gate;
                let result = copier.copy(pack, &live);
                Ok((copier, result))
            })
            .await?;
            copier = back;
            if or_corrupt(result)?.is_some() {
                rewritten.push(pack);
            }
        }
        let (copier, gate) = (copier, self.gate.clone());
        let packer = workers::one(move || {
            let _gate = gate;
            copier.finish()
        })
        .await?;
        packer.finish_packs().await?;
        packer.finish_index().await?;
        Ok(rewritten)
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

/// Which chunks of which packs are needed.
struct Marks {
    known: Arc<Known>,
    nodes: HashSet<ChunkId>,
    /// By the pack's place in the index; empty where nothing is needed.
    live: Vec<Vec<bool>>,
}

impl Marks {
    fn new(known: Arc<Known>) -> Self {
        let live = known.index(|index| vec![Vec::new(); index.packs().len()]);
        Self {
            known,
            nodes: HashSet::new(),
            live,
        }
    }

    fn mark(&mut self, id: ChunkId) -> Result<()> {
        let live = &mut self.live;
        self.known.index(|index| {
            let place = index.get(&id.key()).ok_or(Error::NoChunk { id })?;
            let pack = index.pack(place.pack);
            let marks = &mut live[place.pack as usize];
            marks.resize(pack.chunks as usize, false);
            let chunk = pack.chunks_of(usize::from(place.frame)).start + usize::from(place.slot);
            marks[chunk] = true;
            Ok(())
        })
    }
}

impl Visit for Marks {
    fn enter(&mut self, node: ChunkId) -> Result<bool> {
        self.mark(node)?;
        Ok(self.nodes.insert(node))
    }

    fn zeros(&mut self, _: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn block(&mut self, _: u64, id: ChunkId) -> Result<()> {
        self.mark(id)
    }
}

/// Decides what becomes of each pack that is there. Packs that the index does
/// not know cannot hold anything that was marked.
fn plan(packs: &[Found], marks: &Marks, index: &Index) -> Plan {
    let mut plan = Plan::default();
    for id in packs
        .iter()
        .filter_map(|found| PackId::from_hex(&found.name))
    {
        let number = index.number(id);
        match number.map(|number| (index.pack(number), &marks.live[number as usize])) {
            Some((pack, live)) if live.contains(&true) => {
                if is_sparse(pack, live) {
                    plan.sparse.push((id, live.clone()));
                }
            }
            _ => plan.dead.push(id),
        }
    }
    plan
}

/// Whether too much of a pack is dead, counting a frame's bytes by its chunks.
fn is_sparse(pack: &PackInfo, live: &[bool]) -> bool {
    let (mut dead_bytes, mut all_bytes) = (0, 0);
    for (number, frame) in pack.frames.iter().enumerate() {
        let chunks = &live[pack.chunks_of(number)];
        let dead = chunks.iter().filter(|live| !**live).count() as u64;
        dead_bytes += u64::from(frame.length) * dead / chunks.len() as u64;
        all_bytes += u64::from(frame.length);
    }
    dead_bytes * DEAD_SHARE > all_bytes
}

/// Copies chunks from pack to pack.
struct Copier {
    project: Arc<Inner>,
    packer: Packer,
    handle: Handle,
    reading: FrameCoder,
    writing: FrameCoder,
    frame: FrameBuilder,
}

impl Copier {
    fn new(project: Arc<Inner>, known: Arc<Known>) -> Self {
        Self {
            packer: Packer::new(project.clone(), known),
            project,
            handle: Handle::current(),
            reading: FrameCoder::new(),
            writing: FrameCoder::new(),
            frame: FrameBuilder::default(),
        }
    }

    /// Copies the chunks of a pack that are needed, each checked against its id.
    fn copy(&mut self, id: PackId, live: &[bool]) -> Result<()> {
        let project = self.project.clone();
        let path = pack_path(project.place.project, id);
        let size = self.handle.block_on(project.objects.size(&path))?;
        let pack = self.handle.block_on(project.read_pack_table(id, size))?;
        if pack.table.chunks.len() != live.len() {
            return Err(project.damaged_pack(id, Malformed("its table is not the index's")));
        }
        let seal = PackSeal::new(&project.keys, &project.place, id);
        for number in 0..pack.table.frames.len() {
            let range = pack.table.chunks_of(number);
            if !live[range.clone()].contains(&true) {
                continue;
            }
            let entry = pack.table.frames[number];
            let stored = self.handle.block_on(project.read_frame(id, entry))?;
            let damaged = |problem| project.damaged_pack(id, problem);
            let opened = self
                .reading
                .open(&seal, number as u32, &stored)
                .map_err(damaged)?;
            let chunks = opened.chunks().map_err(damaged)?;
            for ((kind, bytes), at) in chunks.into_iter().zip(range) {
                let (entry, plain) = (pack.table.chunks[at], &opened.bytes()[bytes]);
                if !live[at] {
                    continue;
                }
                if kind != entry.kind || project.keys.hasher.id(kind, plain) != entry.id {
                    let problem = "its bytes are others";
                    return Err(Error::DamagedChunk {
                        id: entry.id,
                        problem,
                    });
                }
                if !self.frame.fits(plain.len()) {
                    self.packer.store(&mut self.writing, &mut self.frame)?;
                }
                self.frame.push(entry.id, kind, plain);
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
