//! HTTP: one route for each operation of the contract, authentication, and the
//! translation between wire and service. Every handler is parse, one call,
//! convert; the rules are in `core`, the wire's spelling in `api`.

mod agent_lines;
mod agents;
mod app;
mod audit;
mod auth;
mod backups;
mod bindings;
mod calls;
mod checkpoints;
mod convert;
mod downloads;
mod error;
mod exports;
mod files;
mod identity;
mod lines;
mod lookups;
mod members;
mod metadata;
mod notifications;
mod once;
mod operation_logs;
mod orders;
mod organization_policies;
mod permission;
mod policies;
mod protectables;
mod regions;
mod replicas;
mod replications;
mod request;
mod retention;
mod routes;
mod sync;
mod tags;
mod upgrade;
mod usage;
mod vaults;
mod verifications;

pub use app::{App, Site};
pub use regions::{HttpRegions, RegionSettings};
pub use request::Peer;
pub use routes::router;
