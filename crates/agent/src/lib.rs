//! The program on a host whose files are backed up: `cairn agent`.
//!
//! It registers once by a token, then keeps a connection open to its server and answers
//! what that asks of the host's files (`selection`, `host`), within the rules of the
//! host's owner (`rules`). It sees no backup but what it is given to restore, and never
//! writes to a repository: the server hashes what comes and decides what is stored.
//! `docs/AGENT.md` is for those who run it; `cairn` mounts [`AgentCommand`].

mod device;
mod error;
mod host;
mod register;
mod rules;
mod scripts;
mod selection;
mod service;
mod state;

use std::path::PathBuf;
use std::sync::Arc;

use cairn_types::{Clock, Progress};
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

pub use error::{Error, Result};
pub use host::FileHost;
pub use rules::Rules;
pub use scripts::Scripts;
pub use selection::SelectedTree;
pub use service::Service;
pub use state::{Identity, Last, State};

/// What the agent's program can be asked.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Makes this host an agent of a server, by a token that the server has given.
    Register(Register),
    /// Answers the server until it is told to end.
    Run(Where),
    /// Shows who this agent is, and how it last got on with its server.
    Status(Where),
}

/// Where the agent's state is.
#[derive(Debug, Args)]
pub struct Where {
    /// The agent's folder: its secret lies there.
    #[arg(
        long,
        env = "CAIRN_AGENT_STATE",
        default_value = "/var/lib/cairn-agent"
    )]
    pub state: PathBuf,
}

/// How an agent registers.
#[derive(Debug, Args)]
pub struct Register {
    /// The server's address, as `https://backup.example.com`.
    #[arg(long, env = "CAIRN_AGENT_SERVER")]
    pub server: String,
    /// The token. Better by the environment or standard input: others can see a command line.
    #[arg(long, env = "CAIRN_AGENT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// What the server calls this host; the host's own name if left out.
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    at: Where,
}

/// Does what was asked. `stop` ends an agent that runs.
pub async fn run(command: AgentCommand, clock: Arc<dyn Clock>, stop: &Progress) -> Result<()> {
    match command {
        AgentCommand::Register(options) => {
            let token = match options.token {
                Some(token) => Zeroizing::new(token),
                None => register::token_from_input()?,
            };
            let state = State::new(&options.at.state);
            let registering = register::register(&state, &options.server, &token, options.name);
            let identity = tokio::select! {
                registered = registering => registered?,
                () = stop.cancelled() => return Err(Error::Stopped),
            };
            println!(
                "Registered as agent {} of project {} in region {}.",
                identity.agent_id, identity.project_id, identity.region
            );
            Ok(())
        }
        AgentCommand::Run(at) => {
            let service = Service::new(State::new(&at.state), clock)?;
            service.run(stop).await
        }
        AgentCommand::Status(at) => status(&State::new(&at.state), &*clock),
    }
}

fn status(state: &State, clock: &dyn Clock) -> Result<()> {
    let identity = state.identity()?;
    let running = matches!(state.lock(), Err(Error::Running));
    println!("agent    {}", identity.agent_id);
    println!("server   {}", identity.server);
    println!("project  {}", identity.project_id);
    println!("region   {}", identity.region);
    println!("running  {}", if running { "yes" } else { "no" });
    if let Some(last) = state.last() {
        let micros = clock.now().as_micros().saturating_sub(last.at_micros);
        let seconds = micros.max(0) / 1_000_000;
        match last.problem {
            None => println!("server   connected {seconds} s ago"),
            Some(problem) => println!("server   {problem}, {seconds} s ago"),
        }
    }
    Ok(())
}
