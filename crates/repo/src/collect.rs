//! Collection: removing what no backup needs, beside everything else.
//!
//! It marks, chunk by chunk, what backups reach. What those at work need is
//! asked of them, at the instant in which packs are condemned (`known.rs`): what
//! writers have found stored, what readers have pinned, also of those that have
//! ended since the collection began. Chunks that are condemned are unknown from
//! that instant on, so whoever meets one stores it anew.
//!
//! It works in rounds, each complete in itself and in the order that makes every
//! crash harmless: new packs, index objects without the old ones, the entry in
//! the log that condemns them, and only then are old index objects and packs
//! removed. If what a backup needs cannot be told, nothing is removed.

mod decide;
mod reach;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cairn_types::{BackupId, Kind, Progress, ResourceId, Timestamp};
use futures::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::index::PackInfo;
use crate::known::{Collecting, Known};
use crate::log::CONDEMNED_MAX;
use crate::manifest::Content;
use crate::marks::Bits;
use crate::pack::PackId;
use crate::parity::Keeper;
use crate::project::{Inner, READS};
use crate::removal::Removal;
use crate::rewrite::{self, PackCopy};
use crate::store::{Folder, Found, manifest_name};
use crate::workers::{self, Stop, StopOnDrop};

use decide::{Fate, Usage, fates, rounds};
use reach::{Heat, Reached};

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Backups of which some data is in no pack.
    pub hurt: Vec<BackupId>,
}

pub(crate) async fn collect(
    project: &Arc<Inner>,
    promised: &[BackupId],
    kept: &[PackId],
    progress: Arc<Progress>,
) -> Result<Collected> {
    let _alone = project.turn_to_collect().await?;
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let mut removal = Removal::begin(project).await?;
    let known = removal.known().clone();
    let keeper = Keeper::new(project, known.clone(), &stop);
    keeper.heal_lost(&mut removal).await?;
    let mut collection = Collection {
        _collecting: known.begin_collection(),
        project: project.clone(),
        known,
        stop: stop.clone(),
        reached: Reached::default(),
        pins_seen: 0,
        done: Collected::default(),
    };
    collection.run(promised, kept, &mut removal).await?;
    keeper.protect(&BTreeSet::new()).await?;
    stop.complete();
    Ok(collection.done)
}

struct Collection {
    _collecting: Collecting,
    project: Arc<Inner>,
    known: Arc<Known>,
    stop: Arc<Stop>,
    reached: Reached,
    /// Pinned trees that have been walked.
    pins_seen: usize,
    done: Collected,
}

impl Collection {
    async fn run(
        &mut self,
        promised: &[BackupId],
        kept: &[PackId],
        removal: &mut Removal,
    ) -> Result<()> {
        // What is published from here on is no candidate, and neither is what somebody
        // has stored who will go on.
        let mut candidates = removal.candidates().await?;
        let index = self.known.index();
        let kept: HashSet<u32> = kept.iter().filter_map(|id| index.number(*id)).collect();
        candidates.retain(|number| !kept.contains(number));
        let project = self.project.place.project;
        let packs = self.project.objects.list(project, Folder::Packs).await?;
        let sizes: BTreeMap<PackId, u64> = packs.iter().filter_map(pack_size).collect();
        let backups = self.project.backups_for_sure(promised).await?;
        self.done.manifests_removed = self.remove_manifests(&backups).await?;
        self.reach(&backups, sizes.values().sum()).await?;
        self.remove_garbage(&sizes, removal).await?;
        self.reach_pins().await?;
        let usage = self.usage(&candidates).await?;
        let fates = fates(&usage);
        let rounds = rounds(&usage, &fates);
        let work = rounds.iter().flatten().map(|at| usage[*at].live);
        self.stop.progress().add_total(work.sum());
        for round in rounds {
            self.stop.check()?;
            let packs = round.into_iter().map(|at| (candidates[at], fates[at]));
            self.round(packs.collect(), &sizes, removal).await?;
        }
        self.done.index_objects_removed += removal.tidy().await?;
        let left = self.project.objects.list(project, Folder::Packs).await?;
        self.done.stored_bytes = left.iter().map(|pack| pack.size_bytes).sum();
        Ok(())
    }

    /// Removes manifests that no receipt names and that nobody is writing.
    async fn remove_manifests(&self, backups: &[BackupId]) -> Result<u64> {
        let project = &self.project;
        let folder = Folder::Manifests;
        let mut by_backup: BTreeMap<BackupId, Vec<Found>> = BTreeMap::new();
        for found in project.objects.list(project.place.project, folder).await? {
            if let Some(backup) = manifest_name(&found.name) {
                by_backup.entry(backup).or_default().push(found);
            }
        }
        let acknowledged: HashSet<&BackupId> = backups.iter().collect();
        by_backup.retain(|backup, found| found.len() > 1 || !acknowledged.contains(backup));
        let mut removed = 0;
        for (backup, found) in by_backup {
            // In this order: whoever writes it has a receipt before the writing ends.
            if project.is_being_written(backup) {
                continue;
            }
            let receipt = match project.receipt(backup).await {
                // Nobody can tell which of them it names.
                Err(error) if error.kind() == Kind::Corrupt => continue,
                receipt => receipt?,
            };
            let named = receipt.map(|receipt| project.manifest_path(&receipt));
            for found in found
                .iter()
                .filter(|found| Some(&found.path) != named.as_ref())
            {
                project.objects.delete(&found.path).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Marks what backups reach. Counts the progress in bytes of packs.
    async fn reach(&mut self, backups: &[BackupId], stored_bytes: u64) -> Result<()> {
        let share = stored_bytes / (backups.len() as u64).max(1);
        self.stop.progress().add_total(share * backups.len() as u64);
        let newest = self.newest(backups).await?;
        let hot = newest.iter().map(|backup| (*backup, Heat::Hot));
        let rest = backups.iter().filter(|backup| !newest.contains(backup));
        for (backup, heat) in hot.chain(rest.map(|backup| (*backup, Heat::Cold))) {
            self.stop.check()?;
            match self.project.manifest(backup).await {
                Ok((manifest, _)) => self.walk(backup, (manifest.content, heat)).await?,
                // It was deleted meanwhile; whoever relies on it holds that himself.
                Err(_) if self.project.is_gone(backup).await? => {}
                Err(error) if error.kind() == Kind::Corrupt => {
                    return Err(unreadable(backup, error));
                }
                Err(error) => return Err(error),
            }
            self.stop.progress().advance(share);
        }
        Ok(())
    }

    /// The newest backup of each resource. What cannot be read is left out:
    /// whether that matters, the walk says.
    async fn newest(&self, backups: &[BackupId]) -> Result<BTreeSet<BackupId>> {
        let mut newest: HashMap<ResourceId, (Timestamp, BackupId)> = HashMap::new();
        let read = |backup: &BackupId| {
            let (project, backup) = (self.project.clone(), *backup);
            async move { (backup, project.manifest(backup).await) }
        };
        let reads: Vec<_> = backups.iter().map(read).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        while let Some((backup, manifest)) = reads.next().await {
            self.stop.check()?;
            match manifest {
                Ok((manifest, _)) => {
                    let this = (manifest.info.created_at, backup);
                    let known = newest.entry(manifest.info.resource).or_insert(this);
                    *known = this.max(*known);
                }
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(newest.into_values().map(|(_, backup)| backup).collect())
    }

    /// Marks what the trees reach that were pinned since.
    async fn reach_pins(&mut self) -> Result<()> {
        loop {
            let pinned = self.known.pinned(self.pins_seen);
            if pinned.is_empty() {
                return Ok(());
            }
            self.pins_seen += pinned.len();
            for (backup, content) in pinned {
                self.stop.check()?;
                self.walk(backup, (content, Heat::Cold)).await?;
            }
        }
    }

    async fn walk(&mut self, backup: BackupId, tree: (Content, Heat)) -> Result<()> {
        let (project, known) = (self.project.clone(), self.known.clone());
        let (stop, mut reached) = (self.stop.clone(), std::mem::take(&mut self.reached));
        let (reached, walked) = workers::one(move || {
            let walked = reached.walk(&project, &known, &stop, (&tree.0, tree.1));
            Ok((reached, walked))
        })
        .await?;
        self.reached = reached;
        // Half a tree is marked: nothing may be decided any more, even if the
        // backup should be deleted by now.
        let missing = walked.map_err(|error| match error.kind() {
            Kind::Corrupt => unreadable(backup, error),
            _ => error,
        })?;
        if missing > 0 && !self.done.hurt.contains(&backup) {
            tracing::error!(backup.id = %backup, "Some of a backup is in no pack.");
            self.done.hurt.push(backup);
        }
        Ok(())
    }

    /// Removes packs that are in nobody's index and that nobody is writing. Where
    /// something is missing they stay: it may be in there.
    async fn remove_garbage(
        &mut self,
        sizes: &BTreeMap<PackId, u64>,
        removal: &mut Removal,
    ) -> Result<()> {
        let garbage = sizes.keys().filter(|id| !self.known.has_pack(**id));
        let garbage: Vec<PackId> = garbage.copied().collect();
        if garbage.is_empty() || !self.done.hurt.is_empty() {
            return Ok(());
        }
        for packs in garbage.chunks(CONDEMNED_MAX) {
            self.stop.check()?;
            removal.condemn_and_remove(packs.to_vec()).await?;
            self.count_removed(packs, sizes);
        }
        Ok(())
    }

    fn count_removed(&mut self, packs: &[PackId], sizes: &BTreeMap<PackId, u64>) {
        self.done.packs_removed += packs.len() as u64;
        let bytes: u64 = packs.iter().filter_map(|pack| sizes.get(pack)).sum();
        self.done.freed_bytes += bytes;
    }

    /// How much of each candidate is in use as far as is known now.
    async fn usage(&mut self, candidates: &[u32]) -> Result<Vec<Usage>> {
        let (known, reached) = (self.known.clone(), std::mem::take(&mut self.reached));
        let candidates = candidates.to_vec();
        let (reached, usages) = workers::one(move || {
            let usage = |number: &u32| {
                let mut live = known.needed(*number);
                live.merge(&reached.of_pack(*number));
                let hot = reached.hot_of_pack(*number);
                Ok(usage(&*pack(&known, *number)?, &live, &hot))
            };
            let usages: Result<Vec<Usage>> = candidates.iter().map(usage).collect();
            Ok((reached, usages))
        })
        .await?;
        self.reached = reached;
        usages
    }

    /// Takes some packs away, with what is needed of them copied before.
    async fn round(
        &mut self,
        packs: Vec<(u32, Fate)>,
        sizes: &BTreeMap<PackId, u64>,
        removal: &mut Removal,
    ) -> Result<()> {
        let known = self.known.clone();
        let infos = workers::one(move || {
            let info = |(number, fate)| Ok((number, (fate, pack(&known, number)?)));
            packs.into_iter().map(info).collect::<Result<_>>()
        })
        .await?;
        let (mut condemned, copies, mut gone) = self.condemn(infos).await?;
        let rewritten = rewrite::copy(&self.project, &self.known, &self.stop, copies).await?;
        condemned.acquit(&rewritten.left);
        self.done.packs_rewritten += rewritten.packs.len() as u64;
        gone.extend(rewritten.packs);
        condemned.keep();
        if !gone.is_empty() {
            removal.condemn_and_remove(gone.clone()).await?;
        }
        self.count_removed(&gone, sizes);
        self.done.freed_bytes = self.done.freed_bytes.saturating_sub(rewritten.stored_bytes);
        Ok(())
    }

    /// Condemns what nobody needs of some packs. Returns what is to be copied
    /// out of them, and those that are dead in full.
    async fn condemn(
        &mut self,
        packs: BTreeMap<u32, (Fate, Arc<PackInfo>)>,
    ) -> Result<(Condemnation, Vec<PackCopy>, Vec<PackId>)> {
        loop {
            self.reach_pins().await?;
            let (mut copies, mut dead) = (Vec::new(), Vec::new());
            let decide = |number, mut live: Bits| {
                let (fate, pack) = &packs[&number];
                live.merge(&self.reached.of_pack(number));
                let gone = live.complement(pack.chunks);
                if live.is_empty() {
                    dead.push(pack.id);
                } else if *fate == Fate::Rewrite {
                    copies.push(PackCopy {
                        number,
                        pack: pack.clone(),
                        live,
                        hot: self.reached.hot_of_pack(number),
                    });
                } else {
                    // Somebody has come to need it.
                    return None;
                }
                Some(gone)
            };
            let condemned = self
                .known
                .condemn(packs.keys().copied(), self.pins_seen, decide);
            if condemned {
                let condemnation = Condemnation {
                    known: self.known.clone(),
                    packs: packs.keys().copied().collect(),
                };
                return Ok((condemnation, copies, dead));
            }
        }
    }
}

/// Packs of which something is condemned in memory. Dropped, they stay as they are.
pub(crate) struct Condemnation {
    pub known: Arc<Known>,
    pub packs: HashSet<u32>,
}

impl Condemnation {
    /// Takes it back for some packs.
    pub fn acquit(&mut self, packs: &[u32]) {
        self.packs.retain(|pack| !packs.contains(pack));
        self.known.acquit(packs.iter().copied());
    }

    /// Leaves the packs condemned: the log may say so from now on.
    pub fn keep(mut self) {
        self.packs.clear();
    }
}

impl Drop for Condemnation {
    fn drop(&mut self) {
        self.known.acquit(self.packs.drain());
    }
}

fn unreadable(backup: BackupId, source: Error) -> Error {
    Error::Unreadable {
        backup,
        source: Box::new(source),
    }
}

fn pack_size(found: &Found) -> Option<(PackId, u64)> {
    Some((PackId::from_hex(&found.name)?, found.size_bytes))
}

/// A pack that nobody but this collection can take away.
fn pack(known: &Known, number: u32) -> Result<Arc<PackInfo>> {
    let found = known.index().pack(number)?;
    Ok(found.expect("one collection of a project runs at a time"))
}

/// How much of a pack is in use, counting a frame's bytes by its chunks.
fn usage(pack: &PackInfo, live: &Bits, hot: &Bits) -> Usage {
    let mut usage = Usage::default();
    for (number, frame) in pack.frames.iter().enumerate() {
        let chunks = pack.chunks_of(number);
        let (all, length) = (chunks.len() as u64, u64::from(frame.length));
        usage.bytes += length;
        let share = |count: usize| (length * count as u64).div_ceil(all);
        usage.live += share(live.count(chunks.clone()));
        let hot = hot.count(chunks);
        usage.hot += share(hot);
        usage.opened += if hot > 0 { length } else { 0 };
    }
    usage
}
