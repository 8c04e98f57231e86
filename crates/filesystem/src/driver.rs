//! What the three kinds of file systems have in common: nodes with a number, names in
//! directories, and content that lies in runs.

use std::ops::ControlFlow;

use cairn_types::tree::{EntryKind, Metadata};

use crate::error::{Error, Result};
use crate::volume::Volume;

/// How long a directory may be: 40 million names of 100 bytes.
pub(crate) const DIRECTORY_BYTES_MAX: u64 = 4 << 30;

/// How long the target of a symbolic link may be; Linux allows no longer path.
pub(crate) const LINK_BYTES_MAX: u64 = 4096;

/// A file, a directory or anything else that has a name.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its number, which `node` finds it by.
    pub(crate) id: u64,
    pub(crate) metadata: Metadata,
    /// How many names it has.
    pub(crate) links: u32,
    /// How long its content is, of directories and links too.
    pub(crate) content_bytes: u64,
    /// What the disk says of it, for the driver to find its content.
    pub(crate) raw: Vec<u8>,
}

/// Where a part of a node's content lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: it reads as zeros.
    Hole,
    /// At this byte of the volume.
    Disk(u64),
    /// Here.
    Bytes(Vec<u8>),
}

/// A part of a node's content that lies in one place. It may reach behind the content's end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// How long it is, in bytes; never 0.
    pub(crate) length: u64,
    pub(crate) place: Place,
}

/// Where the last run was found: the number of a cluster in a file, and on the disk. Only FAT, whose
/// files are chains, has a use for it.
pub(crate) type Hint = Option<(u64, u64)>;

/// What is called with each name of a directory and the number of its node.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], u64) -> Result<ControlFlow<()>> + 'a;

/// How one kind of file system is read.
pub(crate) trait Driver: Send + Sync {
    /// The number of the uppermost directory.
    fn root(&self) -> u64;

    /// The node of a number.
    fn node(&self, id: u64) -> Result<Node>;

    /// Visits the names of a directory in the order that they lie in, until it is told to stop. `.`, `..` and
    /// names that none can have may be among them.
    fn names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()>;

    /// The run that begins at byte `offset` of a node's content, which lies before its end.
    fn map(&self, node: &Node, offset: u64, hint: &mut Hint) -> Result<Run>;

    /// Where a symbolic link points.
    fn link_target(&self, node: &Node) -> Result<Vec<u8>>;

    /// Whether a name that was asked for is this one.
    fn same_name(&self, asked: &[u8], name: &[u8]) -> bool {
        asked == name
    }
}

/// What the uppermost four bits of a mode say.
pub(crate) fn kind_of_mode(mode: u16) -> Option<EntryKind> {
    Some(match mode >> 12 {
        0o01 => EntryKind::Fifo,
        0o02 => EntryKind::CharacterDevice,
        0o04 => EntryKind::Directory,
        0o06 => EntryKind::BlockDevice,
        0o10 => EntryKind::File,
        0o12 => EntryKind::Symlink,
        0o14 => EntryKind::Socket,
        _ => return None,
    })
}

/// Whether a node is one of a device.
pub(crate) fn is_device(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice)
}

/// Fills `buffer` with the content of a node from `offset`, holes with zeros. The caller has
/// made sure that it ends at most where the content does.
pub(crate) fn read(
    driver: &dyn Driver,
    volume: &Volume,
    node: &Node,
    hint: &mut Hint,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let run = driver.map(node, offset + done as u64, hint)?;
        let rest = &mut buffer[done..];
        let length = run.length.min(rest.len() as u64) as usize;
        if length == 0 {
            return Err(Error::damaged(format!("node {}", node.id), "an empty run"));
        }
        let part = &mut rest[..length];
        match run.place {
            Place::Hole => part.fill(0),
            Place::Disk(at) => volume.read(at, part)?,
            Place::Bytes(bytes) => part.copy_from_slice(&bytes[..length]),
        }
        done += length;
    }
    Ok(())
}
