//! A file system, whichever kind it is: entries by their paths.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::DiskReader;
use cairn_types::tree::{EntryKind, Metadata};

use crate::content::{self, Content, Found};
use crate::driver::{Driver, Node};
use crate::error::{Error, Result};
use crate::ext::Ext;
use crate::fat::Fat;
use crate::file::File;
use crate::list::{Page, Windows};
use crate::path::{self, is_name, shown};
use crate::volume::Volume;
use crate::walk::Walk;
use crate::xfs::Xfs;

/// Symbolic links that `resolve` follows; Linux has the same number.
const LINKS_MAX: usize = 40;
/// Names whose nodes are remembered.
const LOOKUPS_MAX: usize = 4096;

/// What became of a file system's log (its journal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// It holds nothing that the disk does not, or there is none.
    Clean,
    /// It held changes, and they are taken into account.
    Replayed,
    /// It may hold changes that are not seen, or there is none and the file system was in use: what was changed
    /// last before the backup may be missing, and may be found damaged.
    Dirty,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name; empty for the uppermost directory.
    pub name: Vec<u8>,
    /// What the file system says of it. `inode` is where its entry lies on FAT, which has no numbers.
    pub metadata: Metadata,
    /// How many names it has.
    pub links: u32,
}

/// A file system in a range of a disk, open for reading from many threads at once.
///
/// Paths begin at the uppermost directory, with or without `/`. No symbolic link is followed, except by
/// [`resolve`](Self::resolve), and `..` is no name.
#[derive(Clone)]
pub struct FileSystem(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) volume: Arc<Volume>,
    pub(crate) windows: Windows,
    found: Found,
    log: Log,
    lookups: Mutex<HashMap<(u64, Vec<u8>), u64>>,
}

impl fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystem")
            .field("found", &self.0.found)
            .field("log", &self.0.log)
            .finish_non_exhaustive()
    }
}

impl FileSystem {
    /// Opens the file system in a range of bytes, that of a partition or of the whole disk.
    ///
    /// Errors: `Invalid` no file system that is known, or one with features that are not; `Corrupt` it is
    /// damaged; what the disk says.
    pub fn open(disk: Arc<dyn DiskReader>, range: Range<u64>) -> Result<Self> {
        let volume = Arc::new(Volume::new(Arc::clone(&disk), range.clone())?);
        let found = content::find(&disk, &range)?;
        let (driver, log): (Box<dyn Driver>, Log) = match found.content {
            Content::Ext2 | Content::Ext3 | Content::Ext4 => {
                let ext = Ext::open(Arc::clone(&volume))?;
                let log = ext.log();
                (Box::new(ext), log)
            }
            Content::Xfs => {
                let xfs = Xfs::open(Arc::clone(&volume))?;
                let log = xfs.log();
                (Box::new(xfs), log)
            }
            Content::Vfat => {
                let fat = Fat::open(Arc::clone(&volume))?;
                let log = fat.log();
                (Box::new(fat), log)
            }
            content => return Err(Error::NoFileSystem { content }),
        };
        Ok(Self(Arc::new(Inner::new(driver, volume, found, log))))
    }

    /// What it is, and what it calls itself.
    pub fn found(&self) -> &Found {
        &self.0.found
    }

    /// What became of its log.
    pub fn log(&self) -> Log {
        self.0.log
    }

    /// Whether there may be changes that are not seen; people are to be told.
    pub fn needs_recovery(&self) -> bool {
        self.0.log == Log::Dirty
    }

    /// The entry at a path, a symbolic link itself and not what it points to.
    ///
    /// Errors: `NotFound`; `Invalid` a path that is none, or leads through something else than
    /// directories; `Corrupt`.
    pub fn entry(&self, path: &[u8]) -> Result<Entry> {
        let node = self.0.find(path)?;
        let name = path::names(path).last().unwrap_or_default();
        Ok(Entry::new(name.to_vec(), &node))
    }

    /// At most `limit` entries of a directory, in the order of the bytes of their names, from behind `after` on.
    ///
    /// Errors: as `entry`; `Invalid` no directory.
    pub fn list(&self, path: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page> {
        let directory = self.0.find(path)?;
        if directory.metadata.kind != EntryKind::Directory {
            return Err(other_kind(path, "a directory"));
        }
        self.0.page(&directory, after, limit)
    }

    /// Everything below a directory, each name before those behind it and a directory before what is in it.
    ///
    /// Errors: as `list`.
    pub fn walk(&self, path: &[u8]) -> Result<Walk> {
        let directory = self.0.find(path)?;
        if directory.metadata.kind != EntryKind::Directory {
            return Err(other_kind(path, "a directory"));
        }
        Ok(Walk::new(Arc::clone(&self.0), directory, path))
    }

    /// Opens a regular file.
    ///
    /// Errors: as `entry`; `Invalid` it is something else.
    pub fn file(&self, path: &[u8]) -> Result<File> {
        let node = self.0.find(path)?;
        if node.metadata.kind != EntryKind::File {
            return Err(other_kind(path, "a regular file"));
        }
        Ok(File::new(Arc::clone(&self.0), node))
    }

    /// Where a symbolic link points, as it stands there.
    ///
    /// Errors: as `entry`; `Invalid` it is something else.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let node = self.0.find(path)?;
        if node.metadata.kind != EntryKind::Symlink {
            return Err(other_kind(path, "a symbolic link"));
        }
        self.0.driver.link_target(&node)
    }

    /// The path, from `/` on and without any symbolic link, that a path leads to if links are followed, the last
    /// name too. Links and `..` never lead out of the file system.
    ///
    /// Errors: as `entry`; `Invalid` more than 40 links.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        path::check(path)?;
        let mut ahead: VecDeque<Vec<u8>> = path::names(path).map(<[u8]>::to_vec).collect();
        let mut behind: Vec<(Vec<u8>, Node)> = Vec::new();
        let mut links = 0;
        let root = self.0.root()?;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                behind.pop();
                continue;
            }
            let here = behind.last().map_or(&root, |(_, node)| node);
            let node = self.0.child(here, &name, path)?;
            if node.metadata.kind != EntryKind::Symlink {
                behind.push((name, node));
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::TooManyLinks {
                    path: shown(path),
                    limit: LINKS_MAX,
                });
            }
            let target = self.0.driver.link_target(&node)?;
            if target.starts_with(b"/") {
                behind.clear();
            }
            for name in path::names(&target).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(name.to_vec());
            }
        }
        let mut resolved = Vec::new();
        for (name, _) in &behind {
            resolved.push(b'/');
            resolved.extend_from_slice(name);
        }
        if resolved.is_empty() {
            resolved.push(b'/');
        }
        Ok(resolved)
    }
}

impl Entry {
    pub(crate) fn new(name: Vec<u8>, node: &Node) -> Self {
        Self {
            name,
            metadata: node.metadata,
            links: node.links,
        }
    }
}

impl Inner {
    fn new(driver: Box<dyn Driver>, volume: Arc<Volume>, found: Found, log: Log) -> Self {
        Self {
            driver,
            volume,
            windows: Windows::default(),
            found,
            log,
            lookups: Mutex::default(),
        }
    }

    fn root(&self) -> Result<Node> {
        self.driver.node(self.driver.root())
    }

    /// The node at a path. A directory that would be below itself ends it: so no circle of
    /// directories, which only a damaged disk has, goes round.
    fn find(&self, path: &[u8]) -> Result<Node> {
        path::check(path)?;
        let mut node = self.root()?;
        let mut above = HashSet::from([node.id]);
        for name in path::names(path) {
            if name == b".." {
                return Err(Error::BadPath {
                    path: shown(path),
                    why: "`..` is no name",
                });
            }
            node = self.child(&node, name, path)?;
            if node.metadata.kind == EntryKind::Directory && !above.insert(node.id) {
                return Err(Error::damaged(
                    format!("directory {}", node.id),
                    "it is below itself",
                ));
            }
        }
        Ok(node)
    }

    /// What has a name in a directory; `path` is what was asked for.
    fn child(&self, directory: &Node, name: &[u8], path: &[u8]) -> Result<Node> {
        if directory.metadata.kind != EntryKind::Directory {
            return Err(Error::NotFound { path: shown(path) });
        }
        let id = self.lookup(directory, name)?;
        self.driver
            .node(id.ok_or_else(|| Error::NotFound { path: shown(path) })?)
    }

    fn lookup(&self, directory: &Node, name: &[u8]) -> Result<Option<u64>> {
        let key = (directory.id, name.to_vec());
        let lookups = || self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = lookups().get(&key) {
            return Ok(Some(*id));
        }
        let found = match self.known(directory, name)? {
            None => self.search(directory, name)?,
            known => known,
        };
        if let Some(id) = found {
            let mut lookups = lookups();
            if lookups.len() >= LOOKUPS_MAX {
                lookups.clear();
            }
            lookups.insert(key, id);
        }
        Ok(found)
    }

    /// Goes through the names of a directory until one is the one that was asked for.
    fn search(&self, directory: &Node, name: &[u8]) -> Result<Option<u64>> {
        let mut found = None;
        self.names(directory, &mut |other, id| {
            if !self.driver.same_name(name, other) {
                return ControlFlow::Continue(());
            }
            found = Some(id);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Visits the names of a directory but for `.` and `..`.
    pub(crate) fn names(
        &self,
        directory: &Node,
        visit: &mut dyn FnMut(&[u8], u64) -> ControlFlow<()>,
    ) -> Result<()> {
        self.driver.names(directory, &mut |name, id| {
            if name == b"." || name == b".." {
                return Ok(ControlFlow::Continue(()));
            }
            if !is_name(name) {
                return Err(Error::damaged(
                    format!("directory {}", directory.id),
                    "it has a name that none can have",
                ));
            }
            Ok(visit(name, id))
        })
    }
}

fn other_kind(path: &[u8], expected: &'static str) -> Error {
    Error::OtherKind {
        path: shown(path),
        expected,
    }
}

#[cfg(test)]
mod tests;
