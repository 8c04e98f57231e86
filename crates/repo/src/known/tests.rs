#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use cairn_types::ProjectId;

use super::*;
use crate::chunk::{ChunkId, ChunkKind};
use crate::index::LocalFolder;
use crate::keys::{Place, RepositoryId};
use crate::pack::{ChunkEntry, PackId, PackTable};

/// Sessions that store the same chunks at once.
const SESSIONS: u64 = 4;
const ROUNDS: u64 = 300;
const CHUNKS: u64 = 40;

fn id(round: u64, chunk: u64) -> ChunkId {
    ChunkId(*blake3::hash(&[round.to_le_bytes(), chunk.to_le_bytes()].concat()).as_bytes())
}

fn pack(chunks: &[ChunkId]) -> IndexedPack {
    let entries = chunks.iter().map(|id| ChunkEntry {
        id: *id,
        kind: ChunkKind::Block,
        length: 1,
    });
    let mut table = PackTable::default();
    table.push(26, 100, &entries.collect::<Vec<_>>());
    IndexedPack {
        id: PackId(crate::random::bytes()),
        stored_bytes: 200,
        table,
    }
}

/// One session after the other asks, stores and publishes, all at once.
#[test]
fn what_many_sessions_meet_at_once_is_stored_once() {
    let place = Place {
        repository: RepositoryId([1; 16]),
        project: ProjectId::random(),
    };
    let index = Index::open(Arc::new(LocalFolder::temporary()), &place).unwrap();
    let known = Known::new(index);
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (known, stored) = (&known, &stored);
            scope.spawn(move || {
                let session = known.start_session();
                for round in 0..ROUNDS {
                    // Each begins at another place, and meets the others on the way.
                    let chunks = (0..CHUNKS).map(|n| id(round, (n + number * 10) % CHUNKS));
                    for some in chunks.collect::<Vec<_>>().chunks(7) {
                        let keys: Vec<ChunkKey> = some.iter().map(ChunkId::key).collect();
                        let standings = known.claim(session, &keys).unwrap();
                        let mine = some.iter().zip(standings);
                        let mine = mine.filter(|(_, standing)| *standing == Standing::Claimed);
                        let mine: Vec<ChunkId> = mine.map(|(id, _)| *id).collect();
                        stored.fetch_add(mine.len() as u64, Ordering::Relaxed);
                        if !mine.is_empty() {
                            known.publish(&pack(&mine)).unwrap();
                        }
                    }
                }
                known.release(session);
            });
        }
    });
    assert_eq!(stored.into_inner(), ROUNDS * CHUNKS);
    let all = (0..ROUNDS).flat_map(|round| (0..CHUNKS).map(move |chunk| id(round, chunk).key()));
    let places = known.index().get_many(&all.collect::<Vec<_>>()).unwrap();
    assert!(places.iter().all(Option::is_some));
}
