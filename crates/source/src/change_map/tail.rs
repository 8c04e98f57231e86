//! The end of a qcow2 image whose bitmaps may have forgotten that it was cut off.
//!
//! When an image is made smaller, its bitmaps lose the bits of what is cut off, and when it is
//! made larger again, none of them is set: the new end reads as zeros, and nothing says that it
//! has changed. But whatever was written there since is noted. So of an end that was
//! cut off each part is either noted or a hole, and the longest such end is taken for changed. It
//! is mostly nothing, and where it is long, it is made of holes, which cost nothing to read.

use std::io;
use std::ops::Range;

use cairn_types::disk::Extent;

/// Bytes at the end of a disk that are looked at first.
const FIRST_LOOK_BYTES: u64 = 4 << 20;
/// How much more is looked at each time.
const NEXT_LOOK: u64 = 4;

/// A disk's size, and what its allocation is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) size_bytes: u64,
    /// A write into one of these allocates all of it.
    pub(crate) cluster_bytes: u64,
}

/// Adds the end that may have been cut off to what a bitmap notes, which is in order.
pub(crate) fn add(
    changes: &mut Vec<Range<u64>>,
    shape: Shape,
    extent_at: impl Fn(u64) -> io::Result<Extent>,
) -> io::Result<()> {
    let start = start(changes, shape, extent_at)?;
    if start < shape.size_bytes {
        changes.retain(|range| range.start < start);
        changes.push(start..shape.size_bytes);
    }
    Ok(())
}

/// Where the longest end begins that has no data but what is noted.
fn start(
    changes: &[Range<u64>],
    shape: Shape,
    extent_at: impl Fn(u64) -> io::Result<Extent>,
) -> io::Result<u64> {
    let cluster = shape.cluster_bytes.max(1);
    let whole =
        |range: &Range<u64>| range.start / cluster * cluster..range.end.next_multiple_of(cluster);
    let noted: Vec<Range<u64>> = changes.iter().map(whole).collect();
    let mut look = FIRST_LOOK_BYTES;
    loop {
        let mut at = shape.size_bytes.saturating_sub(look);
        let first = at;
        let mut last = None;
        while at < shape.size_bytes {
            let extent = extent_at(at)?;
            at = extent.end().max(at + 1);
            if extent.data {
                last = unnoted_end(&noted, extent.offset..extent.end()).or(last);
            }
        }
        match last {
            Some(end) => return Ok(end),
            None if first == 0 => return Ok(0),
            None => look = look.saturating_mul(NEXT_LOOK),
        }
    }
}

/// The end of what is not noted in a range. What is noted is in order, and may touch and overlap.
fn unnoted_end(noted: &[Range<u64>], range: Range<u64>) -> Option<u64> {
    let mut end = range.end;
    let before = noted.partition_point(|noted| noted.start < end);
    for noted in noted[..before].iter().rev() {
        if noted.end < end || end <= range.start {
            break;
        }
        end = end.min(noted.start);
    }
    (end > range.start).then_some(end)
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "a list of ranges may have one"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const K: u64 = 1 << 10;

    #[test]
    fn the_end_is_what_is_hole_or_noted() {
        let data = [0..10 * K, 20 * K..30 * K, 40 * K..50 * K];
        let extent_at = |at: u64| {
            let next = data.iter().find(|range| range.end > at);
            let (end, data) = match next {
                Some(range) if range.start <= at => (range.end, true),
                Some(range) => (range.start, false),
                None => (100 * K, false),
            };
            Ok(Extent {
                offset: at,
                length: end - at,
                data,
            })
        };
        let shape = Shape {
            size_bytes: 100 * K,
            cluster_bytes: K,
        };
        let added = |mut changes: Vec<Range<u64>>| {
            add(&mut changes, shape, extent_at).unwrap();
            changes
        };
        assert_eq!(added(vec![]), [50 * K..100 * K]);
        assert_eq!(added(vec![0..K, 60 * K..70 * K]), [0..K, 50 * K..100 * K]);
        let last_noted = vec![0..K, 40 * K..41 * K, 41 * K..50 * K];
        assert_eq!(added(last_noted), [0..K, 30 * K..100 * K]);
        assert_eq!(added(vec![45 * K..50 * K]), [45 * K..100 * K]);
        assert_eq!(added(std::iter::once(0..50 * K).collect()), [0..100 * K]);
        // A cluster of 8 KiB was written to in a part: the rest is data too.
        let shape = Shape {
            cluster_bytes: 8 * K,
            ..shape
        };
        let mut changes = vec![44 * K..45 * K, 49 * K..50 * K];
        add(&mut changes, shape, extent_at).unwrap();
        assert_eq!(changes, [30 * K..100 * K]);
    }

    proptest! {
        /// However a disk is written, cut off, made larger and written again.
        #[test]
        fn what_differs_is_noted_or_in_the_end(
            steps in prop::collection::vec((0_usize..3, 0_usize..64, 1_usize..20), 0..40),
        ) {
            const CLUSTER: usize = 4;
            // Whether each byte's cluster is allocated, what it holds, and whether it is noted.
            let mut disk = vec![(true, 1_u32, false); 64];
            let before: Vec<u32> = disk.iter().map(|byte| byte.1).collect();
            for (number, (what, place, length)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        let size = disk.len();
                        let end = (place + length).min(size);
                        for at in place.min(end)..end {
                            let cluster = at / CLUSTER * CLUSTER;
                            let all = cluster..(cluster + CLUSTER).min(size);
                            disk[all].iter_mut().for_each(|byte| byte.0 = true);
                            (disk[at].1, disk[at].2) = (number as u32 + 2, true);
                        }
                    }
                    1 => disk.truncate((place / CLUSTER * CLUSTER).max(CLUSTER)),
                    _ => disk.resize(disk.len().max(64), (false, 0, false)),
                }
            }
            let runs = |want: &dyn Fn(&(bool, u32, bool)) -> bool| -> Vec<Range<u64>> {
                (0..disk.len() as u64).filter(|at| want(&disk[*at as usize]))
                    .map(|at| at..at + 1).collect()
            };
            let mut changes = runs(&|byte| byte.2);
            let shape = Shape { size_bytes: disk.len() as u64, cluster_bytes: CLUSTER as u64 };
            add(&mut changes, shape, |at| Ok(Extent {
                offset: at, length: 1, data: disk[at as usize].0,
            })).unwrap();
            for (at, byte) in disk.iter().enumerate() {
                let is_told = changes.iter().any(|range| range.contains(&(at as u64)));
                prop_assert!(is_told || byte.1 == before[at], "byte {}", at);
            }
        }
    }
}
