//! Writing a run from front to back, in little memory.

use std::fs::File;
use std::sync::Arc;

use crate::error::Result;
use crate::random;

use super::{
    BATCH_PAGES, ENTRY_BYTES, Entry, Files, Filter, Footer, PAGE_BYTES, PAGE_ENTRIES,
    PAGE_HASH_BYTES, Run, RunId, fence_of, file_name, page_hash,
};

/// A file that is removed unless it is finished: it may be what fills the disk.
struct Made {
    files: Arc<Files>,
    name: String,
    finished: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.files.remove(&self.name)
        {
            tracing::warn!(%error, "A file of the local index stays until it is opened again.");
        }
    }
}

/// A run that is being written.
pub(in crate::index) struct RunWriter {
    made: Made,
    bound: [u8; 32],
    id: RunId,
    file: File,
    entries: u64,
    fences: Vec<u32>,
    filter: Option<Filter>,
    batch: Vec<u8>,
    length: u64,
}

impl RunWriter {
    /// Starts a run of at most this many entries.
    pub fn new(files: &Arc<Files>, bound: &[u8; 32], entries_max: u64) -> Result<Self> {
        let id = random::bytes();
        let name = file_name(&id);
        Ok(Self {
            file: files.create(&name)?,
            bound: *bound,
            id,
            made: Made {
                files: files.clone(),
                name,
                finished: false,
            },
            entries: 0,
            fences: Vec::with_capacity(entries_max.div_ceil(PAGE_ENTRIES as u64) as usize),
            filter: Filter::for_keys(entries_max),
            batch: Vec::with_capacity(BATCH_PAGES * PAGE_BYTES),
            length: 0,
        })
    }

    /// Adds an entry, which must be behind the last one.
    pub fn push(&mut self, entry: &Entry) -> Result<()> {
        if self.entries.is_multiple_of(PAGE_ENTRIES as u64) {
            self.end_page()?;
            self.fences.push(fence_of(&entry.key));
        }
        let at = self.batch.len();
        self.batch.resize(at + ENTRY_BYTES, 0);
        entry.write(&mut self.batch[at..]);
        if let Some(filter) = &mut self.filter {
            filter.insert(&entry.key);
        }
        self.entries += 1;
        Ok(())
    }

    /// Adds the checksum to the page that was begun, if there is one.
    fn end_page(&mut self) -> Result<()> {
        let Some(number) = (self.fences.len() as u64).checked_sub(1) else {
            return Ok(());
        };
        let start = self.batch.len().next_multiple_of(PAGE_BYTES) - PAGE_BYTES;
        self.batch.resize(start + PAGE_BYTES - PAGE_HASH_BYTES, 0);
        let hash = page_hash(&self.id, number, &self.batch[start..]);
        self.batch.extend_from_slice(&hash);
        if self.batch.len() == BATCH_PAGES * PAGE_BYTES {
            self.write_batch()?;
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.write(&batch)?;
        self.batch = batch;
        self.batch.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Made { files, name, .. } = &self.made;
        files.write_at(name, &self.file, bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes the run durable, but for its name.
    pub fn finish(mut self) -> Result<Run> {
        self.end_page()?;
        self.write_batch()?;
        let mut hasher = blake3::Hasher::new();
        let mut fences = std::mem::take(&mut self.fences);
        fences.shrink_to_fit();
        for some in fences.chunks(BATCH_PAGES * PAGE_BYTES / 4) {
            self.batch.extend(some.iter().flat_map(|f| f.to_le_bytes()));
            hasher.update(&self.batch);
            self.write_batch()?;
        }
        let filter = self.filter.take();
        let bytes = filter.as_ref().map_or(&[][..], Filter::as_bytes);
        self.write(bytes)?;
        let footer = Footer {
            bound: self.bound,
            id: self.id,
            entries: self.entries,
            filter_bytes: bytes.len() as u64,
            fences: hasher.finalize().into(),
            filter: blake3::hash(bytes).into(),
        };
        self.write(&footer.encode())?;
        self.made.files.sync(&self.made.name, &self.file)?;
        self.made.finished = true;
        Ok(Run {
            id: self.id,
            entries: self.entries,
            files: self.made.files.clone(),
            name: self.made.name.clone(),
            file: self.file,
            fences,
            filter,
        })
    }
}
