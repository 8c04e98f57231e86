//! Storing the bytes of files.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use cairn_types::tree::{EntryKind, FileReader, Metadata, Xattr};

use crate::chunk::{ChunkId, ChunkKind, is_zero};
use crate::error::Result;
use crate::filetree::PIECE_BYTES_MAX;
use crate::filetree::directory::Directory;
use crate::filetree::entry::{Held, INLINE_PIECES, Piece};
use crate::filetree::list::{ListBuilder, ListKind};
use crate::filetree::store::Worker;
use crate::filetree::summary::ProblemKind;
use crate::known::Standing;

/// Bytes of a large file that are read at a time; two pieces at least.
const READ_BYTES: usize = 2 << 20;
/// How often a file is read that changes meanwhile.
const READINGS: usize = 2;

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
        let pieces = if before.size_bytes <= PIECE_BYTES_MAX as u64 {
            self.store_small(file, before.size_bytes as usize)?
        } else {
            self.store_large(file, before.size_bytes)?
        };
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

    /// A file that is one piece, or none.
    fn store_small(
        &mut self,
        file: &dyn FileReader,
        size: usize,
    ) -> Result<io::Result<Vec<Piece>>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        // One byte more tells whether the file has grown.
        buffer.resize((size + 1).max(buffer.len()), 0);
        let read = file.read_at(0, &mut buffer[..=size]);
        let stored = match read {
            Ok(0) => Ok(Vec::new()),
            Ok(length) => {
                let length = length.min(PIECE_BYTES_MAX);
                Ok(vec![self.store_piece(&buffer[..length])?])
            }
            Err(error) => Err(error),
        };
        self.buffer = buffer;
        Ok(stored)
    }

    /// A file of many pieces: holes are left out, and each run of data is cut.
    fn store_large(&mut self, file: &dyn FileReader, size: u64) -> Result<io::Result<Vec<Piece>>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES.max(buffer.len()), 0);
        let mut pieces = Vec::new();
        let mut at = 0;
        let stored = loop {
            let data = match file.data_from(at) {
                Ok(data) => data.unwrap_or(size..size),
                Err(error) => break Err(error),
            };
            let (start, end) = (data.start.clamp(at, size), data.end.min(size));
            add_piece(&mut pieces, ChunkId::ZERO, start - at);
            if start == size {
                break Ok(pieces);
            }
            match self.store_run(file, start..end, &mut buffer, &mut pieces)? {
                // It ends before its size: it was cut short meanwhile.
                Ok(reached) if reached < end => break Ok(pieces),
                Ok(reached) => at = reached,
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        Ok(stored)
    }

    /// Stores a run of a file's data. Returns how far the file goes.
    fn store_run(
        &mut self,
        file: &dyn FileReader,
        run: Range<u64>,
        buffer: &mut [u8],
        pieces: &mut Vec<Piece>,
    ) -> Result<io::Result<u64>> {
        // Bytes in the buffer that are in no piece yet, and where they are in the file.
        let (mut held, mut at) = (0, run.start);
        loop {
            self.session.stop.check()?;
            let wanted = (run.end - at - held as u64).min((READ_BYTES - held) as u64) as usize;
            let length = match file.read_at(at + held as u64, &mut buffer[held..held + wanted]) {
                Ok(length) => length,
                Err(error) => return Ok(Err(error)),
            };
            held += length;
            let last = length < wanted || at + held as u64 == run.end;
            let mut cut = 0;
            while cut < held && (last || held - cut >= PIECE_BYTES_MAX) {
                let length = self.session.cutter.first(&buffer[cut..held]);
                let piece = self.store_piece(&buffer[cut..cut + length])?;
                add_piece(pieces, piece.id, piece.bytes);
                cut += length;
            }
            buffer.copy_within(cut..held, 0);
            (held, at) = (held - cut, at + cut as u64);
            if last {
                return Ok(Ok(at));
            }
        }
    }

    /// Stores bytes of a file unless they are zeros or known.
    fn store_piece(&mut self, plain: &[u8]) -> Result<Piece> {
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
    fn hold(&mut self, pieces: Vec<Piece>) -> Result<Held> {
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
fn add_piece(pieces: &mut Vec<Piece>, id: ChunkId, bytes: u64) {
    match pieces.last_mut() {
        _ if bytes == 0 => {}
        Some(last) if last.id.is_zero() && id.is_zero() => last.bytes += bytes,
        _ => pieces.push(Piece { id, bytes }),
    }
}
