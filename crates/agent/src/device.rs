//! A block device that was added: it is saved as a file of its content.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use cairn_types::tree::{EntryKind, FileReader, FileTime, Metadata, Xattr};

/// What is written to a device changes none of its times: it always counts as changed now.
/// The last second of the year 9999.
const ALWAYS: FileTime = FileTime {
    seconds: 253_402_300_799,
    nanoseconds: 0,
};

/// An open device, as the entry that was added.
pub(crate) struct Device {
    content: cairn_source::Device,
    metadata: Metadata,
}

impl Device {
    /// Takes an open device, with what it is as an entry.
    pub fn new(device: OwnedFd, entry: &Metadata) -> io::Result<Self> {
        let content = cairn_source::Device::new(device)?;
        let metadata = Metadata {
            kind: EntryKind::File,
            size_bytes: content.metadata()?.size_bytes,
            changed: ALWAYS,
            linked: false,
            device: (0, 0),
            ..*entry
        };
        Ok(Self { content, metadata })
    }
}

impl FileReader for Device {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        self.content.xattrs()
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.content.data_from(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read_at(offset, buffer)
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
        let device = Device::new(file.into(), &entry).unwrap();
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
