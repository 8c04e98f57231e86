//! Manifests: one sealed object per backup that says what it is a backup of
//! and where its content starts.

use cairn_types::disk::Point;
use cairn_types::{BackupId, BackupInfo, Timestamp};

use crate::chunk::{BLOCK_BYTES, ChunkId, Hasher};
use crate::codec::{Malformed, Reader};
use crate::filetree::{Held, Record, TreeSummary, decode_summary, encode_summary};
use crate::losses::LossMark;
use crate::tree::{Geometry, Root};

pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"CAIRNMAN";

/// Disks of a group at most.
pub(crate) const CHILDREN_MAX: usize = 4096;
/// Bytes of a backup's facts at most.
const INFO_BYTES_MAX: usize = 1 << 20;
const CONTENT_DISK: u8 = 1;
const CONTENT_GROUP: u8 = 2;
const CONTENT_TREE: u8 = 3;

/// A backup, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub info: BackupInfo,
    pub content: Content,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A disk: its tree's top.
    Disk {
        geometry: Geometry,
        top: ChunkId,
        /// Bytes in blocks that are not zero.
        data_bytes: u64,
        /// The backup that it was said to follow.
        parent: Option<BackupId>,
        /// The project's mark of losses when the backup began.
        losses: LossMark,
        /// What the source calls the state that was read.
        point: Option<Point>,
    },
    /// The disks of a server.
    Group(Vec<Child>),
    /// A tree of files.
    Tree(Tree),
}

/// A tree of files, as its manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// When the reading began, by the clock of the one who read.
    pub started_at: Timestamp,
    /// The tree's own directory.
    pub top: Record,
    pub summary: TreeSummary,
    /// The backup that it was said to follow.
    pub parent: Option<BackupId>,
}

/// One disk of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// The disk's backup.
    pub backup: BackupId,
    /// That backup's root.
    pub root: Root,
    /// The disk's size.
    pub size_bytes: u64,
}

impl Content {
    /// The name of the content.
    pub fn root(&self, hasher: &Hasher) -> Root {
        match self {
            Self::Disk { geometry, top, .. } => geometry.root(hasher, *top),
            Self::Group(children) => {
                let mut description = b"group".to_vec();
                encode_children(children, &mut description);
                Root(hasher.root(&description))
            }
            Self::Tree(tree) => {
                let mut description = b"tree".to_vec();
                description.extend_from_slice(&tree.summary.size_bytes.to_le_bytes());
                tree.top.encode(&mut description);
                Root(hasher.root(&description))
            }
        }
    }

    /// The size of the disk, of all disks, or of all files.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Disk { geometry, .. } => geometry.size_bytes,
            Self::Group(children) => children
                .iter()
                .fold(0, |sum, child| sum.saturating_add(child.size_bytes)),
            Self::Tree(tree) => tree.summary.size_bytes,
        }
    }

    /// The backup that a disk's or a tree's was said to follow.
    pub fn parent(&self) -> Option<BackupId> {
        match self {
            Self::Disk { parent, .. } => *parent,
            Self::Tree(tree) => tree.parent,
            Self::Group(_) => None,
        }
    }

    /// The disks of a group.
    pub fn children(&self) -> &[Child] {
        match self {
            Self::Disk { .. } | Self::Tree(_) => &[],
            Self::Group(children) => children,
        }
    }

    /// What a tree holds.
    pub fn summary(&self) -> Option<&TreeSummary> {
        match self {
            Self::Tree(tree) => Some(&tree.summary),
            Self::Disk { .. } | Self::Group(_) => None,
        }
    }
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let info = serde_json::to_vec(&self.info).expect("names and numbers always become JSON");
        let mut out = Vec::with_capacity(info.len() + 128);
        out.extend_from_slice(&(info.len() as u32).to_le_bytes());
        out.extend_from_slice(&info);
        match &self.content {
            Content::Disk {
                geometry,
                top,
                data_bytes,
                parent,
                losses,
                point,
            } => {
                out.push(CONTENT_DISK);
                out.extend_from_slice(&geometry.size_bytes.to_le_bytes());
                out.extend_from_slice(&geometry.block_bytes.to_le_bytes());
                out.extend_from_slice(&top.0);
                out.extend_from_slice(&data_bytes.to_le_bytes());
                encode_parent(*parent, &mut out);
                out.extend_from_slice(losses);
                let point = point.as_ref().map_or("", Point::as_str);
                out.push(u8::try_from(point.len()).expect("a point's name is short"));
                out.extend_from_slice(point.as_bytes());
            }
            Content::Group(children) => {
                out.push(CONTENT_GROUP);
                encode_children(children, &mut out);
            }
            Content::Tree(tree) => {
                out.push(CONTENT_TREE);
                out.extend_from_slice(&tree.started_at.as_micros().to_le_bytes());
                tree.top.encode(&mut out);
                encode_summary(&tree.summary, &mut out);
                encode_parent(tree.parent, &mut out);
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let length = reader.length(INFO_BYTES_MAX)?;
        let info = serde_json::from_slice(reader.take(length)?)
            .map_err(|_| Malformed("its facts are not readable"))?;
        let content = match reader.u8()? {
            CONTENT_DISK => decode_disk(&mut reader)?,
            CONTENT_GROUP => Content::Group(decode_children(&mut reader)?),
            CONTENT_TREE => Content::Tree(decode_tree(&mut reader)?),
            _ => return Err(Malformed("its content is of an unknown sort")),
        };
        reader.finish()?;
        Ok(Self { info, content })
    }
}

fn decode_disk(reader: &mut Reader<'_>) -> Result<Content, Malformed> {
    let geometry = Geometry {
        size_bytes: reader.u64()?,
        block_bytes: reader.u32()?,
    };
    if geometry.block_bytes as usize != BLOCK_BYTES {
        return Err(Malformed("its blocks have an unknown size"));
    }
    let top = ChunkId(reader.array()?);
    let data_bytes = reader.u64()?;
    let parent = decode_parent(reader)?;
    let losses = reader.array()?;
    let point = match usize::from(reader.u8()?) {
        0 => None,
        length => Some(point(reader.take(length)?)?),
    };
    Ok(Content::Disk {
        geometry,
        top,
        data_bytes,
        parent,
        losses,
        point,
    })
}

fn decode_tree(reader: &mut Reader<'_>) -> Result<Tree, Malformed> {
    let started_at = Timestamp::from_micros(reader.u64()?.cast_signed());
    let top = Record::decode(reader)?;
    if !matches!(top.held, Held::Directory(_)) {
        return Err(Malformed("its tree is no directory"));
    }
    Ok(Tree {
        started_at,
        top,
        summary: decode_summary(reader)?,
        parent: decode_parent(reader)?,
    })
}

fn encode_parent(parent: Option<BackupId>, out: &mut Vec<u8>) {
    out.push(u8::from(parent.is_some()));
    if let Some(parent) = parent {
        out.extend_from_slice(parent.as_bytes());
    }
}

fn decode_parent(reader: &mut Reader<'_>) -> Result<Option<BackupId>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(backup_id(reader)?)),
        _ => Err(Malformed("its parent is neither there nor not")),
    }
}

fn point(name: &[u8]) -> Result<Point, Malformed> {
    let name = std::str::from_utf8(name).ok().and_then(Point::new);
    name.ok_or(Malformed("the point in time that it names cannot be one"))
}

fn encode_children(children: &[Child], out: &mut Vec<u8>) {
    out.extend_from_slice(&(children.len() as u32).to_le_bytes());
    for child in children {
        out.extend_from_slice(child.backup.as_bytes());
        out.extend_from_slice(&child.root.0);
        out.extend_from_slice(&child.size_bytes.to_le_bytes());
    }
}

fn decode_children(reader: &mut Reader<'_>) -> Result<Vec<Child>, Malformed> {
    let count = reader.length(CHILDREN_MAX)?;
    (0..count)
        .map(|_| {
            Ok(Child {
                backup: backup_id(reader)?,
                root: Root(reader.array()?),
                size_bytes: reader.u64()?,
            })
        })
        .collect()
}

fn backup_id(reader: &mut Reader<'_>) -> Result<BackupId, Malformed> {
    Ok(BackupId::from_uuid(uuid::Uuid::from_bytes(reader.array()?)))
}

#[cfg(test)]
#[path = "manifest/tests.rs"]
mod tests;
