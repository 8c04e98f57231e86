//! A block device that was added: it is saved as a file of its content.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use cairn_types::tree::{EntryKind, FileReader, FileTime, Metadata, Xattr};
use rustix::fs::SeekFrom;

/// What is written to a device changes none of its times: it always counts as changed now.
/// The last second of the year 9999.
const ALWAYS: FileTime = FileTime {
    seconds: 253_402_300_799,
    nanoseconds: 0,
};

/// An open device.
pub(crate) struct Device {
    file: File,
    metadata: Metadata,
}

impl Device {
    /// Takes an open device, with what it is as an entry.
    pub fn new(file: File, entry: &Metadata) -> io::Result<Self> {
        let size_bytes = rustix::fs::seek(&file, SeekFrom::End(0))?;
        let metadata = Metadata {
            kind: EntryKind::File,
            size_bytes,
            changed: ALWAYS,
            linked: false,
            device: (0, 0),
            ..*entry
        };
        Ok(Self { file, metadata })
    }
}

impl FileReader for Device {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    /// A device has no holes.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.metadata.size_bytes;
        Ok((offset < size).then_some(offset..size))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_device_is_a_file_of_its_content_that_has_always_just_changed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let time = FileTime {
            seconds: 5,
            nanoseconds: 0,
        };
        let entry = Metadata {
            kind: EntryKind::BlockDevice,
            mode: 0o660,
            uid: 0,
            gid: 6,
            size_bytes: 0,
            modified: time,
            changed: time,
            inode: 9,
            linked: false,
            device: (8, 16),
        };
        let device = Device::new(file, &entry).unwrap();
        let found = device.metadata().unwrap();
        assert_eq!((found.kind, found.size_bytes), (EntryKind::File, 10_000));
        assert_eq!((found.device, found.gid), ((0, 0), 6));
        assert!(found.changed > time && found == device.metadata().unwrap());
        assert_eq!(device.data_from(4).unwrap(), Some(4..10_000));
        assert_eq!(device.data_from(10_000).unwrap(), None);
        let mut buffer = [0; 100];
        assert_eq!(device.read_at(9950, &mut buffer).unwrap(), 50);
        assert_eq!(buffer[..50], [7; 50]);
    }
}
