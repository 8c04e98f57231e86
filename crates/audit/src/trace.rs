//! What a trace says.

use cairn_types::{ProjectId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// When a trace was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Before the call was carried out. Without an `answered` behind it, the
    /// server ended in the midst and what came of the call is in the catalogue.
    Asked,
    /// When the answer was known.
    Answered,
}

/// One entry of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When, in microseconds since 1970 UTC.
    pub time: Timestamp,
    /// Before or after the call.
    pub stage: Stage,
    /// What was done, in the words of CBR's traces, such as `createVault`.
    pub trace_name: String,
    /// What it was done to: `vault`, `backup`, `policy` or `agent`.
    pub resource_type: String,
    /// Which one, where the path names it.
    pub resource_id: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path and query, as they were sent.
    pub target: String,
    /// The request's id.
    pub request_id: String,
    /// Who asked; nothing for whoever administers the machine itself.
    pub user_id: Option<UserId>,
    /// The access key that signed the request; nothing for a token.
    pub access_key: Option<String>,
    /// The project that it was asked in.
    pub project_id: Option<ProjectId>,
    /// The address that the request came from.
    pub source_ip: Option<String>,
    /// Whom a proxy says that it asks for (`X-Forwarded-For`); a claim, not a proof.
    pub forwarded_for: Option<String>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// The error code of the answer.
    pub error_code: Option<String>,
}
