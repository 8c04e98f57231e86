//! HTTP: one route for each operation of the contract, authentication, and the
//! translation between wire and service. Every handler is parse, one call,
//! convert; the rules are in `core`, the wire's spelling in `api`.

mod app;
mod auth;
mod backups;
mod bindings;
mod checkpoints;
mod convert;
mod error;
mod identity;
mod lookups;
mod metadata;
mod operation_logs;
mod orders;
mod permission;
mod protectables;
mod request;
mod routes;
mod usage;
mod vaults;

pub use app::{App, Site};
pub use routes::router;
