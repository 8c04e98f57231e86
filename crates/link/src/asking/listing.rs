//! What was told of a directory: its names, and what its entries are. Long listings stay
//! as they came, compressed; a few parts are unpacked at a time.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::tree::{Metadata, Names};

use crate::error::{Error, Result};
use crate::message::tree_answer::{About, Listed, ListedAbout, Listing, Packed};

/// Parts of a listing that are unpacked at a time: workers go through several.
const UNPACKED_MAX: usize = 8;

type Entries = Arc<Vec<Listed>>;

/// A directory as it was told.
pub(super) struct Directory {
    pub about: About,
    pub names: Names,
    parts: Vec<Part>,
    /// By their numbers, the last used at the end.
    unpacked: Mutex<Vec<(usize, Entries)>>,
}

/// Some of the entries, one behind the other.
struct Part {
    /// The number of its first name.
    first: usize,
    held: Held,
}

enum Held {
    Entries(Entries),
    Packed(Packed),
}

impl Directory {
    /// What was told at once.
    pub fn of(listing: Listing) -> Result<Self> {
        let mut directory = Self::empty(listing.about);
        directory.add_names(&listing.entries)?;
        let held = Held::Entries(Arc::new(listing.entries));
        directory.parts.push(Part { first: 0, held });
        Ok(directory)
    }

    /// What is told in several parts.
    pub fn empty(about: About) -> Self {
        Self {
            about,
            names: Names::default(),
            parts: Vec::new(),
            unpacked: Mutex::default(),
        }
    }

    /// Adds a part, of which `packed` holds the listing and nothing else.
    ///
    /// Errors: `Malformed` it does not follow the one before.
    pub fn add(&mut self, listing: &Listing, packed: Packed) -> Result<()> {
        let first = self.names.len();
        self.add_names(&listing.entries)?;
        let held = Held::Packed(packed);
        self.parts.push(Part { first, held });
        Ok(())
    }

    fn add_names(&mut self, entries: &[Listed]) -> Result<()> {
        for entry in entries {
            let last = self.names.len().checked_sub(1);
            if last.is_some_and(|last| self.names.get(last) >= &entry.name[..]) {
                return Err(Error::Malformed("a directory is not in order"));
            }
            let pushed = self.names.push(&entry.name);
            pushed.map_err(|_| Error::Malformed("a directory has too many names"))?;
        }
        Ok(())
    }

    /// The last name told so far.
    pub fn last_name(&self) -> &[u8] {
        match self.names.len() {
            0 => &[],
            count => self.names.get(count - 1),
        }
    }

    /// What was told of an entry.
    pub fn entry(&self, name: &[u8]) -> io::Result<ListedAbout> {
        let index = self.find(name).ok_or(io::ErrorKind::NotFound)?;
        let behind = self.parts.partition_point(|part| part.first <= index);
        let number = behind - 1;
        let entries = self.entries(number)?;
        let listed = entries.get(index - self.parts[number].first);
        let about = listed.map(|listed| listed.about.clone());
        let about = about.ok_or_else(|| io::Error::other("it was told of and is not there"))?;
        Ok(about?)
    }

    pub fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        Ok(self.entry(name)?.metadata)
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.names.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.names.get(middle) < name {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        (low < self.names.len() && self.names.get(low) == name).then_some(low)
    }

    fn entries(&self, number: usize) -> io::Result<Entries> {
        let packed = match &self.parts[number].held {
            Held::Entries(entries) => return Ok(entries.clone()),
            Held::Packed(packed) => packed,
        };
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = unpacked.iter().position(|(of, _)| *of == number);
        let entries = match known {
            Some(at) => unpacked.remove(at).1,
            None => {
                let listings = packed
                    .unpack()
                    .and_then(|plain| Listing::decode_all(&plain));
                let listing = listings.map_err(io::Error::other)?.pop();
                let listing = listing.ok_or_else(|| io::Error::other("it was not told"))?;
                Arc::new(listing.entries)
            }
        };
        if unpacked.len() >= UNPACKED_MAX {
            unpacked.remove(0);
        }
        unpacked.push((number, entries.clone()));
        Ok(entries)
    }
}
