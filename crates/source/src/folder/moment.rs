//! A folder at one moment, while others go on writing to it: from a snapshot of the btrfs
//! subvolume that it lies in, or else each file from a clone that shares its bytes, where
//! the file system makes such.
//!
//! A snapshot is a hidden folder in the subvolume's own and goes when nobody reads it any
//! more; what a crash left goes with the next backup of the folder. Clones have no name.

use std::ffi::CString;
use std::fs::canonicalize;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cairn_types::ResourceId;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{directory_flags, metadata, stat};
use crate::sys;

/// How the names of snapshots begin. Nothing that is called so is saved.
pub(super) const SNAPSHOT_PREFIX: &[u8] = b".cairn-snapshot-";
/// The inode number of every subvolume's own folder.
/// Source: `BTRFS_FIRST_FREE_OBJECTID` of `linux/btrfs_tree.h`.
const SUBVOLUME_INODE: u64 = 256;
/// Source: `BTRFS_SUPER_MAGIC` of `linux/magic.h`.
const BTRFS_MAGIC: u64 = 0x9123_683e;
/// Files from this size on are cloned; of smaller ones their times tell well enough
/// whether they were written to between two looks.
pub(super) const CLONED_BYTES_MIN: u64 = 256 << 10;

/// Of which moment the files of a tree are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// All of one, whatever was written meanwhile: there was a snapshot. As after a power
    /// failure, what was written in its instant and not made durable may be missing: the
    /// kernel writes out before a snapshot what is in memory, and then waits for nobody.
    /// Source: `btrfs(5)`, `flushoncommit`.
    Snapshot,
    /// Each of one of its own.
    EachFile,
    /// Those that are written to meanwhile are of none.
    None,
}

impl Moment {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::EachFile => "each_file",
            Self::None => "none",
        }
    }
}

/// A snapshot, which goes when it is dropped.
#[derive(Debug)]
pub(super) struct Snapshot {
    subvolume: OwnedFd,
    name: CString,
}

impl Snapshot {
    /// Takes a snapshot for the resource `id` of the subvolume that the folder lies in, and
    /// tells where the folder is in it; nothing where there are no subvolumes.
    pub(super) fn take(folder: &Path, id: ResourceId) -> io::Result<Option<(Self, PathBuf)>> {
        let folder = canonicalize(folder)?;
        let Some(path) = subvolume_of(&folder)? else {
            return Ok(None);
        };
        let subvolume = fs::open(&path, directory_flags(), Mode::empty())?;
        let name = [SNAPSHOT_PREFIX, id.to_string().as_bytes()].concat();
        let snapshot = Self {
            name: CString::new(name).map_err(io::Error::other)?,
            subvolume,
        };
        snapshot.remove()?;
        sys::snapshot_subvolume(&snapshot.subvolume, &snapshot.name)?;
        let below = folder.strip_prefix(&path).map_err(io::Error::other)?;
        let name = std::ffi::OsStr::from_bytes(snapshot.name.as_bytes());
        let inside = path.join(name).join(below);
        Ok(Some((snapshot, inside)))
    }

    /// Removes it; one that is not there is no error.
    fn remove(&self) -> io::Result<()> {
        match sys::remove_subvolume(&self.subvolume, &self.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, snapshot = ?self.name, "A snapshot of a share could not be removed: it stays until the next backup.");
        }
    }
}

/// The folder of the btrfs subvolume that a folder lies in.
fn subvolume_of(folder: &Path) -> io::Result<Option<PathBuf>> {
    if fs::statfs(folder)?.f_type as u64 != BTRFS_MAGIC {
        return Ok(None);
    }
    for above in folder.ancestors() {
        let found = fs::statx(
            fs::CWD,
            above,
            AtFlags::SYMLINK_NOFOLLOW,
            fs::StatxFlags::INO,
        )?;
        if found.stx_ino == SUBVOLUME_INODE {
            return Ok(Some(above.to_owned()));
        }
    }
    Ok(None)
}

/// Whether files in a folder can be cloned into ones that have no name.
pub(super) fn can_clone(folder: &OwnedFd) -> bool {
    let try_it = || fs::ioctl_ficlone(nameless(folder)?, nameless(folder)?);
    try_it().is_ok()
}

fn nameless(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    fs::openat(folder, c".", flags, Mode::RUSR | Mode::WUSR)
}

/// A clone of an open file, and what was said of that when it was made; nothing if it is
/// written to all the time, or cannot be cloned.
pub(super) fn clone(
    folder: &OwnedFd,
    file: &OwnedFd,
) -> Option<(OwnedFd, cairn_types::tree::Metadata)> {
    /// How often it is tried.
    const TRIES: usize = 3;
    let look = || stat(file, c"", AtFlags::EMPTY_PATH).and_then(|found| metadata(&found));
    for _ in 0..TRIES {
        let before = look().ok()?;
        let made = nameless(folder).ok()?;
        fs::ioctl_ficlone(&made, file).ok()?;
        if look().ok()? == before {
            return Some((made, before));
        }
    }
    None
}
