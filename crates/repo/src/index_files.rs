//! The index objects in the store, as they are kept in order: they name the
//! packs that are there, and no others, and there are not too many of them.
//!
//! New objects are written before old ones are removed. None of them is ever
//! the only witness of a pack: a pack's own table tells the same.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, stream};

use crate::error::Result;
use crate::index::{INDEX_BYTES, IndexedPack};
use crate::known::Known;
use crate::objects::or_corrupt;
use crate::pack::PackId;
use crate::project::{Inner, READS};
use crate::store::{Folder, Found};
use crate::workers;

/// An object with fewer bytes of tables is a small one.
const SMALL_BYTES: u64 = (INDEX_BYTES / 2) as u64;
/// So many small objects may there be before they are written together.
const SMALL_OBJECTS: usize = 64;

/// The index objects of a project.
pub(crate) struct IndexFiles {
    project: Arc<Inner>,
    known: Arc<Known>,
    objects: Vec<Object>,
    /// Objects whose packs others name, or that are damaged.
    stale: Vec<Found>,
    removed: u64,
}

struct Object {
    found: Found,
    packs: Vec<PackId>,
}

impl IndexFiles {
    /// Reads all of them, and writes new ones for packs that none names.
    pub async fn open(project: Arc<Inner>, known: Arc<Known>) -> Result<Self> {
        let mut files = Self {
            project,
            known,
            objects: Vec::new(),
            stale: Vec::new(),
            removed: 0,
        };
        files.read_again().await?;
        Ok(files)
    }

    /// As `open`: what others have written since is among them afterwards.
    pub async fn read_again(&mut self) -> Result<()> {
        let project = &self.project;
        let found = project.objects.list(project.place.project, Folder::Index);
        let (mut objects, mut stale) = (Vec::new(), Vec::new());
        let reads = found.await?.into_iter();
        let reads = reads.map(|found| async move { (project.read_index(&found).await, found) });
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffered(READS);
        while let Some((read, found)) = reads.next().await {
            match or_corrupt(read)? {
                Some(packs) => {
                    let packs = packs.iter().map(|pack| pack.id).collect();
                    objects.push(Object { found, packs });
                }
                None => stale.push(found),
            }
        }
        drop(reads);
        (self.objects, self.stale) = (objects, stale);
        self.name_all().await
    }

    /// Writes the objects that name some packs anew, without those.
    pub async fn leave_out(&mut self, gone: &HashSet<PackId>) -> Result<()> {
        self.replace(
            |object| object.packs.iter().any(|pack| gone.contains(pack)),
            gone,
        )
        .await
    }

    /// Writes small objects together where there are too many.
    pub async fn merge_small(&mut self) -> Result<()> {
        let small = |object: &Object| object.found.size_bytes < SMALL_BYTES;
        if self.objects.iter().filter(|object| small(object)).count() <= SMALL_OBJECTS {
            return Ok(());
        }
        self.replace(small, &HashSet::new()).await
    }

    /// Leaves out the packs that are lost.
    pub async fn leave_out_lost(&mut self) -> Result<()> {
        let named = self.objects.iter().flat_map(|object| &object.packs);
        let lost = named.filter(|pack| !self.known.has_pack(**pack)).copied();
        let lost: HashSet<PackId> = lost.collect();
        self.leave_out(&lost).await
    }

    /// Names the packs that are known and in no object, and that nobody is about to name.
    async fn name_all(&mut self) -> Result<()> {
        let named = self.named();
        let known = self.known.clone();
        let unnamed = workers::one(move || {
            let mut unnamed = Vec::new();
            for number in known.settled_packs() {
                if let Some(pack) = known.index().pack(number)?
                    && !named.contains(&pack.id)
                {
                    unnamed.push((pack.id, pack.stored_bytes));
                }
            }
            Ok(unnamed)
        })
        .await?;
        let mut writing = Writing::default();
        for (id, stored_bytes) in unnamed {
            let table = self.project.read_pack_table(id, stored_bytes).await;
            if let Some(pack) = or_corrupt(table)? {
                writing.add(&self.project, &self.known, pack).await?;
            }
        }
        self.objects
            .extend(writing.finish(&self.project, &self.known).await?);
        Ok(())
    }

    /// Writes all objects that `which` says anew, without the packs that are gone.
    async fn replace(
        &mut self,
        which: impl Fn(&Object) -> bool,
        gone: &HashSet<PackId>,
    ) -> Result<()> {
        let (old, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.objects)
            .into_iter()
            .partition(which);
        self.objects = stay;
        let mut writing = Writing::default();
        for object in old {
            for pack in
                or_corrupt(self.project.read_index(&object.found).await)?.unwrap_or_default()
            {
                if !gone.contains(&pack.id) {
                    writing.add(&self.project, &self.known, pack).await?;
                }
            }
            self.stale.push(object.found);
        }
        self.objects
            .extend(writing.finish(&self.project, &self.known).await?);
        Ok(())
    }

    /// Removes the objects that others have replaced.
    pub async fn remove_stale(&mut self) -> Result<()> {
        while let Some(found) = self.stale.last() {
            self.project.objects.delete(&found.path).await?;
            self.stale.pop();
            self.removed += 1;
        }
        Ok(())
    }

    /// The packs that are named.
    pub fn named(&self) -> HashSet<PackId> {
        let packs = self.objects.iter().flat_map(|object| &object.packs);
        packs.copied().collect()
    }

    /// How many objects were removed.
    pub fn removed(&self) -> u64 {
        self.removed
    }
}

/// Packs on their way into new objects.
#[derive(Default)]
struct Writing {
    seen: HashSet<PackId>,
    packs: Vec<IndexedPack>,
    bytes: usize,
    written: Vec<Object>,
}

impl Writing {
    async fn add(&mut self, project: &Inner, known: &Arc<Known>, pack: IndexedPack) -> Result<()> {
        if !self.seen.insert(pack.id) {
            return Ok(());
        }
        self.bytes += pack.table.encoded_bytes();
        self.packs.push(pack);
        if self.bytes >= INDEX_BYTES {
            self.write(project, known).await?;
        }
        Ok(())
    }

    async fn write(&mut self, project: &Inner, known: &Arc<Known>) -> Result<()> {
        let found = project.write_index(known, &self.packs).await?;
        let packs = self.packs.drain(..).map(|pack| pack.id).collect();
        self.written.push(Object { found, packs });
        self.bytes = 0;
        Ok(())
    }

    async fn finish(mut self, project: &Inner, known: &Arc<Known>) -> Result<Vec<Object>> {
        if !self.packs.is_empty() {
            self.write(project, known).await?;
        }
        Ok(self.written)
    }
}
