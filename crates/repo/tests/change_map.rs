//! Backups of a disk whose source says what has changed: nothing else is read,
//! and the result is the one of reading everything.

use std::ops::Range;
use std::sync::Arc;

use cairn_repo::{Result, VerifyLevel, WriteDisk, Written};
use cairn_testkit::{Ending, GatedDisk, MappedDisk, MemoryDisk};
use cairn_types::disk::NoChangeMap;
use cairn_types::{BackupId, Kind, Progress, ResourceId};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use proptest::prelude::*;

use crate::common::{BLOCK, World, noise, text};

/// Bytes that a node of level 1 covers.
const NODE: usize = 256 * BLOCK;

/// A disk that is backed up again and again.
struct Line {
    world: World,
    resource: ResourceId,
    disk: Arc<MemoryDisk>,
    parent: Option<BackupId>,
    count: u32,
}

impl Line {
    async fn new(disk: MemoryDisk) -> Self {
        let world = World::new().await;
        let resource = world.info(1).resource;
        Self {
            world,
            resource,
            disk: Arc::new(disk),
            parent: None,
            count: 0,
        }
    }

    /// A backup of a disk that has changed in these places since the last, or so its source says.
    async fn back_up(&mut self, changes: Vec<Range<u64>>) -> Result<Written> {
        let (before, now) = (self.count, self.count + 1);
        let disk = MappedDisk::new(self.disk.clone(), &format!("point-{now}"));
        let disk = Arc::new(disk.changed_since(&format!("point-{before}"), changes));
        let job = self.job(disk.clone());
        let written = self.world.project.write_disk(job).await;
        assert_eq!(disk.is_kept(), written.is_ok());
        if written.is_ok() {
            self.count = now;
        }
        written
    }

    fn job(&mut self, reader: Arc<MappedDisk>) -> WriteDisk {
        let mut info = self.world.info(1 + i64::from(self.count));
        info.resource = self.resource;
        let parent = self.parent.replace(info.id);
        WriteDisk {
            info,
            parent,
            reader,
            progress: Arc::new(Progress::default()),
            reread_all: false,
        }
    }

    /// The disk's backup by reading all of it, which becomes no parent.
    async fn read_all(&mut self) -> Written {
        let parent = self.parent;
        let reader = Arc::new(MappedDisk::new(self.disk.clone(), "other"));
        let mut job = self.job(reader);
        self.parent = parent;
        job.reread_all = true;
        self.world.project.write_disk(job).await.unwrap()
    }

    async fn assert_restores(&self) {
        let (bytes, _) = self.world.restore(self.parent.unwrap()).await.unwrap();
        assert!(bytes == self.disk.bytes());
    }
}

fn why(written: &Written) -> &str {
    let NoChangeMap(why) = written.by_change_map.as_ref().unwrap_err();
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_read_and_the_rest_is_taken_over() {
    let mut line = Line::new(MemoryDisk::new(5 * NODE as u64)).await;
    line.disk.write(0, &text(1, NODE));
    line.disk.write(3 * NODE as u64, &noise(2, NODE / 2));
    let full = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(why(&full), "there is no earlier backup of the disk");
    assert_eq!(
        (full.data_bytes, full.read_bytes),
        ((NODE + NODE / 2) as u64, (NODE + NODE / 2) as u64)
    );

    let before = line.disk.read_bytes();
    let same = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(same.by_change_map, Ok(()));
    assert_eq!(
        (same.root, same.data_bytes, same.new_bytes),
        (full.root, full.data_bytes, 0)
    );
    // Two samples of 1280 blocks.
    assert!(same.read_bytes <= 2 * BLOCK as u64, "{same:?}");
    assert_eq!(line.disk.read_bytes() - before, same.read_bytes);
    assert!(same.stored_bytes < 4096, "{same:?}");

    // New data in a hole, data over data, zeros over data.
    let (hole, over, zeros) = (NODE as u64 + 5, 3 * NODE as u64 + 9, 3 * BLOCK as u64);
    line.disk.write(hole, &noise(3, 100));
    line.disk.write(over, &noise(4, 100));
    line.disk.write(zeros, &vec![0; BLOCK]);
    let changes = vec![
        over..over + 100,
        hole..hole + 100,
        zeros..zeros + BLOCK as u64,
    ];
    let changed = line.back_up(changes).await.unwrap();
    assert_eq!(changed.by_change_map, Ok(()));
    assert!(changed.read_bytes <= 5 * BLOCK as u64, "{changed:?}");
    let all = line.read_all().await;
    assert_eq!(
        (changed.root, changed.data_bytes),
        (all.root, all.data_bytes)
    );
    assert_eq!(changed.data_bytes, full.data_bytes);
    line.assert_restores().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_grown_is_read_from_its_old_end_on() {
    for (size, grown) in [
        (5 * BLOCK + 7, 5 * BLOCK + 9),
        (NODE, NODE + 1),
        (3 * BLOCK, 260 * NODE),
        (260 * NODE - 3, 260 * NODE),
    ] {
        let mut line = Line::new(MemoryDisk::new(size as u64)).await;
        line.disk.write(0, &noise(1, 2 * BLOCK));
        line.disk.write(size as u64 - 3, b"end");
        line.back_up(Vec::new()).await.unwrap();
        let larger = MemoryDisk::new(grown as u64);
        larger.write(0, &noise(1, 2 * BLOCK));
        larger.write(size as u64 - 3, b"end");
        larger.write(grown as u64 - 1, b"!");
        line.disk = Arc::new(larger);
        let written = line.back_up(Vec::new()).await.unwrap();
        assert_eq!(written.by_change_map, Ok(()), "{size} to {grown}");
        let all = line.read_all().await;
        assert_eq!(
            (written.root, written.data_bytes),
            (all.root, all.data_bytes),
            "{size} to {grown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_hint_is_known_for_is_read_in_full_with_a_reason() {
    let mut line = Line::new(MemoryDisk::with(&noise(1, 4 * BLOCK))).await;
    line.back_up(Vec::new()).await.unwrap();
    line.count = 7;
    let unknown = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(why(&unknown), "nothing is known of point-1");
    line.disk = Arc::new(MemoryDisk::with(&noise(1, 3 * BLOCK)));
    let smaller = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(why(&smaller), "the disk is smaller than it was");
    let all = line.read_all().await;
    assert_eq!(why(&all), "a backup of all data was asked for");
    let parent = line.parent;
    line.resource = line.world.info(1).resource;
    let other = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(why(&other), "the earlier backup is one of another disk");
    line.parent = parent;
    line.world.project.delete(parent.unwrap()).await.unwrap();
    let gone = line.back_up(Vec::new()).await.unwrap();
    assert!(why(&gone).starts_with("there is no backup"), "{gone:?}");
    line.assert_restores().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_a_sample_disproves_is_dropped_and_all_is_read() {
    let mut line = Line::new(MemoryDisk::with(&noise(1, 40 * BLOCK))).await;
    line.back_up(Vec::new()).await.unwrap();
    // Every sample meets a change.
    line.disk.write(0, &noise(2, 40 * BLOCK));
    let written = line.back_up(vec![0..BLOCK as u64]).await.unwrap();
    assert_eq!(
        why(&written),
        "a block that its source says is unchanged has changed"
    );
    assert_eq!(written.root, line.read_all().await.root);
    assert_eq!(written.data_bytes, 40 * BLOCK as u64);
    line.assert_restores().await;
}

/// The paths of all packs, oldest first.
async fn packs(world: &World) -> Vec<Path> {
    let mut found: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    found.sort_by_key(|object| object.last_modified);
    let paths = found.into_iter().map(|object| object.location);
    paths
        .filter(|path| path.as_ref().contains("/packs/"))
        .collect()
}

/// A large disk with little data at its start, none of which a sample may meet, and more
/// behind it that came later: the oldest pack is that of the start alone.
async fn line_of_two_packs() -> (Line, Path) {
    let mut line = Line::new(MemoryDisk::new(12 * NODE as u64)).await;
    line.disk.write(0, &noise(1, 2 * BLOCK));
    line.back_up(Vec::new()).await.unwrap();
    let first = packs(&line.world).await.remove(0);
    let range = 6 * NODE as u64..7 * NODE as u64;
    line.disk.write(range.start, &noise(2, NODE));
    let written = line.back_up(vec![range]).await.unwrap();
    assert_eq!(written.by_change_map, Ok(()));
    (line, first)
}

async fn assert_heals(mut line: Line) {
    let healed = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(why(&healed), "chunks were lost since the earlier backup");
    line.assert_restores().await;
    let next = line.back_up(Vec::new()).await.unwrap();
    assert_eq!(next.by_change_map, Ok(()));
    line.assert_restores().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_over_from_before_a_pack_went_missing() {
    let (mut line, first) = line_of_two_packs().await;
    line.world.store.delete(&first).await.unwrap();
    line.world = line.world.reopen().await;
    assert_heals(line).await;
}

async fn line_with_a_damaged_pack() -> Line {
    let (mut line, first) = line_of_two_packs().await;
    let object = line.world.store.get(&first).await.unwrap();
    let mut bytes = object.bytes().await.unwrap().to_vec();
    bytes[200] ^= 1;
    line.world.store.put(&first, bytes.into()).await.unwrap();
    line.world = line.world.reopen().await;
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_over_from_before_a_verification_that_found_damage() {
    for level in [VerifyLevel::Quick, VerifyLevel::Full] {
        let line = line_with_a_damaged_pack().await;
        for _ in 0..2 {
            let found = line.world.project.verify(level, Arc::default()).await;
            assert_eq!(found.unwrap().damaged_packs.len(), 1);
        }
        assert_heals(line).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_over_from_before_a_repair_that_lost_chunks() {
    let line = line_with_a_damaged_pack().await;
    let repaired = line.world.project.repair(Arc::new(Progress::default()));
    assert!(repaired.await.unwrap().lost_chunks > 0);
    assert_heals(line).await;
}

/// Collects; nothing if somebody kept it out.
async fn collect(world: &World) {
    match world
        .project
        .collect(&[], Arc::new(Progress::default()))
        .await
    {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), Kind::Conflict),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_goes_while_it_is_taken_over_leaves_all_that_was_taken() {
    let mut line = Line::new(MemoryDisk::with(&noise(1, 2 * NODE))).await;
    line.back_up(Vec::new()).await.unwrap();
    let parent = line.parent.unwrap();
    let changed = 7 * BLOCK as u64;
    line.disk.write(changed, &noise(2, BLOCK));
    // Reading the changed block waits; all else may have been read by then.
    let copy = MemoryDisk::with(&line.disk.bytes());
    let gated = Arc::new(GatedDisk::new(copy, changed));
    let disk = MappedDisk::new(gated.clone(), "later");
    let disk = disk.changed_since("point-1", vec![changed..changed + 1]);
    let job = line.job(Arc::new(disk));
    let project = line.world.project.clone();
    let writing = project.write_disk(job);
    let meanwhile = async {
        gated.reached().await;
        line.world.project.delete(parent).await.unwrap();
        collect(&line.world).await;
        gated.end(Ending::Reads);
    };
    let (written, ()) = tokio::join!(writing, meanwhile);
    assert_eq!(written.unwrap().by_change_map, Ok(()));
    line.assert_restores().await;
    collect(&line.world).await;
    line.world = line.world.reopen().await;
    line.assert_restores().await;
}

/// What happens to a disk between two backups.
#[derive(Debug, Clone)]
struct Change {
    at: usize,
    length: usize,
    seed: u64,
    /// Whether the source says so.
    told: bool,
}

const DISK: usize = NODE + 40 * BLOCK + 11;

fn change(lies: bool) -> impl Strategy<Value = Change> {
    let told = if lies {
        prop::bool::weighted(0.7).boxed()
    } else {
        Just(true).boxed()
    };
    (0..DISK, 1..3 * BLOCK, 0..6u64, told).prop_map(|(at, length, seed, told)| Change {
        at,
        length: length.min(DISK - at),
        seed,
        told,
    })
}

async fn apply(line: &Line, changes: &[Change]) -> Vec<Range<u64>> {
    for change in changes {
        let bytes = match change.seed {
            0 => vec![0; change.length],
            seed => noise(seed, change.length),
        };
        line.disk.write(change.at as u64, &bytes);
    }
    let told = changes.iter().filter(|change| change.told);
    told.map(|change| change.at as u64..(change.at + change.length) as u64)
        .collect()
}

/// One step in the life of a disk and its backups.
#[derive(Debug, Clone)]
enum Step {
    Write(Change),
    BackUp,
    /// Deletes one of the backups that there are.
    Delete(prop::sample::Index),
    Collect,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => change(false).prop_map(Step::Write),
        4 => Just(Step::BackUp),
        2 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => Just(Step::Collect),
        1 => Just(Step::Reopen),
    ]
}

/// Runs the steps with every backup taking over what it can from the newest
/// that there is, and compares each that is left with what the disk was.
async fn live(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut line = Line::new(MemoryDisk::new(DISK as u64)).await;
    let (mut pending, mut kept) = (Vec::new(), Vec::<(BackupId, u32, Vec<u8>)>::new());
    for step in steps {
        match step {
            Step::Write(change) => pending.extend(apply(&line, &[change]).await),
            Step::BackUp => {
                let newest = kept.last().map(|(id, point, _)| (*id, *point));
                let last = line.count;
                line.parent = newest.map(|(id, _)| id);
                let written = line.back_up(std::mem::take(&mut pending)).await.unwrap();
                let by_map = newest.is_some_and(|(_, point)| point == last);
                prop_assert_eq!(written.by_change_map.is_ok(), by_map);
                kept.push((line.parent.unwrap(), line.count, line.disk.bytes()));
            }
            Step::Delete(_) if kept.is_empty() => {}
            Step::Delete(which) => {
                let (id, ..) = kept.remove(which.index(kept.len()));
                line.world.project.delete(id).await.unwrap();
            }
            Step::Collect => collect(&line.world).await,
            Step::Reopen => line.world = line.world.reopen().await,
        }
    }
    collect(&line.world).await;
    for (id, _, bytes) in kept {
        let (restored, _) = line.world.restore(id).await.unwrap();
        prop_assert!(restored == bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn true_hints_come_to_what_reading_all_comes_to(
        rounds in prop::collection::vec(prop::collection::vec(change(false), 0..12), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut line = Line::new(MemoryDisk::new(DISK as u64)).await;
            line.back_up(Vec::new()).await.unwrap();
            for changes in rounds {
                let told = apply(&line, &changes).await;
                let written = line.back_up(told).await.unwrap();
                let all = line.read_all().await;
                prop_assert_eq!(&written.by_change_map, &Ok(()));
                prop_assert_eq!(written.root, all.root);
                prop_assert_eq!(written.data_bytes, all.data_bytes);
            }
            line.assert_restores().await;
            Ok(())
        })?;
    }

    #[test]
    fn backups_that_share_trees_live_as_long_as_they_are_kept(
        steps in prop::collection::vec(step(), 4..30),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(live(steps))?;
    }

    #[test]
    fn false_hints_are_found_or_harm_their_own_backups_alone(
        rounds in prop::collection::vec(prop::collection::vec(change(true), 0..12), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut line = Line::new(MemoryDisk::new(DISK as u64)).await;
            let first = (line.back_up(Vec::new()).await.unwrap().root, line.parent.unwrap());
            let mut whole = vec![(first, line.disk.bytes())];
            for changes in rounds {
                let told = apply(&line, &changes).await;
                let written = line.back_up(told).await.unwrap();
                let mut job = line.job(Arc::new(MappedDisk::new(line.disk.clone(), "x")));
                line.parent = job.parent;
                job.reread_all = true;
                let id = job.info.id;
                let all = line.world.project.write_disk(job).await.unwrap();
                whole.push(((all.root, id), line.disk.bytes()));
                if written.by_change_map.is_err() {
                    prop_assert_eq!(written.root, all.root);
                }
                // Whatever it holds, it is whole.
                let (_, restored) = line.world.restore(line.parent.unwrap()).await.unwrap();
                prop_assert_eq!(restored.root, written.root);
            }
            for ((root, id), bytes) in whole {
                let (restored, read_back) = line.world.restore(id).await.unwrap();
                prop_assert!(restored == bytes);
                prop_assert_eq!(read_back.root, root);
            }
            Ok(())
        })?;
    }
}
