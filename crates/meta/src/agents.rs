//! Agents on hosts, and the paths that they back up.

use cairn_types::{AgentId, ProjectId, ResourceId, Timestamp};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Page, Statement, insert, json, optional, text};
use crate::{Result, Tx};

/// A program on a host that backs up files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The id that it made for itself.
    pub id: AgentId,
    /// The project that it registered with.
    pub project: ProjectId,
    /// `normal`, `abnormal` or `uninstall`.
    pub status: String,
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
    /// When it was last heard of.
    pub last_active_at: Timestamp,
    /// When it registered first.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// What it proves by who it is, sealed, if it connects to the server.
    pub sealed_secret: Option<String>,
    /// The server that it is in.
    pub server: Option<ResourceId>,
}

/// What lets one agent enrol, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentToken {
    /// Its id.
    pub id: String,
    /// The project that the agent will belong to.
    pub project: ProjectId,
    /// What whoever has the token knows, sealed.
    pub sealed_secret: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be used.
    pub expires_at: Timestamp,
    /// The server that the agent will be in.
    pub server: Option<ResourceId>,
}

/// A path that an agent backs up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPath {
    /// Its id.
    pub id: String,
    /// The agent.
    pub agent: AgentId,
    /// The path on the host.
    pub path: String,
    /// What below it is left out.
    pub excluded: Vec<String>,
    /// Its place among the agent's paths.
    pub position: i64,
}

/// Which agents of a project a list shows.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// Only those in this state.
    pub status: Option<String>,
    /// Only these.
    pub ids: Vec<AgentId>,
}

impl FromRow for Agent {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("agent_id")?,
            project: row.parsed("project_id")?,
            status: row.text("status")?,
            host_name: row.text("host_name")?,
            host_ip: row.text("host_ip")?,
            host_os: row.text("host_os")?,
            host_nickname: row.text("host_nickname")?,
            agent_type: row.optional_text("agent_type")?,
            agent_version: row.optional_text("agent_version")?,
            last_active_at: row.time("last_active_at")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
            sealed_secret: row.optional_text("sealed_secret")?,
            server: row.optional_parsed("server_id")?,
        })
    }
}

impl FromRow for AgentToken {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            project: row.parsed("project_id")?,
            sealed_secret: row.text("sealed_secret")?,
            created_at: row.time("created_at")?,
            expires_at: row.time("expires_at")?,
            server: row.optional_parsed("server_id")?,
        })
    }
}

impl FromRow for AgentPath {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            agent: row.parsed("agent_id")?,
            path: row.text("dir_path")?,
            excluded: row.json("exclude_paths")?,
            position: row.integer("position")?,
        })
    }
}

fn filtered(select: &str, project: ProjectId, filter: &AgentFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("project_id", Some(project))
        .equals("status", filter.status.as_ref())
        .one_of("agent_id", &filter.ids);
    statement
}

impl Tx {
    /// Adds an agent.
    ///
    /// Errors: `Conflict` it is there already.
    pub async fn insert_agent(&mut self, agent: &Agent) -> Result<()> {
        let columns = [
            ("project_id", text(agent.project)),
            ("agent_id", text(agent.id)),
            ("status", text(&agent.status)),
            ("host_name", text(&agent.host_name)),
            ("host_ip", text(&agent.host_ip)),
            ("host_os", text(&agent.host_os)),
            ("host_nickname", text(&agent.host_nickname)),
            ("agent_type", optional(agent.agent_type.as_ref())),
            ("agent_version", optional(agent.agent_version.as_ref())),
            ("last_active_at", agent.last_active_at.into()),
            ("created_at", agent.created_at.into()),
            ("updated_at", agent.updated_at.into()),
            ("sealed_secret", optional(agent.sealed_secret.as_ref())),
            ("server_id", optional(agent.server)),
        ];
        insert(self, "agents", columns).await
    }

    /// Writes what of an agent can change.
    pub async fn update_agent(&mut self, agent: &Agent) -> Result<()> {
        let mut statement = Statement::new("UPDATE agents SET status = ");
        statement
            .bind(text(&agent.status))
            .push(", host_name = ")
            .bind(text(&agent.host_name))
            .push(", host_ip = ")
            .bind(text(&agent.host_ip))
            .push(", host_os = ")
            .bind(text(&agent.host_os))
            .push(", host_nickname = ")
            .bind(text(&agent.host_nickname))
            .push(", agent_type = ")
            .bind(optional(agent.agent_type.as_ref()))
            .push(", agent_version = ")
            .bind(optional(agent.agent_version.as_ref()))
            .push(", last_active_at = ")
            .bind(agent.last_active_at)
            .push(", updated_at = ")
            .bind(agent.updated_at)
            .push(", sealed_secret = ")
            .bind(optional(agent.sealed_secret.as_ref()))
            .push(", server_id = ")
            .bind(optional(agent.server));
        statement
            .equals("project_id", Some(agent.project))
            .equals("agent_id", Some(agent.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes an agent with its paths.
    pub async fn remove_agent(&mut self, project: ProjectId, agent: AgentId) -> Result<()> {
        for table in ["DELETE FROM agent_paths", "DELETE FROM agents"] {
            let mut statement = Statement::new(table);
            statement
                .equals("project_id", Some(project))
                .equals("agent_id", Some(agent));
            statement.run(self).await?;
        }
        Ok(())
    }

    /// A project's agent.
    pub async fn agent(&mut self, project: ProjectId, agent: AgentId) -> Result<Option<Agent>> {
        let mut statement = Statement::new("SELECT * FROM agents");
        statement
            .equals("project_id", Some(project))
            .equals("agent_id", Some(agent));
        statement.one(self).await
    }

    /// As [`Tx::agent`], for a transaction that goes on to change it.
    pub async fn lock_agent(
        &mut self,
        project: ProjectId,
        agent: AgentId,
    ) -> Result<Option<Agent>> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT * FROM agents");
        statement
            .equals("project_id", Some(project))
            .equals("agent_id", Some(agent));
        statement.push(" ").push(lock);
        statement.one(self).await
    }

    /// The agents that connect to the server: those of a project, or the one of this id,
    /// whosever it is.
    pub async fn enrolled_agents(
        &mut self,
        project: Option<ProjectId>,
        agent: Option<AgentId>,
    ) -> Result<Vec<Agent>> {
        let mut statement = Statement::new("SELECT * FROM agents");
        statement
            .equals("project_id", project)
            .equals("agent_id", agent)
            .condition("sealed_secret IS NOT NULL")
            .push(" ORDER BY created_at, agent_id");
        statement.all(self).await
    }

    /// The agents in these servers of a project, each with its server.
    pub async fn agents_in(
        &mut self,
        project: ProjectId,
        servers: &[ResourceId],
    ) -> Result<Vec<Agent>> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new("SELECT * FROM agents");
        statement
            .equals("project_id", Some(project))
            .one_of("server_id", servers);
        statement.all(self).await
    }

    /// Takes the agent out of a server that another is in from now on.
    pub async fn free_server(&mut self, project: ProjectId, server: ResourceId) -> Result<()> {
        let mut statement = Statement::new("UPDATE agents SET server_id = NULL");
        statement
            .equals("project_id", Some(project))
            .equals("server_id", Some(server));
        statement.run(self).await?;
        Ok(())
    }

    /// The agents in a state that connect to the server and were last heard of before this.
    pub async fn silent_agents(&mut self, status: &str, before: Timestamp) -> Result<Vec<Agent>> {
        let mut statement = Statement::new("SELECT * FROM agents");
        statement
            .equals("status", Some(status))
            .condition("sealed_secret IS NOT NULL AND last_active_at < ")
            .bind(before);
        statement.all(self).await
    }

    /// Adds a token.
    pub async fn insert_agent_token(&mut self, token: &AgentToken) -> Result<()> {
        let columns = [
            ("id", text(&token.id)),
            ("project_id", text(token.project)),
            ("sealed_secret", text(&token.sealed_secret)),
            ("created_at", token.created_at.into()),
            ("expires_at", token.expires_at.into()),
            ("server_id", optional(token.server)),
        ];
        insert(self, "agent_tokens", columns).await
    }

    /// The token of this id, for a transaction that goes on to use it up.
    pub async fn lock_agent_token(&mut self, id: &str) -> Result<Option<AgentToken>> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT * FROM agent_tokens");
        statement.equals("id", Some(id)).push(" ").push(lock);
        statement.one(self).await
    }

    /// Removes a token.
    pub async fn remove_agent_token(&mut self, id: &str) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM agent_tokens");
        statement.equals("id", Some(id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes the tokens that can be used no more, and counts those that a project has left.
    pub async fn count_agent_tokens(&mut self, project: ProjectId, now: Timestamp) -> Result<u64> {
        let mut statement = Statement::new("DELETE FROM agent_tokens");
        statement.condition("expires_at <= ").bind(now);
        statement.run(self).await?;
        let mut statement = Statement::new("SELECT COUNT(*) FROM agent_tokens");
        statement.equals("project_id", Some(project));
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// A page of a project's agents, newest first, and how many match in all.
    pub async fn agents(
        &mut self,
        project: ProjectId,
        filter: &AgentFilter,
        page: &Page,
    ) -> Result<(Vec<Agent>, u64)> {
        let count = filtered("SELECT COUNT(*) FROM agents", project, filter);
        let count = count.number(self).await?;
        let mut statement = filtered("SELECT * FROM agents", project, filter);
        if let Some(marker) = &page.marker {
            let row = "(created_at, agent_id) < (SELECT created_at, agent_id FROM agents ";
            statement.condition(row).push("WHERE project_id = ");
            statement.bind(text(project)).push(" AND agent_id = ");
            statement.bind(marker.as_str()).push(")");
        }
        statement
            .push(" ORDER BY created_at DESC, agent_id DESC")
            .page(page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// Adds a path to an agent.
    pub async fn insert_agent_path(&mut self, project: ProjectId, path: &AgentPath) -> Result<()> {
        let columns = [
            ("id", text(&path.id)),
            ("project_id", text(project)),
            ("agent_id", text(path.agent)),
            ("dir_path", text(&path.path)),
            ("exclude_paths", json(&path.excluded)),
            ("position", path.position.into()),
        ];
        insert(self, "agent_paths", columns).await
    }

    /// Removes a path from an agent; whether it was there.
    pub async fn remove_agent_path(
        &mut self,
        project: ProjectId,
        agent: AgentId,
        path: &str,
    ) -> Result<bool> {
        let mut statement = Statement::new("DELETE FROM agent_paths");
        statement
            .equals("project_id", Some(project))
            .equals("agent_id", Some(agent))
            .equals("dir_path", Some(path));
        Ok(statement.run(self).await? > 0)
    }

    /// The paths of some agents, each agent's in the order in which they came.
    pub async fn paths_of_agents(
        &mut self,
        project: ProjectId,
        agents: &[AgentId],
    ) -> Result<Vec<AgentPath>> {
        if agents.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new("SELECT * FROM agent_paths");
        statement
            .equals("project_id", Some(project))
            .one_of("agent_id", agents)
            .push(" ORDER BY agent_id, position, id");
        statement.all(self).await
    }
}
