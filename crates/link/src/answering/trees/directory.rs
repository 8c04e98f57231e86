//! The directories of a tree that are open, and what is told of them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::tree::{DirectoryReader, EntryKind, Names, TreeReader, Xattr};

use super::Tree;
use crate::message::tree::Refused;
use crate::message::tree_answer::{
    About, LISTING_BYTES, LISTINGS_MAX, Listed, ListedAbout, Listing, Packed, TreeAnswer,
    XATTR_BYTES_MAX,
};

/// Directories that stay open, of each tree.
const OPEN_MAX: usize = 64;
/// A directory with more names is not told of before it is asked about.
const NAMES_AHEAD_MAX: usize = 4096;

/// A tree's directories, of which those that were used last are open.
pub(super) struct Directories {
    reader: Arc<dyn TreeReader>,
    /// By their paths, the last used at the end.
    open: Mutex<VecDeque<(Vec<u8>, Arc<Directory>)>>,
}

/// An open directory.
pub(super) struct Directory {
    pub reader: Arc<dyn DirectoryReader>,
    /// As they were when its first page was told.
    names: Mutex<Option<Arc<Names>>>,
}

impl Directories {
    pub fn new(reader: Arc<dyn TreeReader>) -> Self {
        let open = Mutex::default();
        Self { reader, open }
    }

    /// Opens a directory, from the nearest above it that is open.
    pub fn open(&self, path: &[u8]) -> io::Result<Arc<Directory>> {
        let mut known = path;
        let mut directory = loop {
            if let Some(found) = self.find(known) {
                break found;
            }
            match above(known) {
                Some((path, _)) => known = path,
                None => break self.keep(known, self.reader.root()?),
            }
        };
        let below = &path[known.len()..];
        for name in below.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            let end = known.len() + usize::from(!known.is_empty()) + name.len();
            known = &path[..end];
            let opened = directory.reader.directory(name)?;
            directory = self.keep(known, opened);
        }
        Ok(directory)
    }

    fn find(&self, path: &[u8]) -> Option<Arc<Directory>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(of, _)| of == path)?;
        let found = open.remove(at)?;
        let directory = found.1.clone();
        open.push_back(found);
        Some(directory)
    }

    fn keep(&self, path: &[u8], reader: Arc<dyn DirectoryReader>) -> Arc<Directory> {
        let names = Mutex::default();
        let directory = Arc::new(Directory { reader, names });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_MAX {
            open.pop_front();
        }
        open.push_back((path.to_vec(), directory.clone()));
        directory
    }
}

impl Directory {
    /// The names in it: read anew where its telling begins.
    fn names(&self, anew: bool) -> io::Result<Arc<Names>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if anew {
            *names = None;
        }
        match &*names {
            Some(names) => Ok(names.clone()),
            None => Ok(names.insert(Arc::new(self.reader.names()?)).clone()),
        }
    }

    fn entry(&self, name: &[u8]) -> Listed {
        let about = self.reader.metadata_of(name).map(|metadata| {
            let other = !matches!(metadata.kind, EntryKind::File | EntryKind::Directory);
            let xattrs = || self.reader.xattrs_of(name);
            ListedAbout {
                metadata,
                target: match metadata.kind {
                    EntryKind::Symlink => self.reader.link_target(name).map_err(Refused::from),
                    _ => Ok(Vec::new()),
                },
                has_xattrs: other && xattrs().map_or(true, |xattrs| !xattrs.is_empty()),
            }
        });
        Listed {
            name: name.to_vec(),
            about: about.map_err(Refused::from),
        }
    }

    /// What is in it from behind a name on, until the answer is full.
    fn listing(&self, path: &[u8], names: &Names, after: &[u8]) -> io::Result<Listing> {
        let metadata = self.reader.metadata()?;
        let xattrs = told(self.reader.xattrs());
        let mut listing = Listing {
            path: path.to_vec(),
            about: About { metadata, xattrs },
            entries: Vec::new(),
            more: false,
        };
        let mut bytes = 0;
        for index in first_behind(names, after)..names.len() {
            if bytes >= LISTING_BYTES {
                listing.more = true;
                break;
            }
            let entry = self.entry(names.get(index));
            let target = entry.about.as_ref().map(|about| about.target.as_ref());
            let target = target.map(|target| target.map_or(0, Vec::len));
            bytes += 128 + entry.name.len() + target.unwrap_or_default();
            listing.entries.push(entry);
        }
        Ok(listing)
    }
}

/// The number of the first name behind one.
fn first_behind(names: &Names, after: &[u8]) -> usize {
    let (mut low, mut high) = (0, names.len());
    while low < high {
        let middle = low.midpoint(high);
        match !after.is_empty() && names.get(middle) <= after {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// A path without its last name, and that.
pub(super) fn above(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    })
}

/// Attributes that fit an answer.
pub(super) fn told(read: io::Result<Vec<Xattr>>) -> Result<Vec<Xattr>, Refused> {
    let xattrs = read?;
    let bytes = |xattr: &Xattr| 8 + xattr.name.len() + xattr.value.len();
    match xattrs.iter().map(bytes).sum::<usize>() <= XATTR_BYTES_MAX {
        true => Ok(xattrs),
        false => Err(io::Error::other("they are too large").into()),
    }
}

impl Tree {
    /// Tells what is in a directory and, where there is room, in those that are in it: in
    /// the order in which whoever goes down the tree will ask.
    pub fn list(&self, path: &[u8], after: &[u8]) -> io::Result<TreeAnswer> {
        let directory = self.directories.open(path)?;
        let names = directory.names(after.is_empty())?;
        let listing = directory.listing(path, &names, after)?;
        let mut plain = Vec::new();
        listing.encode(&mut plain);
        if !listing.more && after.is_empty() {
            self.tell_ahead(listing, &mut plain);
        }
        Ok(TreeAnswer::Listings(Packed::pack(&plain)))
    }

    fn tell_ahead(&self, first: Listing, plain: &mut Vec<u8>) {
        let (mut coming, mut told) = (below(&first), 1);
        while let Some(path) = coming.pop() {
            let Some(listing) = self.listing_ahead(&path) else {
                continue;
            };
            let before = plain.len();
            listing.encode(plain);
            told += 1;
            if plain.len() > LISTING_BYTES || listing.more || told > LISTINGS_MAX {
                plain.truncate(before);
                return;
            }
            coming.extend(below(&listing));
        }
    }

    /// What is in a directory that nobody has asked about yet; if that fails, whoever asks
    /// will be told.
    fn listing_ahead(&self, path: &[u8]) -> Option<Listing> {
        let directory = self.directories.open(path).ok()?;
        let names = directory.names(true).ok()?;
        if names.len() > NAMES_AHEAD_MAX {
            return None;
        }
        directory.listing(path, &names, b"").ok()
    }

    pub fn about(&self, path: &[u8]) -> io::Result<TreeAnswer> {
        let own = |path| -> io::Result<About> {
            let reader = &self.directories.open(path)?.reader;
            Ok(About {
                metadata: reader.metadata()?,
                xattrs: told(reader.xattrs()),
            })
        };
        let Some((directory, name)) = above(path) else {
            return Ok(TreeAnswer::About(own(path)?));
        };
        let directory = &self.directories.open(directory)?.reader;
        let metadata = directory.metadata_of(name)?;
        // A target may take a device for a file.
        let is_target = self.writing.is_some();
        Ok(TreeAnswer::About(match metadata.kind {
            EntryKind::Directory => own(path)?,
            kind if kind == EntryKind::File || is_target && kind == EntryKind::BlockDevice => {
                let file = directory.file(name)?;
                About {
                    metadata: file.metadata()?,
                    xattrs: told(file.xattrs()),
                }
            }
            _ => About {
                metadata,
                xattrs: told(directory.xattrs_of(name)),
            },
        }))
    }
}

/// The paths of the directories in a directory, the first of them last.
fn below(listing: &Listing) -> Vec<Vec<u8>> {
    let directories = listing.entries.iter().rev().filter(|entry| {
        let about = entry.about.as_ref();
        about.is_ok_and(|about| about.metadata.kind == EntryKind::Directory)
    });
    directories
        .map(|entry| join(&listing.path, &entry.name))
        .collect()
}

/// A path with one more name.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, name].join(&b'/'),
    }
}
