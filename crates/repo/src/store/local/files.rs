//! The files of a local store. Everything here blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, PutPayload, PutResult, Result as StoreResult};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::random;

/// Unfinished files lie here, on the same file system as the finished.
const TEMPORARY: &str = ".tmp";
/// How often a rename is tried again when a folder on its path is removed meanwhile.
const RENAMES: usize = 8;

/// A folder of objects.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
}

/// What lies below a prefix.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub objects: Vec<ObjectMeta>,
    pub folders: Vec<Path>,
}

/// A file with a temporary name, removed unless it gets its own.
#[derive(Debug)]
pub(super) struct Temporary {
    pub file: File,
    path: PathBuf,
    placed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "An unfinished file stays until the next start.");
        }
    }
}

/// How files are opened for writing: for the owner alone.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes a folder and those above it, each durable, for the owner alone.
pub(super) fn make_folders(folder: &FilePath) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_parent(folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_folders(folder.parent().ok_or(error)?)?;
            make_folders(folder)
        }
        Err(error) => Err(error),
    }
}

/// Makes the entry of a path in its folder durable.
fn sync_parent(path: &FilePath) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => FilePath::new("."),
    };
    File::open(parent)?.sync_all()
}

impl Files {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &FilePath {
        &self.root
    }

    /// Removes what was never finished.
    pub fn clear_temporaries(&self) -> io::Result<()> {
        let folder = self.root.join(TEMPORARY);
        make_folders(&folder)?;
        for entry in fs::read_dir(&folder)? {
            fs::remove_file(entry?.path())?;
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
        let opened = options().create_new(true).open(&path);
        let file = opened.map_err(|error| store_error(location, error))?;
        Ok(Temporary {
            file,
            path,
            placed: false,
        })
    }

    pub fn put(
        &self,
        location: &Path,
        payload: &PutPayload,
        replace: bool,
    ) -> StoreResult<PutResult> {
        let mut temporary = self.temporary(location)?;
        for bytes in payload {
            temporary
                .file
                .write_all(bytes)
                .map_err(|error| store_error(location, error))?;
        }
        self.place(
            temporary,
            location,
            payload.content_length() as u64,
            replace,
        )
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
        temporary.file.sync_all().map_err(failed)?;
        let metadata = temporary.file.metadata().map_err(failed)?;
        if metadata.len() != length {
            let problem = format!("{} bytes arrived of {length}", metadata.len());
            return Err(failed(io::Error::other(problem)));
        }
        self.rename(&temporary.path, &path, replace)
            .map_err(failed)?;
        temporary.placed = true;
        sync_parent(&path).map_err(failed)?;
        Ok(PutResult {
            e_tag: Some(e_tag(&metadata)),
            version: None,
            extensions: Default::default(),
        })
    }

    fn rename(&self, from: &FilePath, to: &FilePath, replace: bool) -> io::Result<()> {
        let mut result = rename_once(from, to, replace);
        for _ in 1..RENAMES {
            match result {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    make_folders(to.parent().ok_or(error)?)?;
                    result = rename_once(from, to, replace);
                }
                done => return done,
            }
        }
        result
    }

    pub fn open(&self, location: &Path) -> StoreResult<(File, ObjectMeta)> {
        let failed = |error| store_error(location, error);
        let file = File::open(self.path(location)?).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(ErrorKind::NotFound.into()));
        }
        let meta = object_meta(location.clone(), &metadata).map_err(failed)?;
        Ok((file, meta))
    }

    pub fn delete(&self, location: &Path) -> StoreResult<()> {
        let path = self.path(location)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_parent(&path).map_err(|error| store_error(location, error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(store_error(location, error)),
        }
    }

    /// What lies below a prefix: everything, or only what is right below it.
    pub fn list(&self, prefix: &Path, deep: bool) -> StoreResult<Listed> {
        let mut listed = Listed::default();
        let mut waiting = vec![prefix.clone()];
        while let Some(folder) = waiting.pop() {
            let found = self.list_folder(&folder, &mut listed);
            let below = found.map_err(|error| store_error(&folder, error))?;
            if deep {
                waiting.extend(below);
            } else {
                listed.folders.extend(below);
            }
        }
        listed.objects.sort_by(|a, b| a.location.cmp(&b.location));
        listed.folders.sort();
        Ok(listed)
    }

    /// Adds a folder's objects and returns the folders in it.
    fn list_folder(&self, folder: &Path, listed: &mut Listed) -> io::Result<Vec<Path>> {
        let path = self.path(folder).map_err(io::Error::other)?;
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

fn rename_once(from: &FilePath, to: &FilePath, replace: bool) -> io::Result<()> {
    if replace {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems that cannot rename so can link: a link never replaces.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads a range of a file that must be there in full.
pub(super) fn read(file: &File, location: &Path, range: Range<u64>) -> StoreResult<Bytes> {
    let length = usize::try_from(range.end - range.start).expect("reads are cut into small pieces");
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, range.start)
        .map_err(|error| store_error(location, error))?;
    Ok(buffer.into())
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
