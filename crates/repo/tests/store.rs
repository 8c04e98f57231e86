//! What the repository asks of an object store, held against the local store
//! and the one in memory; and what the local store promises beyond that.

use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use std::sync::Arc;

use cairn_repo::{Error, LocalStore, Repository, VerifyLevel};
use cairn_testkit::MemoryDisk;
use cairn_types::{Kind, Progress, ProjectId};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::conformance::{conforms, names, read};
use crate::common::{BLOCK, World, kind, master, noise};

fn local() -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(&folder.path().join("a/b/store")).unwrap();
    (folder, Arc::new(store))
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conforms(&InMemory::new()).await;
}

#[tokio::test]
async fn the_local_store_conforms() {
    conforms(&*local().1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_in_a_folder_works_and_restores_with_folder_and_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(MemoryDisk::with(&noise(5, 130 * BLOCK + 9)));
    let project_id = ProjectId::random();
    let backup = {
        let store = Arc::new(LocalStore::open(folder.path()).unwrap());
        let world = World::open(store, project_id).await.unwrap();
        let (dead, _) = world.write(&disk).await.unwrap();
        disk.write(0, &noise(6, 100 * BLOCK));
        let (backup, _) = world.write(&disk).await.unwrap();
        world.project.delete(dead).await.unwrap();
        let done = world
            .project
            .collect(&[], Arc::new(Progress::default()))
            .await
            .unwrap();
        assert!(done.packs_rewritten > 0, "{done:?}");
        backup
    };
    let before = tree(folder.path());
    let store = Arc::new(LocalStore::open_read_only(folder.path()).unwrap());
    let repository = Repository::open(store.clone(), &master()).await.unwrap();
    assert_eq!(repository.projects().await.unwrap(), [project_id]);
    let project = repository.existing_project(project_id).await.unwrap();
    assert_eq!(project.list().await.unwrap()[0].info.id, backup);
    let report = project
        .verify(VerifyLevel::Full, Arc::new(Progress::default()))
        .await
        .unwrap();
    assert!(report.is_clean(), "{report:?}");
    let target = Arc::new(MemoryDisk::new(130 * BLOCK as u64 + 9));
    project
        .restore_disk(backup, target.clone(), Arc::new(Progress::default()))
        .await
        .unwrap();
    assert!(target.bytes() == disk.bytes());
    assert_eq!(tree(folder.path()), before, "reading wrote something");
    let refused = project.delete(backup).await;
    assert_eq!(kind(refused), Kind::Denied);
}

/// Every file below a folder, with its length and mode.
fn tree(folder: &FilePath) -> Vec<(String, u64, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o777;
            found.push((entry.path().display().to_string(), metadata.len(), mode));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn files_and_folders_are_for_the_owner_alone() {
    let (folder, store) = local();
    store.put(&Path::from("a/b/c"), "x".into()).await.unwrap();
    let root = folder.path().join("a/b/store");
    for (path, _, mode) in tree(&root) {
        let expected = if FilePath::new(&path).is_dir() {
            0o700
        } else {
            0o600
        };
        assert_eq!(mode, expected, "{path}");
    }
}

#[tokio::test]
async fn what_an_earlier_process_left_unfinished_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    let mut upload = store.put_multipart(&Path::from("x")).await.unwrap();
    upload.put_part("half".into()).await.unwrap();
    // As when the process dies: nothing is dropped.
    std::mem::forget(upload);
    let unfinished = || {
        tree(folder.path())
            .iter()
            .filter(|(path, ..)| path.contains("/.tmp/"))
            .count()
    };
    assert_eq!(unfinished(), 1);
    drop(store);
    LocalStore::open(folder.path()).unwrap();
    assert_eq!(unfinished(), 0);
}

#[tokio::test]
async fn one_writer_at_a_time_and_readers_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let writer = LocalStore::open(folder.path()).unwrap();
    let second = LocalStore::open(folder.path());
    assert!(matches!(second, Err(Error::FolderLocked { .. })));
    writer.put(&Path::from("x"), "1".into()).await.unwrap();
    let reader = LocalStore::open_read_only(folder.path()).unwrap();
    assert_eq!(read(&reader, "x").await.unwrap(), b"1");
    assert!(reader.put(&Path::from("y"), "2".into()).await.is_err());
    assert!(reader.delete(&Path::from("x")).await.is_err());
    drop(writer);
    LocalStore::open(folder.path()).unwrap();
    let nowhere = LocalStore::open_read_only(&folder.path().join("nowhere"));
    assert_eq!(kind(nowhere.map(drop)), Kind::NotFound);
}

#[tokio::test]
async fn names_that_could_leave_the_folder_are_refused() {
    let (_folder, store) = local();
    for name in [".tmp/x", ".lock", "a/.hidden"] {
        assert!(
            store.put(&Path::from(name), "x".into()).await.is_err(),
            "{name}"
        );
        assert!(store.get(&Path::from(name)).await.is_err(), "{name}");
    }
    assert_eq!(names(&*store, "").await, Vec::<String>::new());
}
