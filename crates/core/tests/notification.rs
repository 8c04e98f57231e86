//! Notifications: which events are told, once each, and how the outbox goes on
//! when a receiver or a sender fails.

use cairn_core::records::{
    Notification, NotificationFilter, NotificationTarget, OperationLogFilter, Page,
};
use cairn_core::{
    Address, Channel, NewPolicy, NewSchedule, NewTarget, Outgoing, RestoreTarget, TargetChange,
    VaultChange, VaultView, VerifyScope,
};
use cairn_testkit::{Moment, Sabotage, World};
use cairn_types::{
    BYTES_PER_GB, BackupId, NotificationEvent as Event, NotificationStatus, ObjectType,
    OperationDefinition, PolicyOperation, VerifyLevel,
};
use serde_json::Value;

const DAY: i64 = 24 * 3600;
const SECRET: &str = "a secret of some length";

fn page() -> Page {
    Page {
        limit: 1000,
        ..Page::default()
    }
}

fn webhook(name: &str) -> NewTarget {
    NewTarget {
        name: name.to_owned(),
        address: Address::Webhook {
            url: format!("https://{name}.example.com/"),
            secret: SECRET.to_owned().into(),
        },
        events: Vec::new(),
        vault: None,
    }
}

async fn target(world: &World, new: NewTarget) -> NotificationTarget {
    let made = world.service.create_target(world.caller(), new).await;
    made.unwrap()
}

/// What the project was told, oldest first.
async fn told(world: &World) -> Vec<Notification> {
    let all = NotificationFilter::default();
    let page = page();
    let found = world.service.notifications(world.caller(), &all, &page);
    let mut found = found.await.unwrap().0;
    found.reverse();
    found
}

async fn events(world: &World) -> Vec<Event> {
    let mut events: Vec<_> = told(world).await.iter().map(|one| one.event).collect();
    events.sort();
    events
}

fn body(notification: &Notification) -> Value {
    serde_json::from_str(&notification.body).unwrap()
}

/// A vault of 100 GB that tells from 80 % on, with the disk.
async fn disk_vault(world: &World) -> VaultView {
    let vault = world.vault(ObjectType::Disk, world.disk().await).await;
    let change = VaultChange {
        smn_notify: Some(true),
        threshold: Some(80),
        size_gb: Some(100),
        ..VaultChange::default()
    };
    change_vault(world, &vault, change).await
}

async fn change_vault(world: &World, vault: &VaultView, change: VaultChange) -> VaultView {
    let changed = world
        .service
        .update_vault(world.caller(), vault.vault.id, change);
    changed.await.unwrap()
}

async fn newest_backup(world: &World) -> BackupId {
    let query = cairn_core::BackupQuery {
        page: page(),
        ..Default::default()
    };
    let (backups, _) = world.service.backups(world.caller(), &query).await.unwrap();
    backups[0].backup.id
}

async fn back_up(world: &World, vault: &VaultView) -> BackupId {
    world.clock.advance(1);
    world.checkpoint(vault).await;
    world.work().await;
    newest_backup(world).await
}

async fn count_as_gb(world: &World, backup: BackupId, gb: u64) {
    let project = world.caller().project;
    world.count_as(project, backup, gb * BYTES_PER_GB).await;
}

async fn delete(world: &World, backup: BackupId) {
    let deleted = world.service.delete_backup(world.caller(), backup).await;
    deleted.unwrap();
    world.work().await;
}

#[tokio::test]
async fn a_threshold_is_told_once_for_each_crossing() {
    let world = World::new().await;
    target(&world, webhook("one")).await;
    let vault = disk_vault(&world).await;
    let first = back_up(&world, &vault).await;
    assert_eq!(events(&world).await, []);
    count_as_gb(&world, first, 81).await;
    for _ in 0..2 {
        back_up(&world, &vault).await;
        assert_eq!(events(&world).await, [Event::VaultThreshold]);
    }
    let [crossing] = &told(&world).await[..] else {
        panic!("one event")
    };
    assert_eq!(crossing.vault, Some(vault.vault.id));
    let body = body(crossing);
    assert_eq!(body["event"], "vault_threshold");
    assert_eq!(body["vault"]["name"], vault.vault.name);
    assert_eq!(body["details"]["threshold"], 80);
    assert_eq!(body["summary"], crossing.summary);

    // It falls below, and reaches it again.
    delete(&world, first).await;
    let second = back_up(&world, &vault).await;
    count_as_gb(&world, second, 90).await;
    back_up(&world, &vault).await;
    assert_eq!(events(&world).await, [Event::VaultThreshold; 2]);

    // More room ends it too; less room, a lower threshold, or wanting to know makes it true.
    let size = |size_gb| VaultChange {
        size_gb: Some(size_gb),
        ..VaultChange::default()
    };
    change_vault(&world, &vault, size(200)).await;
    change_vault(&world, &vault, size(101)).await;
    assert_eq!(events(&world).await.len(), 3);
    for (threshold, told) in [(95, 3), (89, 4), (88, 4)] {
        let changed = world
            .service
            .set_notification(world.caller(), Some(true), Some(threshold));
        changed.await.unwrap();
        assert_eq!(events(&world).await.len(), told, "{threshold}");
    }
    for (smn_notify, told) in [(false, 4), (true, 5)] {
        let changed = world
            .service
            .set_notification(world.caller(), Some(smn_notify), None);
        changed.await.unwrap();
        assert_eq!(events(&world).await.len(), told, "{smn_notify}");
    }
}

#[tokio::test]
async fn a_crossing_is_told_once_however_often_its_step_is_repeated() {
    for moment in [Moment::CrashAfter, Moment::Repeat, Moment::FailOnce] {
        let world = World::new().await;
        target(&world, webhook("one")).await;
        let vault = disk_vault(&world).await;
        let first = back_up(&world, &vault).await;
        count_as_gb(&world, first, 100).await;
        let change = VaultChange {
            auto_expand: Some(true),
            ..VaultChange::default()
        };
        count_as_gb(&world, first, 99).await;
        change_vault(&world, &vault, change).await;
        world.checkpoint(&vault).await;
        count_as_gb(&world, first, 100).await;
        let sabotage = Sabotage {
            kind: "back_up",
            step: 2,
            moment,
        };
        world.work_with(sabotage).await;
        let expected = [Event::VaultThreshold, Event::VaultExpanded];
        assert_eq!(events(&world).await, expected, "{moment:?}");
        let grown = &told(&world).await;
        let grown = grown
            .iter()
            .find(|one| one.event == Event::VaultExpanded)
            .unwrap();
        let details = &body(grown)["details"];
        assert_eq!(
            (&details["size_before_gb"], &details["size_gb"]),
            (&100.into(), &125.into())
        );
    }
}

#[tokio::test]
async fn a_vault_that_fills_up_is_told_where_its_owner_wants_it() {
    let world = World::new().await;
    target(&world, webhook("one")).await;
    let vault = disk_vault(&world).await;
    let first = back_up(&world, &vault).await;
    let no = VaultChange {
        smn_notify: Some(false),
        ..VaultChange::default()
    };
    change_vault(&world, &vault, no).await;
    world.checkpoint(&vault).await;
    count_as_gb(&world, first, 100).await;
    world.work().await;
    assert_eq!(events(&world).await, []);
    // Not of failures either.
    count_as_gb(&world, first, 1).await;
    something_happens(&world, &vault).await;
    assert_eq!(events(&world).await, []);
    count_as_gb(&world, first, 100).await;
    let yes = VaultChange {
        smn_notify: Some(true),
        ..VaultChange::default()
    };
    change_vault(&world, &vault, yes).await;
    let expected = [Event::VaultThreshold, Event::VaultFull];
    assert_eq!(events(&world).await, expected);
}

#[tokio::test]
async fn every_task_that_fails_is_told() {
    let world = World::new().await;
    target(&world, webhook("all")).await;
    let mut picky = webhook("picky");
    picky.events = vec![Event::RestoreFailed, Event::BackupsHurt];
    target(&world, picky).await;
    let vault = disk_vault(&world).await;
    let mut elsewhere = webhook("elsewhere");
    let other = world.vault(ObjectType::Server, world.server().await).await;
    elsewhere.vault = Some(other.vault.id);
    target(&world, elsewhere).await;
    let backup = back_up(&world, &vault).await;
    let fail = |kind| Sabotage {
        kind,
        step: 0,
        moment: Moment::FailBefore,
    };

    world.checkpoint(&vault).await;
    world.work_with(fail("back_up")).await;
    let disk = RestoreTarget {
        volume: Some(world.disk().await),
        ..RestoreTarget::default()
    };
    let restored = world
        .service
        .restore_backup(world.caller(), backup, &disk)
        .await;
    let log = restored.unwrap();
    world.work_with(fail("restore")).await;
    let deleted = world.service.delete_backup(world.caller(), backup).await;
    deleted.unwrap();
    world.work_with(fail("delete_backup")).await;
    let scope = VerifyScope::Vault(vault.vault.id);
    let verify = |level| {
        world
            .service
            .start_verification(world.caller(), level, scope)
    };
    verify(VerifyLevel::Quick).await.unwrap();
    world.work_with(fail("verify")).await;
    let expected = [
        Event::BackupFailed,
        Event::RestoreFailed,
        Event::RestoreFailed,
        Event::VerificationFailed,
        Event::DeletionFailed,
    ];
    assert_eq!(events(&world).await, expected);
    let told = told(&world).await;
    let restore = told.iter().find(|one| one.event == Event::RestoreFailed);
    let restore = body(restore.unwrap());
    assert_eq!(restore["operation_log_id"], log.to_string());
    assert_eq!(restore["backup"]["id"], backup.to_string());
    assert_eq!(restore["resource"]["type"], "OS::Cinder::Volume");
    assert_eq!(restore["error"]["message"], "sabotage");
    assert!(told.iter().all(|one| one.target_name != "elsewhere"));
}

#[tokio::test]
async fn backups_that_are_hurt_are_told_once_for_each_verification() {
    let world = World::new().await;
    target(&world, webhook("one")).await;
    let vault = disk_vault(&world).await;
    let backup = back_up(&world, &vault).await;
    world.damage("/packs/").await;
    let verify = async |moment| {
        let scope = VerifyScope::Project;
        let asked = world
            .service
            .start_verification(world.caller(), VerifyLevel::Full, scope);
        asked.await.unwrap();
        let sabotage = Sabotage {
            kind: "verify",
            step: 0,
            moment,
        };
        world.work_with(sabotage).await;
    };
    verify(Moment::CrashAfter).await;
    assert_eq!(events(&world).await, [Event::BackupsHurt]);
    let hurt = body(&told(&world).await[0]);
    assert_eq!(hurt["details"]["count"], 1);
    assert_eq!(hurt["details"]["backups"][0]["id"], backup.to_string());
    assert_eq!(hurt["vault"]["id"], vault.vault.id.to_string());
    verify(Moment::Repeat).await;
    assert_eq!(events(&world).await, [Event::BackupsHurt; 2]);
}

async fn test(world: &World, target: &NotificationTarget) -> Notification {
    let sent = world.service.test_target(world.caller(), target.id).await;
    sent.unwrap()
}

async fn next(world: &World, sender: &str) -> Option<Outgoing> {
    world.service.next_notification(sender).await.unwrap()
}

/// An event for every target: a backup that fails.
async fn something_happens(world: &World, vault: &VaultView) {
    world.checkpoint(vault).await;
    let sabotage = Sabotage {
        kind: "back_up",
        step: 0,
        moment: Moment::FailBefore,
    };
    world.work_with(sabotage).await;
}

#[tokio::test]
async fn a_receiver_that_is_down_is_asked_again_until_it_is_up() {
    let world = World::new().await;
    let vault = disk_vault(&world).await;
    target(&world, webhook("one")).await;
    something_happens(&world, &vault).await;
    let first = next(&world, "a").await.unwrap();
    let Channel::Webhook { url, secret } = &first.channel else {
        panic!("it is a webhook")
    };
    assert_eq!(url, "https://one.example.com/");
    assert_eq!(secret.as_slice(), SECRET.as_bytes());
    assert!(next(&world, "b").await.is_none(), "it is being sent");
    let id = first.notification.id;
    let refused = Err("it does not answer".to_owned());
    let settled = world
        .service
        .settle_notification("a", first.notification, refused);
    settled.await.unwrap();
    let shown = world
        .service
        .notification(world.caller(), id)
        .await
        .unwrap();
    assert_eq!(shown.status, NotificationStatus::Waiting);
    assert_eq!(
        (shown.attempts, shown.last_error.as_str()),
        (1, "it does not answer")
    );

    world.clock.advance(9);
    assert!(next(&world, "a").await.is_none());
    world.clock.advance(1);
    let again = next(&world, "a").await.unwrap();
    assert_eq!(
        (again.notification.id, again.notification.attempts),
        (id, 2)
    );
    // This sender dies; another one takes over when its lease has ended.
    world.clock.advance(59);
    assert!(next(&world, "b").await.is_none());
    world.clock.advance(1);
    let third = next(&world, "b").await.unwrap().notification;
    assert_eq!((third.id, third.attempts), (id, 3));
    let late = world
        .service
        .settle_notification("a", again.notification, Ok(()));
    late.await.unwrap();
    let shown = world
        .service
        .notification(world.caller(), id)
        .await
        .unwrap();
    assert_eq!(
        shown.status,
        NotificationStatus::Waiting,
        "it is b's to say"
    );
    let settled = world.service.settle_notification("b", third, Ok(()));
    settled.await.unwrap();
    let shown = world
        .service
        .notification(world.caller(), id)
        .await
        .unwrap();
    assert_eq!(shown.status, NotificationStatus::Delivered);
    assert!(shown.ended_at.is_some());

    world.clock.advance(30 * DAY - 1);
    assert_eq!(world.service.forget_old_notifications().await.unwrap(), 0);
    world.clock.advance(1);
    assert_eq!(world.service.forget_old_notifications().await.unwrap(), 1);
}

#[tokio::test]
async fn the_one_process_takes_over_at_once_what_its_predecessor_was_sending() {
    let world = World::new().await;
    let target = target(&world, webhook("one")).await;
    let sent = test(&world, &target).await;
    next(&world, "a").await.unwrap();
    assert!(next(&world, "b").await.is_none());
    world.service.take_over_notifications().await.unwrap();
    let again = next(&world, "b").await.unwrap().notification;
    assert_eq!((again.id, again.attempts), (sent.id, 2));
}

#[tokio::test]
async fn one_target_that_fails_holds_up_no_other() {
    let world = World::new().await;
    let vault = disk_vault(&world).await;
    let dead = target(&world, webhook("dead")).await;
    for _ in 0..3 {
        something_happens(&world, &vault).await;
    }
    let first = next(&world, "a").await.unwrap().notification;
    let alive = target(&world, webhook("alive")).await;
    something_happens(&world, &vault).await;
    let other = next(&world, "a").await.unwrap().notification;
    assert_eq!(other.target, alive.id);
    let refused = Err("no".to_owned());
    let settled = world.service.settle_notification("a", first, refused);
    settled.await.unwrap();
    let settled = world.service.settle_notification("a", other, Ok(()));
    settled.await.unwrap();
    // All that is for the dead one waits for a moment, and then goes one by one.
    assert!(next(&world, "a").await.is_none());
    world.clock.advance(10);
    assert_eq!(
        next(&world, "a").await.unwrap().notification.target,
        dead.id
    );
    assert!(next(&world, "a").await.is_none());
}

#[tokio::test]
async fn of_too_many_that_wait_the_oldest_go_and_are_counted() {
    let world = World::new().await;
    let target = target(&world, webhook("one")).await;
    let first = test(&world, &target).await;
    let mut tx = world.meta.begin().await.unwrap();
    for _ in 0..1001 {
        let more = Notification {
            id: cairn_types::NotificationId::random(),
            created_at: first.created_at.plus_seconds(1),
            ..first.clone()
        };
        tx.insert_notification(&more).await.unwrap();
    }
    tx.commit().await.unwrap();
    world.clock.advance(2);
    let last = test(&world, &target).await;
    let all = NotificationFilter::default();
    let page = page();
    let listed = world.service.notifications(world.caller(), &all, &page);
    let (newest, count) = listed.await.unwrap();
    assert_eq!((newest[0].id, count), (last.id, 1000));
    let dropped = world.service.dropped_notifications(world.caller()).await;
    assert_eq!(dropped.unwrap(), 3);
    let gone = world.service.notification(world.caller(), first.id).await;
    assert!(gone.is_err());
}

#[tokio::test]
async fn a_target_is_kept_sealed_and_changes_where_it_points() {
    let world = World::new().await;
    let made = target(&world, webhook("one")).await;
    let plain = hex::encode(SECRET);
    assert!(!made.sealed_secret.contains(&plain) && !made.sealed_secret.is_empty());
    test(&world, &made).await;
    let change = TargetChange {
        url: Some("https://two.example.com/".to_owned()),
        secret: Some("another secret".to_owned().into()),
        ..TargetChange::default()
    };
    let caller = world.caller();
    let changed = world.service.update_target(caller, made.id, change).await;
    assert_eq!(changed.unwrap().name, "one");
    let sent = next(&world, "a").await.unwrap();
    let Channel::Webhook { url, secret } = sent.channel else {
        panic!("it is a webhook")
    };
    assert_eq!(
        (url.as_str(), secret.as_slice()),
        ("https://two.example.com/", &b"another secret"[..])
    );
    world.service.delete_target(caller, made.id).await.unwrap();
    assert_eq!(told(&world).await, []);
    let settled = world
        .service
        .settle_notification("a", sent.notification, Ok(()));
    settled.await.unwrap();
    assert_eq!(told(&world).await, [], "what is gone stays so");

    for number in 0..32 {
        target(&world, webhook(&format!("t{number}"))).await;
    }
    let refused = world.service.create_target(caller, webhook("more")).await;
    assert_eq!(refused.unwrap_err().kind(), cairn_types::Kind::Exhausted);
}

#[tokio::test]
async fn nothing_is_written_where_nobody_wants_to_know() {
    let world = World::new().await;
    let vault = disk_vault(&world).await;
    let stranger = world.service.add_project("other", "other").await.unwrap();
    let other = world.caller_in(stranger.project.id);
    let made = world.service.create_target(&other, webhook("theirs")).await;
    made.unwrap();
    something_happens(&world, &vault).await;
    assert_eq!(told(&world).await, []);
    let all = NotificationFilter::default();
    let page = page();
    let theirs = world.service.notifications(&other, &all, &page).await;
    assert_eq!(theirs.unwrap().1, 0);
    assert!(next(&world, "a").await.is_none());
}

const DAILY: &str = "FREQ=DAILY;BYHOUR=23;BYMINUTE=00";

/// Has a vault follow a policy that runs each day.
async fn follow_a_policy(world: &World, vault: &VaultView) {
    let new = NewPolicy {
        name: "daily".to_owned(),
        operation: PolicyOperation::Backup,
        enabled: true,
        definition: OperationDefinition::default(),
        schedule: NewSchedule {
            pattern: vec![DAILY.to_owned()],
            ..NewSchedule::default()
        },
    };
    let caller = world.caller();
    let made = world.service.create_policy(caller, new).await.unwrap();
    let policies = [made.policy.id];
    let bound = world
        .service
        .associate_policies(caller, vault.vault.id, &policies, None);
    bound.await.unwrap();
}

#[tokio::test]
async fn a_run_of_a_policy_that_does_not_start_is_told() {
    let world = World::new().await;
    target(&world, webhook("one")).await;
    let vault = disk_vault(&world).await;
    follow_a_policy(&world, &vault).await;
    world.clock.advance(DAY);
    world.service.run_due_policies().await.unwrap();
    assert_eq!(events(&world).await, [], "it has started");
    world.clock.advance(DAY);
    world.service.run_due_policies().await.unwrap();
    assert_eq!(events(&world).await, [Event::PolicyRunSkipped]);
    let skipped = body(&told(&world).await[0]);
    assert_eq!(skipped["details"]["policy"]["name"], "daily");
    assert_eq!(skipped["vault"]["id"], vault.vault.id.to_string());
    let reason = skipped["details"]["reason"].as_str().unwrap();
    assert!(reason.contains("still at work"), "{reason}");

    world.work().await;
    count_as_gb(&world, newest_backup(&world).await, 100).await;
    world.clock.advance(DAY);
    world.service.run_due_policies().await.unwrap();
    let expected = [Event::PolicyRunSkipped, Event::PolicyRunFailed];
    assert_eq!(events(&world).await, expected);
}

#[tokio::test]
async fn what_somebody_cancelled_is_not_told() {
    let world = World::new().await;
    target(&world, webhook("one")).await;
    let vault = disk_vault(&world).await;
    world.checkpoint(&vault).await;
    let all = OperationLogFilter::default();
    let page = page();
    let logs = world.service.operation_logs(world.caller(), &all, &page);
    let log = logs.await.unwrap().0.remove(0).log.id;
    let cancelled = world.service.cancel_operation(world.caller(), log).await;
    cancelled.unwrap();
    world.work().await;
    assert_eq!(events(&world).await, []);
}
