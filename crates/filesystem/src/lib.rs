//! Files out of the disk of a backup, read without mounting it and without any right on the host.
//!
//! [`Layout::read`] says how a disk is divided, [`FileSystem`] reads ext2, ext3, ext4, XFS and FAT by paths.
//! Everything comes from a [`DiskReader`](cairn_types::disk::DiskReader), blocks the thread, and writes nothing.
//!
//! The bytes are a guest's: it may have shaped them to do harm. So every number is checked before it is used, nothing is
//! allocated by a length from the disk without a limit, no function calls itself, and what could go round
//! in a circle (extended partitions, chains, trees, directories, links) is counted. Where the disk is damaged
//! an error says what is wrong; nothing wrong is returned as right where the format has checksums.
//!
//! `docs/FILES.md` says which features of which file systems are read. `core` is the only user.

mod bytes;
mod content;
mod driver;
mod error;
mod ext;
mod fat;
mod file;
mod file_system;
mod list;
mod partition;
mod path;
mod volume;
mod walk;
mod xfs;

pub use content::{Content, Found};
pub use error::{Error, Result};
pub use file::File;
pub use file_system::{Entry, FileSystem, Log};
pub use list::{Page, Unreadable};
pub use partition::{Layout, PARTITIONS_MAX, Partition, Scheme};
pub use path::PATH_BYTES_MAX;
pub use walk::Walk;
