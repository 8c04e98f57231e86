//! Collections as tasks, held up at each of their calls to the store while backups go.

use cairn_meta::tasks::TaskState;
use cairn_testkit::World;
use cairn_types::{ObjectType, OperationLogId};

use crate::first_backup;

/// Queues a collection.
async fn collection(world: &World) -> OperationLogId {
    world.service.collect_all().await.unwrap();
    let project = world.caller().project;
    let payload = format!(r#"{{"kind":"collect","project":"{project}"}}"#);
    let mut tx = world.meta.read().await.unwrap();
    let waiting = tx.waiting_task("collect", &payload).await.unwrap();
    waiting.expect("it was just queued")
}

async fn state(world: &World, task: OperationLogId) -> TaskState {
    let mut tx = world.meta.read().await.unwrap();
    tx.task(task).await.unwrap().unwrap().state
}

/// The collection has its list of what must be there; then a server's backup and
/// its disks go, in full, before the collection goes on.
#[tokio::test]
async fn a_deletion_at_any_call_of_a_collection_does_not_fail_it() {
    for call in 0.. {
        let world = World::new().await;
        let backup = first_backup(&world, ObjectType::Server, world.server().await).await;
        let task = collection(&world).await;
        world.gate.pause_at(call);
        let collecting = world.work_beside();
        tokio::pin!(collecting);
        tokio::select! {
            () = &mut collecting => {
                assert!(call > 5, "a collection makes more calls than that");
                assert_eq!(state(&world, task).await, TaskState::Succeeded);
                return;
            }
            () = world.gate.reached() => {}
        }
        let held = world.gate.calls()[call as usize].clone();
        world
            .service
            .delete_backup(world.caller(), backup)
            .await
            .unwrap();
        if held.contains("log/") {
            // A deletion waits for its turn there.
            world.gate.release();
            tokio::join!(world.work_once(), collecting);
        } else {
            world.work_once().await;
            world.gate.release();
            collecting.await;
        }
        assert_eq!(
            state(&world, task).await,
            TaskState::Succeeded,
            "at {call}, {held}"
        );
        let left = world.stored(world.caller().project, &held).await;
        assert_eq!(left, [], "at {call}, {held}");
    }
}

/// The other way round: the deletion is held up, with some of the server's disks gone and some there.
#[tokio::test]
async fn a_collection_at_any_call_of_a_deletion_does_not_fail() {
    for call in 0.. {
        let world = World::new().await;
        let backup = first_backup(&world, ObjectType::Server, world.server().await).await;
        let service = &world.service;
        service.delete_backup(world.caller(), backup).await.unwrap();
        world.gate.pause_at(call);
        let deleting = world.work_once();
        tokio::pin!(deleting);
        tokio::select! {
            () = &mut deleting => {
                assert!(call > 5, "a deletion makes more calls than that");
                return;
            }
            () = world.gate.reached() => {}
        }
        let held = world.gate.calls()[call as usize].clone();
        let task = collection(&world).await;
        if held.contains("log/") {
            // A collection waits for its turn there.
            world.gate.release();
            tokio::join!(world.work_once(), deleting);
        } else {
            world.work_once().await;
            world.gate.release();
            deleting.await;
        }
        let ended = state(&world, task).await;
        assert_eq!(ended, TaskState::Succeeded, "at {call}, {held}");
    }
}
