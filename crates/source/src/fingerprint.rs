//! Whether a file is still the one, and still as, it was.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use cairn_types::disk::Because;

/// What changes when somebody writes to a file or puts another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    fn of(metadata: &Metadata) -> Self {
        // A device's node says nothing about writes to the device.
        let is_device = metadata.file_type().is_block_device();
        let unless_device = |time| if is_device { (0, 0) } else { time };
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: unless_device((metadata.mtime(), metadata.mtime_nsec())),
            changed: unless_device((metadata.ctime(), metadata.ctime_nsec())),
        }
    }
}

/// A file as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Fingerprint {
    path: PathBuf,
    print: Print,
}

impl Fingerprint {
    /// Remembers `file`, which was opened at `path`.
    pub(crate) fn take(path: &Path, file: &File) -> io::Result<Self> {
        let print = Print::of(&file.metadata()?);
        Ok(Self {
            path: path.to_owned(),
            print,
        })
    }

    /// An error if the path now leads to another file, or to one that was written to.
    pub(crate) fn check(&self) -> io::Result<()> {
        let now = Print::of(&std::fs::metadata(&self.path)?);
        if now == self.print {
            return Ok(());
        }
        Err(Because::error(
            io::ErrorKind::Other,
            "the image was changed or replaced while it was being read",
        ))
    }

    /// An error if the path now leads to another file; writes do not matter.
    pub(crate) fn check_same_file(&self) -> io::Result<()> {
        let same = |now: Print| (now.device, now.inode) == (self.print.device, self.print.inode);
        match std::fs::metadata(&self.path) {
            Ok(now) if same(Print::of(&now)) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(Because::error(
                io::ErrorKind::Other,
                "the image was replaced or removed while it was being written",
            )),
        }
    }
}
