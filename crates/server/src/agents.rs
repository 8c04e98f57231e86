//! Agents over HTTP.

use cairn_api::ErrorCode;
use cairn_api::agent::{
    AddAgentPathRequest, AddAgentPathResponse, Agent, AgentPath, AgentResponse, AgentState,
    CheckAgentRequest, CheckAgentResponse, ListAgentsQuery, ListAgentsResponse,
    RegisterAgentRequest, RemoveAgentPathRequest, RemoveAgentPathResponse, UpdateAgentRequest,
    kept_path,
};
use cairn_core::records::{Agent as AgentRecord, AgentFilter, AgentPath as PathRecord};
use cairn_core::{AGENT_NORMAL, AgentView, Caller, NewAgent, PathToAdd};
use cairn_types::{AgentId, ResourceId};

use crate::App;
use crate::convert;
use crate::error::{Failure, Result};
use crate::request::Request;

/// As much of a wrong id as an answer repeats, in characters.
const REPEATED_CHARS: usize = 64;
/// What is said of a server without an agent.
const NO_AGENT: &str = "No agent for consistent backups is installed on the server.";
/// What is said of one whose agent is not connected.
const SILENT_AGENT: &str = "The agent on the server is not heard of.";

pub(crate) async fn register(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AgentResponse> {
    let agent = request.json::<RegisterAgentRequest>()?.agent;
    let new = NewAgent {
        id: agent_id(&agent.agent_id)?,
        host_name: agent.host_name,
        host_ip: agent.host_ip,
        host_os: agent.host_os,
        host_nickname: agent.host_nickname.unwrap_or_default(),
        agent_type: agent.agent_type.map(|word| word.to_string()),
        agent_version: agent.agent_version,
    };
    response(&app.service.register_agent(caller, new).await?)
}

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListAgentsResponse> {
    let query = ListAgentsQuery::parse(request.query())?;
    let wanted = query.page();
    let filter = AgentFilter {
        status: query.status.map(|word| word.to_string()),
        ids: query.agent_id.into_iter().flat_map(|ids| ids.0).collect(),
    };
    let page = convert::page(&wanted);
    let (agents, count) = app.service.agents(caller, &filter, &page).await?;
    Ok(ListAgentsResponse {
        agents: agents.iter().map(wire).collect::<Result<_>>()?,
        count,
        limit: wanted.limit,
        offset: wanted.offset,
    })
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<AgentResponse> {
    response(&app.service.agent(caller, id(request)?).await?)
}

pub(crate) async fn update(app: &App, caller: &Caller, request: &Request) -> Result<AgentResponse> {
    let id = id(request)?;
    // The one change that there is.
    request.json::<UpdateAgentRequest>()?;
    response(&app.service.uninstall_agent(caller, id).await?)
}

pub(crate) async fn unregister(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    Ok(app.service.unregister_agent(caller, id(request)?).await?)
}

pub(crate) async fn add_paths(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AddAgentPathResponse> {
    let id = id(request)?;
    let body: AddAgentPathRequest = request.json()?;
    let excluded = body.exclude_path.unwrap_or_default();
    let below = |path: &str| {
        let of_it = excluded
            .iter()
            .filter(|exclude| kept_path(&exclude.path_name) == path);
        of_it
            .flat_map(|exclude| exclude.exclude_path_name.clone())
            .collect()
    };
    let paths = body.add_path.iter().map(|path| PathToAdd {
        excluded: below(kept_path(path)),
        path: kept_path(path).to_owned(),
    });
    let paths = paths.collect();
    let answer = app.service.add_agent_paths(caller, id, paths).await?;
    Ok(AddAgentPathResponse {
        added: answer.changed,
        existed: answer.unchanged,
    })
}

pub(crate) async fn remove_paths(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<RemoveAgentPathResponse> {
    let id = id(request)?;
    let paths = request.json::<RemoveAgentPathRequest>()?.remove_path;
    let paths = paths.iter().map(|path| kept_path(path).to_owned());
    let paths = paths.collect();
    let answer = app.service.remove_agent_paths(caller, id, paths).await?;
    Ok(RemoveAgentPathResponse {
        removed: answer.changed,
        not_existed: answer.unchanged,
    })
}

pub(crate) async fn check(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CheckAgentResponse> {
    let body: CheckAgentRequest = request.json()?;
    let servers: Vec<_> = body
        .agent_status
        .iter()
        .map(|one| one.resource_id)
        .collect();
    let agents = app.service.agents_in(caller, &servers).await?;
    let state = |(resource_id, agent): (ResourceId, Option<AgentRecord>)| AgentState {
        resource_id,
        installed: agent.is_some(),
        is_old: agent.as_ref().map(|_| false),
        code: None,
        message: match &agent {
            None => Some(NO_AGENT.to_owned()),
            Some(agent) if agent.status != AGENT_NORMAL => Some(SILENT_AGENT.to_owned()),
            Some(_) => None,
        },
        version: agent.and_then(|agent| agent.agent_version),
    };
    Ok(CheckAgentResponse {
        agent_status: servers.into_iter().zip(agents).map(state).collect(),
    })
}

fn id(request: &Request) -> Result<AgentId> {
    agent_id(&request.path::<String>("agent_id")?)
}

/// Errors: 7403, the code that agents have for a text that is no id.
fn agent_id(text: &str) -> Result<AgentId> {
    text.parse().map_err(|_| {
        let start: String = text.chars().take(REPEATED_CHARS).collect();
        Failure::code_with(ErrorCode::AgentInvalid, start)
    })
}

fn response(view: &AgentView) -> Result<AgentResponse> {
    Ok(AgentResponse { agent: wire(view)? })
}

fn wire(view: &AgentView) -> Result<Agent> {
    let agent = &view.agent;
    let agent_type = agent.agent_type.as_deref();
    Ok(Agent {
        agent_id: agent.id,
        status: convert::word(&agent.status)?,
        host_name: agent.host_name.clone(),
        host_ip: agent.host_ip.clone(),
        host_os: agent.host_os.clone(),
        host_nickname: agent.host_nickname.clone(),
        agent_type: agent_type.map(convert::word).transpose()?,
        agent_version: agent.agent_version.clone(),
        last_active_time: agent.last_active_at,
        created_at: agent.created_at,
        updated_at: agent.updated_at,
        server_id: agent.server,
        paths: view.paths.iter().map(path).collect(),
    })
}

fn path(record: &PathRecord) -> AgentPath {
    AgentPath {
        id: record.id.clone(),
        agent_id: record.agent,
        dir_path: record.path.clone(),
        exclude_paths: record.excluded.join(","),
        status: "available".to_owned(),
    }
}
