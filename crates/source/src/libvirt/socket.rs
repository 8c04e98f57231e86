//! The socket at which a domain's QEMU serves its disks: QEMU makes it, by a path.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Others may enter the outer folder, and not see what is there.
const OUTER_MODE: u32 = 0o711;
/// QEMU may run as any user: all who know the inner one may make something there, and nobody may
/// remove another's.
const INNER_MODE: u32 = 0o1733;
/// Source: `unix(7)`, `sun_path` and the byte at its end.
const MAX_PATH_BYTES: usize = 107;

/// A folder for the socket. It can go once all connections are made.
#[derive(Debug)]
pub(super) struct SocketFolder {
    inner: TempDir,
    _outer: TempDir,
}

impl SocketFolder {
    /// In `folder`, which QEMU sees where Cairn does, under a name that begins like this; or, where Cairn
    /// may not write or the path is too long, where temporary files are.
    pub(super) fn create(folder: Option<&Path>, prefix: &str) -> io::Result<Self> {
        if let Some(folder) = folder
            && let Ok(made) = Self::create_in(folder, prefix)
            && made.socket().as_os_str().len() <= MAX_PATH_BYTES
        {
            return Ok(made);
        }
        Self::create_in(&std::env::temp_dir(), "cairn-nbd-")
    }

    fn create_in(folder: &Path, prefix: &str) -> io::Result<Self> {
        let outer = tempfile::Builder::new().prefix(prefix).tempdir_in(folder)?;
        let inner = tempfile::Builder::new()
            .prefix("")
            .tempdir_in(outer.path())?;
        fs::set_permissions(inner.path(), Permissions::from_mode(INNER_MODE))?;
        fs::set_permissions(outer.path(), Permissions::from_mode(OUTER_MODE))?;
        Ok(Self {
            inner,
            _outer: outer,
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.inner.path().join("s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_where_qemu_sees_it_if_that_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let made = SocketFolder::create(Some(folder.path()), ".x-").unwrap();
        assert!(made.socket().starts_with(folder.path()));
        drop(made);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let deep = folder.path().join("long".repeat(25));
        fs::create_dir(&deep).unwrap();
        for elsewhere in [&deep, &folder.path().join("gone")] {
            let made = SocketFolder::create(Some(elsewhere), ".x-").unwrap();
            assert!(made.socket().starts_with(std::env::temp_dir()));
            assert!(!made.socket().starts_with(folder.path()));
        }
        assert_eq!(fs::read_dir(deep).unwrap().count(), 0);
    }
}
