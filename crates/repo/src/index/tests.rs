use proptest::prelude::*;

use super::*;
use crate::chunk::{ChunkId, ChunkKind};
use crate::pack::{ChunkEntry, PACK_HEADER_BYTES, PackTable};

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
fn every_chunk_is_found_in_the_newest_pack_that_is_there() {
    let index = Index::default();
    index
        .insert(&pack(1, &(0..1000).collect::<Vec<_>>()))
        .unwrap();
    index
        .insert(&pack(2, &(900..1100).collect::<Vec<_>>()))
        .unwrap();
    let key = |n: u64| entry(n).id.key();
    for n in 0..1100u64 {
        let (pack, chunk) = if n < 900 {
            (0, n as u32)
        } else {
            (1, n as u32 - 900)
        };
        let place = index.get(&key(n)).unwrap();
        assert_eq!(place, Some(Place { pack, chunk }), "chunk {n}");
    }
    assert_eq!(index.get(&key(1100)).unwrap(), None);
    index.remove(&[PackId([2; 16])]).unwrap();
    let place = |n| index.get(&key(n)).unwrap();
    assert_eq!(
        place(950),
        Some(Place {
            pack: 0,
            chunk: 950
        })
    );
    assert_eq!(place(1000), None);
    assert!(index.pack(1).unwrap().is_none());
    assert_eq!(
        (index.number(PackId([2; 16])), index.packs()),
        (None, vec![0])
    );
}

#[test]
fn a_frame_is_found_by_its_chunks() {
    let index = Index::default();
    index
        .insert(&pack(1, &(0..1000).collect::<Vec<_>>()))
        .unwrap();
    let info = index.pack(0).unwrap().unwrap();
    for chunk in 0..1000u32 {
        assert_eq!(
            info.frame_of(chunk),
            ((chunk / 3) as u16, (chunk % 3) as u16)
        );
    }
}
