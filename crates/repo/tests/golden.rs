//! Repositories of every released format still restore.
//!
//! `golden/N` is a repository of format N, which `golden/master.key` opens and
//! `golden/content.rs` describes. `cargo run -p cairn-repo --example write_golden
//! FOLDER` makes one by today's code. Until a format is released, its repository is
//! made anew when the format changes; from then on it stays as it is for ever, and
//! what changes gets the next number. `tools/cairn_read.py`, which was
//! written from `docs/FORMAT.md` alone, is held against them by `tests/test_reader.py`.

#![allow(clippy::unwrap_used)]

#[path = "golden/content.rs"]
mod content;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_repo::{LocalStore, MasterKey, Project, Repository, VerifyLevel};
use cairn_testkit::MemoryDisk;
use cairn_types::Progress;

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
