use proptest::prelude::*;

use super::*;

fn table_of(frames: &[Vec<u32>]) -> PackTable {
    let mut table = PackTable::default();
    let mut offset = PACK_HEADER_BYTES as u64;
    for (n, lengths) in frames.iter().enumerate() {
        let chunk = |length: &u32| ChunkEntry {
            id: ChunkId([n as u8; 32]),
            kind: if length.is_multiple_of(2) {
                ChunkKind::Node
            } else {
                ChunkKind::Block
            },
            length: *length,
        };
        let chunks: Vec<ChunkEntry> = lengths.iter().map(chunk).collect();
        table.push(offset, 100 + n, &chunks);
        offset += 100 + n as u64;
    }
    table
}

proptest! {
    #[test]
    fn a_table_reads_back(frames in prop::collection::vec(prop::collection::vec(1..70_000u32, 1..12), 0..20)) {
        let table = table_of(&frames);
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        prop_assert_eq!(encoded.len(), table.encoded_bytes());
        prop_assert_eq!(PackTable::decode(&encoded), Ok(table));
        for cut in 0..encoded.len() {
            prop_assert!(PackTable::decode(&encoded[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = PackTable::decode(&bytes);
        let _ = read_trailer(&bytes);
        let _ = check_header(PackId([0; 16]), &bytes);
    }

    #[test]
    fn a_changed_table_is_refused_or_still_adds_up(at in 0..500usize, to in any::<u8>()) {
        let mut encoded = Vec::new();
        table_of(&[vec![5; 4], vec![9; 3], vec![1; 5]]).encode(&mut encoded);
        let at = at % encoded.len();
        encoded[at] = to;
        if let Ok(table) = PackTable::decode(&encoded) {
            let mut again = Vec::new();
            table.encode(&mut again);
            prop_assert_eq!(again, encoded);
        }
    }
}

#[test]
fn a_pack_tells_another_pack_and_a_newer_format() {
    let (one, two) = (PackId([1; 16]), PackId([2; 16]));
    assert_eq!(check_header(one, &header(one)), Ok(()));
    assert!(check_header(two, &header(one)).is_err());
    let mut newer = header(one);
    newer[8] = 9;
    assert_eq!(check_header(one, &newer), Err(OpenError::Newer(9)));
    assert_eq!(header(one).len(), PACK_HEADER_BYTES);
}
