//! The destination's part of a replication from another region: a backup whose disks are
//! at the other end of a line. It begins when the source has connected, goes on
//! over as many connections as it takes, and is put aside while there is none.

use std::sync::Arc;

use cairn_link::Line;
use cairn_meta::ReplicationView;
use cairn_task::Failure;
use cairn_types::{BackupId, BackupStatus, OperationLogId, Progress, ProjectId};

use super::Worker;
use super::backup::{BackUp, ReadFrom};
use crate::{Error, Refusal, Result, Service};

/// Behind a start of the server, sources have so long to come back.
const START_SECONDS: i64 = 600;

pub(super) struct Receive<'a> {
    pub(super) worker: &'a Worker,
    pub(super) task: OperationLogId,
    pub(super) project: ProjectId,
    pub(super) backup: BackupId,
}

impl<'a> Receive<'a> {
    pub(super) async fn run(&self, step: usize, progress: &Arc<Progress>) -> Result<()> {
        match step {
            0 => {
                self.must_be_connected().await?;
                self.work(None).run(0, progress).await
            }
            1 => {
                self.must_be_connected().await?;
                self.receive(progress).await
            }
            step => {
                let done = self.work(None).run(step, progress).await;
                // The source asks again, and is told that all is there.
                self.service().links().forget(self.backup);
                done
            }
        }
    }

    /// As that of any backup; of what its source has given up nothing is left.
    pub(super) async fn undo(&self, step: usize, why: &Failure) -> Result<()> {
        self.work(None).undo(step, why).await?;
        if step > 0 {
            return Ok(());
        }
        self.service().links().forget(self.backup);
        let mut tx = self.service().meta().begin().await?;
        let known = tx.replication_into(self.project, self.backup).await?;
        let backup = tx.lock_backup(self.project, self.backup).await?;
        let withdrawn = known.is_some_and(|known| known.withdrawn);
        if let Some(backup) = backup.filter(|backup| backup.status == BackupStatus::Error)
            && withdrawn
        {
            tx.remove_backup(&backup).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    fn work(&self, line: Option<Line>) -> BackUp<'a> {
        let of = (self.project, self.backup);
        BackUp::new(self.worker, self.task, of, ReadFrom::Region(line))
    }

    /// Whether there is a connection, or reason to wait for one.
    async fn must_be_connected(&self) -> Result<()> {
        let known = self.known().await?;
        if known.withdrawn {
            return Err(Error::GivenUp);
        }
        if self.service().links().has(self.backup) {
            return Ok(());
        }
        let patience = self.service().replication_rules().patience_seconds;
        let heard_at = known.heard_at.unwrap_or(known.record.created_at);
        let silent = self.service().now().seconds_since(heard_at);
        if silent < patience {
            let seconds = patience - silent;
            return Err(Error::Later { seconds });
        }
        if self.service().uptime_seconds() < START_SECONDS {
            let seconds = START_SECONDS;
            return Err(Error::Later { seconds });
        }
        let hours = silent / 3600;
        Err(Error::Silence { hours })
    }

    async fn known(&self) -> Result<ReplicationView> {
        let mut tx = self.service().meta().read().await?;
        let known = tx.replication_into(self.project, self.backup).await?;
        Ok(known.ok_or(Refusal::BackupNotFound)?)
    }

    async fn receive(&self, progress: &Arc<Progress>) -> Result<()> {
        let repository = self.service().repository().project(self.project).await?;
        let links = self.service().links();
        let done = links.over_line(self.backup, &repository, progress, async |line| {
            self.work(Some(line.clone())).run(1, progress).await
        });
        match done.await? {
            true => Ok(()),
            false => self.put_aside().await,
        }
    }

    /// Waits without a place for the next connection.
    async fn put_aside(&self) -> Result<()> {
        let known = self.known().await?;
        let mut tx = self.service().meta().begin().await?;
        tx.set_heard(known.record.id, self.service().now()).await?;
        tx.commit().await?;
        let seconds = match self.service().links().has(self.backup) {
            true => 0,
            false => self.service().replication_rules().patience_seconds,
        };
        Err(Error::Later { seconds })
    }

    fn service(&self) -> &Service {
        &self.worker.service
    }
}
