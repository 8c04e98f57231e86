//! Storing the bytes of files.

use std::io;
use std::sync::atomic::Ordering;

use cairn_types::tree::{EntryKind, FileReader, Metadata, Xattr};

use crate::chunk::{ChunkId, ChunkKind, is_zero};
use crate::error::Result;
use crate::filetree::directory::Directory;
use crate::filetree::entry::{Held, INLINE_PIECES, Piece};
use crate::filetree::list::{ListBuilder, ListKind};
use crate::filetree::pieces::{PieceRead, PieceReader};
use crate::filetree::store::Worker;
use crate::filetree::summary::ProblemKind;
use crate::known::Standing;

/// How often a file is read that changes meanwhile.
pub(crate) const READINGS: usize = 2;

/// What is to be kept of a file, and how much data it has.
pub(crate) type StoredFile = (Metadata, Held, u64, io::Result<Vec<Xattr>>);

/// Bytes in pieces that are not zero.
pub(crate) fn data_bytes(pieces: &[Piece]) -> u64 {
    let data = pieces.iter().filter(|piece| !piece.id.is_zero());
    data.map(|piece| piece.bytes).sum()
}

impl Worker<'_> {
    /// Reads and stores a file, once more if it changes meanwhile.
    pub fn store_file(
        &mut self,
        directory: &Directory,
        name: &[u8],
    ) -> Result<io::Result<StoredFile>> {
        let mut readings = 0;
        loop {
            let read = match directory.reader.file(name) {
                Ok(file) => self.store_once(&*file)?,
                Err(error) => Err(error),
            };
            let (file, stable) = match read {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            readings += 1;
            if !stable && readings < READINGS {
                continue;
            }
            if !stable {
                let reason = format!("it changed during each of {READINGS} readings");
                let path = directory.path_of(name);
                self.session.note(path, ProblemKind::Changed, reason);
            }
            return Ok(Ok(file));
        }
    }

    /// Reads and stores a file; says whether it stayed the same meanwhile.
    fn store_once(&mut self, file: &dyn FileReader) -> Result<io::Result<(StoredFile, bool)>> {
        let before = match file.metadata() {
            Ok(metadata) if metadata.kind == EntryKind::File => metadata,
            Ok(_) => return Ok(Err(io::Error::other("it is no file any more"))),
            Err(error) => return Ok(Err(error)),
        };
        let pieces = self.store_pieces(file, before.size_bytes)?;
        let ended = pieces.and_then(|pieces| Ok((pieces, file.xattrs(), file.metadata()?)));
        let (pieces, xattrs, after) = match ended {
            Ok(ended) => ended,
            Err(error) => return Ok(Err(error)),
        };
        let size_bytes = pieces.iter().map(|piece| piece.bytes).sum();
        let stable = before == after && size_bytes == before.size_bytes;
        let metadata = Metadata {
            size_bytes,
            ..before
        };
        let data_bytes = data_bytes(&pieces);
        let held = self.hold(pieces)?;
        Ok(Ok(((metadata, held, data_bytes, xattrs), stable)))
    }

    /// Reads and stores a file's pieces.
    fn store_pieces(&mut self, file: &dyn FileReader, size: u64) -> Result<io::Result<Vec<Piece>>> {
        let session = self.session;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut reader = PieceReader::new((file, size), 0, &session.cutter, &mut buffer);
        let mut pieces = Vec::new();
        let stored = loop {
            session.stop.check()?;
            match reader.next_piece() {
                Ok(Some(PieceRead::Hole(bytes))) => add_piece(&mut pieces, ChunkId::ZERO, bytes),
                Ok(Some(PieceRead::Data(plain))) => {
                    let piece = self.store_piece(plain)?;
                    add_piece(&mut pieces, piece.id, piece.bytes);
                }
                Ok(None) => break Ok(pieces),
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        Ok(stored)
    }

    /// Stores bytes of a file unless they are zeros or known.
    pub(crate) fn store_piece(&mut self, plain: &[u8]) -> Result<Piece> {
        let session = self.session;
        let bytes = plain.len() as u64;
        session
            .counts
            .read_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        if is_zero(plain) {
            let id = ChunkId::ZERO;
            return Ok(Piece { id, bytes });
        }
        let id = session.project.keys.hasher.id(ChunkKind::Block, plain);
        let packer = &session.packer;
        let mut standing = session.known.claim(packer.session(), &[id.key()])?[0];
        if standing == Standing::Elsewhere && !session.defer(id.key()) {
            standing = Standing::Claimed;
        }
        if standing == Standing::Claimed {
            let chunk = (id, ChunkKind::Block);
            packer.push(&mut self.coder, &mut self.blocks, chunk, plain)?;
        }
        Ok(Piece { id, bytes })
    }

    /// Puts many pieces into a list.
    pub(crate) fn hold(&mut self, pieces: Vec<Piece>) -> Result<Held> {
        if pieces.len() <= INLINE_PIECES {
            return Ok(Held::Pieces(pieces));
        }
        let mut list = ListBuilder::new(ListKind::Pieces);
        for piece in &pieces {
            list.push_piece(piece, &mut |node| self.store_node(node))?;
        }
        list.finish(&mut |node| self.store_node(node))
            .map(Held::PieceList)
    }
}

/// Adds a run to a file's pieces; zeros go together.
pub(crate) fn add_piece(pieces: &mut Vec<Piece>, id: ChunkId, bytes: u64) {
    match pieces.last_mut() {
        _ if bytes == 0 => {}
        Some(last) if last.id.is_zero() && id.is_zero() => last.bytes += bytes,
        _ => pieces.push(Piece { id, bytes }),
    }
}
