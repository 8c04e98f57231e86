//! Another master key: one object is written, whatever the repository holds,
//! and the old key opens nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_repo::{MasterKey, Repository};
use cairn_testkit::{FaultyStore, MemoryDisk};
use cairn_types::{Kind, Progress};
use common::{BLOCK, World, kind, master, noise};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// Packs that a rotation must not touch.
const PACKS: usize = 10_000;

async fn objects(store: &dyn ObjectStore) -> BTreeMap<Path, Vec<u8>> {
    let found: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for meta in found {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await;
        objects.insert(meta.location, bytes.unwrap().to_vec());
    }
    objects
}

#[tokio::test]
async fn a_rotation_writes_one_object_however_many_packs_there_are() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FaultyStore::new(inner.clone());
    let world = World::on(Arc::new(store.clone())).await;
    let disk = Arc::new(MemoryDisk::with(&noise(1, 5 * BLOCK)));
    let (backup, _) = world.write(&disk).await.unwrap();
    for number in 0..PACKS {
        let path = format!(
            "projects/{}/packs/{:02x}/{number:032x}",
            world.project_id,
            number % 256
        );
        let bytes = (number as u64).to_le_bytes().to_vec();
        inner.put(&Path::from(path), bytes.into()).await.unwrap();
    }
    let before = objects(&inner).await;
    let (from, to) = (master(), MasterKey::generate());
    store.set(None);
    let rotated = Repository::rotate_master_key(Arc::new(store.clone()), &from, &to);
    rotated.await.unwrap();
    assert_eq!(store.calls(), 3, "read, write, read back");

    let mut after = objects(&inner).await;
    let config = Path::from("config");
    assert_ne!(before[&config], after[&config]);
    after.insert(config.clone(), before[&config].clone());
    assert!(before == after, "nothing else has changed");

    let old = Repository::open(inner.clone(), &master()).await.map(drop);
    assert_eq!(kind(old), Kind::Denied);
    let repository = Repository::open(inner.clone(), &to).await.unwrap();
    let project = repository.existing_project(world.project_id).await.unwrap();
    let target = Arc::new(MemoryDisk::new(5 * BLOCK as u64));
    let restored = project.restore_disk(backup, target.clone(), Arc::new(Progress::default()));
    restored.await.unwrap();
    assert!(target.bytes() == disk.bytes());
}

#[tokio::test]
async fn a_rotation_by_a_key_that_does_not_open_changes_nothing() {
    let world = World::new().await;
    let before = objects(&world.store).await;
    let (stranger, to) = (MasterKey::generate(), MasterKey::generate());
    let rotated = Repository::rotate_master_key(world.store.clone(), &stranger, &to).await;
    assert_eq!(kind(rotated), Kind::Denied);
    assert!(objects(&world.store).await == before);
}

#[tokio::test]
async fn who_has_the_repository_open_works_on_through_a_rotation() {
    let world = World::new().await;
    let to = MasterKey::generate();
    let rotated = Repository::rotate_master_key(world.store.clone(), &master(), &to).await;
    rotated.unwrap();
    let disk = Arc::new(MemoryDisk::with(&noise(2, BLOCK)));
    let (backup, _) = world.write(&disk).await.unwrap();
    let (bytes, _) = world.restore(backup).await.unwrap();
    assert!(bytes == disk.bytes());
}
