//! Repair: making damaged packs anew, or taking them out of use.
//!
//! What parity can make anew is as it was written, and nothing else happens to it.
//! A damaged frame costs the backups that need it, and would cost every later
//! backup that meets the same bytes and takes them for stored. Repair copies
//! what is whole out of a damaged pack and removes the pack; what was lost is
//! then in no pack, so the next backup of the same bytes stores them anew, and
//! the backups that were hurt are whole again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use cairn_types::Progress;

use crate::error::Result;
use crate::frame::FrameKey;
use crate::frames::{Checked, FrameCheck};
use crate::known::Known;
use crate::losses::chunks_of_bad_frames;
use crate::marks::Bits;
use crate::objects::or_corrupt;
use crate::pack::PackId;
use crate::parity::Keeper;
use crate::project::Inner;
use crate::removal::Removal;
use crate::rewrite::{self, PackCopy};
use crate::workers::{self, Stop, StopOnDrop};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Damaged packs whose whole frames are in new packs now.
    pub packs: Vec<PackId>,
    /// Packs that were lost or damaged and are whole again, by parity.
    pub healed: Vec<PackId>,
    /// Chunks that were lost with the damaged frames.
    pub lost_chunks: u64,
}

pub(crate) async fn repair(project: &Arc<Inner>, progress: Arc<Progress>) -> Result<Repaired> {
    let _alone = project.turn_to_collect().await?;
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let mut removal = Removal::begin(project).await?;
    let known = removal.known().clone();
    let keeper = Keeper::new(project, known.clone(), &stop);
    let mut healed = keeper.heal_lost(&mut removal).await?;
    let check = FrameCheck {
        project: project.clone(),
        known: known.clone(),
        stop: stop.clone(),
    };
    let checked = check.run().await?;
    let mut damaged = damaged_packs(project, &known, &checked).await?;
    let index = known.index();
    let hurt = damaged.iter().filter_map(|number| index.pack_size(*number));
    let whole_again = keeper.heal(hurt.map(|(pack, _)| pack).collect()).await?;
    for number in whole_again.iter().filter_map(|pack| index.number(*pack)) {
        damaged.remove(&number);
    }
    healed.extend(whole_again);
    let this = known.clone();
    let candidates: HashSet<u32> = removal.candidates().await?.into_iter().collect();
    let (mut copies, lost_chunks) =
        workers::one(move || quarantine(&this, &damaged, &checked.bad_frames)).await?;
    if lost_chunks > 0 {
        project.note_loss().await?;
    }
    // Who is at writing one of the others finds it damaged himself, or the next repair does.
    copies.retain(|copy| candidates.contains(&copy.number));
    let rewritten = rewrite::copy(project, &known, &stop, copies).await?;
    if !rewritten.packs.is_empty() {
        removal.condemn_and_remove(rewritten.packs.clone()).await?;
    }
    removal.tidy().await?;
    keeper.protect(&keeper.damaged_objects().await?).await?;
    stop.complete();
    Ok(Repaired {
        packs: rewritten.packs,
        healed,
        lost_chunks,
    })
}

/// Packs of the index that are not as they were written, or whose own table cannot be read.
async fn damaged_packs(project: &Inner, known: &Known, checked: &Checked) -> Result<BTreeSet<u32>> {
    let mut damaged: BTreeSet<u32> = checked.bad_packs.keys().copied().collect();
    for (id, size) in project.pack_sizes().await? {
        if or_corrupt(project.read_pack_table(id, size).await)?.is_none() {
            damaged.extend(known.index().number(id));
        }
    }
    Ok(damaged)
}

/// Makes the chunks of damaged frames unknown to whoever writes. Returns all
/// others of the packs, and how many are lost.
fn quarantine(
    known: &Known,
    packs: &BTreeSet<u32>,
    bad: &HashSet<FrameKey>,
) -> Result<(Vec<PackCopy>, u64)> {
    let (mut copies, mut lost_chunks) = (Vec::new(), 0);
    for number in packs {
        let Some(pack) = known.index().pack(*number)? else {
            continue;
        };
        let lost = chunks_of_bad_frames(*number, &pack, bad);
        lost_chunks += lost.count(0..pack.chunks as usize) as u64;
        known.set_damaged(*number, lost.clone());
        copies.push(PackCopy {
            number: *number,
            live: lost.complement(pack.chunks),
            hot: Bits::default(),
            pack,
        });
    }
    Ok((copies, lost_chunks))
}
