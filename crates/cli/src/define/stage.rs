//! The folder that the images of a new machine come into, before it is defined.
//!
//! Its name says of which machine and which backup it is, and what UUID the machine gets. What an earlier
//! command has left in it is believed, so it must be of whoever runs this one, and nobody else's to write to;
//! and one command at a time is at work in it. It is opened once, and what is in it is found by that.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cairn_types::BackupId;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::process::geteuid;
use uuid::Uuid;

use super::made;
use crate::Error;
use crate::part::is_own;

/// What the name of a folder ends in that is not whole yet.
const PART: &str = ".part";
/// The folder is for whoever runs the machine to look into, and for nobody else to write to.
const MODE: u32 = 0o755;
/// The bits of a mode by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// The folder's place.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub path: PathBuf,
    pub uuid: Uuid,
}

/// The folder, open, and this command's alone.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    folder: File,
}

impl Stage {
    /// That of an earlier command of the same words, or a new one. Nothing is made.
    pub(super) fn find(folder: &Path, name: &str, backup: BackupId) -> Result<Self, Error> {
        let start = format!(".{name}-{backup}-");
        for entry in std::fs::read_dir(folder).map_err(|source| made(folder, source))? {
            let entry = entry.map_err(|source| made(folder, source))?;
            let found = entry.file_name();
            let uuid = found.to_str().and_then(|found| found.strip_prefix(&start));
            let uuid = uuid.and_then(|rest| rest.strip_suffix(PART)?.parse().ok());
            if let Some(uuid) = uuid {
                let path = entry.path();
                return Ok(Self { path, uuid });
            }
        }
        let uuid = Uuid::new_v4();
        let path = folder.join(format!("{start}{uuid}{PART}"));
        Ok(Self { path, uuid })
    }

    /// Makes the folder, or takes what an earlier command has left.
    ///
    /// Errors: `Invalid` somebody else may write there; `Conflict` another command is at work there.
    pub(super) fn hold(&self) -> Result<Held, Error> {
        let failed = |source| made(&self.path, source);
        match DirBuilder::new().mode(MODE).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(&self.path);
        let held = Held {
            path: self.path.clone(),
            folder: opened.map_err(failed)?,
        };
        let found = held.folder.metadata().map_err(failed)?;
        if found.uid() != geteuid().as_raw() || found.mode() & OTHERS_WRITE != 0 {
            let path = self.path.display();
            let why = format!(
                "{path} is not yours alone to write to, so what is in it is not trusted: remove it, or give another --folder"
            );
            return Err(Error::Usage(why));
        }
        // One that ends meanwhile gives the folder its name.
        if held.folder.try_lock().is_err() || !held.is_in_place() {
            let path = self.path.display();
            return Err(Error::Taken(format!(
                "another command is at work on {path}"
            )));
        }
        Ok(held)
    }
}

impl Held {
    /// Where something in it is, whatever has its path by now.
    pub(super) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(name)
    }

    /// The path to show for something in it.
    pub(super) fn shown(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// How long a file in it is that this command, or an earlier one, has put there; nothing, if there is none.
    pub(super) fn size_of(&self, name: impl AsRef<Path>) -> Option<u64> {
        let found = self.at(name).symlink_metadata().ok()?;
        is_own(&found).then_some(found.len())
    }

    /// Gives it its own name.
    pub(super) fn rename(&self, home: &Path) -> io::Result<()> {
        if !self.is_in_place() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(renameat_with(
            CWD,
            &self.path,
            CWD,
            home,
            RenameFlags::NOREPLACE,
        )?)
    }

    /// Removes it, if nothing is in it.
    pub(super) fn remove_if_empty(&self) {
        // What an earlier command has left is for a later one.
        let _ = std::fs::remove_dir(&self.path);
    }

    fn is_in_place(&self) -> bool {
        let same = || -> io::Result<bool> {
            let (held, there) = (self.folder.metadata()?, self.path.symlink_metadata()?);
            Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
        };
        same().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn stage(folder: &Path) -> Stage {
        let backup = "6df2b54c-dd62-4059-a07c-1b8f24f2725d".parse().unwrap();
        Stage::find(folder, "web", backup).unwrap()
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let first = stage(folder.path());
        drop(first.hold().unwrap());
        // The next of the same words goes on there.
        assert_eq!(stage(folder.path()).uuid, first.uuid);
        for mode in [0o775, 0o757, 0o1777] {
            let open = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&first.path, open).unwrap();
            let refused = first.hold().unwrap_err().line();
            assert!(refused.contains("not yours alone"), "{mode:o}: {refused}");
        }
        std::fs::remove_dir(&first.path).unwrap();
        symlink(folder.path(), &first.path).unwrap();
        assert!(first.hold().is_err());
    }

    #[test]
    fn one_command_at_a_time_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let stage = stage(folder.path());
        let first = stage.hold().unwrap();
        let refused = stage.hold().unwrap_err().line();
        assert!(refused.contains("another command is at work"), "{refused}");
        first.rename(&folder.path().join("web")).unwrap();
        drop(first);
        // What has that name now is a new one.
        let second = stage.hold().unwrap();
        second.remove_if_empty();
        assert!(second.rename(&folder.path().join("other")).is_err());
    }

    #[test]
    fn what_is_no_file_of_its_own_is_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        let held = stage(folder.path()).hold().unwrap();
        File::create(folder.path().join("foreign")).unwrap();
        File::create(held.at("own")).unwrap();
        symlink(folder.path().join("foreign"), held.at("link")).unwrap();
        std::fs::hard_link(folder.path().join("foreign"), held.at("shared")).unwrap();
        assert_eq!(held.size_of("own"), Some(0));
        for other in ["link", "shared", "none"] {
            assert_eq!(held.size_of(other), None, "{other}");
        }
    }
}
