//! Reading a disk in the pieces of its tree: 16 MiB at a time, which is what a
//! node of level 1 covers, without ever looking into a hole.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::{DiskError, DiskReader};

use crate::chunk::{ChunkId, ChunkKind, Hasher, is_zero};
use crate::error::Result;
use crate::tree::{FANOUT, Geometry};
use crate::workers::Stop;

/// Blocks that are read at a time.
const READ_BLOCKS: u64 = 16;

/// A disk that several workers read, each the next piece that holds data.
pub(crate) struct Scan {
    pub reader: Arc<dyn DiskReader>,
    pub geometry: Geometry,
    /// Where the first piece may start that nobody has taken.
    next: Mutex<u64>,
}

/// A part of the disk under one node of level 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its place in the line of such parts.
    pub index: u64,
    /// Its blocks that may hold data, counted over the disk.
    pub runs: Vec<Range<u64>>,
}

/// A block that is not zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockRead<'b> {
    /// Its number on the disk.
    pub block: u64,
    pub id: ChunkId,
    pub plain: &'b [u8],
}

impl Scan {
    pub fn new(reader: Arc<dyn DiskReader>, geometry: Geometry) -> Self {
        Self {
            reader,
            geometry,
            next: Mutex::new(0),
        }
    }

    /// Takes the next piece that holds data; nothing when the disk is done.
    pub fn next_piece(&self) -> Result<Option<Piece>, DiskError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((mut at, mut end)) = self.next_data(*next)? else {
            *next = self.geometry.size_bytes;
            return Ok(None);
        };
        let span = self.geometry.span(1);
        let index = at / span;
        let piece_end = (index + 1)
            .saturating_mul(span)
            .min(self.geometry.size_bytes);
        let block_bytes = u64::from(self.geometry.block_bytes);
        let mut runs: Vec<Range<u64>> = Vec::new();
        loop {
            let blocks = at / block_bytes..end.min(piece_end).div_ceil(block_bytes);
            match runs.last_mut() {
                Some(last) if blocks.start <= last.end => last.end = last.end.max(blocks.end),
                _ => runs.push(blocks),
            }
            if end >= piece_end {
                break;
            }
            match self.next_data(end)? {
                Some((start, stop)) if start < piece_end => (at, end) = (start, stop),
                _ => break,
            }
        }
        *next = piece_end;
        Ok(Some(Piece { index, runs }))
    }

    /// The first run of data from a place on, without the part before it.
    fn next_data(&self, from: u64) -> Result<Option<(u64, u64)>, DiskError> {
        let mut at = from;
        while at < self.geometry.size_bytes {
            let extent = self.reader.extent_at(at)?;
            // An extent without length would never end.
            let end = extent.end().clamp(at + 1, self.geometry.size_bytes);
            if extent.data {
                return Ok(Some((at, end)));
            }
            at = end;
        }
        Ok(None)
    }

    /// How many bytes of data the disk may hold, by its extents.
    pub fn data_bytes(&self) -> Result<u64, DiskError> {
        let (mut sum, mut at) = (0, 0);
        while let Some((start, end)) = self.next_data(at)? {
            sum += end - start;
            at = end;
        }
        Ok(sum)
    }

    /// Reads a piece, gives the blocks of each read that are not zero to `each`, and returns the ids of all.
    pub fn read_piece(
        &self,
        piece: &Piece,
        hasher: &Hasher,
        stop: &Stop,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&[BlockRead<'_>]) -> Result<()>,
    ) -> Result<[ChunkId; FANOUT]> {
        let mut ids = [ChunkId::ZERO; FANOUT];
        for run in &piece.runs {
            let mut start = run.start;
            while start < run.end {
                stop.check()?;
                let blocks = start..run.end.min(start + READ_BLOCKS);
                start = blocks.end;
                let bytes = self.read_blocks(blocks.clone(), buffer)?;
                let mut read = Vec::with_capacity(READ_BLOCKS as usize);
                for (block, plain) in blocks.zip(bytes.chunks(self.geometry.block_bytes as usize)) {
                    if !is_zero(plain) {
                        let id = hasher.id(ChunkKind::Block, plain);
                        ids[(block % FANOUT as u64) as usize] = id;
                        read.push(BlockRead { block, id, plain });
                    }
                }
                each(&read)?;
                stop.progress().advance(bytes.len() as u64);
            }
        }
        Ok(ids)
    }

    /// Reads blocks that follow each other.
    pub fn read_blocks<'b>(
        &self,
        blocks: Range<u64>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], DiskError> {
        let start = self.geometry.block_range(blocks.start).start;
        let end = self.geometry.block_range(blocks.end - 1).end;
        let length = usize::try_from(end - start).expect("reads are cut into small pieces");
        buffer.resize(length, 0);
        self.reader.read_at(start, buffer)?;
        Ok(buffer)
    }
}

#[cfg(test)]
#[path = "scan/tests.rs"]
mod tests;
