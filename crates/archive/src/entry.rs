//! What is in an archive.

use std::ops::Range;

use cairn_types::tree::{Metadata, Xattr};

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Names joined by `/`, from the archive's uppermost directory on; empty for that directory itself.
    pub path: Vec<u8>,
    /// What it is. Not told: inode, time of change, whether it has other names.
    pub metadata: Metadata,
    /// Sorted by their names.
    pub xattrs: Vec<Xattr>,
    /// What it holds.
    pub content: Content,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file's bytes that may be anything but zeros, in order: the archive has these one behind
    /// the other. None is empty and none touches the next.
    Data(Vec<Range<u64>>),
    /// Where a symbolic link points.
    Target(Vec<u8>),
    /// It is another name of the file at this path, which is in the archive before it.
    Link(Vec<u8>),
    /// Nothing: a directory, a pipe or a device.
    Nothing,
}

impl Content {
    /// Bytes of data.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Self::Data(ranges) => ranges.iter().map(|range| range.end - range.start).sum(),
            _ => 0,
        }
    }
}

/// Whether an entry of a directory may have this name, however long it is.
pub fn is_entry_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}
