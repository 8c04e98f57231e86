//! What trees reach, chunk by chunk: one bit for each, which also says which
//! nodes have been walked.

use std::ops::Range;
use std::sync::Arc;

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::known::Known;
use crate::manifest::Content;
use crate::marks::{Bits, Marks};
use crate::project::Inner;
use crate::read::{ChunkReader, Visit};
use crate::workers::Stop;

/// Blocks that are looked up in the index at a time.
const LOOK_UPS: usize = 4096;

/// All that is reached so far.
#[derive(Debug, Default)]
pub(super) struct Reached {
    marks: Marks,
}

impl Reached {
    /// What is reached of a pack.
    pub fn of_pack(&self, pack: u32) -> Bits {
        self.marks.pack(pack).cloned().unwrap_or_default()
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
        content: &Content,
    ) -> Result<u64> {
        let mut reader = ChunkReader::new(project.clone(), known.clone());
        let mut walk = Walk {
            marks: &mut self.marks,
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
    marks: &'w mut Marks,
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
                    self.marks.set(place);
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
        Ok(self.marks.set(place.ok_or(Error::NoChunk { id })?))
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
