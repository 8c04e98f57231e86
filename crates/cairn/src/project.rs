//! `cairn project`: tenants, worked on in the catalogue itself.

use std::sync::Arc;

use anyhow::{Context, Result};
use cairn_core::{Parts, Service};
use cairn_repo::{LocalStore, Repository};
use clap::Subcommand;

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
}

/// Does it.
pub async fn run(command: ProjectCommand) -> Result<()> {
    let ProjectCommand::Create { name, user, server } = command;
    let config = crate::config::load(&server)?;
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
    let parts = crate::server::open_parts(&config, meta.clone(), repository)?;
    let service = Service::new(Parts {
        wake: Arc::default(),
        ..parts
    });
    let made = service
        .add_project(&name, user.as_deref().unwrap_or(&name))
        .await?;
    meta.close().await;
    let credentials = Credentials::new(&made, &admin.endpoint, &admin.region);
    println!("{}", serde_json::to_string_pretty(&credentials)?);
    Ok(())
}
