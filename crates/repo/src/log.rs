//! The repository's log: who writes to it, and which packs are on their way out.
//!
//! It is a line of small objects, each made once, by conditional creation, in
//! the first free slot. The writer is who made the newest entry `opened`. A
//! process that was paused, for a moment or for years, finds another's entry
//! behind its own last one, and from then on acknowledges nothing and
//! condemns nothing. A pack is removed only after an entry that condemns it is
//! durable, so whoever opens the repository later knows which packs an earlier
//! writer may still be removing, never relies on them, and finishes the work.
//!
//! Every entry says from which slot on entries count. Older ones are removed,
//! oldest first, [`KEPT`] of them later than need be: as long as a writer finds
//! its own last entry, nothing behind it was removed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_types::ProjectId;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::codec::{Malformed, Reader};
use crate::error::{Error, Result};
use crate::keys::RepositoryId;
use crate::objects::unreadable;
use crate::pack::PackId;
use crate::random;
use crate::seal;
use crate::store::{Objects, log_path};

const LOG_MAGIC: [u8; 8] = *b"CAIRNLOG";
/// Packs that one entry condemns at most.
pub(crate) const CONDEMNED_MAX: usize = 1 << 16;
/// Entries that count no more and stay all the same.
const KEPT: u64 = 64;
/// How often a slot may be taken by somebody else while the repository is opened.
const OPEN_TRIES: usize = 8;

const OPENED: u8 = 0;
const CONDEMNED: u8 = 1;

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Who wrote it: drawn at random when the repository is opened.
    writer: [u8; 16],
    /// The first slot whose entry counts.
    from: u64,
    act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Opened,
    Condemned(Condemned),
}

/// Packs that nobody may rely on any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condemned {
    pub project: ProjectId,
    pub packs: Vec<PackId>,
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.writer.to_vec();
        out.extend_from_slice(&self.from.to_le_bytes());
        match &self.act {
            Act::Opened => out.push(OPENED),
            Act::Condemned(condemned) => {
                out.push(CONDEMNED);
                out.extend_from_slice(condemned.project.as_bytes());
                let count = u32::try_from(condemned.packs.len()).expect("a round is limited");
                out.extend_from_slice(&count.to_le_bytes());
                out.extend(condemned.packs.iter().flat_map(|pack| pack.0));
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (writer, from) = (reader.array()?, reader.u64()?);
        let act = match reader.u8()? {
            OPENED => Act::Opened,
            CONDEMNED => {
                let project = ProjectId::from_uuid(uuid::Uuid::from_bytes(reader.array()?));
                let count = reader.length(CONDEMNED_MAX)?;
                let packs = (0..count).map(|_| reader.array().map(PackId));
                let packs = packs.collect::<Result<_, _>>()?;
                Act::Condemned(Condemned { project, packs })
            }
            _ => return Err(Malformed("an entry is of an unknown sort")),
        };
        reader.finish()?;
        Ok(Self { writer, from, act })
    }
}

/// The log of a repository that is open for writing.
pub(crate) struct Log {
    pages: Pages,
    writer: [u8; 16],
    state: Mutex<State>,
    fenced: AtomicBool,
}

/// The entries in the store.
struct Pages {
    objects: Objects,
    secret: Zeroizing<[u8; 32]>,
    repository: RepositoryId,
}

#[derive(Default)]
struct State {
    /// The slot of this writer's newest entry.
    last: u64,
    /// The lowest slot that may be there.
    lowest: u64,
    /// The next entry, where it is not certain that the store has it.
    unwritten: Option<Bytes>,
    /// Packs that may not be gone yet, by the slots that condemn them.
    condemned: BTreeMap<u64, Condemned>,
}

impl Pages {
    async fn read(&self, slot: u64) -> Result<Option<Entry>> {
        let path = log_path(slot);
        let Some(object) = self.objects.get(&path).await? else {
            return Ok(None);
        };
        let plain = seal::open_object(&self.secret, LOG_MAGIC, &self.bound(slot), &object)
            .map_err(|error| unreadable(path.to_string(), error))?;
        let entry = Entry::decode(&plain).map_err(|problem| Error::Damaged {
            object: path.to_string(),
            problem: problem.0,
        })?;
        Ok(Some(entry))
    }

    fn seal(&self, slot: u64, entry: &Entry) -> Bytes {
        let plain = entry.encode();
        seal::seal_object(&self.secret, LOG_MAGIC, &self.bound(slot), &plain).into()
    }

    fn bound(&self, slot: u64) -> Vec<u8> {
        [&self.repository.0[..], b"log", &slot.to_le_bytes()].concat()
    }
}

impl Log {
    /// Becomes the writer of the repository: whoever was it before is fenced.
    ///
    /// Errors: `Conflict` another process is opening it; `Corrupt` an entry that counts is damaged.
    pub async fn open(
        objects: Objects,
        secret: Zeroizing<[u8; 32]>,
        repository: RepositoryId,
    ) -> Result<Self> {
        let pages = Pages {
            objects,
            secret,
            repository,
        };
        let writer = random::bytes();
        for _ in 0..OPEN_TRIES {
            let slots = pages.objects.log_slots().await?;
            let mut top = slots.last().copied().unwrap_or(0);
            // What a listing does not show may be there all the same.
            while pages.read(top + 1).await?.is_some() {
                top += 1;
            }
            let mut state = State {
                last: top + 1,
                lowest: slots.first().copied().unwrap_or(top + 1),
                unwritten: None,
                condemned: condemned_up_to(&pages, top).await?,
            };
            let entry = Entry {
                writer,
                from: state.from(state.last),
                act: Act::Opened,
            };
            let sealed = pages.seal(state.last, &entry);
            let made = pages.objects.create(&log_path(state.last), sealed).await?;
            let mine = || async {
                let found = pages.read(state.last).await?;
                Ok::<_, Error>(found.is_some_and(|found| found.writer == writer))
            };
            if !made && !mine().await? {
                continue;
            }
            // A slot that an old entry had is free again, and says nothing.
            if pages.objects.log_slots().await?.last() > Some(&state.last) {
                break;
            }
            state.trim(&pages).await;
            return Ok(Self {
                pages,
                writer,
                state: Mutex::new(state),
                fenced: AtomicBool::new(false),
            });
        }
        Err(Error::Fenced)
    }

    /// Makes sure that nobody has opened the repository for writing since.
    ///
    /// Errors: `Conflict` somebody has: nothing may be acknowledged any more.
    pub async fn check(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.check_flag()?;
        while let Some(entry) = self.pages.read(state.last + 1).await? {
            if entry.writer != self.writer {
                return self.fence();
            }
            // The answer to its making was lost.
            state.last += 1;
            state.unwritten = None;
        }
        self.check_last(state.last).await
    }

    /// Says that packs go; from when this returns, they may be removed. If it
    /// fails they may be named in the log or not: they stay condemned, and
    /// `confirm` tries again.
    ///
    /// Errors: `Conflict` another process writes to the repository.
    pub async fn condemn(&self, condemned: Condemned) -> Result<u64> {
        assert!(condemned.packs.len() <= CONDEMNED_MAX, "rounds are limited");
        let mut state = self.state.lock().await;
        self.write(&mut state).await?;
        let slot = state.last + 1;
        let entry = Entry {
            writer: self.writer,
            from: state.from(slot),
            act: Act::Condemned(condemned.clone()),
        };
        state.unwritten = Some(self.pages.seal(slot, &entry));
        state.condemned.insert(slot, condemned);
        self.write(&mut state).await?;
        state.trim(&self.pages).await;
        Ok(slot)
    }

    /// Makes sure that all entries of this writer are durable.
    ///
    /// Errors: `Conflict` another process writes to the repository.
    pub async fn confirm(&self) -> Result<()> {
        self.write(&mut *self.state.lock().await).await
    }

    /// The packs of a project that are condemned and may be there still, by slot.
    pub async fn condemned(&self, project: ProjectId) -> Vec<(u64, Vec<PackId>)> {
        let state = self.state.lock().await;
        let of_project = state.condemned.iter().filter(|(_, c)| c.project == project);
        of_project
            .map(|(slot, c)| (*slot, c.packs.clone()))
            .collect()
    }

    /// Notes that all packs that a slot condemns are gone.
    pub async fn settle(&self, slot: u64) {
        self.state.lock().await.condemned.remove(&slot);
    }

    /// Writes the entry that is not certain to be in the store, if there is one.
    async fn write(&self, state: &mut State) -> Result<()> {
        self.check_flag()?;
        let Some(sealed) = state.unwritten.clone() else {
            return Ok(());
        };
        let (slot, objects) = (state.last + 1, &self.pages.objects);
        if !objects.create(&log_path(slot), sealed).await? {
            let found = self.pages.read(slot).await?;
            if found.is_none_or(|found| found.writer != self.writer) {
                return self.fence();
            }
        }
        // A slot behind one that was removed is free again, and says nothing.
        self.check_last(state.last).await?;
        state.last = slot;
        state.unwritten = None;
        Ok(())
    }

    async fn check_last(&self, last: u64) -> Result<()> {
        match self.pages.objects.get(&log_path(last)).await? {
            Some(_) => Ok(()),
            None => self.fence(),
        }
    }

    fn check_flag(&self) -> Result<()> {
        if self.fenced.load(Ordering::Relaxed) {
            Err(Error::Fenced)
        } else {
            Ok(())
        }
    }

    fn fence(&self) -> Result<()> {
        self.fenced.store(true, Ordering::Relaxed);
        Err(Error::Fenced)
    }
}

impl State {
    /// The first slot that counts, for an entry in this one.
    fn from(&self, slot: u64) -> u64 {
        self.condemned
            .first_key_value()
            .map_or(slot, |(oldest, _)| *oldest)
    }

    /// Removes entries that have long counted for nothing, oldest first. What
    /// fails stays for the next time.
    async fn trim(&mut self, pages: &Pages) {
        let end = self.from(self.last).saturating_sub(KEPT);
        while self.lowest < end {
            if let Err(error) = pages.objects.delete(&log_path(self.lowest)).await {
                tracing::warn!(%error, "An old entry of the log stays.");
                return;
            }
            self.lowest += 1;
        }
    }
}

/// What the entries that count condemn, if `top` is the newest.
async fn condemned_up_to(pages: &Pages, top: u64) -> Result<BTreeMap<u64, Condemned>> {
    let mut condemned = BTreeMap::new();
    let Some(newest) = pages.read(top).await? else {
        return Ok(condemned);
    };
    for slot in newest.from..=top {
        if let Some(Entry {
            act: Act::Condemned(packs),
            ..
        }) = pages.read(slot).await?
        {
            condemned.insert(slot, packs);
        }
    }
    Ok(condemned)
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
