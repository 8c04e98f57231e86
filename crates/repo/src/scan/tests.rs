// The runs of a piece are ranges, also where there is only one.
#![allow(clippy::single_range_in_vec_init)]

use cairn_testkit::MemoryDisk;
use cairn_types::Progress;

use super::*;
use crate::chunk::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn scan(disk: MemoryDisk) -> Scan {
    let geometry = Geometry::new(disk.size_bytes());
    Scan::new(Arc::new(disk), geometry)
}

fn pieces(scan: &Scan) -> Vec<Piece> {
    std::iter::from_fn(|| scan.next_piece().unwrap()).collect()
}

#[test]
fn holes_are_jumped_over_and_blocks_read_whole() {
    let disk = MemoryDisk::new(16 << 40);
    disk.write(3 * BLOCK + 9000, b"a");
    disk.write(4 * BLOCK + 9000, b"b");
    disk.write(7 * BLOCK, &vec![1; 2 * BLOCK_BYTES]);
    disk.write(300 * BLOCK, b"c");
    disk.write((16 << 40) - 1, b"d");
    let scan = scan(disk);
    assert_eq!(scan.bytes_to_read().unwrap(), 4 * 4096 + 2 * BLOCK);
    let last = (16 << 40) / BLOCK - 1;
    let expected = [
        Piece {
            index: 0,
            changed: vec![0..256],
            runs: vec![3..5, 7..9],
        },
        Piece {
            index: 1,
            changed: vec![256..512],
            runs: vec![300..301],
        },
        Piece {
            index: last / 256,
            changed: vec![last - 255..last + 1],
            runs: vec![last..last + 1],
        },
    ];
    assert_eq!(pieces(&scan), expected);
}

#[test]
fn a_run_over_the_border_of_two_pieces_is_cut_there() {
    let disk = MemoryDisk::new(600 * BLOCK + 5);
    disk.write(250 * BLOCK, &vec![1; 10 * BLOCK_BYTES]);
    disk.write(600 * BLOCK, b"tail!");
    let found: Vec<_> = pieces(&scan(disk))
        .into_iter()
        .map(|piece| piece.runs)
        .collect();
    assert_eq!(found, [vec![250..256], vec![256..260], vec![600..601]]);
}

#[test]
fn zeros_that_were_written_have_no_id() {
    let disk = MemoryDisk::new(2 * BLOCK + 3);
    disk.write(0, &vec![0; 2 * BLOCK_BYTES + 3]);
    disk.write(2 * BLOCK + 2, b"x");
    let (scan, hasher) = (scan(disk), Hasher::new(&[1; 32]));
    let piece = scan.next_piece().unwrap().unwrap();
    let stop = Stop::new(Arc::new(Progress::default()));
    let mut seen = Vec::new();
    let mut ids = [ChunkId::ZERO; FANOUT];
    let read_bytes = scan
        .read_piece(
            &piece,
            &mut ids,
            (&hasher, &stop),
            &mut Vec::new(),
            |blocks| {
                seen.extend(blocks.iter().map(|b| (b.block, b.id, b.plain.to_vec())));
                Ok(())
            },
        )
        .unwrap();
    let tail = hasher.id(ChunkKind::Block, b"\0\0x");
    assert_eq!(seen, [(2, tail, b"\0\0x".to_vec())]);
    assert_eq!(ids[..3], [ChunkId::ZERO, ChunkId::ZERO, tail]);
    assert_eq!(stop.progress().done(), 2 * BLOCK + 3);
    assert_eq!(read_bytes, 2 * BLOCK + 3);
}
