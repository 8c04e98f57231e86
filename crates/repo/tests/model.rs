//! Random histories of a repository against naive copies of the disks: backups
//! with and without change maps, restores, deletions, verifications and
//! collections, alone and beside each other; the process dies at any call of any
//! of them, and the next one goes on.

mod history;

use std::sync::atomic::Ordering;

use history::{Act, Bytes, COUNTS, DISKS, History, Step};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Histories that every run of the tests goes through; `PROPTEST_CASES` asks for more.
const CASES: u32 = 2000;
/// Steps of a history at most.
const STEPS_MAX: usize = 20;
/// Calls to the store after which nothing is held up, and nobody dies.
const CALLS_MAX: u64 = 40;
/// Acts that run while one is held up, at most.
const OTHERS_MAX: usize = 3;
/// How often each of the rarer things must have happened in all histories together.
const AT_LEAST: u64 = CASES as u64 / 20;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        any::<u64>().prop_map(Bytes::Noise),
        (0..4u64).prop_map(Bytes::Text),
        Just(Bytes::Zeros),
        Just(Bytes::Hole),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let disk = || 0..DISKS;
    let backup = any::<usize>;
    prop_oneof![
        3 => disk().prop_map(Act::Backup),
        3 => disk().prop_map(Act::BackupByMap),
        2 => backup().prop_map(Act::Restore),
        3 => backup().prop_map(Act::Delete),
        3 => Just(Act::Collect),
        1 => any::<bool>().prop_map(Act::Verify),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..DISKS, any::<u64>());
    let length = || prop_oneof![1..5000_u64, 1..400_000_u64];
    let write = (place(), length(), bytes()).prop_map(|(place, length, bytes)| Step::Write {
        place,
        length,
        bytes,
    });
    let copy =
        (place(), place(), length()).prop_map(|(from, to, length)| Step::Copy { from, to, length });
    // Many acts make few.
    let call = || prop_oneof![0..12_u64, 0..CALLS_MAX];
    let others = prop::collection::vec(act(), 1..=OTHERS_MAX);
    let beside = (act(), call(), others, any::<bool>()).prop_map(|(held, call, others, dies)| {
        Step::Beside {
            held,
            call,
            others,
            dies,
        }
    });
    let dies = (act(), call(), any::<bool>()).prop_map(|(act, call, answered)| Step::Die {
        act,
        call,
        answered,
    });
    prop_oneof![
        6 => write,
        1 => copy,
        6 => act().prop_map(Step::Alone),
        2 => (act(), act()).prop_map(|(one, two)| Step::Together(one, two)),
        4 => beside,
        2 => dies,
        1 => any::<bool>().prop_map(|keeps_index| Step::Reopen { keeps_index }),
    ]
}

#[test]
fn any_history_leaves_what_naive_copies_would() {
    let config = ProptestConfig::default();
    let asked = std::env::var("PROPTEST_CASES").map_or(CASES, |_| config.cases);
    let config = ProptestConfig {
        cases: asked.max(CASES),
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..config
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let steps = prop::collection::vec(step(), 1..=STEPS_MAX);
    let tried = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let mut history = History::new().await;
            for step in &steps {
                history.take(step).await;
            }
            history.finish().await;
        });
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    for (what, count) in COUNTS.all() {
        let count = count.load(Ordering::Relaxed);
        println!("{what}: {count}");
        assert!(count >= AT_LEAST, "{what} only {count} times");
    }
}
