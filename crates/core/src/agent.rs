//! Agents: programs on hosts that back files up, the paths that they are asked
//! to back up, and what is known of a server's agent for consistent backups.

use cairn_meta::{Agent, AgentFilter, AgentPath, Page, Tx};
use cairn_types::{AgentId, ProjectId, ResourceId};

use crate::agent_line::resource_of;
use crate::{Caller, Refusal, Result, Service};

/// The status of an agent that is heard of.
pub const NORMAL: &str = "normal";
pub(crate) const ABNORMAL: &str = "abnormal";
pub(crate) const UNINSTALLED: &str = "uninstall";

/// An agent with its paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// The agent.
    pub agent: Agent,
    /// What it backs up.
    pub paths: Vec<AgentPath>,
}

/// What an agent says of itself and its host.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// The id that it made for itself.
    pub id: AgentId,
    /// Its host's name.
    pub host_name: String,
    /// Its host's address.
    pub host_ip: String,
    /// Its host's system.
    pub host_os: String,
    /// What people call its host.
    pub host_nickname: String,
    /// `native` or `cloud`.
    pub agent_type: Option<String>,
    /// Its version.
    pub agent_version: Option<String>,
}

/// A path to be backed up, and what below it is left out.
#[derive(Debug, Clone)]
pub struct PathToAdd {
    /// The path.
    pub path: String,
    /// What is left out.
    pub excluded: Vec<String>,
}

/// Which of the paths in a request were new (or there), and which were not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathsChanged {
    /// Those that the request changed.
    pub changed: Vec<String>,
    /// Those that were as the request wants them.
    pub unchanged: Vec<String>,
}

impl Service {
    /// Takes an agent in. One that registers again is the same agent with the
    /// same paths: it says what is true of its host now.
    ///
    /// CBR: `RegisterAgent`, `POST /v3/{project_id}/agents`.
    pub async fn register_agent(&self, caller: &Caller, new: NewAgent) -> Result<AgentView> {
        let mut tx = self.meta().begin().await?;
        let agent = self.written_agent(&mut tx, caller.project, new).await?;
        let view = view(&mut tx, agent).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Writes what an agent says of itself. What it proves by who it is stays.
    pub(crate) async fn written_agent(
        &self,
        tx: &mut Tx,
        project: ProjectId,
        new: NewAgent,
    ) -> Result<Agent> {
        let now = self.now();
        let known = tx.lock_agent(project, new.id).await?;
        let agent = Agent {
            id: new.id,
            project,
            status: NORMAL.to_owned(),
            host_name: new.host_name,
            host_ip: new.host_ip,
            host_os: new.host_os,
            host_nickname: new.host_nickname,
            agent_type: new.agent_type,
            agent_version: new.agent_version,
            last_active_at: now,
            created_at: known.as_ref().map_or(now, |known| known.created_at),
            updated_at: now,
            sealed_secret: known.as_ref().and_then(|known| known.sealed_secret.clone()),
            server: known.as_ref().and_then(|known| known.server),
        };
        match known {
            Some(_) => tx.update_agent(&agent).await?,
            None => tx.insert_agent(&agent).await?,
        }
        Ok(agent)
    }

    /// A page of the project's agents, newest first, and how many match in all.
    ///
    /// CBR: `ListAgent`, `GET /v3/{project_id}/agents`.
    pub async fn agents(
        &self,
        caller: &Caller,
        filter: &AgentFilter,
        page: &Page,
    ) -> Result<(Vec<AgentView>, u64)> {
        let mut tx = self.meta().read().await?;
        let (agents, count) = tx.agents(caller.project, filter, page).await?;
        let ids: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
        let all = tx.paths_of_agents(caller.project, &ids).await?;
        let views = agents.into_iter().map(|agent| AgentView {
            paths: all
                .iter()
                .filter(|path| path.agent == agent.id)
                .cloned()
                .collect(),
            agent,
        });
        Ok((views.collect(), count))
    }

    /// One of the project's agents.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowAgent`, `GET /v3/{project_id}/agents/{agent_id}`.
    pub async fn agent(&self, caller: &Caller, id: AgentId) -> Result<AgentView> {
        let mut tx = self.meta().read().await?;
        let agent = tx.agent(caller.project, id).await?;
        view(&mut tx, agent.ok_or(Refusal::AgentNotFound { id })?).await
    }

    /// Notes that an agent was taken off its host. Its backups stay.
    ///
    /// Errors: `NotFound`.
    /// CBR: `UpdateAgent`, `PUT /v3/{project_id}/agents/{agent_id}`.
    pub async fn uninstall_agent(&self, caller: &Caller, id: AgentId) -> Result<AgentView> {
        let mut tx = self.meta().begin().await?;
        let mut agent = tx
            .lock_agent(caller.project, id)
            .await?
            .ok_or(Refusal::AgentNotFound { id })?;
        agent.status = UNINSTALLED.to_owned();
        agent.updated_at = self.now();
        tx.update_agent(&agent).await?;
        let view = view(&mut tx, agent).await?;
        tx.commit().await?;
        Ok(view)
    }

    /// Forgets an agent, its paths and what it proves by who it is. If its host is in a vault, it
    /// is taken out with its backups, as any resource is.
    ///
    /// Errors: `NotFound`; `Conflict` while one of its backups is at work.
    /// CBR: `UnregisterAgent`, `DELETE /v3/{project_id}/agents/{agent_id}`.
    pub async fn unregister_agent(&self, caller: &Caller, id: AgentId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        tx.lock_agent(caller.project, id)
            .await?
            .ok_or(Refusal::AgentNotFound { id })?;
        let host = resource_of(id);
        if let Some(binding) = tx.binding(host).await?
            && tx.vault(caller.project, binding.vault).await?.is_some()
        {
            self.plan_removal(&mut tx, caller, binding.vault, &[host])
                .await?;
        }
        tx.remove_agent(caller.project, id).await?;
        tx.commit().await?;
        self.agent_links().forget(id);
        self.agent_instances().forget(id);
        self.wake_engine();
        Ok(())
    }

    /// Adds paths to what an agent backs up; those that are there stay as they are.
    ///
    /// Errors: `NotFound`; `Exhausted` more paths than an agent may have: none is added.
    /// CBR: `AddAgentPath`, `POST /v3/{project_id}/agents/{agent_id}/add-path`.
    pub async fn add_agent_paths(
        &self,
        caller: &Caller,
        id: AgentId,
        paths: Vec<PathToAdd>,
    ) -> Result<PathsChanged> {
        let mut tx = self.meta().begin().await?;
        let agent = tx
            .lock_agent(caller.project, id)
            .await?
            .ok_or(Refusal::AgentNotFound { id })?;
        let mut known = tx.paths_of_agents(caller.project, &[id]).await?;
        let mut answer = PathsChanged::default();
        for PathToAdd { path, excluded } in paths {
            if known.iter().any(|known| known.path == path) {
                answer.unchanged.push(path);
                continue;
            }
            if known.len() >= self.quotas().paths_per_agent {
                return Err(Refusal::TooManyAgentPaths { id }.into());
            }
            let new = AgentPath {
                id: uuid::Uuid::new_v4().to_string(),
                agent: id,
                path: path.clone(),
                excluded,
                position: known.last().map_or(0, |last| last.position + 1),
            };
            tx.insert_agent_path(caller.project, &new).await?;
            known.push(new);
            answer.changed.push(path);
        }
        self.touch(&mut tx, agent, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    }

    /// Removes paths from what an agent backs up.
    ///
    /// Errors: `NotFound`.
    /// CBR: `RemoveAgentPath`, `POST /v3/{project_id}/agents/{agent_id}/remove-path`.
    pub async fn remove_agent_paths(
        &self,
        caller: &Caller,
        id: AgentId,
        paths: Vec<String>,
    ) -> Result<PathsChanged> {
        let mut tx = self.meta().begin().await?;
        let agent = tx
            .lock_agent(caller.project, id)
            .await?
            .ok_or(Refusal::AgentNotFound { id })?;
        let mut answer = PathsChanged::default();
        for path in paths {
            let was_there = tx.remove_agent_path(caller.project, id, &path).await?;
            match was_there {
                true => answer.changed.push(path),
                false => answer.unchanged.push(path),
            }
        }
        self.touch(&mut tx, agent, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    }

    async fn touch(&self, tx: &mut Tx, mut agent: Agent, answer: &PathsChanged) -> Result<()> {
        if !answer.changed.is_empty() {
            agent.updated_at = self.now();
            tx.update_agent(&agent).await?;
        }
        Ok(())
    }

    /// The agents whose scripts bring the applications of servers to rest, in the order of
    /// the servers; none for one that has no agent.
    ///
    /// Errors: `NotFound` a server, for another project's too.
    /// CBR: `CheckAgent`, `POST /v3/{project_id}/agent/check`.
    pub async fn agents_in(
        &self,
        caller: &Caller,
        servers: &[ResourceId],
    ) -> Result<Vec<Option<Agent>>> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let own = self.own_protectables(caller.project).await?;
        for id in servers {
            let found = own
                .iter()
                .any(|one| one.id == *id && one.resource_type == cairn_types::ResourceType::Server);
            if !found {
                return Err(Refusal::ServerNotFound { id: *id }.into());
            }
        }
        let mut tx = self.meta().read().await?;
        let agents = tx.agents_in(caller.project, servers).await?;
        let agent_in = |server| agents.iter().find(|agent| agent.server == Some(server));
        let found = servers.iter().map(|server| agent_in(*server).cloned());
        Ok(found.collect())
    }
}

async fn view(tx: &mut Tx, agent: Agent) -> Result<AgentView> {
    let paths = tx.paths_of_agents(agent.project, &[agent.id]).await?;
    Ok(AgentView { agent, paths })
}
