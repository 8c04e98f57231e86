//! Work on a host: its files are at the other end of a line to its agent. It begins when the
//! agent is connected, goes on over as many connections as it takes, and is put
//! aside while there is none.

use std::sync::Arc;

use cairn_link::{Line, SelectedPath, Selection};
use cairn_meta::AgentPath;
use cairn_types::{AgentId, BackupId, OperationLogId, Progress, ProjectId, Timestamp};

use super::Worker;
use super::backup::{BackUp, ReadFrom, WRITING};
use crate::{Error, Refusal, Result};

/// How often it is looked whether the agent is connected.
const LOOK_SECONDS: i64 = 5;
/// After so long without a word from the agent, the work fails.
const PATIENCE_SECONDS: i64 = 60 * 60;

pub(super) struct Host<'a> {
    pub(super) worker: &'a Worker,
    pub(super) project: ProjectId,
    pub(super) agent: AgentId,
    /// When the work was asked for.
    pub(super) asked_at: Timestamp,
}

impl Host<'_> {
    /// Does work over a line to the agent, to which every connection that comes is handed.
    pub(super) async fn over_line(
        &self,
        progress: &Arc<Progress>,
        work: impl AsyncFnOnce(&Line) -> Result<()>,
    ) -> Result<()> {
        self.must_be_connected().await?;
        let service = &self.worker.service;
        let repository = service.repository().project(self.project).await?;
        let links = service.agent_links();
        match links
            .over_line(self.agent, &repository, progress, work)
            .await?
        {
            true => Ok(()),
            false => Err(self.later().await?),
        }
    }

    /// Makes the backup of the host.
    pub(super) async fn back_up(
        &self,
        task: OperationLogId,
        of: (ProjectId, BackupId),
        reread_all: bool,
        step: usize,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let work = |files| {
            let from = ReadFrom::Host { files, reread_all };
            BackUp::new(self.worker, task, of, from)
        };
        if step != WRITING {
            return work(None).run(step, progress).await;
        }
        let (project, agent) = (self.project, self.agent);
        let mut tx = self.worker.service.meta().read().await?;
        let paths = tx.paths_of_agents(project, &[agent]).await?;
        drop(tx);
        if paths.is_empty() {
            return Err(Refusal::NoAgentPath { id: agent }.into());
        }
        self.over_line(progress, async |line| {
            let host_time = line.host_time().await?;
            let files = line.open_tree(selection(paths));
            work(Some((files, host_time))).run(step, progress).await
        })
        .await
    }

    async fn must_be_connected(&self) -> Result<()> {
        match self.worker.service.agent_links().has(self.agent) {
            true => Ok(()),
            false => Err(self.later().await?),
        }
    }

    /// When to look again, unless the agent was silent for too long.
    async fn later(&self) -> Result<Error> {
        let service = &self.worker.service;
        let mut tx = service.meta().read().await?;
        let agent = tx.agent(self.project, self.agent).await?;
        let agent = agent.ok_or(Refusal::AgentNotFound { id: self.agent })?;
        let heard_at = agent.last_active_at.max(self.asked_at);
        let silent = service.now().seconds_since(heard_at);
        Ok(match silent < PATIENCE_SECONDS {
            true => Error::Later {
                seconds: LOOK_SECONDS,
            },
            false => Error::AgentSilent {
                host: agent.host_name,
                minutes: silent / 60,
            },
        })
    }
}

/// What an agent is asked for.
fn selection(paths: Vec<AgentPath>) -> Selection {
    let selected = |added: AgentPath| SelectedPath {
        path: added.path,
        exclude: added.excluded,
    };
    Selection {
        paths: paths.into_iter().map(selected).collect(),
    }
}
