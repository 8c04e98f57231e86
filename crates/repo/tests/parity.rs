//! Packs that are lost or damaged are made anew from parity, as they were or not
//! at all, whatever else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use cairn_repo::{Parity, Protected, Repository, VerifyLevel};
use cairn_testkit::{Fault, FaultyStore, MemoryDisk};
use cairn_types::{BackupId, Kind, ProjectId};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{BLOCK, World, index_folder, kind, master, noise};

type Objects = BTreeMap<Path, Bytes>;

/// A project of a repository with parity.
async fn open(
    store: Arc<dyn ObjectStore>,
    project_id: ProjectId,
    setting: (usize, usize),
) -> World {
    let repository = Repository::open_or_create(store.clone(), &master()).await;
    let parity = Parity::new(setting.0, setting.1);
    let repository = repository.unwrap().with_parity(parity);
    let opened = World::of(repository, store, project_id, Arc::new(index_folder()));
    opened.await.unwrap()
}

async fn objects(store: &dyn ObjectStore) -> Objects {
    let found: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = Objects::new();
    for path in found.into_iter().map(|meta| meta.location) {
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        objects.insert(path, bytes);
    }
    objects
}

/// A store that holds these.
async fn store_of(objects: &Objects) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    for (path, bytes) in objects {
        store.put(path, bytes.clone().into()).await.unwrap();
    }
    Arc::new(store)
}

fn in_folder(objects: &Objects, folder: &str) -> Vec<Path> {
    let folder = format!("/{folder}/");
    let paths = objects
        .keys()
        .filter(|path| path.as_ref().contains(&folder));
    paths.cloned().collect()
}

/// Loses an object, or changes a bit of it, or cuts it.
async fn hurt(store: &dyn ObjectStore, path: &Path, how: usize) {
    let mut bytes = store
        .get(path)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec();
    let at = bytes.len() * 2 / 3;
    match how % 3 {
        0 => return store.delete(path).await.unwrap(),
        1 => bytes[at] ^= 4,
        _ => bytes.truncate(at),
    }
    store.put(path, bytes.into()).await.unwrap();
}

/// Sixteen packs, the first of several stripes, in one group with two parity objects.
struct Sixteen {
    project: ProjectId,
    objects: Objects,
    disks: Vec<(BackupId, Vec<u8>)>,
}

impl Sixteen {
    async fn new() -> Self {
        let world = open(Arc::new(InMemory::new()), ProjectId::random(), (16, 2)).await;
        let mut disks = Vec::new();
        for n in 0..16 {
            let blocks = if n == 0 { 20 } else { 1 + n % 3 };
            let bytes = noise(100 + n as u64, blocks * BLOCK + n);
            let (backup, _) = world
                .write(&Arc::new(MemoryDisk::with(&bytes)))
                .await
                .unwrap();
            disks.push((backup, bytes));
        }
        let made = world.project.protect(Arc::default()).await.unwrap();
        let objects = objects(&world.store).await;
        let packs = in_folder(&objects, "packs").len();
        assert_eq!((packs, in_folder(&objects, "parity").len()), (16, 2));
        let one = Protected {
            groups_made: 1,
            groups_removed: 0,
        };
        assert_eq!(made, one);
        Self {
            project: world.project_id,
            objects,
            disks,
        }
    }

    fn shards(&self) -> Vec<Path> {
        [
            in_folder(&self.objects, "packs"),
            in_folder(&self.objects, "parity"),
        ]
        .concat()
    }
}

#[tokio::test]
async fn any_two_of_eighteen_are_made_anew() {
    let sixteen = Sixteen::new().await;
    let shards = sixteen.shards();
    let mut how = 0;
    for (at, one) in shards.iter().enumerate() {
        for two in &shards[at + 1..] {
            how += 1;
            let case = format!("{one} and {two}, {how}");
            let store = store_of(&sixteen.objects).await;
            let before = open(store.clone(), sixteen.project, (16, 2)).await;
            if how % 2 == 0 {
                // The process has met them before they are hurt.
                before.must_be_whole(&case).await;
            }
            hurt(&store, one, how).await;
            hurt(&store, two, how / 3).await;
            let world = match how % 2 {
                0 => before,
                _ => open(store.clone(), sixteen.project, (16, 2)).await,
            };
            let report = world.project.verify(VerifyLevel::Quick, Arc::default());
            let report = report.await.unwrap();
            // Of a group without any parity object nothing is known.
            let is_parity = |path: &Path| path.as_ref().contains("/parity/");
            let is_known = !is_parity(one) || !is_parity(two) || how % 3 + how / 3 % 3 > 0;
            assert_eq!(report.needs_repair, is_known, "{case}: {report:?}");
            assert_eq!(report.is_clean(), !is_known, "{case}");
            let repaired = world.project.repair(Arc::default()).await.unwrap();
            assert_eq!(repaired.lost_chunks, 0, "{case}");
            let after = objects(&store).await;
            for pack in in_folder(&sixteen.objects, "packs") {
                assert!(
                    after.get(&pack) == sixteen.objects.get(&pack),
                    "{case}: {pack}"
                );
            }
            assert_eq!(in_folder(&after, "parity").len(), 2, "{case}");
            world.must_be_whole(&case).await;
            let again = world.project.protect(Arc::default()).await.unwrap();
            assert_eq!(again, Protected::default(), "{case}");
        }
    }
    assert_eq!(how, 18 * 17 / 2);
}

#[tokio::test]
async fn three_of_eighteen_are_too_many_and_nothing_wrong_comes_back() {
    let sixteen = Sixteen::new().await;
    let shards = sixteen.shards();
    let cases = [[0, 1, 2], [3, 9, 15], [5, 6, 17], [0, 16, 17]];
    for (how, case) in cases.into_iter().enumerate() {
        let store = store_of(&sixteen.objects).await;
        for at in case {
            hurt(&store, &shards[at], how + at).await;
        }
        let world = open(store.clone(), sixteen.project, (16, 2)).await;
        let repaired = world.project.repair(Arc::default()).await.unwrap();
        assert_eq!(repaired.healed, [], "{case:?}");
        let lost_packs = case.iter().filter(|at| **at < 16).count();
        let report = world.project.verify(VerifyLevel::Full, Arc::default());
        assert_eq!(report.await.unwrap().hurt.len(), lost_packs, "{case:?}");
        let mut refused = 0;
        for (backup, bytes) in &sixteen.disks {
            match world.restore(*backup).await {
                Ok((restored, _)) => assert!(restored == *bytes, "{case:?}: another disk"),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{case:?}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, lost_packs, "{case:?}");
    }
}

#[tokio::test]
async fn a_false_parity_object_makes_no_false_pack() {
    let sixteen = Sixteen::new().await;
    let (packs, parity) = (
        in_folder(&sixteen.objects, "packs"),
        in_folder(&sixteen.objects, "parity"),
    );
    let store = store_of(&sixteen.objects).await;
    hurt(&store, &packs[4], 0).await;
    hurt(&store, &packs[5], 0).await;
    // Somebody changes a bit of the shard and makes the object's hash fit again.
    let mut forged = sixteen.objects[&parity[0]].to_vec();
    let body = forged.len() - 32;
    forged[body / 2] ^= 1;
    let hash = blake3::hash(&forged[..body]);
    forged[body..].copy_from_slice(hash.as_bytes());
    store.put(&parity[0], forged.into()).await.unwrap();
    let world = open(store.clone(), sixteen.project, (16, 2)).await;
    world.project.repair(Arc::default()).await.unwrap();
    let after = objects(&store).await;
    for pack in in_folder(&after, "packs") {
        let is_as_it_was = after.get(&pack) == sixteen.objects.get(&pack);
        let is_new = !sixteen.objects.contains_key(&pack);
        assert!(is_as_it_was || is_new, "{pack} is another");
    }
    let hurt_backups: Vec<_> = sixteen.disks.iter().collect();
    for (backup, bytes) in hurt_backups {
        if let Ok((restored, _)) = world.restore(*backup).await {
            assert!(restored == *bytes, "another disk came back");
        }
    }
}

/// Any two packs of this store may go now.
async fn must_be_protected(store: &Arc<dyn ObjectStore>, project: ProjectId, case: &str) {
    let before = objects(store).await;
    let packs = in_folder(&before, "packs");
    for (one, two) in packs.iter().zip(packs.iter().skip(1)) {
        let store = store_of(&before).await;
        hurt(&store, one, 0).await;
        hurt(&store, two, 1).await;
        let world = open(store.clone(), project, (4, 2)).await;
        world.project.repair(Arc::default()).await.unwrap();
        let after = objects(&store).await;
        for pack in &packs {
            assert!(after.get(pack) == before.get(pack), "{case}: {pack}");
        }
        world.must_be_whole(case).await;
    }
}

/// Backups of which some are deleted and collected, with groups of up to four packs.
async fn lived_in(store: Arc<dyn ObjectStore>) -> (World, Vec<(BackupId, Vec<u8>)>) {
    let world = open(store, ProjectId::random(), (4, 2)).await;
    let mut disks = Vec::new();
    for n in 0..9 {
        let bytes = noise(200 + n, (1 + n as usize % 2) * BLOCK);
        let (backup, _) = world
            .write(&Arc::new(MemoryDisk::with(&bytes)))
            .await
            .unwrap();
        disks.push((backup, bytes));
        world.project.protect(Arc::default()).await.unwrap();
    }
    for (backup, _) in [disks.remove(7), disks.remove(3), disks.remove(0)] {
        world.project.delete(backup).await.unwrap();
    }
    (world, disks)
}

#[tokio::test]
async fn groups_follow_their_packs_through_collections() {
    let (world, disks) = lived_in(Arc::new(InMemory::new())).await;
    must_be_protected(&world.store, world.project_id, "before").await;
    let collected = world.project.collect(&[], Arc::default()).await.unwrap();
    assert_eq!(collected.packs_removed, 3);
    must_be_protected(&world.store, world.project_id, "after").await;
    let parity = in_folder(&objects(&world.store).await, "parity").len();
    assert!(
        parity <= 4,
        "six packs are two groups at most: {parity} objects"
    );
    for (backup, bytes) in &disks {
        assert!(world.restore(*backup).await.unwrap().0 == *bytes);
        world.project.delete(*backup).await.unwrap();
    }
    world.project.collect(&[], Arc::default()).await.unwrap();
    let left = objects(&world.store).await;
    assert_eq!(in_folder(&left, "parity"), Vec::<Path>::new());
}

#[tokio::test]
async fn a_collection_heals_what_is_lost_before_it_looks() {
    let sixteen = Sixteen::new().await;
    let packs = in_folder(&sixteen.objects, "packs");
    let store = store_of(&sixteen.objects).await;
    hurt(&store, &packs[2], 0).await;
    hurt(&store, &packs[11], 0).await;
    let world = open(store.clone(), sixteen.project, (16, 2)).await;
    let collected = world.project.collect(&[], Arc::default()).await.unwrap();
    assert_eq!(collected.hurt, []);
    let after = objects(&store).await;
    assert!(
        packs
            .iter()
            .all(|pack| after.get(pack) == sixteen.objects.get(pack))
    );
    world.must_be_whole("healed").await;
}

#[tokio::test]
async fn without_the_setting_groups_heal_and_go_with_their_packs() {
    let sixteen = Sixteen::new().await;
    let packs = in_folder(&sixteen.objects, "packs");
    let store = store_of(&sixteen.objects).await;
    let world = World::open(store.clone(), sixteen.project).await.unwrap();
    hurt(&store, &packs[7], 1).await;
    let repaired = world.project.repair(Arc::default()).await.unwrap();
    assert_eq!(repaired.healed.len(), 1);
    let after = objects(&store).await;
    assert!(
        packs
            .iter()
            .all(|pack| after.get(pack) == sixteen.objects.get(pack))
    );
    assert_eq!(in_folder(&after, "parity").len(), 2);
    world.project.delete(sixteen.disks[0].0).await.unwrap();
    world.project.collect(&[], Arc::default()).await.unwrap();
    let after = objects(&store).await;
    assert_eq!(in_folder(&after, "parity"), Vec::<Path>::new());
}

/// Dies at every call of a piece of work, before or after it takes effect.
async fn sweep(objects_before: &Objects, project: ProjectId, repair: bool) {
    let packs: BTreeSet<Path> = in_folder(objects_before, "packs").into_iter().collect();
    for fault in [Fault::Before as fn(u64) -> Fault, Fault::After, Fault::Once] {
        for call in 0.. {
            let store = FaultyStore::new(store_of(objects_before).await);
            if repair {
                let mut lost = packs.iter();
                hurt(&store, lost.next().unwrap(), 0).await;
                hurt(&store, lost.next().unwrap(), 1).await;
            }
            let world = open(Arc::new(store.clone()), project, (4, 2)).await;
            store.set(Some(fault(call)));
            let ended = match repair {
                true => world.project.repair(Arc::default()).await.map(drop),
                false => world.project.collect(&[], Arc::default()).await.map(drop),
            };
            let calls = store.calls();
            store.set(None);
            let case = format!("{:?}, repair: {repair}", fault(call));
            let world = open(Arc::new(store.clone()), project, (4, 2)).await;
            match repair {
                true => drop(world.project.repair(Arc::default()).await.unwrap()),
                false => drop(world.project.collect(&[], Arc::default()).await.unwrap()),
            }
            world.must_be_whole(&case).await;
            let after = objects(&store).await;
            if repair {
                let same = |pack: &&Path| after.get(*pack) == objects_before.get(*pack);
                assert!(packs.iter().all(|pack| same(&pack)), "{case}");
            }
            let again = world.project.protect(Arc::default()).await.unwrap();
            assert_eq!(again, Protected::default(), "{case}");
            if ended.is_ok() && calls <= call {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_repair_may_die_at_any_call() {
    let (world, _) = lived_in(Arc::new(InMemory::new())).await;
    world.project.collect(&[], Arc::default()).await.unwrap();
    sweep(&objects(&world.store).await, world.project_id, true).await;
}

#[tokio::test]
async fn a_collection_of_protected_packs_may_die_at_any_call() {
    let (world, _) = lived_in(Arc::new(InMemory::new())).await;
    sweep(&objects(&world.store).await, world.project_id, false).await;
}

#[tokio::test]
async fn backups_and_restores_go_on_beside_the_upkeep() {
    let (world, mut disks) = lived_in(Arc::new(InMemory::new())).await;
    for n in 0..6 {
        let bytes = noise(300 + n, 5 * BLOCK);
        let disk = Arc::new(MemoryDisk::with(&bytes));
        let (written, protected, collected, restored) = tokio::join!(
            world.write(&disk),
            world.project.protect(Arc::default()),
            world.project.collect(&[], Arc::default()),
            world.restore(disks[0].0),
        );
        assert!(restored.unwrap().0 == disks[0].1);
        protected.unwrap();
        collected.unwrap();
        disks.push((written.unwrap().0, bytes));
        let (gone, _) = disks.remove(1);
        world.project.delete(gone).await.unwrap();
    }
    world.project.collect(&[], Arc::default()).await.unwrap();
    must_be_protected(&world.store, world.project_id, "after all").await;
    for (backup, bytes) in &disks {
        assert!(world.restore(*backup).await.unwrap().0 == *bytes);
    }
}

#[tokio::test]
async fn whoever_reads_only_protects_nothing() {
    let sixteen = Sixteen::new().await;
    let store = store_of(&sixteen.objects).await;
    let world = World::open(store, sixteen.project)
        .await
        .unwrap()
        .look()
        .await;
    let refused = world.project.protect(Arc::default()).await;
    assert_eq!(kind(refused), Kind::Denied);
}

#[test]
fn a_setting_has_limits() {
    for (data, parity) in [(0, 1), (1, 0), (33, 2), (16, 5)] {
        assert_eq!(Parity::new(data, parity), None, "{data} and {parity}");
    }
    assert!(Parity::new(1, 1).is_some() && Parity::new(32, 4).is_some());
}
