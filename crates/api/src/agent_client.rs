//! What an agent's program asks of its server over HTTP: to enrol, and for connections.
//! Neither is signed: an enrolment has its proof, and who a connection is from the line says.

use cairn_types::{AgentId, ProjectId};
use http::{HeaderName, HeaderValue, StatusCode, header};
use reqwest::{Response, Url};

use crate::agent_line::{
    ENROLMENTS_PATH, EnrolAgentRequest, EnrolAgentResponse, INSTANCE_HEADER, PROTOCOL,
    connection_path,
};
use crate::client::{Connector, Error, REQUEST_TIMEOUT, Result, service_error};
use crate::parse_body;
use crate::replica::KEY_HEADER;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// An agent's server. Cheap to clone.
#[derive(Clone)]
pub struct AgentClient {
    http: reqwest::Client,
    endpoint: Url,
}

impl AgentClient {
    /// The server at an address; nothing is sent yet.
    ///
    /// Errors: `Invalid` it is no address.
    pub fn new(address: &str) -> Result<Self> {
        let connector = Connector::new(address)?;
        let http = connector.client(|http| http.timeout(REQUEST_TIMEOUT))?;
        let endpoint = connector.endpoint;
        Ok(Self { http, endpoint })
    }

    /// Enrols an agent by a token.
    pub async fn enrol(&self, request: &EnrolAgentRequest) -> Result<EnrolAgentResponse> {
        let sending = self.http.post(self.at(ENROLMENTS_PATH)).json(request);
        let answer = sending.send().await;
        let answer = answer.map_err(|source| self.unreachable(source))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = self.body(answer).await?;
        match status.is_success() {
            true => parse_body(&body).map_err(|_| Error::Enrolment),
            false => Err(service_error(status, &headers, &body)),
        }
    }

    /// Opens a connection to be asked by: its bytes, and the public key of the other end.
    ///
    /// Errors: `NotFound` the agent is none of the server's any more; `Conflict` another
    /// instance of it is connected.
    pub async fn connect(
        &self,
        (project, agent): (ProjectId, AgentId),
        instance: &[u8; 16],
        public_key: &[u8; 32],
    ) -> Result<(reqwest::Upgraded, [u8; 32])> {
        let digits = |bytes: &[u8]| {
            let value = HeaderValue::from_str(&hex::encode(bytes));
            value.expect("digits are plain text")
        };
        let asking = self
            .http
            .get(self.at(&connection_path(project, agent)))
            .header(header::CONNECTION, HeaderValue::from_static("upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static(PROTOCOL))
            .header(HeaderName::from_static(INSTANCE_HEADER), digits(instance))
            .header(HeaderName::from_static(KEY_HEADER), digits(public_key));
        let answer = asking.send().await;
        let answer = answer.map_err(|source| self.unreachable(source))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = self.body(answer).await?;
            return Err(match status.is_success() {
                true => Error::NoConnection,
                false => service_error(status, &headers, &body),
            });
        }
        let upgraded = answer.upgrade().await;
        let upgraded = upgraded.map_err(|source| self.unreachable(source))?;
        let mut theirs = [0; 32];
        let told = headers.get(KEY_HEADER).and_then(|told| told.to_str().ok());
        hex::decode_to_slice(told.unwrap_or_default(), &mut theirs)
            .map_err(|_| Error::NoConnection)?;
        Ok((upgraded, theirs))
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        url
    }

    async fn body(&self, mut answer: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = answer.chunk().await;
            match chunk.map_err(|source| self.unreachable(source))? {
                Some(chunk) if body.len() + chunk.len() <= MAX_ANSWER_BYTES => {
                    body.extend_from_slice(&chunk);
                }
                Some(_) => return Err(Error::Enrolment),
                None => return Ok(body),
            }
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Transport {
            endpoint: self.endpoint.to_string(),
            source: source.without_url(),
        }
    }
}
