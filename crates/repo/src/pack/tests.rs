use cairn_types::ProjectId;
use proptest::prelude::*;

use super::*;
use crate::keys::RepositoryId;

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

/// What a piece of a pack is sealed with and bound to.
#[derive(Clone, Copy)]
struct Binding {
    data_key: [u8; 32],
    place: Place,
    pack: PackId,
}

impl Binding {
    fn seal(&self) -> PackSeal {
        PackSeal::new(&ProjectKeys::new(&self.data_key), &self.place, self.pack)
    }
}

#[test]
fn a_piece_opens_with_its_key_in_its_repository_project_pack_and_place_only() {
    let place = Place {
        repository: RepositoryId([1; 16]),
        project: ProjectId::random(),
    };
    let (data_key, mut bytes) = ([2; 32], Vec::new());
    let mut pack = NewPack::begin(&ProjectKeys::new(&data_key), &place, &mut bytes);
    let (mut coder, mut frame) = (FrameCoder::new(), FrameBuilder::default());
    for byte in 0..3 {
        frame.push(ChunkId([byte; 32]), ChunkKind::Block, &[byte; 500]);
        pack.append(&mut coder, &mut frame, &mut bytes).unwrap();
    }
    let pack_id = pack.id();
    let (table, length) = pack.end(&mut bytes);
    assert_eq!(length, bytes.len() as u64);
    let frame = |number: usize| {
        let range = table.frames[number].range();
        &bytes[range.start as usize..range.end as usize]
    };
    let sealed = &bytes[table.frames[2].range().end as usize..bytes.len() - TRAILER_BYTES];

    let right = Binding {
        data_key,
        place,
        pack: pack_id,
    };
    assert_eq!(open_table(&right.seal(), sealed, length), Ok(table.clone()));
    let other_repository = Place {
        repository: RepositoryId([9; 16]),
        ..place
    };
    let other_project = Place {
        project: ProjectId::random(),
        ..place
    };
    let wrong = [
        Binding {
            data_key: [9; 32],
            ..right
        },
        Binding {
            place: other_repository,
            ..right
        },
        Binding {
            place: other_project,
            ..right
        },
        Binding {
            pack: PackId([9; 16]),
            ..right
        },
    ];
    for (at, number) in (0..3).flat_map(|at| (0..4).map(move |number| (at, number))) {
        let opened = coder.open(&right.seal(), number, frame(at)).is_ok();
        assert_eq!(opened, at as u32 == number, "frame {at} as {number}");
        for (case, wrong) in wrong.iter().enumerate() {
            let opened = coder.open(&wrong.seal(), number, frame(at));
            assert!(opened.is_err(), "frame {at} as {number}, wrong {case}");
        }
    }
    for wrong in wrong {
        assert!(open_table(&wrong.seal(), sealed, length).is_err());
    }
    assert!(open_table(&right.seal(), &frame(0)[HEADER_BYTES..], length).is_err());
    let mut as_frame = [&frame(0)[..HEADER_BYTES], sealed].concat();
    as_frame[5..HEADER_BYTES].copy_from_slice(&(sealed.len() as u32).to_le_bytes());
    assert!(coder.open(&right.seal(), LAST_COUNTER, &as_frame).is_err());
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
