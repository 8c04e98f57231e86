//! Collection: removing what no backup needs.
//!
//! It holds the gate alone, so nothing is written meanwhile, and a manifest
//! without a receipt is of no backup. What all backups reach is marked chunk by
//! chunk; packs with nothing marked go, packs with much that is not are
//! written anew. The order makes every crash harmless: new packs, new index
//! objects, then the old index objects are removed and the old packs last. If
//! any backup cannot be read in full, nothing is removed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use cairn_types::{BackupId, Progress};

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::index::{Index, PackInfo};
use crate::known::Known;
use crate::manifest::Content;
use crate::pack::PackId;
use crate::project::{Gate, Inner};
use crate::read::{ChunkReader, Visit};
use crate::rewrite::{PackCopy, Rewrite};
use crate::store::{Folder, Found, manifest_path};
use crate::workers;

/// A pack is written anew when more than one byte in this many is dead.
const DEAD_SHARE: u64 = 4;

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
    let gate = project.enter_alone()?;
    // What is known is read anew, before and after: packs that a failed session
    // left are found, and those that are removed here are forgotten.
    project.forget_known().await;
    let collected = Collection {
        project: project.clone(),
        gate,
        progress,
    };
    let result = collected.run().await;
    project.forget_known().await;
    result
}

struct Collection {
    project: Arc<Inner>,
    gate: Arc<Gate>,
    progress: Arc<Progress>,
}

/// What becomes of the packs that are there.
#[derive(Debug, Default)]
struct Plan {
    /// To be removed; their chunks are not needed.
    dead: Vec<PackId>,
    /// To be written anew.
    sparse: Vec<PackCopy>,
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
        let plan = plan(&packs, &marks, known.index())?;
        let rewrite = Rewrite {
            gate: self.gate.clone(),
            project: self.project.clone(),
            known,
            progress: self.progress.clone(),
        };
        let rewritten = rewrite.copy(plan.sparse).await?;
        done.packs_rewritten = rewritten.len() as u64;
        let gone: HashSet<PackId> = plan.dead.into_iter().chain(rewritten).collect();
        done.packs_removed = gone.len() as u64;
        done.index_objects_removed = rewrite.remove(&gone).await?;
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
        self.progress.add_total(backups.len() as u64);
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
}

/// Which chunks of which packs are needed.
struct Marks {
    known: Arc<Known>,
    nodes: HashSet<ChunkId>,
    /// By the pack's number in the index; none where nothing is needed.
    live: HashMap<u32, Vec<bool>>,
}

impl Marks {
    fn new(known: Arc<Known>) -> Self {
        let (nodes, live) = Default::default();
        Self { known, nodes, live }
    }

    fn mark(&mut self, id: ChunkId) -> Result<()> {
        let index = self.known.index();
        let place = index.get(&id.key())?.ok_or(Error::NoChunk { id })?;
        let marks = match self.live.entry(place.pack) {
            Entry::Occupied(marks) => marks.into_mut(),
            Entry::Vacant(none) => {
                let pack = index.pack(place.pack)?.ok_or(Error::NoChunk { id })?;
                none.insert(vec![false; pack.chunks as usize])
            }
        };
        marks[place.chunk as usize] = true;
        Ok(())
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
fn plan(packs: &[Found], marks: &Marks, index: &Index) -> Result<Plan> {
    let mut plan = Plan::default();
    for id in packs
        .iter()
        .filter_map(|found| PackId::from_hex(&found.name))
    {
        let number = index.number(id);
        let live = number.and_then(|number| Some((number, marks.live.get(&number)?)));
        let Some((number, live)) = live else {
            plan.dead.push(id);
            continue;
        };
        let pack = index.pack(number)?.ok_or(Error::InUse)?;
        if is_sparse(&pack, live) {
            plan.sparse.push(PackCopy {
                id,
                frames: pack.frames.clone(),
                live: by_frame(&pack, live),
            });
        }
    }
    Ok(plan)
}

/// Which chunks of each frame are needed.
fn by_frame(pack: &PackInfo, live: &[bool]) -> Vec<Vec<bool>> {
    (0..pack.frames.len())
        .map(|frame| live[pack.chunks_of(frame)].to_vec())
        .collect()
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
