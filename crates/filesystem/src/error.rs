//! Why nothing could be read out of a disk, or not what was asked.

use std::io;

use cairn_types::Kind;
use cairn_types::disk::DiskError;

use crate::content::Content;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why nothing could be read out of a disk, or not what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk itself cannot be read.
    #[error("the disk cannot be read")]
    Disk(#[from] DiskError),
    /// What the disk holds is not what its format says.
    #[error("the file system is damaged: {place}: {why}")]
    Damaged {
        /// Where: an inode, a block, a table.
        place: String,
        /// What is wrong there.
        why: &'static str,
    },
    /// It is in order, and made in a way that this crate does not read.
    #[error("this cannot be read: {what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// There is no file system here that this crate reads.
    #[error("no file system that can be read: {content}")]
    NoFileSystem {
        /// What is there.
        content: Content,
    },
    /// A path does not begin with a partition, on a disk that has some.
    #[error("the disk has partitions: a path begins with one, such as /p1")]
    NoPartitionNamed,
    /// The disk has no partition of this number.
    #[error("the disk has no partition {number}")]
    NoPartition {
        /// The number.
        number: u32,
    },
    /// The range does not lie on the disk.
    #[error("bytes {start} to {end} do not lie on the disk")]
    BadRange {
        /// The first byte.
        start: u64,
        /// The byte behind the last.
        end: u64,
    },
    /// A path cannot be one.
    #[error("{path:?} is no path: {why}")]
    BadPath {
        /// The path.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// Nothing has this path.
    #[error("there is no {path:?}")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Something else was expected at this path.
    #[error("{path:?} is not {expected}")]
    OtherKind {
        /// The path.
        path: String,
        /// What it is not, with an article.
        expected: &'static str,
    },
    /// A path leads over more symbolic links than are followed.
    #[error("{path:?} leads over more than {limit} symbolic links")]
    TooManyLinks {
        /// The path.
        path: String,
        /// How many are followed.
        limit: usize,
    },
    /// Something is larger than this crate reads.
    #[error("{what} is larger than {limit}, which is as much as is read")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it may be.
        limit: u64,
    },
    /// Others hold what there is of memory for logs.
    #[error("the logs of other file systems that are open take the memory there is for them")]
    Busy,
}

impl Error {
    /// What a caller should do about it; the only thing callers branch on.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Disk(error) => disk_kind(error),
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Unsupported { .. }
            | Self::NoFileSystem { .. }
            | Self::NoPartitionNamed
            | Self::BadRange { .. }
            | Self::BadPath { .. }
            | Self::OtherKind { .. }
            | Self::TooManyLinks { .. } => Kind::Invalid,
            Self::NoPartition { .. } | Self::NotFound { .. } => Kind::NotFound,
            Self::TooLarge { .. } => Kind::Exhausted,
            Self::Busy => Kind::Transient,
        }
    }

    pub(crate) fn damaged(place: impl Into<String>, why: &'static str) -> Self {
        Self::Damaged {
            place: place.into(),
            why,
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}

/// What a caller should do about a disk that cannot be read.
fn disk_kind(error: &DiskError) -> Kind {
    match error.source.kind() {
        io::ErrorKind::InvalidData => Kind::Corrupt,
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Transient,
    }
}
