//! The moment of a server's backup: who is asked to bring to rest what runs in it, and
//! what came of that.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_link::Line;
use cairn_meta::{Agent, Backup};
use cairn_repo::Project as ProjectRepository;
use cairn_source::{Consistency, Freezer, Inventory, Level, NotFrozen, ServerReaders, Why};
use cairn_types::{Kind, Progress, ResourceId};
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use super::backup::BackUp;
use crate::{Error, OperationDetail, Refusal, Result};

/// The vault's word for that applications are brought to rest.
const APP_CONSISTENT: &str = "app_consistent";
/// How long it is waited for a connection of an agent: it makes one anew now and then.
const CONNECTED: Duration = Duration::from_secs(10);
/// For how long an agent keeps applications at rest when nobody tells it to have them go on: a
/// little longer than the source would hold them.
const HELD: Duration = Duration::from_secs(60);

impl BackUp<'_> {
    /// Opens disks of a server, all at one moment, and notes whether that is what the vault asks for.
    pub(super) async fn open_server(
        &self,
        repository: &ProjectRepository,
        backup: &Backup,
        volumes: Vec<ResourceId>,
        progress: &Arc<Progress>,
    ) -> Result<ServerReaders> {
        let server = backup.resource;
        let mut tx = self.worker.service.meta().read().await?;
        let vault = tx.vault(self.project, backup.vault).await?;
        let vault = vault.ok_or(Refusal::VaultNotFound)?;
        if vault.consistent_level != APP_CONSISTENT {
            return self.open(server, volumes, Level::Crash).await;
        }
        let agent = tx.agents_in(self.project, &[server]).await?.pop();
        drop(tx);
        let opened = match agent {
            None => self.open(server, volumes, Level::Application(None)).await?,
            Some(agent) => {
                self.open_by_agent(&agent, repository, (server, volumes), progress)
                    .await?
            }
        };
        self.record_consistency(backup, &opened.consistency).await?;
        Ok(opened)
    }

    /// Opens over a line to the agent in the server.
    async fn open_by_agent(
        &self,
        agent: &Agent,
        repository: &ProjectRepository,
        (server, volumes): (ResourceId, Vec<ResourceId>),
        progress: &Arc<Progress>,
    ) -> Result<ServerReaders> {
        let mut opened = Err(Error::GivenUp);
        let open = async |line: &Line| {
            let scripts = Scripts {
                line: line.clone(),
                handle: Handle::current(),
            };
            let level = Level::Application(Some(Box::new(scripts)));
            opened = self.open(server, volumes, level).await;
            Ok(())
        };
        let links = self.worker.service.agent_links();
        links
            .over_line(agent.id, repository, progress, open)
            .await?;
        opened
    }

    async fn open(
        &self,
        server: ResourceId,
        volumes: Vec<ResourceId>,
        level: Level,
    ) -> Result<ServerReaders> {
        let open = move |inventory: &Inventory| inventory.open_server(server, &volumes, level);
        self.worker.service.ask_inventory(open).await
    }

    /// Notes whether applications were brought to rest.
    async fn record_consistency(&self, backup: &Backup, found: &Consistency) -> Result<()> {
        let why_not = match found {
            // Nothing runs that could be brought to rest.
            Consistency::Application | Consistency::AtRest => String::new(),
            Consistency::Crash { why } => why
                .clone()
                .unwrap_or_else(|| "the guest was not frozen".to_owned()),
        };
        if !why_not.is_empty() {
            tracing::warn!(backup.id = %backup.id, why = why_not, "Applications were not brought to rest, or may still be: the backup is crash consistent.");
        }
        let service = &self.worker.service;
        let mut tx = service.meta().begin().await?;
        let change = |row: &mut Backup| row.app_consistency = Some(why_not.clone());
        self.change_row(&mut tx, backup, change).await?;
        OperationDetail::change(&mut tx, self.task, |detail| {
            if let OperationDetail::Backup {
                app_consistency, ..
            } = detail
            {
                *app_consistency = Some(why_not);
            }
        })
        .await?;
        Ok(tx.commit().await?)
    }
}

/// The freeze and unfreeze scripts of a guest, as its agent runs them.
struct Scripts {
    line: Line,
    handle: Handle,
}

impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripts")
    }
}

impl Scripts {
    /// Does something with the agent from a thread that may block.
    fn ask<T>(
        &self,
        until: Instant,
        asking: impl Future<Output = cairn_link::Result<T>>,
    ) -> cairn_link::Result<T> {
        let asked = self.handle.block_on(timeout_at(until.into(), asking));
        asked.unwrap_or_else(|_| {
            Err(cairn_link::Error::Elsewhere {
                kind: Kind::Transient,
                text: "its agent does not answer".to_owned(),
            })
        })
    }
}

impl Freezer for Scripts {
    fn freeze(&mut self, until: Instant) -> std::result::Result<u64, NotFrozen> {
        let soon = until.min(Instant::now() + CONNECTED);
        if self.ask(soon, self.line.connected()).is_err() {
            return Err(NotFrozen::Surely("its agent is not connected".to_owned()));
        }
        // One that says no has had them go on, and so has one whose connection has ended.
        let asked = self.ask(until, self.line.freeze(HELD));
        asked.map_err(|error| match error {
            cairn_link::Error::Elsewhere {
                kind: Kind::Transient,
                text,
            } => NotFrozen::Perhaps(text),
            error => NotFrozen::Surely(said(error)),
        })
    }

    fn thaw(&mut self, until: Instant) -> std::result::Result<u64, Why> {
        self.ask(until, self.line.thaw()).map_err(said)
    }
}

/// What the agent says, or what has become of it.
fn said(error: cairn_link::Error) -> Why {
    match error {
        cairn_link::Error::Elsewhere { text, .. } => text,
        error => error.to_string(),
    }
}
