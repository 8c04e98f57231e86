//! The process dies, or the store fails, at every single call of a backup, a
//! deletion and a collection: what was acknowledged restores, what was not can
//! be tried again, and collection leaves no orphan. So it is while another is at work.

use std::sync::Arc;

use cairn_repo::Result;
use cairn_testkit::{Fault, FaultyStore, PausedStore};
use cairn_types::{Kind, Progress, ProjectId};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::common::{History, World, job};

/// What may be interrupted.
#[derive(Debug, Clone, Copy)]
enum Act {
    Backup,
    Delete,
    Collect,
}

/// A project with two backups, one of them of bytes that are mostly dead, and
/// a store that can be held up and made to fail.
struct Scene {
    store: FaultyStore,
    paused: PausedStore,
    world: World,
    history: History,
}

impl Scene {
    async fn new() -> Self {
        Self::with([120, 90, 20, 90]).await
    }

    async fn with(blocks: [usize; 4]) -> Self {
        let store = FaultyStore::new(Arc::new(InMemory::new()));
        let paused = PausedStore::new(Arc::new(store.clone()));
        let world = World::on(Arc::new(paused.clone())).await;
        let history = History::new(&world, blocks).await;
        Self {
            store,
            paused,
            world,
            history,
        }
    }

    /// What is to be awaited for an act; it needs nothing of the scene.
    fn act(&self, world: &World, act: Act) -> BoxFuture<'static, Result<()>> {
        let (project, to_delete) = (world.project.clone(), self.history.to_delete);
        let next = job(self.history.next.clone(), &self.history.disk);
        Box::pin(async move {
            match act {
                Act::Backup => project.write_disk(next).await.map(drop),
                Act::Delete => project.delete(to_delete).await,
                Act::Collect => project.collect(&[], Arc::default()).await.map(drop),
            }
        })
    }

    /// Checks that all that must be there restores, from a fresh start.
    async fn check(&self, world: &World) {
        for (backup, bytes) in &self.history.kept {
            assert!(
                world.restore(*backup).await.unwrap().0 == *bytes,
                "{backup} is another"
            );
        }
        for listed in world.project.list().await.unwrap() {
            world
                .restore(listed.info.id)
                .await
                .expect("what is listed restores");
        }
        world.must_be_whole("what is there").await;
    }

    /// Does what was interrupted again, deletes everything and collects: nothing is left.
    async fn finish(&mut self, acts: &[Act], world: &World) {
        for act in acts {
            match self.act(world, *act).await {
                Ok(()) => {}
                // The first attempt had got to its receipt.
                Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
            }
            if matches!(act, Act::Backup) {
                self.history.keep_next();
            }
        }
        self.check(world).await;
        for listed in world.project.list().await.unwrap() {
            world.project.delete(listed.info.id).await.unwrap();
        }
        world
            .project
            .collect(&[], Arc::new(Progress::default()))
            .await
            .unwrap();
        let left: Vec<_> = self.store.list(None).try_collect::<Vec<_>>().await.unwrap();
        let left: Vec<_> = left.iter().map(|meta| meta.location.as_ref()).collect();
        let orphans = left
            .iter()
            .filter(|path| **path != "config" && !path.ends_with("/keys/1"))
            .filter(|path| !path.starts_with("log/"));
        assert_eq!(orphans.count(), 0, "{left:?}");
    }
}

/// Lets `act` fail at call after call until it needs no more calls than it gets.
async fn sweep(act: Act, fault: fn(u64) -> Fault) {
    let mut failures = 0;
    for call in 0.. {
        let mut scene = Scene::new().await;
        scene.store.set(Some(fault(call)));
        let ended = scene.act(&scene.world, act).await;
        let calls = scene.store.calls();
        scene.store.set(None);
        if matches!(fault(call), Fault::Once(_)) {
            // The same process goes on.
            scene.check(&scene.world).await;
        }
        let restarted = scene.world.reopen().await;
        scene.check(&restarted).await;
        scene.finish(&[act], &restarted).await;
        failures += u32::from(ended.is_err());
        if ended.is_ok() && calls <= call {
            assert!(failures > 1, "the sweep must have met some calls");
            return;
        }
    }
}

/// Holds one act up at each of its calls, and lets the process die at each call
/// of another that runs meanwhile. What the other gets done before counts.
async fn sweep_beside(held: Act, dying: Act, fault: fn(u64) -> Fault) {
    let mut deaths = 0;
    for held_at in 0.. {
        for call in 0.. {
            let mut scene = Scene::with([12, 9, 3, 9]).await;
            let mut holding = scene.act(&scene.world, held);
            scene.paused.pause_at(held_at);
            tokio::select! {
                ended = &mut holding => {
                    ended.unwrap();
                    assert!(deaths > 20, "{deaths} deaths in all");
                    return;
                }
                () = scene.paused.reached() => {}
            }
            let at_log = scene.paused.calls()[held_at as usize].contains("log/");
            scene.store.set(Some(fault(call)));
            let running = scene.act(&scene.world, dying);
            let (first, second) = if at_log {
                // The other would wait for its turn there.
                scene.paused.release();
                tokio::join!(holding, running)
            } else {
                let second = running.await;
                scene.paused.release();
                (holding.await, second)
            };
            let died = scene.store.calls() > call;
            scene.store.set(None);
            for (act, ended) in [(held, first), (dying, second)] {
                if matches!(act, Act::Backup) && ended.is_ok() {
                    scene.history.keep_next();
                }
                assert!(died || ended.is_ok(), "{act:?} at {held_at}, {call}");
            }
            let restarted = scene.world.reopen().await;
            scene.check(&restarted).await;
            scene.finish(&[held, dying], &restarted).await;
            if !died {
                break;
            }
            deaths += 1;
        }
    }
}

#[tokio::test]
async fn a_collection_may_die_beside_a_backup() {
    sweep_beside(Act::Backup, Act::Collect, Fault::Before).await;
}

#[tokio::test]
async fn a_collection_may_die_unheard_beside_a_backup() {
    sweep_beside(Act::Backup, Act::Collect, Fault::After).await;
}

#[tokio::test]
async fn a_backup_may_die_beside_a_collection() {
    sweep_beside(Act::Collect, Act::Backup, Fault::Before).await;
}

#[tokio::test]
async fn a_backup_may_die_unheard_beside_a_collection() {
    sweep_beside(Act::Collect, Act::Backup, Fault::After).await;
}

#[tokio::test]
async fn a_deletion_may_die_beside_a_backup_or_a_collection() {
    for held in [Act::Backup, Act::Collect] {
        sweep_beside(held, Act::Delete, Fault::Before).await;
        sweep_beside(held, Act::Delete, Fault::After).await;
    }
}

#[tokio::test]
async fn a_backup_or_a_collection_may_die_beside_a_deletion() {
    for dying in [Act::Backup, Act::Collect] {
        sweep_beside(Act::Delete, dying, Fault::Before).await;
        sweep_beside(Act::Delete, dying, Fault::After).await;
    }
}

#[tokio::test]
async fn a_backup_may_die_before_any_call() {
    sweep(Act::Backup, Fault::Before).await;
}

#[tokio::test]
async fn a_backup_may_die_after_any_call() {
    sweep(Act::Backup, Fault::After).await;
}

#[tokio::test]
async fn a_backup_may_meet_one_failure_anywhere() {
    sweep(Act::Backup, Fault::Once).await;
}

#[tokio::test]
async fn a_deletion_may_die_or_fail_anywhere() {
    sweep(Act::Delete, Fault::After).await;
    sweep(Act::Delete, Fault::Once).await;
}

#[tokio::test]
async fn a_collection_may_die_before_any_call() {
    sweep(Act::Collect, Fault::Before).await;
}

#[tokio::test]
async fn a_collection_may_die_after_any_call() {
    sweep(Act::Collect, Fault::After).await;
}

#[tokio::test]
async fn a_collection_may_meet_one_failure_anywhere() {
    sweep(Act::Collect, Fault::Once).await;
}

#[tokio::test]
async fn a_full_store_fails_the_backup_and_hurts_no_other() {
    let scene = Scene::new().await;
    scene.store.fail_with(std::io::ErrorKind::StorageFull);
    scene.store.set(Some(Fault::Once(5)));
    let error = scene.act(&scene.world, Act::Backup).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    scene.store.set(None);
    scene.check(&scene.world).await;
    scene.act(&scene.world, Act::Backup).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_is_not_an_empty_one() {
    let scene = Scene::new().await;
    let project = ProjectId::random();
    for call in 0..4 {
        scene.store.set(Some(Fault::Once(call)));
        if let Err(error) = World::open(Arc::new(scene.store.clone()), project)
            .await
            .map(drop)
        {
            assert_eq!(error.kind(), Kind::Transient);
        }
    }
    for call in 0..2 {
        scene.store.set(Some(Fault::Before(call)));
        assert_eq!(
            crate::common::kind(scene.world.project.list().await),
            Kind::Transient
        );
        assert_eq!(
            crate::common::kind(scene.world.project.find(scene.history.to_delete).await),
            Kind::Transient
        );
        scene.store.set(None);
    }
}
