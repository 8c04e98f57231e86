//! A disk at the other end.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::ResourceId;
use cairn_types::disk::{
    BLOCKS_MAX, BlockId, DiskError, DiskOperation, DiskReader, DistantDisk, Extent, IDS_MAX,
    NoChangeMap, Point,
};

use super::{Shared, UNEXPECTED};
use crate::answering::BLOCK_BYTES;
use crate::error::{Error, Result};
use crate::frame;
use crate::message::{Answer, Question};

/// A disk at the other end.
pub(super) struct Remote {
    pub shared: Arc<Shared>,
    pub disk: ResourceId,
    pub size_bytes: u64,
    pub point: Option<Point>,
    /// Neighbouring runs that were told last.
    pub runs: Mutex<Vec<Extent>>,
}

impl Remote {
    /// Asks from a thread that may block.
    fn ask(
        &self,
        operation: DiskOperation,
        offset: u64,
        question: &Question,
    ) -> Result<Answer, DiskError> {
        let answered = self.shared.handle.block_on(self.shared.ask(question));
        answered.map_err(|error| self.failed(operation, offset, error))
    }

    fn failed(&self, operation: DiskOperation, offset: u64, error: Error) -> DiskError {
        let name = format!("disk {} of the other end", self.disk);
        error.of_disk(&name, operation, offset)
    }

    /// Where a block lies; of none behind the end.
    fn length_of(&self, block: u64) -> usize {
        let start = block.saturating_mul(BLOCK_BYTES).min(self.size_bytes);
        usize::try_from(BLOCK_BYTES.min(self.size_bytes - start)).expect("a block is small")
    }

    fn runs_from(&self, offset: u64) -> Result<Vec<Extent>> {
        let question = Question::Extents {
            disk: self.disk,
            offset,
        };
        let Answer::Extents(told) = self.shared.handle.block_on(self.shared.ask(&question))? else {
            return Err(UNEXPECTED);
        };
        let (mut at, mut runs) = (offset, Vec::with_capacity(told.len()));
        for (length, data) in told {
            let end = at.saturating_add(length);
            if length == 0 || end > self.size_bytes {
                return Err(Error::Malformed("a run leaves the disk"));
            }
            runs.push(Extent {
                offset: at,
                length,
                data,
            });
            at = end;
        }
        match runs.is_empty() {
            true => Err(Error::Malformed("it tells of no run")),
            false => Ok(runs),
        }
    }

    fn all_changes(&self, point: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let no = |why: &str| NoChangeMap(why.to_owned());
        let mut all: Vec<Range<u64>> = Vec::new();
        loop {
            let question = Question::Changes {
                disk: self.disk,
                point: point.clone(),
                from: all.last().map_or(0, |range| range.end),
            };
            let asked = self.shared.handle.block_on(self.shared.ask(&question));
            match asked.map_err(|error| NoChangeMap(error.to_string()))? {
                Answer::Changes { ranges, more } => {
                    let last_end = all.last().map_or(0, |range| range.end);
                    let ordered = ranges.is_sorted_by(|a, b| a.end <= b.start);
                    let sound = ranges.iter().all(|range| range.start < range.end);
                    let follows = ranges.first().is_none_or(|range| range.start >= last_end);
                    if !(ordered && sound && follows) || more && ranges.is_empty() {
                        return Err(no("the other end's list of changes is not in order"));
                    }
                    all.extend(ranges);
                    if !more {
                        return Ok(all);
                    }
                }
                Answer::NoChangeMap(why) => return Err(NoChangeMap(why)),
                _ => return Err(no("the other end answers another question")),
            }
        }
    }
}

impl DiskReader for Remote {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let at = runs.partition_point(|run| run.end() <= offset);
        let known = runs.get(at).filter(|run| run.offset <= offset).copied();
        let run = match known {
            Some(run) => run,
            None => {
                let told = self.runs_from(offset);
                *runs = told.map_err(|error| self.failed(DiskOperation::Map, offset, error))?;
                runs[0]
            }
        };
        Ok(Extent {
            offset,
            length: run.end() - offset,
            data: run.data,
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let block = at / BLOCK_BYTES;
            let inside = usize::try_from(at % BLOCK_BYTES).expect("a block is small");
            let blocks =
                (inside + rest.len()).div_ceil(usize::try_from(BLOCK_BYTES).expect("it is"));
            let blocks: Vec<u64> = (block..).take(blocks.min(BLOCKS_MAX)).collect();
            let plain = self.read_blocks(&blocks)?.concat();
            let part = plain.get(inside..).unwrap_or_default();
            let length = part.len().min(rest.len());
            if length == 0 {
                let error = Error::Malformed("it is asked for what lies behind the disk's end");
                return Err(self.failed(DiskOperation::Read, at, error));
            }
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&part[..length]);
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }

    /// A backup does not change.
    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn point(&self) -> Option<Point> {
        self.point.clone()
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        self.all_changes(earlier)
    }

    fn distant(&self) -> Option<&dyn DistantDisk> {
        Some(self)
    }
}

impl DistantDisk for Remote {
    fn block_ids(&self, blocks: &[u64]) -> Result<Vec<BlockId>, DiskError> {
        debug_assert!(blocks.len() <= IDS_MAX, "the caller asks for few at a time");
        let Some(first) = blocks.first() else {
            return Ok(Vec::new());
        };
        let offset = first.saturating_mul(BLOCK_BYTES);
        let question = Question::Ids {
            disk: self.disk,
            blocks: blocks.to_vec(),
        };
        match self.ask(DiskOperation::Read, offset, &question)? {
            Answer::Ids(ids) if ids.len() == blocks.len() => Ok(ids),
            _ => Err(self.failed(DiskOperation::Read, offset, UNEXPECTED)),
        }
    }

    fn read_blocks(&self, blocks: &[u64]) -> Result<Vec<Vec<u8>>, DiskError> {
        debug_assert!(
            blocks.len() <= BLOCKS_MAX,
            "the caller asks for few at a time"
        );
        let Some(first) = blocks.first() else {
            return Ok(Vec::new());
        };
        let offset = first.saturating_mul(BLOCK_BYTES);
        let question = Question::Blocks {
            disk: self.disk,
            blocks: blocks.to_vec(),
        };
        let failed = |error| self.failed(DiskOperation::Read, offset, error);
        let Answer::Blocks(packed) = self.ask(DiskOperation::Read, offset, &question)? else {
            return Err(failed(UNEXPECTED));
        };
        let lengths = blocks.iter().map(|block| self.length_of(*block));
        let plain = frame::decompress(&packed, lengths.clone().sum()).map_err(failed)?;
        let mut rest = &plain[..];
        let mut cut = |length| {
            let (block, later) = rest.split_at(length);
            rest = later;
            block.to_vec()
        };
        Ok(lengths.map(&mut cut).collect())
    }
}
