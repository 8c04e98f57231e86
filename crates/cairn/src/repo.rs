//! `cairn repo`: a repository folder and its master key are enough to list,
//! verify and restore everything in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cairn_repo::{Listed, LocalStore, Project, Repository, VerifyLevel};
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use clap::{Args, Subcommand};

use crate::data_dir::read_master_key;

/// What can be done with a repository alone.
#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Lists the backups in the repository.
    List {
        #[command(flatten)]
        place: Place,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Checks that every backup can be restored, and names those that cannot.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Reads and decrypts all data, not only what names it.
        #[arg(long)]
        full: bool,
    },
    /// Writes a disk's backup into a new raw image.
    Restore {
        #[command(flatten)]
        place: Place,
        /// The backup of a disk.
        backup: BackupId,
        /// The image to make.
        target: PathBuf,
    },
}

/// Where the repository is, and what opens it.
#[derive(Debug, Args)]
pub struct Place {
    /// The repository's folder.
    #[arg(long, default_value = "cairn-data/repository")]
    repository: PathBuf,
    /// The file that holds the master key.
    #[arg(long, default_value = "cairn-data/master.key")]
    master_key_file: PathBuf,
}

/// Does it.
pub async fn run(command: RepoCommand) -> Result<()> {
    match command {
        RepoCommand::List { place, json } => list(&place, json).await,
        RepoCommand::Verify { place, full } => verify(&place, full).await,
        RepoCommand::Restore {
            place,
            backup,
            target,
        } => restore(&place, backup, &target).await,
    }
}

async fn projects(place: &Place) -> Result<Vec<(ProjectId, Project)>> {
    let key = read_master_key(&place.master_key_file)?;
    let store = LocalStore::open_read_only(&place.repository);
    let store = store.with_context(|| format!("cannot open {}", place.repository.display()))?;
    let repository = Repository::open(Arc::new(store), key).await?;
    let mut projects = Vec::new();
    for id in repository.projects().await? {
        projects.push((id, repository.existing_project(id).await?));
    }
    Ok(projects)
}

async fn list(place: &Place, json: bool) -> Result<()> {
    let mut rows = Vec::new();
    for (_, project) in projects(place).await? {
        rows.extend(project.list().await?);
    }
    if json {
        let rows: Vec<_> = rows.iter().map(row).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "{:36}  {:26}  {:>14}  {:24}  NAME",
        "BACKUP", "CREATED", "BYTES", "RESOURCE"
    );
    for backup in &rows {
        let info = &backup.info;
        let indent = if info.parent.is_some() { "  " } else { "" };
        println!(
            "{:36}  {:26}  {:>14}  {:24}  {indent}{}",
            info.id.to_string(),
            info.created_at.to_string(),
            backup.size_bytes,
            info.resource_name,
            info.name
        );
    }
    Ok(())
}

fn row(backup: &Listed) -> serde_json::Value {
    serde_json::json!({
        "info": backup.info,
        "created_at": backup.info.created_at.to_string(),
        "size_bytes": backup.size_bytes,
        "root": backup.root.to_string(),
    })
}

async fn verify(place: &Place, full: bool) -> Result<()> {
    let level = if full {
        VerifyLevel::Full
    } else {
        VerifyLevel::Quick
    };
    let (mut backups, mut problems) = (0, 0);
    for (id, project) in projects(place).await? {
        let report = project.verify(level, Arc::default()).await?;
        println!(
            "project {id}: {} backups, {} packs, {} bytes read",
            report.backups, report.packs, report.read_bytes
        );
        for hurt in &report.hurt {
            println!(
                "  backup {} cannot be restored: {}",
                hurt.backup, hurt.problem
            );
        }
        for object in &report.damaged {
            println!("  damaged: {object}");
        }
        for backup in &report.unacknowledged {
            println!("  unfinished, the next collection removes it: {backup}");
        }
        backups += report.backups;
        problems += report.hurt.len() + report.damaged.len();
    }
    if problems > 0 {
        bail!("{problems} problems in {backups} backups");
    }
    println!("{backups} backups are whole");
    Ok(())
}

async fn restore(place: &Place, backup: BackupId, target: &Path) -> Result<()> {
    for (_, project) in projects(place).await? {
        let found = match project.find(backup).await {
            Err(error) if error.kind() == Kind::NotFound => continue,
            found => found?,
        };
        if !found.children.is_empty() {
            bail!("{backup} is a server's backup: restore its disks, each by its own id");
        }
        let disk = cairn_source::create_raw(target, found.size_bytes)?;
        project
            .restore_disk(backup, disk, Arc::new(Progress::default()))
            .await?;
        println!("restored {} bytes, root {}", found.size_bytes, found.root);
        return Ok(());
    }
    bail!(
        "there is no backup {backup} in {}",
        place.repository.display()
    )
}
