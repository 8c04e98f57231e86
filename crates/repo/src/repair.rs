//! Repair: taking damaged packs out of use.
//!
//! A damaged frame costs the backups that need it, and would cost every later
//! backup that meets the same bytes and takes them for stored. Repair copies
//! what is whole out of a damaged pack and removes the pack; what was lost is
//! then in no pack, so the next backup of the same bytes stores them anew, and
//! the backups that were hurt are whole again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use cairn_types::Progress;

use crate::error::{Error, Result};
use crate::frames::{FrameCheck, FrameKey};
use crate::known::Known;
use crate::pack::PackId;
use crate::project::{Gate, Inner, or_corrupt};
use crate::rewrite::{PackCopy, Rewrite};
use crate::workers::{Stop, StopOnDrop};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Damaged packs whose whole frames are in new packs now.
    pub packs: Vec<PackId>,
    /// Chunks that were lost with the damaged frames.
    pub lost_chunks: u64,
}

pub(crate) async fn repair(project: &Arc<Inner>, progress: Arc<Progress>) -> Result<Repaired> {
    let gate = project.enter_alone()?;
    project.forget_known().await;
    let result = repair_alone(project, gate, progress).await;
    project.forget_known().await;
    result
}

async fn repair_alone(
    project: &Arc<Inner>,
    gate: Arc<Gate>,
    progress: Arc<Progress>,
) -> Result<Repaired> {
    let stop = Stop::new(progress.clone());
    let _stop = StopOnDrop(stop.clone());
    let known = project.known().await?;
    let check = FrameCheck {
        _gate: gate.clone(),
        project: project.clone(),
        known: known.clone(),
        stop: stop.clone(),
    };
    let (bad, _) = check.run().await?;
    let damaged = damaged_packs(project, &known, &bad).await?;
    let copies: Vec<PackCopy> = damaged
        .iter()
        .map(|pack| whole_frames(&known, *pack, &bad))
        .collect::<Result<_>>()?;
    let lost = copies.iter().flat_map(|copy| copy.live.iter().flatten());
    let lost_chunks = lost.filter(|whole| !**whole).count() as u64;
    let rewrite = Rewrite {
        gate,
        project: project.clone(),
        known,
        progress,
    };
    let packs = rewrite.copy(copies).await?;
    rewrite.remove(&packs.iter().copied().collect()).await?;
    stop.complete();
    Ok(Repaired { packs, lost_chunks })
}

/// Packs of the index with a damaged frame, or whose own table cannot be read.
async fn damaged_packs(
    project: &Inner,
    known: &Known,
    bad: &HashSet<FrameKey>,
) -> Result<BTreeSet<u32>> {
    let mut damaged: BTreeSet<u32> = bad.iter().map(|(pack, _)| *pack).collect();
    for (id, size) in project.pack_sizes().await? {
        if or_corrupt(project.read_pack_table(id, size).await)?.is_none() {
            damaged.extend(known.index().number(id));
        }
    }
    Ok(damaged)
}

/// All chunks of a pack but those of damaged frames.
fn whole_frames(known: &Known, number: u32, bad: &HashSet<FrameKey>) -> Result<PackCopy> {
    let pack = known.index().pack(number)?.ok_or(Error::InUse)?;
    let whole = |frame: usize| !bad.contains(&(number, frame as u16));
    let live = (0..pack.frames.len())
        .map(|frame| vec![whole(frame); pack.chunks_of(frame).len()])
        .collect();
    Ok(PackCopy {
        id: pack.id,
        frames: pack.frames.clone(),
        live,
    })
}
