//! A raw image: a file or block device that holds the bytes of the disk as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use cairn_types::ResourceId;
use cairn_types::disk::{
    DiskError, DiskOperation, DiskReader, DiskWriter, Extent, NoChangeMap, Point,
};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::change_map::ChangeMap;
use crate::direct::DirectFile;
use crate::fingerprint::Fingerprint;
use crate::lock::{Access, LockedFile};
use crate::{Error, ImagesConfig, Result};

/// Zeros are written in buffers of this size where space cannot be given back.
const ZERO_BUFFER_BYTES: usize = 1 << 20;

/// A raw image that is open, and locked for as long as it is.
#[derive(Debug)]
pub(crate) struct RawDisk {
    name: String,
    /// What is read and written: the image, or a reflink of it.
    file: File,
    /// The same for large writes, where the file system has that.
    direct: Option<DirectFile>,
    /// Nothing where a reflink is read: the image may change then.
    lock: Option<LockedFile>,
    size_bytes: u64,
    access: Access,
    fingerprint: Fingerprint,
    changes: ChangeMap,
}

impl RawDisk {
    /// Opens the image `name` at `path`.
    ///
    /// Errors: `NotFound` no such file; `Conflict` somebody else has it open;
    /// `Invalid` neither a file nor a block device.
    pub(crate) fn open(name: &str, path: &Path, access: Access) -> Result<Self> {
        let locked = open_locked(name, path, access)?;
        let failed = |source| Error::Open {
            volume: name.to_owned(),
            source,
        };
        let fingerprint = Fingerprint::take(path, locked.file()).map_err(failed)?;
        let size_bytes = locked.file().seek(SeekFrom::End(0)).map_err(failed)?;
        let direct = match access {
            Access::Read => None,
            Access::Write => DirectFile::of(locked.file()),
        };
        Ok(Self {
            name: name.to_owned(),
            direct,
            file: locked.file().try_clone().map_err(failed)?,
            lock: Some(locked),
            size_bytes,
            access,
            fingerprint,
            changes: ChangeMap::none(),
        })
    }

    /// Lets the disk say what has changed on it; it may then be read from a reflink.
    ///
    /// Errors: as [`open`](Self::open).
    pub(crate) fn with_change_map(
        mut self,
        source: &ImagesConfig,
        volume: ResourceId,
        path: &Path,
    ) -> Result<Self> {
        let failed = |source| Error::Open {
            volume: self.name.clone(),
            source,
        };
        let changes = ChangeMap::of_raw(source, volume, (path, &self.file), self.size_bytes);
        if let ChangeMap::Reflink(reflink) = &changes {
            self.file = reflink.file.try_clone().map_err(failed)?;
            self.size_bytes = reflink.file.metadata().map_err(failed)?.len();
            self.lock = None;
        }
        self.changes = changes;
        Ok(self)
    }

    /// Makes a new image of zeros at `path` and opens it for writing.
    ///
    /// Errors: `Conflict` something is there already; as [`open`](Self::open).
    pub(crate) fn create(path: &Path, size_bytes: u64) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |source| Error::Open {
            volume: name.clone(),
            source,
        };
        let file = File::create_new(path).map_err(failed)?;
        let sized = file.set_len(size_bytes).map_err(failed);
        let opened = sized.and_then(|()| Self::open(&name, path, Access::Write));
        if opened.is_err() {
            // It is ours and of no use; that it could not be made is what the caller must know.
            let _ = std::fs::remove_file(path);
        }
        opened
    }

    /// Cuts an image file that is larger to this size.
    pub(crate) fn shrink_to(&mut self, size_bytes: u64) -> Result<()> {
        let file = &self.file;
        let failed = |source| Error::Open {
            volume: self.name.clone(),
            source,
        };
        let is_file = file.metadata().map_err(failed)?.is_file();
        if is_file && self.size_bytes > size_bytes {
            file.set_len(size_bytes).map_err(failed)?;
            self.size_bytes = size_bytes;
        }
        Ok(())
    }

    fn error(
        &self,
        operation: DiskOperation,
        (offset, length): (u64, u64),
        source: impl Into<io::Error>,
    ) -> DiskError {
        DiskError {
            disk: self.name.clone(),
            operation,
            offset,
            length,
            source: source.into(),
        }
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let direct = self.direct.as_ref();
        let done = direct.map_or(Ok(0..0), |direct| direct.write_at(data, offset))?;
        self.file.write_all_at(&data[..done.start], offset)?;
        let rest = offset + done.end as u64;
        self.file.write_all_at(&data[done.end..], rest)
    }

    /// Writes zeros where there is data; what is a hole already stays one.
    fn overwrite_with_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = vec![0; ZERO_BUFFER_BYTES];
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let extent = extent_of(&self.file, self.size_bytes, at)?;
            let stop = extent.end().min(end);
            while extent.data && at < stop {
                let step = (stop - at).min(ZERO_BUFFER_BYTES as u64);
                let step_bytes = usize::try_from(step).expect("no more than the buffer");
                self.file.write_all_at(&zeros[..step_bytes], at)?;
                at += step;
            }
            at = stop;
        }
        Ok(())
    }
}

/// Opens what an image may lie in for reading. Anything else is refused at once:
/// to open a pipe would wait for its other end, for ever.
pub(crate) fn open_data(path: &Path) -> io::Result<File> {
    open_options().read(true).open(path).and_then(|file| {
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_block_device() {
            Ok(file)
        } else {
            let why = "it is neither a file nor a block device";
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
    })
}

/// Options that never wait.
fn open_options() -> OpenOptions {
    let mut options = File::options();
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    options
}

/// Opens and locks the file of an image; also for the formats that others read for us.
pub(crate) fn open_locked(name: &str, path: &Path, access: Access) -> Result<LockedFile> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing {
            volume: name.to_owned(),
        },
        _ => Error::Open {
            volume: name.to_owned(),
            source,
        },
    };
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let why = "it is neither a file nor a block device".to_owned();
        return Err(Error::Unusable {
            volume: name.to_owned(),
            why,
        });
    }
    let file = open_options()
        .read(true)
        .write(access == Access::Write)
        .open(path)
        .map_err(failed)?;
    let locked = LockedFile::lock(file, access).map_err(failed)?;
    locked.ok_or_else(|| Error::InUse {
        volume: name.to_owned(),
    })
}

/// The run at `offset`, as the file system knows it; all data where it knows nothing.
fn extent_of(file: &File, size_bytes: u64, offset: u64) -> io::Result<Extent> {
    let run = |end: u64, data| Extent {
        offset,
        length: end.min(size_bytes) - offset,
        data,
    };
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) if data > offset => Ok(run(data, false)),
        Ok(_) => match rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => Ok(run(hole, true)),
            Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(run(size_bytes, true)),
            // The file shrank between the two calls; the reads and the last check tell.
            Err(Errno::NXIO) => Ok(run(size_bytes, true)),
            Err(errno) => Err(errno.into()),
        },
        Err(Errno::NXIO) => Ok(run(size_bytes, false)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(run(size_bytes, true)),
        Err(errno) => Err(errno.into()),
    }
}

impl DiskReader for RawDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> std::result::Result<Extent, DiskError> {
        extent_of(&self.file, self.size_bytes, offset)
            .map_err(|source| self.error(DiskOperation::Map, (offset, 0), source))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(|source| {
            self.error(DiskOperation::Read, (offset, buffer.len() as u64), source)
        })
    }

    fn check_unchanged(&self) -> std::result::Result<(), DiskError> {
        let checked = match self.access {
            // Nobody writes to a reflink.
            Access::Read if self.lock.is_none() => Ok(()),
            Access::Read => self.fingerprint.check(),
            Access::Write => self.fingerprint.check_same_file(),
        };
        checked.map_err(|source| self.error(DiskOperation::Read, (0, self.size_bytes), source))
    }

    fn point(&self) -> Option<Point> {
        self.changes.point()
    }

    fn changes_since(&self, earlier: &Point) -> std::result::Result<Vec<Range<u64>>, NoChangeMap> {
        let extent_at = |at| extent_of(&self.file, self.size_bytes, at);
        self.changes.changes_since(earlier, extent_at)
    }

    fn keep_point(&self) {
        self.changes.keep_point();
    }
}

impl DiskWriter for RawDisk {
    fn write_at(&self, offset: u64, data: &[u8]) -> std::result::Result<(), DiskError> {
        let place = (offset, data.len() as u64);
        if !fits(self.size_bytes, place) {
            return Err(self.error(DiskOperation::Write, place, Errno::INVAL));
        }
        self.write_all_at(data, offset)
            .map_err(|source| self.error(DiskOperation::Write, place, source))
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> std::result::Result<(), DiskError> {
        let place = (offset, length);
        if !fits(self.size_bytes, place) {
            return Err(self.error(DiskOperation::Write, place, Errno::INVAL));
        }
        if length == 0 {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, punch, offset, length) {
            Ok(()) => Ok(()),
            // A file system without holes, or a device that only clears whole sectors.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => self
                .overwrite_with_zeros(offset, length)
                .map_err(|source| self.error(DiskOperation::Write, place, source)),
            Err(errno) => Err(self.error(DiskOperation::Write, place, errno)),
        }
    }

    fn flush(&self) -> std::result::Result<(), DiskError> {
        self.file
            .sync_data()
            .map_err(|source| self.error(DiskOperation::Flush, (0, self.size_bytes), source))
    }
}

/// Whether a place lies wholly on a disk: a restore must never make one longer.
pub(crate) fn fits(size_bytes: u64, (offset, length): (u64, u64)) -> bool {
    offset
        .checked_add(length)
        .is_some_and(|end| end <= size_bytes)
}
