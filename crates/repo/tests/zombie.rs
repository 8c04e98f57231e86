//! A writer that is paused at any of its calls to the store, for as long as it
//! takes another to open the repository, write, delete and collect, and that
//! then goes on. A pause of a second and one of ten years are the same here: an
//! order of events.

use std::sync::Arc;

use cairn_repo::Result;
use cairn_testkit::{MemoryDisk, PausedStore};
use cairn_types::{Kind, Progress};
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::common::{BLOCK, History, World, job, noise};

/// What the paused writer is at.
#[derive(Debug, Clone, Copy)]
enum Act {
    Backup,
    Delete,
    Collect,
}

/// A repository in which two states of a disk are saved, and a third and a
/// first that nobody needs any more.
struct Scene {
    inner: Arc<dyn ObjectStore>,
    store: PausedStore,
    zombie: World,
    history: History,
}

impl Scene {
    async fn new() -> Self {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = PausedStore::new(inner.clone());
        let zombie = World::on(Arc::new(store.clone())).await;
        let history = History::new(&zombie, [40, 30, 8, 25]).await;
        Self {
            inner,
            store,
            zombie,
            history,
        }
    }

    /// Begins the act; it needs nothing of the scene.
    fn act(&self, act: Act) -> BoxFuture<'static, Result<()>> {
        let project = self.zombie.project.clone();
        let (next, to_delete) = (
            job(self.history.next.clone(), &self.history.disk),
            self.history.to_delete,
        );
        Box::pin(async move {
            match act {
                Act::Backup => project.write_disk(next).await.map(drop),
                Act::Delete => project.delete(to_delete).await,
                Act::Collect => project.collect(&[], Arc::default()).await.map(drop),
            }
        })
    }

    /// What another process does meanwhile: it saves the disk that the paused
    /// one saves, and another that has much in common with what is dead;
    /// deletes; collects.
    async fn take_over(&mut self) -> World {
        let world = World::open(self.inner.clone(), self.zombie.project_id).await;
        let world = world.unwrap();
        for (seed, at) in [(1, 0), (2, 5)] {
            let disk = MemoryDisk::with(&noise(seed, 40 * BLOCK));
            disk.write(at * BLOCK as u64, &noise(50 + seed, BLOCK));
            let (backup, _) = world.write(&Arc::new(disk)).await.unwrap();
            let written = world.restore(backup).await.unwrap().0;
            self.history.kept.insert(backup, written);
        }
        world.project.delete(self.history.to_delete).await.unwrap();
        collect(&world).await.unwrap();
        let (backup, _) = world.write(&self.history.disk).await.unwrap();
        self.history.kept.insert(backup, self.history.disk.bytes());
        collect(&world).await.unwrap();
        world
    }

    async fn check(&self, world: &World, case: &str) {
        for (backup, bytes) in &self.history.kept {
            let restored = world.restore(*backup).await;
            assert!(restored.unwrap().0 == *bytes, "{case}: {backup} is another");
        }
    }
}

async fn collect(world: &World) -> Result<()> {
    let progress = Arc::new(Progress::default());
    world.project.collect(&[], progress).await.map(drop)
}

/// Pauses `act` at call after call, and lets another process take over there.
async fn sweep(act: Act) {
    let mut fenced = 0;
    for call in 0.. {
        let mut scene = Scene::new().await;
        let case = format!("{act:?} paused at {call}");
        scene.store.pause_at(call);
        let mut acting = scene.act(act);
        tokio::select! {
            ended = &mut acting => {
                ended.unwrap();
                assert!(fenced > 0, "the sweep must have met some calls");
                return;
            }
            () = scene.store.reached() => {}
        }
        let world = scene.take_over().await;
        scene.store.release();
        let ended = acting.await;
        if let Err(error) = &ended {
            assert_eq!(error.kind(), Kind::Conflict, "{case}: {error}");
            fenced += 1;
        } else if matches!(act, Act::Backup) {
            scene.history.keep_next();
        }
        scene.check(&world, &case).await;
        let after = collect(&scene.zombie).await.unwrap_err();
        assert_eq!(after.kind(), Kind::Conflict, "{case}: it writes no more");
        scene.check(&world, &case).await;
        // A receipt that came too late is no backup that anybody relies on.
        let late = scene.history.next.id;
        if ended.is_err() && world.project.find_whole(late).await.is_err() {
            world.project.delete(late).await.unwrap();
        }
        let world = world.reopen().await;
        collect(&world).await.unwrap();
        scene.check(&world, &case).await;
        world.must_be_whole(&case).await;
        for backup in world.project.list().await.unwrap() {
            world.project.delete(backup.info.id).await.unwrap();
        }
        let progress = Arc::new(Progress::default());
        let left = world.project.collect(&[], progress).await.unwrap();
        assert_eq!(left.stored_bytes, 0, "{case}");
    }
}

#[tokio::test]
async fn kopia_1949_a_backup_may_sleep_anywhere() {
    sweep(Act::Backup).await;
}

#[tokio::test]
async fn kopia_4769_a_collection_may_sleep_anywhere() {
    sweep(Act::Collect).await;
}

#[tokio::test]
async fn restic_3486_a_deletion_may_sleep_anywhere() {
    sweep(Act::Delete).await;
}
