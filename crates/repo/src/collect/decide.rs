//! What becomes of each pack: a pure function of how much of it is in use.

use std::cmp::Reverse;

/// A pack is written anew when more than one byte in this many is dead.
const DEAD_SHARE: u64 = 4;
/// Frames that newest backups need may hold one byte for so many of theirs that
/// is none of theirs, over all packs that stay.
const FOREIGN_SHARE: u64 = 3;
/// So that what is needed comes to lie closer together, one collection copies one
/// byte at most for so many that newest backups need, before one more pack, ...
const CLOSER_SHARE: u64 = 8;
/// ... and so many bytes at least, if there are so many.
const CLOSER_BYTES: u64 = 256 << 20;
/// A pack below this size is a small one.
const SMALL_BYTES: u64 = 16 << 20;
/// So many small packs are written together.
const SMALL_PACKS: usize = 32;
/// Live bytes that one round copies, before one more pack.
const ROUND_BYTES: u64 = 1 << 30;
/// Packs that one round takes away at most.
const ROUND_PACKS: usize = 4096;

/// How much of a pack is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes of its frames.
    pub bytes: u64,
    /// Those of them that somebody needs; never 0 if somebody needs any.
    pub live: u64,
    /// Those of them that newest backups need.
    pub hot: u64,
    /// Bytes of the frames that those are in: what a restore opens.
    pub opened: u64,
}

impl Usage {
    /// What a restore of newest backups opens for nothing.
    fn foreign(&self) -> u64 {
        self.opened.saturating_sub(self.hot)
    }
}

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Keep,
    /// Nobody needs any of it: it goes.
    Drop,
    /// What is needed is copied, then it goes.
    Rewrite,
}

/// Decides on every pack.
pub(crate) fn fates(packs: &[Usage]) -> Vec<Fate> {
    let small = |pack: &&Usage| pack.live > 0 && pack.bytes < SMALL_BYTES;
    let merge = packs.iter().filter(small).count() >= SMALL_PACKS;
    let fate = |pack: &Usage| {
        if pack.live == 0 {
            Fate::Drop
        } else if (pack.bytes - pack.live) * DEAD_SHARE > pack.bytes || merge && small(&pack) {
            Fate::Rewrite
        } else {
            Fate::Keep
        }
    };
    let mut fates: Vec<Fate> = packs.iter().map(fate).collect();
    bring_closer(packs, &mut fates);
    fates
}

/// Has packs rewritten whose frames hold too much that newest backups do not
/// need: those first that gain most for what is copied.
fn bring_closer(packs: &[Usage], fates: &mut [Fate]) {
    let hot: u64 = packs.iter().map(|pack| pack.hot).sum();
    let mut stay: Vec<usize> = (0..packs.len())
        .filter(|at| fates[*at] == Fate::Keep && packs[*at].foreign() > 0)
        .collect();
    let mut foreign: u64 = stay.iter().map(|at| packs[*at].foreign()).sum();
    let gain = |at: &usize| packs[*at].foreign().saturating_mul(1 << 20) / packs[*at].live.max(1);
    stay.sort_by_key(|at| (Reverse(gain(at)), *at));
    let (mut copied, limit) = (0, CLOSER_BYTES.max(hot / CLOSER_SHARE));
    for at in stay {
        if foreign <= hot / FOREIGN_SHARE || copied >= limit {
            return;
        }
        fates[at] = Fate::Rewrite;
        foreign -= packs[at].foreign();
        copied += packs[at].live;
    }
}

/// Cuts what is not kept into rounds, by the packs' places in the list: first
/// what costs nothing, then what frees most for what it costs.
pub(crate) fn rounds(packs: &[Usage], fates: &[Fate]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..packs.len())
        .filter(|at| fates[*at] != Fate::Keep)
        .collect();
    let share = |at: &usize| packs[*at].live.saturating_mul(1 << 20) / packs[*at].bytes.max(1);
    order.sort_by_key(|at| (packs[*at].live > 0, share(at), *at));
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut copied = u64::MAX;
    for at in order {
        let live = packs[at].live;
        match rounds.last_mut() {
            Some(round)
                if round.len() < ROUND_PACKS
                    && copied < ROUND_BYTES
                    && (copied > 0 || live == 0) =>
            {
                round.push(at);
                copied += live;
            }
            _ => {
                rounds.push(vec![at]);
                copied = live;
            }
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn usage() -> impl Strategy<Value = Usage> {
        let bytes = prop_oneof![1..SMALL_BYTES, SMALL_BYTES..80 << 20];
        (bytes, 0..=100u64, 0..=100u64, 0..=100u64, any::<bool>()).prop_map(
            |(bytes, live, hot, opened, any)| {
                let live = if any { (bytes * live / 100).max(1) } else { 0 };
                let hot = live * hot / 100;
                let opened = if hot > 0 {
                    hot + (bytes - hot) * opened / 100
                } else {
                    0
                };
                Usage {
                    bytes,
                    live,
                    hot,
                    opened,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_needed_stays_and_the_rest_goes(
            packs in prop::collection::vec(usage(), 0..200),
        ) {
            let fates = fates(&packs);
            let (mut dead, mut all) = (0, 0);
            for (pack, fate) in packs.iter().zip(&fates) {
                prop_assert_eq!(*fate == Fate::Drop, pack.live == 0);
                if *fate == Fate::Keep {
                    dead += pack.bytes - pack.live;
                    all += pack.bytes;
                }
            }
            prop_assert!(dead * DEAD_SHARE <= all, "too much stays that is dead");
            let small = |at: &usize| fates[*at] == Fate::Keep && packs[*at].bytes < SMALL_BYTES;
            prop_assert!((0..packs.len()).filter(small).count() < SMALL_PACKS);
        }

        #[test]
        fn what_is_restored_together_comes_to_lie_together(
            packs in prop::collection::vec(usage(), 0..400),
        ) {
            let fates = fates(&packs);
            let hot: u64 = packs.iter().map(|pack| pack.hot).sum();
            let with = |fate| packs.iter().zip(&fates).filter(move |(_, f)| **f == fate);
            let foreign: u64 = with(Fate::Keep).map(|(pack, _)| pack.foreign()).sum();
            let before: Vec<Usage> =
                packs.iter().map(|pack| Usage { hot: 0, opened: 0, ..*pack }).collect();
            let without = super::fates(&before);
            let closer: Vec<u64> = (0..packs.len())
                .filter(|at| fates[*at] != without[*at])
                .map(|at| packs[at].live)
                .collect();
            let (copied, limit) = (closer.iter().sum::<u64>(), CLOSER_BYTES.max(hot / CLOSER_SHARE));
            prop_assert!(foreign <= hot / FOREIGN_SHARE || copied >= limit, "too far apart");
            prop_assert!(copied < limit + (80 << 20), "too much is copied");
        }

        #[test]
        fn rounds_take_every_pack_once_and_copy_a_limited_amount(
            packs in prop::collection::vec(usage(), 0..400),
        ) {
            let fates = fates(&packs);
            let rounds = rounds(&packs, &fates);
            let taken: Vec<usize> = rounds.iter().flatten().copied().collect();
            let wanted: BTreeSet<usize> =
                (0..packs.len()).filter(|at| fates[*at] != Fate::Keep).collect();
            prop_assert_eq!(taken.len(), wanted.len());
            prop_assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), wanted);
            let rewritten = |at: &usize| fates[*at] == Fate::Rewrite;
            for round in &rounds {
                let copied: u64 = round.iter().map(|at| packs[*at].live).sum();
                prop_assert!(copied < ROUND_BYTES + (80 << 20));
                prop_assert!(round.len() <= ROUND_PACKS);
                prop_assert_eq!(round.iter().any(rewritten), round.iter().all(rewritten));
            }
            let first = taken.iter().position(rewritten).unwrap_or(taken.len());
            prop_assert!(taken[first..].iter().all(rewritten), "what is free comes first");
        }
    }
}
