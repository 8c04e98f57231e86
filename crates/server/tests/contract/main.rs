//! Every operation that is served, against the vendor's definitions: each
//! answer, its status and its effects, as the owner, as a stranger and as nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent_lines;
mod agents;
mod audit;
mod client;
mod codes;
mod hybrid;
mod identity;
mod lists;
mod lookups;
mod matrix;
mod members;
mod notifications;
mod once;
mod orders;
mod organization_policies;
mod policies;
mod refusals;
mod replicas;
mod replications;
mod rules;
mod served;
mod shared_restores;
mod states;
mod sync;
mod tags;
mod verifications;
