//! What is said of trees of files. Paths are those of the tree: names joined by `/`,
//! that of its own directory empty.

use std::io;

use cairn_types::tree::{EntryKind, FileTime, Metadata, RANGES_MAX, is_name};

use super::{Reader, cut, text};
use crate::error::{Error, Result};
use crate::message::tree_answer::Packed;

/// Paths that a host's owner has added, at most.
pub(crate) const SELECTED_MAX: usize = 4096;
/// Exclusions of an added path, at most.
pub(crate) const EXCLUDED_MAX: usize = 1024;
/// Bytes of a path at most: as deep as trees are saved, each name as long as can be.
pub(crate) const PATH_BYTES_MAX: usize = 512 * 256;
/// Bytes of files that are asked for with one question: a line that breaks often still
/// carries an answer.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// Numbers of errors. Source: `errno.h` of Linux.
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
/// Files that are asked about at a time.
pub(crate) const FILES_MAX: usize = 512;

/// Which files of a host make up a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// What was added.
    pub paths: Vec<SelectedPath>,
}

/// A path that a host's owner has added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelectedPath {
    /// The path on the host, from its root on.
    pub path: String,
    /// What below it is left out: absolute paths, or patterns of names.
    pub exclude: Vec<String>,
}

/// A folder of a host that is restored into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its path on the host, from its root on. It is made if it is not there.
    pub path: String,
}

/// What is asked of a tree; each carries the number that the tree was opened under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeQuestion {
    /// What is the time, by the clock that files are stamped by? Of no tree.
    Time,
    /// Bring the host's applications to rest, for so long at most. Of no tree.
    Freeze { held_ms: u64 },
    /// Let them go on. Of no tree.
    Thaw,
    /// From now on the number stands for these files.
    Open(Selection),
    /// From now on the number stands for a folder that is restored into.
    OpenTarget(Target),
    /// Does all of this, in this order.
    Write(Packed),
    /// What is in a directory, from behind this name on?
    List { path: Vec<u8>, after: Vec<u8> },
    /// What is an entry, with its extended attributes?
    About { path: Vec<u8> },
    /// What are these files of a directory, and of what pieces?
    Files { path: Vec<u8>, names: Vec<Vec<u8>> },
    /// Of what pieces is a file from this byte on?
    Pieces { path: Vec<u8>, from: u64 },
    /// What do these ranges of files of a directory hold?
    Read { path: Vec<u8>, ranges: Vec<Range> },
    /// What are their ids?
    Ids { path: Vec<u8>, ranges: Vec<Range> },
}

/// A part of a file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub name: Vec<u8>,
    pub offset: u64,
    pub bytes: u64,
}

/// A call that the system of the other end refused, by what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The system's number for it; 0 if it has none.
    pub number: u32,
    pub text: String,
}

pub(crate) type Told<T> = Result<T, Refused>;

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let number = error.raw_os_error().or(match error.kind() {
            io::ErrorKind::NotFound => Some(ENOENT),
            io::ErrorKind::PermissionDenied => Some(EACCES),
            io::ErrorKind::InvalidInput => Some(EINVAL),
            _ => None,
        });
        let number = number.and_then(|number| u32::try_from(number).ok());
        Self {
            number: number.unwrap_or(0),
            text: error.to_string(),
        }
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match i32::try_from(refused.number) {
            Ok(number @ 1..) => match Self::from_raw_os_error(number) {
                error if error.to_string() == refused.text => error,
                // The other end has its own words for it.
                error => Self::new(error.kind(), refused.text),
            },
            _ => Self::other(refused.text),
        }
    }
}

impl TreeQuestion {
    const OPEN: u8 = 0;
    const LIST: u8 = 1;
    const ABOUT: u8 = 2;
    const FILES: u8 = 3;
    const PIECES: u8 = 4;
    const READ: u8 = 5;
    const IDS: u8 = 6;
    const OPEN_TARGET: u8 = 7;
    const WRITE: u8 = 8;
    const TIME: u8 = 9;
    const FREEZE: u8 = 10;
    const THAW: u8 = 11;

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(selection) => {
                out.push(Self::OPEN);
                put_selection(selection, out);
            }
            Self::Time => out.push(Self::TIME),
            Self::Freeze { held_ms } => {
                out.push(Self::FREEZE);
                out.extend_from_slice(&held_ms.to_le_bytes());
            }
            Self::Thaw => out.push(Self::THAW),
            Self::OpenTarget(target) => {
                out.push(Self::OPEN_TARGET);
                put_long(target.path.as_bytes(), out);
            }
            Self::Write(packed) => {
                out.push(Self::WRITE);
                packed.encode(out);
            }
            Self::List { path, after } => {
                out.push(Self::LIST);
                put_long(path, out);
                put_name(after, out);
            }
            Self::About { path } => {
                out.push(Self::ABOUT);
                put_long(path, out);
            }
            Self::Files { path, names } => {
                out.push(Self::FILES);
                put_long(path, out);
                put_count(names.len(), out);
                names.iter().for_each(|name| put_name(name, out));
            }
            Self::Pieces { path, from } => {
                out.push(Self::PIECES);
                put_long(path, out);
                out.extend_from_slice(&from.to_le_bytes());
            }
            Self::Read { path, ranges } => {
                out.push(Self::READ);
                put_ranges(path, ranges, out);
            }
            Self::Ids { path, ranges } => {
                out.push(Self::IDS);
                put_ranges(path, ranges, out);
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let sort = reader.array::<1>()?[0];
        match sort {
            Self::OPEN => return Ok(Self::Open(selection(reader)?)),
            Self::OPEN_TARGET => {
                let path = words(reader)?;
                return Ok(Self::OpenTarget(Target { path }));
            }
            Self::TIME => return Ok(Self::Time),
            Self::FREEZE => {
                let held_ms = reader.number()?;
                return Ok(Self::Freeze { held_ms });
            }
            Self::THAW => return Ok(Self::Thaw),
            Self::WRITE => return Ok(Self::Write(Packed::decode(reader)?)),
            _ => {}
        }
        let path = path(reader)?;
        Ok(match sort {
            Self::LIST => Self::List {
                path,
                after: name_or_nothing(reader)?,
            },
            Self::ABOUT => Self::About { path },
            Self::FILES => {
                let count = count(reader, FILES_MAX)?;
                let names = (0..count).map(|_| name(reader)).collect::<Result<_>>()?;
                Self::Files { path, names }
            }
            Self::PIECES => Self::Pieces {
                path,
                from: reader.number()?,
            },
            Self::READ => {
                let ranges = ranges(reader)?;
                let sum = ranges.iter().map(|range| range.bytes);
                if sum.fold(0, u64::saturating_add) > READ_BYTES as u64 {
                    return Err(Error::Malformed("it asks for too many bytes"));
                }
                Self::Read { path, ranges }
            }
            Self::IDS => Self::Ids {
                path,
                ranges: ranges(reader)?,
            },
            _ => return Err(Error::Malformed("a question is of an unknown sort")),
        })
    }
}

fn put_selection(selection: &Selection, out: &mut Vec<u8>) {
    put_count(selection.paths.len(), out);
    for one in &selection.paths {
        put_long(one.path.as_bytes(), out);
        put_count(one.exclude.len(), out);
        for pattern in &one.exclude {
            put_long(pattern.as_bytes(), out);
        }
    }
}

fn selection(reader: &mut Reader<'_>) -> Result<Selection> {
    let mut read = Selection::default();
    for _ in 0..count(reader, SELECTED_MAX)? {
        let path = words(reader)?;
        let exclude = (0..count(reader, EXCLUDED_MAX)?).map(|_| words(reader));
        let exclude = exclude.collect::<Result<_>>()?;
        read.paths.push(SelectedPath { path, exclude });
    }
    Ok(read)
}

fn words(reader: &mut Reader<'_>) -> Result<String> {
    let bytes = long(reader, PATH_BYTES_MAX)?.to_vec();
    String::from_utf8(bytes).map_err(|_| Error::Malformed("it is no text"))
}

fn put_ranges(path: &[u8], ranges: &[Range], out: &mut Vec<u8>) {
    put_long(path, out);
    put_count(ranges.len(), out);
    for range in ranges {
        put_name(&range.name, out);
        out.extend_from_slice(&range.offset.to_le_bytes());
        out.extend_from_slice(&range.bytes.to_le_bytes());
    }
}

fn ranges(reader: &mut Reader<'_>) -> Result<Vec<Range>> {
    let count = count(reader, RANGES_MAX)?;
    let range = |_| {
        Ok(Range {
            name: name(reader)?,
            offset: reader.number()?,
            bytes: reader.number()?,
        })
    };
    (0..count).map(range).collect()
}

pub(crate) fn put_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("lists are limited");
    out.extend_from_slice(&count.to_le_bytes());
}

pub(crate) fn count(reader: &mut Reader<'_>, limit: usize) -> Result<usize> {
    match u32::from_le_bytes(reader.array()?) as usize {
        count if count <= limit => Ok(count),
        _ => Err(Error::Malformed("a list is too long")),
    }
}

/// Bytes with their number before them.
pub(crate) fn put_long(bytes: &[u8], out: &mut Vec<u8>) {
    put_count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

pub(crate) fn long<'a>(reader: &mut Reader<'a>, limit: usize) -> Result<&'a [u8]> {
    let count = count(reader, limit)?;
    reader.take(count)
}

/// A path whose every part is a name that an entry can have.
pub(crate) fn path(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let path = long(reader, PATH_BYTES_MAX)?;
    let mut names = path.split(|byte| *byte == b'/');
    match path.is_empty() || names.all(is_name) {
        true => Ok(path.to_vec()),
        false => Err(Error::Malformed("a path leads nowhere")),
    }
}

pub(crate) fn put_name(name: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
    out.extend_from_slice(name);
}

fn name_or_nothing(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let length = usize::from(reader.array::<1>()?[0]);
    let name = reader.take(length)?;
    match name.is_empty() || is_name(name) {
        true => Ok(name.to_vec()),
        false => Err(Error::Malformed("no entry can have such a name")),
    }
}

pub(crate) fn name(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let name = name_or_nothing(reader)?;
    match name.is_empty() {
        false => Ok(name),
        true => Err(Error::Malformed("no entry can have such a name")),
    }
}

pub(crate) fn put_told<T>(told: &Told<T>, out: &mut Vec<u8>, put: impl FnOnce(&T, &mut Vec<u8>)) {
    match told {
        Ok(value) => {
            out.push(1);
            put(value, out);
        }
        Err(refused) => {
            out.push(0);
            out.extend_from_slice(&refused.number.to_le_bytes());
            put_long(cut(&refused.text).as_bytes(), out);
        }
    }
}

pub(crate) fn told<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T>,
) -> Result<Told<T>> {
    match reader.array::<1>()?[0] {
        1 => Ok(Ok(read(reader)?)),
        0 => Ok(Err(Refused {
            number: u32::from_le_bytes(reader.array()?),
            text: text(long(reader, super::TEXT_MAX)?),
        })),
        _ => Err(Error::Malformed("it is neither told nor refused")),
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

pub(crate) fn put_metadata(metadata: &Metadata, out: &mut Vec<u8>) {
    let kind = KINDS.iter().position(|kind| *kind == metadata.kind);
    let kind = kind.expect("every kind is in the list") as u8;
    out.push(kind << 1 | u8::from(metadata.linked));
    out.extend_from_slice(&metadata.mode.to_le_bytes());
    for number in [
        metadata.uid,
        metadata.gid,
        metadata.device.0,
        metadata.device.1,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&metadata.size_bytes.to_le_bytes());
    out.extend_from_slice(&metadata.inode.to_le_bytes());
    for time in [metadata.modified, metadata.changed] {
        out.extend_from_slice(&time.seconds.to_le_bytes());
        out.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
}

pub(crate) fn metadata(reader: &mut Reader<'_>) -> Result<Metadata> {
    let impossible = Error::Malformed("no entry can be like that");
    let byte = reader.array::<1>()?[0];
    let kind = KINDS.get(usize::from(byte >> 1)).copied();
    let Some(kind) = kind else {
        return Err(impossible);
    };
    let mode = u16::from_le_bytes(reader.array()?);
    let mut number = || reader.array().map(u32::from_le_bytes);
    let (uid, gid, major, minor) = (number()?, number()?, number()?, number()?);
    let (size_bytes, inode) = (reader.number()?, reader.number()?);
    let mut time = || -> Result<FileTime> {
        Ok(FileTime {
            seconds: reader.number()?.cast_signed(),
            nanoseconds: u32::from_le_bytes(reader.array()?),
        })
    };
    let metadata = Metadata {
        kind,
        mode,
        uid,
        gid,
        size_bytes,
        modified: time()?,
        changed: time()?,
        inode,
        linked: byte & 1 == 1,
        device: (major, minor),
    };
    let is_file = kind == EntryKind::File;
    let is_device = matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
    let possible = mode <= 0o7777
        && (is_file || !metadata.linked && size_bytes == 0)
        && (is_device || metadata.device == (0, 0))
        && metadata.modified.nanoseconds < 1_000_000_000
        && metadata.changed.nanoseconds < 1_000_000_000;
    possible.then_some(metadata).ok_or(impossible)
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
