//! Agents that enrol and connect, over HTTP: an extension. What proves who they are is in
//! what they say, so that nobody has to give them keys of users.

use axum::response::Response;
use cairn_api::agent::{AgentToken, AgentTokenResponse, CreateAgentTokenRequest};
use cairn_api::agent_line::{
    EnrolAgentRequest, EnrolAgentResponse, Enrolment, INSTANCE_HEADER, PROTOCOL,
};
use cairn_core::{Caller, NewAgent};
use cairn_link::enrolment::{self, TokenId};
use cairn_link::{Instance, Purpose};
use cairn_types::{AgentId, ProjectId};

use crate::App;
use crate::error::{Failure, Result};
use crate::lines::{Asked, bytes};
use crate::request::Request;

/// For how many hours a token can be used if nobody says.
const TOKEN_HOURS: u32 = 1;

pub(crate) async fn create_token(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AgentTokenResponse> {
    let wish = request.json::<CreateAgentTokenRequest>()?.agent_token;
    let hours = wish.hours.unwrap_or(TOKEN_HOURS);
    let made = app
        .service
        .create_agent_token(caller, hours, wish.server_id);
    let made = made.await?;
    Ok(AgentTokenResponse {
        agent_token: AgentToken {
            token: made.token.to_string(),
            expires_at: made.expires_at,
        },
    })
}

pub(crate) async fn enrol(app: &App, request: &Request) -> Result<EnrolAgentResponse> {
    let wish = request.json::<EnrolAgentRequest>()?.enrolment;
    let new = NewAgent {
        id: wish.agent_id,
        host_name: wish.host_name,
        host_ip: wish.host_ip,
        host_os: wish.host_os,
        host_nickname: String::new(),
        agent_type: Some("native".to_owned()),
        agent_version: Some(wish.agent_version),
    };
    let asked = enrolment::Request {
        token: TokenId::parse(&wish.token_id)
            .ok_or_else(|| Failure::invalid("enrolment.token_id"))?,
        agent: wish.agent_id,
        public_key: bytes("enrolment.public_key", &wish.public_key)?,
        proof: bytes("enrolment.proof", &wish.proof)?,
    };
    let enrolled = app.service.enrol_agent(&asked, new).await?;
    tracing::info!(agent.id = %wish.agent_id, project.id = %enrolled.project, "An agent has enrolled.");
    Ok(EnrolAgentResponse {
        enrolment: Enrolment {
            project_id: enrolled.project,
            region: app.site.region.clone(),
            public_key: hex::encode(enrolled.reply.public_key),
            proof: hex::encode(enrolled.reply.proof),
        },
    })
}

/// Makes the request's connection one by which the agent's host is asked for its files.
pub(crate) async fn connect(app: &App, request: &Request) -> Result<Response> {
    let project: ProjectId = request.path("project_id")?;
    let id: AgentId = request.path("agent_id")?;
    let asked = Asked::by(request, PROTOCOL)?;
    let instance = bytes(
        INSTANCE_HEADER,
        request.header(INSTANCE_HEADER).unwrap_or_default(),
    )?;
    let instance = Instance::new(instance);
    let secret = app.service.admit_agent(project, (id, instance)).await?;
    let agreed = asked.agree(Purpose::Agent(id, instance), &secret[..])?;
    let service = app.service.clone();
    agreed.hand_on(app, move |connection| async move {
        service
            .agent_connected(project, (id, instance), connection)
            .await
    })
}
