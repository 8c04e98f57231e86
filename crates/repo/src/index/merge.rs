//! Merging the runs of the local index, in the background and in little memory.
//!
//! A run is merged with all that are newer once it is less than twice as large
//! as they are together. So their number grows with the logarithm of their size, and an
//! entry is written anew only when its run becomes half as large again. Entries of packs
//! that are gone are left behind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

use super::MEMORY_ENTRIES;
use super::local::Shared;
use super::run::{Entries, Entry, Run, RunWriter};
use super::saved::STATE_FILE;

/// A run is left alone while it has this many times the entries of all newer ones.
const GROWTH: u64 = 2;
/// Runs that there may be before a new one has to wait for the merging.
const RUNS_MAX: usize = 24;
/// Entries that are merged between two looks at whether to stop.
const ENTRIES_AT_A_TIME: u64 = 1 << 16;

/// The thread that merges, while there is something to merge.
#[derive(Debug, Default)]
pub(super) struct Merger {
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
    }
}

impl Merger {
    /// Starts to merge what is to be merged, unless that is being done.
    pub fn merge_if_due(&self, shared: &Arc<Shared>) -> Result<()> {
        let mut thread = self.lock();
        let at_work = thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if at_work || shared.first_due().is_none() {
            return Ok(());
        }
        let (shared, stop) = (shared.clone(), self.stop.clone());
        let work = move || {
            while !stop.load(Ordering::Relaxed) {
                match shared.merge(&stop) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!(%error, "The runs of the local index are not merged yet.");
                        return;
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new()
            .name("index-merge".into())
            .spawn(work);
        *thread = Some(spawned.map_err(|_| Error::WorkerLost)?);
        Ok(())
    }

    /// Waits for the merging where there are too many runs.
    ///
    /// Errors: what keeps it from being done.
    pub fn make_room(&self, shared: &Shared) -> Result<()> {
        if shared.read().runs.len() < RUNS_MAX {
            return Ok(());
        }
        self.join();
        while shared.read().runs.len() >= RUNS_MAX && shared.merge(&self.stop)? {}
        Ok(())
    }

    /// Waits until nothing is being merged.
    pub fn join(&self) {
        let thread = self.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("The thread that merges the local index has panicked.");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest run that is to be merged with all newer ones. `live` is how many
/// chunks there are in packs that are there.
pub(super) fn first_due(entries: &[u64], live: u64) -> Option<usize> {
    let all: u64 = entries.iter().sum();
    if all > GROWTH * live + MEMORY_ENTRIES as u64 {
        return Some(0);
    }
    let (mut due, mut newer) = (None, 0);
    for (number, entries) in entries.iter().enumerate().rev() {
        if newer > 0 && *entries < GROWTH * newer {
            due = Some(number);
        }
        newer += entries;
    }
    due
}

impl Shared {
    fn first_due(&self) -> Option<usize> {
        let state = self.read();
        let entries: Vec<u64> = state.runs.iter().map(|run| run.entries).collect();
        first_due(&entries, state.packs.chunks())
    }

    /// Merges some runs into one. False if none are to be merged, or it was stopped.
    fn merge(&self, stop: &AtomicBool) -> Result<bool> {
        let Some(first) = self.first_due() else {
            return Ok(false);
        };
        // Only merging takes runs away, and one at a time: newer ones may be added meanwhile.
        let (runs, live) = {
            let state = self.read();
            (state.runs[first..].to_vec(), state.packs.live().to_vec())
        };
        let merged = self.write_merged(&runs, &live, stop);
        let Some(merged) = self.judge(merged)? else {
            return Ok(false);
        };
        let mut saved = self.lock_saved();
        self.must_be_sound()?;
        let mut next = saved.clone();
        let entry = (merged.id, merged.entries);
        next.runs.splice(first..first + runs.len(), [entry]);
        let replaced = self.files.replace(STATE_FILE, &next.encode(&self.bound));
        self.judge(replaced)?;
        *saved = next;
        {
            let mut state = self.write();
            let mut all = state.runs.to_vec();
            all.drain(first..first + runs.len());
            state.runs = all.clone().into();
            all.insert(first, state.with_room_for(merged));
            state.runs = all.into();
        }
        drop(saved);
        for run in runs {
            run.remove()?;
        }
        Ok(true)
    }

    /// Writes the entries of runs as one; nothing if it is stopped.
    fn write_merged(
        &self,
        runs: &[Arc<Run>],
        live: &[u64],
        stop: &AtomicBool,
    ) -> Result<Option<Run>> {
        let is_live = |pack: u32| {
            let word = live.get(pack as usize / 64);
            word.is_some_and(|word| word & (1 << (pack % 64)) != 0)
        };
        let entries = runs.iter().map(|run| run.entries).sum();
        let mut writer = RunWriter::new(&self.files, &self.bound, entries)?;
        let mut inputs = Merge::new(runs)?;
        let (mut last, mut count) = (None, 0_u64);
        while let Some(entry) = inputs.next()? {
            if last != Some(entry) && is_live(entry.place.pack) {
                writer.push(&entry)?;
                last = Some(entry);
            }
            count += 1;
            if count.is_multiple_of(ENTRIES_AT_A_TIME) && stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        writer.finish().map(Some)
    }
}

/// The entries of several runs in their order.
struct Merge<'r> {
    inputs: Vec<Entries<'r>>,
    next: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl<'r> Merge<'r> {
    fn new(runs: &'r [Arc<Run>]) -> Result<Self> {
        let mut inputs: Vec<Entries<'r>> = runs.iter().map(|run| run.iter()).collect();
        let mut next = BinaryHeap::new();
        for (number, input) in inputs.iter_mut().enumerate() {
            next.extend(input.next()?.map(|entry| Reverse((entry, number))));
        }
        Ok(Self { inputs, next })
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        let Some(mut top) = self.next.peek_mut() else {
            return Ok(None);
        };
        let Reverse((entry, number)) = *top;
        match self.inputs[number].next()? {
            Some(next) => *top = Reverse((next, number)),
            None => {
                std::collections::binary_heap::PeekMut::pop(top);
            }
        }
        Ok(Some(entry))
    }
}
