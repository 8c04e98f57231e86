// A list of ranges may hold one.
#![allow(clippy::single_range_in_vec_init)]

use super::*;

const BLOCK: u64 = 65_536;

fn blocks(changes: &[Range<u64>], before: u64, now: u64) -> Vec<Range<u64>> {
    changed_blocks(changes, Geometry::new(before), Geometry::new(now))
}

#[test]
fn changes_in_any_order_are_whole_blocks_once() {
    let size = 100 * BLOCK;
    let changes = [
        7 * BLOCK..8 * BLOCK,
        BLOCK + 5..BLOCK + 6,
        2 * BLOCK - 1..2 * BLOCK + 1,
        8 * BLOCK..8 * BLOCK,
        8 * BLOCK + 1..9 * BLOCK,
        99 * BLOCK..u64::MAX,
        200 * BLOCK..300 * BLOCK,
    ];
    assert_eq!(blocks(&changes, size, size), [1..3, 7..9, 99..100]);
}

#[test]
fn what_a_disk_has_grown_by_is_changed() {
    assert_eq!(blocks(&[], 5 * BLOCK, 5 * BLOCK), []);
    assert_eq!(blocks(&[], 5 * BLOCK, 5 * BLOCK + 1), [5..6]);
    assert_eq!(blocks(&[], 5 * BLOCK - 1, 5 * BLOCK), [4..5]);
    assert_eq!(blocks(&[0..1], 5 * BLOCK - 1, 9 * BLOCK), [0..1, 4..9]);
    assert_eq!(blocks(&[], 0, 9 * BLOCK), [0..9]);
}

#[test]
fn samples_are_of_unchanged_blocks_and_of_each_of_them() {
    let unchanged = Unchanged::new(10, &[0..2, 4..5, 9..20]);
    assert_eq!((unchanged.count, unchanged.samples()), (6, 1));
    let drawn: std::collections::BTreeSet<u64> = (0..10_000).map(|_| unchanged.pick()).collect();
    assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [2, 3, 5, 6, 7, 8]);
    assert_eq!(Unchanged::new(10, &[0..10]).samples(), 0);
    assert_eq!(Unchanged::new(0, &[]).samples(), 0);
    assert_eq!(Unchanged::new(1001, &[]).samples(), 2);
    assert_eq!(Unchanged::new(1 << 40, &[]).samples(), SAMPLES_MAX);
}
