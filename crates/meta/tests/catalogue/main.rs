//! The catalogue on both databases: what is written is read, what a filter or
//! a page asks for is what comes, and a task has one owner at the most.
//!
//! SQLite always; PostgreSQL where `CAIRN_TEST_POSTGRES` names a server, as
//! `make test` has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod backups;
mod fixtures;
mod identities;
mod imports;
mod notifications;
mod policies;
mod replications;
mod retention;
mod shares;
mod tasks;
mod vaults;
mod verifications;
