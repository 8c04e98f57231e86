//! Marks: one bit for each chunk of a pack, for as many packs as need be.
//!
//! Collection marks what backups reach, writers what they rely on. A pack takes
//! memory once one of its chunks is marked: two bytes for a MiB of disk.

use std::collections::HashMap;
use std::ops::Range;

use crate::index::Place;

/// Chunks of packs, by their places in the index.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    packs: HashMap<u32, Bits>,
}

impl Marks {
    /// Marks a chunk; whether it was not marked before.
    pub fn set(&mut self, place: Place) -> bool {
        self.packs.entry(place.pack).or_default().set(place.chunk)
    }

    pub fn contains(&self, place: Place) -> bool {
        let bits = self.packs.get(&place.pack);
        bits.is_some_and(|bits| bits.contains(place.chunk))
    }

    /// The marks of one pack.
    pub fn pack(&self, pack: u32) -> Option<&Bits> {
        self.packs.get(&pack)
    }

    /// Replaces the marks of a pack.
    pub fn put(&mut self, pack: u32, bits: Bits) {
        self.packs.insert(pack, bits);
    }

    /// Forgets the marks of a pack.
    pub fn remove(&mut self, pack: u32) {
        self.packs.remove(&pack);
    }

    /// Marks all that `other` marks too.
    pub fn merge(&mut self, other: Self) {
        for (pack, bits) in other.packs {
            self.packs.entry(pack).or_default().merge(&bits);
        }
    }
}

/// A row of bits that are 0 until they are set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Sets a bit; whether it was 0 before.
    pub fn set(&mut self, bit: u32) -> bool {
        let (word, mask) = (bit as usize / 64, 1 << (bit % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let was = self.words[word] & mask != 0;
        self.words[word] |= mask;
        !was
    }

    pub fn contains(&self, bit: u32) -> bool {
        let word = self.words.get(bit as usize / 64);
        word.is_some_and(|word| word & 1 << (bit % 64) != 0)
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Sets all bits that `other` has.
    pub fn merge(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// How many of some bits are set.
    pub fn count(&self, range: Range<usize>) -> usize {
        range.filter(|bit| self.contains(*bit as u32)).count()
    }

    /// All bits below `end` that are not set here.
    pub fn complement(&self, end: u32) -> Self {
        let mut other = Self::default();
        for bit in (0..end).filter(|bit| !self.contains(*bit)) {
            other.set(bit);
        }
        other
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_are_a_set_of_places(
            one in prop::collection::btree_set((0..4u32, 0..300u32), 0..200),
            two in prop::collection::btree_set((0..4u32, 0..300u32), 0..200),
        ) {
            let marked = |places: &BTreeSet<(u32, u32)>| {
                let mut marks = Marks::default();
                for (pack, chunk) in places {
                    assert!(marks.set(Place { pack: *pack, chunk: *chunk }));
                    assert!(!marks.set(Place { pack: *pack, chunk: *chunk }));
                }
                marks
            };
            let mut both = marked(&one);
            both.merge(marked(&two));
            for pack in 0..4 {
                for chunk in 0..301 {
                    let expected = one.contains(&(pack, chunk)) || two.contains(&(pack, chunk));
                    prop_assert_eq!(both.contains(Place { pack, chunk }), expected);
                }
                let bits = both.pack(pack).cloned().unwrap_or_default();
                let rest = bits.complement(300);
                prop_assert_eq!(bits.count(0..300) + rest.count(0..300), 300);
            }
        }
    }
}
