//! What is told of trees of files. Listings and bytes of files are packed: many
//! together, compressed.

use cairn_types::tree::{DistantPiece, Metadata, RANGES_MAX, Xattr};

use super::Reader;
use super::tree::{
    FILES_MAX, Refused, Told, count, long, metadata, name, path, put_count, put_long, put_metadata,
    put_name, put_told, told,
};
use crate::error::{Error, Result};
use crate::frame::{self, FRAME_BYTES};

/// Pieces that are told of a file in an answer, at most.
pub(crate) const PIECES_MAX: usize = 8192;
/// Bytes of extended attributes that are told of an entry.
pub(crate) const XATTR_BYTES_MAX: usize = 128 << 10;
/// Extended attributes of an entry at most: each has a name.
const XATTRS_MAX: usize = XATTR_BYTES_MAX / 2;
/// Bytes of a symbolic link's target. Source: `PATH_MAX` of Linux.
const TARGET_BYTES_MAX: usize = 4096;
/// An answer with listings is full from so many bytes on.
pub(crate) const LISTING_BYTES: usize = 1 << 20;
/// Directories in an answer at most.
pub(crate) const LISTINGS_MAX: usize = 4096;

/// What is answered to a question about a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeAnswer {
    /// The time, in microseconds since 1970 UTC.
    Time(i64),
    /// So many applications are at rest.
    Frozen(u64),
    /// So many were at rest until now; none, if they had gone on by themselves.
    Thawed(u64),
    /// The number stands for the tree from now on, on this connection.
    Opened,
    /// Nobody has said on this connection what the number stands for.
    NotOpen,
    /// The system refused it.
    Refused(Refused),
    /// Listings: of the directory that was asked for, and of some that follow below it.
    Listings(Packed),
    About(About),
    /// In the order of the names, maybe of the first of them alone.
    Files(Vec<Told<FileTold>>),
    /// In the order of the ranges: how many bytes follow of each, and these.
    Read(Vec<Told<usize>>, Packed),
    /// All was done; or what was done of the first path that it failed at, and why.
    Written(Result<(), WriteFailed>),
    /// In the order of the ranges; none where the file ends before.
    Ids(Vec<Told<Option<[u8; 32]>>>),
}

/// Something that could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteFailed {
    pub path: Vec<u8>,
    pub refused: Refused,
}

/// Bytes that are compressed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    plain_bytes: usize,
    frame: Vec<u8>,
}

/// What is told of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub metadata: Metadata,
    pub xattrs: Told<Vec<Xattr>>,
}

/// What is told of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileTold {
    pub about: About,
    pub pieces: Vec<DistantPiece>,
    pub ended: bool,
    pub stable: bool,
}

/// What is told of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub path: Vec<u8>,
    pub about: About,
    /// In the order of their names.
    pub entries: Vec<Listed>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// What is told of an entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: Vec<u8>,
    pub about: Told<ListedAbout>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedAbout {
    pub metadata: Metadata,
    /// Where a symbolic link points; empty for anything else.
    pub target: Told<Vec<u8>>,
    /// Whether it is neither a file nor a directory, and has extended attributes.
    pub has_xattrs: bool,
}

impl Packed {
    /// Packs bytes, `FRAME_BYTES` at most.
    pub fn pack(plain: &[u8]) -> Self {
        let mut packed = Vec::new();
        frame::compress(plain, &mut packed);
        Self {
            plain_bytes: plain.len(),
            frame: packed,
        }
    }

    pub fn unpack(&self) -> Result<Vec<u8>> {
        frame::decompress(&self.frame, self.plain_bytes)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_count(self.plain_bytes, out);
        out.extend_from_slice(&self.frame);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            plain_bytes: count(reader, FRAME_BYTES)?,
            frame: reader.rest().to_vec(),
        })
    }
}

impl TreeAnswer {
    const OPENED: u8 = 0;
    const NOT_OPEN: u8 = 1;
    const REFUSED: u8 = 2;
    const LISTINGS: u8 = 3;
    const ABOUT: u8 = 4;
    const FILES: u8 = 5;
    const READ: u8 = 6;
    const IDS: u8 = 7;
    const WRITTEN: u8 = 8;
    const TIME: u8 = 9;
    const FROZEN: u8 = 10;
    const THAWED: u8 = 11;

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Time(micros) => {
                out.push(Self::TIME);
                out.extend_from_slice(&micros.to_le_bytes());
            }
            Self::Frozen(count) => {
                out.push(Self::FROZEN);
                out.extend_from_slice(&count.to_le_bytes());
            }
            Self::Thawed(count) => {
                out.push(Self::THAWED);
                out.extend_from_slice(&count.to_le_bytes());
            }
            Self::Opened => out.push(Self::OPENED),
            Self::NotOpen => out.push(Self::NOT_OPEN),
            Self::Refused(refused) => {
                out.push(Self::REFUSED);
                put_told(&Err::<(), _>(refused.clone()), out, |(), _| {});
            }
            Self::Listings(packed) => {
                out.push(Self::LISTINGS);
                packed.encode(out);
            }
            Self::About(about) => {
                out.push(Self::ABOUT);
                about.encode(out);
            }
            Self::Files(files) => {
                out.push(Self::FILES);
                put_count(files.len(), out);
                for file in files {
                    put_told(file, out, FileTold::encode);
                }
            }
            Self::Read(lengths, packed) => {
                out.push(Self::READ);
                put_count(lengths.len(), out);
                for length in lengths {
                    put_told(length, out, |length, out| put_count(*length, out));
                }
                packed.encode(out);
            }
            Self::Written(written) => {
                out.push(Self::WRITTEN);
                let failed = written.as_ref().err();
                put_long(failed.map_or(&[], |failed| &failed.path[..]), out);
                let told = written.clone().map_err(|failed| failed.refused);
                put_told(&told, out, |(), _| {});
            }
            Self::Ids(ids) => {
                out.push(Self::IDS);
                put_count(ids.len(), out);
                for id in ids {
                    put_told(id, out, |id, out| {
                        out.push(u8::from(id.is_some()));
                        out.extend_from_slice(&id.unwrap_or_default());
                    });
                }
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.array::<1>()?[0] {
            Self::TIME => Self::Time(reader.number()?.cast_signed()),
            Self::FROZEN => Self::Frozen(reader.number()?),
            Self::THAWED => Self::Thawed(reader.number()?),
            Self::OPENED => Self::Opened,
            Self::NOT_OPEN => Self::NotOpen,
            Self::REFUSED => match told(reader, |_| Ok(()))? {
                Err(refused) => Self::Refused(refused),
                Ok(()) => return Err(Error::Malformed("it is refused for no reason")),
            },
            Self::LISTINGS => Self::Listings(Packed::decode(reader)?),
            Self::ABOUT => Self::About(About::decode(reader)?),
            Self::FILES => {
                let count = count(reader, FILES_MAX)?;
                let files = (0..count).map(|_| told(reader, FileTold::decode));
                Self::Files(files.collect::<Result<_>>()?)
            }
            Self::READ => {
                let count_of = |reader: &mut Reader<'_>| count(reader, FRAME_BYTES);
                let count = count(reader, RANGES_MAX)?;
                let lengths = (0..count).map(|_| told(reader, count_of));
                let lengths = lengths.collect::<Result<_>>()?;
                Self::Read(lengths, Packed::decode(reader)?)
            }
            Self::WRITTEN => {
                let path = path(reader)?;
                let told = told(reader, |_| Ok(()))?;
                Self::Written(told.map_err(|refused| WriteFailed { path, refused }))
            }
            Self::IDS => {
                let count = count(reader, RANGES_MAX)?;
                let id = |reader: &mut Reader<'_>| {
                    let there = reader.array::<1>()? == [1];
                    reader.array().map(|id| there.then_some(id))
                };
                let ids = (0..count).map(|_| told(reader, id));
                Self::Ids(ids.collect::<Result<_>>()?)
            }
            _ => return Err(Error::Malformed("an answer is of an unknown sort")),
        })
    }
}

impl About {
    fn encode(&self, out: &mut Vec<u8>) {
        put_metadata(&self.metadata, out);
        put_told(&self.xattrs, out, |xattrs, out| put_xattrs(xattrs, out));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            metadata: metadata(reader)?,
            xattrs: told(reader, xattrs)?,
        })
    }
}

pub(crate) fn put_xattrs(xattrs: &[Xattr], out: &mut Vec<u8>) {
    put_count(xattrs.len(), out);
    for xattr in xattrs {
        put_long(&xattr.name, out);
        put_long(&xattr.value, out);
    }
}

pub(crate) fn xattrs(reader: &mut Reader<'_>) -> Result<Vec<Xattr>> {
    let mut read: Vec<Xattr> = Vec::new();
    for _ in 0..count(reader, XATTRS_MAX)? {
        let xattr = Xattr {
            name: long(reader, 255)?.to_vec(),
            value: long(reader, XATTR_BYTES_MAX)?.to_vec(),
        };
        let in_order = read.last().is_none_or(|last| last.name < xattr.name);
        if xattr.name.is_empty() || xattr.name.contains(&0) || !in_order {
            return Err(Error::Malformed("there can be no such attributes"));
        }
        read.push(xattr);
    }
    Ok(read)
}

impl FileTold {
    fn encode(&self, out: &mut Vec<u8>) {
        self.about.encode(out);
        out.push(u8::from(self.ended) | u8::from(self.stable) << 1);
        put_count(self.pieces.len(), out);
        for piece in &self.pieces {
            out.extend_from_slice(&piece.bytes.to_le_bytes());
            out.extend_from_slice(&piece.id);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let about = About::decode(reader)?;
        let flags = reader.array::<1>()?[0];
        let count = count(reader, PIECES_MAX)?;
        let piece = |_| {
            Ok(DistantPiece {
                bytes: reader.number()?,
                id: reader.array()?,
            })
        };
        Ok(Self {
            about,
            pieces: (0..count).map(piece).collect::<Result<_>>()?,
            ended: flags & 1 != 0,
            stable: flags & 2 != 0,
        })
    }
}

impl Listing {
    /// Appends a listing, which has at least one entry of those there are.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_long(&self.path, out);
        self.about.encode(out);
        out.push(u8::from(self.more));
        put_count(self.entries.len(), out);
        for entry in &self.entries {
            put_name(&entry.name, out);
            put_told(&entry.about, out, |about, out| {
                put_metadata(&about.metadata, out);
                put_told(&about.target, out, |target, out| put_long(target, out));
                out.push(u8::from(about.has_xattrs));
            });
        }
    }

    /// Reads what was packed.
    pub fn decode_all(plain: &[u8]) -> Result<Vec<Self>> {
        let (mut reader, mut all) = (Reader(plain), Vec::new());
        while !reader.0.is_empty() && all.len() < LISTINGS_MAX {
            all.push(Self::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(all)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (path, about) = (path(reader)?, About::decode(reader)?);
        let more = reader.array::<1>()? == [1];
        let mut entries: Vec<Listed> = Vec::new();
        for _ in 0..count(reader, FRAME_BYTES)? {
            let name = name(reader)?;
            if entries.last().is_some_and(|last| last.name >= name) {
                return Err(Error::Malformed("a directory is not in order"));
            }
            let about = told(reader, |reader| {
                Ok(ListedAbout {
                    metadata: metadata(reader)?,
                    target: told(
                        reader,
                        |reader| Ok(long(reader, TARGET_BYTES_MAX)?.to_vec()),
                    )?,
                    has_xattrs: reader.array::<1>()? == [1],
                })
            })?;
            entries.push(Listed { name, about });
        }
        Ok(Self {
            path,
            about,
            entries,
            more,
        })
    }
}
