//! Repositories of every released format still restore, and a reader that was
//! written from `docs/FORMAT.md` alone gets the same disks out of them.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "golden/content.rs"]
mod content;
#[path = "golden/reader.rs"]
mod reader;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_repo::{LocalStore, MasterKey, Project, Repository, VerifyLevel};
use cairn_testkit::MemoryDisk;
use cairn_types::Progress;
use common::{BLOCK, World, noise};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1")
}

async fn open(folder: &Path) -> Project {
    let store = Arc::new(LocalStore::open_read_only(folder).unwrap());
    let master = MasterKey::from_hex(content::MASTER).unwrap();
    let repository = Repository::open(store, &master).await.unwrap();
    let projects = repository.projects().await.unwrap();
    repository.existing_project(projects[0]).await.unwrap()
}

#[tokio::test]
async fn format_1_still_restores() {
    let project = open(&golden()).await;
    let listed = project.list().await.unwrap();
    assert_eq!(listed.len(), 3);
    for (backup, bytes) in listed.iter().zip([content::first(), content::second()]) {
        let target = Arc::new(MemoryDisk::new(bytes.len() as u64));
        let progress = Arc::new(Progress::default());
        let restored = project
            .restore_disk(backup.info.id, target.clone(), progress)
            .await;
        assert_eq!(restored.unwrap().root, backup.root);
        assert!(target.bytes() == bytes, "{}", backup.info.name);
    }
    assert_eq!(listed[1].parent, Some(listed[0].info.id));
    assert_eq!(listed[2].children[0].root, listed[1].root);
    let progress = Arc::new(Progress::default());
    let report = project.verify(VerifyLevel::Full, progress).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn a_reader_by_the_document_reads_format_1() {
    let disks = reader::read(&golden(), content::MASTER);
    let roots: Vec<_> = disks.iter().map(|(root, _)| *root).collect();
    let listed = open(&golden()).await.list().await.unwrap();
    for (bytes, at) in [content::first(), content::second()].iter().zip(0..) {
        let found = roots
            .iter()
            .position(|root| *root == listed[at].root.0)
            .unwrap();
        assert!(disks[found].1 == *bytes);
    }
}

#[tokio::test]
async fn a_reader_by_the_document_reads_what_is_written_today() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(folder.path()).unwrap());
    let world = World::on(store).await;
    let mut bytes = noise(1, 90 * BLOCK + 3);
    bytes.resize(300 * BLOCK, 0);
    let (_, written) = world
        .write(&Arc::new(MemoryDisk::with(&bytes)))
        .await
        .unwrap();
    let disks = reader::read(folder.path(), common::MASTER);
    assert!(disks == [(written.root.0, bytes)]);
}
