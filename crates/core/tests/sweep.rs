//! Every task, failed, repeated and cut off at each of its steps: what is left
//! is always a backup that restores or none, and nothing else.

use std::sync::Arc;

use cairn_core::{BackupQuery, BackupToImport, BackupView, Caller, ReplicaTarget, RestoreTarget};
use cairn_testkit::{MemoryDisk, Moment, Sabotage, World};
use cairn_types::{
    BackupId, BackupStatus, ObjectType, OperationLogId, OperationStatus, ResourceType, Role,
};
use futures::TryStreamExt;

const MOMENTS: [Moment; 5] = [
    Moment::FailBefore,
    Moment::FailAfter,
    Moment::FailOnce,
    Moment::Repeat,
    Moment::CrashAfter,
];

/// A checkpoint of the disk, the server or the share, worked off; the backup's id.
async fn back_up(world: &World, object_type: ObjectType, sabotage: Option<Sabotage>) -> BackupId {
    let resource = match object_type {
        ObjectType::Disk => world.disk().await,
        ObjectType::Turbo => world.share().await,
        _ => world.server().await,
    };
    let query = Default::default();
    let found = world
        .service
        .vaults(world.caller(), &query, &page())
        .await
        .unwrap()
        .0;
    let vault = match found
        .into_iter()
        .find(|view| view.vault.object_type == object_type)
    {
        Some(vault) => vault,
        None => world.vault(object_type, resource).await,
    };
    let made = world.checkpoint(&vault).await;
    match sabotage {
        Some(sabotage) => world.work_with(sabotage).await,
        None => world.work().await,
    }
    let shown = backups(world).await;
    let of_this =
        |backup: &&(BackupId, BackupStatus, String)| backup.2 == made.checkpoint.id.to_string();
    shown
        .iter()
        .find(of_this)
        .expect("a checkpoint makes a backup")
        .0
}

fn page() -> cairn_core::records::Page {
    cairn_core::records::Page {
        limit: 1000,
        ..Default::default()
    }
}

async fn backups(world: &World) -> Vec<(BackupId, BackupStatus, String)> {
    backups_of(world, world.caller()).await
}

async fn backups_of(world: &World, caller: &Caller) -> Vec<(BackupId, BackupStatus, String)> {
    let query = BackupQuery {
        page: page(),
        ..BackupQuery::default()
    };
    let (views, _) = world.service.backups(caller, &query).await.unwrap();
    let row = |view: &cairn_core::BackupView| {
        (
            view.backup.id,
            view.backup.status,
            view.backup.checkpoint.to_string(),
        )
    };
    views.iter().map(row).collect()
}

async fn status(world: &World, backup: BackupId) -> BackupStatus {
    world
        .service
        .backup(world.caller(), backup)
        .await
        .unwrap()
        .backup
        .status
}

/// Restores a backup onto what it was made of.
async fn restore(world: &World, backup: BackupId, sabotage: Option<Sabotage>) -> OperationStatus {
    let view = world.service.backup(world.caller(), backup).await.unwrap();
    let target = match view.backup.resource_type {
        ResourceType::Volume => RestoreTarget {
            volume: Some(view.backup.resource),
            ..Default::default()
        },
        ResourceType::Turbo => RestoreTarget {
            files: Some(view.backup.resource),
            ..Default::default()
        },
        _ => RestoreTarget {
            server: Some(view.backup.resource),
            ..Default::default()
        },
    };
    let log = world
        .service
        .restore_backup(world.caller(), backup, &target)
        .await
        .unwrap();
    match sabotage {
        Some(sabotage) => world.work_with(sabotage).await,
        None => world.work().await,
    }
    world
        .service
        .operation_log(world.caller(), log)
        .await
        .unwrap()
        .log
        .status
}

/// What the catalogue and the repository hold must be the same, and nothing be
/// at work: the invariants that hold after every task, however it ended.
async fn check(world: &World, context: &str) {
    check_in(world, world.caller(), context).await;
}

async fn check_in(world: &World, caller: &Caller, context: &str) {
    let stored = world.stored(caller.project, context).await;
    let mut known = Vec::new();
    for (id, status, _) in backups_of(world, caller).await {
        assert!(!status.is_busy(), "{context}: {id} is left {status}");
        if status == BackupStatus::Available {
            let view = world.service.backup(caller, id).await.unwrap();
            known.push(id);
            known.extend(view.children.iter().map(|child| child.id));
        }
    }
    known.sort();
    assert_eq!(stored, known, "{context}: catalogue and repository differ");
}

/// Whether the repository holds nothing but its configuration and keys.
async fn is_empty(world: &World) -> bool {
    holds_nothing_of(world, "").await
}

/// The same of all objects whose path contains a text.
async fn holds_nothing_of(world: &World, part: &str) -> bool {
    let objects: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    let data = |object: &&object_store::ObjectMeta| {
        let path = object.location.to_string();
        let data = ["/packs/", "/manifests/", "/receipts/"];
        path.contains(part) && data.iter().any(|folder| path.contains(folder))
    };
    objects.iter().filter(data).count() == 0
}

#[tokio::test]
async fn a_backup_fails_or_restores_whatever_happens_at_any_step() {
    for object_type in [ObjectType::Disk, ObjectType::Server, ObjectType::Turbo] {
        for step in 0..3 {
            for moment in MOMENTS {
                let context = format!("{object_type} {moment:?} at {step}");
                let world = World::new().await;
                let sabotage = Sabotage {
                    kind: "back_up",
                    step,
                    moment,
                };
                let backup = back_up(&world, object_type, Some(sabotage)).await;
                check(&world, &context).await;
                // Once it was available it stays, even if its task fails behind that.
                let failed =
                    moment == Moment::FailBefore || moment == Moment::FailAfter && step < 2;
                let expected = if failed {
                    BackupStatus::Error
                } else {
                    BackupStatus::Available
                };
                assert_eq!(status(&world, backup).await, expected, "{context}");
                if failed {
                    assert!(is_empty(&world).await, "{context}: something is left");
                } else {
                    let before = contents_of_sources(&world);
                    change_sources(&world, step as u64 + 7);
                    let restored = restore(&world, backup, None).await;
                    assert_eq!(restored, OperationStatus::Success, "{context}");
                    assert_restored(&world, object_type, &before, &context);
                }
            }
        }
    }
}

/// What all images and the files of the share hold.
fn contents_of_sources(world: &World) -> Vec<Vec<u8>> {
    [world.images(), world.share_files()].concat()
}

fn change_sources(world: &World, seed: u64) {
    world.change_images(seed);
    world.change_share(seed);
}

fn assert_restored(world: &World, object_type: ObjectType, before: &[Vec<u8>], context: &str) {
    let now = contents_of_sources(world);
    let parts = match object_type {
        ObjectType::Disk => 0..1,
        ObjectType::Turbo => 3..now.len(),
        _ => 1..3,
    };
    for part in parts {
        assert!(now[part] == before[part], "{context}: part {part} differs");
    }
}

/// The process ends at each call of a server's backup, and the server runs before another takes over: the
/// backup never has one disk of before and one of after.
#[tokio::test]
async fn the_disks_of_a_server_are_of_one_moment_wherever_its_backup_was_cut_off() {
    let (mut of_before, mut of_after) = (0, 0);
    for call in 0.. {
        let world = World::new().await;
        let server = world.server().await;
        let vault = world.vault(ObjectType::Server, server).await;
        world.checkpoint(&vault).await;
        let before = contents_of_sources(&world);
        world.gate.pause_at(call);
        tokio::select! {
            () = world.work_beside() => break,
            () = world.gate.reached() => {}
        }
        let held = world.gate.calls()[call as usize].clone();
        change_sources(&world, 7);
        let after = contents_of_sources(&world);
        world.work().await;
        let [(backup, status, _)] = backups(&world).await[..] else {
            panic!("{held}: there is one backup");
        };
        assert_eq!(status, BackupStatus::Available, "{held}");
        change_sources(&world, 8);
        let restored = restore(&world, backup, None).await;
        assert_eq!(restored, OperationStatus::Success, "{held}");
        if contents_of_sources(&world)[1] == before[1] {
            assert_restored(&world, ObjectType::Server, &before, &held);
            of_before += 1;
        } else {
            assert_restored(&world, ObjectType::Server, &after, &held);
            of_after += 1;
        }
    }
    assert!(of_before > 0 && of_after > 5, "{of_before}, {of_after}");
}

#[tokio::test]
async fn a_failed_backup_leaves_earlier_ones_as_they_were() {
    for moment in [Moment::FailBefore, Moment::FailAfter] {
        for step in 0..2 {
            let world = World::new().await;
            let before = world.images();
            let first = back_up(&world, ObjectType::Disk, None).await;
            world.change_images(99);
            let sabotage = Sabotage {
                kind: "back_up",
                step,
                moment,
            };
            let second = back_up(&world, ObjectType::Disk, Some(sabotage)).await;
            assert_eq!(status(&world, second).await, BackupStatus::Error);
            check(&world, "after the failure").await;
            assert_eq!(restore(&world, first, None).await, OperationStatus::Success);
            assert_restored(&world, ObjectType::Disk, &before, "the first backup");
            world
                .service
                .delete_backup(world.caller(), second)
                .await
                .unwrap();
            world.work().await;
            check(&world, "after the deletion").await;
        }
    }
}

#[tokio::test]
async fn a_restore_leaves_its_backup_as_it_was_whatever_happens_at_any_step() {
    for object_type in [ObjectType::Disk, ObjectType::Server, ObjectType::Turbo] {
        for step in 0..3 {
            for moment in MOMENTS {
                let context = format!("{object_type} {moment:?} at {step}");
                let world = World::new().await;
                let before = contents_of_sources(&world);
                let backup = back_up(&world, object_type, None).await;
                change_sources(&world, 3);
                let sabotage = Sabotage {
                    kind: "restore",
                    step,
                    moment,
                };
                let ended = restore(&world, backup, Some(sabotage)).await;
                check(&world, &context).await;
                let failed = matches!(moment, Moment::FailBefore | Moment::FailAfter);
                assert_eq!(ended == OperationStatus::Failed, failed, "{context}");
                let again = restore(&world, backup, None).await;
                assert_eq!(again, OperationStatus::Success, "{context}");
                assert_restored(&world, object_type, &before, &context);
            }
        }
    }
}

/// Another image takes the place of the one that is written, at each read of what is restored.
#[tokio::test]
async fn a_restore_into_an_image_that_is_replaced_meanwhile_fails() {
    let mut replaced = 0;
    for call in 0.. {
        let world = World::new().await;
        let backup = back_up(&world, ObjectType::Disk, None).await;
        world.gate.pause_at(call);
        let restoring = restore(&world, backup, None);
        tokio::pin!(restoring);
        tokio::select! {
            ended = &mut restoring => {
                assert_eq!(ended, OperationStatus::Success);
                break;
            }
            () = world.gate.reached() => {}
        }
        let reads = world.gate.calls()[call as usize].contains("/packs/");
        if reads {
            let (image, away) = (world.image("disk.img"), world.image("disk.away"));
            std::fs::rename(&image, &away).unwrap();
            if call % 2 == 0 {
                std::fs::copy(&away, &image).unwrap();
            }
            replaced += 1;
        }
        world.gate.release();
        let expected = match reads {
            true => OperationStatus::Failed,
            false => OperationStatus::Success,
        };
        assert_eq!(restoring.await, expected, "at {call}");
    }
    assert!(replaced > 0, "a restore reads packs");
}

async fn ended_as(world: &World, log: OperationLogId) -> OperationStatus {
    let shown = world.service.operation_log(world.caller(), log).await;
    shown.unwrap().log.status
}

#[tokio::test]
async fn a_synchronisation_ends_and_can_be_asked_for_again_whatever_happens() {
    for moment in MOMENTS {
        let context = format!("{moment:?}");
        let world = World::new().await;
        let vault = world.hybrid_vault().await.vault.id;
        let sabotage = |kind| Sabotage {
            kind,
            step: 0,
            moment,
        };
        let log = world.service.sync_vault(world.caller(), vault).await;
        world.work_with(sabotage("sync")).await;
        let failed = matches!(moment, Moment::FailBefore | Moment::FailAfter);
        let expected = if failed {
            OperationStatus::Failed
        } else {
            OperationStatus::Success
        };
        assert_eq!(ended_as(&world, log.unwrap()).await, expected, "{context}");
        let again = world.service.sync_vault(world.caller(), vault).await;
        world.work().await;
        let again = ended_as(&world, again.unwrap()).await;
        assert_eq!(again, OperationStatus::Success, "{context}");

        let import = BackupToImport {
            id: BackupId::random(),
            name: "b".to_owned(),
            bucket: "bucket".to_owned(),
            path: String::new(),
            resource: vault.uuid().to_string().parse().unwrap(),
            resource_name: "host".to_owned(),
            resource_type: ResourceType::NativeServer,
        };
        let begun = world.service.import_backups(world.caller(), vec![import]);
        let log = begun.await.unwrap()[0].1;
        world.work_with(sabotage("import_backup")).await;
        let status = ended_as(&world, log).await;
        assert_eq!(status, OperationStatus::Failed, "{context}");
        check(&world, &context).await;
        assert!(is_empty(&world).await, "{context}: something is left");
    }
}

/// What the disks of a server's backup hold, read back from the repository.
async fn contents(world: &World, caller: &Caller, view: &BackupView) -> Vec<Vec<u8>> {
    let project = world.repository.project(caller.project).await.unwrap();
    let mut contents = Vec::new();
    for disk in &view.children {
        let target = Arc::new(MemoryDisk::new(disk.size_bytes));
        let restored = project.restore_disk(disk.id, target.clone(), Arc::default());
        restored.await.unwrap();
        contents.push(target.bytes());
    }
    contents
}

#[tokio::test]
async fn a_replica_is_whole_or_not_there_whatever_happens_at_any_step() {
    for step in 0..3 {
        for moment in MOMENTS {
            let context = format!("{moment:?} at {step}");
            let world = World::new().await;
            let source = back_up(&world, ObjectType::Server, None).await;
            let there = world.project_as("there", Role::FullAccess).await;
            let there = world.caller_in(there);
            let vault = world.replication_vault(&there).await.vault.id;
            let target = ReplicaTarget {
                here: "cairn-1".to_owned(),
                region: "cairn-1".to_owned(),
                project: there.project,
                vault,
                name: None,
                description: None,
                policy: None,
                auto_trigger: false,
                bandwidth: None,
            };
            let begun = world
                .service
                .replicate_backup(world.caller(), source, &target);
            let replica = begun.await.unwrap().0.destination.backup;
            let sabotage = Sabotage {
                kind: "replicate",
                step,
                moment,
            };
            world.work_with(sabotage).await;
            check(&world, &context).await;
            check_in(&world, &there, &context).await;
            let failed = moment == Moment::FailBefore || moment == Moment::FailAfter && step < 2;
            let view = world.service.backup(&there, replica).await.unwrap();
            let expected = if failed {
                BackupStatus::Error
            } else {
                BackupStatus::Available
            };
            assert_eq!(view.backup.status, expected, "{context}");
            if failed {
                let project = there.project.to_string();
                let nothing = holds_nothing_of(&world, &project).await;
                assert!(nothing, "{context}: something is left");
            } else {
                let copied = contents(&world, &there, &view).await;
                assert!(copied == world.images()[1..3], "{context}: it differs");
            }
            // The source is as good as before, and the replica can go.
            let before = world.images();
            world.change_images(step as u64 + 3);
            let again = restore(&world, source, None).await;
            assert_eq!(again, OperationStatus::Success, "{context}");
            assert_restored(&world, ObjectType::Server, &before, &context);
            world.service.delete_backup(&there, replica).await.unwrap();
            world.work().await;
            check_in(&world, &there, &context).await;
        }
    }
}

#[tokio::test]
async fn a_deletion_removes_all_or_can_be_done_again() {
    for object_type in [ObjectType::Disk, ObjectType::Server, ObjectType::Turbo] {
        for moment in MOMENTS {
            let context = format!("{object_type} {moment:?}");
            let world = World::new().await;
            let backup = back_up(&world, object_type, None).await;
            world
                .service
                .delete_backup(world.caller(), backup)
                .await
                .unwrap();
            world
                .work_with(Sabotage {
                    kind: "delete_backup",
                    step: 0,
                    moment,
                })
                .await;
            if moment == Moment::FailBefore {
                assert_eq!(
                    status(&world, backup).await,
                    BackupStatus::Error,
                    "{context}"
                );
                world
                    .service
                    .delete_backup(world.caller(), backup)
                    .await
                    .unwrap();
                world.work().await;
            }
            assert!(backups(&world).await.is_empty(), "{context}");
            check(&world, &context).await;
            assert!(is_empty(&world).await, "{context}: something is left");
        }
    }
}

#[tokio::test]
async fn deleting_a_vault_or_removing_a_resource_takes_their_backups_along() {
    for moment in [Moment::FailOnce, Moment::Repeat, Moment::CrashAfter] {
        for step in 0..2 {
            let context = format!("{moment:?} at {step}");
            let world = World::new().await;
            back_up(&world, ObjectType::Disk, None).await;
            back_up(&world, ObjectType::Server, None).await;
            let found = world
                .service
                .vaults(world.caller(), &Default::default(), &page())
                .await;
            for view in found.unwrap().0 {
                let (id, caller) = (view.vault.id, world.caller());
                if view.vault.object_type == ObjectType::Disk {
                    let resource = view.resources[0].id;
                    world
                        .service
                        .remove_resources(caller, id, &[resource])
                        .await
                        .unwrap();
                    world
                        .work_with(Sabotage {
                            kind: "remove_resources",
                            step,
                            moment,
                        })
                        .await;
                    let left = world.service.vault(caller, id).await.unwrap();
                    assert!(left.resources.is_empty(), "{context}");
                } else {
                    world.service.delete_vault(caller, id).await.unwrap();
                    world
                        .work_with(Sabotage {
                            kind: "delete_vault",
                            step,
                            moment,
                        })
                        .await;
                    assert!(world.service.vault(caller, id).await.is_err(), "{context}");
                }
            }
            check(&world, &context).await;
            assert!(is_empty(&world).await, "{context}: something is left");
        }
    }
}
