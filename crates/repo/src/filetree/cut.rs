//! Where a large file is cut into chunks: FastCDC, with tables that a key has
//! made other for every project, so that the lengths of chunks say nothing of
//! a file's bytes to those who see the store.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

use crate::filetree::PIECE_BYTES_MAX;

const PIECE_BYTES_MIN: usize = 32 << 10;
const PIECE_BYTES_USUAL: usize = 128 << 10;

/// Cuts bytes where a project does.
#[derive(Debug)]
pub struct Cutter {
    strict: u64,
    relaxed: u64,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

impl Cutter {
    /// The one of the project whose seed this is.
    pub fn new(seed: u64) -> Self {
        let (strict, relaxed) = select_masks(PIECE_BYTES_USUAL, Normalization::Level2);
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Self {
            strict,
            relaxed,
            gear,
            gear_shifted,
        }
    }

    /// The length of the first piece. Where more follows behind `bytes`, these
    /// must be `PIECE_BYTES_MAX` at least.
    pub(crate) fn first(&self, bytes: &[u8]) -> usize {
        let (_, length) = cut_gear(
            bytes,
            PIECE_BYTES_MIN,
            PIECE_BYTES_USUAL,
            PIECE_BYTES_MAX,
            self.strict,
            self.relaxed,
            self.strict << 1,
            self.relaxed << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(cutter: &Cutter, bytes: &[u8]) -> Vec<usize> {
        let (mut cuts, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            at += cutter.first(&bytes[at..]);
            cuts.push(at);
        }
        cuts
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn an_insertion_moves_the_cuts_behind_it_and_no_others() {
        let (cutter, mut bytes) = (Cutter::new(7), noise(8 << 20));
        let before = cut(&cutter, &bytes);
        bytes.splice(1 << 20..1 << 20, [1, 2, 3]);
        let after = cut(&cutter, &bytes);
        let moved = before
            .iter()
            .filter(|cut| !after.contains(cut) && !after.contains(&(**cut + 3)));
        assert!(moved.count() <= 3);
    }

    #[test]
    fn pieces_keep_their_limits_and_depend_on_the_key() {
        let bytes = noise(8 << 20);
        let cuts = cut(&Cutter::new(1), &bytes);
        let lengths: Vec<usize> = std::iter::once(cuts[0])
            .chain(cuts.windows(2).map(|pair| pair[1] - pair[0]))
            .collect();
        let (_, inner) = lengths.split_last().unwrap();
        assert!(
            inner
                .iter()
                .all(|l| (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(l))
        );
        assert!((32..=128).contains(&lengths.len()), "{}", lengths.len());
        assert_ne!(cuts, cut(&Cutter::new(2), &bytes));
    }
}
