//! The files of the local index. Everything here blocks.
//!
//! They are a cache: whoever finds one that is not what was written throws all
//! of them away. So a file needs no more than to be durable before the state
//! file names it, and the state file is replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};

/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 256 << 10;
const LOCK: &str = "lock";
/// A file that takes another's name once it is whole.
const UNFINISHED: &str = "unfinished";

/// The folder of a local index, locked while this lives.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    _lock: File,
    #[cfg(test)]
    pub faults: super::faults::Faults,
}

impl Files {
    /// Opens the folder, making it if need be.
    ///
    /// Errors: `Conflict` it is in use already.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |source| failed("open", folder, source);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = options().create(true).open(folder.join(LOCK));
        let lock = lock.map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => Error::FolderLocked {
                path: folder.to_owned(),
            },
            error => failed(error.into()),
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    /// A new file.
    pub fn create(&self, name: &str) -> Result<File> {
        self.act("create", name, |path| options().create_new(true).open(path))
    }

    /// A file for reading and writing, made if need be.
    pub fn open_or_create(&self, name: &str) -> Result<File> {
        self.act("open", name, |path| options().create(true).open(path))
    }

    /// A file that must be there, for reading.
    pub fn open_file(&self, name: &str) -> Result<File> {
        self.act("open", name, |path| File::open(path))
    }

    pub fn write_at(&self, name: &str, file: &File, bytes: &[u8], offset: u64) -> Result<()> {
        self.act("write", name, |_| file.write_all_at(bytes, offset))
    }

    pub fn read_at(&self, name: &str, file: &File, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.act("read", name, |_| file.read_exact_at(bytes, offset))
    }

    /// Gives a part of a file to `each`, in pieces of whole words, and returns the hash of it.
    pub fn read_hashed(
        &self,
        name: &str,
        file: &File,
        range: Range<u64>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<[u8; 32]> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), range.start);
        let mut piece = Vec::new();
        while at < range.end {
            let length = (range.end - at).min(PIECE_BYTES);
            piece.resize(length as usize, 0);
            self.read_at(name, file, &mut piece, at)?;
            hasher.update(&piece);
            each(&piece);
            at += length;
        }
        Ok(hasher.finalize().into())
    }

    pub fn length(&self, name: &str, file: &File) -> Result<u64> {
        self.act("look at", name, |_| Ok(file.metadata()?.len()))
    }

    /// Makes what was written to a file durable.
    pub fn sync(&self, name: &str, file: &File) -> Result<()> {
        self.act("sync", name, |_| durable(file))
    }

    /// A whole file, or nothing if there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.act("read", name, |path| match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        })
    }

    /// Puts a file in the place of another, durably and as a whole, together
    /// with the names of all files that were made before.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let unfinished = self.act("create", UNFINISHED, |path| {
            options().create(true).truncate(true).open(path)
        })?;
        self.write_at(UNFINISHED, &unfinished, bytes, 0)?;
        self.sync(UNFINISHED, &unfinished)?;
        self.act("replace", name, |path| {
            fs::rename(self.folder.join(UNFINISHED), path)
        })?;
        self.sync_names()
    }

    /// Makes the names of all files durable as they are.
    pub fn sync_names(&self) -> Result<()> {
        self.act("sync", "", |path| durable(&File::open(path)?))
    }

    /// Removes a file; one that is not there is fine.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.act("remove", name, |path| match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
    }

    /// The names of all files but the lock.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.act("list", "", |path| {
            let entries = fs::read_dir(path)?;
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        })?;
        Ok(names.into_iter().filter(|name| name != LOCK).collect())
    }

    fn act<T>(
        &self,
        action: &'static str,
        name: &str,
        act: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<T> {
        let path = self.folder.join(name);
        #[cfg(test)]
        self.faults
            .strike(action)
            .map_err(|source| failed(action, &path, source))?;
        act(&path).map_err(|source| failed(action, &path, source))
    }

    /// The error for a file that is not what was written.
    pub fn damaged(&self, name: &str, problem: &'static str) -> Error {
        Error::LocalIndexDamaged {
            path: self.folder.join(name),
            problem,
        }
    }
}

/// Waits for the disk; not in tests, where no machine loses its power.
fn durable(file: &File) -> io::Result<()> {
    if cfg!(test) { Ok(()) } else { file.sync_all() }
}

/// How files are opened for writing: for the owner alone.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::LocalIndex {
        action,
        path: path.to_owned(),
        source,
    }
}
