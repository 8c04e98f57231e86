//! Policies that run by themselves, on a clock that stands still: what a run
//! starts, what it records where it starts nothing, and what it lets go.

use std::time::{Duration, Instant};

use cairn_core::records::{Backup, OperationLog, OperationLogFilter, Page};
use cairn_core::{
    BackupQuery, Error, NewPolicy, NewSchedule, PolicyChange, PolicyView, Refusal, ScheduleChange,
    VaultChange, VaultView,
};
use cairn_testkit::{Moment, Sabotage, World};
use cairn_types::{
    BackupStatus, Clock, ObjectType, OperationDefinition, OperationStatus, PolicyId,
    PolicyOperation, Timestamp, VaultStatus,
};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The clock stands at 22:13:20 UTC.
const DAILY: &str = "FREQ=DAILY;BYHOUR=23;BYMINUTE=00";
const UNTIL_FIRST: i64 = 46 * MINUTE + 40;
/// What a sweep may be late.
const SOON: i64 = MINUTE;

fn page() -> Page {
    Page {
        limit: 1000,
        ..Page::default()
    }
}

fn keeps(max_backups: i32) -> OperationDefinition {
    OperationDefinition {
        max_backups: Some(max_backups),
        ..OperationDefinition::default()
    }
}

fn for_days(days: i32) -> OperationDefinition {
    OperationDefinition {
        retention_duration_days: Some(days),
        ..OperationDefinition::default()
    }
}

/// A world with a vault for its single disk, and a policy that the vault follows.
struct Stage {
    world: World,
    vault: VaultView,
    policy: PolicyId,
}

impl Stage {
    async fn new(definition: OperationDefinition) -> Self {
        let world = World::new().await;
        let vault = world.vault(ObjectType::Disk, world.disk().await).await;
        let policy = make(&world, &[DAILY], definition).await.policy.id;
        let stage = Self {
            world,
            vault,
            policy,
        };
        stage.bind().await;
        stage.world.clock.advance(UNTIL_FIRST);
        stage
    }

    async fn bind(&self) {
        let (caller, vault) = (self.world.caller(), self.vault.vault.id);
        let policies = [self.policy];
        let bound = self
            .world
            .service
            .associate_policies(caller, vault, &policies, None);
        bound.await.unwrap();
    }

    /// Does what is due, until nothing is.
    async fn settle(&self) {
        let service = &self.world.service;
        while service.run_due_policies().await.unwrap() > 0 {}
        self.world.work_beside().await;
        while service.remove_ended_backups().await.unwrap() > 0 {}
        self.world.work_beside().await;
    }

    /// Lets days pass, one after the other.
    async fn days(&self, days: i64) {
        for _ in 0..days {
            self.settle().await;
            self.world.clock.advance(DAY);
        }
    }

    async fn backups(&self) -> Vec<Backup> {
        let query = BackupQuery {
            page: page(),
            ..BackupQuery::default()
        };
        let found = self.world.service.backups(self.world.caller(), &query);
        let mut found: Vec<Backup> = found
            .await
            .unwrap()
            .0
            .into_iter()
            .map(|v| v.backup)
            .collect();
        found.sort_by_key(|backup| backup.created_at);
        found
    }

    async fn logs(&self) -> Vec<OperationLog> {
        let filter = OperationLogFilter::default();
        let page = page();
        let found = self
            .world
            .service
            .operation_logs(self.world.caller(), &filter, &page);
        let mut found: Vec<_> = found.await.unwrap().0.into_iter().map(|v| v.log).collect();
        found.reverse();
        found
    }

    async fn update(&self, change: PolicyChange) {
        let caller = self.world.caller();
        let done = self
            .world
            .service
            .update_policy(caller, self.policy, change);
        done.await.unwrap();
    }

    async fn keep(&self, definition: OperationDefinition) {
        self.update(PolicyChange {
            definition: Some(definition),
            ..PolicyChange::default()
        })
        .await;
    }

    async fn kept_by(&self, backup: &Backup) -> Vec<String> {
        let explained = self
            .world
            .service
            .explain_backup(self.world.caller(), backup.id);
        explained.await.unwrap().kept_by
    }
}

async fn make(world: &World, pattern: &[&str], definition: OperationDefinition) -> PolicyView {
    let new = NewPolicy {
        name: "daily".to_owned(),
        operation: PolicyOperation::Backup,
        enabled: true,
        definition,
        schedule: NewSchedule {
            pattern: pattern.iter().map(|rule| (*rule).to_owned()).collect(),
            ..NewSchedule::default()
        },
    };
    world
        .service
        .create_policy(world.caller(), new)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_run_backs_up_what_its_vaults_hold_once_a_slot() {
    let stage = Stage::new(keeps(-1)).await;
    stage.world.clock.advance(-1);
    assert_eq!(stage.world.service.run_due_policies().await.unwrap(), 0);
    stage.world.clock.advance(1);
    assert_eq!(stage.world.service.run_due_policies().await.unwrap(), 1);
    assert_eq!(stage.world.service.run_due_policies().await.unwrap(), 0);
    stage.world.work_beside().await;
    stage.world.clock.advance(DAY - 2 * MINUTE);
    assert_eq!(stage.world.service.run_due_policies().await.unwrap(), 0);
    stage.world.clock.advance(2 * MINUTE);
    stage.settle().await;

    let backups = stage.backups().await;
    assert_eq!(backups.len(), 2);
    for backup in &backups {
        assert!(
            backup.auto_trigger && backup.name.starts_with("autobk_"),
            "{backup:?}"
        );
        assert_eq!(backup.status, BackupStatus::Available);
        assert_eq!(backup.policy, Some(stage.policy));
        assert_eq!(backup.expired_at, None);
        assert_eq!(stage.kept_by(backup).await, ["forever"]);
    }
    assert_eq!(
        backups
            .iter()
            .map(|one| one.incremental)
            .collect::<Vec<_>>(),
        [false, true]
    );
    let logs = stage.logs().await;
    assert!(logs.iter().all(|log| log.policy == Some(stage.policy)));
}

#[tokio::test]
async fn after_downtime_one_run_makes_up_for_all_slots_that_were_missed() {
    let stage = Stage::new(keeps(-1)).await;
    stage.settle().await;
    stage.world.clock.advance(10 * DAY + 3 * HOUR);
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 2);
    stage.world.clock.advance(21 * HOUR);
    stage.settle().await;
    assert_eq!(
        stage.backups().await.len(),
        3,
        "the next slot is a run again"
    );
}

#[tokio::test]
async fn a_slot_that_falls_due_while_a_run_goes_on_is_skipped_and_recorded() {
    let stage = Stage::new(keeps(-1)).await;
    assert_eq!(stage.world.service.run_due_policies().await.unwrap(), 1);
    stage.world.clock.advance(DAY);
    assert_eq!(stage.world.service.run_due_policies().await.unwrap(), 1);
    let logs = stage.logs().await;
    let skipped = &logs[1];
    assert_eq!(skipped.status, OperationStatus::Skipped);
    assert_eq!(skipped.policy, Some(stage.policy));
    assert!(skipped.error_text.contains("still at work"), "{skipped:?}");
    stage.world.work_beside().await;
    assert_eq!(stage.backups().await.len(), 1);
    stage.world.clock.advance(DAY);
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 2);
}

#[tokio::test]
async fn a_run_that_cannot_start_says_why_and_the_next_is_tried() {
    let stage = Stage::new(keeps(-1)).await;
    let backup = {
        stage.settle().await;
        stage.backups().await[0].id
    };
    let project = stage.world.caller().project;
    stage.world.count_as(project, backup, 1 << 40).await;
    stage.world.clock.advance(DAY);
    stage.settle().await;
    let logs = stage.logs().await;
    let failed = logs.last().unwrap();
    assert_eq!(failed.status, OperationStatus::Failed);
    assert!(!failed.error_text.is_empty());
    stage.world.count_as(project, backup, 0).await;
    stage.world.clock.advance(DAY);
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 2);
}

#[tokio::test]
async fn a_source_that_cannot_be_listed_holds_nobody_elses_run_up() {
    let stage = Stage::new(keeps(-1)).await;
    let share = stage
        .world
        .vault(ObjectType::Turbo, stage.world.share().await)
        .await;
    let other = make(&stage.world, &[DAILY], keeps(-1)).await.policy.id;
    stage.world.clock.advance(DAY);
    let (caller, service) = (stage.world.caller(), &stage.world.service);
    let policies = [other];
    let bound = service.associate_policies(caller, share.vault.id, &policies, None);
    bound.await.unwrap();
    // In the place of the folder of images lies a file.
    let images = stage.world.image("disk.img").parent().unwrap().to_owned();
    std::fs::rename(&images, images.with_extension("away")).unwrap();
    std::fs::File::create(&images).unwrap();
    stage.settle().await;
    let logs = stage.logs().await;
    let failed = logs
        .iter()
        .find(|log| log.status == OperationStatus::Failed);
    assert_eq!(failed.unwrap().vault, Some(stage.vault.vault.id));
    let backups = stage.backups().await;
    assert_eq!(backups.len(), 1);
    assert_eq!(backups[0].vault, share.vault.id);
}

#[tokio::test]
async fn resources_that_are_suspended_and_policies_that_are_off_are_passed_by() {
    let stage = Stage::new(keeps(-1)).await;
    let (caller, disk) = (stage.world.caller(), stage.world.disk().await);
    let service = &stage.world.service;
    let vault = stage.vault.vault.id;
    service
        .set_auto_protect(caller, vault, &[disk], false)
        .await
        .unwrap();
    stage.days(1).await;
    assert!(stage.backups().await.is_empty());
    assert_eq!(stage.logs().await[0].status, OperationStatus::Skipped);
    service
        .set_auto_protect(caller, vault, &[disk], true)
        .await
        .unwrap();
    let off = |enabled| PolicyChange {
        enabled: Some(enabled),
        ..PolicyChange::default()
    };
    stage.update(off(false)).await;
    stage.days(3).await;
    assert!(stage.backups().await.is_empty());
    stage.update(off(true)).await;
    stage.settle().await;
    assert!(
        stage.backups().await.is_empty(),
        "what it missed while it was off is not made up for"
    );
    stage.days(1).await;
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 1);
}

#[tokio::test]
async fn another_schedule_counts_from_when_it_was_set() {
    let stage = Stage::new(keeps(-1)).await;
    stage.settle().await;
    let pattern = vec!["FREQ=DAILY;BYHOUR=5;BYMINUTE=30".to_owned()];
    stage
        .update(PolicyChange {
            schedule: Some(ScheduleChange {
                pattern: Some(pattern),
                ..ScheduleChange::default()
            }),
            ..PolicyChange::default()
        })
        .await;
    let next = stage
        .world
        .service
        .next_policy_run()
        .await
        .unwrap()
        .unwrap();
    let wait = next.seconds_since(stage.world.clock.now());
    assert!(
        (6 * HOUR + 29 * MINUTE..=6 * HOUR + 30 * MINUTE).contains(&wait),
        "{wait}"
    );
}

#[tokio::test]
async fn what_a_change_of_the_schedule_leaves_out_stays_and_something_must() {
    let world = World::new().await;
    let (service, caller) = (&world.service, world.caller());
    let rule = "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=22;BYMINUTE=0";
    let new = NewPolicy {
        name: "monthly".to_owned(),
        operation: PolicyOperation::Backup,
        enabled: true,
        definition: keeps(-1),
        schedule: NewSchedule {
            recurrence_rules: vec![rule.to_owned()],
            ..NewSchedule::default()
        },
    };
    let policy = service.create_policy(caller, new).await.unwrap().policy.id;
    let change = async |schedule| {
        let change = PolicyChange {
            schedule: Some(schedule),
            ..PolicyChange::default()
        };
        service.update_policy(caller, policy, change).await
    };
    let changed = change(ScheduleChange {
        timezone: Some(Some("Europe/Berlin".to_owned())),
        ..ScheduleChange::default()
    });
    let schedule = changed.await.unwrap().policy.schedule;
    assert_eq!(schedule.recurrence_rules, [rule]);
    assert_eq!(schedule.timezone.as_deref(), Some("Europe/Berlin"));
    let refused = change(ScheduleChange {
        recurrence_rules: Some(Vec::new()),
        ..ScheduleChange::default()
    });
    assert!(matches!(
        refused.await,
        Err(Error::Refused(Refusal::Invalid(_)))
    ));
}

#[tokio::test]
async fn only_so_many_are_kept_and_manual_ones_are_untouched() {
    let stage = Stage::new(keeps(3)).await;
    let manual = stage.world.checkpoint(&stage.vault).await.checkpoint.id;
    stage.world.work_beside().await;
    stage.days(10).await;
    let backups = stage.backups().await;
    let automatic: Vec<&Backup> = backups.iter().filter(|one| one.auto_trigger).collect();
    assert_eq!(automatic.len(), 3);
    for backup in &automatic {
        assert_eq!(stage.kept_by(backup).await, ["max_backups"]);
    }
    let by_hand = backups.iter().find(|one| one.checkpoint == manual).unwrap();
    assert_eq!(stage.kept_by(by_hand).await, ["made_by_hand"]);
    // What was let go is gone from the repository too.
    let ids = stage
        .world
        .stored(stage.world.caller().project, "after")
        .await;
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn backups_end_by_their_age_within_a_minute_and_not_before() {
    let stage = Stage::new(for_days(2)).await;
    stage.settle().await;
    let made = stage.backups().await.remove(0);
    let ends = made.created_at.plus_seconds(2 * DAY);
    assert_eq!(made.expired_at, Some(ends));
    assert_eq!(stage.world.service.next_end().await.unwrap(), Some(ends));
    assert_eq!(stage.kept_by(&made).await, ["retention_duration_days"]);
    stage
        .update(PolicyChange {
            enabled: Some(false),
            ..PolicyChange::default()
        })
        .await;
    stage.world.clock.advance(2 * DAY - MINUTE);
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 1);
    stage.world.clock.advance(MINUTE + SOON);
    stage.settle().await;
    assert!(stage.backups().await.is_empty());
}

#[tokio::test]
async fn what_a_changed_rule_does_to_backups_that_are_there() {
    // From a number to an age, or for ever: those that are there stay.
    let stage = Stage::new(keeps(3)).await;
    stage.days(3).await;
    stage.keep(for_days(2)).await;
    stage.days(2).await;
    let backups = stage.backups().await;
    assert_eq!(backups.len(), 5);
    assert_eq!(
        backups
            .iter()
            .filter(|one| one.expired_at.is_none())
            .count(),
        3
    );
    stage.days(3).await;
    assert_eq!(
        stage
            .backups()
            .await
            .iter()
            .filter(|one| one.expired_at.is_none())
            .count(),
        3
    );

    // From an age to a number: both apply.
    stage.keep(keeps(4)).await;
    let before = stage.backups().await;
    stage.settle().await;
    let after = stage.backups().await;
    assert!(before.len() >= 4);
    assert_eq!(after.len(), 4, "the number applies to the old ones");
    stage.world.clock.advance(10 * DAY);
    stage.settle().await;
    let stamped = stage.backups().await;
    assert!(
        stamped.iter().all(|one| one.expired_at.is_none()),
        "their age does too"
    );

    // From a number to another: with the next backup.
    stage.keep(keeps(1)).await;
    let now = stage.backups().await.len();
    while stage.world.service.remove_ended_backups().await.unwrap() > 0 {}
    assert_eq!(stage.backups().await.len(), now);
    stage.world.clock.advance(DAY);
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 1);
}

#[tokio::test]
async fn a_vault_without_its_policy_keeps_by_age_and_no_more_by_number() {
    let stage = Stage::new(keeps(2)).await;
    stage.days(3).await;
    let (caller, vault) = (stage.world.caller(), stage.vault.vault.id);
    let unbound = stage
        .world
        .service
        .dissociate_policy(caller, vault, stage.policy);
    unbound.await.unwrap();
    stage.days(30).await;
    let backups = stage.backups().await;
    assert_eq!(backups.len(), 2);
    assert_eq!(stage.kept_by(&backups[0]).await, ["forever"]);
}

#[tokio::test]
async fn a_locked_vault_holds_what_was_promised_when_it_was_made() {
    let stage = Stage::new(keeps(4)).await;
    let (caller, vault) = (stage.world.caller(), stage.vault.vault.id);
    let lock = VaultChange {
        locked: Some(true),
        ..VaultChange::default()
    };
    stage
        .world
        .service
        .update_vault(caller, vault, lock)
        .await
        .unwrap();
    stage.days(3).await;
    let before = stage.backups().await;
    stage.keep(keeps(1)).await;
    stage.days(1).await;
    assert_eq!(
        stage.backups().await.len(),
        4,
        "a smaller number takes nothing away"
    );
    assert!(
        stage
            .kept_by(&before[0])
            .await
            .contains(&"locked".to_owned())
    );
    let refused = stage
        .world
        .service
        .delete_backup(caller, before[0].id)
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::BackupLocked))
    ));
    stage.days(5).await;
    let after = stage.backups().await;
    assert!(
        after.iter().all(|one| one.id != before[0].id),
        "what the old rule lets go goes"
    );
}

#[tokio::test]
async fn nothing_is_deleted_in_the_middle_of_a_run() {
    let stage = Stage::new(for_days(1)).await;
    stage.settle().await;
    stage.world.clock.advance(DAY + SOON);
    let service = &stage.world.service;
    assert_eq!(service.run_due_policies().await.unwrap(), 1);
    assert_eq!(service.remove_ended_backups().await.unwrap(), 0);
    assert_eq!(stage.backups().await.len(), 2);
    stage.settle().await;
    assert_eq!(stage.backups().await.len(), 1);
}

#[tokio::test]
async fn failed_runs_stay_to_be_seen_for_a_month() {
    let stage = Stage::new(keeps(2)).await;
    let fail = Sabotage {
        kind: "back_up",
        step: 1,
        moment: Moment::FailBefore,
    };
    for _ in 0..12 {
        stage.world.service.run_due_policies().await.unwrap();
        stage.world.work_with(fail).await;
        stage.settle().await;
        stage.world.clock.advance(DAY);
        stage.world.service.run_due_policies().await.unwrap();
        stage.world.work_beside().await;
    }
    let failed = |backups: &[Backup]| {
        let failed = backups
            .iter()
            .filter(|one| one.status == BackupStatus::Error);
        failed.count()
    };
    let backups = stage.backups().await;
    assert!((1..=10).contains(&failed(&backups)), "{}", failed(&backups));
    stage
        .update(PolicyChange {
            enabled: Some(false),
            ..PolicyChange::default()
        })
        .await;
    stage.world.clock.advance(31 * DAY);
    stage.settle().await;
    assert_eq!(failed(&stage.backups().await), 0);
}

#[tokio::test]
async fn a_full_backup_comes_after_so_many_incremental_ones() {
    let definition = OperationDefinition {
        full_backup_interval: Some(2),
        ..keeps(-1)
    };
    let stage = Stage::new(definition).await;
    stage.days(7).await;
    let full: Vec<bool> = stage
        .backups()
        .await
        .iter()
        .map(|one| !one.incremental)
        .collect();
    assert_eq!(full, [true, false, false, true, false, false, true]);
}

#[tokio::test]
async fn a_change_tells_first_what_it_would_let_go() {
    let stage = Stage::new(keeps(5)).await;
    stage.days(5).await;
    let (caller, service) = (stage.world.caller(), &stage.world.service);
    let none = service
        .preview_policy(caller, stage.policy, None, None)
        .await;
    assert!(none.unwrap().is_empty());
    let wish = Some(keeps(2));
    let gone = service
        .preview_policy(caller, stage.policy, wish, None)
        .await
        .unwrap();
    let backups = stage.backups().await;
    let ids = |of: &[Backup]| of.iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(&gone), ids(&backups[..3]));
    assert_eq!(stage.backups().await.len(), 5, "nothing has changed");
    let stranger = service
        .preview_policy(caller, PolicyId::random(), None, None)
        .await;
    assert!(matches!(
        stranger,
        Err(Error::Refused(Refusal::PolicyNotFound))
    ));
}

#[tokio::test]
async fn a_vault_that_binds_by_itself_takes_what_its_rules_name() {
    let stage = Stage::new(keeps(-1)).await;
    let (caller, vault) = (stage.world.caller(), stage.vault.vault.id);
    let service = &stage.world.service;
    let change = |tags: serde_json::Value| VaultChange {
        auto_bind: Some(true),
        bind_rules: Some(serde_json::json!({ "tags": tags })),
        ..VaultChange::default()
    };
    let nobody = serde_json::json!([{ "key": "tier", "value": "gold" }]);
    service
        .update_vault(caller, vault, change(nobody))
        .await
        .unwrap();
    stage.days(1).await;
    assert_eq!(stage.backups().await.len(), 1);
    service
        .update_vault(caller, vault, change(serde_json::json!([])))
        .await
        .unwrap();
    stage.days(1).await;
    // The server's two disks are unprotected as long as the server is.
    assert_eq!(stage.backups().await.len(), 4);
    let shown = service.vault(caller, vault).await.unwrap();
    assert_eq!(shown.resources.len(), 3);
}

#[tokio::test]
async fn a_task_that_is_cancelled_ends_and_leaves_nothing() {
    let stage = Stage::new(keeps(-1)).await;
    let service = &stage.world.service;
    service.run_due_policies().await.unwrap();
    let log = stage.logs().await.remove(0);
    let cancelled = service.cancel_operation(stage.world.caller(), log.id).await;
    assert_eq!(cancelled.unwrap().log.id, log.id);
    let begun = Instant::now();
    stage.world.work_beside().await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let ended = stage.logs().await.remove(0);
    assert_eq!(ended.status, OperationStatus::Failed);
    assert_eq!(ended.error_text, "cancelled by request");
    assert!(
        stage
            .world
            .stored(stage.world.caller().project, "cancelled")
            .await
            .is_empty()
    );
    // Again changes nothing; what is over otherwise is refused.
    service
        .cancel_operation(stage.world.caller(), log.id)
        .await
        .unwrap();
    stage.world.clock.advance(DAY);
    stage.settle().await;
    let done = stage
        .logs()
        .await
        .into_iter()
        .find(|one| one.status == OperationStatus::Success);
    let refused = service
        .cancel_operation(stage.world.caller(), done.unwrap().id)
        .await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::Invalid(_)))));
}

#[tokio::test]
async fn a_deletion_that_is_cancelled_before_it_begins_leaves_all_as_it_was() {
    let stage = Stage::new(keeps(-1)).await;
    let (service, caller) = (&stage.world.service, stage.world.caller());
    stage.days(1).await;
    let backup = stage.backups().await.remove(0);
    let newest_log = async || stage.logs().await.pop().unwrap();
    service.delete_backup(caller, backup.id).await.unwrap();
    let log = newest_log().await.id;
    service.cancel_operation(caller, log).await.unwrap();
    stage.world.work_beside().await;
    assert_eq!(newest_log().await.status, OperationStatus::Failed);
    let kept = stage.backups().await.remove(0);
    assert_eq!(kept.status, BackupStatus::Available);
    assert_eq!((kept.error_message, kept.root), (None, backup.root));

    let vault = stage.vault.vault.id;
    service.delete_vault(caller, vault).await.unwrap();
    let log = newest_log().await.id;
    service.cancel_operation(caller, log).await.unwrap();
    stage.world.work_beside().await;
    assert_eq!(newest_log().await.status, OperationStatus::Failed);
    let shown = service.vault(caller, vault).await.unwrap();
    assert_eq!(shown.vault.status, VaultStatus::Available);
    assert_eq!(stage.backups().await.len(), 1);
    // And it can be deleted after that.
    service.delete_backup(caller, backup.id).await.unwrap();
    stage.world.work_beside().await;
    assert!(stage.backups().await.is_empty());
}

#[tokio::test]
async fn a_start_window_spreads_the_starts_and_never_exceeds_itself() {
    let world = World::new().await;
    let mut starts: Vec<Timestamp> = Vec::new();
    for _ in 0..20 {
        let new = NewPolicy {
            name: "spread".to_owned(),
            operation: PolicyOperation::Backup,
            enabled: true,
            definition: keeps(-1),
            schedule: NewSchedule {
                pattern: vec![DAILY.to_owned()],
                start_window_minutes: Some(60),
                ..NewSchedule::default()
            },
        };
        let made = world
            .service
            .create_policy(world.caller(), new)
            .await
            .unwrap();
        let late = made
            .policy
            .next_run_at
            .unwrap()
            .seconds_since(made.policy.next_slot.unwrap());
        assert!((0..=HOUR).contains(&late), "{late}");
        starts.push(made.policy.next_run_at.unwrap());
    }
    starts.sort();
    starts.dedup();
    assert!(starts.len() > 10, "{starts:?}");
}
