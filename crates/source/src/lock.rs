//! QEMU's image locks, so that Cairn and a running QEMU keep out of each
//! other's way.
//!
//! Who has an image open holds one-byte shared locks in it: byte `100 + n` for
//! each permission `n` that it uses, byte `200 + n` for each that it does not
//! let others use. After taking its own, it looks whether anybody else holds
//! the opposite ones.
//! Source: QEMU, `block/file-posix.c` (`RAW_LOCK_PERM_BASE`, `RAW_LOCK_SHARED_BASE`)
//! and `include/block/block-common.h` (`BLK_PERM_*`).

use std::fs::File;
use std::io;

use crate::sys;

const USED_BASE: i64 = 100;
const UNSHARED_BASE: i64 = 200;

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// What whoever opens an image wants to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read it while nobody writes.
    Read,
    /// Write it while nobody else reads or writes.
    Write,
}

impl Access {
    /// The permissions used. Readers let nobody write, so using `WRITE` also keeps them out.
    fn used(self) -> &'static [i64] {
        match self {
            Self::Read => &[CONSISTENT_READ],
            Self::Write => &[CONSISTENT_READ, WRITE],
        }
    }

    /// The permissions that nobody else may use meanwhile.
    fn unshared(self) -> &'static [i64] {
        &[WRITE, RESIZE]
    }
}

/// A file that is locked, or whose file system has no such locks.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
}

impl LockedFile {
    /// Locks an image until the value is dropped. `None` if somebody else has
    /// it open in a way that excludes us.
    pub(crate) fn lock(file: File, access: Access) -> io::Result<Option<Self>> {
        let locked = Self { file };
        match try_lock(&locked.file, access) {
            Ok(true) => Ok(Some(locked)),
            Ok(false) => Ok(None),
            Err(error) if is_unsupported(&error) => {
                tracing::warn!("the file system of an image has no locks: it is used without");
                Ok(Some(locked))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for LockedFile {
    /// Closing would free the lock only when no process has a copy of the
    /// descriptor, and a child has one between its fork and its exec.
    fn drop(&mut self) {
        let _ = sys::unlock(&self.file);
    }
}

/// Takes our bytes first and looks at the others' then, so that of two who
/// come at once at most one gets in.
fn try_lock(file: &File, access: Access) -> io::Result<bool> {
    for permission in access.used() {
        sys::lock_byte(file, USED_BASE + permission)?;
    }
    for permission in access.unshared() {
        sys::lock_byte(file, UNSHARED_BASE + permission)?;
    }
    for permission in access.used() {
        if sys::is_byte_locked(file, UNSHARED_BASE + permission)? {
            return Ok(false);
        }
    }
    for permission in access.unshared() {
        if sys::is_byte_locked(file, USED_BASE + permission)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether somebody has an image open to write to it, as a guest that runs does. It is not locked for that.
pub(crate) fn is_written(image: &File) -> io::Result<bool> {
    sys::is_byte_locked(image, USED_BASE + WRITE)
}

fn is_unsupported(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::ENOLCK, libc::EOPNOTSUPP, libc::EINVAL]
        .iter()
        .any(|known| code == Some(*known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &tempfile::NamedTempFile) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .unwrap()
    }

    fn lock(image: &tempfile::NamedTempFile, access: Access) -> Option<LockedFile> {
        LockedFile::lock(open(image), access).unwrap()
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let one = lock(&image, Access::Read).expect("it is free");
        let two = lock(&image, Access::Read).expect("readers share");
        assert!(lock(&image, Access::Write).is_none());
        drop((one, two));
        let writer = lock(&image, Access::Write).expect("it is free again");
        assert!(lock(&image, Access::Read).is_none());
        assert!(lock(&image, Access::Write).is_none());
        assert!(is_written(&open(&image)).unwrap());
        drop(writer);
        assert!(!is_written(&open(&image)).unwrap());
        assert!(lock(&image, Access::Read).is_some());
    }

    #[test]
    fn a_lock_ends_with_its_owner_though_a_copy_of_the_descriptor_lives_on() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let writer = lock(&image, Access::Write).expect("it is free");
        let copy = writer.file().try_clone().unwrap();
        drop(writer);
        assert!(lock(&image, Access::Write).is_some());
        drop(copy);
    }
}
