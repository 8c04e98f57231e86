//! Where two stored disks of a project differ: both trees are walked together, and
//! a subtree that both have is not looked into.

use std::ops::Range;

use crate::chunk::ChunkId;
use crate::error::Result;
use crate::read::ChunkReader;
use crate::tree::{FANOUT, Geometry};

/// A disk's tree.
type Tree = (Geometry, ChunkId);

/// The byte ranges of `now` where it may differ from `before`, in order. What it has
/// behind the end of `before` counts as different.
pub(crate) fn between(
    reader: &mut ChunkReader,
    before: Tree,
    now: Tree,
) -> Result<Vec<Range<u64>>> {
    let level = before.0.height().max(now.0.height());
    let mut walk = Walk {
        reader,
        before: before.0,
        now: now.0,
        changes: Vec::new(),
    };
    walk.node(level, 0, (before.1, now.1))?;
    let mut changes = walk.changes;
    let grown = before.0.size_bytes..now.0.size_bytes;
    if !grown.is_empty() {
        changes.retain(|range| range.start < grown.start);
        match changes.last_mut() {
            Some(last) if last.end >= grown.start => last.end = grown.end,
            _ => changes.push(grown),
        }
    }
    Ok(changes)
}

struct Walk<'r> {
    reader: &'r mut ChunkReader,
    before: Geometry,
    now: Geometry,
    changes: Vec<Range<u64>>,
}

impl Walk<'_> {
    /// Compares the nodes at a place in the line of their level; level 0 is a block.
    fn node(&mut self, level: u8, index: u64, (before, now): (ChunkId, ChunkId)) -> Result<()> {
        // Above the top of the lower tree its top stands for what would be there.
        let lowest_top = self.before.height().min(self.now.height());
        let comparable = level <= lowest_top || before.is_zero() && now.is_zero();
        if comparable && before == now {
            return Ok(());
        }
        if level == 0 || before.is_zero() || now.is_zero() {
            let span = self.now.span(level);
            self.add(index.saturating_mul(span), span);
            return Ok(());
        }
        let before = children(self.reader, self.before, level, before)?;
        let now = children(self.reader, self.now, level, now)?;
        for (slot, pair) in (0..).zip(before.into_iter().zip(now)) {
            self.node(level - 1, index * FANOUT as u64 + slot, pair)?;
        }
        Ok(())
    }

    fn add(&mut self, start: u64, span: u64) {
        let end = start.saturating_add(span).min(self.now.size_bytes);
        match self.changes.last_mut() {
            _ if start >= end => {}
            Some(last) if last.end == start => last.end = end,
            _ => self.changes.push(start..end),
        }
    }
}

/// The children of a node of a tree that is made as high as the other.
fn children(
    reader: &mut ChunkReader,
    geometry: Geometry,
    level: u8,
    id: ChunkId,
) -> Result<[ChunkId; FANOUT]> {
    if level <= geometry.height() {
        return reader.node(id, level);
    }
    let mut children = [ChunkId::ZERO; FANOUT];
    children[0] = id;
    Ok(children)
}
