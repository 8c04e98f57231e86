//! The wire contract of CBR v3: the table of operations, the error codes,
//! requests and responses with their limits, signatures, and a typed client.
//!
//! Wire spelling lives here and nowhere else. The server reads requests with
//! [`parse_body`], [`parse_path`] and each query's `parse`, which check every
//! limit of the contract before anything else sees a value; the client and the
//! command line use the same types from the other side.
//!
//! In responses what is unset is `null`, as in the service; in requests it is
//! left out.

pub mod agent;
mod agent_client;
pub mod agent_line;
pub mod backup;
pub mod binding;
pub mod checkpoint;
pub mod client;
mod credentials;
pub mod download;
mod error_code;
pub mod export;
pub mod file;
pub mod identity;
pub mod lookup;
pub mod member;
pub mod metadata;
pub mod notification;
pub mod openapi;
mod operation;
pub mod operation_log;
pub mod order;
pub mod organization_policy;
pub mod page;
pub mod policy;
pub mod protectable;
pub mod query;
pub mod replica;
pub mod replication;
pub mod resource;
pub mod retention;
pub mod sign;
pub mod simulation;
pub mod sync;
pub mod tag;
pub mod text;
pub mod trigger;
pub mod usage;
pub mod validate;
pub mod vault;
pub mod verification;
pub mod wire_time;
mod words;

pub use agent_client::AgentClient;
pub use cairn_types::MemberStatus;
pub use client::Client;
pub use credentials::{Credentials, CredentialsFile};
pub use error_code::{ErrorBody, ErrorCode, NEVER, Never};
pub use operation::{Group, Operation, OperationSpec};
pub use validate::{Invalid, Validate, parse_body, parse_path};
pub use words::{
    AgentStatus, AgentType, BackupSortKey, ChargingMode, CloudType, ConsistentLevel, ImageType,
    MatchKey, OwnType, PeriodType, ProtectType, ProtectableType, TagAction, TagSearchAction,
};
