//! Directories that are being saved: their parts come in any order, their
//! entries go into their lists in the order of the names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cairn_types::tree::{DirectoryReader, Metadata, Names, Xattr};

use crate::error::Result;
use crate::filetree::entry::{Held, NodeRef, Record, encode_name};
use crate::filetree::list::{ListBuilder, ListKind};
use crate::filetree::old::OldDirectory;
use crate::filetree::store::Worker;
use crate::workers::lock;

/// Names of a directory that are worked on together.
pub(crate) const PART_NAMES: usize = 512;

/// The place of an entry in the directory above.
#[derive(Clone)]
pub(crate) struct Slot {
    pub above: Arc<Directory>,
    pub part: usize,
    /// Its number among the directory's names.
    pub name: usize,
}

/// A directory that is being stored.
pub(crate) struct Directory {
    /// Nothing for the tree's own.
    pub slot: Option<Slot>,
    pub depth: usize,
    pub reader: Arc<dyn DirectoryReader>,
    pub metadata: Metadata,
    pub xattrs: Vec<Xattr>,
    pub names: Names,
    pub old: Option<OldDirectory>,
    state: Mutex<DirectoryState>,
}

struct DirectoryState {
    /// Parts that have been stored and not been added to the list yet.
    parts: BTreeMap<usize, Part>,
    /// The part that is to be added next.
    next: usize,
    /// Taken when the last has been added.
    list: Option<ListBuilder>,
}

/// The entries of a part of a directory.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Entries one behind the other.
    pub bytes: Vec<u8>,
    /// Where each ends; two alike where one is still to come.
    pub ends: Vec<usize>,
    /// Places of the entries that are to come, and these, once there.
    pub later: BTreeMap<usize, Later>,
}

/// An entry that takes longer.
#[derive(Debug)]
pub(crate) enum Later {
    Coming,
    /// It could not be saved.
    Absent,
    Entry(Vec<u8>),
}

impl Directory {
    pub fn new(
        slot: Option<Slot>,
        reader: Arc<dyn DirectoryReader>,
        (metadata, xattrs): (Metadata, Vec<Xattr>),
        names: Names,
        old: Option<OldDirectory>,
    ) -> Self {
        Self {
            depth: slot.as_ref().map_or(0, |slot| slot.above.depth + 1),
            slot,
            reader,
            metadata,
            xattrs,
            names,
            old,
            state: Mutex::new(DirectoryState {
                parts: BTreeMap::new(),
                next: 0,
                list: Some(ListBuilder::new(ListKind::Entries)),
            }),
        }
    }

    pub fn parts(&self) -> usize {
        self.names.len().div_ceil(PART_NAMES)
    }

    /// The path of an entry of it.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut above = self.slot.as_ref();
        while let Some(slot) = above {
            names.push(slot.name());
            above = slot.above.slot.as_ref();
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Adds a part whose entries are stored, but for those that are to come.
    pub fn add(&self, number: usize, part: Part) {
        lock(&self.state).parts.insert(number, part);
    }

    /// Sets an entry that took longer.
    fn settle(&self, part: usize, name: usize, entry: Later) {
        let mut state = lock(&self.state);
        let place = name - part * PART_NAMES;
        if let Some(part) = state.parts.get_mut(&part) {
            part.later.insert(place, entry);
        }
    }

    /// Puts the parts that are complete into the list. Returns its top when the last one was.
    fn advance(&self, worker: &mut Worker<'_>) -> Result<Option<NodeRef>> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(list) = &mut state.list else {
            return Ok(None);
        };
        while let Some(part) = state.parts.get(&state.next) {
            if !part.is_complete() {
                break;
            }
            for entry in part.entries() {
                list.push_entry(entry, &mut |node| worker.store_node(node))?;
            }
            state.parts.remove(&state.next);
            state.next += 1;
        }
        if state.next < self.parts() {
            return Ok(None);
        }
        let list = state.list.take().expect("it is there until here");
        list.finish(&mut |node| worker.store_node(node)).map(Some)
    }
}

impl Part {
    fn is_complete(&self) -> bool {
        let mut later = self.later.values();
        !later.any(|entry| matches!(entry, Later::Coming))
    }

    /// The entries in order, without those that could not be saved.
    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let spans = starts.zip(&self.ends).enumerate();
        spans.filter_map(|(place, (start, end))| match self.later.get(&place) {
            Some(Later::Entry(entry)) => Some(&entry[..]),
            Some(Later::Absent | Later::Coming) => None,
            None => Some(&self.bytes[start..*end]).filter(|entry| !entry.is_empty()),
        })
    }
}

impl Slot {
    pub fn name(&self) -> &[u8] {
        self.above.names.get(self.name)
    }

    pub fn path(&self) -> Vec<u8> {
        self.above.path_of(self.name())
    }
}

/// Goes on with a directory that something was added to, and with those above
/// that become complete by it.
pub(crate) fn advance(worker: &mut Worker<'_>, directory: &Arc<Directory>) -> Result<()> {
    let mut directory = directory.clone();
    while let Some(top) = directory.advance(worker)? {
        let record = Record {
            metadata: directory.metadata,
            xattrs: directory.xattrs.clone(),
            held: Held::Directory(top),
        };
        let Some(slot) = &directory.slot else {
            worker.session.set_top(record);
            return Ok(());
        };
        let mut entry = Vec::new();
        encode_name(slot.name(), &mut entry);
        record.encode(&mut entry);
        slot.above.settle(slot.part, slot.name, Later::Entry(entry));
        let above = slot.above.clone();
        directory = above;
    }
    Ok(())
}

/// Takes an entry that could not be saved out of the directory above.
pub(crate) fn leave_out(worker: &mut Worker<'_>, slot: &Slot) -> Result<()> {
    slot.above.settle(slot.part, slot.name, Later::Absent);
    advance(worker, &slot.above)
}
