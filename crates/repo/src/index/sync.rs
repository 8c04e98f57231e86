//! Bringing the local index up to date with the store.
//!
//! What the store lists is there. What it does not list may be there all the
//! same, so a pack that an index object or the local index names is asked for
//! before it counts as gone. A pack that is gone though nobody took it away is a
//! loss, which is noted before the index forgets the pack.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::known::Known;
use crate::objects::or_corrupt;
use crate::pack::PackId;
use crate::project::{Inner, READS};
use crate::store::{Folder, pack_path};
use crate::workers;

use super::IndexedPack;

struct Sync<'p> {
    project: &'p Inner,
    known: &'p Arc<Known>,
    /// The packs that the store lists, with the lengths of their objects.
    listed: BTreeMap<PackId, u64>,
    /// Packs that an earlier writer may be removing: they count as gone, and not as lost.
    condemned: HashSet<PackId>,
    /// Whether a loss was noted; once is enough.
    noted: bool,
}

impl Inner {
    /// Reads what is new of the index objects and of packs that no object
    /// names, and drops packs that are gone. Leaves a mark where something is lost.
    /// For an index that nobody uses yet: what is added here moves nobody's marks.
    pub async fn sync_index(&self, known: &Arc<Known>) -> Result<()> {
        let condemned = self.condemned().await;
        let mut listed = self.pack_sizes().await?;
        listed.retain(|pack, _| !condemned.contains(pack));
        let (this, gone) = (known.clone(), Vec::from_iter(condemned.iter().copied()));
        workers::one(move || this.index().remove(&gone)).await?;
        let mut sync = Sync {
            project: self,
            known,
            listed,
            condemned,
            noted: false,
        };
        sync.drop_gone().await?;
        sync.take_in_objects().await?;
        sync.take_in_unnamed().await
    }
}

impl Sync<'_> {
    /// Drops packs of the index that are gone.
    async fn drop_gone(&mut self) -> Result<()> {
        let index = self.known.index();
        let sizes = index
            .packs()
            .into_iter()
            .filter_map(|n| index.pack_size(n))
            .collect();
        let gone = self.gone(sizes).await?;
        let known = self.known.clone();
        workers::one(move || known.index().remove(&gone)).await
    }

    /// Takes in the index objects that are new, as far as the packs that they name are there.
    async fn take_in_objects(&mut self) -> Result<()> {
        let project = self.project;
        let objects = project.objects.list(project.place.project, Folder::Index);
        let objects = objects.await?;
        let index = self.known.index();
        index.keep_taken_in(objects.iter().map(|found| &*found.name));
        let new = objects
            .into_iter()
            .filter(|found| !index.has_taken_in(&found.name));
        let reads = new.map(|found| async move {
            let read = project.read_index(&found).await;
            read.map(|packs| (found.name, packs))
        });
        let mut reads = stream::iter(reads).buffered(READS);
        while let Some(read) = reads.next().await {
            match or_corrupt(read)? {
                Some((name, packs)) => self.take_in(name, packs).await?,
                None => self.note_loss().await?,
            }
        }
        Ok(())
    }

    async fn take_in(&mut self, object: String, mut packs: Vec<IndexedPack>) -> Result<()> {
        packs.retain(|pack| {
            self.known.index().number(pack.id).is_none() && !self.condemned.contains(&pack.id)
        });
        let named = packs.iter().map(|pack| (pack.id, pack.stored_bytes));
        let gone = self.gone(named.collect()).await?;
        packs.retain(|pack| !gone.contains(&pack.id));
        let known = self.known.clone();
        workers::one(move || {
            for pack in &packs {
                known.index().insert(pack)?;
            }
            known.index().take_in(&object)
        })
        .await
    }

    /// Takes in packs by their own tables, where nothing else names them.
    async fn take_in_unnamed(&mut self) -> Result<()> {
        let (project, index) = (self.project, self.known.index());
        let unnamed: Vec<_> = self
            .listed
            .iter()
            .map(|(id, size)| (*id, *size))
            .filter(|(id, _)| index.number(*id).is_none())
            .collect();
        let tables = unnamed
            .into_iter()
            .map(|(id, size)| project.read_pack_table(id, size));
        let mut reads = stream::iter(tables).buffered(READS);
        while let Some(read) = reads.next().await {
            let Some(pack) = or_corrupt(read)? else {
                self.note_loss().await?;
                continue;
            };
            let known = self.known.clone();
            workers::one(move || known.index().insert(&pack)).await?;
        }
        Ok(())
    }

    /// Those of some packs that are not there in full. If there are any, that is noted.
    async fn gone(&mut self, packs: Vec<(PackId, u64)>) -> Result<Vec<PackId>> {
        let project = self.project;
        let listed = |(id, size): &(PackId, u64)| self.listed.get(id) == Some(size);
        let doubtful: Vec<_> = packs.into_iter().filter(|pack| !listed(pack)).collect();
        let asked = doubtful.into_iter().map(|(id, size)| async move {
            let path = pack_path(project.place.project, id);
            let found = or_corrupt(project.objects.size(&path).await)?;
            Ok::<_, Error>((found != Some(size)).then_some(id))
        });
        let mut asked = stream::iter(asked).buffered(READS);
        let mut gone = Vec::new();
        while let Some(answer) = asked.next().await {
            gone.extend(answer?);
        }
        if !gone.is_empty() {
            self.note_loss().await?;
        }
        Ok(gone)
    }

    async fn note_loss(&mut self) -> Result<()> {
        if !self.noted {
            self.project.note_loss_if_writer().await?;
            self.noted = true;
        }
        Ok(())
    }
}
