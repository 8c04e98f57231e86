//! `cairn repo`: a repository folder and its master key are enough to list,
//! verify, repair and restore everything in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_cli::Format;
use cairn_repo::{Listed, LocalStore, Project, Repaired, Repository, VerifyLevel, VerifyReport};
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use clap::{Args, Subcommand};

use crate::master_key::{self, Opener};

/// How often a verification looks before it takes what it finds for damage.
const LOOKS: usize = 3;
/// How long it leaves a running server to get on between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

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
    ///
    /// A server may be running. It takes away what no backup needs any more, which looks
    /// like damage to whoever is just reading it; so where there are problems the repository
    /// is opened anew and looked at again, three times at most, and the last look counts.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Decrypts all data too, rather than compare what is stored with its hash.
        #[arg(long)]
        full: bool,
    },
    /// Takes damaged packs out of use, so that the next backup stores anew what was lost.
    ///
    /// The server must be stopped. What is whole in a damaged pack is kept. Back up again
    /// afterwards, in full: where the lost bytes are still on the disk, the backups that
    /// were hurt become whole.
    Repair {
        #[command(flatten)]
        place: Place,
    },
    /// Replaces the master key by a new one, and its file with it.
    ///
    /// The server must be stopped. The new key is kept beside the old one, under the name
    /// with `.new` behind it, until it opens the repository; then it takes the old one's
    /// place, and the old one opens nothing any more. If this is interrupted, do it again.
    /// One small object is written, however much the repository holds: its data stays as it
    /// is, so that whoever had the old key and a copy of the old `config` still reads it.
    RotateKey {
        #[command(flatten)]
        place: Place,
        /// A file with the new key, 64 hexadecimal digits; without one, a random key.
        #[arg(long)]
        new_master_key_file: Option<PathBuf>,
    },
    /// Writes a disk's backup into a new raw image, which is removed if that fails.
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
pub async fn run(command: RepoCommand, output: Format) -> Result<()> {
    match command {
        RepoCommand::List { place, json: true } => list(&place, Format::Json).await,
        RepoCommand::List { place, .. } => list(&place, output).await,
        RepoCommand::Verify { place, full } => verify(&place, full, output).await,
        RepoCommand::Repair { place } => repair(&place, output).await,
        RepoCommand::RotateKey {
            place,
            new_master_key_file,
        } => rotate_key(&place, new_master_key_file.as_deref()).await,
        RepoCommand::Restore {
            place,
            backup,
            target,
        } => restore(&place, backup, &target).await,
    }
}

impl Place {
    /// Opens the repository for reading only, beside a server or without one.
    async fn open_read_only(&self) -> Result<Repository> {
        self.open(LocalStore::open_read_only(&self.repository))
            .await
    }

    /// Opens the repository for writing, which its server must not have open.
    async fn open_for_writing(&self) -> Result<Repository> {
        // Opening a folder for writing makes it: what is no repository is found out before.
        self.open_read_only().await?;
        let opened = self.open(LocalStore::open(&self.repository)).await?;
        Ok(opened.for_writing().await?)
    }

    async fn open(&self, store: cairn_repo::Result<LocalStore>) -> Result<Repository> {
        let store = store.with_context(|| format!("cannot open {}", self.repository.display()))?;
        let opened = master_key::open(Arc::new(store), &self.master_key_file).await;
        let (repository, opener) = opened?;
        if opener == Opener::New {
            eprintln!(
                "cairn: a rotation of the master key was interrupted; its new key opens the repository"
            );
        }
        Ok(repository)
    }
}

async fn projects(repository: &Repository) -> Result<Vec<(ProjectId, Project)>> {
    let mut projects = Vec::new();
    for id in repository.projects().await? {
        projects.push((id, repository.existing_project(id).await?));
    }
    Ok(projects)
}

async fn list(place: &Place, output: Format) -> Result<()> {
    let mut rows = Vec::new();
    for (_, project) in projects(&place.open_read_only().await?).await? {
        rows.extend(project.list().await?);
    }
    if output == Format::Json {
        return print_json(&rows.iter().map(row).collect());
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

fn print_json(rows: &Vec<serde_json::Value>) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(rows)?);
    Ok(())
}

type Reports = Vec<(ProjectId, VerifyReport)>;

async fn verify(place: &Place, full: bool, output: Format) -> Result<()> {
    let level = if full {
        VerifyLevel::Full
    } else {
        VerifyLevel::Quick
    };
    let reports = verify_until_sure(place, level).await?;
    match output {
        Format::Json => print_json(&reports.iter().map(report_row).collect())?,
        Format::Table => reports.iter().for_each(print_report),
    }
    let backups = reports.iter().map(|(_, report)| report.backups).sum();
    let backups = counted(backups, "backup");
    match problems(&reports).len() as u64 {
        0 if output == Format::Table => println!("{backups}, no problems"),
        0 => {}
        found => bail!("{} in {backups}", counted(found, "problem")),
    }
    Ok(())
}

/// Looks until there is no problem, or the same ones were found twice: a running
/// server takes packs away, and never the same ones again.
async fn verify_until_sure(place: &Place, level: VerifyLevel) -> Result<Reports> {
    let mut reports = verify_once(place, level).await?;
    for _ in 1..LOOKS {
        let found = problems(&reports);
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let again = verify_once(place, level).await?;
        let agreed = problems(&again) == found;
        reports = again;
        if agreed {
            break;
        }
    }
    Ok(reports)
}

/// One look, by a repository that remembers nothing of an earlier one.
async fn verify_once(place: &Place, level: VerifyLevel) -> Result<Reports> {
    let mut reports = Vec::new();
    for (id, project) in projects(&place.open_read_only().await?).await? {
        reports.push((id, project.verify(level, Arc::default()).await?));
    }
    Ok(reports)
}

/// Everything in the reports that should not be.
fn problems(reports: &Reports) -> Vec<String> {
    let problems = reports.iter().flat_map(|(_, report)| {
        let hurt = report
            .hurt
            .iter()
            .map(|hurt| format!("{} {}", hurt.backup, hurt.problem));
        hurt.chain(report.damaged.iter().cloned())
    });
    problems.collect()
}

fn print_report((project, report): &(ProjectId, VerifyReport)) {
    println!(
        "project {project}: {}, {}, {} read",
        counted(report.backups, "backup"),
        counted(report.packs, "pack"),
        counted(report.read_bytes, "byte"),
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
}

fn report_row((project, report): &(ProjectId, VerifyReport)) -> serde_json::Value {
    let hurt = report.hurt.iter().map(
        |hurt| serde_json::json!({ "backup": hurt.backup.to_string(), "problem": hurt.problem }),
    );
    let unacknowledged = report.unacknowledged.iter().map(BackupId::to_string);
    serde_json::json!({
        "project": project.to_string(),
        "backups": report.backups,
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "hurt": hurt.collect::<Vec<_>>(),
        "damaged": report.damaged,
        "unacknowledged": unacknowledged.collect::<Vec<_>>(),
    })
}

/// A number of things, in words.
fn counted(count: u64, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

async fn repair(place: &Place, output: Format) -> Result<()> {
    let mut rows = Vec::new();
    for (id, project) in projects(&place.open_for_writing().await?).await? {
        let repaired = project.repair(Arc::default()).await;
        let repaired = repaired.with_context(|| format!("cannot repair project {id}"))?;
        match output {
            Format::Json => rows.push(repaired_row(id, &repaired)),
            Format::Table => print_repaired(id, &repaired),
        }
    }
    match output {
        Format::Json => print_json(&rows)?,
        Format::Table => println!("what was lost is stored anew by the next full backup"),
    }
    Ok(())
}

fn print_repaired(project: ProjectId, repaired: &Repaired) {
    println!(
        "project {project}: {} taken out of use, {} lost",
        counted(repaired.packs.len() as u64, "damaged pack"),
        counted(repaired.lost_chunks, "chunk"),
    );
    for pack in &repaired.packs {
        println!("  pack {pack}");
    }
}

fn repaired_row(project: ProjectId, repaired: &Repaired) -> serde_json::Value {
    let packs = repaired.packs.iter().map(ToString::to_string);
    serde_json::json!({
        "project": project.to_string(),
        "packs": packs.collect::<Vec<_>>(),
        "lost_chunks": repaired.lost_chunks,
    })
}

async fn rotate_key(place: &Place, given: Option<&Path>) -> Result<()> {
    // Opening a folder for writing makes it: what is no repository is found out before.
    place.open_read_only().await?;
    let store = LocalStore::open(&place.repository).context("the server must be stopped")?;
    let file = &place.master_key_file;
    let rotated = master_key::rotate(Arc::new(store), file, given).await;
    rotated.context("the rotation is not finished: do it again")?;
    println!(
        "{} holds the new master key: keep a copy of it elsewhere",
        file.display()
    );
    Ok(())
}

async fn restore(place: &Place, backup: BackupId, target: &Path) -> Result<()> {
    for (_, project) in projects(&place.open_read_only().await?).await? {
        let found = match project.find(backup).await {
            Err(error) if error.kind() == Kind::NotFound => continue,
            found => found?,
        };
        if !found.children.is_empty() {
            bail!("{backup} is a server's backup: restore its disks, each by its own id");
        }
        let disk = cairn_source::create_raw(target, found.size_bytes)?;
        // From here on the image is this command's own.
        let restored = project
            .restore_disk(backup, disk, Arc::new(Progress::default()))
            .await;
        if let Err(error) = restored {
            remove_partial(target);
            return Err(error.into());
        }
        println!("restored {} bytes, root {}", found.size_bytes, found.root);
        return Ok(());
    }
    bail!(
        "there is no backup {backup} in {}",
        place.repository.display()
    )
}

/// Removes an image that holds a part of a disk, which somebody could take for all of it.
fn remove_partial(image: &Path) {
    if let Err(error) = std::fs::remove_file(image) {
        eprintln!(
            "cairn: {} is not whole and cannot be removed: {error}",
            image.display()
        );
    }
}
