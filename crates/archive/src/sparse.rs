//! Holes in files: which parts an archive has, and the map that says so.
//!
//! The map stands before the data: lines of decimal numbers, how many parts, then the start and
//! the length of each, filled up to a block. A file that ends in a hole has a last part of no
//! length at its end.

use std::io;
use std::ops::Range;

use crate::block::{BLOCK_BYTES, padding};
use crate::pax::number;

/// Parts of a file that are told apart at most; behind them all is taken for data.
pub const RANGES_MAX: usize = 1 << 18;

/// Characters of a line of the map at most.
const LINE_BYTES_MAX: usize = 20;

/// The parts of a file of this size that may be anything but zeros, by a function that says what
/// is the first from an offset on.
///
/// Errors: those of the function.
pub fn ranges_of<E>(
    size_bytes: u64,
    data_from: impl Fn(u64) -> Result<Option<Range<u64>>, E>,
) -> Result<Vec<Range<u64>>, E> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size_bytes {
        let Some(found) = data_from(at)? else { break };
        let found = found.start.max(at)..found.end.min(size_bytes);
        if found.is_empty() {
            break;
        }
        at = found.end;
        match ranges.last_mut() {
            Some(last) if last.end == found.start => last.end = found.end,
            _ => ranges.push(found),
        }
        if ranges.len() == RANGES_MAX
            && let Some(last) = ranges.last_mut()
        {
            last.end = size_bytes;
            break;
        }
    }
    Ok(ranges)
}

/// Whether a file of this size has holes beside these parts.
pub fn is_sparse(ranges: &[Range<u64>], size_bytes: u64) -> bool {
    match ranges {
        [] => size_bytes > 0,
        [all] => *all != (0..size_bytes),
        _ => true,
    }
}

/// The map of a file with holes, filled up to a block.
pub(crate) fn write_map(ranges: &[Range<u64>], size_bytes: u64) -> Vec<u8> {
    let end =
        (ranges.last().is_none_or(|last| last.end < size_bytes)).then_some(size_bytes..size_bytes);
    let count = ranges.len() + usize::from(end.is_some());
    let mut map = format!("{count}\n").into_bytes();
    for range in ranges.iter().chain(&end) {
        let line = format!("{}\n{}\n", range.start, range.end - range.start);
        map.extend_from_slice(line.as_bytes());
    }
    map.resize(map.len() + padding(map.len() as u64) as usize, 0);
    map
}

/// A map that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub ranges: Vec<Range<u64>>,
    /// Bytes that it takes, filled up to a block.
    pub bytes: u64,
}

/// Why a map cannot be read.
#[derive(Debug)]
pub(crate) enum MapError {
    /// It does not come.
    Read(io::Error),
    /// It is none.
    Wrong(&'static str),
}

/// Reads the map of a file that is so long with its holes.
pub(crate) fn read_map(
    size_bytes: u64,
    next_block: impl FnMut() -> io::Result<[u8; BLOCK_BYTES]>,
) -> Result<Map, MapError> {
    let mut lines = Lines {
        next_block,
        block: [0; BLOCK_BYTES],
        at: BLOCK_BYTES,
        taken: 0,
    };
    let count = lines.number()?;
    if count > RANGES_MAX as u64 + 1 {
        return Err(MapError::Wrong("a file has too many parts"));
    }
    let mut ranges = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let (start, length) = (lines.number()?, lines.number()?);
        let part = start..start.saturating_add(length);
        if part.start < end || part.end > size_bytes {
            return Err(MapError::Wrong("a part of a file lies outside of it"));
        }
        end = part.end;
        if !part.is_empty() {
            ranges.push(part);
        }
    }
    let bytes = lines.taken;
    Ok(Map { ranges, bytes })
}

struct Lines<F> {
    next_block: F,
    block: [u8; BLOCK_BYTES],
    at: usize,
    taken: u64,
}

impl<F: FnMut() -> io::Result<[u8; BLOCK_BYTES]>> Lines<F> {
    /// The number in the next line.
    fn number(&mut self) -> Result<u64, MapError> {
        let mut line = Vec::new();
        loop {
            if self.at == BLOCK_BYTES {
                self.block = (self.next_block)().map_err(MapError::Read)?;
                self.taken += BLOCK_BYTES as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => {
                    return number(&line)
                        .ok_or(MapError::Wrong("a map has a line without a number"));
                }
                _ if line.len() == LINE_BYTES_MAX => {
                    return Err(MapError::Wrong("a map has too long a line"));
                }
                byte => line.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(map: &[u8], size: u64) -> Result<Map, MapError> {
        let mut blocks = map.chunks_exact(BLOCK_BYTES);
        let next = || {
            let block = blocks.next();
            block.map_or(Ok([0; 512]), |block| Ok(block.try_into().unwrap()))
        };
        read_map(size, next)
    }

    #[test]
    fn a_map_reads_back() {
        let many: Vec<_> = (0..200).map(|n| n * 1000..n * 1000 + 7).collect();
        for (ranges, size) in [
            (vec![], 10),
            (vec![0..5], 10),
            (vec![5..10], 10),
            (many, 1 << 40),
        ] {
            let map = write_map(&ranges, size);
            assert_eq!(map.len() % BLOCK_BYTES, 0);
            let bytes = map.len() as u64;
            assert_eq!(read(&map, size).unwrap(), Map { ranges, bytes });
        }
        assert_eq!(&write_map(&[0..5], 10)[..13], b"2\n0\n5\n10\n0\n\0\0");
    }

    #[test]
    fn a_map_that_leads_out_of_its_file_is_refused() {
        for wrong in [
            "",
            "x\n",
            "-1\n",
            "1\n5\n6\n",
            "2\n5\n1\n0\n1\n",
            "999999999\n",
            "1\n18446744073709551615\n2\n",
        ] {
            let mut map = wrong.as_bytes().to_vec();
            map.resize(BLOCK_BYTES, 0);
            assert!(read(&map, 10).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn parts_are_joined_and_limited() {
        let every_second =
            |at: u64| Ok::<_, ()>(Some(at.next_multiple_of(2)..at.next_multiple_of(2) + 1));
        let size = 4 * RANGES_MAX as u64;
        let ranges = ranges_of(size, every_second).unwrap();
        assert_eq!(ranges.len(), RANGES_MAX);
        assert_eq!(ranges.last().unwrap().end, size);
        let pieces = |at: u64| Ok::<_, ()>((at < 30).then_some(at..at + 10));
        assert_eq!(ranges_of(100, pieces).unwrap(), [0..30]);
        assert_eq!(ranges_of(25, pieces).unwrap(), [0..25]);
        assert_eq!(ranges_of(0, pieces).unwrap(), []);
        assert!(!is_sparse(&[], 0) && !is_sparse(&[0..9], 9));
        assert!(is_sparse(&[], 1) && is_sparse(&[0..8], 9) && is_sparse(&[1..9], 9));
    }
}
