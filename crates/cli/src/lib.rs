//! The client verbs of `cairn`: vaults, protectables, checkpoints, backups,
//! restores, policies, verifications, notifications and tasks, from a terminal or a script.
//!
//! The binary mounts [`Command`] beside its own sub-commands and calls [`run`].
//! Everything goes through the public API by `cairn_api::Client`, so nothing
//! here can do what another client could not. Results go to standard output,
//! progress and errors to standard error.

mod agent;
mod backup;
mod checkpoint;
mod define;
mod download;
mod error;
mod export;
mod file;
mod find;
mod notification;
mod output;
mod part;
mod policy;
mod protectable;
mod restore;
mod table;
mod task;
mod transfer;
mod unpack;
mod vault;
mod verify;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use cairn_api::{Client, Credentials};
use cairn_types::Clock;
use clap::{Args, Subcommand, ValueEnum};

pub use agent::AgentCommand;
pub use error::Error;
use output::Printer;

/// What the exit codes mean; for the end of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes of the client commands:
  0  success
  1  the operation failed or was refused
  2  the command line or the credentials are wrong
  3  the server cannot be reached
  4  there is no such thing
  5  a backup is hurt: a verification found it, or some of its files could not be read";

/// Options that every client verb has.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// File with the endpoint and the keys; the SDKs' environment variables if unset.
    #[arg(long, global = true, env = "CAIRN_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables, for people.
    Table,
    /// The API's own objects, for programs.
    Json,
}

/// A client verb. Things may be named by id, or by name where it is unique.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Vaults: what is protected, and how much room it has.
    #[command(subcommand, after_help = EXIT_CODES)]
    Vault(vault::VaultCommand),
    /// What can be protected.
    #[command(subcommand, after_help = EXIT_CODES)]
    Protectable(protectable::ProtectableCommand),
    /// Agents, as the server knows them: mounted beside the verbs of the agent itself.
    #[command(skip)]
    Agent(AgentCommand),
    /// Checkpoints: acts of protecting a vault.
    #[command(subcommand, after_help = EXIT_CODES)]
    Checkpoint(checkpoint::CheckpointCommand),
    /// Backups: one resource's copy each.
    #[command(subcommand, after_help = EXIT_CODES)]
    Backup(backup::BackupCommand),
    /// Restore a backup, in place unless told otherwise.
    #[command(after_help = EXIT_CODES)]
    Restore(restore::Restore),
    /// Policies: when backups are made, and which are kept for how long.
    #[command(subcommand, after_help = EXIT_CODES)]
    Policy(policy::PolicyCommand),
    /// Tasks: the record of long work.
    #[command(subcommand, after_help = EXIT_CODES)]
    Task(task::TaskCommand),
    /// Look whether backups could be restored, and list what was found.
    #[command(after_help = EXIT_CODES)]
    Verify(verify::Verify),
    /// Notifications: who is told what happens, and what they were told.
    #[command(subcommand, after_help = EXIT_CODES)]
    Notification(notification::NotificationCommand),
}

/// Runs a verb to its end and says how it ended, by [`EXIT_CODES`].
///
/// `clock` is what requests are signed by.
pub async fn run(command: Command, options: Options, clock: Arc<dyn Clock>) -> ExitCode {
    let mut printer = Printer::new(options.output, Box::new(std::io::stdout()));
    let result = match &command {
        Command::Policy(policy::PolicyCommand::Simulate(simulate)) => {
            policy::simulate(simulate, clock.now(), &mut printer)
        }
        _ => match connect(&options, clock) {
            Ok(client) => execute(command, &client, &mut printer).await,
            Err(error) => Err(error.into()),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has enough of it, as `head` does.
        Err(Error::Output(source)) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", error.line());
            ExitCode::from(error.exit_code())
        }
    }
}

/// A client by the options' credentials.
fn connect(options: &Options, clock: Arc<dyn Clock>) -> cairn_api::client::Result<Client> {
    let credentials = Credentials::load(options.credentials.as_deref())?;
    Client::new(credentials, clock)
}

/// Runs a verb, printing its result.
async fn execute(command: Command, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    match command {
        Command::Vault(command) => vault::execute(command, client, printer).await,
        Command::Agent(command) => agent::execute(command, client, printer).await,
        Command::Protectable(command) => protectable::execute(command, client, printer).await,
        Command::Checkpoint(command) => checkpoint::execute(command, client, printer).await,
        Command::Backup(command) => backup::execute(command, client, printer).await,
        Command::Restore(restore) => restore::execute(restore, client, printer).await,
        Command::Policy(command) => policy::execute(command, client, printer).await,
        Command::Task(command) => task::execute(command, client, printer).await,
        Command::Verify(verify) => verify::execute(verify, client, printer).await,
        Command::Notification(command) => notification::execute(command, client, printer).await,
    }
}

#[cfg(test)]
mod tests;
