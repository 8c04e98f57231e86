//! What of a backup is lost: which ranges of a disk, which disks of a server,
//! which files. Found by a verification, kept in the catalogue, shown on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::BackupId;

/// The most ranges, disks and paths that are named, of each; the rest is counted.
pub const LOST_PARTS_MAX: usize = 64;

/// A run of a disk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ByteRange {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// What of a backup is lost. Of a long list the first parts are named, and the rest is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// Nothing of the backup can be had: what says where its content starts is not whole.
    pub everything: bool,
    /// Bytes of the disk that cannot be restored, those of ranges left out included.
    pub bytes: u64,
    /// Which, in the disk's order; neighbours are one range.
    pub ranges: Vec<ByteRange>,
    /// How many further ranges there are.
    pub ranges_left_out: u64,
    /// For a server: the backups of its disks that are hurt.
    pub disks: Vec<BackupId>,
    /// How many further disks there are.
    pub disks_left_out: u64,
    /// For a tree of files: those that cannot be restored, and folders of which nothing is known.
    pub paths: Vec<String>,
    /// How many further paths there are.
    pub paths_left_out: u64,
}

impl Lost {
    /// All of a backup.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Adds a disk's hurt backup.
    pub fn add_disk(&mut self, disk: BackupId) {
        match self.disks.len() < LOST_PARTS_MAX {
            true => self.disks.push(disk),
            false => self.disks_left_out += 1,
        }
    }

    /// Adds a file or a folder.
    pub fn add_path(&mut self, path: String) {
        match self.paths.len() < LOST_PARTS_MAX {
            true => self.paths.push(path),
            false => self.paths_left_out += 1,
        }
    }
}
