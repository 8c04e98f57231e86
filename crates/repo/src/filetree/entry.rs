//! The entries of a directory, byte by byte. Decoding is strict: what is not
//! exactly as `encode` makes it is refused, above all names that would lead out
//! of the directory.

use cairn_types::tree::{EntryKind, FileTime, Metadata, Xattr, is_name};

use crate::chunk::ChunkId;
use crate::codec::{Malformed, Reader};
use crate::filetree::PIECE_BYTES_MAX;

/// Pieces of a file that its entry holds itself, at most; more are in a list.
pub(crate) const INLINE_PIECES: usize = 16;
/// Bytes of an entry's extended attributes at most.
pub(crate) const XATTR_BYTES_MAX: usize = 128 << 10;
/// Bytes of a symbolic link's target at most. Source: `PATH_MAX` of Linux.
pub(crate) const TARGET_BYTES_MAX: usize = 4096;
/// Levels of a list's nodes above its leaves, at most: far more than any list needs.
pub(crate) const LEVEL_MAX: u8 = 8;

const LINKED: u8 = 1 << 7;
/// How a file's pieces are given: this in place of their number says that they are in a list.
const IN_A_LIST: u8 = u8::MAX;
/// Bytes of a piece, encoded.
const PIECE_BYTES: usize = 40;

/// The top node of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeRef {
    /// Levels of nodes below it.
    pub level: u8,
    pub id: ChunkId,
}

/// A run of a file: a chunk, or zeros that are stored nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub id: ChunkId,
    pub bytes: u64,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// A file's pieces, in order.
    Pieces(Vec<Piece>),
    /// A file's pieces, in a list.
    PieceList(NodeRef),
    /// The entries of a directory.
    Directory(NodeRef),
    /// Where a symbolic link points.
    Target(Vec<u8>),
    /// Nothing: a pipe, a socket or a device.
    Nothing,
}

/// An entry without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub metadata: Metadata,
    /// Sorted by their names.
    pub xattrs: Vec<Xattr>,
    pub held: Held,
}

/// Appends a name.
pub(crate) fn encode_name(name: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
    out.extend_from_slice(name);
}

pub(crate) fn decode_name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.u8()?;
    let name = reader.take(usize::from(length))?;
    if is_name(name) {
        Ok(name)
    } else {
        Err(Malformed("an entry has a name that none can have"))
    }
}

impl NodeRef {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.level);
        out.extend_from_slice(&self.id.0);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (level, id) = (reader.u8()?, ChunkId(reader.array()?));
        if level > LEVEL_MAX || id.is_zero() {
            return Err(Malformed("a list has an impossible top"));
        }
        Ok(Self { level, id })
    }
}

impl Piece {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (id, bytes) = (ChunkId(reader.array()?), reader.u64()?);
        if bytes == 0 || (!id.is_zero() && bytes > PIECE_BYTES_MAX as u64) {
            return Err(Malformed("a piece has an impossible length"));
        }
        Ok(Self { id, bytes })
    }
}

impl Record {
    /// Appends the record. Limits must have been kept.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let metadata = &self.metadata;
        out.push(kind_byte(metadata.kind) | if metadata.linked { LINKED } else { 0 });
        out.extend_from_slice(&metadata.mode.to_le_bytes());
        out.extend_from_slice(&metadata.uid.to_le_bytes());
        out.extend_from_slice(&metadata.gid.to_le_bytes());
        encode_time(metadata.modified, out);
        encode_time(metadata.changed, out);
        out.extend_from_slice(&metadata.inode.to_le_bytes());
        encode_xattrs(&self.xattrs, out);
        match &self.held {
            Held::Pieces(pieces) => {
                debug_assert!(pieces.len() <= INLINE_PIECES, "the writer makes a list");
                out.extend_from_slice(&metadata.size_bytes.to_le_bytes());
                out.push(pieces.len() as u8);
                for piece in pieces {
                    piece.encode(out);
                }
            }
            Held::PieceList(list) => {
                out.extend_from_slice(&metadata.size_bytes.to_le_bytes());
                out.push(IN_A_LIST);
                list.encode(out);
            }
            Held::Directory(list) => list.encode(out),
            Held::Target(target) => {
                out.extend_from_slice(&(target.len() as u16).to_le_bytes());
                out.extend_from_slice(target);
            }
            Held::Nothing => {
                if is_device(metadata.kind) {
                    out.extend_from_slice(&metadata.device.0.to_le_bytes());
                    out.extend_from_slice(&metadata.device.1.to_le_bytes());
                }
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut metadata = decode_metadata(reader)?;
        let xattrs = decode_xattrs(reader)?;
        let held = match metadata.kind {
            EntryKind::File => {
                metadata.size_bytes = reader.u64()?;
                decode_pieces(reader, metadata.size_bytes)?
            }
            EntryKind::Directory => Held::Directory(NodeRef::decode(reader)?),
            EntryKind::Symlink => {
                let length = usize::from(reader.u16()?);
                let target = reader.take(length)?;
                if target.is_empty() || length > TARGET_BYTES_MAX || target.contains(&0) {
                    return Err(Malformed("a link points nowhere"));
                }
                Held::Target(target.to_vec())
            }
            EntryKind::CharacterDevice | EntryKind::BlockDevice => {
                metadata.device = (reader.u32()?, reader.u32()?);
                Held::Nothing
            }
            EntryKind::Fifo | EntryKind::Socket => Held::Nothing,
        };
        Ok(Self {
            metadata,
            xattrs,
            held,
        })
    }
}

fn decode_metadata(reader: &mut Reader<'_>) -> Result<Metadata, Malformed> {
    let byte = reader.u8()?;
    let kind = KINDS
        .get(usize::from(byte & !LINKED))
        .copied()
        .ok_or(Malformed("an entry is of an unknown kind"))?;
    let linked = byte & LINKED != 0;
    let mode = reader.u16()?;
    if mode > 0o7777 || (linked && kind != EntryKind::File) {
        return Err(Malformed("an entry has impossible metadata"));
    }
    Ok(Metadata {
        kind,
        mode,
        uid: reader.u32()?,
        gid: reader.u32()?,
        size_bytes: 0,
        modified: decode_time(reader)?,
        changed: decode_time(reader)?,
        inode: reader.u64()?,
        linked,
        device: (0, 0),
    })
}

fn decode_pieces(reader: &mut Reader<'_>, size_bytes: u64) -> Result<Held, Malformed> {
    let count = reader.u8()?;
    if count == IN_A_LIST {
        return Ok(Held::PieceList(NodeRef::decode(reader)?));
    }
    if usize::from(count) > INLINE_PIECES {
        return Err(Malformed("an entry holds too many pieces"));
    }
    let mut pieces: Vec<Piece> = Vec::with_capacity(usize::from(count));
    let mut sum = 0_u64;
    for _ in 0..count {
        let piece = Piece::decode(reader)?;
        sum = sum
            .checked_add(piece.bytes)
            .ok_or(Malformed("a file's pieces are not as long as it"))?;
        pieces.push(piece);
    }
    if sum == size_bytes {
        Ok(Held::Pieces(pieces))
    } else {
        Err(Malformed("a file's pieces are not as long as it"))
    }
}

const KINDS: [EntryKind; 7] = [
    EntryKind::File,
    EntryKind::Directory,
    EntryKind::Symlink,
    EntryKind::Fifo,
    EntryKind::Socket,
    EntryKind::CharacterDevice,
    EntryKind::BlockDevice,
];

fn kind_byte(kind: EntryKind) -> u8 {
    let place = KINDS.iter().position(|known| *known == kind);
    place.expect("every kind is in the list") as u8
}

fn is_device(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice)
}

fn encode_time(time: FileTime, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanoseconds.to_le_bytes());
}

fn decode_time(reader: &mut Reader<'_>) -> Result<FileTime, Malformed> {
    let time = FileTime {
        seconds: reader.u64()?.cast_signed(),
        nanoseconds: reader.u32()?,
    };
    if time.nanoseconds < 1_000_000_000 {
        Ok(time)
    } else {
        Err(Malformed("a time has too many nanoseconds"))
    }
}

/// How many bytes these attributes take in an entry.
pub(crate) fn xattr_bytes(xattrs: &[Xattr]) -> usize {
    let each = |xattr: &Xattr| 1 + xattr.name.len() + 4 + xattr.value.len();
    2 + xattrs.iter().map(each).sum::<usize>()
}

fn encode_xattrs(xattrs: &[Xattr], out: &mut Vec<u8>) {
    out.extend_from_slice(&(xattrs.len() as u16).to_le_bytes());
    for xattr in xattrs {
        encode_name(&xattr.name, out);
        out.extend_from_slice(&(xattr.value.len() as u32).to_le_bytes());
        out.extend_from_slice(&xattr.value);
    }
}

fn decode_xattrs(reader: &mut Reader<'_>) -> Result<Vec<Xattr>, Malformed> {
    let count = reader.u16()?;
    let mut xattrs: Vec<Xattr> = Vec::new();
    let mut bytes = 2;
    for _ in 0..count {
        let length = usize::from(reader.u8()?);
        let name = reader.take(length)?;
        let length = reader.length(XATTR_BYTES_MAX)?;
        let value = reader.take(length)?;
        bytes += 5 + name.len() + value.len();
        let in_order = xattrs.last().is_none_or(|last| last.name[..] < *name);
        if name.is_empty() || name.contains(&0) || !in_order || bytes > XATTR_BYTES_MAX {
            return Err(Malformed("an entry has impossible attributes"));
        }
        xattrs.push(Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        });
    }
    Ok(xattrs)
}

/// Bytes of an entry at most; a node takes one more than fits its limit.
pub(crate) const ENTRY_BYTES_MAX: usize =
    256 + 64 + XATTR_BYTES_MAX + TARGET_BYTES_MAX + INLINE_PIECES * PIECE_BYTES;

#[cfg(test)]
#[path = "entry/tests.rs"]
mod tests;
