//! `cairn restore`.

use cairn_api::backup::{Backup, NewRestore, RestoreBackupRequest, RestoreDetails, RestoreMapping};
use cairn_api::{Client, ProtectableType};
use cairn_types::{ResourceId, ResourceType};
use clap::Args;

use crate::output::Printer;
use crate::wait::{self, Waiting};
use crate::{Error, find, task};

/// Which backup is restored, and where to.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// The backup, by id or name.
    backup: String,
    /// The resource to restore to, by id or name. The backup of a disk or a server only goes
    /// back to the resource it was made of: a lost disk needs an empty image of the same name
    /// first. One that came from another project, site or region goes to any that it fits on,
    /// and that of a share or a host to any share or host.
    #[arg(long, value_name = "RESOURCE")]
    to: Option<String>,
    /// For a server: a disk's backup (by id or the disk's name) and the disk it goes
    /// to (by id or name); may be repeated; every disk to itself if unset.
    #[arg(long, value_name = "CHILD=VOLUME", value_parser = split)]
    mapping: Vec<(String, String)>,
    /// For files: the folder below the share, or the path on the host, to restore into, which
    /// is made if it is not there. Without it, files go back to where they were.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<String>,
    /// For a server that Cairn can turn off and on: whether it runs afterwards. Started where it is
    /// known how, if unset.
    #[arg(long, value_name = "BOOL")]
    power_on: Option<bool>,
    /// For files: what of the backup, by its path.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// Splits a mapping, for clap.
fn split(text: &str) -> Result<(String, String), String> {
    let (child, volume) = text.split_once('=').ok_or("it takes CHILD=VOLUME")?;
    Ok((child.to_owned(), volume.to_owned()))
}

/// Begins a restore, and waits for it if told so.
pub(crate) async fn execute(
    restore: Restore,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let backup = find::backup(client, &restore.backup).await?;
    let request = RestoreBackupRequest {
        restore: target(&restore, &backup, client).await?,
    };
    let begun = client.restore_backup(backup.id, &request).await?;
    if !restore.waiting.wait {
        return printer.print(&begun, || {
            format!(
                "restore of {} has begun: task {}\n",
                backup.name, begun.job_id
            )
        });
    }
    let log = wait::task(client, begun.job_id, restore.waiting.timeout).await?;
    printer.print(&log, || task::show(&log))
}

/// Where the backup goes, as the service wants it said.
async fn target(restore: &Restore, backup: &Backup, client: &Client) -> Result<NewRestore, Error> {
    let types: &[_] = match backup.resource_type {
        ResourceType::Volume => &[ProtectableType::Disk],
        ResourceType::Turbo => &[ProtectableType::Turbo, ProtectableType::Native],
        ResourceType::NativeServer => &[ProtectableType::Native, ProtectableType::Turbo],
        ResourceType::Desktop => &[ProtectableType::Workspace],
        _ => &[ProtectableType::Server],
    };
    let to = match &restore.to {
        Some(name) => resource(client, types, name).await?,
        None => backup.resource_id,
    };
    if backup.resource_type != ResourceType::Server && !restore.mapping.is_empty() {
        return Err(Error::Usage(
            "--mapping is for the backup of a server".to_owned(),
        ));
    }
    let is_files = matches!(
        backup.resource_type,
        ResourceType::Turbo | ResourceType::NativeServer
    );
    let details = RestoreDetails {
        destination_path: restore.folder.clone(),
        source_path: restore.path.clone(),
    };
    let asked = restore.folder.is_some() || restore.path.is_some();
    if asked && !is_files {
        return Err(Error::Usage(
            "--folder and --path are for the backup of a share or a host".to_owned(),
        ));
    }
    if backup.resource_type != ResourceType::Server && restore.power_on.is_some() {
        return Err(Error::Usage(
            "--power-on is for the backup of a server".to_owned(),
        ));
    }
    let details = asked.then_some(details);
    Ok(match backup.resource_type {
        ResourceType::Server | ResourceType::BareMetalServer => {
            let mappings = mappings(restore, backup, client).await?;
            NewRestore {
                server_id: Some(to),
                mappings: Some(mappings),
                power_on: restore.power_on,
                ..Default::default()
            }
        }
        ResourceType::Volume => NewRestore {
            volume_id: Some(to),
            ..Default::default()
        },
        ResourceType::Turbo | ResourceType::NativeServer | ResourceType::Desktop => NewRestore {
            resource_id: Some(to),
            details,
            ..Default::default()
        },
    })
}

/// Which disk's backup goes to which disk.
async fn mappings(
    restore: &Restore,
    backup: &Backup,
    client: &Client,
) -> Result<Vec<RestoreMapping>, Error> {
    let to_itself = |child: &Backup| RestoreMapping {
        backup_id: child.id,
        volume_id: child.resource_id,
    };
    if restore.mapping.is_empty() {
        return Ok(backup.children.iter().map(to_itself).collect());
    }
    let mut mappings = Vec::new();
    for (child, volume) in &restore.mapping {
        let children = backup.children.iter();
        let found =
            children.filter(|one| one.id.to_string() == *child || one.resource_name == *child);
        let found = found.map(|one| one.id).collect();
        let backup_id = find::only("disk in the backup", child, found, ToString::to_string)?;
        let volume_id = resource(client, &[ProtectableType::Disk], volume).await?;
        mappings.push(RestoreMapping {
            backup_id,
            volume_id,
        });
    }
    Ok(mappings)
}

/// A resource by id, which the service checks, or by name.
async fn resource(
    client: &Client,
    types: &[ProtectableType],
    text: &str,
) -> Result<ResourceId, Error> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(find::protectable(client, types, text).await?.id),
    }
}
