//! What is done to a folder that is restored into, many things at a time.

use cairn_types::tree::{Metadata, Xattr};

use super::Reader;
use super::tree::{long, metadata, path, put_count, put_long, put_metadata};
use super::tree_answer::{put_xattrs, xattrs};
use crate::error::{Error, Result};
use crate::frame::FRAME_BYTES;

/// Bytes of a symbolic link's target.
const TARGET_BYTES_MAX: usize = 4096;

/// One thing to be done. Paths are below the target's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step<'s> {
    pub path: std::borrow::Cow<'s, [u8]>,
    pub act: Act<'s>,
}

/// What is done at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act<'s> {
    CreateDirectory,
    CreateFile {
        size_bytes: u64,
    },
    Symlink(&'s [u8]),
    Special(Metadata),
    /// Another name of the file at this path.
    Link(std::borrow::Cow<'s, [u8]>),
    Write {
        offset: u64,
        data: &'s [u8],
    },
    /// The last of a file.
    Finish(Metadata, Vec<Xattr>),
    /// What an entry is that is neither a file nor a directory.
    Set(Metadata, Vec<Xattr>),
    /// What a directory is.
    SetOwn(Metadata, Vec<Xattr>),
    /// All that was done before is durable.
    Flush,
}

const CREATE_DIRECTORY: u8 = 0;
const CREATE_FILE: u8 = 1;
const SYMLINK: u8 = 2;
const SPECIAL: u8 = 3;
const LINK: u8 = 4;
const WRITE: u8 = 5;
const FINISH: u8 = 6;
const SET: u8 = 7;
const SET_OWN: u8 = 8;
const FLUSH: u8 = 9;

impl<'s> Step<'s> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_long(&self.path, out);
        let put_set = |sort, metadata: &Metadata, xattrs: &[Xattr], out: &mut Vec<u8>| {
            out.push(sort);
            put_metadata(metadata, out);
            put_xattrs(xattrs, out);
        };
        match &self.act {
            Act::CreateDirectory => out.push(CREATE_DIRECTORY),
            Act::CreateFile { size_bytes } => {
                out.push(CREATE_FILE);
                out.extend_from_slice(&size_bytes.to_le_bytes());
            }
            Act::Symlink(target) => {
                out.push(SYMLINK);
                put_long(target, out);
            }
            Act::Special(metadata) => {
                out.push(SPECIAL);
                put_metadata(metadata, out);
            }
            Act::Link(first) => {
                out.push(LINK);
                put_long(first, out);
            }
            Act::Write { offset, data } => {
                out.push(WRITE);
                out.extend_from_slice(&offset.to_le_bytes());
                put_count(data.len(), out);
                out.extend_from_slice(data);
            }
            Act::Finish(metadata, xattrs) => put_set(FINISH, metadata, xattrs, out),
            Act::Set(metadata, xattrs) => put_set(SET, metadata, xattrs, out),
            Act::SetOwn(metadata, xattrs) => put_set(SET_OWN, metadata, xattrs, out),
            Act::Flush => out.push(FLUSH),
        }
    }

    /// Reads what follows in a batch; nothing at its end.
    pub fn next(reader: &mut Reader<'s>) -> Result<Option<Self>> {
        if reader.0.is_empty() {
            return Ok(None);
        }
        let own = path(reader)?;
        let act = match reader.array::<1>()?[0] {
            CREATE_DIRECTORY => Act::CreateDirectory,
            CREATE_FILE => Act::CreateFile {
                size_bytes: reader.number()?,
            },
            SYMLINK => Act::Symlink(long(reader, TARGET_BYTES_MAX)?),
            SPECIAL => Act::Special(metadata(reader)?),
            LINK => Act::Link(path(reader)?.into()),
            WRITE => Act::Write {
                offset: reader.number()?,
                data: long(reader, FRAME_BYTES)?,
            },
            FINISH => Act::Finish(metadata(reader)?, xattrs(reader)?),
            SET => Act::Set(metadata(reader)?, xattrs(reader)?),
            SET_OWN => Act::SetOwn(metadata(reader)?, xattrs(reader)?),
            FLUSH => Act::Flush,
            _ => return Err(Error::Malformed("nobody can do that")),
        };
        let path = own.into();
        Ok(Some(Self { path, act }))
    }
}
