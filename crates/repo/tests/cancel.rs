//! Whatever is cancelled ends soon, though the store does not answer any more
//! from any of its calls on, and can be done again once the store does.

use std::sync::Arc;
use std::time::Duration;

use cairn_repo::{RestoreTree, Result, VerifyLevel};
use cairn_testkit::{MemoryDisk, PausedStore};
use cairn_types::{Kind, Progress};
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use tokio::time::timeout;

use crate::common::{BLOCK, History, World, job, noise};
use crate::trees::{Files, folder, put};

/// How soon it ends.
const SOON: Duration = Duration::from_secs(2);

/// What is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Backup,
    BackupOfTree,
    Restore,
    RestoreOfTree,
    Verify(VerifyLevel),
    Collect,
    Repair,
}

/// A repository that has all that can be done something to do.
struct Scene {
    store: PausedStore,
    world: World,
    history: History,
    files: Files,
    tree: cairn_types::BackupId,
}

impl Scene {
    async fn new() -> Self {
        let store = PausedStore::new(Arc::new(InMemory::new()));
        let world = World::on(Arc::new(store.clone())).await;
        // At its end more than a part of an upload.
        let history = History::new(&world, [110, 20, 5, 100]).await;
        let files = Files::new();
        for number in 0..3 {
            put(
                &files.path().join(number.to_string()),
                &noise(number, 3 * BLOCK),
            );
        }
        let (tree, _) = crate::trees::save(&world, folder(&files), None)
            .await
            .unwrap();
        put(&files.path().join("large"), &noise(9, 100 * BLOCK));
        Self {
            store,
            world,
            history,
            files,
            tree,
        }
    }

    /// What is to be awaited for an act.
    fn act(&self, act: Act, progress: &Arc<Progress>) -> BoxFuture<'static, Result<()>> {
        let (project, progress) = (self.world.project.clone(), progress.clone());
        let (kept, bytes) = self.history.kept.first_key_value().unwrap();
        let (kept, size) = (*kept, bytes.len() as u64);
        let mut disk = job(self.history.next.clone(), &self.history.disk);
        disk.progress = progress.clone();
        let mut files = crate::trees::job(&self.world, folder(&self.files), None);
        files.progress = progress.clone();
        let tree = self.tree;
        Box::pin(async move {
            match act {
                Act::Backup => project.write_disk(disk).await.map(drop),
                Act::BackupOfTree => project.write_tree(files).await.map(drop),
                Act::Restore => {
                    let target = Arc::new(MemoryDisk::new(size));
                    project.restore_disk(kept, target, progress).await.map(drop)
                }
                Act::RestoreOfTree => {
                    let target = Files::new();
                    let job = RestoreTree {
                        backup: tree,
                        path: Vec::new(),
                        target: Arc::new(folder(&target)),
                        progress,
                    };
                    project.restore_tree(job).await.map(drop)
                }
                Act::Verify(level) => project.verify(level, progress).await.map(drop),
                Act::Collect => project.collect(&[], progress).await.map(drop),
                Act::Repair => project.repair(progress).await.map(drop),
            }
        })
    }

    /// All is as it was, and can be done.
    async fn go_on(&self, act: Act, case: &str) {
        for (backup, bytes) in &self.history.kept {
            assert!(
                self.world.restore(*backup).await.unwrap().0 == *bytes,
                "{case}"
            );
        }
        let again = self.act(act, &Arc::default()).await;
        match again.map_err(|error| error.kind()) {
            Ok(()) => {}
            // It had got to its receipt.
            Err(Kind::Conflict) if act == Act::Backup => {}
            Err(kind) => panic!("{case}: then {kind:?}"),
        }
        self.world.must_be_whole(case).await;
        let collected = self.world.project.collect(&[], Arc::default());
        collected.await.expect(case);
        self.world.must_be_whole(case).await;
    }
}

async fn is_cancelled_soon(act: Act) {
    for call in 0.. {
        let scene = Scene::new().await;
        let progress = Arc::new(Progress::default());
        scene.store.hang_from(call);
        let mut acting = scene.act(act, &progress);
        tokio::select! {
            ended = &mut acting => {
                ended.unwrap();
                assert!(call > 5, "{act:?} made {call} calls");
                return;
            }
            () = scene.store.reached() => {}
        }
        let case = format!("{act:?} at {call}: {}", scene.store.calls()[call as usize]);
        progress.cancel();
        // Once its receipt is on its way, a backup may exist.
        let calls = scene.store.calls();
        let may_exist = calls
            .iter()
            .any(|call| call.contains("put") && call.contains("/receipts/"));
        let ended = if may_exist {
            assert!(matches!(act, Act::Backup | Act::BackupOfTree), "{case}");
            scene.store.recover();
            acting.await
        } else {
            let ended = timeout(SOON, acting).await.expect(&case);
            scene.store.recover();
            ended
        };
        match ended.map_err(|error| error.kind()) {
            Err(Kind::Cancelled) => {}
            Ok(()) if may_exist => {}
            ended => panic!("{case}: {ended:?}"),
        }
        scene.go_on(act, &case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_cancelled_soon() {
    is_cancelled_soon(Act::Backup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_tree_is_cancelled_soon() {
    is_cancelled_soon(Act::BackupOfTree).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restores_are_cancelled_soon() {
    is_cancelled_soon(Act::Restore).await;
    is_cancelled_soon(Act::RestoreOfTree).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifications_are_cancelled_soon() {
    is_cancelled_soon(Act::Verify(VerifyLevel::Quick)).await;
    is_cancelled_soon(Act::Verify(VerifyLevel::Full)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_is_cancelled_soon() {
    is_cancelled_soon(Act::Collect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_is_cancelled_soon() {
    is_cancelled_soon(Act::Repair).await;
}
