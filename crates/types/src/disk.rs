//! A disk as the data plane sees it: a line of bytes with a fixed size, some
//! of it data, the rest zero. The real disks live in `source`.

use std::fmt;
use std::io;
use std::ops::Range;

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

/// Why a disk, or what it is read through, failed: the content of an [`io::Error`] whose words name
/// nothing of the host, so that whoever owns the disk may read them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Because(pub String);

impl Because {
    /// Such words as an error of this kind.
    pub fn error(kind: io::ErrorKind, why: impl Into<String>) -> io::Error {
        io::Error::new(kind, Self(why.into()))
    }

    /// The words of an error that has such.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// The name that a source gives to one state of a disk, so that it can say
/// later what has changed since then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point(String);

impl Point {
    /// Bytes of a name at most.
    pub const BYTES_MAX: usize = 128;

    /// A name of 1 to [`BYTES_MAX`](Self::BYTES_MAX) visible ASCII characters, or nothing.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&name.len());
        (fits && name.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a source cannot say what has changed on a disk, in half a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoChangeMap(pub String);

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
    /// one point in time (somebody wrote to the disk meanwhile); of a disk that is
    /// written, after the last write: an error if it is not where it was any more.
    fn check_unchanged(&self) -> Result<(), DiskError>;

    /// The name of the state that is read, if the source may be able to say
    /// later what has changed since.
    fn point(&self) -> Option<Point> {
        None
    }

    /// The byte ranges where this state may differ from an earlier one; every
    /// byte outside of them that both have is the same. They may reach behind
    /// the disk's end.
    fn changes_since(&self, _earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        Err(NoChangeMap("its source keeps no change map".to_owned()))
    }

    /// Called once a backup of this state is acknowledged: from now on changes
    /// are asked for since this state only. Where it is not called the source
    /// drops this state, with the reader, and keeps the one before.
    fn keep_point(&self) {}

    /// The same disk as one at the other end of a slow line, if it is there.
    fn distant(&self) -> Option<&dyn DistantDisk> {
        None
    }
}

/// The id of a block of plain bytes, under a key that both ends of the line have.
pub type BlockId = [u8; 32];

/// Ids that a [`DistantDisk`] is asked for at a time.
pub const IDS_MAX: usize = 1024;
/// Blocks that a [`DistantDisk`] is asked for at a time.
pub const BLOCKS_MAX: usize = 64;

/// A disk at the other end of a slow line, which tells the ids of its blocks, so
/// that only those have to come over that are not stored already.
pub trait DistantDisk: Send + Sync {
    /// The ids of these blocks, in their order; that of a block of zeros is zero.
    /// At most [`IDS_MAX`].
    fn block_ids(&self, blocks: &[u64]) -> Result<Vec<BlockId>, DiskError>;

    /// The plain bytes of these blocks, in their order, each as long as it is.
    /// At most [`BLOCKS_MAX`].
    fn read_blocks(&self, blocks: &[u64]) -> Result<Vec<Vec<u8>>, DiskError>;
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
