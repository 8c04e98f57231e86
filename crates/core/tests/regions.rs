//! Replication between two services, each in a world of its own, whose tasks fail and are
//! repeated at every step: the replica is there in full, or nothing of it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use cairn_core::records::{Page, ReplicationView};
use cairn_core::{
    AwaitedReplica, BackupQuery, Caller, Error, NewPolicy, NewReplica, NewSchedule, Refusal,
    RegionError, Regions, ReplicaState, ReplicaTarget, RestoreTarget, Service,
};
use cairn_link::{Connection, End, EphemeralKey, Limit, Purpose};
use cairn_testkit::{Moment, Sabotage, World};
use cairn_types::{
    BackupId, BackupStatus, Kind, ObjectType, OperationDefinition, OperationStatus,
    PolicyOperation, ProjectId, ReplicationStatus, VaultId,
};
use tokio::io::duplex;
use tokio::task::JoinSet;

const RIGHT: &str = "right";

/// A region in the same process.
#[derive(Default)]
struct Twin {
    /// Nobody answers there.
    away: AtomicBool,
    there: OnceLock<(Service, Caller)>,
    connecting: Mutex<JoinSet<cairn_core::Result<()>>>,
}

impl Twin {
    fn there(&self) -> &(Service, Caller) {
        self.there.get().expect("both worlds are there")
    }
}

fn region_error(error: Error) -> RegionError {
    RegionError {
        kind: error.kind(),
        code: None,
        message: error.to_string(),
    }
}

#[async_trait]
impl Regions for Twin {
    fn names(&self) -> Vec<String> {
        vec![RIGHT.to_owned()]
    }

    fn allows(&self, _: &str, _: ProjectId, _: ProjectId) -> bool {
        true
    }

    fn limits(&self, _: &str) -> Vec<Arc<Limit>> {
        Vec::new()
    }

    async fn announce(
        &self,
        _: &str,
        _: ProjectId,
        replica: &NewReplica,
    ) -> Result<AwaitedReplica, RegionError> {
        let (service, caller) = self.there();
        let announced = service.announce_replica(caller, RIGHT, replica).await;
        announced.map_err(region_error)
    }

    async fn replica(
        &self,
        _: &str,
        _: ProjectId,
        replica: BackupId,
    ) -> Result<ReplicaState, RegionError> {
        let (service, caller) = self.there();
        let state = service.replica_state(caller, replica).await;
        state.map_err(region_error)
    }

    async fn connect(
        &self,
        _: &str,
        project: ProjectId,
        replica: BackupId,
    ) -> Result<Connection, RegionError> {
        let (service, caller) = self.there();
        let expected = service.expect_connection(caller, replica).await;
        expected.map_err(region_error)?;
        let (asks, answers) = (EphemeralKey::generate(), EphemeralKey::generate());
        let (asks_public, answers_public) = (asks.public(), answers.public());
        let secret = (Purpose::Replica(replica), &b"secret"[..]);
        let asking = asks.agree(End::Asking, &answers_public, secret).unwrap();
        let answering = answers.agree(End::Answering, &asks_public, secret).unwrap();
        let (near, far) = duplex(1 << 16);
        let service = service.clone();
        self.connecting.lock().unwrap().spawn(async move {
            let connection = Connection::new(Box::new(far), asking);
            service
                .replica_connected(project, replica, connection)
                .await
        });
        Ok(Connection::new(Box::new(near), answering))
    }

    async fn withdraw(&self, _: &str, _: ProjectId, replica: BackupId) -> Result<(), RegionError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(RegionError {
                kind: Kind::Transient,
                code: None,
                message: "away".to_owned(),
            });
        }
        let (service, caller) = self.there();
        let withdrawn = service.withdraw_replica(caller, replica).await;
        withdrawn.map_err(region_error)
    }
}

/// Two worlds, of which the left one replicates to the right one.
struct Pair {
    left: World,
    right: World,
    target: ReplicaTarget,
    twin: Arc<Twin>,
}

impl Pair {
    async fn new() -> Self {
        let twin = Arc::new(Twin::default());
        let left = World::beside(twin.clone()).await;
        let right = World::new().await;
        let there = (right.service.clone(), right.caller().clone());
        assert!(twin.there.set(there).is_ok());
        let vault = right.replication_vault(right.caller()).await;
        let target = ReplicaTarget {
            here: "left".to_owned(),
            region: RIGHT.to_owned(),
            project: right.caller().project,
            vault: vault.vault.id,
            name: None,
            description: None,
            policy: None,
            auto_trigger: false,
            bandwidth: None,
        };
        Self {
            left,
            right,
            target,
            twin,
        }
    }

    async fn backup(&self) -> BackupId {
        let vault = match self
            .left
            .service
            .vaults(self.left.caller(), &Default::default(), &page())
            .await
        {
            Ok((found, _)) if !found.is_empty() => found.into_iter().next().unwrap(),
            _ => {
                let server = self.left.server().await;
                self.left.vault(ObjectType::Server, server).await
            }
        };
        let made = self.left.checkpoint(&vault).await;
        self.left.work().await;
        let query = BackupQuery {
            page: page(),
            ..BackupQuery::default()
        };
        let (views, _) = self
            .left
            .service
            .backups(self.left.caller(), &query)
            .await
            .unwrap();
        let of_this = views
            .iter()
            .find(|view| view.backup.checkpoint == made.checkpoint.id);
        of_this.unwrap().backup.id
    }

    /// Replicates a backup until nothing is left to do.
    async fn replicate(&self, backup: BackupId) -> ReplicationView {
        let (service, caller) = (&self.left.service, self.left.caller());
        let begun = service.replicate_backup(caller, backup, &self.target).await;
        begun.unwrap();
        self.settled(backup).await
    }

    /// Works on both sides until nothing is left to do; the newest replica of a backup.
    async fn settled(&self, backup: BackupId) -> ReplicationView {
        let (service, caller) = (&self.left.service, self.left.caller());
        let both = async {
            while self.left.tasks_left().await + self.right.tasks_left().await > 0 {
                self.work_once().await;
            }
        };
        let limit = std::time::Duration::from_secs(60);
        if tokio::time::timeout(limit, both).await.is_err() {
            panic!("it does not end: {:?}", self.states(backup).await);
        }
        let view = service.backup(caller, backup).await.unwrap();
        view.replications[0].clone()
    }

    /// What can be said of a replication that does not end.
    async fn states(&self, backup: BackupId) -> (u64, u64, Vec<ReplicationView>) {
        let view = self.left.service.backup(self.left.caller(), backup).await;
        let (left, right) = (self.left.tasks_left().await, self.right.tasks_left().await);
        (left, right, view.unwrap().replications)
    }

    /// Works on the right for as long as there is something to do on the left, and then
    /// lets a little time pass.
    async fn work_once(&self) {
        let left_waits = AtomicBool::new(false);
        let left = async {
            self.left.work_beside().await;
            left_waits.store(true, Ordering::Relaxed);
        };
        let right = async {
            while !left_waits.load(Ordering::Relaxed) {
                self.right.work_beside().await;
                tokio::task::yield_now().await;
            }
            self.right.work_beside().await;
        };
        tokio::join!(left, right);
        self.left.clock.advance(5);
        self.right.clock.advance(5);
    }

    /// The replicas that are available, which are all that the repository holds.
    async fn replicas(&self, context: &str) -> Vec<BackupId> {
        let (service, caller) = (&self.right.service, self.right.caller());
        let query = BackupQuery {
            page: page(),
            ..BackupQuery::default()
        };
        let (views, _) = service.backups(caller, &query).await.unwrap();
        let (mut available, mut all) = (Vec::new(), Vec::new());
        for view in views {
            assert!(
                !view.backup.status.is_busy(),
                "{context}: {:?}",
                view.backup
            );
            if view.backup.status == BackupStatus::Available {
                let view = service.backup(caller, view.backup.id).await.unwrap();
                available.push(view.backup.id);
                all.push(view.backup.id);
                all.extend(view.children.iter().map(|child| child.id));
            }
        }
        all.sort();
        let stored = self.right.stored(caller.project, context).await;
        assert_eq!(stored, all, "{context}: catalogue and repository differ");
        available
    }

    async fn assert_restores(&self, replica: BackupId, images: &[Vec<u8>], context: &str) {
        let (service, caller) = (&self.right.service, self.right.caller());
        let target = RestoreTarget {
            server: Some(self.right.server().await),
            ..RestoreTarget::default()
        };
        let log = service
            .restore_backup(caller, replica, &target)
            .await
            .unwrap();
        self.right.work().await;
        let shown = service.operation_log(caller, log).await.unwrap();
        assert_eq!(shown.log.status, OperationStatus::Success, "{context}");
        assert!(self.right.images()[1..] == images[1..], "{context}");
    }
}

fn page() -> Page {
    Page {
        limit: 1000,
        ..Page::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_there_or_not_whatever_happens_at_any_step() {
    let moments = [
        Moment::FailBefore,
        Moment::FailAfter,
        Moment::FailOnce,
        Moment::Repeat,
    ];
    for (kind, step) in [("send", 0), ("receive", 0), ("receive", 1), ("receive", 2)] {
        for moment in moments {
            let context = format!("{kind} {moment:?} at {step}");
            let pair = Pair::new().await;
            let backup = pair.backup().await;
            let images = pair.left.images();
            let sabotage = Sabotage { kind, step, moment };
            let world = if kind == "send" {
                &pair.left
            } else {
                &pair.right
            };
            world.plan(Some(sabotage));
            let record = pair.replicate(backup).await;
            let replicas = pair.replicas(&context).await;
            let failed = matches!(moment, Moment::FailBefore | Moment::FailAfter);
            // What is available stays, whatever the tasks say.
            let there = !failed || moment == Moment::FailAfter && (kind == "send" || step == 2);
            assert_eq!(replicas.len(), usize::from(there), "{context}: {record:?}");
            let left_failed = failed && (kind == "send" || !there);
            let expected = match left_failed {
                true => ReplicationStatus::Fail,
                false => ReplicationStatus::Success,
            };
            assert_eq!(record.status, expected, "{context}: {record:?}");
            assert_eq!(record.error.is_some(), left_failed, "{context}: {record:?}");
            if let Some(replica) = replicas.first() {
                pair.assert_restores(*replica, &images, &context).await;
            } else {
                let again = pair.replicate(backup).await;
                assert_eq!(again.status, ReplicationStatus::Success, "{context}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_replicates_to_another_region() {
    let pair = Pair::new().await;
    let backup = pair.backup().await;
    let (service, caller) = (&pair.left.service, pair.left.caller());
    let (vaults, _) = service
        .vaults(caller, &Default::default(), &page())
        .await
        .unwrap();
    let new = |there| NewPolicy {
        name: "copies".to_owned(),
        operation: PolicyOperation::Replication,
        enabled: true,
        definition: OperationDefinition {
            destination_region: Some(RIGHT.to_owned()),
            destination_project_id: there,
            bandwidth_mbit: Some(400),
            ..OperationDefinition::default()
        },
        schedule: NewSchedule {
            pattern: vec!["FREQ=DAILY;BYHOUR=23;BYMINUTE=00".to_owned()],
            ..NewSchedule::default()
        },
    };
    let nowhere = service.create_policy(caller, new(None)).await.unwrap();
    let policy = new(Some(pair.target.project));
    let policy = service.create_policy(caller, policy).await.unwrap();
    let (vault, there) = (vaults[0].vault.id, Some(pair.target.vault));
    let policies = [nowhere.policy.id];
    let refused = service
        .associate_policies(caller, vault, &policies, there)
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::ProjectNotReplicable))
    ));
    let unbound = nowhere.policy.id;
    service.delete_policy(caller, unbound).await.unwrap();
    let policies = [policy.policy.id];
    let bound = service
        .associate_policies(caller, vault, &policies, there)
        .await;
    assert_eq!(bound.unwrap()[0].destination, there);

    // The clock stands a little behind 22:13.
    pair.left.clock.advance(47 * 60);
    assert_eq!(service.run_due_policies().await.unwrap(), 1);
    let record = pair.settled(backup).await;
    assert_eq!(record.status, ReplicationStatus::Success, "{record:?}");
    assert!(record.record.auto_trigger);
    assert_eq!(pair.replicas("by a policy").await.len(), 1);
    // What is there is not copied again.
    pair.left.clock.advance(24 * 3600);
    assert_eq!(service.run_due_policies().await.unwrap(), 1);
    pair.settled(backup).await;
    assert_eq!(pair.replicas("again").await.len(), 1);
}

/// A policy of the left world that replicates every day, and that its vault follows.
async fn follow(pair: &Pair, definition: OperationDefinition, there: VaultId) {
    let (service, caller) = (&pair.left.service, pair.left.caller());
    let new = NewPolicy {
        name: "copies".to_owned(),
        operation: PolicyOperation::Replication,
        enabled: true,
        definition,
        schedule: NewSchedule {
            pattern: vec!["FREQ=DAILY;BYHOUR=23;BYMINUTE=00".to_owned()],
            ..NewSchedule::default()
        },
    };
    let policy = service.create_policy(caller, new).await.unwrap().policy.id;
    let listed = service.vaults(caller, &Default::default(), &page()).await;
    let (vaults, _) = listed.unwrap();
    let mut sources = vaults
        .iter()
        .filter(|view| view.vault.protect_type == "backup");
    let vault = sources.next().unwrap().vault.id;
    let policies = [policy];
    let bound = service.associate_policies(caller, vault, &policies, Some(there));
    bound.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_keeps_as_many_replicas_in_another_region_as_it_says() {
    let pair = Pair::new().await;
    let mut made = vec![pair.backup().await];
    let definition = OperationDefinition {
        destination_region: Some(RIGHT.to_owned()),
        destination_project_id: Some(pair.target.project),
        max_backups: Some(2),
        ..OperationDefinition::default()
    };
    follow(&pair, definition, pair.target.vault).await;
    pair.left.clock.advance(47 * 60);
    for day in 0..4 {
        let backup = pair.backup().await;
        made.push(backup);
        while pair.left.service.run_due_policies().await.unwrap() > 0 {}
        pair.settled(backup).await;
        while pair.right.service.remove_ended_backups().await.unwrap() > 0 {}
        pair.settled(backup).await;
        pair.left.clock.advance(24 * 3600);
        pair.right.clock.advance(24 * 3600);
        let kept = pair.replicas(&format!("day {day}")).await;
        assert_eq!(kept.len(), 2, "day {day}");
        let mut names = Vec::new();
        for id in kept {
            let (service, caller) = (&pair.right.service, pair.right.caller());
            names.push(service.backup(caller, id).await.unwrap().backup.name);
        }
        let (service, caller) = (&pair.left.service, pair.left.caller());
        for backup in made.iter().rev().take(2) {
            let name = service.backup(caller, *backup).await.unwrap().backup.name;
            assert!(names.contains(&name), "day {day}: the newest stay");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_policy_has_let_go_is_not_copied_again() {
    let pair = Pair::new().await;
    let (service, caller) = (&pair.left.service, pair.left.caller());
    for _ in 0..4 {
        pair.backup().await;
        pair.left.clock.advance(60);
    }
    let vault = pair.left.replication_vault(caller).await.vault.id;
    let definition = OperationDefinition {
        max_backups: Some(1),
        ..OperationDefinition::default()
    };
    follow(&pair, definition, vault).await;
    let replicas = async || {
        let query = BackupQuery {
            page: page(),
            ..BackupQuery::default()
        };
        let (views, _) = service.backups(caller, &query).await.unwrap();
        let mut replicas: Vec<_> = views.into_iter().map(|view| view.backup).collect();
        replicas.retain(|backup| backup.vault == vault && backup.parent.is_none());
        replicas
    };
    pair.left.clock.advance(3600);
    let mut kept = Vec::new();
    for run in 0..3 {
        while service.run_due_policies().await.unwrap() > 0 {}
        pair.left.work_beside().await;
        while service.remove_ended_backups().await.unwrap() > 0 {}
        pair.left.work_beside().await;
        let now = replicas().await;
        assert_eq!(now.len(), 1, "run {run}");
        kept.push(now[0].id);
        pair.left.clock.advance(24 * 3600);
    }
    assert!(kept.iter().all(|id| *id == kept[0]), "it stays: {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_was_away_hears_later_that_a_replica_will_not_come() {
    let pair = Pair::new().await;
    let backup = pair.backup().await;
    let (service, caller) = (&pair.left.service, pair.left.caller());
    let begun = service.replicate_backup(caller, backup, &pair.target).await;
    let replica = begun.unwrap().0.destination.backup;
    pair.twin.away.store(true, Ordering::Relaxed);
    let listed = service
        .operation_logs(caller, &Default::default(), &page())
        .await;
    let log = listed.unwrap().0.remove(0).log.id;
    service.cancel_operation(caller, log).await.unwrap();
    pair.left.work_beside().await;
    let view = service.backup(caller, backup).await.unwrap();
    assert_eq!(view.replications[0].status, ReplicationStatus::Fail);
    let state = async || {
        let (service, caller) = (&pair.right.service, pair.right.caller());
        service.replica_state(caller, replica).await
    };
    assert_eq!(state().await.unwrap().status, BackupStatus::WaitingProtect);
    pair.twin.away.store(false, Ordering::Relaxed);
    pair.settled(backup).await;
    // There is nothing left to say of it.
    assert!(matches!(
        state().await,
        Err(Error::Refused(Refusal::BackupNotFound))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_never_comes_is_waited_for_a_day() {
    let pair = Pair::new().await;
    let backup = pair.backup().await;
    let (service, caller) = (&pair.left.service, pair.left.caller());
    let begun = service.replicate_backup(caller, backup, &pair.target).await;
    let replica = begun.unwrap().0.destination.backup;
    let status = async || {
        let (service, caller) = (&pair.right.service, pair.right.caller());
        let shown = service.replica_state(caller, replica).await;
        shown.unwrap()
    };
    pair.right.clock.advance(24 * 3600 - 1);
    pair.right.work_beside().await;
    assert_eq!(status().await.status, BackupStatus::WaitingProtect);
    pair.right.clock.advance(2);
    pair.right.work_beside().await;
    let state = status().await;
    assert_eq!(state.status, BackupStatus::Error);
    assert!(state.error.unwrap().contains("24 hours"));
    // The source, come late, is told so.
    pair.left.work().await;
    let view = service.backup(caller, backup).await.unwrap();
    assert_eq!(view.replications[0].status, ReplicationStatus::Fail);
    let reason = view.replications[0].error.clone().unwrap();
    assert!(reason.contains("24 hours"), "{reason}");
}
