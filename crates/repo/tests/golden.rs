//! Repositories of every released format still restore.
//!
//! `golden/N` is a repository of format N, which `golden/master.key` opens and
//! `golden/content.rs` describes. `cargo run -p cairn-repo --example write_golden
//! FOLDER` makes one by today's code. Until a format is released, its repository is
//! made anew when the format changes; from then on it stays as it is for ever, and
//! what changes gets the next number. `tools/cairn_read.py`, which was
//! written from `docs/FORMAT.md` alone, is held against them by `tests/test_reader.py`.

mod content;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_repo::{LocalStore, MasterKey, Project, Repository, RestoreTree, VerifyLevel};
use cairn_testkit::MemoryDisk;

use crate::trees::{Files, folder};

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

#[tokio::test(flavor = "multi_thread")]
async fn format_1_still_restores() {
    let project = open(&golden()).await;
    let listed = project.list().await.unwrap();
    assert_eq!(listed.len(), 5);
    let zeros = vec![0; content::ZERO_BYTES as usize];
    let disks = [content::first(), content::second(), zeros];
    for (backup, bytes) in listed.iter().zip(disks) {
        let target = Arc::new(MemoryDisk::with(&vec![0xee; bytes.len()]));
        let restored = project.restore_disk(backup.info.id, target.clone(), Arc::default());
        assert_eq!(restored.await.unwrap().root, backup.root);
        assert!(target.bytes() == bytes, "{}", backup.info.name);
    }
    assert_eq!(listed[1].parent, Some(listed[0].info.id));
    assert_eq!(listed[3].children[0].root, listed[1].root);
    assert_eq!(listed[3].children[1].root, listed[2].root);

    let (wanted, found) = (Files::new(), Files::new());
    content::fill(wanted.path()).unwrap();
    let job = RestoreTree {
        backup: listed[4].info.id,
        path: Vec::new(),
        target: Arc::new(folder(&found)),
        progress: Arc::default(),
    };
    project.restore_tree(job).await.unwrap();
    assert_eq!(state(wanted.path()), state(found.path()));

    let report = project.verify(VerifyLevel::Full, Arc::default()).await;
    let report = report.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// An entry below a folder: its mode, names and time, and what it holds.
type State = (u32, u64, i64, i64, Vec<u8>);

/// All that can be seen below a folder, by path, but for owners: they are of who made it.
fn state(root: &Path) -> BTreeMap<PathBuf, State> {
    let (mut seen, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let held = if kind.is_file() {
            fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        if path != root {
            let names = if kind.is_dir() { 1 } else { meta.nlink() };
            let state = (meta.mode(), names, meta.mtime(), meta.mtime_nsec(), held);
            seen.insert(path.strip_prefix(root).unwrap().to_owned(), state);
        }
    }
    seen
}
