//! Reading a disk in the pieces of its tree: 16 MiB at a time, which is what a
//! node of level 1 covers, without ever looking into a hole.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use cairn_types::disk::{DiskError, DiskReader, IDS_MAX};

use crate::chunk::{ChunkId, ChunkKind, Hasher, is_zero};
use crate::error::Result;
use crate::tree::{FANOUT, Geometry};
use crate::workers::{Stop, lock};

/// Blocks that are read at a time.
const READ_BLOCKS: u64 = 16;

/// A disk that several workers read, each the next piece that there is something to read of.
pub(crate) struct Scan {
    pub reader: Arc<dyn DiskReader>,
    pub geometry: Geometry,
    /// The blocks that may differ from what is known, sorted and apart; all, if nothing is known.
    changed: Option<Vec<Range<u64>>>,
    /// The first block that nobody has taken.
    next: Mutex<u64>,
}

/// A part of the disk under one node of level 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its place in the line of such parts.
    pub index: u64,
    /// Its blocks that may differ from what is known, counted over the disk.
    pub changed: Vec<Range<u64>>,
    /// Those of them that may hold data.
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
    /// Reads all data of a disk.
    pub fn new(reader: Arc<dyn DiskReader>, geometry: Geometry) -> Self {
        Self {
            reader,
            geometry,
            changed: None,
            next: Mutex::new(0),
        }
    }

    /// Reads the data in these blocks, which are sorted and apart.
    pub fn of_changed(
        reader: Arc<dyn DiskReader>,
        geometry: Geometry,
        changed: Vec<Range<u64>>,
    ) -> Self {
        Self {
            changed: Some(changed),
            ..Self::new(reader, geometry)
        }
    }

    /// Takes the next piece with data, or with changed blocks where these are
    /// known; nothing when the disk is done.
    pub fn next_piece(&self) -> Result<Option<Piece>, DiskError> {
        let mut next = lock(&self.next);
        let block_bytes = u64::from(self.geometry.block_bytes);
        let first = match &self.changed {
            None => self
                .next_data(next.saturating_mul(block_bytes))?
                .map(|(start, _)| start / block_bytes),
            Some(changed) => {
                let at = changed.partition_point(|range| range.end <= *next);
                changed.get(at).map(|range| range.start.max(*next))
            }
        };
        let Some(first) = first else {
            *next = self.geometry.blocks();
            return Ok(None);
        };
        let index = first / FANOUT as u64;
        let whole = index * FANOUT as u64..self.geometry.blocks().min((index + 1) * FANOUT as u64);
        *next = whole.end;
        let changed = match &self.changed {
            None => std::iter::once(whole).collect(),
            Some(changed) => within(changed, &whole),
        };
        let mut runs = Vec::new();
        for blocks in &changed {
            self.add_data(blocks, &mut runs)?;
        }
        Ok(Some(Piece {
            index,
            changed,
            runs,
        }))
    }

    /// Adds those of these blocks that may hold data.
    fn add_data(&self, blocks: &Range<u64>, runs: &mut Vec<Range<u64>>) -> Result<(), DiskError> {
        let block_bytes = u64::from(self.geometry.block_bytes);
        let range = blocks.start * block_bytes..self.geometry.block_range(blocks.end - 1).end;
        let mut at = range.start;
        while at < range.end
            && let Some((start, end)) = self.next_data(at)?
            && start < range.end
        {
            let found = start / block_bytes..end.min(range.end).div_ceil(block_bytes);
            match runs.last_mut() {
                Some(last) if found.start <= last.end => last.end = last.end.max(found.end),
                _ => runs.push(found),
            }
            at = end;
        }
        Ok(())
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

    /// How many bytes there may be to read: of data by the disk's extents, or
    /// of changed blocks, holes among them, where these are known.
    pub fn bytes_to_read(&self) -> Result<u64, DiskError> {
        if let Some(changed) = &self.changed {
            let bytes = |blocks: &Range<u64>| {
                self.geometry.block_range(blocks.end - 1).end
                    - self.geometry.block_range(blocks.start).start
            };
            return Ok(changed.iter().map(bytes).sum());
        }
        let (mut sum, mut at) = (0, 0);
        while let Some((start, end)) = self.next_data(at)? {
            sum += end - start;
            at = end;
        }
        Ok(sum)
    }

    /// Reads a piece, puts the ids of its changed blocks in their places, and
    /// gives those of each read that are not zero to `each`. Returns how much was read.
    pub fn read_piece(
        &self,
        piece: &Piece,
        ids: &mut [ChunkId; FANOUT],
        (hasher, stop): (&Hasher, &Stop),
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&[BlockRead<'_>]) -> Result<()>,
    ) -> Result<u64> {
        for block in piece.changed.iter().cloned().flatten() {
            ids[slot_of(block)] = ChunkId::ZERO;
        }
        let mut read_bytes = 0;
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
                        ids[slot_of(block)] = id;
                        read.push(BlockRead { block, id, plain });
                    }
                }
                each(&read)?;
                stop.progress().advance(bytes.len() as u64);
                read_bytes += bytes.len() as u64;
            }
        }
        Ok(read_bytes)
    }

    /// The ids of some blocks of the disk, in their order, and how many bytes
    /// were read for them: none of a disk that tells its ids.
    pub fn ids_of(
        &self,
        hasher: &Hasher,
        blocks: &[u64],
        buffer: &mut Vec<u8>,
    ) -> Result<(Vec<ChunkId>, u64), DiskError> {
        let mut ids = Vec::with_capacity(blocks.len());
        let mut read_bytes = 0;
        if let Some(distant) = self.reader.distant() {
            for blocks in blocks.chunks(IDS_MAX) {
                let told = distant.block_ids(blocks)?;
                ids.extend(told.into_iter().map(ChunkId));
            }
            return Ok((ids, 0));
        }
        for block in blocks {
            let range = self.geometry.block_range(*block);
            let extent = self.reader.extent_at(range.start)?;
            if !extent.data && extent.end() >= range.end {
                ids.push(ChunkId::ZERO);
                continue;
            }
            let plain = self.read_blocks(*block..block + 1, buffer)?;
            read_bytes += plain.len() as u64;
            ids.push(match is_zero(plain) {
                true => ChunkId::ZERO,
                false => hasher.id(ChunkKind::Block, plain),
            });
        }
        Ok((ids, read_bytes))
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

/// A block's place under its node of level 1.
pub(crate) fn slot_of(block: u64) -> usize {
    (block % FANOUT as u64) as usize
}

/// The parts of sorted ranges that lie within another.
fn within(ranges: &[Range<u64>], whole: &Range<u64>) -> Vec<Range<u64>> {
    let first = ranges.partition_point(|range| range.end <= whole.start);
    ranges[first..]
        .iter()
        .take_while(|range| range.start < whole.end)
        .map(|range| range.start.max(whole.start)..range.end.min(whole.end))
        .collect()
}

#[cfg(test)]
#[path = "scan/tests.rs"]
mod tests;
