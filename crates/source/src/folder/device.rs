//! Block devices as files of their content: they are saved so, restored into, and read back.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use cairn_types::tree::{EntryKind, FileReader, FileWriter, Metadata, Xattr};
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{beneath, metadata, read_all_at, stat, write_all_at};

/// Where the system has its devices.
const DEVICES: &std::ffi::CStr = c"/dev";

/// An open block device, read as a file of its content.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    size_bytes: u64,
}

/// Whether an entry of a directory is a block device that the system itself has there. A node
/// elsewhere was put there by somebody, perhaps out of a backup: what it leads to is not
/// in the folder.
pub(super) fn is_of_system(directory: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    let found = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_block = FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice;
    Ok(is_block && found.st_dev == fs::stat(DEVICES)?.st_dev)
}

impl Device {
    pub(super) fn open_to_read(directory: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::new(beneath(directory, name, flags, Mode::empty())?)
    }

    /// Opens a device to be written further.
    pub(super) fn open_to_write(directory: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::new(beneath(directory, name, flags, Mode::empty())?)
    }

    /// Opens a device of this size that nobody uses, and fills it with zeros.
    ///
    /// Errors: `InvalidInput` it is of another size, mounted, or in use.
    pub(super) fn begin(directory: &OwnedFd, name: &[u8], size_bytes: u64) -> io::Result<Self> {
        let device = Self::open_to_write(directory, name)?;
        if device.size_bytes != size_bytes {
            let text = format!(
                "the device has {} bytes, and {size_bytes} were saved",
                device.size_bytes
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let flags = OFlags::WRONLY | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let claimed = match beneath(directory, name, flags, Mode::empty()) {
            Err(Errno::BUSY) => {
                let text = "the device is mounted, or in use";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            claimed => claimed?,
        };
        // What was saved of it as zeros is not written.
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if size_bytes > 0 {
            fs::fallocate(&claimed, flags, 0, size_bytes)?;
        }
        Ok(device)
    }

    /// The device that is open.
    ///
    /// Errors: what the system says.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let size_bytes = fs::seek(&fd, SeekFrom::End(0))?;
        Ok(Self { fd, size_bytes })
    }
}

impl FileReader for Device {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata {
            kind: EntryKind::File,
            size_bytes: self.size_bytes,
            device: (0, 0),
            ..metadata(&stat(&self.fd, c"", AtFlags::EMPTY_PATH)?)?
        })
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    /// A device has no holes.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size_bytes).then_some(offset..self.size_bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_all_at(&self.fd, offset, buffer)
    }
}

impl FileWriter for Device {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_all_at(&self.fd, offset, data)
    }

    /// Owner, mode and times of a device are the system's.
    fn finish(&self, _metadata: &Metadata, _xattrs: &[Xattr]) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }
}
