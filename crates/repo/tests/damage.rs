//! Objects are lost, cut, changed and put in each other's places, each kind of
//! them: the damage is found, contained to the backups that verification names, and
//! never given back as something that was saved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cairn_repo::{VerifyLevel, VerifyReport, check_whole};
use cairn_testkit::MemoryDisk;
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{BLOCK, World, noise, text};

/// What happens to an object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Lose,
    /// Keeps the first so many thousandths.
    Cut(usize),
    /// Changes one bit, so many thousandths in.
    Flip(usize),
    /// As `Flip`, by somebody who makes the object's hash fit again.
    Forge(usize),
    Empty,
    /// Puts another object of the kind in its place.
    Swap(From),
}

/// Where the other object comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The same project, under another name.
    Project,
    /// Another project of the repository.
    Repository,
    /// A project of the same id in another repository, which the same master key opens.
    Elsewhere,
}

const DAMAGES: [Damage; 18] = [
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
    Damage::Forge(0),
    Damage::Forge(200),
    Damage::Forge(500),
    Damage::Forge(800),
    Damage::Forge(900),
    Damage::Swap(From::Project),
    Damage::Swap(From::Repository),
    Damage::Swap(From::Elsewhere),
];

/// Every kind of object that there is, as the folder of a project or the name of
/// what is in none. A new kind gets a line here, and all that follows.
const KINDS: [&str; 7] = [
    "config",
    "index",
    "keys",
    "log",
    "manifests",
    "packs",
    "receipts",
];

fn kind_of(path: &Path) -> String {
    let parts: Vec<_> = path.parts().collect();
    let part = parts.get(2).unwrap_or(&parts[0]);
    part.as_ref().to_owned()
}

/// Two backups of one disk, one of another, and a group of both disks.
struct Scene {
    world: World,
    disks: BTreeMap<BackupId, Vec<u8>>,
    group: BackupId,
    /// Another project of the repository.
    neighbour: World,
    /// A project of the same id in another repository.
    stranger: World,
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
        let neighbour = World::open(world.store.clone(), ProjectId::random()).await;
        let stranger = World::open(Arc::new(InMemory::new()), world.project_id).await;
        let scene = Self {
            neighbour: neighbour.unwrap(),
            stranger: stranger.unwrap(),
            world,
            disks,
            group,
        };
        for other in [&scene.neighbour, &scene.stranger] {
            other.write(&one).await.unwrap();
        }
        scene
    }

    /// The objects that can be damaged: all but the neighbour's.
    async fn paths(&self) -> Vec<Path> {
        let neighbour = self.neighbour.project_id.to_string();
        let all = paths_in(&self.world.store).await;
        let mine = |path: &Path| !path.as_ref().contains(&neighbour);
        all.into_iter().filter(mine).collect()
    }

    /// Another object of the same kind, if there is one.
    async fn other(&self, path: &Path, from: From) -> Option<Vec<u8>> {
        let (world, kind) = match from {
            From::Project => (&self.world, kind_of(path)),
            From::Repository => (&self.neighbour, kind_of(path)),
            From::Elsewhere => (&self.stranger, kind_of(path)),
        };
        let project = world.project_id.to_string();
        let fits = |other: &&Path| {
            let in_project = other.as_ref().contains(&project) || kind == "config";
            kind_of(other) == kind && in_project && (*other != path || from == From::Elsewhere)
        };
        let found = paths_in(&world.store).await;
        Some(bytes_of(&world.store, found.iter().find(fits)?).await)
    }

    /// The same objects in a store of their own, one of them damaged. Nothing if
    /// it cannot be damaged so.
    async fn damaged(&self, path: &Path, damage: Damage) -> Option<Arc<dyn ObjectStore>> {
        let mut bytes = bytes_of(&self.world.store, path).await;
        let length = bytes.len();
        match damage {
            Damage::Lose => {}
            Damage::Empty => bytes.clear(),
            Damage::Cut(share) => bytes.truncate((length * share / 1000).min(length - 1)),
            Damage::Flip(share) => bytes[length * share / 1000] ^= 4,
            Damage::Forge(share) => {
                let (body, hash) = bytes.split_at_mut(length - 32);
                body[body.len() * share / 1000] ^= 4;
                hash.copy_from_slice(blake3::hash(body).as_bytes());
            }
            Damage::Swap(from) => bytes = self.other(path, from).await?,
        }
        let store = InMemory::new();
        for other in paths_in(&self.world.store).await {
            let whole = bytes_of(&self.world.store, &other).await;
            store.put(&other, whole.into()).await.unwrap();
        }
        if matches!(damage, Damage::Lose) {
            store.delete(path).await.unwrap();
        } else {
            store.put(path, bytes.into()).await.unwrap();
        }
        Some(Arc::new(store))
    }
}

async fn paths_in(store: &Arc<dyn ObjectStore>) -> Vec<Path> {
    let metas: Vec<_> = store.list(None).try_collect().await.unwrap();
    metas.into_iter().map(|meta| meta.location).collect()
}

async fn bytes_of(store: &Arc<dyn ObjectStore>, path: &Path) -> Vec<u8> {
    let read = store.get(path).await.unwrap().bytes().await;
    read.unwrap().to_vec()
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
    let (mut kinds, mut closed) = (BTreeSet::new(), 0);
    for path in scene.paths().await {
        kinds.insert(kind_of(&path));
        for damage in DAMAGES {
            let case = format!("{damage:?} {path}");
            let Some(store) = scene.damaged(&path, damage).await else {
                continue;
            };
            check_without_key(&store, &path, damage).await;
            let Ok(world) = World::open(store, scene.world.project_id).await else {
                closed += 1;
                let kind = kind_of(&path);
                assert!(["config", "keys", "log"].contains(&&*kind), "{case}");
                continue;
            };
            check_damage(&scene, &world, &path, damage).await;
        }
    }
    assert_eq!(Vec::from_iter(&kinds), KINDS);
    assert!(closed > 20, "{closed}");
}

#[tokio::test]
async fn what_a_writer_tried_out_in_a_bucket_is_no_damage() {
    let world = World::new().await;
    let probe = Path::from("probe/0123");
    world.store.put(&probe, b"x".to_vec().into()).await.unwrap();
    let checked = check_whole(world.store.clone(), Arc::default()).await;
    let report = checked.unwrap();
    // The config, the project's key, and who writes.
    assert_eq!((report.objects, report.damaged.len()), (3, 0));
}

/// Who has no key sees every damage but the one that was hidden from him.
async fn check_without_key(store: &Arc<dyn ObjectStore>, path: &Path, damage: Damage) {
    let checked = check_whole(store.clone(), Arc::new(Progress::default())).await;
    let hidden = matches!(damage, Damage::Lose | Damage::Forge(_) | Damage::Swap(_));
    match checked {
        Ok(report) if hidden => assert_eq!(report.damaged, [""; 0], "{damage:?} {path}"),
        Ok(report) => assert_eq!(report.damaged, [path.to_string()], "{damage:?} {path}"),
        Err(error) => {
            assert_eq!(error.kind(), Kind::NotFound);
            assert!(matches!(damage, Damage::Lose) && path.as_ref() == "config");
        }
    }
}

/// Verification finds the damage and names exactly the backups that do not restore.
async fn check_damage(scene: &Scene, world: &World, path: &Path, damage: Damage) {
    let case = format!("{damage:?} {path}");
    let (quick, full) = (
        verify(world, VerifyLevel::Quick).await,
        verify(world, VerifyLevel::Full).await,
    );
    let lost = lost(scene, world, &case).await;
    let mut named = hurt(&full);
    named.extend(&full.unacknowledged);
    named.remove(&scene.group);
    assert_eq!(named, lost, "{case}: {full:?}");
    assert!(lost.len() < 3, "{case}: all disks are hurt");
    assert!(hurt(&quick).is_subset(&hurt(&full)), "{case}: {quick:?}");
    if kind_of(path) == "index" {
        assert!(lost.is_empty(), "{case}: packs tell what they hold");
    }
    let found = |report: &VerifyReport| !report.is_clean() || !report.unacknowledged.is_empty();
    // Where the repository opens, a damaged entry of the log counts no more: the
    // check without a key finds it, and no project has anything to do with it.
    let is_lost_index = matches!(damage, Damage::Lose) && kind_of(path) == "index";
    let harmless = is_lost_index || kind_of(path) == "log";
    assert_eq!(found(&full), !harmless, "{case}: {full:?}");
    // What is forged inside a frame takes the keys and every byte to find.
    if !matches!(damage, Damage::Forge(_)) {
        assert_eq!(found(&quick), !harmless, "{case}: {quick:?}");
    }
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
async fn a_lost_or_cut_pack_heals_when_the_disk_is_saved_again() {
    let scene = Scene::new().await;
    for path in scene
        .paths()
        .await
        .iter()
        .filter(|path| path.as_ref().contains("/packs/"))
    {
        for damage in [Damage::Lose, Damage::Cut(700)] {
            let store = scene.damaged(path, damage).await.unwrap();
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
            let store = scene.damaged(path, damage).await.unwrap();
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
