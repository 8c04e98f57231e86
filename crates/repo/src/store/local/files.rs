//! The files of a local store. Everything here blocks.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, PutPayload, PutResult, Result as StoreResult};

use super::system::System;
use crate::buffer::BufferPool;
use crate::frame::STORED_BYTES_MAX;
use crate::random;

/// Bytes that are read at a time: any frame comes in one piece.
pub(super) const READ_BYTES: usize = STORED_BYTES_MAX;
/// Reads from this size on go into buffers that are used again.
const LARGE_READ_BYTES: usize = 128 << 10;
/// Such buffers that stay when nobody reads.
const BUFFERS_KEPT: usize = 6;
/// Unfinished files lie here, on the same file system as the finished.
const TEMPORARY: &str = ".tmp";

/// A folder of objects.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    system: System,
    /// What large reads go into.
    buffers: Arc<BufferPool>,
    folders: Mutex<Folders>,
}

/// What this process knows of folders below the root.
#[derive(Debug, Default)]
struct Folders {
    /// Their names are durable. That one is there says nothing: whoever made it
    /// may have died before it was.
    durable: HashSet<PathBuf>,
    /// What they hold was changed and could not be made durable. Until it is,
    /// nothing is said of what they hold.
    unsettled: HashSet<PathBuf>,
}

/// What lies in a folder.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub objects: Vec<ObjectMeta>,
    pub folders: Vec<Path>,
}

/// A file with a temporary name, removed unless it gets its own.
#[derive(Debug)]
pub(super) struct Temporary {
    file: File,
    path: PathBuf,
    placed: bool,
    system: System,
}

impl Temporary {
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.system.write_at(&self.file, &self.path, bytes, offset)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = self.system.remove(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "An unfinished file stays until the next start.");
        }
    }
}

impl Files {
    pub fn new(root: PathBuf, system: System) -> Self {
        Self {
            root,
            system,
            buffers: BufferPool::new(READ_BYTES, BUFFERS_KEPT),
            folders: Mutex::default(),
        }
    }

    /// Makes the root and the folders above it where they are not there, each
    /// durable, and all that an earlier process left there.
    pub fn make_root(&self) -> io::Result<()> {
        let missing: Vec<&FilePath> = self
            .root
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
            .collect();
        for folder in missing.into_iter().rev() {
            self.system.make_folder(folder)?;
            self.system.sync_folder(above(folder))?;
        }
        self.system.sync_all(&self.root)
    }

    /// Makes a folder below the root and those above it where they are not
    /// there, and their names durable.
    fn make_folders(&self, folder: &FilePath) -> io::Result<()> {
        if folder == self.root || self.folders().durable.contains(folder) {
            return Ok(());
        }
        self.make_folders(above(folder))?;
        self.system.make_folder(folder)?;
        self.system.sync_folder(above(folder))?;
        self.folders().durable.insert(folder.to_owned());
        Ok(())
    }

    /// Makes what a folder holds durable, after a change of it.
    fn settle(&self, folder: &FilePath) -> io::Result<()> {
        self.folders().unsettled.insert(folder.to_owned());
        self.system.sync_folder(folder)?;
        self.folders().unsettled.remove(folder);
        Ok(())
    }

    /// Called before anything is said of what a folder holds.
    fn check_settled(&self, folder: &FilePath) -> io::Result<()> {
        if self.folders().unsettled.contains(folder) {
            return self.settle(folder);
        }
        Ok(())
    }

    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn root(&self) -> &FilePath {
        &self.root
    }

    /// Removes what was never finished.
    pub fn clear_temporaries(&self) -> io::Result<()> {
        let folder = self.root.join(TEMPORARY);
        self.make_folders(&folder)?;
        for entry in fs::read_dir(&folder)? {
            self.system.remove(&entry?.path())?;
        }
        Ok(())
    }

    /// Where an object's file lies.
    fn path(&self, location: &Path) -> StoreResult<PathBuf> {
        let mut path = self.root.clone();
        for part in location.parts() {
            let part = part.as_ref();
            if part.starts_with('.') {
                return Err(StoreError::NotSupported {
                    source: format!("{location}: a name may not start with a dot").into(),
                });
            }
            path.push(part);
        }
        Ok(path)
    }

    pub fn temporary(&self, location: &Path) -> StoreResult<Temporary> {
        let name = hex::encode(random::bytes::<16>());
        let path = self.root.join(TEMPORARY).join(name);
        let made = self.system.create_file(&path);
        let file = made.map_err(|error| store_error(location, error))?;
        Ok(Temporary {
            file,
            path,
            placed: false,
            system: self.system.clone(),
        })
    }

    pub fn put(
        &self,
        location: &Path,
        payload: &PutPayload,
        replace: bool,
    ) -> StoreResult<PutResult> {
        let temporary = self.temporary(location)?;
        let mut length = 0;
        for bytes in payload {
            let written = temporary.write_at(bytes, length);
            written.map_err(|error| store_error(location, error))?;
            length += bytes.len() as u64;
        }
        self.place(temporary, location, length, replace)
    }

    /// Gives a finished file its name: it is durable and has this length, or there is an error.
    pub fn place(
        &self,
        mut temporary: Temporary,
        location: &Path,
        length: u64,
        replace: bool,
    ) -> StoreResult<PutResult> {
        let failed = |error| store_error(location, error);
        let path = self.path(location)?;
        let synced = self.system.sync_file(&temporary.file, &temporary.path);
        synced.map_err(failed)?;
        let metadata = temporary.file.metadata().map_err(failed)?;
        if metadata.len() != length {
            let problem = format!("{} bytes arrived of {length}", metadata.len());
            return Err(failed(io::Error::other(problem)));
        }
        let folder = above(&path);
        self.make_folders(folder).map_err(failed)?;
        let renamed = self.system.rename(&temporary.path, &path, replace);
        renamed.map_err(failed)?;
        temporary.placed = true;
        self.settle(folder).map_err(failed)?;
        Ok(PutResult {
            e_tag: Some(e_tag(&metadata)),
            version: None,
            extensions: Default::default(),
        })
    }

    pub fn open(&self, location: &Path) -> StoreResult<(File, ObjectMeta)> {
        let failed = |error| store_error(location, error);
        let path = self.path(location)?;
        self.check_settled(above(&path)).map_err(failed)?;
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(ErrorKind::NotFound.into()));
        }
        let meta = object_meta(location.clone(), &metadata).map_err(failed)?;
        Ok((file, meta))
    }

    /// Reads a range of a file that must be there in full; `READ_BYTES` at most.
    pub fn read(&self, file: &File, location: &Path, range: Range<u64>) -> StoreResult<Bytes> {
        let length = usize::try_from(range.end - range.start);
        let length = length.expect("reads are cut into small pieces");
        let read = |buffer: &mut [u8]| {
            let read = file.read_exact_at(buffer, range.start);
            read.map_err(|error| store_error(location, error))
        };
        if length < LARGE_READ_BYTES {
            let mut buffer = vec![0; length];
            read(&mut buffer)?;
            return Ok(buffer.into());
        }
        let mut buffer = self.buffers.take();
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        read(&mut buffer[..length])?;
        Ok(Bytes::from_owner(buffer).slice(..length))
    }

    pub fn delete(&self, location: &Path) -> StoreResult<()> {
        let path = self.path(location)?;
        let gone = |done: io::Result<()>| match done {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.map_err(|error| store_error(location, error)),
        };
        gone(self.system.remove(&path))?;
        // What is not there may be so since a moment ago, and not durably.
        gone(self.settle(above(&path)))
    }

    /// What lies right in a folder.
    pub fn list(&self, folder: &Path) -> StoreResult<Listed> {
        let mut listed = Listed::default();
        let found = self.list_folder(folder, &mut listed);
        listed.folders = found.map_err(|error| store_error(folder, error))?;
        listed.objects.sort_by(|a, b| a.location.cmp(&b.location));
        listed.folders.sort();
        Ok(listed)
    }

    /// Adds a folder's objects and returns the folders in it.
    fn list_folder(&self, folder: &Path, listed: &mut Listed) -> io::Result<Vec<Path>> {
        let path = self.path(folder).map_err(io::Error::other)?;
        self.check_settled(&path)?;
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            // A file may be deleted while its folder is read.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let location = folder.clone().join(name);
            if metadata.is_dir() {
                folders.push(location);
            } else {
                listed.objects.push(object_meta(location, &metadata)?);
            }
        }
        Ok(folders)
    }
}

/// The folder that a path below the root is in.
fn above(path: &FilePath) -> &FilePath {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => FilePath::new("."),
    }
}

fn object_meta(location: Path, metadata: &fs::Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta {
        location,
        last_modified: metadata.modified()?.into(),
        size: metadata.len(),
        e_tag: Some(e_tag(metadata)),
        version: None,
    })
}

fn e_tag(metadata: &fs::Metadata) -> String {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    format!(
        "\"{:x}-{seconds:x}-{nanoseconds:x}-{:x}\"",
        metadata.ino(),
        metadata.len()
    )
}

/// The store's error for the system's.
pub(super) fn store_error(location: &Path, error: io::Error) -> StoreError {
    let path = location.to_string();
    match error.kind() {
        ErrorKind::NotFound => StoreError::NotFound {
            path,
            source: error.into(),
        },
        ErrorKind::AlreadyExists => StoreError::AlreadyExists {
            path,
            source: error.into(),
        },
        ErrorKind::PermissionDenied => StoreError::PermissionDenied {
            path,
            source: error.into(),
        },
        _ => StoreError::Generic {
            store: "local",
            source: error.into(),
        },
    }
}
