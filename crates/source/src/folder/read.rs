//! Reading a folder.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use cairn_types::tree::{DirectoryReader, FileReader, Metadata, Names, Xattr};
use rustix::fs::{self, AtFlags, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::device::Device;
use super::moment::{self, CLONED_BYTES_MIN, Moment, SNAPSHOT_PREFIX};
use super::{File, LISTING_BYTES, Open, join, metadata, only_a_name, read_all_at, stat, xattrs};

impl Open {
    /// Whether an entry is left out.
    fn is_excluded(&self, name: &[u8]) -> bool {
        if name.starts_with(SNAPSHOT_PREFIX) {
            return true;
        }
        let exclude = &self.shared.options.exclude;
        !exclude.is_empty() && {
            let path = join(&self.path, name);
            exclude.is_match(std::ffi::OsStr::from_bytes(&path))
        }
    }
}

impl DirectoryReader for Open {
    fn metadata(&self) -> io::Result<Metadata> {
        metadata(&stat(&self.fd, c"", AtFlags::EMPTY_PATH)?)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        xattrs(
            |names| fs::flistxattr(&self.fd, names),
            |name, value| fs::fgetxattr(&self.fd, name, value),
        )
    }

    fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        if self.foreign {
            return Ok(names);
        }
        fs::seek(&self.fd, SeekFrom::Start(0))?;
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !self.is_excluded(name) {
                names.push(name).map_err(io::Error::other)?;
            }
        }
        names.sort();
        Ok(names)
    }

    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        only_a_name(name)?;
        metadata(&stat(&self.fd, name, AtFlags::empty())?)
    }

    fn xattrs_of(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        only_a_name(name)?;
        let path = self.path_of(name);
        xattrs(
            |names| fs::llistxattr(&path[..], names),
            |name, value| fs::lgetxattr(&path[..], name, value),
        )
    }

    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(Arc::new(self.below(name)?))
    }

    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        if self.is_device(name)? {
            return Ok(Arc::new(Device::open_to_read(&self.fd, name)?));
        }
        // What was a file may be a pipe by now: opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = self.shared.open_reading(&self.fd, name, flags)?;
        let size_bytes = || stat(&fd, c"", AtFlags::EMPTY_PATH).map(|found| found.stx_size);
        if self.shared.moment == Moment::EachFile
            && size_bytes()? >= CLONED_BYTES_MIN
            && let Some((clone, then)) = moment::clone(&self.shared.root, &fd)
        {
            let (fd, cloned) = (clone, Some((fd, then)));
            return Ok(Arc::new(File { fd, cloned }));
        }
        Ok(Arc::new(File { fd, cloned: None }))
    }

    fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        only_a_name(name)?;
        let target = fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(target.into_bytes())
    }
}

impl FileReader for File {
    fn metadata(&self) -> io::Result<Metadata> {
        match &self.cloned {
            Some((_, then)) => Ok(*then),
            None => metadata(&stat(&self.fd, c"", AtFlags::EMPTY_PATH)?),
        }
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        // A clone has its file's bytes alone.
        let fd = self.cloned.as_ref().map_or(&self.fd, |(file, _)| file);
        xattrs(
            |names| fs::flistxattr(fd, names),
            |name, value| fs::fgetxattr(fd, name, value),
        )
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let start = match fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // The file system cannot tell: all of it may be data.
            Err(Errno::INVAL | Errno::NOTSUP) => {
                let size = self.metadata()?.size_bytes;
                return Ok((offset < size).then_some(offset..size));
            }
            Err(error) => return Err(error.into()),
        };
        let end = fs::seek(&self.fd, SeekFrom::Hole(start))?;
        Ok(Some(start..end))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_all_at(&self.fd, offset, buffer)
    }
}
