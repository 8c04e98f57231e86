//! A disk as the data plane sees it: a line of bytes with a fixed size, some
//! of it data, the rest zero. The real disks live in `source`.

use std::io;

/// A run of a disk that is all data or all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where the run starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub length: u64,
    /// Whether it may hold anything but zeros; a run that is not data reads as zeros.
    pub data: bool,
}

impl Extent {
    /// The first byte behind the run.
    pub const fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// What was being done to a disk when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOperation {
    /// Opening it.
    Open,
    /// Asking where its data lies.
    Map,
    /// Reading.
    Read,
    /// Writing data or zeros.
    Write,
    /// Making what was written durable.
    Flush,
}

/// A disk could not be read or written at a place.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} {disk} at byte {offset}, {length} bytes", match operation {
    DiskOperation::Open => "open",
    DiskOperation::Map => "map",
    DiskOperation::Read => "read",
    DiskOperation::Write => "write",
    DiskOperation::Flush => "flush",
})]
pub struct DiskError {
    /// The disk's name, as its protectable has it.
    pub disk: String,
    /// What was being done.
    pub operation: DiskOperation,
    /// Where, in bytes.
    pub offset: u64,
    /// Over how many bytes.
    pub length: u64,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A disk at one point in time, open for reading from many threads at once.
pub trait DiskReader: Send + Sync {
    /// The size in bytes; any number, 0 included, of no particular multiple.
    fn size_bytes(&self) -> u64;

    /// The run that holds byte `offset`, which lies before the end: its
    /// `offset` is the one asked for, and its end at most the disk's.
    /// Neighbouring runs may be of the same sort.
    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError>;

    /// Fills `buffer` from `offset`; all of it, or an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// Called once after the last read: an error if what was read may not be
    /// one point in time (somebody wrote to the disk meanwhile).
    fn check_unchanged(&self) -> Result<(), DiskError>;
}

/// A disk open for a restore. What it held before may be read too.
pub trait DiskWriter: DiskReader {
    /// Writes all of `data` at `offset`.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError>;

    /// Makes `length` bytes from `offset` read as zeros, giving the space back where it can.
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError>;

    /// Returns when everything written is durable.
    fn flush(&self) -> Result<(), DiskError>;
}
