//! Archives taken apart, from their first byte to their last.

use std::io::{self, Read};
use std::ops::Range;

use cairn_types::tree::{EntryKind, FileTime, Metadata, Xattr};

use crate::block::{BLOCK_BYTES, Block, padding};
use crate::entry::{Content, Entry, is_entry_name};
use crate::error::{Error, Result};
use crate::pax::{self, PAX_BYTES_MAX};
use crate::sparse::{self, MapError};
use crate::write::XATTR;

/// Bytes that are skipped at a time.
const SKIPPED_BYTES: u64 = 64 << 10;

/// Reads an archive: an entry, its data, the next entry.
pub struct Reader<R> {
    from: R,
    at: u64,
    /// Bytes of the entry's data that have not been read, and of what fills its last block.
    left: u64,
    filling: u64,
}

/// What the records of an entry say.
#[derive(Default)]
struct Told {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<FileTime>,
    xattrs: Vec<Xattr>,
    /// The version of its map, and its size with the holes.
    sparse: (Option<u64>, Option<u64>),
    sparse_bytes: Option<u64>,
}

impl<R: Read> Reader<R> {
    /// Reads from here on.
    pub const fn new(from: R) -> Self {
        Self {
            from,
            at: 0,
            left: 0,
            filling: 0,
        }
    }

    /// The next entry; nothing behind the last. What is left of the data of the one before is skipped.
    ///
    /// Errors: `Corrupt` it is no archive, or one with a name that leads out of it; `Transient` it does not come.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left + self.filling)?;
        (self.left, self.filling) = (0, 0);
        let start = self.at;
        let Some(mut block) = Block::read(&self.block()?, start)? else {
            return self.end().map(|()| None);
        };
        let mut told = Told::default();
        if block.kind == b'x' {
            told = self.records(block.size)?;
            let start = self.at;
            let next = Block::read(&self.block()?, start)?;
            block = next.ok_or(damaged(start, "records belong to no entry"))?;
        }
        self.entry(block, told, start).map(Some)
    }

    /// Reads the entry's data, its parts one behind the other; 0 behind the last byte.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = self.left.min(buffer.len() as u64) as usize;
        self.fill_from(wanted, buffer)?;
        self.left -= wanted as u64;
        Ok(wanted)
    }

    fn fill_from(&mut self, wanted: usize, buffer: &mut [u8]) -> Result<()> {
        self.from
            .read_exact(&mut buffer[..wanted])
            .map_err(Error::Read)?;
        self.at += wanted as u64;
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK_BYTES]> {
        let mut block = [0; BLOCK_BYTES];
        self.fill_from(BLOCK_BYTES, &mut block)?;
        Ok(block)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let mut skipped = vec![0; bytes.min(SKIPPED_BYTES) as usize];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(SKIPPED_BYTES);
            self.fill_from(now as usize, &mut skipped)?;
            left -= now;
        }
        Ok(())
    }

    /// The second block of zeros. An archive that breaks off before is not whole.
    fn end(&mut self) -> Result<()> {
        let at = self.at;
        match Block::read(&self.block()?, at)? {
            None => Ok(()),
            Some(_) => Err(damaged(at, "it goes on behind its end")),
        }
    }

    fn records(&mut self, size: u64) -> Result<Told> {
        let at = self.at;
        if size > PAX_BYTES_MAX {
            return Err(damaged(at, "an entry has too many records"));
        }
        let mut bytes = vec![0; size as usize];
        self.fill_from(size as usize, &mut bytes)?;
        self.skip(padding(size))?;
        let told = pax::records(&bytes).and_then(|records| Told::read(&records));
        told.ok_or(damaged(at, "the records of an entry are none"))
    }

    fn entry(&mut self, block: Block, told: Told, at: u64) -> Result<Entry> {
        let kind = match block.kind {
            b'0' | b'1' | 0 => EntryKind::File,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharacterDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(damaged(at, "an entry is of an unknown kind")),
        };
        let stored = told.size.unwrap_or(block.size);
        let is_data = kind == EntryKind::File && block.kind != b'1';
        if !is_data && stored > 0 {
            return Err(damaged(at, "what is no file has data"));
        }
        let link = told.link.unwrap_or(block.link);
        let (size_bytes, content) = match kind {
            _ if block.kind == b'1' => (0, Content::Link(inner_path(&link)?)),
            EntryKind::Symlink => (0, Content::Target(link)),
            EntryKind::File => {
                let (size_bytes, ranges) =
                    self.parts(stored, told.sparse, told.sparse_bytes, at)?;
                (size_bytes, Content::Data(ranges))
            }
            _ => (0, Content::Nothing),
        };
        let device = |number: u64| u32::try_from(number).ok();
        let is_device = matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
        let device = device(block.device.0).zip(device(block.device.1));
        let owner = |told: Option<u32>, field: u64| told.or(u32::try_from(field).ok());
        let wrong = || damaged(at, "a number of an entry is too large");
        let seconds = i64::try_from(block.time).map_err(|_| wrong())?;
        Ok(Entry {
            path: inner_path(&told.path.unwrap_or(block.name))?,
            metadata: Metadata {
                kind,
                mode: (block.mode & 0o7777) as u16,
                uid: owner(told.uid, block.uid).ok_or_else(wrong)?,
                gid: owner(told.gid, block.gid).ok_or_else(wrong)?,
                size_bytes,
                modified: told.modified.unwrap_or(FileTime {
                    seconds,
                    nanoseconds: 0,
                }),
                changed: FileTime::default(),
                inode: 0,
                linked: false,
                device: match is_device {
                    true => device.ok_or_else(wrong)?,
                    false => (0, 0),
                },
            },
            xattrs: told.xattrs,
            content,
        })
    }

    /// A file's size and its parts, of which the archive has `stored` bytes.
    fn parts(
        &mut self,
        stored: u64,
        version: (Option<u64>, Option<u64>),
        sparse_bytes: Option<u64>,
        at: u64,
    ) -> Result<(u64, Vec<Range<u64>>)> {
        self.filling = padding(stored);
        let Some(size_bytes) = sparse_bytes else {
            self.left = stored;
            let whole = (stored > 0).then_some(0..stored);
            return Ok((stored, whole.into_iter().collect()));
        };
        if version != (Some(1), Some(0)) {
            return Err(damaged(
                at,
                "the holes of a file are told in an unknown way",
            ));
        }
        let from = &mut self.from;
        let read = sparse::read_map(size_bytes, || {
            let mut block = [0; BLOCK_BYTES];
            from.read_exact(&mut block)?;
            Ok(block)
        });
        let sparse::Map { ranges, bytes } = read.map_err(|error| match error {
            MapError::Read(source) => Error::Read(source),
            MapError::Wrong(why) => damaged(at, why),
        })?;
        self.at += bytes;
        let data: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes.checked_add(data) != Some(stored) {
            return Err(damaged(at, "a file is not as long as its parts"));
        }
        self.left = data;
        Ok((size_bytes, ranges))
    }
}

impl Told {
    fn read(records: &[(&[u8], &[u8])]) -> Option<Self> {
        let mut told = Self::default();
        let small = |value| u32::try_from(pax::number(value)?).ok();
        for (key, value) in records {
            match *key {
                b"path" | b"GNU.sparse.name" => told.path = Some(value.to_vec()),
                b"linkpath" => told.link = Some(value.to_vec()),
                b"size" => told.size = Some(pax::number(value)?),
                b"uid" => told.uid = Some(small(value)?),
                b"gid" => told.gid = Some(small(value)?),
                b"mtime" => told.modified = Some(pax::read_time(value)?),
                b"GNU.sparse.major" => told.sparse.0 = Some(pax::number(value)?),
                b"GNU.sparse.minor" => told.sparse.1 = Some(pax::number(value)?),
                b"GNU.sparse.realsize" => told.sparse_bytes = Some(pax::number(value)?),
                key => {
                    // Others say what one can do without.
                    if let Some(name) = key.strip_prefix(XATTR) {
                        told.xattrs.push(Xattr {
                            name: pax::xattr_name(name),
                            value: value.to_vec(),
                        });
                    }
                }
            }
        }
        told.xattrs.sort();
        Some(told)
    }
}

const fn damaged(at: u64, why: &'static str) -> Error {
    Error::Damaged { at, why }
}

/// A path as entries have it: no `./` before it and no `/` behind.
///
/// Errors: it leads out of the archive's tree, or is none.
fn inner_path(path: &[u8]) -> Result<Vec<u8>> {
    let bad = || Error::BadName {
        path: String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned(),
    };
    let inner = path.strip_prefix(b"./").unwrap_or(path);
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    if inner.is_empty() && path == b"./" {
        return Ok(Vec::new());
    }
    match inner.split(|byte| *byte == b'/').all(is_entry_name) {
        true => Ok(inner.to_vec()),
        false => Err(bad()),
    }
}

impl<R: Read> Read for Reader<R> {
    /// As [`read_data`](Self::read_data).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_data(buffer).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests;
