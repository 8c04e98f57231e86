//! An overlay against a plain copy of the disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use cairn_nbd::Overlay;
use cairn_testkit::MemoryDisk;
use cairn_types::disk::{DiskReader, DiskWriter};
use proptest::prelude::*;

const BLOCK: usize = 64 << 10;
/// No whole number of blocks.
const SIZE: usize = 5 * BLOCK + 777;

fn base() -> MemoryDisk {
    let disk = MemoryDisk::new(SIZE as u64);
    for block in [0, 1, 3, 5] {
        let start = block * BLOCK;
        let data: Vec<u8> = (start..SIZE.min(start + BLOCK))
            .map(|at| at as u8 | 1)
            .collect();
        disk.write(start as u64, &data);
    }
    disk
}

fn overlay(base: &MemoryDisk, limit_bytes: u64) -> Overlay {
    let folder = std::env::temp_dir();
    Overlay::new(Arc::new(base.copy()), &folder, limit_bytes).unwrap()
}

fn all(disk: &dyn DiskReader) -> Vec<u8> {
    let mut bytes = vec![0; disk.size_bytes() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

/// What the disk holds by its runs: those that are no data must be zeros.
fn by_runs(disk: &dyn DiskReader) -> Vec<u8> {
    let mut bytes = vec![0; disk.size_bytes() as usize];
    let mut at = 0;
    while at < disk.size_bytes() {
        let run = disk.extent_at(at).unwrap();
        assert!(run.offset == at && run.length > 0 && run.end() <= disk.size_bytes());
        if run.data {
            let range = run.offset as usize..run.end() as usize;
            disk.read_at(at, &mut bytes[range]).unwrap();
        }
        at = run.end();
    }
    bytes
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Zero(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let place = (0..SIZE, 1..2 * BLOCK).prop_map(|(at, length)| (at, length.min(SIZE - at)));
    (place, any::<u8>(), any::<bool>()).prop_map(|((at, length), byte, zero)| match zero {
        true => Change::Zero(at, length),
        false => Change::Write(at, vec![byte; length]),
    })
}

proptest! {
    #[test]
    fn it_holds_what_a_copy_would(changes in prop::collection::vec(change(), 0..20)) {
        let base = base();
        let overlay = overlay(&base, 1 << 30);
        let mut copy = base.bytes();
        for change in changes {
            match change {
                Change::Write(at, data) => {
                    overlay.write_at(at as u64, &data).unwrap();
                    copy[at..at + data.len()].copy_from_slice(&data);
                }
                Change::Zero(at, length) => {
                    overlay.write_zeroes(at as u64, length as u64).unwrap();
                    copy[at..at + length].fill(0);
                }
            }
        }
        prop_assert!(all(&overlay) == copy);
        prop_assert!(by_runs(&overlay) == copy);
    }
}

#[test]
fn the_disk_below_stays_as_it_is() {
    let below = Arc::new(base());
    let before = below.bytes();
    let overlay = Overlay::new(below.clone(), &std::env::temp_dir(), 1 << 30).unwrap();
    overlay.write_at(100, &[7; 3 * BLOCK]).unwrap();
    assert!(below.bytes() == before);
}

#[test]
fn no_more_is_kept_than_allowed() {
    let base = base();
    let overlay = overlay(&base, 2 * BLOCK as u64);
    overlay.write_at(0, &[1; BLOCK]).unwrap();
    overlay.write_at(3 * BLOCK as u64 + 5, &[2; 10]).unwrap();
    // What is its own already can be written again.
    overlay.write_at(10, &[3; 10]).unwrap();
    let refused = overlay.write_at(BLOCK as u64, &[4]).unwrap_err();
    assert_eq!(refused.source.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(overlay.written_bytes(), 2 * BLOCK as u64);
    let mut expected = base.bytes();
    expected[..BLOCK].fill(1);
    expected[10..20].fill(3);
    expected[3 * BLOCK + 5..][..10].fill(2);
    assert!(all(&overlay) == expected);
}

#[test]
fn what_cannot_be_read_below_is_not_half_written() {
    let base = base();
    base.fail_reads_at(BLOCK as u64 + 9);
    let overlay = Overlay::new(Arc::new(base), &std::env::temp_dir(), 1 << 30).unwrap();
    assert!(overlay.write_at(BLOCK as u64, &[1]).is_err());
    assert_eq!(overlay.written_bytes(), 0);
    // All of the block is replaced: nobody needs what is below.
    overlay.write_at(BLOCK as u64, &[1; BLOCK]).unwrap();
    let mut block = vec![0; BLOCK];
    overlay.read_at(BLOCK as u64, &mut block).unwrap();
    assert!(block == [1; BLOCK]);
}
