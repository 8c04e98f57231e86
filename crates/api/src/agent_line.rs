//! How an agent on a host meets its server: it enrols by a one-time token, and opens
//! the connections that it is asked by. `docs/AGENT.md` says what goes over them.

use cairn_types::{AgentId, ProjectId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::{MAX_HOST_CHARS, is_version};
use crate::validate::{self, Invalid, Validate, require};

/// What a connection is upgraded to.
pub const PROTOCOL: &str = "cairn-agent/1";
/// By which an agent says which it is of those that have its identity: 32 hexadecimal digits, other
/// ones for each boot of a host and each folder that the identity is in.
pub const INSTANCE_HEADER: &str = "x-cairn-instance";
/// The path of an enrolment, which needs no signature: its proof says enough.
pub const ENROLMENTS_PATH: &str = "/v3/agents/enrolments";
/// The longest name of a region, in characters.
const MAX_REGION_CHARS: usize = 255;

/// The path by which an agent opens a connection.
pub fn connection_path(project: ProjectId, agent: AgentId) -> String {
    format!("/v3/{project}/agents/{agent}/connection")
}

/// The body of `EnrolAgent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolAgentRequest {
    /// The enrolment.
    pub enrolment: NewEnrolment,
}

/// An agent that has a token and wants to be one of its project's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewEnrolment {
    /// Which token: 16 hexadecimal digits.
    pub token_id: String,
    /// The id that it made for itself.
    pub agent_id: AgentId,
    /// Its public key, in hexadecimal.
    pub public_key: String,
    /// That it knows the token's secret, in hexadecimal.
    pub proof: String,
    /// Its host's name.
    pub host_name: String,
    /// Its host's address.
    pub host_ip: String,
    /// Its host's system.
    pub host_os: String,
    /// Its version: three numbers.
    pub agent_version: String,
}

impl Validate for EnrolAgentRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let enrolment = &self.enrolment;
        digits("enrolment.token_id", &enrolment.token_id, 16)?;
        digits("enrolment.public_key", &enrolment.public_key, 64)?;
        digits("enrolment.proof", &enrolment.proof, 64)?;
        for (key, text) in [
            ("enrolment.host_name", &enrolment.host_name),
            ("enrolment.host_ip", &enrolment.host_ip),
            ("enrolment.host_os", &enrolment.host_os),
        ] {
            require(!text.is_empty(), key, "It is empty.")?;
            validate::text(key, text, MAX_HOST_CHARS)?;
        }
        let version = &enrolment.agent_version;
        let fits = version.len() <= MAX_HOST_CHARS && is_version(version);
        let how = "It takes three numbers, such as 1.0.0.";
        require(fits, "enrolment.agent_version", how)
    }
}

fn digits(key: &str, text: &str, count: usize) -> Result<(), Invalid> {
    let fits = text.len() == count && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    require(fits, key, format!("It takes {count} hexadecimal digits."))
}

/// What `EnrolAgent` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolAgentResponse {
    /// The enrolment.
    pub enrolment: Enrolment,
}

/// An agent that is one of its project's now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    /// The project, which the token was made in.
    pub project_id: ProjectId,
    /// The region of the server.
    pub region: String,
    /// The server's public key, in hexadecimal.
    pub public_key: String,
    /// That it knows the token's secret too, in hexadecimal.
    pub proof: String,
}

impl Validate for EnrolAgentResponse {
    fn validate(&self) -> Result<(), Invalid> {
        let enrolment = &self.enrolment;
        digits("enrolment.public_key", &enrolment.public_key, 64)?;
        digits("enrolment.proof", &enrolment.proof, 64)?;
        validate::text("enrolment.region", &enrolment.region, MAX_REGION_CHARS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::parse_body;

    fn enrolment() -> Value {
        json!({ "enrolment": {
            "token_id": "0123456789abcdef", "agent_id": "3b5816b5-f29c-4172-9d9a-76c719a659ce",
            "public_key": "a".repeat(64), "proof": "0".repeat(64), "host_name": "db-1",
            "host_ip": "10.0.0.7", "host_os": "Debian", "agent_version": "0.1.0",
        } })
    }

    fn parse(body: &Value) -> Result<EnrolAgentRequest, Invalid> {
        parse_body(body.to_string().as_bytes())
    }

    #[test]
    fn an_enrolment_has_limits() {
        assert!(parse(&enrolment()).is_ok());
        for (pointer, wrong) in [
            ("/enrolment/token_id", json!("0123456789abcde")),
            ("/enrolment/agent_id", json!("db-1")),
            ("/enrolment/public_key", json!("a".repeat(63) + "g")),
            ("/enrolment/proof", json!("")),
            ("/enrolment/host_name", json!("")),
            ("/enrolment/host_os", json!("x".repeat(256))),
            ("/enrolment/agent_version", json!("one")),
        ] {
            let mut body = enrolment();
            *body.pointer_mut(pointer).unwrap() = wrong;
            assert!(parse(&body).is_err(), "{pointer}");
        }
    }
}
