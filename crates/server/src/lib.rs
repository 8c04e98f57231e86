//! HTTP: one route for each operation of the contract, authentication, and the
//! translation between wire and service. Every handler is parse, one call,
//! convert; the rules are in `core`, the wire's spelling in `api`.

mod agents;
mod app;
mod auth;
mod backups;
mod checkpoints;
mod convert;
mod error;
mod identity;
mod members;
mod operation_logs;
mod permission;
mod protectables;
mod replications;
mod request;
mod routes;
mod vaults;

pub use app::{App, Site};
pub use routes::router;
