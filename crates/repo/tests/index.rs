//! The local index beside the store: what a start reads, and what it believes.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use cairn_repo::VerifyLevel;
use cairn_testkit::{MemoryDisk, PausedStore};
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use crate::common::{BLOCK, World, index_folder, job, kind, noise};

/// A store, and a folder in which its index is kept over restarts.
struct Machine {
    store: Arc<dyn ObjectStore>,
    folder: Arc<TempDir>,
    project: ProjectId,
}

impl Machine {
    fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            folder: Arc::new(index_folder()),
            project: ProjectId::random(),
        }
    }

    /// Starts; whoever had started before must have ended.
    async fn start(&self) -> World {
        let folder = self.folder.clone();
        let world = World::open_with(self.store.clone(), self.project, folder);
        world.await.unwrap()
    }

    async fn objects(&self, folder: &str) -> Vec<Path> {
        let prefix = Path::from(format!("projects/{}/{folder}", self.project));
        let listed = self.store.list(Some(&prefix));
        listed
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .unwrap()
    }

    /// Whether something counts as lost.
    async fn has_losses(&self) -> bool {
        let mark = Path::from(format!("projects/{}/losses", self.project));
        self.store.head(&mark).await.is_ok()
    }

    fn index_folder(&self) -> PathBuf {
        self.folder.path().join(self.project.to_string())
    }
}

/// Small backups enough for the index to write what it has taken in to its folder.
const BACKUPS: u64 = 70;

async fn fill(world: &World) -> Vec<(BackupId, Arc<MemoryDisk>)> {
    let mut backups = Vec::new();
    for seed in 0..BACKUPS {
        let disk = Arc::new(MemoryDisk::with(&noise(seed + 1, 2 * BLOCK)));
        backups.push((world.write(&disk).await.unwrap().0, disk));
    }
    backups
}

async fn check(world: &World, backups: &[(BackupId, Arc<MemoryDisk>)]) {
    for (backup, disk) in backups {
        assert!(world.restore(*backup).await.unwrap().0 == disk.bytes());
    }
}

#[tokio::test]
async fn a_start_reads_only_the_index_objects_that_are_new() {
    let store = PausedStore::new(Arc::new(InMemory::new()));
    let machine = Machine::new(Arc::new(store.clone()));
    let backups = fill(&machine.start().await).await;
    store.pause_at(u64::MAX);
    let world = machine.start().await;
    check(&world, &backups).await;
    let calls = store.calls();
    let of_index = |call: &&String| call.starts_with("get ") && call.contains("/index/");
    let reads = calls.iter().filter(of_index).count() as u64;
    assert!(reads < BACKUPS - 60, "{reads} of {BACKUPS}");
    // Nothing that is known from before is stored again.
    for (_, disk) in &backups {
        assert_eq!(world.write(disk).await.unwrap().1.new_bytes, 0);
    }
}

#[tokio::test]
async fn packs_that_the_store_does_not_list_are_asked_for() {
    let store = PausedStore::new(Arc::new(InMemory::new()));
    let machine = Machine::new(Arc::new(store.clone()));
    let backups = fill(&machine.start().await).await;
    store.hide(Some("/packs/".into()));
    for kept in [true, false] {
        if !kept {
            std::fs::remove_dir_all(machine.folder.path()).unwrap();
        }
        let world = machine.start().await;
        check(&world, &backups).await;
        let again = world.write(&backups[3].1).await.unwrap().1;
        assert_eq!(again.new_bytes, 0, "it is there all the same");
    }
}

#[tokio::test]
async fn what_was_in_packs_that_are_gone_is_stored_again() {
    let machine = Machine::new(Arc::new(InMemory::new()));
    let backups = fill(&machine.start().await).await;
    for pack in machine.objects("packs").await {
        machine.store.delete(&pack).await.unwrap();
    }
    let world = machine.start().await;
    for (backup, disk) in &backups {
        assert_eq!(kind(world.restore(*backup).await), Kind::Corrupt);
        assert!(world.write(disk).await.unwrap().1.new_bytes > 0);
        assert!(world.restore(*backup).await.unwrap().0 == disk.bytes());
    }
    let progress = Arc::new(Progress::default());
    let report = world.project.verify(VerifyLevel::Full, progress).await;
    assert_eq!(report.unwrap().hurt, []);
    assert!(machine.has_losses().await);
}

#[tokio::test]
async fn a_collection_is_not_undone_by_what_the_folder_remembers() {
    let machine = Machine::new(Arc::new(InMemory::new()));
    let world = machine.start().await;
    let backups = fill(&world).await;
    for (backup, _) in &backups {
        world.project.delete(*backup).await.unwrap();
    }
    let progress = Arc::new(Progress::default());
    world.project.collect(&[], progress).await.unwrap();
    assert_eq!(machine.objects("packs").await, []);
    drop(world);
    let world = machine.start().await;
    world.write(&backups[0].1).await.unwrap();
    assert!(!machine.has_losses().await, "it was taken away, not lost");
    for (_, disk) in &backups {
        let (again, _) = world.write(disk).await.unwrap();
        assert!(world.restore(again).await.unwrap().0 == disk.bytes());
    }
    world.must_be_whole("now").await;
}

/// Changes a file, by its bytes.
type Damage = fn(&mut Vec<u8>);

#[tokio::test]
async fn a_folder_that_is_lost_or_damaged_is_made_anew() {
    let machine = Machine::new(Arc::new(InMemory::new()));
    let backups = fill(&machine.start().await).await;
    let flip: Damage = |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let cut: Damage = |bytes| bytes.truncate(bytes.len() / 2);
    let clear: Damage = Vec::clear;
    let files = |folder: &FilePath| {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| std::fs::metadata(path).unwrap().len() > 0);
        paths.sort();
        paths
    };
    let count = files(&machine.index_folder()).len();
    assert!(count >= 4, "{count} files");
    for number in 0..count {
        for damage in [flip, cut, clear] {
            // What the damage before did is healed.
            check(&machine.start().await, &backups[..1]).await;
            let path = files(&machine.index_folder()).swap_remove(number);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::remove_file(&path).unwrap();
            let mut file = std::fs::File::create(&path).unwrap();
            std::io::Write::write_all(&mut file, &bytes).unwrap();
            let world = machine.start().await;
            for (backup, disk) in &backups {
                // Found out by a question, it is an error; the next one works with a new index.
                match world.project.write_disk(job(world.info(2), disk)).await {
                    Err(error) => assert_eq!(error.kind(), Kind::Transient, "{error}"),
                    Ok(written) => assert_eq!(written.new_bytes, 0),
                }
                let restored = match world.restore(*backup).await {
                    Err(error) if error.kind() == Kind::Transient => world.restore(*backup).await,
                    restored => restored,
                };
                assert!(restored.unwrap().0 == disk.bytes());
            }
        }
    }
    machine.start().await.must_be_whole("a new start").await;
}
