//! Agents that connect to the server: how they enrol, and the connections by which the
//! server asks them for their host's files.
//!
//! A connection waits here until work on the host takes it. An agent opens a new one
//! whenever one is taken or has waited for a while, which is how the server knows that
//! it is there.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_link::enrolment::{self, Reply, Request, Secret, Token};
use cairn_link::{Connection, Instance, Line};
use cairn_meta::{Agent, AgentToken};
use cairn_source::{Protectable, ProtectableStatus};
use cairn_types::{AgentId, Kind, ProjectId, ResourceId, ResourceType, Timestamp};
use zeroize::Zeroizing;

use crate::agent::{ABNORMAL, NORMAL, NewAgent, UNINSTALLED};
use crate::{Caller, Refusal, Result, Service};

/// What the secrets of tokens are sealed for.
const TOKEN_CONTEXT: &str = "agent token";
/// What the secrets of agents are sealed for.
const SECRET_CONTEXT: &str = "agent secret";
/// Tokens of a project that nobody has used yet, at most.
const TOKENS_MAX: u64 = 64;
/// An agent that was silent for so long counts as abnormal. It connects every 45 s.
const SILENT_SECONDS: i64 = 180;
/// When it was last heard of is noted this often.
const NOTED_SECONDS: i64 = 60;
/// An agent that was not heard of for so long has lost its place to another with the same
/// identity: two turns of its connecting.
const PLACE_SECONDS: i64 = 90;

const SECONDS_PER_HOUR: i64 = 60 * 60;

/// A token, as it is shown once.
#[derive(Debug)]
pub struct NewAgentToken {
    /// Its text.
    pub token: Zeroizing<String>,
    /// Until when it can be used.
    pub expires_at: Timestamp,
}

/// What an agent that has enrolled is told.
#[derive(Debug)]
pub struct Enrolled {
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The server's part of the secret that both have now.
    pub reply: Reply,
}

impl Service {
    /// Makes a token by which one agent can enrol, once.
    ///
    /// The agent is in `server`, if one is named: its scripts bring that server's
    /// applications to rest.
    ///
    /// Errors: `Exhausted` there are too many that nobody has used; `NotFound` the project has
    /// no such server.
    /// Cairn: `CreateAgentToken`, `POST /v3/{project_id}/agents/tokens`.
    pub async fn create_agent_token(
        &self,
        caller: &Caller,
        hours: u32,
        server: Option<ResourceId>,
    ) -> Result<NewAgentToken> {
        self.agents_in(caller, server.as_slice()).await?;
        let (token, now) = (Token::generate(), self.now());
        let expires_at = now.plus_seconds(i64::from(hours) * SECONDS_PER_HOUR);
        let sealed = self.root_key().seal(TOKEN_CONTEXT, &token.secret()[..]);
        let mut tx = self.meta().begin().await?;
        if tx.count_agent_tokens(caller.project, now).await? >= TOKENS_MAX {
            return Err(Refusal::TooManyAgentTokens.into());
        }
        tx.insert_agent_token(&AgentToken {
            id: token.id().to_string(),
            project: caller.project,
            sealed_secret: hex::encode(sealed),
            created_at: now,
            expires_at,
            server,
        })
        .await?;
        tx.commit().await?;
        Ok(NewAgentToken {
            token: token.reveal(),
            expires_at,
        })
    }

    /// Takes an agent in that proves that it has a token, and uses the token up. One that
    /// enrols again with a new token is the same agent with a new secret. A server has the
    /// agent that has enrolled for it last.
    ///
    /// Errors: `Denied` there is no such token, or the proof is of another; `Conflict`
    /// the id is that of something else.
    /// Cairn: `EnrolAgent`, `POST /v3/agents/enrolments`.
    pub async fn enrol_agent(&self, request: &Request, new: NewAgent) -> Result<Enrolled> {
        let now = self.now();
        let id = new.id;
        self.refuse_other_resource(id).await?;
        let mut tx = self.meta().begin().await?;
        let token = tx.lock_agent_token(&request.token.to_string()).await?;
        let token = token.filter(|token| now < token.expires_at);
        let token = token.ok_or(Refusal::AgentTokenUnknown)?;
        let token_secret = self.opened(TOKEN_CONTEXT, &token.sealed_secret)?;
        let answered = enrolment::answer(&token_secret, request);
        let (reply, secret) = answered.map_err(|_| Refusal::AgentTokenUnknown)?;
        let enrolled = tx.enrolled_agents(None, Some(id)).await?;
        if enrolled.iter().any(|known| known.project != token.project) {
            return Err(Refusal::AgentIdTaken { id }.into());
        }
        let sealed = self.root_key().seal(SECRET_CONTEXT, &secret[..]);
        let mut agent = self.written_agent(&mut tx, token.project, new).await?;
        agent.sealed_secret = Some(hex::encode(sealed));
        agent.server = token.server;
        if let Some(server) = token.server {
            tx.free_server(agent.project, server).await?;
        }
        tx.update_agent(&agent).await?;
        tx.remove_agent_token(&token.id).await?;
        tx.commit().await?;
        self.agent_instances().forget(id);
        Ok(Enrolled {
            project: agent.project,
            reply,
        })
    }

    /// An agent's id becomes that of a resource: no other may have it.
    async fn refuse_other_resource(&self, id: AgentId) -> Result<()> {
        let resource = resource_of(id);
        let found = self
            .ask_inventory(move |inventory| inventory.find(resource))
            .await;
        match found {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Refusal::AgentIdTaken { id }.into()),
        }
    }

    /// Lets an instance of an agent come, and returns what it proves by who it is.
    ///
    /// Errors: `NotFound` it has not enrolled, or was removed; `Conflict` another instance of it
    /// is connected.
    pub async fn admit_agent(
        &self,
        project: ProjectId,
        (id, instance): (AgentId, Instance),
    ) -> Result<Secret> {
        let agent = self.meta().read().await?.agent(project, id).await?;
        let sealed = agent.and_then(|agent| agent.sealed_secret);
        let sealed = sealed.ok_or(Refusal::AgentNotFound { id })?;
        self.agent_instances().look(id, instance, self.now())?;
        self.opened(SECRET_CONTEXT, &sealed)
    }

    fn opened(&self, context: &'static str, sealed: &str) -> Result<Secret> {
        let sealed = hex::decode(sealed).map_err(|_| Refusal::NotAuthenticated)?;
        let opened = self.root_key().open(context, &sealed)?;
        let secret = <[u8; 32]>::try_from(&opened[..]);
        Ok(Zeroizing::new(
            secret.map_err(|_| Refusal::NotAuthenticated)?,
        ))
    }

    /// Keeps a connection of an agent for work on its host, once the other end has proven
    /// that it is this instance of the agent.
    ///
    /// Errors: `NotFound`; `Conflict` another instance of it is connected.
    pub async fn agent_connected(
        &self,
        project: ProjectId,
        (id, instance): (AgentId, Instance),
        mut connection: Connection,
    ) -> Result<()> {
        Line::prove(&mut connection).await?;
        let now = self.now();
        // Of two that come in one moment both may pass; no work takes the answers of both.
        self.agent_instances().look(id, instance, now)?;
        self.agent_instances().take(id, instance, now);
        let mut tx = self.meta().begin().await?;
        let agent = tx.lock_agent(project, id).await?;
        let enrolled = agent.filter(|agent| agent.sealed_secret.is_some());
        let mut agent = enrolled.ok_or(Refusal::AgentNotFound { id })?;
        let silent = now.seconds_since(agent.last_active_at);
        if agent.status != NORMAL || silent >= NOTED_SECONDS {
            agent.status = NORMAL.to_owned();
            agent.last_active_at = now;
            tx.update_agent(&agent).await?;
            tx.commit().await?;
        }
        if !self.agent_links().park(id, connection) {
            tracing::warn!(agent.id = %id, "Too many agents are connected: one has to come again.");
        }
        Ok(())
    }

    /// Notes which agents are not heard of any more, and returns how many are new.
    pub async fn look_for_silent_agents(&self) -> Result<usize> {
        let before = self.now().plus_seconds(-SILENT_SECONDS);
        let found = self
            .meta()
            .read()
            .await?
            .silent_agents(NORMAL, before)
            .await?;
        if found.is_empty() {
            return Ok(0);
        }
        let mut tx = self.meta().begin().await?;
        let mut count = 0;
        for agent in found {
            // It may have come back since.
            let agent = tx.lock_agent(agent.project, agent.id).await?;
            let still = agent.filter(|now| now.status == NORMAL && now.last_active_at < before);
            let Some(mut agent) = still else { continue };
            agent.status = ABNORMAL.to_owned();
            tx.update_agent(&agent).await?;
            tracing::warn!(agent.id = %agent.id, host = agent.host_name, "An agent is not heard of any more.");
            count += 1;
        }
        tx.commit().await?;
        Ok(count)
    }

    /// The hosts of a project whose agents connect to the server.
    pub(crate) async fn hosts(&self, project: ProjectId) -> Result<Vec<Protectable>> {
        let mut tx = self.meta().read().await?;
        let agents = tx.enrolled_agents(Some(project), None).await?;
        Ok(agents.into_iter().map(host).collect())
    }
}

/// The instances of agents that have their places: of several with one identity one is asked
/// for files at a time.
#[derive(Debug, Default)]
pub(crate) struct Instances(Mutex<HashMap<AgentId, (Instance, Timestamp)>>);

impl Instances {
    /// Whether an instance could have the agent's place.
    fn look(&self, id: AgentId, instance: Instance, now: Timestamp) -> Result<()> {
        match self.places().get(&id) {
            Some((other, heard_at))
                if *other != instance && now.seconds_since(*heard_at) < PLACE_SECONDS =>
            {
                tracing::warn!(
                    agent.id = %id,
                    "Two agents have one identity, or a host was started again: the one that came last waits."
                );
                let seconds = PLACE_SECONDS;
                Err(Refusal::AgentElsewhere { id, seconds }.into())
            }
            _ => Ok(()),
        }
    }

    /// Notes that an instance has the agent's place, and was heard of now.
    fn take(&self, id: AgentId, instance: Instance, now: Timestamp) {
        self.places().insert(id, (instance, now));
    }

    /// Has the next instance that comes be the agent.
    pub fn forget(&self, id: AgentId) {
        self.places().remove(&id);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<AgentId, (Instance, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resource that an agent's host is.
pub(crate) fn resource_of(agent: AgentId) -> ResourceId {
    ResourceId::from_uuid(agent.uuid())
}

/// The agent of a host.
pub(crate) fn agent_of(host: ResourceId) -> AgentId {
    AgentId::from_uuid(host.uuid())
}

fn host(agent: Agent) -> Protectable {
    Protectable {
        id: resource_of(agent.id),
        name: match agent.host_nickname.as_str() {
            "" => agent.host_name,
            nickname => nickname.to_owned(),
        },
        resource_type: ResourceType::NativeServer,
        // Only reading all of it would tell.
        size_bytes: 0,
        source: "agents".to_owned(),
        project: Some(agent.project),
        children: Vec::new(),
        system_disk: false,
        status: match agent.status.as_str() {
            UNINSTALLED => ProtectableStatus::Missing,
            _ => ProtectableStatus::Available,
        },
        format: None,
        tags: std::collections::BTreeMap::new(),
    }
}
