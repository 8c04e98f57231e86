//! Bringing the local index up to date with the store.
//!
//! What the store lists is there. What it does not list may be there all the
//! same, so a pack that an index object or the local index names is asked for
//! before it counts as gone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::known::Known;
use crate::pack::PackId;
use crate::project::{Inner, READS, or_corrupt};
use crate::store::{Folder, pack_path};
use crate::workers;

use super::IndexedPack;

/// The packs that are there, with the lengths of their objects.
struct Present<'p> {
    project: &'p Inner,
    listed: BTreeMap<PackId, u64>,
    /// Packs that an earlier writer may be removing: they count as gone, and not as lost.
    condemned: HashSet<PackId>,
}

impl Present<'_> {
    /// Whether a pack is there in full.
    async fn has(&self, id: PackId, stored_bytes: u64) -> Result<bool> {
        match self.listed.get(&id) {
            Some(size) => Ok(*size == stored_bytes),
            None => {
                let path = pack_path(self.project.place.project, id);
                let size = or_corrupt(self.project.objects.size(&path).await)?;
                Ok(size == Some(stored_bytes))
            }
        }
    }

    /// Those of some packs that are not there in full.
    async fn gone(&self, packs: Vec<(PackId, u64)>) -> Result<Vec<PackId>> {
        let asked = packs.into_iter().map(|(id, size)| async move {
            let there = self.has(id, size).await?;
            Ok::<_, Error>((!there).then_some(id))
        });
        let mut asked = stream::iter(asked).buffered(READS);
        let mut gone = Vec::new();
        while let Some(answer) = asked.next().await {
            gone.extend(answer?);
        }
        Ok(gone)
    }
}

impl Inner {
    /// Reads what is new of the index objects and of packs that no object
    /// names, and drops packs that are gone. Leaves a mark where something is lost.
    /// For an index that nobody uses yet: what is added here moves nobody's marks.
    pub async fn sync_index(&self, known: &Arc<Known>) -> Result<()> {
        if self.sync_all(known).await? {
            Ok(())
        } else {
            self.note_loss_if_writer().await
        }
    }

    /// As `sync_index`. Returns whether nothing that was named is lost.
    async fn sync_all(&self, known: &Arc<Known>) -> Result<bool> {
        let condemned = self.condemned().await;
        let mut listed = self.pack_sizes().await?;
        listed.retain(|pack, _| !condemned.contains(pack));
        let (this, gone) = (known.clone(), Vec::from_iter(condemned.iter().copied()));
        workers::one(move || this.index().remove(&gone)).await?;
        let present = Present {
            project: self,
            listed,
            condemned,
        };
        let index = known.index();
        let sizes = index.packs().into_iter().filter_map(|n| index.pack_size(n));
        let doubtful = sizes.filter(|(id, size)| present.listed.get(id) != Some(size));
        let gone = present.gone(doubtful.collect()).await?;
        let mut is_whole = gone.is_empty();
        let this = known.clone();
        workers::one(move || this.index().remove(&gone)).await?;
        let objects = self.objects.list(self.place.project, Folder::Index).await?;
        index.keep_taken_in(objects.iter().map(|found| &*found.name));
        let new = objects
            .into_iter()
            .filter(|found| !index.has_taken_in(&found.name));
        let reads = new.map(|found| async move {
            let read = self.read_index(&found).await;
            read.map(|packs| (found.name, packs))
        });
        let mut reads = stream::iter(reads).buffered(READS);
        while let Some(read) = reads.next().await {
            is_whole &= match or_corrupt(read)? {
                Some((name, packs)) => self.take_in(known, &present, name, packs).await?,
                None => false,
            };
        }
        Ok(self.take_in_unnamed(known, present.listed).await? && is_whole)
    }

    /// Takes in an index object, as far as its packs are there. Returns whether all are.
    async fn take_in(
        &self,
        known: &Arc<Known>,
        present: &Present<'_>,
        object: String,
        mut packs: Vec<IndexedPack>,
    ) -> Result<bool> {
        packs.retain(|pack| {
            known.index().number(pack.id).is_none() && !present.condemned.contains(&pack.id)
        });
        let named = packs.iter().map(|pack| (pack.id, pack.stored_bytes));
        let gone = present.gone(named.collect()).await?;
        packs.retain(|pack| !gone.contains(&pack.id));
        let known = known.clone();
        workers::one(move || {
            for pack in &packs {
                known.index().insert(pack)?;
            }
            known.index().take_in(&object)
        })
        .await?;
        Ok(gone.is_empty())
    }

    /// Takes in packs by their own tables, where nothing else names them.
    /// Returns whether all of them could be read.
    async fn take_in_unnamed(
        &self,
        known: &Arc<Known>,
        listed: BTreeMap<PackId, u64>,
    ) -> Result<bool> {
        let unnamed = listed
            .into_iter()
            .filter(|(id, _)| known.index().number(*id).is_none());
        let tables = unnamed.map(|(id, size)| self.read_pack_table(id, size));
        let mut reads = stream::iter(tables).buffered(READS);
        let mut is_whole = true;
        while let Some(read) = reads.next().await {
            let Some(pack) = or_corrupt(read)? else {
                is_whole = false;
                continue;
            };
            let known = known.clone();
            workers::one(move || known.index().insert(&pack)).await?;
        }
        Ok(is_whole)
    }
}
