#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use cairn_types::ProjectId;

use crate::chunk::{ChunkId, ChunkKind};
use crate::index::LocalFolder;
use crate::keys::{self, RepositoryId};
use crate::pack::{ChunkEntry, PackTable};
use crate::tree::Geometry;

use super::*;

fn id(number: u8) -> ChunkId {
    ChunkId([number; 32])
}

fn key(number: u8) -> ChunkKey {
    id(number).key()
}

/// A pack of one frame with these chunks.
fn pack(name: u8, chunks: &[u8]) -> IndexedPack {
    let entry = |number: &u8| ChunkEntry {
        id: id(*number),
        kind: ChunkKind::Block,
        length: 1,
    };
    let chunks: Vec<_> = chunks.iter().map(entry).collect();
    let mut table = PackTable::default();
    table.push(26, 100, &chunks);
    IndexedPack {
        id: PackId([name; 16]),
        stored_bytes: 1000,
        table,
    }
}

fn known() -> Arc<Known> {
    let place = keys::Place {
        repository: RepositoryId([7; 16]),
        project: ProjectId::random(),
    };
    let index = Index::open(Arc::new(LocalFolder::temporary()), &place);
    Arc::new(Known::new(index.unwrap()))
}

/// Condemns what nobody at work needs of a pack.
fn condemn(known: &Known, pack: u32, chunks: u32) {
    let decided = known.condemn([pack], 0, |_, needed| Some(needed.complement(chunks)));
    assert!(decided);
}

#[test]
fn what_is_condemned_is_unknown_from_then_on_and_what_is_relied_on_is_not() {
    let known = known();
    let (old, relies, later) = (
        known.start_session(),
        known.start_session(),
        known.start_session(),
    );
    known.publish(old, &pack(1, &[1, 2])).unwrap();
    known.release(old);
    assert_eq!(known.claim(relies, &[key(1)]).unwrap(), [Standing::Settled]);
    condemn(&known, 0, 2);
    let asked = known.claim(later, &[key(1), key(2)]).unwrap();
    assert_eq!(asked, [Standing::Settled, Standing::Claimed]);
    known.acquit([0]);
    let asked = known.claim(relies, &[key(1), key(2)]).unwrap();
    assert_eq!(asked, [Standing::Settled, Standing::Settled]);
}

#[test]
fn what_moves_stays_relied_on() {
    let known = known();
    let (old, relies, mover) = (
        known.start_session(),
        known.start_session(),
        known.start_session(),
    );
    known.publish(old, &pack(1, &[1, 2])).unwrap();
    known.release(old);
    known.claim(relies, &[key(2)]).unwrap();
    known.publish(mover, &pack(2, &[2])).unwrap();
    known.release(mover);
    known.forget(&[PackId([1; 16])]).unwrap();
    let place = known.index().get(&key(2)).unwrap().unwrap();
    assert!(known.needed(place.pack).contains(place.chunk));
    known.release(relies);
    assert!(known.needed(place.pack).is_empty());
}

#[test]
fn a_writer_keeps_its_own_packs_until_it_ends() {
    let known = known();
    let writer = known.start_session();
    let mine = pack(1, &[1, 2]);
    known.begin_pack(writer, mine.id);
    assert!(known.has_pack(mine.id));
    known.publish(writer, &mine).unwrap();
    assert!(known.has_pack(mine.id));
    assert!(known.settled_packs().is_empty());
    known.end_packs(writer, [mine.id]);
    assert_eq!(known.settled_packs(), [0]);
    assert!(known.needed(0).complement(2).is_empty());
    known.release(writer);
    assert!(known.needed(0).is_empty());
    let given_up = known.start_session();
    known.begin_pack(given_up, PackId([9; 16]));
    known.release(given_up);
    assert!(!known.has_pack(PackId([9; 16])));
}

#[test]
fn what_ends_during_a_collection_is_remembered() {
    let known = known();
    let (old, relies) = (known.start_session(), known.start_session());
    known.publish(old, &pack(1, &[1, 2])).unwrap();
    known.release(old);
    known.claim(relies, &[key(1)]).unwrap();
    let content = Content::Disk {
        geometry: Geometry::new(1),
        top: id(7),
        data_bytes: 1,
        parent: None,
        point: None,
        losses: Default::default(),
    };
    let backup = BackupId::random();
    let collecting = known.begin_collection();
    known.release(relies);
    drop(known.pin(backup, content.clone()));
    assert!(known.needed(0).contains(0) && !known.needed(0).contains(1));
    assert!(!known.condemn([0], 0, |_, _| None), "a pin was not seen");
    assert_eq!(known.pinned(0), [(backup, content)]);
    assert!(known.condemn([0], 1, |_, _| None));
    drop(collecting);
    assert!(known.needed(0).is_empty());
}

#[test]
fn what_is_damaged_is_stored_anew_and_still_found() {
    let known = known();
    let (old, writer) = (known.start_session(), known.start_session());
    known.publish(old, &pack(1, &[1, 2])).unwrap();
    let mut damaged = Bits::default();
    damaged.set(1);
    assert!(known.set_damaged(0, damaged.clone()));
    assert!(!known.set_damaged(0, damaged), "it is no news");
    let asked = known.claim(writer, &[key(1), key(2)]).unwrap();
    assert_eq!(asked, [Standing::Settled, Standing::Claimed]);
    let found = |number| known.index().get(&key(number)).unwrap().unwrap().pack;
    assert_eq!(found(2), 0, "readers may try");
    known.publish(writer, &pack(2, &[2])).unwrap();
    assert_eq!((found(1), found(2)), (0, 1));
}

#[test]
fn a_chunk_that_was_given_up_or_condemned_is_not_waited_for() {
    let known = known();
    let (one, two) = (known.start_session(), known.start_session());
    known.claim(one, &[key(1), key(2)]).unwrap();
    let asked = known.claim(two, &[key(1), key(2)]).unwrap();
    assert_eq!(asked, [Standing::Elsewhere, Standing::Elsewhere]);
    let (theirs, given_up) = known.sort_out(two, vec![1, 2], |n| key(*n)).unwrap();
    assert_eq!((theirs, given_up), (vec![1, 2], vec![]));
    known.publish(one, &pack(1, &[1])).unwrap();
    known.release(one);
    let (theirs, given_up) = known.sort_out(two, vec![1, 2], |n| key(*n)).unwrap();
    assert_eq!((theirs, given_up), (vec![], vec![2]));
    assert!(known.needed(0).contains(0), "it is relied on from here on");
}

/// Sessions that store the same chunks at once.
const SESSIONS: u64 = 4;
const ROUNDS: u64 = 300;
const CHUNKS: u64 = 40;

fn race_id(round: u64, chunk: u64) -> ChunkId {
    ChunkId(*blake3::hash(&[round.to_le_bytes(), chunk.to_le_bytes()].concat()).as_bytes())
}

/// A pack of one frame with these chunks, under a name of its own.
fn pack_of(chunks: &[ChunkId]) -> IndexedPack {
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
    let known = known();
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (known, stored) = (&known, &stored);
            scope.spawn(move || {
                let session = known.start_session();
                for round in 0..ROUNDS {
                    // Each begins at another place, and meets the others on the way.
                    let chunks = (0..CHUNKS).map(|n| race_id(round, (n + number * 10) % CHUNKS));
                    for some in chunks.collect::<Vec<_>>().chunks(7) {
                        let keys: Vec<ChunkKey> = some.iter().map(ChunkId::key).collect();
                        let standings = known.claim(session, &keys).unwrap();
                        let mine = some.iter().zip(standings);
                        let mine = mine.filter(|(_, standing)| *standing == Standing::Claimed);
                        let mine: Vec<ChunkId> = mine.map(|(id, _)| *id).collect();
                        stored.fetch_add(mine.len() as u64, Ordering::Relaxed);
                        if !mine.is_empty() {
                            known.publish(session, &pack_of(&mine)).unwrap();
                        }
                    }
                }
                known.release(session);
            });
        }
    });
    assert_eq!(stored.into_inner(), ROUNDS * CHUNKS);
    let all =
        (0..ROUNDS).flat_map(|round| (0..CHUNKS).map(move |chunk| race_id(round, chunk).key()));
    let places = known.index().get_many(&all.collect::<Vec<_>>()).unwrap();
    assert!(places.iter().all(Option::is_some));
}

#[test]
fn nobody_waits_for_a_slow_session_but_another() {
    let known = known();
    let (slow, other, quick) = (
        known.start_session(),
        known.start_session(),
        known.start_session(),
    );
    known.set_slow(slow);
    known.set_slow(other);
    let claimed = known.claim(slow, &[key(1), key(2)]).unwrap();
    assert_eq!(claimed, [Standing::Claimed; 2]);
    assert_eq!(
        known.claim(other, &[key(1)]).unwrap(),
        [Standing::Elsewhere]
    );
    assert_eq!(known.claim(quick, &[key(1)]).unwrap(), [Standing::Claimed]);
    // Both store it, in whichever order, and both rely on it then.
    known.publish(slow, &pack(1, &[1, 2])).unwrap();
    assert_eq!(known.claim(quick, &[key(2)]).unwrap(), [Standing::Settled]);
    known.publish(quick, &pack(2, &[1])).unwrap();
    for session in [slow, other, quick] {
        assert_eq!(
            known.claim(session, &[key(1)]).unwrap(),
            [Standing::Settled]
        );
    }
    // What was noted before the claimant was known to be slow is given up at the end.
    assert_eq!(known.claim(other, &[key(3)]).unwrap(), [Standing::Claimed]);
    let (theirs, given_up) = known
        .sort_out(quick, vec![3], |number| key(*number))
        .unwrap();
    assert!(theirs.is_empty());
    assert_eq!(given_up, [3]);
}
