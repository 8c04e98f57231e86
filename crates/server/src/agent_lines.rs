//! Agents that enrol and connect, over HTTP: an extension. What proves who they are is in
//! what they say, so that nobody has to give them keys of users.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use cairn_api::agent::{AgentToken, AgentTokenResponse, CreateAgentTokenRequest};
use cairn_api::agent_line::{EnrolAgentRequest, EnrolAgentResponse, Enrolment, PROTOCOL};
use cairn_api::replica::KEY_HEADER;
use cairn_core::{Caller, NewAgent};
use cairn_link::enrolment::{self, TokenId};
use cairn_link::{Connection, End, EphemeralKey, Purpose};
use cairn_types::{AgentId, ProjectId};
use hyper_util::rt::TokioIo;

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;
use crate::upgrade;

/// How long an agent may take to prove that it is the one.
const PROVING: Duration = Duration::from_secs(10);
/// For how many hours a token can be used if nobody says.
const TOKEN_HOURS: u32 = 1;

pub(crate) async fn create_token(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AgentTokenResponse> {
    let wish = request.json::<CreateAgentTokenRequest>()?.agent_token;
    let hours = wish.hours.unwrap_or(TOKEN_HOURS);
    let made = app.service.create_agent_token(caller, hours).await?;
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
    let upgrade = upgrade::asked(request, PROTOCOL)?;
    let theirs = bytes(KEY_HEADER, request.header(KEY_HEADER).unwrap_or_default())?;
    let secret = app.service.secret_of_agent(project, id).await?;
    let place = Arc::clone(&app.handshakes).try_acquire_owned();
    let place = place.map_err(|_| Failure::unavailable("Too many connections begin at once."))?;
    let ours = EphemeralKey::generate();
    let public = HeaderValue::from_str(&hex::encode(ours.public()));
    let public = public.expect("digits are plain text");
    let keys = ours.agree(End::Asking, &theirs, (Purpose::Agent(id), &secret[..]));
    let keys = keys.map_err(|_| Failure::invalid(KEY_HEADER))?;
    let service = app.service.clone();
    app.calls.spawn(async move {
        let proving = async {
            let stream = TokioIo::new(upgrade.await?);
            let connection = Connection::new(Box::new(stream), keys);
            let handed = service.agent_connected(project, id, connection).await;
            handed.map_err(Into::into)
        };
        let proven: std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> =
            match tokio::time::timeout(PROVING, proving).await {
                Ok(proven) => proven,
                Err(late) => Err(late.into()),
            };
        if let Err(error) = proven {
            tracing::warn!(agent.id = %id, error, "A connection of an agent came to nothing.");
        }
        drop(place);
    });
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(KEY_HEADER), public);
    Ok(upgrade::switched(PROTOCOL, headers))
}

/// 32 bytes, as they are written.
fn bytes(key: &str, digits: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    match hex::decode_to_slice(digits, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Failure::invalid(key)),
    }
}
