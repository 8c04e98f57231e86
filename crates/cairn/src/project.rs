//! `cairn project`: tenants and their users, worked on in the catalogue itself.

use anyhow::{Context, Result};
use cairn_audit::{Stage, Trace};
use cairn_core::{FirstCredentials, Service};
use cairn_types::{Clock, ProjectId, Role};
use clap::{Subcommand, ValueEnum};

use crate::ServerArguments;
use crate::clock::SystemClock;
use crate::data_dir::Credentials;
use crate::master_key;

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
    /// Adds a new user to a project and prints the credentials, once.
    AddUser {
        /// The project's name or id.
        name: String,
        /// The user's name.
        user: String,
        /// What the user may do in the project.
        #[arg(long)]
        role: RoleArgument,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Gives an existing user another role in a project, or a role in another project.
    Grant {
        /// The project's name or id.
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

/// Does it. Like a call that changes something, it leaves a trace before and after.
pub async fn run(command: ProjectCommand) -> Result<()> {
    let (ProjectCommand::Create { server, .. }
    | ProjectCommand::AddUser { server, .. }
    | ProjectCommand::Grant { server, .. }) = &command;
    let config = crate::config::load(server)?;
    let file = config.data_dir.join("credentials.json");
    let text = std::fs::read_to_string(&file);
    let text =
        text.with_context(|| format!("{} holds no server's data", config.data_dir.display()))?;
    let admin: Credentials = serde_json::from_str(&text)?;
    // A server may be running: it alone writes to the repository.
    let store = config.repository.open_read_only().await?;
    let (repository, _) = master_key::open(store, &config.master_key_file()).await?;
    let meta = crate::server::open_catalogue(&config).await?;
    let trail = crate::server::open_trail(&config, &repository)?;
    let service = Service::new(crate::server::open_parts(
        &config,
        meta.clone(),
        repository,
    )?);
    let asked = trace(&command);
    trail.add(&asked).await?;
    let done = carry_out(&service, &command).await;
    let (project, made) = match &done {
        Ok((project, made)) => (Some(*project), made.as_ref()),
        Err(_) => (None, None),
    };
    let answered = Trace {
        time: SystemClock.now(),
        stage: Stage::Answered,
        project_id: project,
        status: Some(if done.is_ok() { 200 } else { 400 }),
        ..asked
    };
    trail.add(&answered).await?;
    meta.close().await;
    if let Some(made) = made {
        let credentials = Credentials::new(made, &admin.endpoint, &admin.region);
        println!("{}", serde_json::to_string_pretty(&credentials)?);
    }
    done?;
    Ok(())
}

/// The project that something was done to, and whom it made.
async fn carry_out(
    service: &Service,
    command: &ProjectCommand,
) -> cairn_core::Result<(ProjectId, Option<FirstCredentials>)> {
    let made = match command {
        ProjectCommand::Create { name, user, .. } => {
            let user = user.as_deref().unwrap_or(name);
            service.add_project(name, user).await?
        }
        ProjectCommand::AddUser {
            name, user, role, ..
        } => service.add_user(name, user, (*role).into()).await?,
        ProjectCommand::Grant {
            name, user, role, ..
        } => {
            let (_, project) = service.grant_role(name, user, (*role).into()).await?;
            return Ok((project.id, None));
        }
    };
    Ok((made.project.id, Some(made)))
}

/// The trace of a command: nobody signed it, who may use the data directory may do it.
fn trace(command: &ProjectCommand) -> Trace {
    let (name, target) = match command {
        ProjectCommand::Create { name, user, .. } => {
            let user = user.as_deref().unwrap_or(name);
            ("createProject", format!("project {name}, user {user}"))
        }
        ProjectCommand::AddUser {
            name, user, role, ..
        } => (
            "createUser",
            format!("project {name}, user {user}, {}", Role::from(*role)),
        ),
        ProjectCommand::Grant {
            name, user, role, ..
        } => (
            "grantRole",
            format!("project {name}, user {user}, {}", Role::from(*role)),
        ),
    };
    Trace {
        time: SystemClock.now(),
        stage: Stage::Asked,
        trace_name: name.to_owned(),
        resource_type: "project".to_owned(),
        resource_id: None,
        method: "local".to_owned(),
        target,
        request_id: format!("req-{}", uuid::Uuid::new_v4()),
        user_id: None,
        access_key: None,
        project_id: None,
        source_ip: None,
        forwarded_for: None,
        status: None,
        error_code: None,
    }
}
