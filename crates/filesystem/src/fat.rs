//! FAT of 12, 16 and 32 bits, with long names.
//!
//! FAT has no inodes: a node's number is the byte at which its entry lies, that of the uppermost directory is 0.
//! It has no owners, no modes and no time zone either: these are made up (root, `rwxr-xr-x`), times are taken as UTC.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.

use std::ops::ControlFlow;
use std::sync::Arc;

use cairn_types::tree::{EntryKind, FileTime, Metadata};

use crate::bytes::{le16, le32};
use crate::driver::{Driver, Hint, Node, Place, Run, Visit};
use crate::error::{Error, Result};
use crate::file_system::Log;
use crate::volume::Volume;

mod geometry;
mod names;

pub(crate) use geometry::Geometry;
use geometry::{Next, Width};
use names::LongName;

/// How long an entry of a directory is.
const ENTRY_BYTES: usize = 32;
/// The number of the uppermost directory, at which no entry can lie.
const ROOT: u64 = 0;
/// Entries of a directory at most, by the format.
const ENTRIES_MAX: usize = 65536;
/// As much of a chain as is looked at for one run.
const RUN_CLUSTERS_MAX: u64 = 4096;

const READ_ONLY: u8 = 0x01;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// A file system of this kind.
pub(crate) struct Fat {
    volume: Arc<Volume>,
    geometry: Geometry,
    log: Log,
}

impl Fat {
    pub(crate) fn open(volume: Arc<Volume>) -> Result<Self> {
        let boot = volume.read_vec(0, 512)?;
        let geometry = Geometry::parse(&boot)?;
        // Linux notes there that it is mounted, or was until it lost power.
        let state = if geometry.is_32() { boot[65] } else { boot[37] };
        let log = if state & 1 == 0 {
            Log::Clean
        } else {
            Log::Dirty
        };
        Ok(Self {
            volume,
            geometry,
            log,
        })
    }

    /// There is none; whether it was in use.
    pub(crate) fn log(&self) -> Log {
        self.log
    }

    /// The cluster behind another one of a chain.
    fn next(&self, cluster: u64) -> Result<Next> {
        let (at, wide) = self.geometry.table_entry(cluster);
        let mut bytes = [0; 4];
        self.volume
            .read(at, &mut bytes[..if wide { 4 } else { 2 }])?;
        self.geometry.next(cluster, le32(&bytes, 0))
    }

    fn first_cluster(&self, node: &Node) -> u64 {
        if node.id == ROOT {
            return self.geometry.root_cluster;
        }
        // FAT12 and FAT16 have other things in the upper half.
        let high = if self.geometry.width == Width::Bits32 {
            u64::from(le16(&node.raw, 20))
        } else {
            0
        };
        high << 16 | u64::from(le16(&node.raw, 26))
    }

    /// Calls `visit` with every part of a directory: its bytes, and where they lie.
    fn parts(
        &self,
        directory: &Node,
        mut visit: impl FnMut(&[u8], u64) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let geometry = &self.geometry;
        if directory.id == ROOT && geometry.width != Width::Bits32 {
            let bytes = self
                .volume
                .read_vec(geometry.root_start, geometry.root_bytes)?;
            let _ = visit(&bytes, geometry.root_start)?;
            return Ok(());
        }
        let mut cluster = self.first_cluster(directory);
        let mut bytes = vec![0; geometry.cluster_bytes as usize];
        let parts_max = (ENTRIES_MAX * ENTRY_BYTES).div_ceil(bytes.len());
        for _ in 0..parts_max {
            let start = geometry.cluster_start(cluster)?;
            self.volume.read(start, &mut bytes)?;
            if visit(&bytes, start)?.is_break() {
                return Ok(());
            }
            match self.next(cluster)? {
                Next::Cluster(next) => cluster = next,
                Next::End => return Ok(()),
            }
        }
        Err(Error::damaged(
            format!("the directory at byte {}", directory.id),
            "it is longer than it can be",
        ))
    }

    /// The cluster of a file by its number in it, from where the last one was found.
    fn seek(&self, node: &Node, index: u64, hint: &mut Hint) -> Result<u64> {
        let (mut at, mut cluster) = match *hint {
            Some((at, cluster)) if at <= index => (at, cluster),
            _ => (0, self.first_cluster(node)),
        };
        while at < index {
            cluster = match self.next(cluster)? {
                Next::Cluster(next) => next,
                Next::End => {
                    return Err(Error::damaged(
                        format!("the file at byte {}", node.id),
                        "its chain ends before it does",
                    ));
                }
            };
            at += 1;
        }
        *hint = Some((index, cluster));
        Ok(cluster)
    }
}

impl Driver for Fat {
    fn root(&self) -> u64 {
        ROOT
    }

    fn node(&self, id: u64) -> Result<Node> {
        let mut raw = vec![0; ENTRY_BYTES];
        if id == ROOT {
            raw[11] = DIRECTORY;
        } else if !id.is_multiple_of(ENTRY_BYTES as u64) || id < self.geometry.root_start {
            return Err(Error::damaged(format!("byte {id}"), "no entry lies there"));
        } else {
            self.volume.read(id, &mut raw)?;
        }
        let attributes = raw[11];
        let is_directory = attributes & DIRECTORY != 0;
        let content_bytes = if is_directory {
            0
        } else {
            u64::from(le32(&raw, 28))
        };
        let time = names::time(le16(&raw, 24), le16(&raw, 22));
        let metadata = Metadata {
            kind: if is_directory {
                EntryKind::Directory
            } else {
                EntryKind::File
            },
            mode: if attributes & READ_ONLY == 0 {
                0o755
            } else {
                0o555
            },
            uid: 0,
            gid: 0,
            size_bytes: content_bytes,
            modified: if id == ROOT {
                FileTime::default()
            } else {
                time
            },
            changed: if id == ROOT {
                FileTime::default()
            } else {
                time
            },
            inode: id,
            linked: false,
            device: (0, 0),
        };
        Ok(Node {
            id,
            metadata,
            links: 1,
            content_bytes,
            raw,
        })
    }

    fn names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        let mut long = LongName::default();
        self.parts(directory, |bytes, start| {
            for (index, entry) in bytes.chunks_exact(ENTRY_BYTES).enumerate() {
                match entry[0] {
                    0x00 => return Ok(ControlFlow::Break(())),
                    0xe5 => {
                        long.clear();
                        continue;
                    }
                    _ => {}
                }
                if entry[11] & 0x3f == LONG_NAME {
                    long.add(entry);
                    continue;
                }
                let name = long.take(entry).unwrap_or_else(|| names::short(entry));
                if entry[11] & LABEL != 0 {
                    continue;
                }
                let id = start + (index * ENTRY_BYTES) as u64;
                if visit(name.as_bytes(), id)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn map(&self, node: &Node, offset: u64, hint: &mut Hint) -> Result<Run> {
        let size = self.geometry.cluster_bytes;
        let (index, within) = (offset / size, offset % size);
        let first = self.seek(node, index, hint)?;
        let start = self.geometry.cluster_start(first)?;
        let wanted = node.content_bytes.div_ceil(size).saturating_sub(index);
        let (mut last, mut count) = (first, 1);
        while count < wanted.min(RUN_CLUSTERS_MAX) {
            match self.next(last)? {
                Next::Cluster(next) if next == last + 1 => last = next,
                _ => break,
            }
            count += 1;
        }
        *hint = Some((index + count - 1, last));
        self.geometry.cluster_start(last)?;
        Ok(Run {
            length: count * size - within,
            place: Place::Disk(start + within),
        })
    }

    fn link_target(&self, node: &Node) -> Result<Vec<u8>> {
        Err(Error::damaged(
            format!("the file at byte {}", node.id),
            "FAT has no links",
        ))
    }

    /// Case does not count; of letters other than ASCII's it does here.
    fn same_name(&self, asked: &[u8], name: &[u8]) -> bool {
        asked.eq_ignore_ascii_case(name)
    }
}
