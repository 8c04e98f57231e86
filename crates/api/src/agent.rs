//! Agents on the wire: programs on hosts that back files up, and what is known
//! of the agents that bring a server's applications to rest.

use cairn_types::{AgentId, ResourceId, ResourceType, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::{List, query};
use crate::validate::{self, Invalid, Validate, require};
use crate::{AgentStatus, AgentType, wire_time};

/// The longest name, address or system of a host, in characters.
pub(crate) const MAX_HOST_CHARS: usize = 255;
/// The longest path on a host, in characters.
const MAX_PATH_CHARS: usize = 4096;
/// The longest life of a token, in hours.
const MAX_TOKEN_HOURS: u32 = 168;
/// The most paths in one request.
const MAX_PATHS: usize = 256;

/// The body of `RegisterAgent`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisterAgentRequest {
    /// The agent, as it describes itself.
    pub agent: NewAgent,
}

/// An agent, as it describes itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NewAgent {
    /// The id that it made for itself: a text here, because a wrong one has an
    /// error code of its own.
    pub agent_id: String,
    /// Its host's name.
    pub host_name: String,
    /// Its host's address.
    pub host_ip: String,
    /// Its host's system.
    pub host_os: String,
    /// What people call its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_nickname: Option<String>,
    /// Where its host stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<AgentType>,
    /// Its version: three numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
}

impl Validate for RegisterAgentRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let agent = &self.agent;
        for (key, text) in [
            ("agent.host_name", &agent.host_name),
            ("agent.host_ip", &agent.host_ip),
            ("agent.host_os", &agent.host_os),
        ] {
            require(!text.is_empty(), key, "It is empty.")?;
            validate::text(key, text, MAX_HOST_CHARS)?;
        }
        validate::optional(&agent.host_nickname, |text| {
            validate::text("agent.host_nickname", text, MAX_HOST_CHARS)
        })?;
        validate::optional(&agent.agent_version, |version| {
            let fits = version.len() <= MAX_HOST_CHARS && is_version(version);
            require(
                fits,
                "agent.agent_version",
                "It takes three numbers, such as 1.0.0.",
            )
        })
    }
}

/// Whether a text ends in three numbers of at most three digits.
/// Source: the vendor's pattern `((\d){1,3}\.){2}(\d){1,3}$`.
pub(crate) fn is_version(text: &str) -> bool {
    let number = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_digit())
    };
    let mut parts = text.rsplitn(3, '.');
    let last = [parts.next(), parts.next()];
    let first = parts.next().unwrap_or_default();
    let ends_in_digit = first.ends_with(|end: char| end.is_ascii_digit());
    last.into_iter().all(|part| part.is_some_and(number)) && ends_in_digit
}

query! {
    /// Which agents are listed.
    ///
    /// CBR: `ListAgent`.
    pub struct ListAgentsQuery {
        one {
            /// Page size.
            limit: u32,
            /// Agents left out first.
            offset: u32,
            /// Go on behind this agent.
            marker: AgentId,
            /// By how they stand.
            status: AgentStatus,
        }
        many {
            /// Only these: the documents have one text with commas, clients repeat the key.
            agent_id: List<AgentId>,
        }
    }
}

impl ListAgentsQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<AgentId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListAgentsQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)
    }
}

/// What `ListAgent` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListAgentsResponse {
    /// The agents of the page.
    pub agents: Vec<Agent>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Agents left out first.
    pub offset: u32,
}

/// What `RegisterAgent`, `ShowAgent` and `UpdateAgent` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentResponse {
    /// The agent.
    pub agent: Agent,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its own id.
    pub agent_id: AgentId,
    /// How it stands.
    pub status: AgentStatus,
    /// Its host's name.
    pub host_name: String,
    /// Its host's address.
    pub host_ip: String,
    /// Its host's system.
    pub host_os: String,
    /// What people call its host.
    pub host_nickname: String,
    /// Where its host stands.
    pub agent_type: Option<AgentType>,
    /// Its version.
    pub agent_version: Option<String>,
    /// When it was last heard of.
    #[serde(with = "wire_time")]
    pub last_active_time: Timestamp,
    /// When it registered first.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(with = "wire_time")]
    pub updated_at: Timestamp,
    /// The server whose applications its scripts bring to rest: an extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ResourceId>,
    /// What it backs up.
    pub paths: Vec<AgentPath>,
}

/// A path that an agent backs up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentPath {
    /// The path's id.
    pub id: String,
    /// Its agent.
    pub agent_id: AgentId,
    /// The path on the host.
    pub dir_path: String,
    /// What below it is left out, with commas between.
    pub exclude_paths: String,
    /// `available`; `remove` while it is being removed, which takes no time here.
    pub status: String,
}

/// The body of `CreateAgentToken`, an extension.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CreateAgentTokenRequest {
    /// The token that is wanted.
    pub agent_token: NewAgentToken,
}

/// A token that is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NewAgentToken {
    /// For how many hours it can be used; 1 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u32>,
    /// The server that the agent is in, if it is to bring that server's applications to rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ResourceId>,
}

impl Validate for CreateAgentTokenRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let hours = self.agent_token.hours.unwrap_or(1);
        validate::range("agent_token.hours", hours, (1, MAX_TOKEN_HOURS))
    }
}

/// What `CreateAgentToken` answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentTokenResponse {
    /// The token.
    pub agent_token: AgentToken,
}

/// What lets one agent enrol, once. It is shown here and never again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentToken {
    /// Its text, to be given to the agent.
    pub token: String,
    /// Until when it can be used.
    #[serde(with = "wire_time")]
    pub expires_at: Timestamp,
}

/// The body of `UpdateAgent`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateAgentRequest {
    /// What changes.
    pub agent: AgentChange,
}

/// What changes about an agent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentChange {
    /// `uninstall`, and nothing else.
    pub status: AgentStatus,
}

impl Validate for UpdateAgentRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let taken_off = self.agent.status == AgentStatus::Uninstall;
        require(taken_off, "agent.status", "It takes uninstall alone.")
    }
}

/// The body of `AddAgentPath`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct AddAgentPathRequest {
    /// The paths to back up.
    pub add_path: Vec<String>,
    /// What is left out below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_path: Option<Vec<ExcludePath>>,
}

/// What is left out below a path.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ExcludePath {
    /// The path, one of those that are added.
    pub path_name: String,
    /// What is left out.
    #[serde(default)]
    pub exclude_path_name: Vec<String>,
}

impl Validate for AddAgentPathRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::count("add_path", self.add_path.len(), (1, MAX_PATHS))?;
        self.add_path
            .iter()
            .try_for_each(|path| absolute("add_path", path))?;
        let excluded = self.exclude_path.as_deref().unwrap_or_default();
        validate::count("exclude_path", excluded.len(), (0, MAX_PATHS))?;
        for exclude in excluded {
            let added = self.add_path.contains(&exclude.path_name);
            let rule = "It is none of the paths that are added.";
            require(added, "exclude_path.path_name", rule)?;
            let key = "exclude_path.exclude_path_name";
            validate::count(key, exclude.exclude_path_name.len(), (0, MAX_PATHS))?;
            for name in &exclude.exclude_path_name {
                plain(key, name)?;
                require(!name.contains(','), key, "It takes no comma.")?;
            }
        }
        Ok(())
    }
}

/// A text that can be a path: not empty, not too long, nothing invisible in it.
fn plain(key: &str, path: &str) -> Result<(), Invalid> {
    validate::text(key, path, MAX_PATH_CHARS)?;
    let clean = !path.is_empty() && !path.chars().any(char::is_control);
    require(clean, key, "It is no path.")
}

/// A path from the root of its host: `/var/lib`, `C:\data`, `//share/data`.
fn absolute(key: &str, path: &str) -> Result<(), Invalid> {
    plain(key, path)?;
    let drive = |path: &str| {
        let mut chars = path.chars();
        let letter = chars
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic());
        letter && chars.next() == Some(':') && matches!(chars.next(), Some('\\' | '/'))
    };
    let rooted = path.starts_with('/') && path.len() > 1;
    require(rooted || drive(path), key, "It takes absolute paths.")?;
    let share = path.strip_prefix("//");
    let names = share.or(path.strip_prefix('/')).unwrap_or("share");
    let names = names.strip_suffix('/').unwrap_or(names);
    let straight = |name: &str| !matches!(name, "" | "." | "..");
    let how = "It takes no path with //, /./ or /../ in it.";
    require(names.split('/').all(straight), key, how)
}

/// A path as it is kept: a folder's needs no slash behind it.
pub fn kept_path(path: &str) -> &str {
    match path.starts_with('/') {
        true => path.trim_end_matches('/'),
        false => path,
    }
}

/// What `AddAgentPath` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddAgentPathResponse {
    /// The paths that are new.
    pub added: Vec<String>,
    /// The paths that were there.
    pub existed: Vec<String>,
}

/// The body of `RemoveAgentPath`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct RemoveAgentPathRequest {
    /// The paths that are no longer backed up.
    pub remove_path: Vec<String>,
}

impl Validate for RemoveAgentPathRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::count("remove_path", self.remove_path.len(), (1, MAX_PATHS))?;
        self.remove_path
            .iter()
            .try_for_each(|path| plain("remove_path", path))
    }
}

/// What `RemoveAgentPath` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveAgentPathResponse {
    /// The paths that are gone.
    pub removed: Vec<String>,
    /// The paths that were not there.
    pub not_existed: Vec<String>,
}

/// The body of `CheckAgent`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckAgentRequest {
    /// The servers that are asked about.
    pub agent_status: Vec<CheckedServer>,
}

/// A server whose agent is asked about.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckedServer {
    /// Its id.
    pub resource_id: ResourceId,
    /// A virtual machine or a bare-metal server.
    pub resource_type: ResourceType,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
}

impl Validate for CheckAgentRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let servers = &self.agent_status;
        validate::count("agent_status", servers.len(), (0, validate::MAX_RESOURCES))?;
        for server in servers {
            let kind = server.resource_type;
            require(
                matches!(kind, ResourceType::Server | ResourceType::BareMetalServer),
                "agent_status.resource_type",
                "It takes servers.",
            )?;
            validate::optional(&server.resource_name, |name| {
                let key = "agent_status.resource_name";
                validate::text(key, name, validate::MAX_RESOURCE_NAME_CHARS)
            })?;
        }
        Ok(())
    }
}

/// What `CheckAgent` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckAgentResponse {
    /// What is known of each server's agent, in the order of the question.
    pub agent_status: Vec<AgentState>,
}

/// What is known of the agent that brings a server's applications to rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentState {
    /// The server.
    pub resource_id: ResourceId,
    /// Whether it has one.
    pub installed: bool,
    /// Its version.
    pub version: Option<String>,
    /// Whether there is a newer version.
    pub is_old: Option<bool>,
    /// Why it cannot be reached.
    pub code: Option<i32>,
    /// The same in a sentence.
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    #[test]
    fn the_documented_agent_is_read() {
        let body = r#"{"agent":{"agent_id":"489654f2-363b-4ebf-966a-bdf079d97114",
            "host_name":"ecs-0001","host_ip":"192.168.10.144","host_os":"linux",
            "agent_version":"1.0.0","agent_type":"native"}}"#;
        let agent = parse_body::<RegisterAgentRequest>(body.as_bytes()).unwrap();
        assert_eq!(agent.agent.agent_type, Some(AgentType::Native));
    }

    #[test]
    fn versions_end_in_three_numbers() {
        for good in ["1.0.0", "24.110.999", "v1.2.3"] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.0", "1.0.x", "1..0", "x.1.2", "1.0.1000", "1.0.0 ",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn paths_are_absolute_and_what_is_left_out_lies_below_one_of_them() {
        let add = |body: &str| parse_body::<AddAgentPathRequest>(body.as_bytes());
        for good in [
            "/opt/backup",
            "/opt/",
            "/a/..b/c.",
            r"C:\\data",
            "c:/data",
            "//share/data",
        ] {
            assert!(
                add(&format!(r#"{{"add_path":["{good}"]}}"#)).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "", "/", "opt", "C:", "1:/x", "//", "/a//b", "/a/../b", "/a/.", "/..", "/a//", "///a",
        ] {
            let answer = add(&format!(r#"{{"add_path":["{bad}"]}}"#));
            let message = answer.unwrap_err().message;
            assert!(message.starts_with("Invalid add_path provided."), "{bad}");
        }
        assert!(add(r#"{"add_path":[]}"#).is_err());
        assert!(add(r#"{"add_path":["/a\u0000b"]}"#).is_err());
        let exclude = |path: &str, name: &str| {
            add(&format!(
                r#"{{"add_path":["/a"],"exclude_path":[
                    {{"path_name":"{path}","exclude_path_name":["{name}"]}}]}}"#
            ))
        };
        assert!(exclude("/a", "/a/b").is_ok());
        assert!(exclude("/b", "/b/c").is_err());
        assert!(exclude("/a", "/a/b,/a/c").is_err());
    }

    #[test]
    fn an_agent_can_only_be_taken_off() {
        let update = |status: &str| {
            let body = format!(r#"{{"agent":{{"status":"{status}"}}}}"#);
            parse_body::<UpdateAgentRequest>(body.as_bytes())
        };
        assert!(update("uninstall").is_ok());
        assert!(update("normal").is_err());
        assert!(update("gone").is_err());
    }

    #[test]
    fn agents_are_listed_by_ids_in_one_text_or_several() {
        let (one, two) = (AgentId::random(), AgentId::random());
        let query =
            ListAgentsQuery::parse(&format!("agent_id={one},{two}&agent_id={one}")).unwrap();
        assert_eq!(query.agent_id, [List(vec![one, two]), List(vec![one])]);
        assert!(ListAgentsQuery::parse("agent_id=x").is_err());
        assert!(ListAgentsQuery::parse("limit=1001").is_err());
    }
}
