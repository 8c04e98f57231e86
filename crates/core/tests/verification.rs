//! Verifications by schedule, on a clock that stands still, and what each finds.

use std::sync::Arc;

use cairn_core::records::{OperationLogFilter, Page, VerificationFilter, VerifiedBackup};
use cairn_core::{VerifyScope, records::Verification};
use cairn_repo::Parity;
use cairn_testkit::{MemoryDisk, Moment, Sabotage, World};
use cairn_types::{
    BackupId, ObjectType, OperationStatus, OperationType, ProjectId, VerificationStatus,
    VerifyLevel,
};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn page() -> Page {
    Page {
        limit: 1000,
        ..Page::default()
    }
}

/// Backs the disk up and returns the backup.
async fn back_up(world: &World) -> BackupId {
    let vault = match world
        .service
        .vaults(world.caller(), &Default::default(), &page())
        .await
        .unwrap()
        .0
        .pop()
    {
        Some(vault) => vault,
        None => world.vault(ObjectType::Disk, world.disk().await).await,
    };
    let made = world.checkpoint(&vault).await;
    world.work().await;
    let query = cairn_core::BackupQuery {
        page: page(),
        ..Default::default()
    };
    let (backups, _) = world.service.backups(world.caller(), &query).await.unwrap();
    let of_this = backups
        .iter()
        .find(|view| view.backup.checkpoint == made.checkpoint.id);
    of_this.unwrap().backup.id
}

async fn results(world: &World) -> Vec<VerifiedBackup> {
    let all = VerificationFilter::default();
    let page = page();
    let found = world.service.verifications(world.caller(), &all, &page);
    found.await.unwrap().0
}

async fn known(world: &World, backup: BackupId) -> Verification {
    let found = world.service.verification(world.caller(), backup).await;
    found.unwrap().verification.unwrap()
}

/// Verifies the project and returns how the task ended.
async fn verify(world: &World, level: VerifyLevel) -> OperationStatus {
    let log = world
        .service
        .start_verification(world.caller(), level, VerifyScope::Project)
        .await
        .unwrap();
    world.work().await;
    let log = world.service.operation_log(world.caller(), log).await;
    log.unwrap().log.status
}

async fn due(world: &World) -> Option<ProjectId> {
    world.service.verify_what_is_due().await.unwrap()
}

#[tokio::test]
async fn each_backup_is_looked_at_when_its_time_has_come() {
    let world = World::new().await;
    assert_eq!(due(&world).await, None, "there is nothing to look at");
    let backup = back_up(&world).await;
    assert_eq!(due(&world).await, None, "it was looked at when it was made");
    world.clock.advance(7 * DAY - 1);
    assert_eq!(due(&world).await, None);
    world.clock.advance(1);
    let project = world.caller().project;
    assert_eq!(due(&world).await, Some(project));
    assert_eq!(due(&world).await, None, "it is under way");
    world.work().await;
    assert_eq!(due(&world).await, None, "it was just looked at");
    let quick = known(&world, backup).await;
    assert_eq!(
        (quick.level, quick.status, quick.full_at),
        (VerifyLevel::Quick, VerificationStatus::Whole, None)
    );

    // A full look is due 30 days after the backup was made, and counts as a quick one.
    world.clock.advance(23 * DAY);
    assert_eq!(due(&world).await, Some(project));
    world.work().await;
    let full = known(&world, backup).await;
    assert_eq!(
        (full.level, full.full_at),
        (VerifyLevel::Full, full.quick_at)
    );
    assert_eq!(due(&world).await, None);
    world.clock.advance(7 * DAY);
    assert_eq!(due(&world).await, Some(project));
    world.work().await;
    let quick = known(&world, backup).await;
    assert_eq!(
        (quick.level, quick.full_at),
        (VerifyLevel::Quick, full.full_at)
    );

    let filter = OperationLogFilter {
        operation_type: Some(OperationType::Verify.to_string()),
        ..Default::default()
    };
    let page = page();
    let logs = world.service.operation_logs(world.caller(), &filter, &page);
    assert_eq!(logs.await.unwrap().1, 3, "its owner is told of each");
}

#[tokio::test]
async fn the_project_that_waited_longest_is_first() {
    let world = World::new().await;
    let other = world
        .project_as("other", cairn_types::Role::Administrator)
        .await;
    back_up(&world).await;
    world.clock.advance(HOUR);
    // A replica in another project, made an hour later.
    let vault = world.vault(ObjectType::Server, world.server().await).await;
    world.checkpoint(&vault).await;
    world.work().await;
    let there = world.replication_vault(&world.caller_in(other)).await;
    let target = cairn_core::ReplicaTarget {
        here: "cairn-1".to_owned(),
        region: "cairn-1".to_owned(),
        project: other,
        vault: there.vault.id,
        name: None,
        description: None,
        policy: None,
        auto_trigger: false,
        bandwidth: None,
    };
    let begun = world
        .service
        .replicate_vault(world.caller(), vault.vault.id, &target)
        .await;
    assert_eq!(begun.unwrap().len(), 1);
    world.work().await;
    world.clock.advance(8 * DAY);
    assert_eq!(due(&world).await, Some(world.caller().project));
    assert_eq!(due(&world).await, None, "one project after the other");
    world.work().await;
    assert_eq!(due(&world).await, Some(other));
    world.work().await;
    assert_eq!(due(&world).await, None);
}

#[tokio::test]
async fn what_a_full_look_found_is_not_taken_back_by_a_quick_one() {
    let world = World::new().await;
    let backup = back_up(&world).await;
    world.damage("/receipts/").await;
    assert_eq!(
        verify(&world, VerifyLevel::Full).await,
        OperationStatus::Success
    );
    let found = known(&world, backup).await;
    assert_eq!(found.status, VerificationStatus::Hurt);
    assert!(found.lost.unwrap().everything);
    world.damage("/receipts/").await;
    verify(&world, VerifyLevel::Quick).await;
    let still = known(&world, backup).await;
    assert_eq!(
        (still.status, still.level, still.verified_at),
        (VerificationStatus::Hurt, found.level, found.verified_at)
    );
    verify(&world, VerifyLevel::Full).await;
    assert_eq!(
        known(&world, backup).await.status,
        VerificationStatus::Whole
    );
    world.damage("/receipts/").await;
    verify(&world, VerifyLevel::Quick).await;
    assert_eq!(known(&world, backup).await.status, VerificationStatus::Hurt);
    world.damage("/receipts/").await;
    verify(&world, VerifyLevel::Quick).await;
    assert_eq!(
        known(&world, backup).await.status,
        VerificationStatus::Whole
    );
}

#[tokio::test]
async fn a_backup_that_the_repository_lost_is_hurt() {
    let world = World::new().await;
    let backup = back_up(&world).await;
    world.project().await.delete(backup).await.unwrap();
    verify(&world, VerifyLevel::Quick).await;
    let found = known(&world, backup).await;
    assert_eq!(found.status, VerificationStatus::Hurt);
    assert!(found.lost.unwrap().everything);
}

#[tokio::test]
async fn a_damaged_manifest_does_not_keep_the_next_backup_from_being_made() {
    let world = World::new().await;
    let first = back_up(&world).await;
    world.damage("/manifests/").await;
    let second = back_up(&world).await;
    verify(&world, VerifyLevel::Full).await;
    assert_eq!(known(&world, first).await.status, VerificationStatus::Hurt);
    assert_eq!(
        known(&world, second).await.status,
        VerificationStatus::Whole
    );
}

/// The next backup of the same disk heals what a verification has found, though
/// the repair that follows it has failed.
#[tokio::test]
async fn the_backup_after_a_verification_that_found_damage_heals() {
    let world = World::new().await;
    let first = back_up(&world).await;
    let disk = world.images().swap_remove(0);
    world.damage("/packs/").await;
    world
        .service
        .start_verification(world.caller(), VerifyLevel::Full, VerifyScope::Project)
        .await
        .unwrap();
    world
        .work_with(Sabotage {
            kind: "repair",
            step: 0,
            moment: Moment::FailBefore,
        })
        .await;
    assert_eq!(known(&world, first).await.status, VerificationStatus::Hurt);
    let second = back_up(&world).await;
    for backup in [first, second] {
        let target = Arc::new(MemoryDisk::new(disk.len() as u64));
        let project = world.project().await;
        let restored = project.restore_disk(backup, target.clone(), Arc::default());
        restored.await.unwrap();
        assert!(target.bytes() == disk);
    }
    verify(&world, VerifyLevel::Full).await;
    for backup in [first, second] {
        assert_eq!(
            known(&world, backup).await.status,
            VerificationStatus::Whole
        );
    }
}

#[tokio::test]
async fn a_verification_may_be_repeated_and_cut_off() {
    for moment in [Moment::FailOnce, Moment::Repeat, Moment::CrashAfter] {
        let world = World::new().await;
        let backup = back_up(&world).await;
        let begun = world
            .service
            .start_verification(
                world.caller(),
                VerifyLevel::Full,
                VerifyScope::Backup(backup),
            )
            .await;
        begun.unwrap();
        world
            .work_with(Sabotage {
                kind: "verify",
                step: 0,
                moment,
            })
            .await;
        let found = known(&world, backup).await;
        assert_eq!(found.status, VerificationStatus::Whole, "{moment:?}");
        assert_eq!(results(&world).await.len(), 1);
    }
}

#[tokio::test]
async fn a_backup_that_could_not_be_looked_at_is_tried_again_an_hour_later() {
    let world = World::new().await;
    let backup = back_up(&world).await;
    let sabotage = Sabotage {
        kind: "verify",
        step: 0,
        moment: Moment::FailBefore,
    };
    world.clock.advance(7 * DAY);
    assert!(due(&world).await.is_some());
    world.work_with(sabotage).await;
    let found = known(&world, backup).await;
    assert_eq!(found.status, VerificationStatus::Unchecked);
    assert_eq!(found.problem.as_deref(), Some("sabotage"));
    assert_eq!((found.quick_at, found.full_at), (None, None));
    world.clock.advance(HOUR - 1);
    assert_eq!(due(&world).await, None);
    world.clock.advance(1);
    assert!(due(&world).await.is_some());
    world.work().await;
    assert_eq!(
        known(&world, backup).await.status,
        VerificationStatus::Whole
    );

    // Whoever could not look knows no better than who found it hurt.
    world.damage("/manifests/").await;
    verify(&world, VerifyLevel::Quick).await;
    world
        .service
        .start_verification(world.caller(), VerifyLevel::Full, VerifyScope::Project)
        .await
        .unwrap();
    world.work_with(sabotage).await;
    assert_eq!(known(&world, backup).await.status, VerificationStatus::Hurt);
}

/// Packs, and parity objects.
async fn stored(world: &World, folder: &str) -> Vec<Path> {
    let found: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    let paths = found.into_iter().map(|meta| meta.location);
    let inside = format!("/{folder}/");
    paths
        .filter(|path| path.as_ref().contains(&inside))
        .collect()
}

#[tokio::test]
async fn with_parity_a_lost_pack_is_back_after_a_verification() {
    let world = World::with_parity(Parity::new(4, 1)).await;
    let backup = back_up(&world).await;
    assert_eq!(
        stored(&world, "parity").await.len(),
        1,
        "made behind the backup"
    );
    let packs = stored(&world, "packs").await;
    let lost = async || world.store.get(&packs[0]).await.unwrap().bytes().await;
    let before = lost().await.unwrap();
    world.store.delete(&packs[0]).await.unwrap();
    verify(&world, VerifyLevel::Quick).await;
    world.work().await;
    assert_eq!(lost().await.unwrap(), before);
    verify(&world, VerifyLevel::Full).await;
    assert_eq!(
        known(&world, backup).await.status,
        VerificationStatus::Whole
    );
}
