//! What those at work hold: the chunks that writers rely on, the packs that they
//! write, the trees that readers have pinned.
//!
//! While a collection runs, what ends is kept: its receipt may have come too
//! late for the collection to list it.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_types::BackupId;

use crate::index::Place;
use crate::manifest::Content;
use crate::marks::{Bits, Marks};
use crate::pack::PackId;

/// The number of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Session(u64);

/// A backup that is being read, and what it holds.
type Pinned = (BackupId, Content);

#[derive(Debug, Default)]
pub(super) struct Holds {
    next: u64,
    writers: HashMap<Session, Writer>,
    pins: BTreeMap<u64, Pinned>,
    collection: Option<Since>,
}

#[derive(Debug, Default)]
struct Writer {
    /// What it relies on, its own packs included.
    marks: Marks,
    /// Packs that it has begun and that no index object of it names yet.
    packs: HashSet<PackId>,
}

/// What was held at any time since a collection began.
#[derive(Debug, Default)]
struct Since {
    /// By sessions that have ended.
    marks: Marks,
    /// Every tree that was pinned when it began or later.
    pins: Vec<Pinned>,
}

impl Holds {
    pub fn start(&mut self) -> Session {
        let session = Session(self.next());
        self.writers.insert(session, Writer::default());
        session
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn mark(&mut self, session: Session, place: Place) {
        if let Some(writer) = self.writers.get_mut(&session) {
            writer.marks.set(place);
        }
    }

    /// Whoever relies on the chunk at one place relies on it at another now.
    pub fn moved(&mut self, from: Place, to: Place) {
        let ended = self.collection.iter_mut().map(|since| &mut since.marks);
        let live = self.writers.values_mut().map(|writer| &mut writer.marks);
        for marks in live.chain(ended) {
            if marks.contains(from) {
                marks.set(to);
            }
        }
    }

    pub fn begin_pack(&mut self, session: Session, pack: PackId) {
        if let Some(writer) = self.writers.get_mut(&session) {
            writer.packs.insert(pack);
        }
    }

    pub fn end_packs(&mut self, session: Session, packs: impl IntoIterator<Item = PackId>) {
        if let Some(writer) = self.writers.get_mut(&session) {
            for pack in packs {
                writer.packs.remove(&pack);
            }
        }
    }

    pub fn writes(&self, pack: PackId) -> bool {
        self.writers
            .values()
            .any(|writer| writer.packs.contains(&pack))
    }

    /// All packs that somebody has begun and not named.
    pub fn packs(&self) -> impl Iterator<Item = PackId> {
        self.writers
            .values()
            .flat_map(|writer| &writer.packs)
            .copied()
    }

    pub fn end(&mut self, session: Session) {
        let Some(writer) = self.writers.remove(&session) else {
            return;
        };
        if let Some(since) = &mut self.collection {
            since.marks.merge(writer.marks);
        }
    }

    pub fn pin(&mut self, pinned: Pinned) -> u64 {
        if let Some(since) = &mut self.collection {
            since.pins.push(pinned.clone());
        }
        let number = self.next();
        self.pins.insert(number, pinned);
        number
    }

    pub fn unpin(&mut self, number: u64) {
        self.pins.remove(&number);
    }

    pub fn begin_collection(&mut self) {
        self.collection = Some(Since {
            marks: Marks::default(),
            pins: self.pins.values().cloned().collect(),
        });
    }

    pub fn end_collection(&mut self) {
        self.collection = None;
    }

    pub fn pinned(&self, seen: usize) -> Vec<Pinned> {
        let pins = self
            .collection
            .as_ref()
            .map_or(&[][..], |since| &since.pins);
        pins.get(seen..).unwrap_or_default().to_vec()
    }

    /// What writers need of a pack.
    pub fn marks_of(&self, pack: u32) -> Bits {
        let ended = self.collection.iter().map(|since| &since.marks);
        let live = self.writers.values().map(|writer| &writer.marks);
        let mut bits = Bits::default();
        for marks in live.chain(ended).filter_map(|marks| marks.pack(pack)) {
            bits.merge(marks);
        }
        bits
    }
}
