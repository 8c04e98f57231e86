//! The backup that a new one of the same disk is based on, where the disk's
//! source knows what has changed since.
//!
//! Only changed blocks are read then, and only nodes above them; every other
//! part of the tree is taken over by its id. What the source says is a hint and
//! is held against samples of the disk; what the base's tree says is believed
//! only as long as nothing of it is missing. Where either is in doubt the base
//! is dropped and the whole disk read, as if there had been none.

use std::ops::Range;
use std::sync::OnceLock;

use cairn_types::disk::NoChangeMap;

use crate::chunk::{ChunkId, ChunkKind, is_zero};
use crate::error::{Error, Result};
use crate::known::Pin;
use crate::losses::LossMark;
use crate::manifest::Content;
use crate::project::Inner;
use crate::random;
use crate::read::ChunkReader;
use crate::scan::{Scan, slot_of};
use crate::tree::{FANOUT, Geometry};
use crate::write::WriteDisk;

/// Of so many unchanged blocks one is read all the same.
const BLOCKS_A_SAMPLE: u64 = 1000;
/// Samples at most: 12 MiB. A false hint is found by the number of samples, however large the
/// disk is: one that leaves out 2 % of it with 98 %.
const SAMPLES_MAX: u64 = 192;
/// As many of a disk at the other end of a line: it is a backup, and knows its changes.
const DISTANT_SAMPLES_MAX: u64 = 16;
/// How often a sample that falls into a hole is drawn again.
const DRAWS: usize = 8;

/// What a new backup takes over.
pub(crate) struct Base {
    pub geometry: Geometry,
    /// The top; as a node of the uppermost level of the new disk's tree, too.
    pub top: ChunkId,
    /// Bytes in its blocks that are not zero.
    pub data_bytes: u64,
    /// The blocks of the new disk that may differ, sorted and apart.
    pub changed: Vec<Range<u64>>,
    /// Keeps what is taken over.
    _pin: Pin,
    /// Why nothing is taken over after all.
    doubt: OnceLock<NoChangeMap>,
}

impl Base {
    /// The base of a new backup, or why everything is read.
    pub async fn find(
        project: &Inner,
        job: &WriteDisk,
        geometry: Geometry,
        losses: LossMark,
    ) -> Result<Self, NoChangeMap> {
        let no = |why: &str| NoChangeMap(why.to_owned());
        if job.reread_all {
            return Err(no("a backup of all data was asked for"));
        }
        let parent = job
            .parent
            .ok_or_else(|| no("there is no earlier backup of the disk"))?;
        let found = project.pin(parent).await;
        let (manifest, _, pin) = found.map_err(|error| NoChangeMap(error.to_string()))?;
        let Content::Disk {
            geometry: before,
            top,
            data_bytes,
            losses: losses_then,
            point,
            ..
        } = manifest.content
        else {
            return Err(no("the earlier backup is not one of a disk"));
        };
        if manifest.info.resource != job.info.resource {
            return Err(no("the earlier backup is one of another disk"));
        }
        if losses != losses_then {
            return Err(no("chunks were lost since the earlier backup"));
        }
        if geometry.size_bytes < before.size_bytes {
            return Err(no("the disk is smaller than it was"));
        }
        let point = point.ok_or_else(|| no("the earlier backup names no point in time"))?;
        let reader = job.reader.clone();
        let asked = tokio::task::spawn_blocking(move || reader.changes_since(&point)).await;
        let changes = asked.unwrap_or_else(|_| Err(no("its source failed")))?;
        Ok(Self {
            geometry: before,
            top,
            data_bytes,
            changed: changed_blocks(&changes, before, geometry),
            _pin: pin,
            doubt: OnceLock::new(),
        })
    }

    /// The children of a node of this tree, made as high as the new disk's:
    /// its old top is the first child of the first child.
    pub fn children(
        &self,
        reader: &mut ChunkReader,
        level: u8,
        id: ChunkId,
    ) -> Result<[ChunkId; FANOUT]> {
        if level > self.geometry.height() {
            let mut children = [ChunkId::ZERO; FANOUT];
            children[0] = id;
            return Ok(children);
        }
        let read = reader.node(id, level);
        read.map_err(|error| self.doubt("the earlier backup's tree cannot be read", error))
    }

    /// The children of the node of level 1 at this place in the line of such nodes.
    pub fn leaf(&self, reader: &mut ChunkReader, index: u64) -> Result<[ChunkId; FANOUT]> {
        let (mut id, mut level) = (self.top, self.geometry.height());
        let span = |level: u8| (FANOUT as u64).pow(u32::from(level) - 1);
        if index >= span(level) {
            return Ok([ChunkId::ZERO; FANOUT]);
        }
        while !id.is_zero() {
            let children = self.children(reader, level, id)?;
            if level == 1 {
                return Ok(children);
            }
            level -= 1;
            id = children[(index / span(level) % FANOUT as u64) as usize];
        }
        Ok([ChunkId::ZERO; FANOUT])
    }

    /// Reads some of the blocks that are said to be unchanged. Returns how many bytes.
    pub fn check_samples(&self, scan: &Scan, reader: &mut ChunkReader) -> Result<u64> {
        let unchanged = Unchanged::new(self.geometry.blocks(), &self.changed);
        let count = match scan.reader.distant() {
            Some(_) => unchanged.samples().min(DISTANT_SAMPLES_MAX),
            None => unchanged.samples(),
        };
        let mut samples = (0..count)
            .map(|_| unchanged.draw(scan))
            .collect::<Result<Vec<_>>>()?;
        samples.sort_unstable();
        samples.dedup();
        let mut leaf = None;
        let (now, read_bytes) = scan.ids_of(reader.hasher(), &samples, &mut Vec::new())?;
        for (block, now) in samples.into_iter().zip(now) {
            let index = block / FANOUT as u64;
            let ids = match leaf {
                Some((at, ids)) if at == index => ids,
                _ => self.leaf(reader, index)?,
            };
            leaf = Some((index, ids));
            self.hold_against(block, ids[slot_of(block)], now)?;
        }
        Ok(read_bytes)
    }

    /// Holds a block that is said to be unchanged against its id in the base.
    pub fn compare(
        &self,
        reader: &ChunkReader,
        (block, before): (u64, ChunkId),
        plain: &[u8],
    ) -> Result<()> {
        let now = match is_zero(plain) {
            true => ChunkId::ZERO,
            false => reader.hasher().id(ChunkKind::Block, plain),
        };
        self.hold_against(block, before, now)
    }

    fn hold_against(&self, block: u64, before: ChunkId, now: ChunkId) -> Result<()> {
        if now == before {
            return Ok(());
        }
        let offset = self.geometry.block_range(block).start;
        Err(self.doubt(
            "a block that its source says is unchanged has changed",
            Error::DiskChanged { offset },
        ))
    }

    /// Drops the base; the error ends this attempt.
    fn doubt(&self, why: &str, error: Error) -> Error {
        tracing::warn!(
            error = &error as &(dyn std::error::Error + 'static),
            "{why}: the whole disk is read"
        );
        self.doubt.get_or_init(|| NoChangeMap(why.to_owned()));
        error
    }

    /// Why the base was dropped, if it was.
    pub fn doubted(&self) -> Option<&NoChangeMap> {
        self.doubt.get()
    }
}

/// The blocks that these bytes touch, and those by which the disk has grown.
fn changed_blocks(changes: &[Range<u64>], before: Geometry, now: Geometry) -> Vec<Range<u64>> {
    let block_bytes = u64::from(now.block_bytes);
    let of_bytes = |range: &Range<u64>| range.start / block_bytes..range.end.div_ceil(block_bytes);
    let grown = before.size_bytes..now.size_bytes;
    let on_disk = |range: &Range<u64>| range.start..range.end.min(now.size_bytes);
    let mut blocks: Vec<_> = changes
        .iter()
        .map(on_disk)
        .chain([grown])
        .filter(|range| !range.is_empty())
        .map(|range| of_bytes(&range))
        .collect();
    blocks.sort_unstable_by_key(|range| range.start);
    blocks.dedup_by(|next, last| {
        let touch = next.start <= last.end;
        if touch {
            last.end = last.end.max(next.end);
        }
        touch
    });
    blocks
}

/// The blocks of the base that are said to be unchanged.
struct Unchanged {
    /// In order, with how many such blocks come before each.
    ranges: Vec<(u64, Range<u64>)>,
    count: u64,
}

impl Unchanged {
    fn new(blocks: u64, changed: &[Range<u64>]) -> Self {
        let (mut ranges, mut count, mut at) = (Vec::new(), 0, 0);
        let end = blocks..blocks;
        for range in changed.iter().chain([&end]) {
            let free = at..range.start.min(blocks);
            at = range.end;
            if !free.is_empty() {
                ranges.push((count, free.clone()));
                count += free.end - free.start;
            }
        }
        Self { ranges, count }
    }

    fn samples(&self) -> u64 {
        self.count.div_ceil(BLOCKS_A_SAMPLE).min(SAMPLES_MAX)
    }

    /// Any of the blocks, one with data if it can be found soon.
    fn draw(&self, scan: &Scan) -> Result<u64> {
        let mut block = self.pick();
        for _ in 1..DRAWS {
            let start = scan.geometry.block_range(block).start;
            let extent = scan.reader.extent_at(start)?;
            if extent.data || extent.end() < scan.geometry.block_range(block).end {
                break;
            }
            block = self.pick();
        }
        Ok(block)
    }

    fn pick(&self) -> u64 {
        let number = u64::from_le_bytes(random::bytes()) % self.count;
        let at = self.ranges.partition_point(|(before, _)| *before <= number) - 1;
        let (before, range) = &self.ranges[at];
        range.start + (number - before)
    }
}

#[cfg(test)]
#[path = "base/tests.rs"]
mod tests;
