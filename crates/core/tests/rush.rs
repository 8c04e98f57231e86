//! Very many policies that fall due at the same time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cairn_meta::{
    BoundResource, OperationLogFilter, Page, Policy, PolicyBinding, PolicySchedule,
    ResourceExtraInfo, Vault,
};
use cairn_testkit::World;
use cairn_types::{
    Clock, ObjectType, OperationDefinition, OperationType, PolicyId, PolicyOperation, PolicyType,
    ProtectStatus, ResourceType, Timestamp, VaultId,
};
use uuid::Uuid;

const POLICIES: usize = 10_000;
/// From the minute in which they fall due until the last of their runs has begun.
const LIMIT: Duration = Duration::from_secs(60);

/// A policy for one vault with one share each, all due at the same minute.
async fn fill(world: &World, due: Timestamp) {
    let template = world
        .vault(ObjectType::Turbo, world.share().await)
        .await
        .vault;
    let mut tx = world.meta.begin().await.unwrap();
    for protectable in world.inventory.list().unwrap() {
        if !protectable.name.starts_with("share-") {
            continue;
        }
        let vault = Vault {
            id: VaultId::random(),
            name: protectable.name.clone(),
            ..template.clone()
        };
        tx.insert_vault(&vault).await.unwrap();
        tx.bind_resource(&bound(&vault, &protectable))
            .await
            .unwrap();
        let policy = policy(world, due);
        tx.insert_policy(&policy).await.unwrap();
        let binding = PolicyBinding {
            vault: vault.id,
            policy: policy.id,
            operation: PolicyOperation::Backup,
            destination: None,
            bound_at: policy.created_at,
        };
        tx.bind_policy(&binding).await.unwrap();
    }
    tx.commit().await.unwrap();
}

fn bound(vault: &Vault, share: &cairn_core::Protectable) -> BoundResource {
    BoundResource {
        id: share.id,
        vault: vault.id,
        resource_type: ResourceType::Turbo,
        name: share.name.clone(),
        size_bytes: 0,
        removing: false,
        auto_protect: true,
        extra_info: ResourceExtraInfo::default(),
        bound_at: vault.created_at,
        backup_count: 0,
        backup_bytes: 0,
        protect_status: ProtectStatus::Available,
    }
}

fn policy(world: &World, due: Timestamp) -> Policy {
    let now = world.clock.now();
    Policy {
        id: PolicyId::random(),
        project: world.caller().project,
        name: "daily".to_owned(),
        operation: PolicyOperation::Backup,
        policy_type: PolicyType::Custom,
        enabled: true,
        definition: OperationDefinition::default(),
        schedule: PolicySchedule {
            id: Uuid::new_v4(),
            // The clock stands at 22:13:20.
            pattern: vec!["FREQ=DAILY;BYHOUR=22;BYMINUTE=14".to_owned()],
            start_window_minutes: None,
            timezone: None,
            recurrence_rules: Vec::new(),
        },
        organization_policy: None,
        created_at: now,
        updated_at: now,
        next_slot: Some(due),
        next_run_at: Some(due),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_policies_of_one_minute_all_start_within_it_each_once() {
    let world = World::with_shares(POLICIES).await;
    let minute = world.clock.now().as_micros().div_euclid(60_000_000) + 1;
    let due = Timestamp::from_micros(minute * 60_000_000);
    fill(&world, due).await;
    assert_eq!(
        world.service.run_due_policies().await.unwrap(),
        0,
        "not yet"
    );
    world.clock.advance(40);

    // Two servers over one catalogue look at the same time.
    let begun = Instant::now();
    let (one, two) = tokio::join!(run_all(&world), run_all(&world));
    let took = begun.elapsed();
    assert_eq!(one + two, POLICIES);
    assert!(took < LIMIT, "{took:?}");

    let mut runs: BTreeMap<PolicyId, usize> = BTreeMap::new();
    for offset in (0..).step_by(1000) {
        let page = Page {
            limit: 1000,
            offset,
            marker: None,
        };
        let filter = OperationLogFilter {
            operation_type: Some(OperationType::Backup.to_string()),
            ..OperationLogFilter::default()
        };
        let caller = world.caller();
        let (logs, _) = world
            .service
            .operation_logs(caller, &filter, &page)
            .await
            .unwrap();
        if logs.is_empty() {
            break;
        }
        for view in logs {
            *runs.entry(view.log.policy.unwrap()).or_default() += 1;
        }
    }
    assert_eq!(runs.len(), POLICIES);
    assert!(runs.values().all(|count| *count == 1), "a policy ran twice");
    assert_eq!(world.service.run_due_policies().await.unwrap(), 0);
}

async fn run_all(world: &World) -> usize {
    let mut all = 0;
    loop {
        match world.service.run_due_policies().await.unwrap() {
            0 => return all,
            some => all += some,
        }
    }
}
