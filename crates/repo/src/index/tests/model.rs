//! The index against a map, over random insertions, removals, merges and
//! reopenings: no key is lost, none is invented.

use std::collections::BTreeMap;

use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Look-ups and insertions of chunks over all cases at least.
const OPERATIONS: u64 = 1_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// Chunks from a number on, some of which other packs have.
    Insert {
        from: u64,
        count: u64,
    },
    /// The pack that was inserted this many before the last.
    Remove {
        back: usize,
    },
    Flush,
    Reopen,
    /// Chunks from a number on, with this distance between them.
    LookUp {
        from: u64,
        by: u64,
        count: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..30_000u64, 1..1500u64).prop_map(|(from, count)| Step::Insert { from, count }),
        3 => (0..12usize).prop_map(|back| Step::Remove { back }),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        4 => (0..32_000u64, 1..50u64, 1..3000usize)
            .prop_map(|(from, by, count)| Step::LookUp { from, by, count }),
    ];
    prop::collection::vec(step, 20..80)
}

/// What the index should know.
#[derive(Default)]
struct Model {
    /// The chunks of packs, in the order of their numbers here.
    packs: BTreeMap<u64, (u64, u64)>,
    /// How many packs there have been.
    next: u64,
    /// Packs that a reopening may forget, since they were not flushed.
    unflushed: Vec<u64>,
}

impl Model {
    /// The id and the chunk's number of the newest pack that has a chunk.
    fn get(&self, n: u64) -> Option<(PackId, u32)> {
        let mut packs = self.packs.iter().rev();
        let holds = packs.find(|(_, (from, count))| (*from..from + count).contains(&n));
        holds.map(|(id, (from, _))| (pack_id(*id), (n - from) as u32))
    }
}

fn run(steps: &[Step], operations: &mut u64) {
    let lab = Lab::new();
    let (mut index, mut model) = (lab.open(), Model::default());
    let look_up = |index: &Index, model: &Model, numbers: &[u64]| {
        let keys: Vec<ChunkKey> = numbers.iter().map(|n| key(*n)).collect();
        let found = index.get_many(&keys).unwrap();
        for (n, place) in numbers.iter().zip(found) {
            let named = place.map(|p| (index.pack_size(p.pack).unwrap().0, p.chunk));
            assert_eq!(named, model.get(*n), "chunk {n}");
        }
    };
    for step in steps {
        match *step {
            Step::Insert { from, count } => {
                let id = model.next;
                let chunks: Vec<u64> = (from..from + count).collect();
                index.insert(&pack(id, &chunks)).unwrap();
                model.packs.insert(id, (from, count));
                model.unflushed.push(id);
                model.next += 1;
                *operations += count;
            }
            Step::Remove { back } => {
                if let Some(id) = model.packs.keys().rev().nth(back).copied() {
                    index.remove(&[pack_id(id)]).unwrap();
                    model.packs.remove(&id);
                }
            }
            Step::Flush => {
                index.flush().unwrap();
                model.unflushed.clear();
            }
            Step::Reopen => {
                drop(index);
                index = lab.open();
                // As when it is brought up to date: what is gone goes, what is lacking comes.
                let there = index
                    .packs()
                    .into_iter()
                    .map(|n| index.pack_size(n).unwrap().0);
                let known = |id: &PackId| model.packs.keys().any(|n| pack_id(*n) == *id);
                let gone: Vec<PackId> = there.filter(|id| !known(id)).collect();
                index.remove(&gone).unwrap();
                for (id, (from, count)) in &model.packs {
                    if index.number(pack_id(*id)).is_none() {
                        assert!(model.unflushed.contains(id), "pack {id} was flushed");
                        let chunks: Vec<u64> = (*from..from + count).collect();
                        index.insert(&pack(*id, &chunks)).unwrap();
                    }
                }
            }
            Step::LookUp { from, by, count } => {
                let numbers: Vec<u64> = (0..count as u64).map(|n| from + n * by).collect();
                look_up(&index, &model, &numbers);
                *operations += count as u64;
            }
        }
    }
    index.merger.join();
    look_up(&index, &model, &(0..32_000).collect::<Vec<_>>());
    *operations += 32_000;
}

/// Named after the index of another product that lost keys (borg 4829).
#[test]
fn borg_4829_no_key_is_lost_in_a_million_random_operations() {
    let mut operations = 0;
    let seen = std::cell::Cell::new(0_u64);
    let config = Config {
        cases: Config::default().cases.min(64),
        ..Config::default()
    };
    while operations < OPERATIONS {
        let mut runner = TestRunner::new(config.clone());
        runner
            .run(&steps(), |steps| {
                let mut count = 0;
                run(&steps, &mut count);
                seen.set(seen.get() + count);
                Ok(())
            })
            .unwrap();
        operations = seen.get();
    }
}
