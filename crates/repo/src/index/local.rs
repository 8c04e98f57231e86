//! The index in its folder: what is in memory, what is in files, and how the
//! one becomes the other.
//!
//! Entries go to memory first. When they are many, they are frozen, written as a
//! run, and named by the state file; until then they are asked where they are.
//! Nothing that the state file names is changed or removed before another state
//! file is in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cairn_types::ProjectId;

use crate::chunk::ChunkKey;
use crate::error::{Error, Result};

use super::files::Files;
use super::filter::FILTERS_BYTES;
use super::packs::{self, FreshPack, PackFiles, Packs};
use super::run::{self, Entry, PageBuffer, Run, RunWriter};
use super::saved::{ObjectName, STATE_FILE, Saved};
use super::{LocalFolder, PackInfo, Place};

/// Records of packs that are gone are kept until they are as many as those of
/// packs that are there and these; then the index is made anew when it is opened.
pub(super) const GONE_PACKS: u32 = 1 << 16;

/// What the index shares with the thread that merges its runs.
#[derive(Debug)]
pub(super) struct Shared {
    pub files: Arc<Files>,
    /// Repository and project, which every file is bound to.
    pub bound: [u8; 32],
    pub pack_files: PackFiles,
    pub state: RwLock<State>,
    /// What the state file says; locked, before `state`, by whoever changes the files.
    pub saved: Mutex<Saved>,
    pub unsound: AtomicBool,
    _folder: Arc<LocalFolder>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub packs: Packs,
    /// Packs whose frames are in memory only.
    pub fresh: BTreeMap<u32, Arc<PackInfo>>,
    pub memory: BTreeSet<Entry>,
    /// What is being written as a run.
    pub frozen: Arc<BTreeSet<Entry>>,
    /// Oldest first; the packs of a run are older than those of the next.
    pub runs: Arc<[Arc<Run>]>,
    /// Index objects that are taken in, and that the state file does not name.
    pub taken: BTreeSet<ObjectName>,
}

impl State {
    /// The newest place of a chunk of which memory knows.
    fn in_memory(&self, key: &ChunkKey) -> Option<Place> {
        let at = |place| Entry { key: *key, place };
        let newest = |entries: &BTreeSet<Entry>| {
            let all = at(Place::FIRST)..=at(Place::LAST);
            let mut places = entries.range(all).rev();
            let live = |found: &&Entry| self.packs.is_live(found.place.pack);
            places.find(live).map(|found| found.place)
        };
        newest(&self.memory).or_else(|| newest(&self.frozen))
    }

    /// A new run, without its filter if the others leave too little memory for it.
    pub fn with_room_for(&self, mut run: Run) -> Arc<Run> {
        let used: u64 = self.runs.iter().map(|run| run.filter_bytes()).sum();
        if used + run.filter_bytes() > FILTERS_BYTES {
            run.drop_filter();
        }
        Arc::new(run)
    }
}

/// Reads the state and opens what it names.
fn load(files: &Arc<Files>, bound: &[u8; 32], pack_files: &PackFiles) -> Result<(State, Saved)> {
    let Some(bytes) = files.read(STATE_FILE)? else {
        return Ok(Default::default());
    };
    let damaged = |problem| files.damaged(STATE_FILE, problem);
    let saved = Saved::decode(&bytes, bound).map_err(|problem| damaged(problem.0))?;
    let mut state = State::default();
    for (number, record) in (0..).zip(pack_files.read(saved.packs, saved.frames_bytes)?) {
        let live = saved.live[number / 64] & (1 << (number % 64)) != 0;
        state.packs.push(record, live);
    }
    if state.packs.gone() > state.packs.there() + GONE_PACKS {
        return Err(damaged("most packs that it names are gone"));
    }
    let mut runs = Vec::new();
    let mut room = FILTERS_BYTES;
    for (id, entries) in saved.runs.iter().rev() {
        let run = Run::open(files, bound, *id, *entries, room)?;
        room -= run.filter_bytes();
        runs.push(Arc::new(run));
    }
    runs.reverse();
    state.runs = runs.into();
    Ok((state, saved))
}

impl Shared {
    /// Opens a project's index, or an empty one where there is none that is whole.
    pub fn open(folder: Arc<LocalFolder>, project: ProjectId, bound: [u8; 32]) -> Result<Self> {
        let files = Arc::new(Files::open(&folder.of(project))?);
        let pack_files = PackFiles::open(&files)?;
        let (state, saved) = match load(&files, &bound, &pack_files) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, "The local index is made anew.");
                Default::default()
            }
        };
        // Whatever the state does not name is of an earlier one, or was never finished.
        let runs = saved.runs.iter().map(|(id, _)| run::file_name(id));
        let mut valid: BTreeSet<String> = runs.collect();
        valid.extend(packs::FILE_NAMES.map(String::from));
        if !saved.runs.is_empty() || saved.packs > 0 {
            valid.insert(STATE_FILE.into());
        }
        for name in files.names()?.iter().filter(|name| !valid.contains(*name)) {
            files.remove(name)?;
        }
        // An old state must not come back beside new records.
        files.sync_names()?;
        Ok(Self {
            files,
            bound,
            pack_files,
            state: RwLock::new(state),
            saved: Mutex::new(saved),
            unsound: AtomicBool::new(false),
            _folder: folder,
        })
    }

    pub fn get_many(&self, keys: &[ChunkKey]) -> Result<Vec<Option<Place>>> {
        let (mut found, runs): (Vec<_>, _) = {
            let state = self.read();
            let places = keys.iter().map(|key| state.in_memory(key));
            (places.collect(), state.runs.clone())
        };
        if runs.is_empty() {
            return Ok(found);
        }
        // In the order of their keys, so that no page is read twice.
        let mut open: Vec<usize> = (0..keys.len()).filter(|n| found[*n].is_none()).collect();
        open.sort_unstable_by_key(|n| keys[*n]);
        let (mut page, mut places) = (PageBuffer::new(), Vec::new());
        for run in runs.iter().rev() {
            page.forget();
            let mut rest = Vec::with_capacity(open.len());
            for number in open {
                places.clear();
                run.get(&keys[number], &mut page, &mut places)?;
                match self.newest_live(&places)? {
                    Some(place) => found[number] = Some(place),
                    None => rest.push(number),
                }
            }
            open = rest;
        }
        Ok(found)
    }

    /// The last of the places whose pack is there.
    fn newest_live(&self, places: &[Place]) -> Result<Option<Place>> {
        if places.is_empty() {
            return Ok(None);
        }
        let state = self.read();
        for place in places.iter().rev() {
            let record = state.packs.get(place.pack);
            if record.is_none_or(|record| place.chunk >= record.chunks) {
                return Err(self.files.damaged(STATE_FILE, "a run names other packs"));
            }
            if state.packs.is_live(place.pack) {
                return Ok(Some(*place));
            }
        }
        Ok(None)
    }

    /// Writes what is in memory as a run. If that fails it stays in memory.
    pub fn flush(&self) -> Result<()> {
        let mut saved = self.lock_saved();
        self.must_be_sound()?;
        let mut next = saved.clone();
        let (frozen, mut packs) = self.freeze(&mut next);
        let written = self.write_run(&frozen, &mut packs, &mut next);
        drop(frozen);
        let mut state = self.write();
        let thawed = std::mem::take(&mut state.frozen);
        match written {
            Ok(run) => {
                for (number, (record, _)) in (saved.packs..).zip(packs) {
                    state.packs.set(number, record);
                    state.fresh.remove(&number);
                }
                state.taken.retain(|name| !next.taken.contains(name));
                let run = run.map(|run| state.with_room_for(run));
                state.runs = state.runs.iter().cloned().chain(run).collect();
                *saved = next;
                Ok(())
            }
            Err(error) => {
                state.memory.extend(thawed.iter().copied());
                Err(error)
            }
        }
    }

    /// Sets aside what is in memory, and says what the state is once it is written.
    fn freeze(&self, next: &mut Saved) -> (Arc<BTreeSet<Entry>>, Vec<FreshPack>) {
        let mut state = self.write();
        state.frozen = Arc::new(std::mem::take(&mut state.memory));
        let fresh = (next.packs..state.packs.len()).map(|number| {
            let record = state.packs.get(number).expect("the number was given");
            (*record, state.fresh[&number].clone())
        });
        let fresh = fresh.collect();
        next.taken.extend(&state.taken);
        next.live = state.packs.live().to_vec();
        next.packs = state.packs.len();
        (state.frozen.clone(), fresh)
    }

    /// Writes entries and packs, and the state that names them.
    fn write_run(
        &self,
        entries: &BTreeSet<Entry>,
        packs: &mut [FreshPack],
        next: &mut Saved,
    ) -> Result<Option<Run>> {
        let first = next.packs - u32::try_from(packs.len()).expect("they are among the packs");
        next.frames_bytes = self.pack_files.append(first, next.frames_bytes, packs)?;
        let mut run = None;
        if !entries.is_empty() {
            let mut writer = RunWriter::new(&self.files, &self.bound, entries.len() as u64)?;
            for entry in entries {
                writer.push(entry)?;
            }
            let written = writer.finish()?;
            next.runs.push((written.id, written.entries));
            run = Some(written);
        }
        let replaced = self.files.replace(STATE_FILE, &next.encode(&self.bound));
        if let (Err(_), Some(run)) = (&replaced, &run) {
            run.remove()?;
        }
        replaced.map(|()| run)
    }

    /// Nothing is written any more once the files are not to be believed.
    pub fn must_be_sound(&self) -> Result<()> {
        if self.unsound.load(Ordering::Relaxed) {
            Err(Error::UnsoundIndexInUse)
        } else {
            Ok(())
        }
    }

    /// Takes note of an error that says that the files are not what was written.
    pub fn judge<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.is_unsound_index()
            && !self.unsound.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "The local index is not used any more, and made anew later.");
            // Without a state nothing of it is believed when it is opened.
            if let Err(error) = self.files.remove(STATE_FILE) {
                tracing::error!(%error, "The local index's state stays.");
            }
        }
        result
    }

    pub fn lock_saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
