//! A folder of files as a tree. Every entry is reached from the folder's own
//! descriptor, one name at a time, and no symbolic link is ever followed: what
//! others do in the folder meanwhile cannot lead out of it, nor can any name in a
//! backup. What opens an entry has the kernel see to that too (`beneath`).

mod device;
mod moment;
mod read;
mod write;

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_types::ResourceId;
use cairn_types::tree::{
    DirectoryReader, DirectoryWriter, EntryKind, FileTime, Metadata, TreeReader, TreeWriter, Xattr,
    is_name,
};
use globset::GlobSet;
use moment::Snapshot;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

pub use device::Device;
pub use moment::Moment;

/// Bytes of a directory that are listed with one call.
const LISTING_BYTES: usize = 64 << 10;
/// Bytes of the names of an entry's extended attributes, and of the value of
/// one, at most. Source: `xattr(7)`.
const XATTR_BYTES: usize = 64 << 10;

/// What is left out of a folder.
#[derive(Debug, Clone, Default)]
pub struct FolderOptions {
    /// Entries whose path below the folder matches are left out, with all that is in them.
    pub exclude: GlobSet,
    /// Go into other file systems that are mounted in it; otherwise these are empty directories.
    pub cross_file_systems: bool,
    /// Block devices that the system has in it are read and written as files of their content.
    pub devices: bool,
}

/// A folder, open as a tree.
#[derive(Debug)]
pub struct Folder {
    root: Arc<Open>,
}

/// What all directories of a tree share.
#[derive(Debug)]
struct Shared {
    /// The folder itself.
    root: Arc<OwnedFd>,
    options: FolderOptions,
    file_system: u64,
    /// Whether reading may leave the times of access as they are; found out by trying.
    may_leave_atime: AtomicBool,
    moment: Moment,
    /// What is read, if it is one: it goes with the last reader.
    _snapshot: Option<Snapshot>,
}

/// An open directory.
#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    fd: Arc<OwnedFd>,
    /// Below the folder; kept only for the patterns.
    path: Vec<u8>,
    /// It is of another file system, which is not gone into.
    foreign: bool,
}

/// An open file.
#[derive(Debug)]
struct File {
    fd: OwnedFd,
    /// If that is a clone: the file itself, and what was said of it then.
    cloned: Option<(OwnedFd, Metadata)>,
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// Errors: what the system says.
    pub fn open(path: &Path, options: FolderOptions) -> io::Result<Self> {
        Self::open_with(path, options, None)
    }

    /// Opens the folder at `path` to be saved as the resource `id`: at one moment, as far as
    /// its file system allows.
    ///
    /// Errors: what the system says.
    pub fn open_at_one_moment(
        path: &Path,
        options: FolderOptions,
        id: ResourceId,
    ) -> io::Result<Self> {
        // Of other file systems in it, a snapshot holds nothing.
        if !options.cross_file_systems {
            match Snapshot::take(path, id) {
                Ok(Some((snapshot, inside))) => {
                    return Self::open_with(&inside, options, Some(snapshot));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "No snapshot can be taken: the folder is read while it changes.");
                }
            }
        }
        let mut folder = Self::open_with(path, options, None)?;
        let root = Arc::get_mut(&mut folder.root);
        let shared = root.and_then(|root| Arc::get_mut(&mut root.shared));
        let shared = shared.expect("nobody else has it yet");
        if moment::can_clone(&shared.root) {
            shared.moment = Moment::EachFile;
        }
        Ok(folder)
    }

    /// Of which moment its files are.
    pub fn moment(&self) -> Moment {
        self.root.shared.moment
    }

    fn open_with(
        path: &Path,
        options: FolderOptions,
        snapshot: Option<Snapshot>,
    ) -> io::Result<Self> {
        // The path may lead over links: whoever configured it meant them.
        let flags = directory_flags() - OFlags::NOFOLLOW;
        let fd = Arc::new(fs::open(path, flags, Mode::empty())?);
        let file_system = device(&stat(&fd, c"", AtFlags::EMPTY_PATH)?);
        let shared = Shared {
            root: fd.clone(),
            options,
            file_system,
            may_leave_atime: AtomicBool::new(true),
            moment: match snapshot {
                Some(_) => Moment::Snapshot,
                None => Moment::None,
            },
            _snapshot: snapshot,
        };
        Ok(Self {
            root: Arc::new(Open {
                shared: Arc::new(shared),
                fd,
                path: Vec::new(),
                foreign: false,
            }),
        })
    }

    /// The folder of this name in it, which is made with this mode if there is none.
    ///
    /// Errors: what the system says, of a link that it is none (`ENOTDIR`); `InvalidInput` a name that leads elsewhere.
    pub fn enter(&self, name: &[u8], mode: u32) -> io::Result<Self> {
        if !is_name(name) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match fs::mkdirat(&self.root.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let mut below = self.root.below(name)?;
        below.path = Vec::new();
        below.shared = Arc::new(Shared {
            root: below.fd.clone(),
            options: self.root.shared.options.clone(),
            file_system: self.root.shared.file_system,
            may_leave_atime: AtomicBool::new(true),
            moment: Moment::None,
            _snapshot: None,
        });
        let root = Arc::new(below);
        Ok(Self { root })
    }
}

/// Reads until the buffer is full or the end.
fn read_all_at(fd: &OwnedFd, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

fn write_all_at(fd: &OwnedFd, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(fd, &data[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl TreeReader for Folder {
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(self.root.clone())
    }
}

impl TreeWriter for Folder {
    fn directory(&self, path: &[u8]) -> io::Result<Arc<dyn DirectoryWriter>> {
        let mut open = self.root.clone();
        for name in path.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            open = Arc::new(open.below(name)?);
        }
        Ok(open)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.root.fd)?)
    }
}

impl Open {
    /// Opens a directory in it.
    fn below(&self, name: &[u8]) -> io::Result<Self> {
        let fd = self
            .shared
            .open_reading(&self.fd, name, directory_flags())?;
        let crosses = self.shared.options.cross_file_systems;
        let foreign = !crosses
            && (self.foreign
                || device(&stat(&fd, c"", AtFlags::EMPTY_PATH)?) != self.shared.file_system);
        Ok(Self {
            shared: self.shared.clone(),
            fd: Arc::new(fd),
            path: match self.shared.options.exclude.is_empty() {
                true => Vec::new(),
                false => join(&self.path, name),
            },
            foreign,
        })
    }

    /// A name by which calls that take no descriptor find an entry of it.
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        use std::os::fd::AsRawFd;
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        path
    }
}

impl Shared {
    /// Opens an entry without a change of its time of access, where that is allowed.
    fn open_reading(&self, at: &OwnedFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        if self.may_leave_atime.load(Ordering::Relaxed) {
            match beneath(at, name, flags | OFlags::NOATIME, Mode::empty()) {
                Err(Errno::PERM) => self.may_leave_atime.store(false, Ordering::Relaxed),
                opened => return Ok(opened?),
            }
        }
        Ok(beneath(at, name, flags, Mode::empty())?)
    }
}

/// Opens an entry of a directory, and never anything else.
fn beneath(at: &OwnedFd, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    only_a_name(name)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    match fs::openat2(at, name, flags | OFlags::NOFOLLOW, mode, resolve) {
        // Kernels before 5.6, and sandboxes that do not know the call: of one name, which
        // is no link, there is nothing else to be resolved.
        Err(Errno::NOSYS) => fs::openat(at, name, flags | OFlags::NOFOLLOW, mode),
        opened => opened,
    }
}

/// Refuses what is more, or less, than the name of an entry.
fn only_a_name(name: &[u8]) -> Result<(), Errno> {
    match is_name(name) {
        true => Ok(()),
        false => Err(Errno::INVAL),
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, name].join(&b'/'),
    }
}

fn stat(at: &OwnedFd, name: impl rustix::path::Arg, flags: AtFlags) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS;
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(fs::statx(at, name, flags, wanted)?)
}

/// The file system that an entry is in.
fn device(stat: &Statx) -> u64 {
    fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// What the system says of an entry.
fn metadata(stat: &Statx) -> io::Result<Metadata> {
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharacterDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Unknown => return Err(io::Error::other("it is of an unknown kind")),
    };
    let time = |time: rustix::fs::StatxTimestamp| FileTime {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    };
    let is_file = kind == EntryKind::File;
    let is_device = matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
    Ok(Metadata {
        kind,
        mode: stat.stx_mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size_bytes: if is_file { stat.stx_size } else { 0 },
        modified: time(stat.stx_mtime),
        changed: time(stat.stx_ctime),
        inode: stat.stx_ino,
        linked: is_file && stat.stx_nlink > 1,
        device: match is_device {
            true => (stat.stx_rdev_major, stat.stx_rdev_minor),
            false => (0, 0),
        },
    })
}

/// Reads the extended attributes of something, by calls that list and read them.
fn xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<Xattr>> {
    // Most entries have none: a small place is enough to find that out.
    let mut names = match list(&mut [0; 256]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(_) | Err(Errno::RANGE) => vec![0; XATTR_BYTES],
        Err(error) => return Err(error.into()),
    };
    let length = list(&mut names)?;
    names.truncate(length);
    let mut value = vec![0; XATTR_BYTES];
    let mut found = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        match get(name, &mut value) {
            Ok(length) => found.push(Xattr {
                name: name.to_bytes().to_vec(),
                value: value[..length].to_vec(),
            }),
            // It is gone since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}
