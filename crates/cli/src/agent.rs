//! `cairn agent`, as far as it is about the agents that a server knows.

use cairn_api::agent::{
    AddAgentPathRequest, Agent, AgentToken, CreateAgentTokenRequest, ExcludePath, NewAgentToken,
    RemoveAgentPathRequest,
};
use cairn_api::{Client, ProtectableType};
use cairn_types::{AgentId, ResourceId};
use clap::{Args, Subcommand};

use crate::output::{Printer, time};
use crate::table::Table;
use crate::{Error, find};

/// What can be done with agents from anywhere.
#[derive(Debug, Clone, Subcommand)]
pub enum AgentCommand {
    /// Make a token by which one agent can register, once.
    Token {
        /// For how many hours it can be used.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=168))]
        hours: u32,
        /// The server that the agent is in, by id or name: its scripts bring that server's
        /// applications to rest.
        #[arg(long)]
        server: Option<String>,
    },
    /// List the agents and what they back up.
    List,
    /// Add paths to what an agent backs up.
    AddPath(AddPath),
    /// Remove paths from what an agent backs up.
    RemovePath {
        /// The agent, by id or its host's name.
        agent: String,
        /// The paths.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Forget an agent, and delete the backups of its host.
    Remove {
        /// The agent, by id or its host's name.
        agent: String,
    },
}

/// Paths to be backed up.
#[derive(Debug, Clone, Args)]
pub struct AddPath {
    /// The agent, by id or its host's name.
    agent: String,
    /// The paths.
    #[arg(required = true)]
    paths: Vec<String>,
    /// What is left out below each of them: a path, or a pattern such as `*.tmp`; may be
    /// given again.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: AgentCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    match command {
        AgentCommand::Token { hours, server } => {
            let server_id = match server {
                Some(server) => Some(server_id(client, &server).await?),
                None => None,
            };
            let hours = Some(hours);
            let request = CreateAgentTokenRequest {
                agent_token: NewAgentToken { hours, server_id },
            };
            let made = client.create_agent_token(&request).await?.agent_token;
            printer.print(&made, || token(&made))
        }
        AgentCommand::List => {
            let listed = find::agents(client).await?;
            printer.print(&listed, || table(&listed))
        }
        AgentCommand::AddPath(wish) => add_paths(wish, client, printer).await,
        AgentCommand::RemovePath { agent, paths } => {
            let id = id(client, &agent).await?;
            let request = RemoveAgentPathRequest { remove_path: paths };
            let done = client.remove_agent_path(id, &request).await?;
            printer.print(&done, || {
                told(&[("removed", &done.removed), ("not there", &done.not_existed)])
            })
        }
        AgentCommand::Remove { agent } => {
            client.unregister_agent(id(client, &agent).await?).await?;
            printer.say("removed")
        }
    }
}

async fn add_paths(wish: AddPath, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let id = id(client, &wish.agent).await?;
    let excluded = |path: &String| ExcludePath {
        path_name: path.clone(),
        exclude_path_name: wish.exclude.clone(),
    };
    let exclude_path = match wish.exclude.is_empty() {
        true => None,
        false => Some(wish.paths.iter().map(excluded).collect()),
    };
    let request = AddAgentPathRequest {
        add_path: wish.paths.clone(),
        exclude_path,
    };
    let done = client.add_agent_path(id, &request).await?;
    printer.print(&done, || {
        told(&[("added", &done.added), ("was there", &done.existed)])
    })
}

async fn server_id(client: &Client, text: &str) -> Result<ResourceId, Error> {
    let found = find::protectable(client, &[ProtectableType::Server], text).await?;
    Ok(found.id)
}

async fn id(client: &Client, text: &str) -> Result<AgentId, Error> {
    Ok(find::agent(client, text).await?.agent_id)
}

fn token(made: &AgentToken) -> String {
    format!(
        "{}\nIt lets one agent register, once, until {}.\n",
        made.token,
        time(Some(made.expires_at))
    )
}

fn table(agents: &[Agent]) -> String {
    let mut table = Table::new(&["ID", "HOST", "STATUS", "LAST HEARD OF", "PATHS"]);
    for agent in agents {
        let paths: Vec<_> = agent.paths.iter().map(|path| &*path.dir_path).collect();
        table.row([
            agent.agent_id.to_string(),
            agent.host_name.clone(),
            agent.status.to_string(),
            time(Some(agent.last_active_time)),
            paths.join(" "),
        ]);
    }
    table.render()
}

fn told(lists: &[(&str, &Vec<String>)]) -> String {
    let all = lists.iter().flat_map(|(what, paths)| {
        let line = move |path: &String| format!("{what}: {path}\n");
        paths.iter().map(line)
    });
    all.collect()
}
