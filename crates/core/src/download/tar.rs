//! The files of a backup as an archive: where each entry lies follows from what stands before it,
//! so it is measured once, without reading a file, and after that may be begun anywhere.
//!
//! Entries come depth first, a directory before what is in it, names by their bytes. Sockets are
//! left out, as every tar leaves them out; so is what cannot be read, which is told (`left_out.rs`).

use std::collections::VecDeque;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::ops::Range;
use std::sync::Arc;

use cairn_archive::{Content, END_BYTES, Entry, head, ranges_of, stored_bytes};
use cairn_types::tree::{EntryKind, FileReader, FileTime, Metadata, Xattr};
use tokio_util::sync::CancellationToken;

use super::left_out::{LeftOut, names_of};
use super::tree::{Folder, Named};
use crate::files::unreadable;
use crate::{Error, Refusal, Result};

/// Places in an archive that are remembered at most, to begin at.
const MARKS_MAX: usize = 4096;
/// Entries between two places at first.
const FIRST_SPACING: u64 = 64;
/// Bytes of the first paths of files with several names that are remembered at most. Of files
/// beyond, each name becomes a file of its own.
const LINKED_BYTES_MAX: usize = 32 << 20;
/// Bytes that a remembered path takes beside itself.
const LINKED_EXTRA_BYTES: usize = 96;
/// Directories within each other at most: twice as many as a share's backup has.
const DEPTH_MAX: usize = 1024;

/// Opens the archive's uppermost directory.
pub(super) type Root = Box<dyn Fn() -> Result<Box<dyn Folder>> + Send + Sync>;

/// What tells a file with several names from all others. Not the inode alone: a share may be
/// of more than one file system.
type Identity = (u64, u64, FileTime, FileTime);

fn identity(metadata: &Metadata) -> Identity {
    let Metadata {
        inode,
        size_bytes,
        modified,
        changed,
        ..
    } = *metadata;
    (inode, size_bytes, modified, changed)
}

/// What lies where in an archive. Holds nothing open.
#[derive(Debug)]
pub(crate) struct Index {
    bytes: u64,
    marks: Marks,
    /// The first path of each file with several names.
    linked: HashMap<Identity, Box<[u8]>>,
    left_out: Arc<LeftOut>,
}

impl Index {
    pub(crate) const fn archive_bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }
}

/// Places to begin at.
#[derive(Debug)]
struct Marks {
    /// Where an entry ends, its path, and whether it is a directory.
    all: Vec<(u64, Box<[u8]>, bool)>,
    /// Entries from one to the next.
    spacing: u64,
    entries: u64,
}

impl Marks {
    fn add(&mut self, end: u64, entry: &Entry) {
        self.entries += 1;
        if !self.entries.is_multiple_of(self.spacing) {
            return;
        }
        if self.all.len() == MARKS_MAX {
            let mut number = 0;
            self.all.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.spacing *= 2;
            if !self.entries.is_multiple_of(self.spacing) {
                return;
            }
        }
        let folder = entry.metadata.kind == EntryKind::Directory;
        self.all.push((end, entry.path.clone().into(), folder));
    }

    /// The last one at or before an offset.
    fn before(&self, offset: u64) -> Option<&(u64, Box<[u8]>, bool)> {
        let behind = self.all.partition_point(|(end, ..)| *end <= offset);
        self.all.get(behind.checked_sub(1)?)
    }
}

/// Goes through a tree and measures its archive.
///
/// Errors: `Invalid` its uppermost directory cannot be read, or too much below it; `Cancelled`.
pub(super) fn measure(root: &Root, stop: &CancellationToken) -> Result<Index> {
    let mut index = Index {
        bytes: 0,
        marks: Marks {
            all: Vec::new(),
            spacing: FIRST_SPACING,
            entries: 0,
        },
        linked: HashMap::new(),
        left_out: Arc::default(),
    };
    let mut linked_bytes = 0;
    let mut walk = Walk::new(root()?, Arc::default());
    while let Some(found) = walk.next()? {
        if stop.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (path, metadata) = (found.path.clone(), found.metadata);
        let (entry, _) = match entry_of(found, &index.linked) {
            Ok(entry) => entry,
            Err(error) => {
                walk.leave_out(path, error)?;
                continue;
            }
        };
        // What is left out is no file that others are further names of.
        if metadata.linked
            && linked_bytes < LINKED_BYTES_MAX
            && let Slot::Vacant(slot) = index.linked.entry(identity(&metadata))
        {
            linked_bytes += path.len() + LINKED_EXTRA_BYTES;
            slot.insert(path.into());
        }
        index.bytes += stored_bytes(head(&entry).len(), &entry);
        index.marks.add(index.bytes, &entry);
    }
    index.bytes += END_BYTES;
    Arc::make_mut(&mut walk.left_out).settle();
    index.left_out = walk.left_out;
    Ok(index)
}

/// An entry on the way through a tree, open where it is a file.
struct Found {
    path: Vec<u8>,
    metadata: Metadata,
    holds: Holds,
}

enum Holds {
    File(Arc<dyn FileReader>),
    Directory(Vec<Xattr>),
    Other {
        target: Option<Vec<u8>>,
        xattrs: Vec<Xattr>,
    },
}

/// The entry that is written of what was found, and the file that its data is in.
fn entry_of(
    found: Found,
    linked: &HashMap<Identity, Box<[u8]>>,
) -> Result<(Entry, Option<Arc<dyn FileReader>>)> {
    let Found {
        path,
        mut metadata,
        holds,
    } = found;
    let first = linked.get(&identity(&metadata)).filter(|_| metadata.linked);
    let (content, xattrs, file) = match holds {
        Holds::File(_) if first.is_some_and(|first| **first != *path) => {
            let first = first.map(|first| first.to_vec()).unwrap_or_default();
            (Content::Link(first), Vec::new(), None)
        }
        Holds::File(file) => {
            let held = file.metadata().map_err(unreadable)?;
            metadata.size_bytes = held.size_bytes;
            let ranges = ranges_of(held.size_bytes, |at| file.data_from(at));
            let ranges = ranges.map_err(unreadable)?;
            (
                Content::Data(ranges),
                file.xattrs().map_err(unreadable)?,
                Some(file),
            )
        }
        Holds::Directory(xattrs) => (Content::Nothing, xattrs, None),
        Holds::Other { target, xattrs } => (
            target.map_or(Content::Nothing, Content::Target),
            xattrs,
            None,
        ),
    };
    let entry = Entry {
        path,
        metadata,
        xattrs,
        content,
    };
    Ok((entry, file))
}

/// A way through a tree.
struct Walk {
    /// The uppermost directory, until it is given out.
    top: Option<Box<dyn Folder>>,
    /// The directories on the way down to where it is.
    levels: Vec<Level>,
    /// The path of the last of them.
    path: Vec<u8>,
    left_out: Arc<LeftOut>,
}

struct Level {
    folder: Box<dyn Folder>,
    /// The last name that was given out.
    after: Option<Vec<u8>>,
    page: VecDeque<Named>,
    /// How long its path is.
    path_bytes: usize,
}

impl Level {
    fn next(&mut self) -> Result<Option<Named>> {
        if self.page.is_empty() {
            self.page = self.folder.behind(self.after.as_deref())?.into();
        }
        let next = self.page.pop_front();
        if let Some((name, _)) = &next {
            self.after = Some(name.clone());
        }
        Ok(next)
    }
}

impl Walk {
    fn new(top: Box<dyn Folder>, left_out: Arc<LeftOut>) -> Self {
        Self {
            top: Some(top),
            levels: Vec::new(),
            path: Vec::new(),
            left_out,
        }
    }

    /// From behind an entry on; if that is a directory, with what is in it.
    fn behind(
        top: Box<dyn Folder>,
        (path, is_folder): (&[u8], bool),
        left_out: Arc<LeftOut>,
    ) -> Result<Self> {
        let mut walk = Self::new(top, left_out);
        let Some(top) = walk.top.take() else {
            return Ok(walk);
        };
        walk.enter(top, b"")?;
        let mut names = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .peekable();
        while let (Some(name), Some(level)) = (names.next(), walk.levels.last_mut()) {
            level.after = Some(name.to_vec());
            let is_last = names.peek().is_none();
            if !is_last || (is_folder && !walk.left_out.has_names_of(path)) {
                let folder = level.folder.folder(name)?;
                walk.enter(folder, name)?;
            }
        }
        Ok(walk)
    }

    fn enter(&mut self, folder: Box<dyn Folder>, name: &[u8]) -> Result<()> {
        if self.levels.len() == DEPTH_MAX {
            let why = format!("there are more than {DEPTH_MAX} directories within each other");
            return Err(Refusal::UnreadableFile { why }.into());
        }
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.levels.push(Level {
            folder,
            after: None,
            page: VecDeque::new(),
            path_bytes: self.path.len(),
        });
        Ok(())
    }

    fn leave(&mut self) {
        self.levels.pop();
        let above = self.levels.last().map_or(0, |level| level.path_bytes);
        self.path.truncate(above);
    }

    fn next(&mut self) -> Result<Option<Found>> {
        if let Some(top) = self.top.take() {
            let (metadata, xattrs) = top.own()?;
            self.enter(top, b"")?;
            let holds = Holds::Directory(xattrs);
            return Ok(Some(Found {
                path: Vec::new(),
                metadata,
                holds,
            }));
        }
        while let [above @ .., level] = self.levels.as_mut_slice() {
            let (is_top, is_begun) = (above.is_empty(), level.after.is_some());
            match level.next() {
                Ok(None) => self.leave(),
                Ok(Some((_, Ok(metadata)))) if metadata.kind == EntryKind::Socket => {}
                Ok(Some((name, metadata))) => {
                    let path = self.path_of(&name);
                    if self.left_out.has(&path) {
                        continue;
                    }
                    match metadata.and_then(|metadata| self.found(&name, metadata)) {
                        Ok(found) => return Ok(Some(found)),
                        Err(error) => self.leave_out(path, error)?,
                    }
                }
                // Without the uppermost directory's names there is no archive, nor with a part of some.
                Err(error) if is_top || is_begun => return Err(error),
                Err(error) => {
                    self.leave_out(names_of(&self.path), error)?;
                    self.leave();
                }
            }
        }
        Ok(None)
    }

    fn leave_out(&mut self, path: Vec<u8>, error: Error) -> Result<()> {
        Arc::make_mut(&mut self.left_out).add(path, error)
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match self.path.as_slice() {
            [] => name.to_vec(),
            above => [above, name].join(&b'/'),
        }
    }

    fn found(&mut self, name: &[u8], metadata: Metadata) -> Result<Found> {
        let folder = &self.levels.last().ok_or(Refusal::FileNotFound)?.folder;
        let path = self.path_of(name);
        let holds = match metadata.kind {
            EntryKind::File => Holds::File(folder.file(name)?),
            EntryKind::Directory => {
                let folder = folder.folder(name)?;
                let (_, xattrs) = folder.own()?;
                if !self.left_out.has_names_of(&path) {
                    self.enter(folder, name)?;
                }
                Holds::Directory(xattrs)
            }
            EntryKind::Symlink => Holds::Other {
                target: Some(folder.target(name)?),
                xattrs: folder.xattrs(name)?,
            },
            _ => Holds::Other {
                target: None,
                xattrs: folder.xattrs(name)?,
            },
        };
        Ok(Found {
            path,
            metadata,
            holds,
        })
    }
}

/// A part of an archive.
pub(super) enum Part {
    /// These bytes.
    Made(Vec<u8>),
    /// This range of a file.
    File(Arc<dyn FileReader>, Range<u64>),
    /// So many zeros.
    Zeros(u64),
}

/// An archive from some byte on.
pub(super) struct Stream {
    index: Arc<Index>,
    walk: Walk,
    at: u64,
    /// The entry that `at` lies in, or before.
    member: Option<Member>,
    /// Where the entry behind that begins.
    next_at: u64,
}

/// An entry in an archive.
struct Member {
    at: u64,
    end: u64,
    head: Vec<u8>,
    file: Option<Arc<dyn FileReader>>,
    ranges: Vec<Range<u64>>,
    /// Which of the ranges is at work, and where in the archive it begins.
    range: usize,
    range_at: u64,
}

impl Stream {
    /// From a byte on, which lies in the archive.
    ///
    /// Errors: as [`measure`].
    pub(super) fn begin(index: Arc<Index>, root: &Root, at: u64) -> Result<Self> {
        let top = root()?;
        let left_out = Arc::clone(&index.left_out);
        let (walk, next_at) = match index.marks.before(at) {
            Some((end, path, is_folder)) => {
                (Walk::behind(top, (path, *is_folder), left_out)?, *end)
            }
            None => (Walk::new(top, left_out), 0),
        };
        Ok(Self {
            index,
            walk,
            at,
            member: None,
            next_at,
        })
    }

    /// What comes next, at most `limit` bytes of it. Must not be called at the archive's end.
    ///
    /// Errors: as [`measure`].
    pub(super) fn part(&mut self, limit: u64) -> Result<Part> {
        while self
            .member
            .as_ref()
            .is_none_or(|member| member.end <= self.at)
        {
            let Some(found) = self.walk.next()? else {
                if self.next_at + END_BYTES != self.index.bytes {
                    let why = "it is not what was measured".to_owned();
                    return Err(Refusal::UnreadableFile { why }.into());
                }
                let left = self.index.bytes - self.at;
                return Ok(self.zeros(left.min(limit)));
            };
            let (entry, file) = entry_of(found, &self.index.linked)?;
            let head = head(&entry);
            let (at, end) = (
                self.next_at,
                self.next_at + stored_bytes(head.len(), &entry),
            );
            self.next_at = end;
            let ranges = match entry.content {
                Content::Data(ranges) => ranges,
                _ => Vec::new(),
            };
            self.member = Some(Member {
                at,
                end,
                range: 0,
                range_at: at + head.len() as u64,
                head,
                file,
                ranges,
            });
        }
        let part = self
            .member
            .as_mut()
            .and_then(|member| member.part(self.at, limit));
        match part {
            Some((part, bytes)) => {
                self.at += bytes;
                Ok(part)
            }
            None => {
                let left = self
                    .member
                    .as_ref()
                    .map_or(0, |member| member.end - self.at);
                Ok(self.zeros(left.min(limit)))
            }
        }
    }

    fn zeros(&mut self, bytes: u64) -> Part {
        self.at += bytes;
        Part::Zeros(bytes)
    }
}

impl Member {
    /// What it has at a place in the archive; nothing where its last block is filled.
    fn part(&mut self, at: u64, limit: u64) -> Option<(Part, u64)> {
        let inside = at - self.at;
        if let Some(head) = self
            .head
            .get(inside as usize..)
            .filter(|head| !head.is_empty())
        {
            let length = limit.min(head.len() as u64);
            return Some((Part::Made(head[..length as usize].to_vec()), length));
        }
        let file = self.file.as_ref()?;
        while let Some(range) = self.ranges.get(self.range) {
            let length = range.end - range.start;
            let skip = at - self.range_at;
            if skip < length {
                let bytes = (length - skip).min(limit);
                let start = range.start + skip;
                return Some((Part::File(Arc::clone(file), start..start + bytes), bytes));
            }
            self.range_at += length;
            self.range += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests;
