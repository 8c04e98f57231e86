//! The service object and what it is made of.

use std::sync::Arc;

use cairn_meta::tasks::{Task as TaskRow, TaskState};
use cairn_meta::{Meta, Tx};
use cairn_repo::{Repository, RootKey};
use cairn_source::Inventory;
use cairn_types::{AgentId, BackupId, Clock, OperationLogId, ProjectId, Timestamp};
use tokio::sync::{Notify, Semaphore};

use crate::agent_line::Instances;
use crate::download::Downloads;
use crate::export::{ExportSettings, Exports};
use crate::links::{Another, Links};
use crate::operation_log::NewOperation;
use crate::region::{Regions, ReplicationRules};
use crate::work::Task;
use crate::{Caller, Error, External, Result, VerificationSchedule};

/// How much there may be of what. Source of the defaults: the constraints of
/// CBR in the Open Telekom Cloud documentation; of organization policies, the vendor's user guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Vaults of a project; without a number, as many as there is room for.
    pub vaults: Option<u64>,
    /// Policies of each type of a project.
    pub policies_per_type: u64,
    /// Policies of each type that a project makes for its organization.
    pub organization_policies_per_type: u64,
    /// Resources of a vault.
    pub resources_per_vault: usize,
    /// Tags of a vault.
    pub tags_per_vault: usize,
    /// Projects that a backup is shared with.
    pub members_per_backup: usize,
    /// Paths that an agent backs up.
    pub paths_per_agent: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            vaults: None,
            policies_per_type: 32,
            organization_policies_per_type: 64,
            resources_per_vault: 256,
            tags_per_vault: 20,
            members_per_backup: 10,
            paths_per_agent: 8,
        }
    }
}

/// What the service works with; made once, in `cairn`.
pub struct Parts {
    /// The catalogue.
    pub meta: Meta,
    /// The data plane.
    pub repository: Repository,
    /// What can be protected.
    pub inventory: Arc<Inventory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Tells the task engine that there is work.
    pub wake: Arc<Notify>,
    /// How much there may be of what.
    pub quotas: Quotas,
    /// How often backups are looked at.
    pub verification: VerificationSchedule,
    /// Whether every disk that was restored is read back and compared.
    pub compare_restored: bool,
    /// The region that this server is.
    pub region: String,
    /// The other regions.
    pub regions: Arc<dyn Regions>,
    /// What is replicated beyond what CBR replicates.
    pub replication: ReplicationRules,
    /// The repositories of other sites.
    pub externals: Vec<External>,
    /// How backups are exported.
    pub exports: ExportSettings,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    parts: Arc<Parts>,
    /// Turns to hash a password.
    hashing: Arc<Semaphore>,
    /// Connections of other regions.
    links: Arc<Links<BackupId>>,
    /// Connections of agents.
    agent_links: Arc<Links<AgentId>>,
    /// Which agents these are.
    agent_instances: Arc<Instances>,
    /// When the service was made.
    started_at: Timestamp,
    /// Tells the sender of notifications that there may be one.
    outbox: Arc<Notify>,
    /// Disks of backups that are being served.
    exports: Arc<Exports>,
    /// What is known of downloads.
    downloads: Arc<Downloads>,
}

/// Passwords that are hashed at the same time. One takes 19 MiB and some tens
/// of milliseconds by design, so that many sign-ins at once must wait.
const HASHES: usize = 2;

/// Connections for replicas that nobody has taken yet, at most.
const REPLICAS_PARKED_MAX: usize = 64;
/// Agents that are connected and have nothing to do, at most.
const AGENTS_PARKED_MAX: usize = 4096;

/// How something ended that was over when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Skipped { why: String },
    Failed { why: String },
}

/// The kind of a task that was over when it was added.
const RECORD: &str = "record";

impl Service {
    /// The service over these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            started_at: parts.clock.now(),
            parts: Arc::new(parts),
            hashing: Arc::new(Semaphore::new(HASHES)),
            links: Arc::new(Links::new(REPLICAS_PARKED_MAX, Another::TakesItsPlace)),
            agent_links: Arc::new(Links::new(AGENTS_PARKED_MAX, Another::IsForOthers)),
            agent_instances: Arc::default(),
            outbox: Arc::default(),
            exports: Arc::default(),
            downloads: Arc::default(),
        }
    }

    /// Whether the service can serve: the catalogue answers.
    pub async fn ready(&self) -> Result<()> {
        Ok(self.parts.meta.ping().await?)
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.parts.meta
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.parts.repository
    }

    /// Seals the secrets of access keys.
    pub(crate) fn root_key(&self) -> &RootKey {
        self.parts.repository.root_key()
    }

    pub(crate) fn quotas(&self) -> &Quotas {
        &self.parts.quotas
    }

    pub(crate) fn region(&self) -> &str {
        &self.parts.region
    }

    pub(crate) fn externals(&self) -> &[External] {
        &self.parts.externals
    }

    pub(crate) fn compares_restored(&self) -> bool {
        self.parts.compare_restored
    }

    pub(crate) fn verification_schedule(&self) -> VerificationSchedule {
        self.parts.verification
    }

    /// The other regions.
    pub(crate) fn regions(&self) -> &Arc<dyn Regions> {
        &self.parts.regions
    }

    pub(crate) fn replication_rules(&self) -> ReplicationRules {
        self.parts.replication
    }

    pub(crate) fn links(&self) -> &Links<BackupId> {
        &self.links
    }

    pub(crate) fn agent_links(&self) -> &Links<AgentId> {
        &self.agent_links
    }

    pub(crate) fn agent_instances(&self) -> &Instances {
        &self.agent_instances
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.exports
    }

    pub(crate) fn downloads(&self) -> &Downloads {
        &self.downloads
    }

    pub(crate) fn export_settings(&self) -> &ExportSettings {
        &self.parts.exports
    }

    /// For how many seconds there has been this service.
    pub(crate) fn uptime_seconds(&self) -> i64 {
        self.now().seconds_since(self.started_at)
    }

    pub(crate) fn now(&self) -> cairn_types::Timestamp {
        self.parts.clock.now()
    }

    /// Hashes or checks a password: in turn, and off the async threads, because
    /// it is slow by design.
    pub(crate) async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.hashing.acquire().await.expect("nobody closes it");
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Error::Panicked {
            what: "password hashing",
        })?
    }

    /// Asks the inventory something. It reads directories, so it does so off the async threads.
    pub(crate) async fn ask_inventory<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Inventory) -> cairn_source::Result<T> + Send + 'static,
    ) -> Result<T> {
        let inventory = Arc::clone(&self.parts.inventory);
        let answer = tokio::task::spawn_blocking(move || ask(&inventory)).await;
        Ok(answer.map_err(|_| Error::Panicked {
            what: "the inventory",
        })??)
    }

    /// Adds a task and its public record to the transaction that makes them necessary.
    pub(crate) async fn enqueue(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        task: &Task,
        operation: NewOperation<'_>,
    ) -> Result<()> {
        let (kind, payload) = (task.kind(), task.payload());
        let row = TaskRow::new(operation.id, kind, payload, &caller.request_id, self.now());
        tx.insert_task(&row).await?;
        self.log_operation(tx, caller, operation).await
    }

    /// Adds the public record of something that the transaction does itself, or
    /// that is not done at all: that of a task which is over.
    pub(crate) async fn record(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        operation: NewOperation<'_>,
        outcome: Outcome,
    ) -> Result<()> {
        let (kind, payload, now) = (RECORD, "{}".to_owned(), self.now());
        let (state, error_text) = match outcome {
            Outcome::Done => (TaskState::Succeeded, String::new()),
            Outcome::Skipped { why } => (TaskState::Skipped, why),
            Outcome::Failed { why } => (TaskState::Failed, why),
        };
        let row = TaskRow {
            state,
            error_text,
            started_at: Some(now),
            ended_at: Some(now),
            ..TaskRow::new(operation.id, kind, payload, &caller.request_id, now)
        };
        tx.insert_task(&row).await?;
        self.log_operation(tx, caller, operation).await
    }

    /// Adds the collection of what a project no longer needs, to begin after
    /// some seconds, unless one is waiting already.
    pub(crate) async fn enqueue_collection(
        &self,
        tx: &mut Tx,
        project: ProjectId,
        after_seconds: i64,
    ) -> Result<()> {
        self.enqueue_silently(tx, &Task::Collect { project }, after_seconds)
            .await
    }

    /// Adds the making of parity for what a project has stored, unless one is waiting already.
    pub(crate) async fn enqueue_protection(&self, tx: &mut Tx, project: ProjectId) -> Result<()> {
        self.enqueue_silently(tx, &Task::Protect { project }, 0)
            .await
    }

    /// Adds the repair of a project's part of the repository, to begin after
    /// some seconds, unless one is waiting already.
    pub(crate) async fn enqueue_repair(
        &self,
        tx: &mut Tx,
        project: ProjectId,
        after_seconds: i64,
    ) -> Result<()> {
        self.enqueue_silently(tx, &Task::Repair { project }, after_seconds)
            .await
    }

    /// Adds a task that leaves no public record, unless the same is waiting already.
    pub(crate) async fn enqueue_silently(
        &self,
        tx: &mut Tx,
        task: &Task,
        after_seconds: i64,
    ) -> Result<()> {
        let (id, now) = (OperationLogId::random(), self.now());
        let mut row = TaskRow::new(id, task.kind(), task.payload(), "", now);
        row.not_before = now.plus_seconds(after_seconds);
        Ok(tx.insert_task_once(&row).await?)
    }

    pub(crate) const fn outbox(&self) -> &Arc<Notify> {
        &self.outbox
    }

    /// Tells the sender that there may be a notification.
    pub(crate) fn wake_sender(&self) {
        self.outbox.notify_one();
    }

    /// Tells the engine, after the commit, that there may be work.
    pub(crate) fn wake_engine(&self) {
        self.parts.wake.notify_one();
    }
}
