use proptest::prelude::*;

use super::*;
use crate::buffer::BufferPool;
use crate::keys::{Place, ProjectKeys, RepositoryId};
use crate::pack::PackId;

fn place() -> Place {
    Place {
        repository: RepositoryId([2; 16]),
        project: cairn_types::ProjectId::from_uuid(uuid::Uuid::from_bytes([1; 16])),
    }
}

fn seal_of(pack: PackId) -> PackSeal {
    PackSeal::new(&ProjectKeys::new(&[3; 32]), &place(), pack)
}

/// What seals the frames of a new pack, and what opens them.
fn new_pack() -> (Sealer, PackSeal) {
    let sealer = Sealer::new(&ProjectKeys::new(&[3; 32]).packs);
    let seal = seal_of(PackId(sealer.salt()));
    (sealer, seal)
}

fn frame_of(chunks: &[Vec<u8>]) -> FrameBuilder {
    let mut frame = FrameBuilder::default();
    for (n, chunk) in chunks.iter().enumerate() {
        let kind = if n % 2 == 0 {
            ChunkKind::Block
        } else {
            ChunkKind::Node
        };
        frame.push(ChunkId([n as u8; 32]), kind, chunk);
    }
    frame
}

proptest! {
    #[test]
    fn a_frame_opens_to_its_chunks(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 1..20),
        compressible in any::<bool>(),
    ) {
        let chunks: Vec<Vec<u8>> = match compressible {
            true => chunks.into_iter().map(|chunk| vec![7; chunk.len()]).collect(),
            false => chunks,
        };
        let (mut coder, mut stored) = (FrameCoder::new(), b"front".to_vec());
        let (mut sealer, seal) = new_pack();
        coder.seal(&mut frame_of(&chunks), &mut sealer, &seal, &mut stored).unwrap();
        let buffer = BufferPool::new(0, 0).take();
        let frame = coder.open_in(buffer, (&seal, 0), &stored[5..]).unwrap();
        for (slot, chunk) in chunks.iter().enumerate() {
            prop_assert_eq!(frame.chunk(slot as u16).unwrap().1, &chunk[..]);
        }
        prop_assert!(frame.chunk(chunks.len() as u16).is_none());
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(FrameCoder::new().open(&seal_of(PackId([0; 16])), 0, &bytes).is_err());
        let _ = chunk_table(&bytes);
    }
}

#[test]
fn a_frame_opens_only_unchanged_and_in_its_place() {
    let (mut coder, mut stored) = (FrameCoder::new(), Vec::new());
    let (mut sealer, seal) = new_pack();
    for _ in 0..2 {
        stored.clear();
        let mut frame = frame_of(&[b"some bytes".repeat(20)]);
        coder
            .seal(&mut frame, &mut sealer, &seal, &mut stored)
            .unwrap();
    }
    assert!(coder.open(&seal, 1, &stored).is_ok());
    assert!(coder.open(&seal, 2, &stored).is_err(), "another number");
    let (_, other) = new_pack();
    assert!(coder.open(&other, 1, &stored).is_err(), "another pack");
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 0x10;
        assert!(coder.open(&seal, 1, &changed).is_err(), "byte {at}");
        assert!(coder.open(&seal, 1, &stored[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn what_does_not_compress_is_stored_as_it_is() {
    let mut coder = FrameCoder::new();
    let (mut sealer, seal) = new_pack();
    let mut noise = [0; 4096];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let mut stored = Vec::new();
    coder
        .seal(
            &mut frame_of(&[noise.to_vec()]),
            &mut sealer,
            &seal,
            &mut stored,
        )
        .unwrap();
    assert_eq!(stored.len(), HEADER_BYTES + noise.len() + 4 + 2 + TAG_BYTES);
    stored.clear();
    coder
        .seal(
            &mut frame_of(&[vec![1; 4096]]),
            &mut sealer,
            &seal,
            &mut stored,
        )
        .unwrap();
    assert!(stored.len() < 200);
}

#[test]
fn a_frame_is_full_at_a_megabyte_or_its_limit_of_chunks() {
    let mut frame = FrameBuilder::default();
    while frame.fits(64 << 10) {
        frame.push(ChunkId::ZERO, ChunkKind::Block, &vec![1; 64 << 10]);
    }
    assert_eq!(frame.plain_bytes(), FRAME_BYTES as u64);
    frame.clear();
    while frame.fits(1) {
        frame.push(ChunkId::ZERO, ChunkKind::Node, &[1]);
    }
    assert_eq!(frame.chunks().len(), FRAME_CHUNKS_MAX);
}
