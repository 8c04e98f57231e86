//! What verification names as lost is exactly what cannot be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_repo::{VerifyLevel, VerifyReport};
use cairn_testkit::MemoryDisk;
use cairn_types::{BackupId, Lost};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{BLOCK, World, noise, text};
use crate::trees::{Files, folder, put, restore_part, save};

/// Blocks of the disk of the tests: more than a node of level 1 names.
const BLOCKS: usize = 300;

async fn packs(world: &World) -> Vec<Path> {
    let objects: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    let paths = objects.into_iter().map(|object| object.location);
    paths
        .filter(|path| path.as_ref().contains("/packs/"))
        .collect()
}

/// The same objects in a store of their own, some bits of a pack changed.
async fn with_flips(world: &World, pack: &Path, flips: &[usize]) -> World {
    let store = InMemory::new();
    let objects: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    for path in objects.into_iter().map(|object| object.location) {
        let bytes = world.store.get(&path).await.unwrap().bytes().await.unwrap();
        let mut bytes = bytes.to_vec();
        if path == *pack {
            flips.iter().for_each(|at| bytes[*at] ^= 1);
        }
        store.put(&path, bytes.into()).await.unwrap();
    }
    World::open(Arc::new(store), world.project_id)
        .await
        .unwrap()
}

/// The blocks of a backup that cannot be read, each tried alone.
async fn unreadable(world: &World, backup: BackupId) -> BTreeSet<usize> {
    let disk = world.project.open_disk(backup).await.unwrap();
    let tried = tokio::task::spawn_blocking(move || {
        let size = disk.size_bytes() as usize;
        let mut lost = BTreeSet::new();
        for block in 0..size.div_ceil(BLOCK) {
            let start = block * BLOCK;
            let mut buffer = vec![0; BLOCK.min(size - start)];
            if disk.read_at(start as u64, &mut buffer).is_err() {
                lost.insert(block);
            }
        }
        lost
    });
    tried.await.unwrap()
}

fn blocks(lost: &Lost) -> BTreeSet<usize> {
    let ranges = lost.ranges.iter().map(|range| {
        let start = range.offset as usize / BLOCK;
        start..(range.offset + range.length).div_ceil(BLOCK as u64) as usize
    });
    ranges.flatten().collect()
}

fn named(report: &VerifyReport, backup: BackupId) -> BTreeSet<usize> {
    let hurt = report.hurt.iter().find(|hurt| hurt.backup == backup);
    hurt.map_or(BTreeSet::new(), |hurt| {
        assert!(!hurt.lost.everything && hurt.lost.ranges_left_out == 0);
        blocks(&hurt.lost)
    })
}

/// Two backups of a disk of which the second shares most with the first, and
/// one of another disk.
async fn scene() -> (World, [BackupId; 3]) {
    let world = World::new().await;
    let mut bytes = text(1, BLOCKS * BLOCK + 77);
    bytes[20 * BLOCK..60 * BLOCK].fill(0);
    bytes[100 * BLOCK..130 * BLOCK].copy_from_slice(&noise(2, 30 * BLOCK));
    let disk = Arc::new(MemoryDisk::with(&bytes));
    let (first, _) = world.write(&disk).await.unwrap();
    disk.write(40 * BLOCK as u64, &noise(3, 30 * BLOCK));
    let (second, _) = world.write(&disk).await.unwrap();
    let other = Arc::new(MemoryDisk::with(&noise(4, 9 * BLOCK)));
    let (third, _) = world.write(&other).await.unwrap();
    (world, [first, second, third])
}

#[tokio::test]
async fn both_levels_name_exactly_the_blocks_that_cannot_be_read() {
    let (world, backups) = scene().await;
    let mut hurt_in_part = 0;
    for pack in packs(&world).await {
        let length = world.store.head(&pack).await.unwrap().size as usize;
        for flips in [
            vec![length / 5],
            vec![length / 2],
            vec![length / 3, length * 4 / 5],
        ] {
            let damaged = with_flips(&world, &pack, &flips).await;
            for level in [VerifyLevel::Quick, VerifyLevel::Full] {
                let report = damaged.project.verify(level, Arc::default()).await.unwrap();
                assert!(!report.is_clean());
                assert_eq!(report.damaged_packs.len(), 1);
                for backup in backups {
                    let case = format!("{level:?} {flips:?} of {length}: {report:?}");
                    let lost = unreadable(&damaged, backup).await;
                    assert_eq!(named(&report, backup), lost, "{case}");
                    assert_eq!(report.whole.contains(&backup), lost.is_empty(), "{case}");
                    hurt_in_part += usize::from((1..BLOCKS).contains(&lost.len()));
                }
            }
        }
    }
    assert!(hurt_in_part > 6, "the damage must hit a part of a disk");
}

#[tokio::test]
async fn one_backup_is_verified_without_the_packs_of_others() {
    let (world, [first, second, third]) = scene().await;
    let all = world
        .project
        .verify(VerifyLevel::Quick, Arc::default())
        .await
        .unwrap();
    assert_eq!((all.backups, all.whole.len()), (3, 3));
    for level in [VerifyLevel::Quick, VerifyLevel::Full] {
        let verify = |world: World, backup| async move {
            let report = world
                .project
                .verify_backups(level, [backup], Arc::default());
            report.await.unwrap()
        };
        let one = verify(world.reopen().await, third).await;
        assert_eq!((&one.whole, one.backups), (&vec![third], 1));
        assert!(one.packs < all.packs && one.read_bytes < all.read_bytes);
        let gone = verify(world.reopen().await, BackupId::random()).await;
        assert_eq!((gone.backups, gone.is_clean()), (0, true));
        for pack in packs(&world).await {
            let length = world.store.head(&pack).await.unwrap().size as usize;
            let damaged = with_flips(&world, &pack, &[length / 2]).await;
            let whole = damaged.project.verify(level, Arc::default()).await.unwrap();
            for backup in [first, second, third] {
                let one = verify(damaged.reopen().await, backup).await;
                assert_eq!(named(&one, backup), named(&whole, backup));
            }
        }
    }
}

#[tokio::test]
async fn a_pack_that_goes_while_the_repository_is_open_is_missed() {
    let (world, backups) = scene().await;
    world
        .project
        .verify(VerifyLevel::Quick, Arc::default())
        .await
        .unwrap();
    for pack in packs(&world).await {
        world.store.delete(&pack).await.unwrap();
    }
    for level in [VerifyLevel::Quick, VerifyLevel::Full] {
        let report = world.project.verify(level, Arc::default()).await.unwrap();
        let hurt: BTreeSet<BackupId> = report.hurt.iter().map(|hurt| hurt.backup).collect();
        assert_eq!(hurt, BTreeSet::from(backups), "{level:?}");
        assert!(report.whole.is_empty());
    }
}

/// No repair is needed: what is damaged counts as stored no more, so the next backups
/// of what the sources still have store it anew, and heal those that share it.
#[tokio::test]
async fn the_next_backups_heal_what_a_verification_found() {
    let (world, [first, second, third]) = scene().await;
    let disks = [second, third].map(async |backup| {
        let (bytes, _) = world.restore(backup).await.unwrap();
        Arc::new(MemoryDisk::with(&bytes))
    });
    let disks = futures::future::join_all(disks).await;
    let objects = async |world: &World| {
        let all: Vec<_> = world.store.list(None).try_collect().await.unwrap();
        all.len()
    };
    for pack in packs(&world).await {
        let length = world.store.head(&pack).await.unwrap().size as usize;
        for level in [VerifyLevel::Quick, VerifyLevel::Full] {
            let damaged = with_flips(&world, &pack, &[length / 3]).await;
            let reader = damaged.look().await;
            let before = objects(&damaged).await;
            let found = reader.project.verify(level, Arc::default()).await;
            assert!(!found.unwrap().is_clean());
            assert_eq!(
                objects(&damaged).await,
                before,
                "whoever reads writes nothing"
            );

            let found = damaged.project.verify(level, Arc::default()).await;
            let hurt = named(&found.unwrap(), first);
            let mut new_bytes = 0;
            for disk in &disks {
                new_bytes += damaged.write(disk).await.unwrap().1.new_bytes;
            }
            assert!(new_bytes > 0, "{level:?}: what was lost is stored anew");
            for (backup, disk) in [second, third].into_iter().zip(&disks) {
                let (restored, _) = damaged.restore(backup).await.unwrap();
                assert!(restored == disk.bytes(), "{level:?}");
            }
            // What the disk holds no more stays lost.
            let found = damaged.project.verify(level, Arc::default()).await.unwrap();
            assert!(found.whole.contains(&second) && found.whole.contains(&third));
            let still = named(&found, first);
            assert!(still.is_subset(&hurt), "{level:?}");
        }
    }
}

/// Files of one piece and of several, in folders.
fn fill(files: &Files) -> Vec<String> {
    let mut paths = Vec::new();
    for number in 0..40 {
        let path = format!("{}/{number:02}", number % 4);
        std::fs::create_dir_all(files.path().join(&path).parent().unwrap()).unwrap();
        let size = if number % 10 == 0 { 1_300_000 } else { 200_000 };
        put(&files.path().join(&path), &noise(number, size));
        paths.push(path);
    }
    paths
}

#[tokio::test]
async fn the_files_that_cannot_be_restored_are_named() {
    let (world, files) = (World::new().await, Files::new());
    let paths = fill(&files);
    let (backup, _) = save(&world, folder(&files), None).await.unwrap();
    let mut some = 0;
    for pack in packs(&world).await {
        let length = world.store.head(&pack).await.unwrap().size as usize;
        for at in [length / 4, length / 2] {
            let damaged = with_flips(&world, &pack, &[at]).await;
            let mut lost = BTreeSet::new();
            for path in &paths {
                let target = Files::new();
                let restored = restore_part(&damaged, backup, path.as_bytes(), &target);
                if restored.await.is_err() {
                    lost.insert(path.clone());
                }
            }
            for level in [VerifyLevel::Quick, VerifyLevel::Full] {
                let report = damaged.project.verify(level, Arc::default()).await.unwrap();
                let hurt = report.hurt.iter().find(|hurt| hurt.backup == backup);
                let named = hurt.map(|hurt| hurt.lost.paths.iter().cloned().collect());
                assert_eq!(named.unwrap_or(BTreeSet::new()), lost, "{level:?} {at}");
            }
            some += usize::from((1..paths.len()).contains(&lost.len()));
        }
    }
    assert!(some > 0, "the damage must hit a part of the files");
    for path in packs(&world).await {
        world.store.delete(&path).await.unwrap();
    }
    let none = world.reopen().await;
    let report = none
        .project
        .verify(VerifyLevel::Quick, Arc::default())
        .await;
    assert_eq!(
        report.unwrap().hurt[0].lost.paths,
        ["/"],
        "nothing is known of the folder"
    );
}
