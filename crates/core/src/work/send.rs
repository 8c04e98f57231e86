//! The source's part of a replication to another region: it connects, and answers until
//! the replica is there. How a connection ends says nothing; whether there is a
//! replica its region says when it is asked.

use std::sync::Arc;
use std::time::Duration;

use cairn_link::{Answered, Disks, Limit, answer};
use cairn_types::disk::{BlockId, DiskError, DiskReader};
use cairn_types::{BackupId, BackupStatus, Kind, Progress, ProjectId, ResourceId, Timestamp};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::{SendTask, Task, Worker};
use crate::{Error, Refusal, RegionError, Result, Service};

pub(super) const STEPS: &[&str] = &["send"];

/// The pause before a further try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How long it is tried again and again; then others have this place for a while.
const TRYING: Duration = Duration::from_secs(60);
/// The shortest and the longest time between two such rounds, in seconds.
const ROUNDS_SECONDS: (i64, i64) = (5, 300);

/// How long a region may take to hear that a replica will not come: whoever has cancelled waits.
const WITHDRAWING: Duration = Duration::from_millis(1500);

pub(super) struct Send<'a> {
    pub(super) worker: &'a Worker,
    pub(super) task: &'a SendTask,
}

/// What a try has come to.
enum Tried {
    /// The replica is there.
    Done,
    /// The other region was heard of.
    Heard,
    /// It was not.
    Nothing,
}

impl Send<'_> {
    pub(super) async fn run(&self, progress: &Arc<Progress>) -> Result<()> {
        let mut limits = self.service().regions().limits(&self.task.region);
        limits.extend(self.task.bandwidth.map(|rate| Arc::new(Limit::new(rate))));
        let mut pause = FIRST_PAUSE;
        let mut unheard_since = Instant::now();
        loop {
            match self.try_once(&limits, progress).await? {
                Tried::Done => return Ok(()),
                Tried::Heard => {
                    self.note_heard().await?;
                    (pause, unheard_since) = (FIRST_PAUSE, Instant::now());
                }
                Tried::Nothing if unheard_since.elapsed() > TRYING => {
                    return Err(self.later().await?);
                }
                Tried::Nothing => {}
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = progress.cancelled() => return Err(Error::Cancelled),
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn try_once(&self, limits: &[Arc<Limit>], progress: &Arc<Progress>) -> Result<Tried> {
        let (regions, there) = (self.service().regions(), self.task.destination);
        let trying = async {
            let state = match regions
                .replica(&self.task.region, there, self.task.replica)
                .await
            {
                Ok(state) => state,
                Err(error) => return self.unless_for_good(error),
            };
            match state.status {
                BackupStatus::WaitingProtect | BackupStatus::Protecting => {}
                BackupStatus::Error => {
                    let reason = state.error.unwrap_or_default();
                    return Err(Error::ReplicaFailed { reason });
                }
                _ => return Ok(Tried::Done),
            }
            let connected = regions
                .connect(&self.task.region, there, self.task.replica)
                .await;
            let connection = match connected {
                Ok(connection) => connection,
                // It may have come to its end since: its state will say so.
                Err(error) if error.kind == Kind::Conflict => return Ok(Tried::Nothing),
                Err(error) => return self.unless_for_good(error),
            };
            let Answered { proven, ended } =
                answer(connection, self.disks(), limits, progress).await;
            tracing::info!(
                backup.id = %self.task.backup, region = &self.task.region, proven, ?ended,
                "a connection to another region has ended"
            );
            match ended {
                Err(error) if error.kind() != Kind::Transient => Err(error.into()),
                _ if proven => Ok(Tried::Heard),
                _ => Ok(Tried::Nothing),
            }
        };
        tokio::select! {
            tried = trying => tried,
            () = progress.cancelled() => Err(Error::Cancelled),
        }
    }

    fn unless_for_good(&self, error: RegionError) -> Result<Tried> {
        tracing::info!(%error, region = &self.task.region, "a region cannot be asked for a replica");
        match error.kind {
            Kind::Transient => Ok(Tried::Nothing),
            _ => Err(error.into()),
        }
    }

    /// When the next round is, unless there have been enough.
    async fn later(&self) -> Result<Error> {
        let service = self.service();
        let mut tx = service.meta().read().await?;
        let known = tx
            .replications_of(self.task.project, &[self.task.backup])
            .await?;
        let mut known = known.into_iter();
        let this = known.find(|view| view.record.id == self.task.replication);
        let this = this.ok_or(Refusal::BackupNotFound)?;
        let heard_at = this.heard_at.unwrap_or(this.record.created_at);
        let silent = service.now().seconds_since(heard_at);
        if silent >= service.replication_rules().patience_seconds {
            return Ok(Error::Silence {
                hours: silent / 3600,
            });
        }
        let (shortest, longest) = ROUNDS_SECONDS;
        Ok(Error::Later {
            seconds: (silent / 4).clamp(shortest, longest),
        })
    }

    async fn note_heard(&self) -> Result<()> {
        let mut tx = self.service().meta().begin().await?;
        tx.set_heard(self.task.replication, self.service().now())
            .await?;
        Ok(tx.commit().await?)
    }

    /// The region need not wait any more.
    pub(super) async fn undo(&self) -> Result<()> {
        let there = (
            self.task.region.as_str(),
            self.task.destination,
            self.task.replica,
        );
        self.service().withdraw_from(there).await
    }

    fn disks(&self) -> Arc<dyn Disks> {
        Arc::new(StoredDisks {
            service: self.service().clone(),
            handle: Handle::current(),
            project: self.task.project,
            backup: self.task.backup,
        })
    }

    fn service(&self) -> &Service {
        &self.worker.service
    }
}

/// A replica that a region waits for.
type Awaited<'a> = (&'a str, ProjectId, BackupId);

impl Service {
    /// Tells a region that a replica will not come. If it cannot be told now, a task of its
    /// own goes on trying.
    pub(crate) async fn withdraw_from(&self, there: Awaited<'_>) -> Result<()> {
        let Err(problem) = self.try_to_withdraw(there).await else {
            return Ok(());
        };
        let (region, destination, replica) = there;
        tracing::warn!(
            problem,
            region,
            "A region could not be told yet that a replica will not come."
        );
        let task = Task::Withdraw {
            region: region.to_owned(),
            destination,
            replica,
        };
        let mut tx = self.meta().begin().await?;
        let (shortest, _) = ROUNDS_SECONDS;
        self.enqueue_silently(&mut tx, &task, shortest).await?;
        Ok(tx.commit().await?)
    }

    /// As [`withdraw_from`](Self::withdraw_from), by that task: until the region answers, or would
    /// have found out by the silence.
    pub(super) async fn withdraw_later(&self, since: Timestamp, there: Awaited<'_>) -> Result<()> {
        let Err(problem) = self.try_to_withdraw(there).await else {
            return Ok(());
        };
        let waited = self.now().seconds_since(since);
        if waited >= self.replication_rules().patience_seconds {
            tracing::warn!(
                problem,
                region = there.0,
                "A region was never told that a replica will not come."
            );
            return Ok(());
        }
        let (shortest, longest) = ROUNDS_SECONDS;
        Err(Error::Later {
            seconds: (waited / 4).clamp(shortest, longest),
        })
    }

    /// The problem, if it is to be tried again.
    async fn try_to_withdraw(
        &self,
        (region, destination, replica): Awaited<'_>,
    ) -> std::result::Result<(), String> {
        let withdrawing = self.regions().withdraw(region, destination, replica);
        match timeout(WITHDRAWING, withdrawing).await {
            Ok(Err(error)) if error.kind == Kind::Transient => Err(error.to_string()),
            Ok(Err(error)) if error.kind != Kind::NotFound => {
                tracing::warn!(%error, region, "A region does not take a replica back.");
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }
}

/// The disks of the backup that is replicated.
struct StoredDisks {
    service: Service,
    handle: Handle,
    project: ProjectId,
    backup: BackupId,
}

impl Disks for StoredDisks {
    fn open(&self, disk: ResourceId) -> std::result::Result<Arc<dyn DiskReader>, (Kind, String)> {
        let opening = self.service.open_stored(self.project, self.backup, disk);
        let opened = self.handle.block_on(opening);
        opened.map_err(|error| (error.kind(), error.to_string()))
    }

    fn block_id(&self, key: &[u8; 32], plain: &[u8]) -> BlockId {
        cairn_repo::block_id(key, plain).0
    }

    fn kind_of(&self, error: DiskError) -> Kind {
        cairn_repo::Error::from(error).kind()
    }
}

impl Service {
    /// Opens what a backup, or the disk of it, has saved of a disk.
    pub(super) async fn open_stored(
        &self,
        project: ProjectId,
        backup: BackupId,
        disk: ResourceId,
    ) -> Result<Arc<dyn DiskReader>> {
        let mut tx = self.meta().read().await?;
        let source = tx.backup(project, backup).await?;
        let children = tx.children_of(&[backup]).await?;
        drop(tx);
        let mut disks = source.into_iter().chain(children);
        let found = disks.find(|found| found.resource == disk);
        let found = found.ok_or(Refusal::BackupNotFound)?;
        let repository = self.repository().existing_project(project).await?;
        Ok(repository.open_disk(found.id).await?)
    }
}
