use proptest::prelude::*;

use super::*;
use crate::chunk::{ChunkId, ChunkKind};
use crate::pack::{ChunkEntry, PACK_HEADER_BYTES};

fn pack(id: u8, chunks: &[u64]) -> IndexedPack {
    let mut table = PackTable::default();
    let mut offset = PACK_HEADER_BYTES as u64;
    for frame in chunks.chunks(3) {
        let entries: Vec<ChunkEntry> = frame.iter().map(|n| entry(*n)).collect();
        table.push(offset, 50, &entries);
        offset += 50;
    }
    IndexedPack {
        id: PackId([id; 16]),
        stored_bytes: offset,
        table,
    }
}

fn entry(n: u64) -> ChunkEntry {
    let mut id = ChunkId([0x5a; 32]);
    id.0[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    ChunkEntry {
        id,
        kind: ChunkKind::Block,
        length: 1,
    }
}

proptest! {
    #[test]
    fn an_index_object_reads_back(packs in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..20), 0..5)) {
        let packs: Vec<IndexedPack> =
            packs.iter().enumerate().map(|(n, chunks)| pack(n as u8, chunks)).collect();
        let encoded = encode(&packs);
        prop_assert_eq!(decode(&encoded), Ok(packs));
        for cut in 0..encoded.len() {
            prop_assert!(decode(&encoded[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }
}

#[test]
fn every_chunk_is_found_in_its_frame_and_slot() {
    let mut index = Index::default();
    index.insert(&pack(1, &(0..1000).collect::<Vec<_>>()));
    index.insert(&pack(2, &(900..1100).collect::<Vec<_>>()));
    for n in 0..1100u64 {
        let place = index.get(&entry(n).id.key()).unwrap();
        let (number, nth) = if n < 1000 { (0, n) } else { (1, n - 900) };
        let expected = Location {
            pack: number,
            frame: (nth / 3) as u16,
            slot: (nth % 3) as u16,
        };
        assert_eq!(place, expected, "chunk {n}");
    }
    assert_eq!(index.get(&entry(1100).id.key()), None);
}

#[test]
fn memory_holds_a_chunk_in_few_bytes() {
    assert_eq!(size_of::<(ChunkKey, Location)>(), 24);
}
