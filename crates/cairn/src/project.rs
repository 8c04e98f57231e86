//! `cairn project`: tenants and their users, worked on in the catalogue itself.

use std::sync::Arc;

use anyhow::{Context, Result};
use cairn_core::Service;
use cairn_repo::{LocalStore, Repository};
use cairn_types::Role;
use clap::{Subcommand, ValueEnum};

use crate::ServerArguments;
use crate::data_dir::{Credentials, read_master_key};

/// What can be done with projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Makes a project with a user of its own and prints the credentials, once.
    Create {
        /// The project's name.
        name: String,
        /// The user's name; the project's if not given.
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Adds a user to a project and prints the credentials, once.
    AddUser {
        /// The project's name.
        name: String,
        /// The user's name.
        user: String,
        /// What the user may do in the project.
        #[arg(long)]
        role: RoleArgument,
        #[command(flatten)]
        server: ServerArguments,
    },
}

/// A role, as the command line names it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArgument {
    /// Everything, what concerns other projects of the domain included.
    Administrator,
    /// Everything in the project.
    Full,
    /// Everything in the project but making, changing and deleting policies.
    BackupsAndVaults,
    /// Looking.
    ReadOnly,
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Self {
        match role {
            RoleArgument::Administrator => Self::Administrator,
            RoleArgument::Full => Self::FullAccess,
            RoleArgument::BackupsAndVaults => Self::BackupsAndVaultsFullAccess,
            RoleArgument::ReadOnly => Self::ReadOnlyAccess,
        }
    }
}

/// Does it.
pub async fn run(command: ProjectCommand) -> Result<()> {
    let (ProjectCommand::Create { server, .. } | ProjectCommand::AddUser { server, .. }) = &command;
    let config = crate::config::load(server)?;
    let file = config.data_dir.join("credentials.json");
    let text = std::fs::read_to_string(&file);
    let text =
        text.with_context(|| format!("{} holds no server's data", config.data_dir.display()))?;
    let admin: Credentials = serde_json::from_str(&text)?;
    // A server may be running: it alone writes to the repository.
    let store = LocalStore::open_read_only(&config.repository())?;
    let key = read_master_key(&config.master_key_file())?;
    let repository = Repository::open(Arc::new(store), key).await?;
    let meta = crate::server::open_catalogue(&config).await?;
    let service = Service::new(crate::server::open_parts(
        &config,
        meta.clone(),
        repository,
    )?);
    let made = match &command {
        ProjectCommand::Create { name, user, .. } => {
            let user = user.as_deref().unwrap_or(name);
            service.add_project(name, user).await
        }
        ProjectCommand::AddUser {
            name, user, role, ..
        } => service.add_user(name, user, (*role).into()).await,
    };
    meta.close().await;
    let credentials = Credentials::new(&made?, &admin.endpoint, &admin.region);
    println!("{}", serde_json::to_string_pretty(&credentials)?);
    Ok(())
}
