//! What trees reach, chunk by chunk: one bit for each, which also says which
//! nodes have been walked.

use std::ops::Range;
use std::sync::Arc;

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::index::Place;
use crate::known::Known;
use crate::manifest::Content;
use crate::marks::{Bits, Marks};
use crate::project::Inner;
use crate::read::{ChunkReader, Visit};
use crate::workers::Stop;

/// Blocks that are looked up in the index at a time.
const LOOK_UPS: usize = 4096;

/// All that is reached so far. A node that is marked has been walked, and all
/// below it is marked in the same way or as hot.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// By what is likely to be restored next.
    hot: Marks,
    /// By anything else.
    marks: Marks,
}

/// Whose tree it is that is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heat {
    /// A resource's newest backup: the one that is restored, if any is. These
    /// are walked before all others.
    Hot,
    Cold,
}

impl Reached {
    /// What is reached of a pack.
    pub fn of_pack(&self, pack: u32) -> Bits {
        let mut all = self.hot_of_pack(pack);
        if let Some(cold) = self.marks.pack(pack) {
            all.merge(cold);
        }
        all
    }

    /// What newest backups reach of a pack.
    pub fn hot_of_pack(&self, pack: u32) -> Bits {
        self.hot.pack(pack).cloned().unwrap_or_default()
    }

    /// Marks a chunk. Whether that says anything new.
    fn mark(&mut self, place: Place, heat: Heat) -> bool {
        match heat {
            Heat::Hot => self.hot.set(place),
            Heat::Cold => !self.hot.contains(place) && self.marks.set(place),
        }
    }

    /// Marks what a backup's content reaches. Returns how many blocks are in no
    /// pack: nothing can be kept of those. Blocks.
    ///
    /// Errors: `Corrupt` a node cannot be read, so what is below it is not known.
    pub fn walk(
        &mut self,
        project: &Arc<Inner>,
        known: &Arc<Known>,
        stop: &Stop,
        (content, heat): (&Content, Heat),
    ) -> Result<u64> {
        let mut reader = ChunkReader::new(project.clone(), known.clone());
        let mut walk = Walk {
            reached: self,
            heat,
            known,
            stop,
            blocks: Vec::new(),
            missing: 0,
        };
        reader.walk_content(content, &mut walk)?;
        walk.mark_blocks()?;
        Ok(walk.missing)
    }
}

struct Walk<'w> {
    reached: &'w mut Reached,
    heat: Heat,
    known: &'w Known,
    stop: &'w Stop,
    /// Blocks that have not been looked up.
    blocks: Vec<ChunkId>,
    missing: u64,
}

impl Walk<'_> {
    fn mark_blocks(&mut self) -> Result<()> {
        let keys: Vec<_> = self.blocks.drain(..).map(|id| id.key()).collect();
        for place in self.known.index().get_many(&keys)? {
            match place {
                Some(place) => {
                    self.reached.mark(place, self.heat);
                }
                None => self.missing += 1,
            }
        }
        Ok(())
    }
}

impl Visit for Walk<'_> {
    fn enter(&mut self, id: ChunkId) -> Result<bool> {
        self.stop.check()?;
        let place = self.known.index().get(&id.key())?;
        let place = place.ok_or(Error::NoChunk { id })?;
        Ok(self.reached.mark(place, self.heat))
    }

    fn zeros(&mut self, _: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn block(&mut self, _: u64, id: ChunkId) -> Result<()> {
        self.piece(id)
    }

    fn piece(&mut self, id: ChunkId) -> Result<()> {
        self.blocks.push(id);
        if self.blocks.len() < LOOK_UPS {
            Ok(())
        } else {
            self.mark_blocks()
        }
    }
}
