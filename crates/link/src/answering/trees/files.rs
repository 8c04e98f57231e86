//! What is told of files: what they are, of what pieces, and their bytes.

use std::io;
use std::sync::Arc;

use cairn_types::tree::{DistantPiece, EntryKind, FileReader};

use super::directory::{above, told};
use super::{PiecesWanted, Session, Tree};
use crate::message::tree::{Range, Refused};
use crate::message::tree_answer::{About, FileTold, PIECES_MAX, Packed, TreeAnswer};

/// Bytes of files that are read for an answer about their pieces, before the last is begun.
const HASHED_BYTES: u64 = 64 << 20;
/// Bytes of an answer about files, before the last is begun.
const FILES_BYTES: usize = 1 << 20;
/// Bytes of a file that are hashed at once, at most: more than any piece.
const ID_BYTES_MAX: u64 = 1 << 20;

impl Session {
    /// Tells of files, of one at least, until the answer is full.
    pub(super) fn files(
        &self,
        tree: &Tree,
        path: &[u8],
        names: &[Vec<u8>],
    ) -> io::Result<TreeAnswer> {
        let directory = &tree.directories.open(path)?.reader;
        let (mut files, mut hashed, mut bytes) = (Vec::new(), 0, 0);
        for name in names {
            if hashed >= HASHED_BYTES || bytes >= FILES_BYTES {
                break;
            }
            let file = directory.file(name).and_then(|file| self.tell(&*file, 0));
            if let Ok(file) = &file {
                hashed = reach(hashed, &file.pieces);
                let xattrs = file.about.xattrs.as_ref().map(|xattrs| {
                    let bytes = xattrs.iter().map(|one| one.name.len() + one.value.len());
                    bytes.sum::<usize>()
                });
                bytes += 128 + 40 * file.pieces.len() + xattrs.unwrap_or(0);
            }
            files.push(file.map_err(Refused::from));
        }
        Ok(TreeAnswer::Files(files))
    }

    pub(super) fn more_pieces(
        &self,
        tree: &Tree,
        path: &[u8],
        from: u64,
    ) -> io::Result<TreeAnswer> {
        let file = tree.file(path)?;
        Ok(TreeAnswer::Files(vec![Ok(self.tell(&*file, from)?)]))
    }

    fn tell(&self, file: &dyn FileReader, from: u64) -> io::Result<FileTold> {
        let before = file.metadata()?;
        if before.kind != EntryKind::File {
            return Err(io::Error::other("it is no file any more"));
        }
        let wanted = PiecesWanted {
            file,
            size_bytes: before.size_bytes,
            from,
            pieces_max: PIECES_MAX,
            bytes_max: HASHED_BYTES,
        };
        let pieces = self.host().pieces(&self.keys, wanted)?;
        let reached = reach(from, &pieces);
        let after = file.metadata()?;
        // None follow a piece that is missing: the file was cut short meanwhile.
        let ended = pieces.is_empty() || reached >= before.size_bytes;
        let xattrs = match ended {
            true => told(file.xattrs()),
            false => Ok(Vec::new()),
        };
        Ok(FileTold {
            about: About {
                metadata: before,
                xattrs,
            },
            pieces,
            ended,
            stable: before == after && (!ended || reached == before.size_bytes),
        })
    }

    pub(super) fn ids(&self, tree: &Tree, path: &[u8], ranges: &[Range]) -> io::Result<TreeAnswer> {
        let mut files = Files::new(tree, path);
        let ids = ranges.iter().map(|range| {
            let file = files.open(&range.name)?;
            Ok(self.id_of(&*file, range)?)
        });
        Ok(TreeAnswer::Ids(ids.collect()))
    }

    /// The id of a range; none if the file ends before, or if it is longer than any piece
    /// and not zero.
    fn id_of(&self, file: &dyn FileReader, range: &Range) -> io::Result<Option<[u8; 32]>> {
        if range.bytes <= ID_BYTES_MAX {
            let plain = read(file, range)?;
            let whole = plain.len() as u64 == range.bytes;
            return Ok(whole.then(|| self.host().id(&self.keys, &plain)));
        }
        let end = range.offset.saturating_add(range.bytes);
        if file.metadata()?.size_bytes < end {
            return Ok(None);
        }
        let mut at = range.offset;
        while let Some(data) = file.data_from(at)? {
            let start = data.start.max(at);
            if start >= end {
                break;
            }
            let part = Range {
                name: Vec::new(),
                offset: start,
                bytes: ID_BYTES_MAX.min(end - start).min(data.end - start),
            };
            let plain = read(file, &part)?;
            if plain.len() as u64 != part.bytes || self.host().id(&self.keys, &plain) != [0; 32] {
                return Ok(None);
            }
            at = start + part.bytes;
        }
        Ok(Some([0; 32]))
    }
}

impl Tree {
    fn file(&self, path: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        let (directory, name) = above(path).ok_or(io::ErrorKind::InvalidInput)?;
        self.directories.open(directory)?.reader.file(name)
    }

    /// Tells the bytes of ranges, which are limited together.
    pub fn read(&self, path: &[u8], ranges: &[Range]) -> io::Result<TreeAnswer> {
        let mut files = Files::new(self, path);
        let (mut lengths, mut plain) = (Vec::with_capacity(ranges.len()), Vec::new());
        for range in ranges {
            let bytes = files.open(&range.name).and_then(|file| read(&*file, range));
            lengths.push(match bytes {
                Ok(bytes) => {
                    plain.extend_from_slice(&bytes);
                    Ok(bytes.len())
                }
                Err(error) => Err(error.into()),
            });
        }
        Ok(TreeAnswer::Read(lengths, Packed::pack(&plain)))
    }
}

/// The files of a directory, of which the last used is open.
struct Files<'t> {
    tree: &'t Tree,
    path: &'t [u8],
    last: Option<(Vec<u8>, Arc<dyn FileReader>)>,
}

impl<'t> Files<'t> {
    fn new(tree: &'t Tree, path: &'t [u8]) -> Self {
        let last = None;
        Self { tree, path, last }
    }

    fn open(&mut self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        if let Some((of, file)) = &self.last
            && of == name
        {
            return Ok(file.clone());
        }
        let directory = &self.tree.directories.open(self.path)?.reader;
        let file = directory.file(name)?;
        self.last = Some((name.to_vec(), file.clone()));
        Ok(file)
    }
}

/// Where pieces end that start at a byte.
fn reach(from: u64, pieces: &[DistantPiece]) -> u64 {
    let bytes = pieces.iter().map(|piece| piece.bytes);
    bytes.fold(from, u64::saturating_add)
}

/// The bytes of a range, which is short: fewer where the file ends before.
fn read(file: &dyn FileReader, range: &Range) -> io::Result<Vec<u8>> {
    let length = usize::try_from(range.bytes).map_err(io::Error::other)?;
    let mut plain = vec![0; length];
    let read = file.read_at(range.offset, &mut plain)?;
    plain.truncate(read);
    Ok(plain)
}
