//! Writing into a folder.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_types::tree::{
    DirectoryReader, DirectoryWriter, EntryKind, FileTime, FileWriter, Metadata, Xattr,
};
use rustix::fs::{self, AtFlags, Dev, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::device::{self, Device};
use super::{Open, XATTR_BYTES, beneath, directory_flags, only_a_name, write_all_at};

/// Only its owner may use what is not complete.
const PRIVATE: Mode = Mode::RWXU;

/// Why a file is not created.
const IN_THE_WAY: &str = "a block device is in the way";

/// A file that is being written.
#[derive(Debug)]
struct NewFile {
    fd: OwnedFd,
    /// How far it has been written.
    end: AtomicU64,
}

impl Open {
    /// Whether an entry is a device that is read and written as a file.
    pub(super) fn is_device(&self, name: &[u8]) -> Result<bool, Errno> {
        if !self.shared.options.devices {
            return Ok(false);
        }
        only_a_name(name)?;
        match device::is_of_system(&self.fd, name) {
            Err(Errno::NOENT) => Ok(false),
            found => found,
        }
    }

    /// Creates an entry in the place of what has its name, unless that is a directory.
    fn replace<T>(&self, name: &[u8], create: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        only_a_name(name)?;
        match create() {
            Err(Errno::EXIST) => {
                fs::unlinkat(&self.fd, name, AtFlags::empty())?;
                create()
            }
            created => created,
        }
    }

    /// Whether an entry is this device, and has no other name, which may lie anywhere.
    fn is_node(&self, name: &[u8], node: (FileType, Dev)) -> bool {
        let found = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| {
            let found_node = (FileType::from_raw_mode(found.st_mode), found.st_rdev);
            let is_device = node.0.is_char_device() || node.0.is_block_device();
            is_device && found_node == node && found.st_nlink == 1
        })
    }

    /// Creates a file, unless a device would have to go for it: whoever restores what was
    /// in the device does not want it to be a file from then on.
    fn create_in_place(&self, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        match beneath(&self.fd, name, flags, mode) {
            Err(Errno::EXIST) => match self.metadata_of(name) {
                Ok(found) if found.kind == EntryKind::BlockDevice => Err(Errno::BUSY),
                _ => Err(Errno::EXIST),
            },
            created => created,
        }
    }
}

impl DirectoryWriter for Open {
    fn create_directory(&self, name: &[u8]) -> io::Result<()> {
        let create = || match fs::mkdirat(&self.fd, name, PRIVATE) {
            Err(Errno::EXIST) => match self.metadata_of(name) {
                Ok(found) if found.kind == EntryKind::Directory => Ok(()),
                _ => Err(Errno::EXIST),
            },
            made => made,
        };
        Ok(self.replace(name, create)?)
    }

    fn create_file(&self, name: &[u8], size_bytes: u64) -> io::Result<Arc<dyn FileWriter>> {
        if self.is_device(name)? {
            return Ok(Arc::new(Device::begin(&self.fd, name, size_bytes)?));
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = flags | OFlags::WRONLY;
        let mode = Mode::RUSR | Mode::WUSR;
        let created = self.replace(name, || self.create_in_place(name, flags, mode));
        let fd = created.map_err(|error| match error {
            Errno::BUSY => io::Error::new(io::ErrorKind::InvalidInput, IN_THE_WAY),
            error => error.into(),
        })?;
        let end = AtomicU64::new(0);
        Ok(Arc::new(NewFile { fd, end }))
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Arc<dyn FileWriter>> {
        if self.is_device(name)? {
            return Ok(Arc::new(Device::open_to_write(&self.fd, name)?));
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = beneath(&self.fd, name, flags, Mode::empty())?;
        let found = fs::fstat(&fd)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        // One with another name may be one that lies elsewhere, put here by somebody.
        if !is_file || found.st_nlink != 1 {
            return Err(io::Error::other("it is not the file that was made"));
        }
        // Its length is set in the end, whatever that is now.
        let end = AtomicU64::new(u64::MAX);
        Ok(Arc::new(NewFile { fd, end }))
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(self.replace(name, || fs::symlinkat(target, &self.fd, name))?)
    }

    fn create_special(&self, name: &[u8], metadata: &Metadata) -> io::Result<()> {
        let kind = match metadata.kind {
            EntryKind::Fifo => FileType::Fifo,
            EntryKind::Socket => FileType::Socket,
            EntryKind::CharacterDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            EntryKind::File | EntryKind::Directory | EntryKind::Symlink => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let device = fs::makedev(metadata.device.0, metadata.device.1);
        let mode = Mode::RUSR | Mode::WUSR;
        let create = || match fs::mknodat(&self.fd, name, kind, mode, device) {
            // It need not go for another one, which perhaps could not be made.
            Err(Errno::EXIST) if self.is_node(name, (kind, device)) => Ok(()),
            // Only root may make a device, and not every file system takes what is no file.
            Err(Errno::PERM) => Ok(()),
            made => made,
        };
        Ok(self.replace(name, create)?)
    }

    fn create_link(&self, name: &[u8], path: &[u8]) -> io::Result<()> {
        let mut names = path.split(|byte| *byte == b'/');
        let last = names.next_back().unwrap_or_default();
        only_a_name(last)?;
        let mut fd = self.shared.root.clone();
        for name in names {
            fd = Arc::new(beneath(&fd, name, directory_flags(), Mode::empty())?);
        }
        let link = || fs::linkat(&*fd, last, &self.fd, name, AtFlags::empty());
        Ok(self.replace(name, link)?)
    }

    fn set(&self, name: &[u8], metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        only_a_name(name)?;
        let path = self.path_of(name);
        let (uid, gid) = owner(metadata);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let is_owned = match fs::chownat(&self.fd, name, uid, gid, flags) {
            // It could not be made: whoever reads back will see.
            Err(Errno::NOENT) => return Ok(()),
            set => allowed(set)?,
        };
        let list = |names: &mut [u8]| fs::llistxattr(&path[..], names);
        for name in left_over(list, xattrs) {
            allowed(fs::lremovexattr(&path[..], &name[..]))?;
        }
        for xattr in xattrs {
            let flags = XattrFlags::empty();
            allowed(fs::lsetxattr(
                &path[..],
                &xattr.name[..],
                &xattr.value,
                flags,
            ))?;
        }
        if metadata.kind != EntryKind::Symlink {
            // By a descriptor of the entry itself: its name may have become a link.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = beneath(&self.fd, name, flags, Mode::empty())?;
            allowed(fs::chmod(own_path(&entry), mode(metadata, is_owned)))?;
        }
        let times = times(metadata.modified);
        allowed(fs::utimensat(&self.fd, name, &times, flags))?;
        Ok(())
    }

    fn set_own(&self, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        set(&self.fd, metadata, xattrs)
    }
}

impl FileWriter for NewFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_all_at(&self.fd, offset, data)?;
        let end = offset + data.len() as u64;
        self.end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    fn finish(&self, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        if self.end.load(Ordering::Relaxed) != metadata.size_bytes {
            fs::ftruncate(&self.fd, metadata.size_bytes)?;
        }
        set(&self.fd, metadata, xattrs)
    }
}

/// Sets what an open file or directory had. The owner first, which takes away
/// bits of the mode; the mode behind attributes that only a file that may be
/// written to takes.
fn set(fd: &OwnedFd, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
    let (uid, gid) = owner(metadata);
    let is_owned = allowed(fs::fchown(fd, uid, gid))?;
    let list = |names: &mut [u8]| fs::flistxattr(fd, names);
    for name in left_over(list, xattrs) {
        allowed(fs::fremovexattr(fd, &name[..]))?;
    }
    for xattr in xattrs {
        let flags = XattrFlags::empty();
        allowed(fs::fsetxattr(fd, &xattr.name[..], &xattr.value, flags))?;
    }
    allowed(fs::fchmod(fd, mode(metadata, is_owned)))?;
    allowed(fs::futimens(fd, &times(metadata.modified)))?;
    Ok(())
}

/// The names of attributes that an entry has and did not have when it was saved: those of
/// users, and lists of access, which a directory gives to what is made in it. The system's
/// own are left to it.
fn left_over(list: impl Fn(&mut [u8]) -> Result<usize, Errno>, saved: &[Xattr]) -> Vec<Vec<u8>> {
    // Most entries have none: a small place is enough to find that out.
    let mut names = match list(&mut [0; 256]) {
        Ok(0) | Err(Errno::NOTSUP) => return Vec::new(),
        _ => vec![0; XATTR_BYTES],
    };
    let length = list(&mut names).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0);
    let goes = |name: &&[u8]| {
        let ours = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        ours && !saved.iter().any(|xattr| xattr.name == *name)
    };
    names.filter(goes).map(<[u8]>::to_vec).collect()
}

/// What the user or the file system does not allow is left as it is; says whether it was set.
fn allowed(set: Result<(), Errno>) -> Result<bool, Errno> {
    match set {
        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL) => Ok(false),
        set => set.map(|()| true),
    }
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    // All bits set would mean that nothing is to be changed, and is nobody's number.
    let uid = (metadata.uid != u32::MAX).then(|| Uid::from_raw(metadata.uid));
    let gid = (metadata.gid != u32::MAX).then(|| Gid::from_raw(metadata.gid));
    (uid, gid)
}

/// The mode of an entry. What is not its owner's must not run as whoever restores it.
fn mode(metadata: &Metadata, is_owned: bool) -> Mode {
    let mode = Mode::from_raw_mode(metadata.mode.into());
    match is_owned || metadata.kind == EntryKind::Directory {
        true => mode,
        false => mode - (Mode::SUID | Mode::SGID),
    }
}

fn times(modified: FileTime) -> Timestamps {
    let time = Timespec {
        tv_sec: modified.seconds,
        tv_nsec: modified.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// A name by which calls that take no descriptor find what it is of.
fn own_path(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_its_owners_does_not_run_as_somebody_else() {
        let metadata = |kind| Metadata {
            kind,
            mode: 0o6755,
            uid: 1,
            gid: 1,
            size_bytes: 0,
            modified: FileTime::default(),
            changed: FileTime::default(),
            inode: 1,
            linked: false,
            device: (0, 0),
        };
        let bits = |kind, is_owned| mode(&metadata(kind), is_owned).bits();
        assert_eq!(bits(EntryKind::File, true), 0o6755);
        assert_eq!(bits(EntryKind::File, false), 0o755);
        assert_eq!(bits(EntryKind::Directory, false), 0o6755);
    }
}
