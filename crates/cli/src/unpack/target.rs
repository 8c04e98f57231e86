//! A directory that is written into, and never out of.
//!
//! Every directory is opened by `openat2` from the target's own descriptor, beneath it and over no
//! link; in it entries are created by one name each, where nothing is yet.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use cairn_archive::is_entry_name;
use cairn_types::tree::{EntryKind, Metadata, Xattr};
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use serde::Serialize;

/// Only its owner may use what is not complete.
const PRIVATE: Mode = Mode::RWXU;
/// The bits of a mode that give somebody the owner's or the group's rights.
const SET_ID: u16 = 0o6000;
/// Bytes of a path that the system takes at a time. Source: `PATH_MAX` of Linux.
const PATH_BYTES: usize = 4000;

/// What the user, or the file system, did not allow.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    /// Entries whose owner could not be set.
    pub owners: u64,
    /// Extended attributes, access control lists among them, that could not be set.
    pub xattrs: u64,
    /// Devices that could not be made.
    pub devices: u64,
}

/// The target.
pub(super) struct Target {
    root: OwnedFd,
    /// The directory that was needed last, by its path.
    here: Option<(Vec<u8>, OwnedFd)>,
    refused: Refused,
}

impl Target {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            here: None,
            refused: Refused::default(),
        }
    }

    pub(super) fn create_directory(&mut self, path: &[u8]) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        Ok(fs::mkdirat(folder, name, PRIVATE)?)
    }

    pub(super) fn create_file(&mut self, path: &[u8]) -> io::Result<File> {
        let (folder, name) = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = fs::openat2(folder, name, flags | OFlags::CLOEXEC, mode, beneath())?;
        Ok(file.into())
    }

    pub(super) fn create_symlink(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        Ok(fs::symlinkat(target, folder, name)?)
    }

    /// Makes another name of a file that is in the target.
    pub(super) fn create_link(&mut self, path: &[u8], first: &[u8]) -> io::Result<()> {
        let (above, first) = split(first)?;
        let from = open(&self.root, above)?;
        let (folder, name) = self.place(path)?;
        Ok(fs::linkat(from, first, folder, name, AtFlags::empty())?)
    }

    /// Makes a pipe or a device; `false` if the user may not.
    pub(super) fn create_special(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<bool> {
        let kind = match metadata.kind {
            EntryKind::Fifo => FileType::Fifo,
            EntryKind::CharacterDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let device = fs::makedev(metadata.device.0, metadata.device.1);
        let (folder, name) = self.place(path)?;
        match fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device) {
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.refused.devices += 1;
                Ok(false)
            }
            made => Ok(made.map(|()| true)?),
        }
    }

    /// Gives a file its length, and then what it was.
    pub(super) fn finish_file(
        &mut self,
        file: &File,
        metadata: &Metadata,
        xattrs: &[Xattr],
    ) -> io::Result<()> {
        file.set_len(metadata.size_bytes)?;
        self.set_open(file, metadata, xattrs)
    }

    /// Gives a directory what it was.
    pub(super) fn set_directory(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        xattrs: &[Xattr],
    ) -> io::Result<()> {
        let folder = File::from(open(&self.root, path)?);
        self.set_open(&folder, metadata, xattrs)
    }

    /// Gives what is neither a file nor a directory what it was.
    pub(super) fn set(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        xattrs: &[Xattr],
    ) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        let (uid, gid) = owner(metadata);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let owned = allowed(fs::chownat(folder, name, uid, gid, flags))?;
        // There is no call for these by a descriptor that is open for nothing.
        let mut own_path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        own_path.extend_from_slice(name);
        let mut refused = 0;
        for xattr in xattrs {
            let set = fs::lsetxattr(
                &own_path[..],
                &xattr.name[..],
                &xattr.value,
                XattrFlags::empty(),
            );
            refused += u64::from(!allowed(set)?);
        }
        if metadata.kind != EntryKind::Symlink {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = fs::openat2(folder, name, flags, Mode::empty(), beneath())?;
            let entry = format!("/proc/self/fd/{}", entry.as_raw_fd());
            fs::chmod(entry, mode(metadata, owned))?;
        }
        fs::utimensat(folder, name, &times(metadata), flags)?;
        self.refused.xattrs += refused;
        self.refused.owners += u64::from(!owned);
        Ok(())
    }

    /// Makes all durable, and says what was not allowed.
    pub(super) fn finish(self) -> io::Result<Refused> {
        fs::syncfs(&self.root)?;
        Ok(self.refused)
    }

    /// The owner first, which takes away bits of the mode; the mode behind the attributes, which a
    /// file that may not be written to does not take.
    fn set_open(&mut self, file: &File, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        let (uid, gid) = owner(metadata);
        let owned = allowed(fs::fchown(file, uid, gid))?;
        for xattr in xattrs {
            let set = fs::fsetxattr(file, &xattr.name[..], &xattr.value, XattrFlags::empty());
            self.refused.xattrs += u64::from(!allowed(set)?);
        }
        fs::fchmod(file, mode(metadata, owned))?;
        fs::futimens(file, &times(metadata))?;
        self.refused.owners += u64::from(!owned);
        Ok(())
    }

    /// The directory that something is in, open, and its name there.
    fn place<'p>(&mut self, path: &'p [u8]) -> io::Result<(&OwnedFd, &'p [u8])> {
        let (above, name) = split(path)?;
        if self.here.as_ref().is_none_or(|(path, _)| path != above) {
            self.here = Some((above.to_vec(), open(&self.root, above)?));
        }
        match &self.here {
            Some((_, folder)) => Ok((folder, name)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// The path of the directory that something is in, and its name.
///
/// Errors: a name in it is none, or would lead elsewhere.
fn split(path: &[u8]) -> io::Result<(&[u8], &[u8])> {
    if !path.split(|byte| *byte == b'/').all(is_entry_name) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    })
}

const fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        .union(ResolveFlags::NO_SYMLINKS)
        .union(ResolveFlags::NO_MAGICLINKS)
}

/// Opens a directory beneath another; that itself, by an empty path.
fn open(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let step = |from: &OwnedFd, path: &[u8]| -> io::Result<OwnedFd> {
        Ok(fs::openat2(from, path, flags, Mode::empty(), beneath())?)
    };
    if path.is_empty() {
        return step(root, b".");
    }
    let mut rest = path;
    let mut folder: Option<OwnedFd> = None;
    while rest.len() > PATH_BYTES {
        let slash = rest[..PATH_BYTES].iter().rposition(|byte| *byte == b'/');
        let slash = slash.ok_or(io::ErrorKind::InvalidFilename)?;
        folder = Some(step(folder.as_ref().unwrap_or(root), &rest[..slash])?);
        rest = &rest[slash + 1..];
    }
    step(folder.as_ref().unwrap_or(root), rest)
}

/// Whether it was done; `false` if the user or the file system does not allow it.
fn allowed(set: Result<(), Errno>) -> io::Result<bool> {
    match set {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    // All bits set would mean that nothing is to be changed, and is nobody's number.
    let uid = (metadata.uid != u32::MAX).then(|| Uid::from_raw(metadata.uid));
    let gid = (metadata.gid != u32::MAX).then(|| Gid::from_raw(metadata.gid));
    (uid, gid)
}

/// The mode. Nobody's rights are given away by a file that is not theirs.
fn mode(metadata: &Metadata, owned: bool) -> Mode {
    let bits = match owned {
        true => metadata.mode,
        false => metadata.mode & !SET_ID,
    };
    Mode::from_raw_mode(bits.into())
}

fn times(metadata: &Metadata) -> Timestamps {
    let time = Timespec {
        tv_sec: metadata.modified.seconds,
        tv_nsec: metadata.modified.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
