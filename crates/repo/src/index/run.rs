//! A run: one sorted, immutable file of the local index.
//!
//! It is pages of 4 KiB with 170 entries each and a checksum, then the *fences*
//! (the first four bytes of each page's first key), a filter, and a footer. In
//! memory are the fences, a fifth of a bit for each entry, and the filter. Keys are
//! hashes, so the place of a key among the fences is guessed closely, and a
//! question reads one page.

mod writer;

pub(super) use writer::RunWriter;

use std::fs::File;
use std::sync::Arc;

use crate::chunk::ChunkKey;
use crate::codec::{Malformed, Reader};
use crate::error::Result;

use super::Place;
use super::files::Files;
use super::filter::Filter;

/// Bytes that a question reads.
const PAGE_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 24;
const PAGE_HASH_BYTES: usize = 16;
/// Entries in every page but the last.
pub(super) const PAGE_ENTRIES: usize = (PAGE_BYTES - PAGE_HASH_BYTES) / ENTRY_BYTES;
/// Pages that are written, or read one behind the other, at a time.
const BATCH_PAGES: usize = 64;
const MAGIC: [u8; 8] = *b"CAIRNRUN";
const VERSION: u16 = 1;
const FOOTER_BYTES: usize = 8 + 2 + 32 + 16 + 8 + 8 + 32 + 32;

/// A chunk and where it is. Sorted by key, then by the age of the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub key: ChunkKey,
    pub place: Place,
}

impl Entry {
    fn write(&self, out: &mut [u8]) {
        out[..16].copy_from_slice(&self.key);
        out[16..20].copy_from_slice(&self.place.pack.to_le_bytes());
        out[20..24].copy_from_slice(&self.place.chunk.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes(*bytes[at..].first_chunk().expect("an entry has 24 bytes"))
        };
        Self {
            key: *bytes.first_chunk().expect("an entry has 24 bytes"),
            place: Place {
                pack: word(16),
                chunk: word(20),
            },
        }
    }
}

/// The random name of a run.
pub(super) type RunId = [u8; 16];

/// The name of a run's file.
pub(super) fn file_name(id: &RunId) -> String {
    format!("run-{}", hex::encode(id))
}

/// What a run's file ends with.
struct Footer {
    /// Repository and project.
    bound: [u8; 32],
    id: RunId,
    entries: u64,
    filter_bytes: u64,
    /// The hashes of fences and filter.
    fences: [u8; 32],
    filter: [u8; 32],
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut out = [&MAGIC[..], &VERSION.to_le_bytes(), &self.bound, &self.id].concat();
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.filter_bytes.to_le_bytes());
        out.extend_from_slice(&self.fences);
        out.extend_from_slice(&self.filter);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (body, hash) = bytes
            .split_last_chunk::<32>()
            .ok_or(Malformed("it is cut short"))?;
        let mut reader = Reader::new(body);
        let (magic, version) = (reader.array()?, reader.u16()?);
        if magic != MAGIC || version != VERSION || blake3::hash(body) != *hash {
            return Err(Malformed("it has no footer"));
        }
        let footer = Self {
            bound: reader.array()?,
            id: reader.array()?,
            entries: reader.u64()?,
            filter_bytes: reader.u64()?,
            fences: reader.array()?,
            filter: reader.array()?,
        };
        reader.finish()?;
        Ok(footer)
    }
}

/// A run that is open for questions.
#[derive(Debug)]
pub(super) struct Run {
    pub id: RunId,
    pub entries: u64,
    files: Arc<Files>,
    name: String,
    file: File,
    /// The first four bytes of each page's first key, as a number that sorts alike.
    fences: Vec<u32>,
    filter: Option<Filter>,
}

/// The page that was read last, for questions in the order of their keys.
pub(super) struct PageBuffer {
    bytes: Box<[u8; PAGE_BYTES]>,
    number: Option<u64>,
}

impl PageBuffer {
    pub fn new() -> Self {
        Self {
            bytes: Box::new([0; PAGE_BYTES]),
            number: None,
        }
    }

    /// Makes room for the pages of another run.
    pub fn forget(&mut self) {
        self.number = None;
    }
}

impl Run {
    /// Opens a run. Its filter is left out if it has more than `filter_room` bytes.
    ///
    /// Errors: `LocalIndexDamaged` it is not what was written.
    pub fn open(
        files: &Arc<Files>,
        bound: &[u8; 32],
        id: RunId,
        entries: u64,
        filter_room: u64,
    ) -> Result<Self> {
        let name = file_name(&id);
        let file = files.open_file(&name)?;
        let damaged = |problem| files.damaged(&name, problem);
        let length = files.length(&name, &file)?;
        let footer_bytes = (FOOTER_BYTES + 32) as u64;
        let footer_at = length.checked_sub(footer_bytes);
        let footer_at = footer_at.ok_or_else(|| damaged("it is cut short"))?;
        let mut bytes = vec![0; FOOTER_BYTES + 32];
        files.read_at(&name, &file, &mut bytes, footer_at)?;
        let footer = Footer::decode(&bytes).map_err(|Malformed(problem)| damaged(problem))?;
        if footer.bound != *bound || footer.id != id || footer.entries != entries {
            return Err(damaged("it is another run"));
        }
        let pages = entries.div_ceil(PAGE_ENTRIES as u64);
        let fences_at = pages * PAGE_BYTES as u64;
        let filter_at = fences_at + pages * 4;
        if filter_at.checked_add(footer.filter_bytes) != Some(footer_at) {
            return Err(damaged("it has another length than it says"));
        }
        let mut fences = Vec::with_capacity(pages as usize);
        let hash = files.read_hashed(&name, &file, fences_at..filter_at, |bytes| {
            let words = bytes.as_chunks::<4>().0.iter();
            fences.extend(words.map(|word| u32::from_le_bytes(*word)));
        })?;
        if hash != footer.fences || !fences.is_sorted() {
            return Err(damaged("its fences are others"));
        }
        let mut filter = None;
        if (1..=filter_room).contains(&footer.filter_bytes) {
            let mut bytes = Vec::with_capacity(footer.filter_bytes as usize);
            let range = filter_at..footer_at;
            let hash = files.read_hashed(&name, &file, range, |read| bytes.extend(read))?;
            if hash != footer.filter {
                return Err(damaged("its filter is another"));
            }
            filter = Filter::from_bytes(bytes);
        }
        Ok(Self {
            id,
            entries,
            files: files.clone(),
            name,
            file,
            fences,
            filter,
        })
    }

    /// Bytes of its filter in memory.
    pub fn filter_bytes(&self) -> u64 {
        let bytes = self.filter.as_ref().map(Filter::as_bytes);
        bytes.map_or(0, |bytes| bytes.len() as u64)
    }

    pub fn drop_filter(&mut self) {
        self.filter = None;
    }

    /// Adds every place of a key to `found`, oldest pack first.
    pub fn get(&self, key: &ChunkKey, page: &mut PageBuffer, found: &mut Vec<Place>) -> Result<()> {
        if self.filter.as_ref().is_some_and(|f| !f.may_have(key)) {
            return Ok(());
        }
        let fence = fence_of(key);
        let behind = first_above(&self.fences, fence);
        // The first page whose fence is the key's may not be where the key's entries start.
        let mut start = behind.saturating_sub(1);
        while start > 0 && self.fences[start] == fence {
            start -= 1;
        }
        for number in start..behind {
            self.read_page(number as u64, page)?;
            let entries = page.bytes[..self.entries_in(number as u64) * ENTRY_BYTES].as_chunks();
            let entries: &[[u8; ENTRY_BYTES]] = entries.0;
            let first = entries.partition_point(|entry| entry[..16] < key[..]);
            let same = entries[first..].iter().take_while(|e| e[..16] == key[..]);
            found.extend(same.map(|entry| Entry::read(entry).place));
        }
        Ok(())
    }

    fn entries_in(&self, page: u64) -> usize {
        let before = page * PAGE_ENTRIES as u64;
        (self.entries - before).min(PAGE_ENTRIES as u64) as usize
    }

    fn read_page(&self, number: u64, page: &mut PageBuffer) -> Result<()> {
        if page.number == Some(number) {
            return Ok(());
        }
        page.number = None;
        let at = number * PAGE_BYTES as u64;
        self.files
            .read_at(&self.name, &self.file, &mut page.bytes[..], at)?;
        self.check_page(number, &page.bytes[..])?;
        page.number = Some(number);
        Ok(())
    }

    fn check_page(&self, number: u64, bytes: &[u8]) -> Result<()> {
        let (entries, hash) = bytes.split_at(PAGE_BYTES - PAGE_HASH_BYTES);
        if page_hash(&self.id, number, entries) == *hash {
            Ok(())
        } else {
            Err(self.files.damaged(&self.name, "a page is another"))
        }
    }

    /// All entries, in their order.
    pub fn iter(&self) -> Entries<'_> {
        Entries {
            run: self,
            batch: Vec::new(),
            page: 0,
            at: 0,
            left: 0,
        }
    }

    /// Removes the run's file; whoever has the run open may still read it.
    pub fn remove(&self) -> Result<()> {
        self.files.remove(&self.name)
    }
}

/// Entries of a run that are read from front to back.
pub(super) struct Entries<'r> {
    run: &'r Run,
    batch: Vec<u8>,
    /// The next page that is not in the batch.
    page: u64,
    /// Where the next entry is in the batch.
    at: usize,
    /// Entries of its page that are still to come.
    left: usize,
}

impl Entries<'_> {
    pub fn next(&mut self) -> Result<Option<Entry>> {
        if self.left == 0 {
            // To the next page, over the checksum and what is unused of the last page.
            self.at = self.at.next_multiple_of(PAGE_BYTES);
            if self.at == self.batch.len() && !self.read_batch()? {
                return Ok(None);
            }
            let first = self.page - ((self.batch.len() - self.at) / PAGE_BYTES) as u64;
            self.left = self.run.entries_in(first);
        }
        let entry = Entry::read(&self.batch[self.at..self.at + ENTRY_BYTES]);
        self.at += ENTRY_BYTES;
        self.left -= 1;
        Ok(Some(entry))
    }

    fn read_batch(&mut self) -> Result<bool> {
        let run = self.run;
        let count = (run.fences.len() as u64 - self.page).min(BATCH_PAGES as u64);
        self.batch.resize(count as usize * PAGE_BYTES, 0);
        self.at = 0;
        let at = self.page * PAGE_BYTES as u64;
        run.files
            .read_at(&run.name, &run.file, &mut self.batch, at)?;
        for (number, page) in (self.page..).zip(self.batch.chunks(PAGE_BYTES)) {
            run.check_page(number, page)?;
        }
        self.page += count;
        Ok(count > 0)
    }
}

fn fence_of(key: &ChunkKey) -> u32 {
    u32::from_be_bytes(*key.first_chunk().expect("a key has 16 bytes"))
}

/// What a page's entries must hash to: under its run's name and its own number,
/// so that no page is taken for another.
fn page_hash(run: &RunId, number: u64, entries: &[u8]) -> [u8; PAGE_HASH_BYTES] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(run);
    key[16..24].copy_from_slice(&number.to_le_bytes());
    let hash = blake3::keyed_hash(&key, entries);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// How many of the sorted fences are not above one. The guess is right where
/// keys are spread evenly; from there on it is a search in steps that double.
fn first_above(fences: &[u32], fence: u32) -> usize {
    let guess = ((u64::from(fence) * fences.len() as u64) >> 32) as usize;
    let mut step = 16;
    let (mut low, mut high) = (guess, guess);
    while low > 0 && fences[low - 1] > fence {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 16;
    while high < fences.len() && fences[high] <= fence {
        high = fences.len().min(high + step);
        step *= 2;
    }
    low + fences[low..high].partition_point(|other| *other <= fence)
}

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
