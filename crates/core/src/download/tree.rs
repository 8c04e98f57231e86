//! What goes into an archive: directories whose entries come in the order of their names, out
//! of a share's backup or out of a file system on a disk.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_filesystem::FileSystem;
use cairn_types::tree::{DirectoryReader, EntryKind, FileReader, Metadata, Names, Xattr};

use crate::files::{missing, unreadable};
use crate::{Error, Refusal, Result};

/// Entries of a directory that are asked for at a time.
const PAGE: usize = 256;

/// An entry of a directory: its name and what it is, or why nobody can tell.
pub(super) type Named = (Vec<u8>, Result<Metadata>);

/// A directory.
pub(super) trait Folder: Send {
    /// What it is itself.
    fn own(&self) -> Result<(Metadata, Vec<Xattr>)>;
    /// Some entries behind a name, in the order of the names' bytes; none at the end.
    fn behind(&mut self, after: Option<&[u8]>) -> Result<Vec<Named>>;
    /// A directory in it.
    fn folder(&self, name: &[u8]) -> Result<Box<dyn Folder>>;
    /// A file in it.
    fn file(&self, name: &[u8]) -> Result<Arc<dyn FileReader>>;
    /// Where a symbolic link in it points.
    fn target(&self, name: &[u8]) -> Result<Vec<u8>>;
    /// The extended attributes of what is neither a file nor a directory.
    fn xattrs(&self, name: &[u8]) -> Result<Vec<Xattr>>;
}

/// A directory of a stored tree.
pub(super) struct TreeFolder {
    folder: Arc<dyn DirectoryReader>,
    names: Option<Names>,
}

impl TreeFolder {
    pub(super) fn new(folder: Arc<dyn DirectoryReader>) -> Self {
        Self {
            folder,
            names: None,
        }
    }
}

impl Folder for TreeFolder {
    fn own(&self) -> Result<(Metadata, Vec<Xattr>)> {
        let metadata = self.folder.metadata().map_err(unreadable)?;
        Ok((metadata, self.folder.xattrs().map_err(unreadable)?))
    }

    fn behind(&mut self, after: Option<&[u8]>) -> Result<Vec<Named>> {
        let names = match &mut self.names {
            Some(names) => names,
            none => none.insert(self.folder.names().map_err(unreadable)?),
        };
        let start = after.map_or(0, |after| names.place_behind(after));
        let page = start..names.len().min(start + PAGE);
        let found = page.map(|place| {
            let name = names.get(place);
            let metadata = self.folder.metadata_of(name).map_err(unreadable);
            (name.to_vec(), metadata)
        });
        Ok(found.collect())
    }

    fn folder(&self, name: &[u8]) -> Result<Box<dyn Folder>> {
        let folder = self.folder.directory(name).map_err(missing)?;
        Ok(Box::new(Self::new(folder)))
    }

    fn file(&self, name: &[u8]) -> Result<Arc<dyn FileReader>> {
        self.folder.file(name).map_err(unreadable)
    }

    fn target(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.folder.link_target(name).map_err(unreadable)
    }

    fn xattrs(&self, name: &[u8]) -> Result<Vec<Xattr>> {
        self.folder.xattrs_of(name).map_err(unreadable)
    }
}

/// A directory of a file system on a disk. Extended attributes are not read there.
pub(super) struct DiskFolder {
    files: FileSystem,
    path: Vec<u8>,
    /// The directories that were opened: a damaged disk may have one in many places, and then there is no
    /// end to it.
    opened: Arc<Mutex<HashSet<u64>>>,
}

impl DiskFolder {
    /// The directory at a path.
    ///
    /// Errors: as those of `FileSystem::entry`; `Invalid` it is none.
    pub(super) fn new(files: FileSystem, path: Vec<u8>) -> Result<Self> {
        Self::open(files, path, Arc::default())
    }

    fn open(files: FileSystem, path: Vec<u8>, opened: Arc<Mutex<HashSet<u64>>>) -> Result<Self> {
        let Metadata { kind, inode, .. } = files.entry(&path)?.metadata;
        let why = if kind != EntryKind::Directory {
            "is no directory"
        } else if !opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(inode)
        {
            "is a directory that is in another place too"
        } else {
            return Ok(Self {
                files,
                path,
                opened,
            });
        };
        Err(unusable(&path, why))
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [&self.path[..], b"/", name].concat()
    }
}

impl Folder for DiskFolder {
    fn own(&self) -> Result<(Metadata, Vec<Xattr>)> {
        Ok((self.files.entry(&self.path)?.metadata, Vec::new()))
    }

    fn behind(&mut self, after: Option<&[u8]>) -> Result<Vec<Named>> {
        let page = self.files.list(&self.path, after, PAGE)?;
        let unreadable = page.unreadable.into_iter();
        let unreadable = unreadable.map(|one| (one.name, Err(one.error.into())));
        let entries = page.entries.into_iter().map(|entry| {
            let linked = entry.links > 1 && entry.metadata.kind == EntryKind::File;
            let metadata = Metadata {
                linked,
                ..entry.metadata
            };
            (entry.name, Ok(metadata))
        });
        let mut all: Vec<Named> = entries.chain(unreadable).collect();
        all.sort_by(|(one, _), (two, _)| one.cmp(two));
        Ok(all)
    }

    fn folder(&self, name: &[u8]) -> Result<Box<dyn Folder>> {
        let path = self.path_of(name);
        let opened = Arc::clone(&self.opened);
        Ok(Box::new(Self::open(self.files.clone(), path, opened)?))
    }

    fn file(&self, name: &[u8]) -> Result<Arc<dyn FileReader>> {
        let file = self.files.file(&self.path_of(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn target(&self, name: &[u8]) -> Result<Vec<u8>> {
        Ok(self.files.read_link(&self.path_of(name))?)
    }

    fn xattrs(&self, _name: &[u8]) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }
}

/// A file of a file system on a disk.
struct DiskFile(cairn_filesystem::File);

impl FileReader for DiskFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(*self.0.metadata())
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let mut at = offset;
        while at < self.0.size_bytes() {
            let extent = self.0.extent_at(at).map_err(io::Error::other)?;
            if extent.data {
                return Ok(Some(at..extent.end()));
            }
            at = extent.end();
        }
        Ok(None)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer).map_err(io::Error::other)
    }
}

fn unusable(path: &[u8], why: impl std::fmt::Display) -> Error {
    let path = String::from_utf8_lossy(path).into_owned();
    let why = format!("{path:?} {why}");
    Refusal::UnreadableFile { why }.into()
}
