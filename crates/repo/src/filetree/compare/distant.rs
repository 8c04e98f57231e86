//! Comparing files that are at the other end of a line: by the ids of their pieces, which
//! are asked for many at a time. No byte of them comes back.

use cairn_types::tree::{FileRange, RANGES_MAX};

use super::{Place, Worker, differs};
use crate::error::Result;
use crate::filetree::entry::{Held, Piece};
use crate::filetree::list::ListKind;
use crate::filetree::restore::{failed, join};
use crate::filetree::walk::{Named, piece_leaf};

/// Bytes of files that are read at the other end of a line for one answer, before the last
/// piece.
const CHECKED_BYTES: u64 = 32 << 20;

/// Pieces of files at the other end of a line that are to be compared: their ids are asked
/// for many at a time.
#[derive(Default)]
pub(super) struct Checks {
    pieces: Vec<Check>,
    bytes: u64,
}

struct Check {
    name: Box<[u8]>,
    offset: u64,
    piece: Piece,
}

impl Checks {
    fn add(
        &mut self,
        worker: &Worker<'_>,
        place: Place<'_>,
        (name, offset, piece): (&[u8], u64, Piece),
    ) -> Result<()> {
        if !piece.id.is_zero() {
            self.bytes += piece.bytes;
        }
        self.pieces.push(Check {
            name: name.into(),
            offset,
            piece,
        });
        match self.pieces.len() >= RANGES_MAX || self.bytes >= CHECKED_BYTES {
            true => self.finish(worker, place),
            false => Ok(()),
        }
    }

    pub fn finish(&mut self, worker: &Worker<'_>, (directory, reader): Place<'_>) -> Result<()> {
        let (pieces, stop) = (std::mem::take(&mut self.pieces), &worker.session.stop);
        self.bytes = 0;
        let Some(distant) = reader.distant().filter(|_| !pieces.is_empty()) else {
            return Ok(());
        };
        stop.check()?;
        let ranges: Vec<FileRange<'_>> = pieces.iter().map(Check::range).collect();
        let ids = distant
            .ids(&ranges)
            .map_err(failed("read back", directory))?;
        for (check, id) in pieces.iter().zip(ids) {
            let path = join(directory, &check.name);
            let id = id.map_err(failed("read back", &path))?;
            if id != Some(check.piece.id.0) {
                return Err(differs(&path));
            }
            worker.session.count(check.piece.bytes);
        }
        Ok(())
    }
}

impl Check {
    fn range(&self) -> FileRange<'_> {
        FileRange {
            name: &self.name,
            offset: self.offset,
            bytes: self.piece.bytes,
        }
    }
}

impl Worker<'_> {
    /// Has the pieces of a file compared with what the other end of the line reads.
    pub(super) fn check_distant(
        &mut self,
        place: Place<'_>,
        named: &Named,
        checks: &mut Checks,
    ) -> Result<()> {
        let (name, record) = (&*named.name, &named.record);
        let mut leaves = Vec::new();
        let mut offset = 0;
        let mut add = |worker: &Self, pieces: &[Piece]| -> Result<()> {
            for piece in pieces {
                checks.add(worker, place, (name, offset, *piece))?;
                offset += piece.bytes;
            }
            Ok(())
        };
        match &record.held {
            Held::Pieces(pieces) => add(self, pieces)?,
            Held::PieceList(list) => {
                self.gather(ListKind::Pieces, *list, &mut leaves)?;
                for leaf in leaves {
                    let pieces = piece_leaf(&mut self.reader, leaf)?;
                    add(self, &pieces)?;
                }
            }
            Held::Directory(_) | Held::Target(_) | Held::Nothing => {}
        }
        match offset == record.metadata.size_bytes {
            true => Ok(()),
            false => Err(differs(&join(place.0, name))),
        }
    }
}
