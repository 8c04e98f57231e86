//! The `cairn` program: the server, its administration, and the client.

mod agent;
mod audit;
mod clock;
mod config;
mod data_dir;
mod external;
mod listen;
mod master_key;
mod memory;
mod notifications;
mod project;
mod region;
mod repo;
mod server;
mod store;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

/// Cairn: a self-hosted cloud backup and recovery service.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: cairn_cli::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Server(ServerArguments),
    /// Agents: programs on hosts whose files are backed up.
    #[command(subcommand, after_help = cairn_cli::EXIT_CODES)]
    Agent(AgentCommand),
    /// Shows or checks the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Works on the catalogue's projects, beside a server or without one.
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Checks the audit trail.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Works on a repository with its master key alone: no server, no catalogue.
    #[command(subcommand)]
    Repo(repo::RepoCommand),
    #[command(flatten)]
    Client(cairn_cli::Command),
}

/// Where the server's configuration comes from. What is given here wins over the file.
#[derive(Debug, clap::Args)]
struct ServerArguments {
    /// The configuration, a TOML file; without one, embedded defaults.
    #[arg(long, env = "CAIRN_CONFIG")]
    config: Option<PathBuf>,
    /// Where catalogue, repository, keys and credentials are kept.
    #[arg(long, env = "CAIRN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long)]
    listen: Option<std::net::SocketAddr>,
}

impl ServerArguments {
    /// What a configuration says, and nothing over it.
    fn of(config: &Path) -> Self {
        Self {
            config: Some(config.to_owned()),
            data_dir: None,
            listen: None,
        }
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Reads the configuration and prints what it comes to, secrets hidden.
    Check(ServerArguments),
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    #[command(flatten)]
    Here(cairn_agent::AgentCommand),
    #[command(flatten)]
    AtServer(cairn_cli::AgentCommand),
}

/// What a thread has for its stack. Futures of what is built without being optimised are large;
/// memory is taken where it is touched.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    memory::give_back_large_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    let runtime = runtime.expect("the system has threads and a poller to give");
    let done = match arguments.command {
        Command::Client(command) => {
            return run_client(&runtime, command, arguments.client);
        }
        Command::Server(arguments) => {
            start_log();
            config::load(&arguments).and_then(|config| runtime.block_on(server::run(config)))
        }
        Command::Agent(AgentCommand::Here(command)) => {
            start_log();
            runtime.block_on(agent::run(command))
        }
        Command::Agent(AgentCommand::AtServer(command)) => {
            let command = cairn_cli::Command::Agent(command);
            return run_client(&runtime, command, arguments.client);
        }
        Command::Config(ConfigCommand::Check(arguments)) => {
            config::load(&arguments).and_then(|config| config::check(&config))
        }
        Command::Audit(command) => runtime.block_on(audit::run(command)),
        Command::Project(command) => runtime.block_on(project::run(command)),
        Command::Repo(command) => runtime.block_on(repo::run(command, arguments.client.output)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_client(
    runtime: &tokio::runtime::Runtime,
    command: cairn_cli::Command,
    options: cairn_cli::Options,
) -> ExitCode {
    let clock = Arc::new(clock::SystemClock);
    runtime.block_on(cairn_cli::run(command, options, clock))
}

/// Logs go to standard error; `CAIRN_LOG` chooses how much, as `info` or `cairn=debug`.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAIRN_LOG");
    let filter = filter.unwrap_or_else(|_| "info,sqlx=warn,hyper=warn".into());
    let ansi = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi);
    log.with_writer(std::io::stderr).init();
}
