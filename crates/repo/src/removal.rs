//! Taking packs away, in the order that makes every crash harmless: index
//! objects without them, the entry in the log that condemns them, then the old
//! index objects go and the packs last. Used by collection and repair, of which
//! one runs at a time in a project.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Result;
use crate::index_files::IndexFiles;
use crate::known::Known;
use crate::log::{Condemned, Log};
use crate::pack::PackId;
use crate::project::{Inner, READS};
use crate::store::pack_path;
use crate::workers;

/// The means to take packs away.
pub(crate) struct Removal {
    project: Arc<Inner>,
    known: Arc<Known>,
    log: Arc<Log>,
    /// Read when they are first needed, and again for candidates.
    files: Option<IndexFiles>,
}

impl Removal {
    /// For whoever has the project's collecting to himself. What earlier ones
    /// condemned and did not get to remove is gone when this returns.
    ///
    /// Errors: `Conflict` another process is the writer now; `Denied` the repository is open for reading.
    pub async fn begin(project: &Arc<Inner>) -> Result<Self> {
        let log = project.log()?.clone();
        project.check_log().await?;
        let mut removal = Self {
            project: project.clone(),
            known: project.known().await?,
            log,
            files: None,
        };
        removal.finish_earlier().await?;
        Ok(removal)
    }

    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Removes what was condemned by earlier writers, or by this one where it
    /// came no further. Everybody has done without it since.
    async fn finish_earlier(&mut self) -> Result<()> {
        for (slot, packs) in self.log.condemned(self.project.place.project).await {
            self.project.objects.wait(self.log.confirm()).await??;
            self.files().await?.leave_out(&as_set(&packs)).await?;
            self.remove(slot, &packs).await?;
        }
        Ok(())
    }

    /// The packs that may be taken away from here on, by number: every index object that
    /// will ever name one of them stands, and is read after this.
    pub async fn candidates(&mut self) -> Result<Vec<u32>> {
        let known = self.known.clone();
        let candidates = workers::one(move || Ok(known.settled_packs())).await?;
        if let Some(files) = &mut self.files {
            files.read_again().await?;
        }
        Ok(candidates)
    }

    /// Removes candidates, or packs that nobody knows of, that nobody needs any more. From when this is called they
    /// must stay condemned in memory: if it fails, the log may name them.
    pub async fn condemn_and_remove(&mut self, packs: Vec<PackId>) -> Result<()> {
        self.files().await?.leave_out(&as_set(&packs)).await?;
        let condemned = Condemned {
            project: self.project.place.project,
            packs: packs.clone(),
        };
        let slot = self.project.objects.wait(self.log.condemn(condemned));
        let slot = slot.await??;
        self.remove(slot, &packs).await
    }

    /// The packs that index objects name, whether or not they are there.
    pub async fn named_packs(&mut self) -> Result<HashSet<PackId>> {
        Ok(self.files().await?.named())
    }

    /// Brings the index objects into order. Returns how many were removed in all.
    pub async fn tidy(&mut self) -> Result<u64> {
        let files = self.files().await?;
        files.leave_out_lost().await?;
        files.merge_small().await?;
        files.remove_stale().await?;
        Ok(files.removed())
    }

    async fn remove(&mut self, slot: u64, packs: &[PackId]) -> Result<()> {
        let (known, gone) = (self.known.clone(), packs.to_vec());
        // Whoever finds a pack gone finds its chunks elsewhere.
        workers::one(move || known.forget(&gone)).await?;
        self.files().await?.remove_stale().await?;
        let project = &self.project;
        let deletions = packs.iter().map(|pack| {
            let path = pack_path(project.place.project, *pack);
            async move { project.objects.delete(&path).await }
        });
        let deletions: Vec<_> = deletions.collect();
        let mut deleted = stream::iter(deletions).buffer_unordered(READS);
        while deleted.try_next().await?.is_some() {}
        drop(deleted);
        self.log.settle(slot).await;
        Ok(())
    }

    async fn files(&mut self) -> Result<&mut IndexFiles> {
        if self.files.is_none() {
            self.files = Some(IndexFiles::open(self.project.clone(), self.known.clone()).await?);
        }
        Ok(self.files.as_mut().expect("they were read above"))
    }
}

fn as_set(packs: &[PackId]) -> HashSet<PackId> {
    packs.iter().copied().collect()
}
