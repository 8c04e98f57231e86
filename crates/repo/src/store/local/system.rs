//! The calls by which a local store changes the file system, each in one place,
//! so that all of them can be watched.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};

/// A call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCall<'a> {
    /// A folder is made.
    MakeFolder(&'a Path),
    /// What a folder holds is made durable.
    SyncFolder(&'a Path),
    /// All that was done to a file system before is made durable.
    SyncAll(&'a Path),
    /// A file is made.
    CreateFile(&'a Path),
    /// Bytes are written into a file, at an offset.
    Write(&'a Path, u64, &'a [u8]),
    /// A file's bytes are made durable.
    SyncFile(&'a Path),
    /// A file gets another name, from and to.
    Rename(&'a Path, &'a Path),
    /// A file is removed.
    Remove(&'a Path),
}

/// Told of every call before it is made; an error takes its place.
pub type Watch = dyn Fn(FileCall<'_>) -> io::Result<()> + Send + Sync;

/// The file system. Clones are watched by the same.
#[derive(Clone, Default)]
pub(super) struct System {
    watch: Option<Arc<Watch>>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

impl System {
    pub fn watched(watch: Arc<Watch>) -> Self {
        Self { watch: Some(watch) }
    }

    fn tell(&self, call: FileCall<'_>) -> io::Result<()> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch(call))
    }

    /// Makes a folder for the owner alone; one that is there is fine.
    pub fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.tell(FileCall::MakeFolder(folder))?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            made => made,
        }
    }

    /// Makes the names in a folder durable.
    pub fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.tell(FileCall::SyncFolder(folder))?;
        File::open(folder)?.sync_all()
    }

    /// Makes durable whatever an earlier process did to the file system of a folder.
    pub fn sync_all(&self, folder: &Path) -> io::Result<()> {
        self.tell(FileCall::SyncAll(folder))?;
        Ok(syncfs(File::open(folder)?)?)
    }

    /// Opens a file that is made if need be.
    pub fn open_or_create_file(&self, path: &Path) -> io::Result<File> {
        self.tell(FileCall::CreateFile(path))?;
        options().create(true).truncate(false).open(path)
    }

    /// Makes a file, which must not be there.
    pub fn create_file(&self, path: &Path) -> io::Result<File> {
        self.tell(FileCall::CreateFile(path))?;
        options().create_new(true).open(path)
    }

    pub fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.tell(FileCall::Write(path, offset, bytes))?;
        file.write_all_at(bytes, offset)
    }

    pub fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.tell(FileCall::SyncFile(path))?;
        file.sync_all()
    }

    pub fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        self.tell(FileCall::Rename(from, to))?;
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

    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.tell(FileCall::Remove(path))?;
        fs::remove_file(path)
    }
}

/// How files are opened for writing: for the owner alone.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}
