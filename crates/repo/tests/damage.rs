//! Objects are lost, cut and changed, each kind of them: the damage is found,
//! contained to the backups that verification names, and never given back as
//! something that was saved.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cairn_repo::{VerifyLevel, VerifyReport};
use cairn_testkit::MemoryDisk;
use cairn_types::{BackupId, Kind, Progress};
use common::{BLOCK, World, noise, text};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// What happens to an object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Lose,
    /// Keeps the first so many thousandths.
    Cut(usize),
    /// Changes one bit, so many thousandths in.
    Flip(usize),
    Empty,
}

const DAMAGES: [Damage; 10] = [
    Damage::Lose,
    Damage::Empty,
    Damage::Cut(10),
    Damage::Cut(500),
    Damage::Cut(999),
    Damage::Flip(0),
    Damage::Flip(200),
    Damage::Flip(500),
    Damage::Flip(990),
    Damage::Flip(999),
];

/// Two backups of one disk, one of another, and a group of both disks.
struct Scene {
    world: World,
    disks: BTreeMap<BackupId, Vec<u8>>,
    group: BackupId,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let mut disks = BTreeMap::new();
        let one = Arc::new(MemoryDisk::with(&noise(1, 40 * BLOCK)));
        let (first, _) = world.write(&one).await.unwrap();
        disks.insert(first, one.bytes());
        one.write(7 * BLOCK as u64, &text(2, 9 * BLOCK));
        let (second, _) = world.write(&one).await.unwrap();
        disks.insert(second, one.bytes());
        let other = Arc::new(MemoryDisk::with(&noise(3, 20 * BLOCK + 77)));
        let (third, _) = world.write(&other).await.unwrap();
        disks.insert(third, other.bytes());
        let info = world.info(5);
        let group = info.id;
        world
            .project
            .write_group(info, vec![second, third])
            .await
            .unwrap();
        Self {
            world,
            disks,
            group,
        }
    }

    async fn paths(&self) -> Vec<Path> {
        let metas: Vec<_> = self.world.store.list(None).try_collect().await.unwrap();
        metas.into_iter().map(|meta| meta.location).collect()
    }

    /// The same objects in a store of their own, one of them damaged.
    async fn damaged(&self, path: &Path, damage: Damage) -> Arc<dyn ObjectStore> {
        let store = InMemory::new();
        for from in self.paths().await {
            let mut bytes = self
                .world
                .store
                .get(&from)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap()
                .to_vec();
            if from == *path {
                let length = bytes.len();
                match damage {
                    Damage::Lose => continue,
                    Damage::Empty => bytes.clear(),
                    Damage::Cut(share) => bytes.truncate((length * share / 1000).min(length - 1)),
                    Damage::Flip(share) => bytes[length * share / 1000] ^= 4,
                }
            }
            store.put(&from, bytes.into()).await.unwrap();
        }
        Arc::new(store)
    }
}

async fn verify(world: &World, level: VerifyLevel) -> VerifyReport {
    world
        .project
        .verify(level, Arc::new(Progress::default()))
        .await
        .unwrap()
}

fn hurt(report: &VerifyReport) -> BTreeSet<BackupId> {
    report.hurt.iter().map(|hurt| hurt.backup).collect()
}

/// Which disks do not come back; those that do must be exact.
async fn lost(scene: &Scene, world: &World, case: &str) -> BTreeSet<BackupId> {
    let mut lost = BTreeSet::new();
    for (backup, bytes) in &scene.disks {
        match world.restore(*backup).await {
            Ok((restored, _)) => assert!(restored == *bytes, "{case}: {backup} came back wrong"),
            Err(error) => {
                assert!(
                    matches!(error.kind(), Kind::Corrupt | Kind::NotFound),
                    "{case}: {error}"
                );
                lost.insert(*backup);
            }
        }
    }
    lost
}

#[tokio::test]
async fn any_damage_to_any_object_is_found_and_contained() {
    let scene = Scene::new().await;
    let mut kinds = BTreeSet::new();
    for path in scene.paths().await {
        for damage in DAMAGES {
            let case = format!("{damage:?} {path}");
            let store = scene.damaged(&path, damage).await;
            let Ok(world) = World::open(store, scene.world.project_id).await else {
                kinds.insert("closed");
                let closed = ["config", "/keys/", "log/"];
                assert!(
                    closed.iter().any(|part| path.as_ref().contains(part)),
                    "{case}"
                );
                continue;
            };
            let (quick, full) = (
                verify(&world, VerifyLevel::Quick).await,
                verify(&world, VerifyLevel::Full).await,
            );
            let lost = lost(&scene, &world, &case).await;
            let mut named = hurt(&full);
            named.extend(&full.unacknowledged);
            if named.remove(&scene.group) {
                kinds.insert("group");
            }
            if !lost.is_empty() {
                kinds.insert("disk");
                assert!(lost.len() < 3, "{case}: all disks are hurt");
            }
            assert_eq!(named, lost, "{case}: {full:?}");
            assert!(hurt(&quick).is_subset(&hurt(&full)), "{case}: {quick:?}");
            let can_go = ["/index/", "log/"];
            let can_go = can_go.iter().any(|part| path.as_ref().contains(part));
            let harmless = matches!(damage, Damage::Lose) && can_go;
            let found = !full.is_clean() || !full.unacknowledged.is_empty();
            assert_eq!(found, !harmless, "{case}: {full:?}");
            if path.as_ref().contains("/index/") {
                assert!(lost.is_empty(), "{case}: packs tell what they hold");
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from(["closed", "disk", "group"]));
}

#[tokio::test]
async fn a_group_is_hurt_with_its_disks() {
    let scene = Scene::new().await;
    let group = scene.world.project.find(scene.group).await.unwrap();
    for child in &group.children {
        let world = scene.world.reopen().await;
        world.project.delete(child.backup).await.unwrap();
        let report = verify(&world, VerifyLevel::Quick).await;
        assert_eq!(hurt(&report), BTreeSet::from([scene.group]));
    }
}

#[tokio::test]
async fn objects_in_each_others_places_are_refused() {
    let scene = Scene::new().await;
    let paths = scene.paths().await;
    for folder in ["/packs/", "/index/", "/manifests/", "/receipts/"] {
        let of_kind: Vec<&Path> = paths
            .iter()
            .filter(|p| p.as_ref().contains(folder))
            .collect();
        let (one, two) = (of_kind[0], of_kind[1]);
        let store = scene.damaged(one, Damage::Lose).await;
        let bytes = scene
            .world
            .store
            .get(two)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        store.put(one, bytes.into()).await.unwrap();
        let world = World::open(store, scene.world.project_id).await.unwrap();
        let report = verify(&world, VerifyLevel::Full).await;
        assert!(!report.is_clean(), "{folder}");
        let mut named = hurt(&report);
        let lost = lost(&scene, &world, folder).await;
        named.remove(&scene.group);
        assert_eq!(named, lost, "{folder}: {report:?}");
    }
}

#[tokio::test]
async fn a_lost_or_cut_pack_heals_when_the_disk_is_saved_again() {
    let scene = Scene::new().await;
    for path in scene
        .paths()
        .await
        .iter()
        .filter(|path| path.as_ref().contains("/packs/"))
    {
        for damage in [Damage::Lose, Damage::Cut(700)] {
            let store = scene.damaged(path, damage).await;
            let world = World::open(store, scene.world.project_id).await.unwrap();
            for bytes in scene.disks.values() {
                world
                    .write(&Arc::new(MemoryDisk::with(bytes)))
                    .await
                    .unwrap();
            }
            let world = world.reopen().await;
            let case = format!("{damage:?} {path}");
            assert!(lost(&scene, &world, &case).await.is_empty(), "{case}");
            assert!(
                hurt(&verify(&world, VerifyLevel::Full).await).is_empty(),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn a_damaged_pack_heals_by_repair_and_saving_the_disk_again() {
    let scene = Scene::new().await;
    let mut repaired = 0;
    for path in scene
        .paths()
        .await
        .iter()
        .filter(|path| path.as_ref().contains("/packs/"))
    {
        for damage in DAMAGES {
            let case = format!("{damage:?} {path}");
            let store = scene.damaged(path, damage).await;
            let world = World::open(store, scene.world.project_id).await.unwrap();
            let before = hurt(&verify(&world, VerifyLevel::Full).await);
            let report = world
                .project
                .repair(Arc::new(Progress::default()))
                .await
                .unwrap();
            repaired += report.packs.len();
            let after = verify(&world, VerifyLevel::Full).await;
            assert_eq!(hurt(&after), before, "{case}: repair hurts nobody else");
            for bytes in scene.disks.values() {
                world
                    .write(&Arc::new(MemoryDisk::with(bytes)))
                    .await
                    .unwrap();
            }
            world
                .project
                .collect(&[], Arc::new(Progress::default()))
                .await
                .unwrap();
            let world = world.reopen().await;
            assert!(lost(&scene, &world, &case).await.is_empty(), "{case}");
            let report = verify(&world, VerifyLevel::Full).await;
            assert!(report.is_clean(), "{case}: {report:?}");
        }
    }
    assert!(repaired > 10);
}
