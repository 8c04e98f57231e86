//! `cairn backup`.

use cairn_api::Client;
use cairn_api::backup::{Backup, BackupChange, ListBackupsQuery, UpdateBackupRequest};
use cairn_api::retention::Explanation;
use cairn_types::{BackupStatus, CheckpointId, PolicyId};
use clap::{Args, Subcommand};

use crate::define::{self, Define};
use crate::download::{self, DownloadBackup};
use crate::export::{self, Serve};
use crate::file::{self, Fetch, Files};
use crate::output::{Printer, file_problems, gb, not_at_rest, time};
use crate::table::{Table, pairs};
use crate::wait::{self, Waiting};
use crate::{Error, find};

/// What can be done with backups.
#[derive(Debug, Clone, Subcommand)]
pub enum BackupCommand {
    /// List backups.
    List(List),
    /// Show a backup, and for a server those of its disks.
    Show {
        /// The backup, by id or name.
        backup: String,
    },
    /// Tell why a backup stays, and until when.
    Explain {
        /// The backup, by id or name.
        backup: String,
    },
    /// List files in a backup, without restoring it.
    Files(Files),
    /// Fetch a file or a directory out of a backup.
    Fetch(Fetch),
    /// Download a whole backup: a disk as an image, files as an archive.
    Download(DownloadBackup),
    /// Serve a disk's backup at a socket by NBD, at once and without restoring it:
    /// to boot from it, to mount it, to copy it.
    Serve(Serve),
    /// Make a new machine of a server's backup, at the libvirt of this host.
    Define(Define),
    /// Rename a backup.
    Rename {
        /// The backup, by id or name.
        backup: String,
        /// Its new name.
        name: String,
    },
    /// Delete backups.
    Delete {
        /// The backups, by id or name.
        #[arg(required = true)]
        backups: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// Which backups are listed.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those of a vault, by id or name.
    #[arg(long)]
    vault: Option<String>,
    /// Those of a resource, by id or name.
    #[arg(long)]
    resource: Option<String>,
    /// Those of a checkpoint, by id.
    #[arg(long)]
    checkpoint: Option<CheckpointId>,
    /// Those in a state; may be repeated.
    #[arg(long, value_parser = find::word::<BackupStatus>)]
    status: Vec<BackupStatus>,
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: BackupCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    match command {
        BackupCommand::List(list) => {
            let query = query(list, client).await?;
            let backups = find::backups(client, query).await?;
            printer.print(&backups, || table(&backups))
        }
        BackupCommand::Show { backup } => {
            let backup = find::backup(client, &backup).await?;
            printer.print(&backup, || show(&backup))
        }
        BackupCommand::Explain { backup } => {
            let id = find::backup(client, &backup).await?.id;
            let explanation = client.explain_backup(id).await?.explanation;
            printer.print(&explanation, || explain(&explanation))
        }
        BackupCommand::Files(wish) => file::list(&wish, client, printer).await,
        BackupCommand::Fetch(wish) => file::fetch(&wish, client, printer).await,
        BackupCommand::Download(wish) => download::download(&wish, client, printer).await,
        BackupCommand::Serve(wish) => export::serve(&wish, client, printer).await,
        BackupCommand::Define(wish) => define::define(&wish, client, printer).await,
        BackupCommand::Rename { backup, name } => {
            let id = find::backup(client, &backup).await?.id;
            let request = UpdateBackupRequest {
                backup: BackupChange { name: Some(name) },
            };
            let backup = client.update_backup(id, &request).await?.backup;
            printer.print(&backup, || show(&backup))
        }
        BackupCommand::Delete { backups, waiting } => {
            delete(&backups, &waiting, client, printer).await
        }
    }
}

fn explain(explanation: &Explanation) -> String {
    let policy = |id: Option<PolicyId>| id.map(|id| id.to_string()).unwrap_or_default();
    let text = pairs(&[
        ("backup", explanation.backup_id.to_string()),
        ("kept by", explanation.kept_by.join(", ")),
        ("until", time(explanation.until)),
        ("made by policy", policy(explanation.policy_id)),
        ("rules of policy", policy(explanation.rules_of)),
        ("locked", explanation.locked.to_string()),
    ]);
    format!("{text}\n{}\n", explanation.text)
}

async fn query(list: List, client: &Client) -> Result<ListBackupsQuery, Error> {
    let vault_id = match &list.vault {
        Some(vault) => Some(find::vault(client, vault).await?.id),
        None => None,
    };
    let resource_id = list
        .resource
        .as_ref()
        .and_then(|resource| resource.parse().ok());
    Ok(ListBackupsQuery {
        vault_id,
        resource_id,
        resource_name: list.resource.filter(|_| resource_id.is_none()),
        checkpoint_id: list.checkpoint,
        status: list.status,
        ..Default::default()
    })
}

/// Deletes backups one after the other. All are looked up before the first is
/// deleted, so that a misspelt name deletes nothing.
async fn delete(
    names: &[String],
    waiting: &Waiting,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let mut backups = Vec::new();
    for name in names {
        backups.push(find::backup(client, name).await?);
    }
    for backup in &backups {
        client.delete_backup(backup.id).await?;
    }
    for backup in &backups {
        if waiting.wait {
            wait::backup_gone(client, backup.id, waiting.timeout).await?;
            printer.say(&format!(
                "backup {} ({}) is deleted",
                backup.name, backup.id
            ))?;
        } else {
            printer.say(&format!(
                "backup {} ({}) is being deleted",
                backup.name, backup.id
            ))?;
        }
    }
    Ok(())
}

/// Backups, one a line.
pub(crate) fn table(backups: &[Backup]) -> String {
    let mut table = Table::new(&[
        "ID", "NAME", "RESOURCE", "STATUS", ">SIZE", "KIND", "CREATED",
    ]);
    for backup in backups {
        table.row([
            backup.id.to_string(),
            backup.name.clone(),
            backup.resource_name.clone(),
            backup.status.to_string(),
            gb(backup.resource_size),
            kind(backup),
            time(Some(backup.created_at)),
        ]);
    }
    table.render()
}

fn kind(backup: &Backup) -> String {
    if backup.incremental {
        "incremental"
    } else {
        "full"
    }
    .to_owned()
}

/// What the backup is not that it was to be: of applications at rest, of all files as they were.
pub(crate) fn problems(backup: &Backup) -> String {
    let rest = backup.extend_info.app_consistency.as_ref();
    let rest = rest.filter(|told| told.app_consistency_status == "0");
    let why = rest.map(|told| told.app_consistency_error_message.as_str());
    let found = backup.extend_info.file_problems.as_ref();
    not_at_rest(&backup.resource_name, why) + &file_problems(&backup.resource_name, found)
}

fn show(backup: &Backup) -> String {
    let mut text = pairs(&[
        ("id", backup.id.to_string()),
        ("name", backup.name.clone()),
        (
            "description",
            backup.description.clone().unwrap_or_default(),
        ),
        ("status", backup.status.to_string()),
        (
            "resource",
            format!("{} ({})", backup.resource_name, backup.resource_id),
        ),
        ("type", backup.resource_type.to_string()),
        ("size", gb(backup.resource_size)),
        ("kind", kind(backup)),
        ("vault", backup.vault_id.to_string()),
        ("checkpoint", backup.checkpoint_id.to_string()),
        ("created", time(Some(backup.created_at))),
        ("protected", time(backup.protected_at)),
        ("expires", time(backup.expired_at)),
    ]);
    if !backup.children.is_empty() {
        text.push('\n');
        text.push_str(&table(&backup.children));
    }
    text.push_str(&problems(backup));
    text
}
