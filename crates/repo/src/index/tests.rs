#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tests/damage.rs"]
mod damage;
#[path = "tests/faults.rs"]
mod faults;
#[path = "tests/model.rs"]
mod model;

use std::path::PathBuf;

use cairn_types::ProjectId;
use proptest::prelude::*;

use super::local::GONE_PACKS;
use super::saved::Saved;
use super::*;
use crate::chunk::{ChunkId, ChunkKind};
use crate::error::Error;
use crate::keys::RepositoryId;
use crate::pack::{ChunkEntry, PACK_HEADER_BYTES, PackTable};

/// A folder that an index is opened in again and again.
struct Lab {
    folder: tempfile::TempDir,
    place: keys::Place,
}

impl Lab {
    fn new() -> Self {
        let place = keys::Place {
            repository: RepositoryId([7; 16]),
            project: ProjectId::random(),
        };
        let folder = tempfile::tempdir().unwrap();
        Self { folder, place }
    }

    fn local(&self) -> Arc<LocalFolder> {
        Arc::new(LocalFolder::at(self.folder.path().to_owned()))
    }

    fn open(&self) -> Index {
        Index::open(self.local(), &self.place).unwrap()
    }

    /// The files of the index but the lock, by name.
    fn files(&self) -> Vec<PathBuf> {
        let folder = self.local().of(self.place.project);
        let entries = std::fs::read_dir(folder).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| !path.ends_with("lock"));
        paths.sort();
        paths
    }
}

/// A pack of these chunks, three in a frame.
fn pack(id: u64, chunks: &[u64]) -> IndexedPack {
    let mut table = PackTable::default();
    let mut offset = PACK_HEADER_BYTES as u64;
    for frame in chunks.chunks(3) {
        let entries: Vec<ChunkEntry> = frame.iter().map(|n| entry(*n)).collect();
        table.push(offset, 50, &entries);
        offset += 50;
    }
    IndexedPack {
        id: pack_id(id),
        stored_bytes: offset,
        table,
    }
}

fn pack_id(id: u64) -> PackId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    PackId(bytes)
}

fn entry(n: u64) -> ChunkEntry {
    let mut id = ChunkId([0x5a; 32]);
    id.0[..16].copy_from_slice(&key(n));
    ChunkEntry {
        id,
        kind: ChunkKind::Block,
        length: 1,
    }
}

/// The key of the chunk of this number, spread as keys are.
fn key(n: u64) -> ChunkKey {
    let hash = blake3::hash(&n.to_le_bytes());
    *hash.as_bytes().first_chunk().unwrap()
}

proptest! {
    #[test]
    fn an_index_object_reads_back(packs in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..20), 0..5)) {
        let packs: Vec<IndexedPack> =
            packs.iter().enumerate().map(|(n, chunks)| pack(n as u64, chunks)).collect();
        let encoded = encode(&packs);
        prop_assert_eq!(decode(&encoded), Ok(packs));
        for cut in 0..encoded.len() {
            prop_assert!(decode(&encoded[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
        let _ = Saved::decode(&bytes, &[0; 32]);
    }
}

#[test]
fn every_chunk_is_found_in_the_newest_pack_that_is_there() {
    let lab = Lab::new();
    let index = lab.open();
    let first: Vec<u64> = (0..1000).collect();
    let second: Vec<u64> = (900..1100).collect();
    index.insert(&pack(1, &first)).unwrap();
    index.insert(&pack(2, &second)).unwrap();
    let place = |n| index.get(&key(n)).unwrap();
    for flushed in [false, true] {
        if flushed {
            index.flush().unwrap();
        }
        for n in 0..1100u64 {
            let (pack, chunk) = if n < 900 { (0, n) } else { (1, n - 900) };
            let chunk = chunk as u32;
            assert_eq!(place(n), Some(Place { pack, chunk }), "chunk {n}");
        }
        assert_eq!(place(1100), None);
    }
    index.remove(&[pack_id(2)]).unwrap();
    let old = Place {
        pack: 0,
        chunk: 950,
    };
    assert_eq!(place(950), Some(old));
    assert_eq!(place(1000), None);
    assert!(index.pack(1).unwrap().is_none());
    assert_eq!((index.number(pack_id(2)), index.packs()), (None, vec![0]));
}

#[test]
fn a_frame_is_found_by_its_chunks() {
    let lab = Lab::new();
    let index = lab.open();
    let chunks: Vec<u64> = (0..1000).collect();
    index.insert(&pack(1, &chunks)).unwrap();
    for flushed in [false, true] {
        if flushed {
            index.flush().unwrap();
        }
        let info = index.pack(0).unwrap().unwrap();
        assert_eq!((info.id, info.chunks), (pack_id(1), 1000));
        for chunk in 0..1000u32 {
            let (frame, slot) = info.frame_of(chunk);
            assert_eq!((frame, slot), ((chunk / 3) as u16, (chunk % 3) as u16));
            let chunks = info.chunks_of(usize::from(frame));
            assert!(chunks.contains(&(chunk as usize)));
        }
    }
}

#[test]
fn what_was_flushed_is_there_when_it_is_opened_again() {
    let lab = Lab::new();
    let index = lab.open();
    for n in 0..20 {
        let chunks: Vec<u64> = (n * 500..n * 500 + 700).collect();
        index.insert(&pack(n, &chunks)).unwrap();
    }
    index.take_in(&"ab".repeat(16)).unwrap();
    index.flush().unwrap();
    index.take_in(&"cd".repeat(16)).unwrap();
    index.insert(&pack(20, &[1_000_000])).unwrap();
    drop(index);
    let index = lab.open();
    assert_eq!(index.packs(), (0..20).collect::<Vec<_>>());
    assert_eq!(
        index.pack_size(3),
        Some((pack_id(3), pack(3, &[0; 700]).stored_bytes))
    );
    for n in 0..10_200 {
        let pack = (n / 500).min(19);
        let place = Place {
            pack: pack as u32,
            chunk: (n - pack * 500) as u32,
        };
        assert_eq!(index.get(&key(n)).unwrap(), Some(place), "chunk {n}");
    }
    assert!(index.has_taken_in(&"ab".repeat(16)));
    assert!(
        !index.has_taken_in(&"cd".repeat(16)),
        "its pack was not flushed"
    );
    assert_eq!(index.get(&key(1_000_000)).unwrap(), None);
}

#[test]
fn a_folder_is_open_once() {
    let lab = Lab::new();
    let _index = lab.open();
    let again = Index::open(lab.local(), &lab.place);
    assert_eq!(again.unwrap_err().kind(), cairn_types::Kind::Conflict);
}

#[test]
fn another_projects_files_are_not_believed() {
    let lab = Lab::new();
    let index = lab.open();
    index.insert(&pack(1, &[1, 2, 3])).unwrap();
    index.flush().unwrap();
    drop(index);
    let other = keys::Place {
        repository: RepositoryId([8; 16]),
        ..lab.place
    };
    let index = Index::open(lab.local(), &other).unwrap();
    assert_eq!(index.get(&key(1)).unwrap(), None);
    assert_eq!(index.packs(), Vec::<u32>::new());
}

#[test]
fn packs_that_are_gone_do_not_fill_the_registry_for_ever() {
    let lab = Lab::new();
    let index = lab.open();
    let gone: Vec<PackId> = (0..u64::from(GONE_PACKS) + 2).map(pack_id).collect();
    for n in 0..gone.len() as u64 {
        index.insert(&pack(n, &[])).unwrap();
    }
    index.insert(&pack(1 << 40, &[5])).unwrap();
    index.remove(&gone).unwrap();
    index.flush().unwrap();
    drop(index);
    assert_eq!(lab.open().packs(), Vec::<u32>::new(), "it starts anew");
}
