//! Collection removes what no backup needs and nothing else.

use std::sync::Arc;

use cairn_repo::{Collected, VerifyLevel, VerifyReport};
use cairn_testkit::MemoryDisk;
use cairn_types::{Kind, Progress};
use futures::TryStreamExt;
use object_store::path::Path;

use crate::common::{BLOCK, World, kind, noise};

async fn collect(world: &World) -> Collected {
    world
        .project
        .collect(&[], Arc::new(Progress::default()))
        .await
        .unwrap()
}

async fn verify(world: &World) -> VerifyReport {
    world
        .project
        .verify(VerifyLevel::Full, Arc::new(Progress::default()))
        .await
        .unwrap()
}

/// Every object of the project but its key.
async fn objects(world: &World) -> Vec<String> {
    let prefix = Path::from(format!("projects/{}", world.project_id));
    let metas: Vec<_> = world.store.list(Some(&prefix)).try_collect().await.unwrap();
    let paths = metas.into_iter().map(|meta| meta.location.to_string());
    paths.filter(|path| !path.contains("/keys/")).collect()
}

#[tokio::test]
async fn when_all_backups_are_gone_nothing_is_left() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(1, 100 * BLOCK)));
    let (backup, _) = world.write(&disk).await.unwrap();
    let before = collect(&world).await;
    assert_eq!((before.packs_removed, before.freed_bytes), (0, 0));
    world.project.delete(backup).await.unwrap();
    let after = collect(&world).await;
    assert!(after.freed_bytes > 100 * BLOCK as u64, "{after:?}");
    assert_eq!(after.stored_bytes, 0);
    assert_eq!(objects(&world).await, Vec::<String>::new());
    assert_eq!(collect(&world).await, Collected::default());
    let (again, _) = world.write(&disk).await.unwrap();
    assert_eq!(world.restore(again).await.unwrap().0, disk.bytes());
}

#[tokio::test]
async fn packs_that_are_mostly_dead_are_written_anew() {
    let world = World::new().await;
    let bytes = noise(2, 200 * BLOCK);
    let disk = Arc::new(MemoryDisk::with(&bytes));
    let (first, _) = world.write(&disk).await.unwrap();
    disk.write(0, &noise(3, 150 * BLOCK));
    let (second, _) = world.write(&disk).await.unwrap();
    world.project.delete(first).await.unwrap();
    let done = collect(&world).await;
    assert!(done.packs_rewritten > 0, "{done:?}");
    assert!(done.freed_bytes > 140 * BLOCK as u64, "{done:?}");
    assert!(done.stored_bytes < 210 * BLOCK as u64, "{done:?}");
    for world in [&world, &world.look().await] {
        assert!(world.restore(second).await.unwrap().0 == disk.bytes());
        assert!(verify(world).await.is_clean());
    }
    let again = collect(&world).await;
    assert_eq!(
        (again.packs_removed, again.index_objects_removed),
        (0, 0),
        "it is idempotent"
    );
}

#[tokio::test]
async fn a_little_that_is_dead_stays_where_it_is() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(4, 100 * BLOCK)));
    let (first, _) = world.write(&disk).await.unwrap();
    disk.write(0, &noise(5, 5 * BLOCK));
    world.write(&disk).await.unwrap();
    world.project.delete(first).await.unwrap();
    let done = collect(&world).await;
    assert_eq!(done.packs_rewritten, 0, "{done:?}");
}

#[tokio::test]
async fn what_a_failed_backup_left_is_collected() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(6, 100 * BLOCK)));
    disk.watch();
    disk.write(0, b"too late");
    world.write(&disk).await.unwrap_err();
    collect(&world).await;
    assert_eq!(objects(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn many_index_objects_become_few() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::new(100 * BLOCK as u64));
    let mut last = None;
    for n in 0..70 {
        disk.write(n * BLOCK as u64, &noise(n, 1000));
        last = Some(world.write(&disk).await.unwrap().0);
    }
    let done = collect(&world).await;
    assert_eq!(done.index_objects_removed, 70);
    let index = objects(&world)
        .await
        .into_iter()
        .filter(|path| path.contains("/index/"));
    assert_eq!(index.count(), 1);
    let world = world.reopen().await;
    assert_eq!(world.restore(last.unwrap()).await.unwrap().0, disk.bytes());
}

#[tokio::test]
async fn a_backup_that_cannot_be_read_stops_collection_until_it_is_deleted() {
    let world = World::new().await;
    let (hurt, _) = world
        .write(&Arc::new(MemoryDisk::with(&noise(7, BLOCK))))
        .await
        .unwrap();
    let kept = Arc::new(MemoryDisk::with(&noise(8, BLOCK)));
    let (kept_id, _) = world.write(&kept).await.unwrap();
    let manifest = objects(&world).await;
    let manifest = manifest
        .iter()
        .find(|path| path.contains(&hurt.to_string()));
    let manifest = manifest.expect("manifests come before receipts").as_str();
    assert!(manifest.contains("/manifests/"));
    object_store::ObjectStoreExt::delete(&world.store, &manifest.into())
        .await
        .unwrap();
    let before = objects(&world).await;
    let refused = world
        .project
        .collect(&[], Arc::new(Progress::default()))
        .await;
    assert_eq!(kind(refused), Kind::Corrupt);
    assert_eq!(objects(&world).await, before);
    world.project.delete(hurt).await.unwrap();
    assert!(collect(&world).await.packs_removed > 0);
    assert_eq!(world.restore(kept_id).await.unwrap().0, kept.bytes());
}

#[tokio::test]
async fn a_collection_runs_beside_writers() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(9, 300 * BLOCK)));
    for _ in 0..5 {
        let progress = Arc::new(Progress::default());
        let (written, collected) =
            tokio::join!(world.write(&disk), world.project.collect(&[], progress));
        collected.unwrap();
        let (backup, _) = written.unwrap();
        collect(&world).await;
        assert!(world.look().await.restore(backup).await.unwrap().0 == disk.bytes());
        world.project.delete(backup).await.unwrap();
    }
}
