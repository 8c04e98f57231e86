//! A simulated year of a thousand policies, or as many as `CAIRN_DECADE_YEARS` says, through the reconcilers of the service, on
//! a fake clock, with servers that end at random instants.
//!
//! What must have happened is what `cairn_policy::simulate` says of each policy, which is
//! held against an independent reference elsewhere. Bytes are not moved: a backup is done when
//! its task runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cairn_core::records::{OperationLogFilter, Page};
use cairn_core::{Protected, Service, Worker};
use cairn_meta::tasks::Task;
use cairn_meta::{
    BoundResource, Policy, PolicyBinding, PolicySchedule, ResourceExtraInfo, Tx, Vault,
};
use cairn_policy::{MAX_SIMULATED, Retention, Schedule, Simulated, simulate};
use cairn_task::{Engine, Failure, Work};
use cairn_testkit::World;
use cairn_types::{
    BackupId, Clock, ObjectType, OperationDefinition, OperationType, PolicyId, PolicyOperation,
    PolicyType, Progress, ProjectId, ProtectStatus, ResourceType, Timestamp, VaultId,
};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const POLICIES: usize = 1000;
const DAY: i64 = 24 * 60 * 60;
/// How late the service may be: it looks every second, and is down for minutes at the most.
const LATE: i64 = 15 * 60;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Schedules from every hour of some days to once a year, most of them rare.
fn schedule(dice: &mut Dice, number: usize) -> PolicySchedule {
    let (hour, minute) = (dice.below(24), dice.below(60));
    let at = format!("BYHOUR={hour};BYMINUTE={minute}");
    let weekday = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"][dice.below(7)];
    let zones = [
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "UTC+08:00",
    ];
    let zone = Some(zones[dice.below(zones.len())].to_owned());
    let (pattern, timezone, rule) = match number {
        0..2 => (Some(format!("FREQ=DAILY;{at}")), None, None),
        2..6 => (
            Some(format!("FREQ=WEEKLY;BYDAY={weekday};{at}")),
            zone,
            None,
        ),
        6..40 => (Some(format!("FREQ=DAILY;INTERVAL=30;{at}")), zone, None),
        40..80 => (
            None,
            zone,
            Some(format!("FREQ=MONTHLY;BYDAY=-1{weekday};{at}")),
        ),
        80..300 => (
            None,
            zone,
            Some(format!(
                "FREQ=MONTHLY;INTERVAL=6;BYMONTHDAY=1,-1;BYSETPOS=1;{at}"
            )),
        ),
        _ => (
            None,
            zone,
            Some(format!(
                "FREQ=YEARLY;BYMONTH={};BYDAY=2{weekday};{at}",
                1 + dice.below(12)
            )),
        ),
    };
    PolicySchedule {
        id: Uuid::new_v4(),
        pattern: pattern.into_iter().collect(),
        timezone,
        recurrence_rules: rule.into_iter().collect(),
        start_window_minutes: None,
    }
}

fn definition(dice: &mut Dice, number: usize) -> OperationDefinition {
    let some = |limit: usize, dice: &mut Dice| Some(i32::try_from(1 + dice.below(limit)).unwrap());
    let none = OperationDefinition::default();
    match number % 5 {
        0 => OperationDefinition {
            max_backups: some(6, dice),
            ..none
        },
        1 => OperationDefinition {
            retention_duration_days: some(900, dice),
            ..none
        },
        2 => OperationDefinition {
            max_backups: some(2, dice),
            day_backups: some(3, dice),
            month_backups: some(5, dice),
            year_backups: some(4, dice),
            timezone: Some("UTC+08:00".to_owned()),
            ..none
        },
        3 => OperationDefinition {
            max_backups: some(30, dice),
            week_backups: some(4, dice),
            timezone: Some("UTC-05:00".to_owned()),
            ..none
        },
        _ => none,
    }
}

/// The service's own work, but for the bytes of backups and for collections.
struct Weightless {
    service: Service,
    worker: Worker,
}

#[derive(Deserialize)]
struct BackUp {
    project: ProjectId,
    backup: BackupId,
}

impl Weightless {
    async fn back_up(&self, task: &Task) -> cairn_core::Result<()> {
        let of: BackUp = serde_json::from_str(&task.payload).unwrap();
        self.service.begin_protect(of.project, of.backup).await?;
        let protected = Protected {
            size_bytes: 0,
            data_bytes: 0,
            used_bytes: 0,
            root: "00".repeat(32),
        };
        self.service
            .finish_protect(of.project, of.backup, &protected)
            .await
    }
}

impl Work for Weightless {
    fn steps(&self, task: &Task) -> &'static [&'static str] {
        match task.kind.as_str() {
            "back_up" | "collect" => &["once"],
            _ => self.worker.steps(task),
        }
    }

    async fn run(&self, task: &Task, step: usize, progress: &Arc<Progress>) -> Result<(), Failure> {
        match task.kind.as_str() {
            "back_up" => self
                .back_up(task)
                .await
                .map_err(|error| Failure::new(error.kind(), error.to_string())),
            "collect" => Ok(()),
            _ => self.worker.run(task, step, progress).await,
        }
    }

    async fn undo(&self, task: &Task, step: usize, why: &Failure) -> Result<(), Failure> {
        panic!("{} is undone in step {step}: {why:?}", task.kind)
    }

    async fn failed(&self, task: &Task, why: &Failure, _: &mut Tx) -> cairn_meta::Result<()> {
        panic!("{} has failed: {why:?}", task.kind)
    }
}

struct Decade {
    world: World,
    policies: Vec<Policy>,
    vaults: HashMap<PolicyId, VaultId>,
    dice: Dice,
}

impl Decade {
    async fn new() -> Self {
        let world = World::in_memory_with_shares(POLICIES).await;
        let template = world
            .vault(ObjectType::Turbo, world.share().await)
            .await
            .vault;
        let mut dice = Dice(7);
        let (mut policies, mut vaults) = (Vec::new(), HashMap::new());
        let shares = world.inventory.list().unwrap();
        let shares = shares
            .iter()
            .filter(|found| found.name.starts_with("share-"));
        let mut tx = world.meta.begin().await.unwrap();
        for (number, share) in shares.enumerate() {
            let vault = Vault {
                id: VaultId::random(),
                name: share.name.clone(),
                ..template.clone()
            };
            tx.insert_vault(&vault).await.unwrap();
            tx.bind_resource(&bound(&vault, share)).await.unwrap();
            let now = world.clock.now();
            // Due at once: the service plans the first run of a policy that has no slot yet.
            let policy = Policy {
                id: PolicyId::random(),
                project: world.caller().project,
                name: share.name.clone(),
                operation: PolicyOperation::Backup,
                policy_type: PolicyType::Custom,
                enabled: true,
                definition: definition(&mut dice, number),
                schedule: schedule(&mut dice, number),
                organization_policy: None,
                created_at: now,
                updated_at: now,
                next_slot: None,
                next_run_at: Some(now),
            };
            tx.insert_policy(&policy).await.unwrap();
            let binding = PolicyBinding {
                vault: vault.id,
                policy: policy.id,
                operation: PolicyOperation::Backup,
                destination: None,
                bound_at: now,
            };
            tx.bind_policy(&binding).await.unwrap();
            vaults.insert(policy.id, vault.id);
            policies.push(policy);
        }
        tx.commit().await.unwrap();
        Self {
            world,
            policies,
            vaults,
            dice,
        }
    }

    /// What a process has of the service: another owner of tasks each time.
    fn engine(&self) -> Engine<Weightless> {
        let service = self.world.service.clone();
        let worker = Worker::new(service.clone());
        Engine::new(
            self.world.meta.clone(),
            Arc::new(Weightless { service, worker }),
            Arc::clone(&self.world.clock) as Arc<dyn Clock>,
            Uuid::new_v4().to_string(),
            Arc::new(Notify::new()),
            CancellationToken::new(),
        )
    }

    /// A process that does what is due. It may end after any number of things done, even of none,
    /// and is away for a while then.
    async fn serve(&mut self) {
        loop {
            let engine = self.engine();
            engine.take_over().await.unwrap();
            let mut left = match self.dice.below(4) {
                0 => self.dice.below(12),
                _ => usize::MAX,
            };
            loop {
                if left == 0 {
                    break;
                }
                left -= 1;
                let service = &self.world.service;
                if service.run_due_policies().await.unwrap() > 0
                    || service.remove_ended_backups().await.unwrap() > 0
                    || engine.run_one().await.unwrap()
                {
                    continue;
                }
                return;
            }
            let away = i64::try_from(self.dice.below(120)).unwrap();
            self.world.clock.advance(away);
        }
    }

    /// Goes on to the next instant at which anything is due.
    async fn go_on(&self, end: Timestamp) -> bool {
        let service = &self.world.service;
        let runs = service.next_policy_run().await.unwrap();
        let ends = service.next_end().await.unwrap();
        let next = runs.into_iter().chain(ends).min().unwrap();
        if next > end {
            return false;
        }
        let wait = next.seconds_since(self.world.clock.now());
        self.world.clock.advance(wait.max(0) + 1);
        true
    }

    /// When each log of a type was written, by vault.
    async fn logged(&self, operation: OperationType) -> HashMap<VaultId, Vec<Timestamp>> {
        let mut times: HashMap<VaultId, Vec<Timestamp>> = HashMap::new();
        for offset in (0..).step_by(1000) {
            let page = Page {
                limit: 1000,
                offset,
                marker: None,
            };
            let filter = OperationLogFilter {
                operation_type: Some(operation.to_string()),
                ..OperationLogFilter::default()
            };
            let caller = self.world.caller();
            let (logs, _) = self
                .world
                .service
                .operation_logs(caller, &filter, &page)
                .await
                .unwrap();
            if logs.is_empty() {
                break;
            }
            for view in logs {
                times
                    .entry(view.log.vault.unwrap())
                    .or_default()
                    .push(view.log.created_at);
            }
        }
        times.values_mut().for_each(|times| times.sort());
        times
    }
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

fn expected(policy: &Policy, until: Timestamp) -> Vec<Simulated> {
    let kept = &policy.schedule;
    let schedule = Schedule::new(
        &kept.pattern,
        kept.timezone.as_deref(),
        &kept.recurrence_rules,
    );
    let retention = Retention::new(&policy.definition).unwrap();
    let span = (policy.created_at, until);
    simulate(&schedule.unwrap(), &retention, span, MAX_SIMULATED).unwrap()
}

/// Each expected instant has one that happened, not before it and not much later, and the
/// other way round.
fn assert_happened(what: &str, expected: &[Timestamp], happened: &[Timestamp]) {
    assert_eq!(
        expected.len(),
        happened.len(),
        "{what}: {expected:?} {happened:?}"
    );
    for (expected, happened) in expected.iter().zip(happened) {
        let late = happened.seconds_since(*expected);
        assert!(
            (0..=LATE).contains(&late),
            "{what}: {expected:?} happened {late} s late"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn years_of_a_thousand_policies_are_what_their_rules_say() {
    let years = std::env::var("CAIRN_DECADE_YEARS").map_or(1, |years| years.parse().unwrap());
    let mut decade = Decade::new().await;
    let end = decade.world.clock.now().plus_seconds(years * 365 * DAY);
    decade.serve().await;
    while decade.go_on(end).await {
        decade.serve().await;
    }
    let made = decade.logged(OperationType::Backup).await;
    let deleted = decade.logged(OperationType::Delete).await;
    let (mut runs, mut gone) = (BTreeMap::new(), 0);
    let nothing = Vec::new();
    for policy in &decade.policies {
        let vault = decade.vaults[&policy.id];
        let simulated = expected(policy, end);
        let due: Vec<Timestamp> = simulated.iter().map(|one| one.created_at).collect();
        let happened = made.get(&vault).unwrap_or(&nothing);
        assert_happened(&format!("runs of {}", policy.name), &due, happened);
        let ends = simulated.iter().filter(|one| one.kept_by.is_empty());
        let mut ends: Vec<Timestamp> = ends.filter_map(|one| one.expired_at).collect();
        ends.sort();
        let happened = deleted.get(&vault).unwrap_or(&nothing);
        assert_happened(&format!("ends of {}", policy.name), &ends, happened);
        *runs.entry(due.len()).or_insert(0) += 1;
        gone += ends.len();
    }
    let all: usize = runs.iter().map(|(runs, policies)| runs * policies).sum();
    let years = usize::try_from(years).unwrap();
    assert!(
        all > 1_500 * years && gone > 500 * years,
        "{all} runs, {gone} deletions"
    );
}
