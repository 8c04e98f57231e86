//! `cairn checkpoint`.

use cairn_api::Client;
use cairn_api::backup::ListBackupsQuery;
use cairn_api::checkpoint::{
    Checkpoint, CheckpointParameters, CreateCheckpointRequest, NewCheckpoint,
};
use cairn_types::CheckpointId;
use clap::{Args, Subcommand};

use crate::output::{Printer, gb, mb, time};
use crate::table::{Table, pairs};
use crate::wait::{self, Waiting};
use crate::{Error, backup, find};

/// What can be done with checkpoints.
#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointCommand {
    /// Back up a vault.
    Create(Create),
    /// Show a checkpoint.
    Show {
        /// The checkpoint, by id.
        checkpoint: CheckpointId,
    },
}

/// What is backed up, and how.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// The vault, by id or name.
    vault: String,
    /// The backups' name.
    #[arg(long)]
    name: Option<String>,
    /// What the backups are for.
    #[arg(long)]
    description: Option<String>,
    /// A bound resource, by id or name; may be repeated; all of them if unset.
    #[arg(long = "resource", value_name = "RESOURCE")]
    resources: Vec<String>,
    /// Read everything, not only what changed.
    #[arg(long)]
    full: bool,
    /// Delete the backups after so many days.
    #[arg(long, value_name = "DAYS")]
    keep: Option<i64>,
    #[command(flatten)]
    waiting: Waiting,
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: CheckpointCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    match command {
        CheckpointCommand::Create(new) => create(new, client, printer).await,
        CheckpointCommand::Show { checkpoint } => {
            let checkpoint = client.show_checkpoint(checkpoint).await?.checkpoint;
            printer.print(&checkpoint, || show(&checkpoint))
        }
    }
}

async fn create(new: Create, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let vault = find::vault(client, &new.vault).await?;
    let bound = new.resources.iter().map(|name| find::bound(&vault, name));
    let resources = bound.collect::<Result<Vec<_>, _>>()?;
    let parameters = CheckpointParameters {
        name: new.name,
        description: new.description,
        incremental: new.full.then_some(false),
        resources: Some(resources).filter(|resources| !resources.is_empty()),
        retention_duration_days: new.keep,
        ..Default::default()
    };
    let checkpoint = NewCheckpoint {
        vault_id: vault.id,
        parameters: Some(parameters),
    };
    let begun = client
        .create_checkpoint(&CreateCheckpointRequest { checkpoint })
        .await?
        .checkpoint;
    if !new.waiting.wait {
        return printer.print(&begun, || show(&begun));
    }
    let done = wait::checkpoint(client, &begun, new.waiting.timeout).await?;
    let query = ListBackupsQuery {
        checkpoint_id: Some(done.id),
        ..Default::default()
    };
    let backups = find::backups(client, query).await?;
    printer.print(&done, || {
        let mut text = backup::table(&backups);
        for one in &backups {
            text.push_str(&backup::problems(one));
        }
        text
    })
}

fn show(checkpoint: &Checkpoint) -> String {
    let extra = checkpoint.extra_info.as_ref();
    let mut text = pairs(&[
        ("id", checkpoint.id.to_string()),
        ("status", checkpoint.status.to_string()),
        ("vault", checkpoint.vault.name.clone()),
        (
            "name",
            extra
                .and_then(|extra| extra.name.clone())
                .unwrap_or_default(),
        ),
        (
            "description",
            extra
                .and_then(|extra| extra.description.clone())
                .unwrap_or_default(),
        ),
        ("created", time(Some(checkpoint.created_at))),
    ]);
    let mut table = Table::new(&[
        "RESOURCE", "NAME", "TYPE", "STATUS", ">SIZE", ">BACKUPS", ">USED",
    ]);
    for resource in &checkpoint.vault.resources {
        table.row([
            resource.id.to_string(),
            resource.name.clone(),
            resource.resource_type.to_string(),
            resource.protect_status.to_string(),
            gb(resource.resource_size),
            resource.backup_count.to_string(),
            mb(resource.backup_size),
        ]);
    }
    for skipped in &checkpoint.vault.skipped_resources {
        table.row([
            skipped.id.to_string(),
            skipped.name.clone(),
            skipped.resource_type.to_string(),
            format!("skipped: {} ({})", skipped.reason, skipped.code),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}
