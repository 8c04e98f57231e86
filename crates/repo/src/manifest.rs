//! Manifests: one sealed object per backup that says what it is a backup of
//! and where its content starts.

use cairn_types::disk::Point;
use cairn_types::{BackupId, BackupInfo};

use crate::chunk::{BLOCK_BYTES, ChunkId, Hasher};
use crate::codec::{Malformed, Reader};
use crate::tree::{Geometry, Root};

pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"CAIRNMAN";

/// Disks of a group at most.
pub(crate) const CHILDREN_MAX: usize = 4096;
/// Bytes of a backup's facts at most.
const INFO_BYTES_MAX: usize = 1 << 20;
const CONTENT_DISK: u8 = 1;
const CONTENT_GROUP: u8 = 2;

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
        /// What the source calls the state that was read.
        point: Option<Point>,
    },
    /// The disks of a server.
    Group(Vec<Child>),
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
        }
    }

    /// The size of the disk, or of all disks.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Disk { geometry, .. } => geometry.size_bytes,
            Self::Group(children) => children
                .iter()
                .fold(0, |sum, child| sum.saturating_add(child.size_bytes)),
        }
    }

    /// The backup that a disk's was said to follow.
    pub fn parent(&self) -> Option<BackupId> {
        match self {
            Self::Disk { parent, .. } => *parent,
            Self::Group(_) => None,
        }
    }

    /// The disks of a group.
    pub fn children(&self) -> &[Child] {
        match self {
            Self::Disk { .. } => &[],
            Self::Group(children) => children,
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
                point,
            } => {
                out.push(CONTENT_DISK);
                out.extend_from_slice(&geometry.size_bytes.to_le_bytes());
                out.extend_from_slice(&geometry.block_bytes.to_le_bytes());
                out.extend_from_slice(&top.0);
                out.extend_from_slice(&data_bytes.to_le_bytes());
                out.push(u8::from(parent.is_some()));
                if let Some(parent) = parent {
                    out.extend_from_slice(parent.as_bytes());
                }
                let point = point.as_ref().map_or("", Point::as_str);
                out.push(u8::try_from(point.len()).expect("a point's name is short"));
                out.extend_from_slice(point.as_bytes());
            }
            Content::Group(children) => {
                out.push(CONTENT_GROUP);
                encode_children(children, &mut out);
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
    let parent = match reader.u8()? {
        0 => None,
        1 => Some(backup_id(reader)?),
        _ => return Err(Malformed("its parent is neither there nor not")),
    };
    let point = match usize::from(reader.u8()?) {
        0 => None,
        length => Some(point(reader.take(length)?)?),
    };
    Ok(Content::Disk {
        geometry,
        top,
        data_bytes,
        parent,
        point,
    })
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
