//! `cairn repo`: a repository and its master key are enough to list,
//! verify, repair and restore everything in it.

mod verify;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cairn_cli::Format;
use cairn_repo::{Listed, Project, Repaired, Repository, RestoreTree, TreeSummary};
use cairn_source::{Folder, FolderOptions};
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use clap::{Args, Subcommand};
use object_store::ObjectStore;

use crate::master_key::{self, Opener};
use crate::store::StoreConfig;
use crate::{ServerArguments, config};

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
    /// Checks that every object is as it was written. Needs no key.
    ///
    /// Whoever holds only a copy of the repository can do this. It does not see that an
    /// object is gone: that is for `verify`. A server may be running.
    Check {
        /// The repository's folder.
        #[arg(long, default_value = "cairn-data/repository")]
        repository: PathBuf,
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
    /// Writes a disk's backup into a new raw image, or a share's into a folder.
    ///
    /// An image is removed if that fails. A folder is made if it is not there; what it
    /// holds stays, but for entries that the backup has others of.
    Restore {
        #[command(flatten)]
        place: Place,
        /// The backup of a disk or a share.
        backup: BackupId,
        /// The image to make, or the folder.
        target: PathBuf,
        /// Of a share only the entry with this path, and what is below it.
        #[arg(long)]
        path: Option<PathBuf>,
    },
}

/// Where the repository is, and what opens it.
#[derive(Debug, Args)]
pub struct Place {
    /// The server's configuration, which names both; needed for a bucket.
    #[arg(long, conflicts_with = "repository")]
    config: Option<PathBuf>,
    /// The repository's folder.
    #[arg(long, default_value = "cairn-data/repository")]
    repository: PathBuf,
    /// The file that holds the master key.
    #[arg(long)]
    master_key_file: Option<PathBuf>,
}

/// A place, found.
struct Found {
    store: StoreConfig,
    master_key_file: PathBuf,
}

/// Does it.
pub async fn run(command: RepoCommand, output: Format) -> Result<()> {
    match command {
        RepoCommand::List { place, json: true } => list(&place, Format::Json).await,
        RepoCommand::List { place, .. } => list(&place, output).await,
        RepoCommand::Verify { place, full } => verify::verify(&place, full, output).await,
        RepoCommand::Check { repository } => verify::check(&repository, output).await,
        RepoCommand::Repair { place } => repair(&place, output).await,
        RepoCommand::RotateKey {
            place,
            new_master_key_file,
        } => rotate_key(&place, new_master_key_file.as_deref()).await,
        RepoCommand::Restore {
            place,
            backup,
            target,
            path,
        } => restore(&place, backup, &target, path.as_deref()).await,
    }
}

impl Place {
    fn find(&self) -> Result<Found> {
        let (store, key) = match &self.config {
            Some(path) => {
                let config = config::load(&ServerArguments::of(path))?;
                (config.repository.clone(), config.master_key_file())
            }
            None => {
                let store = StoreConfig::folder(self.repository.clone());
                (store, PathBuf::from("cairn-data/master.key"))
            }
        };
        Ok(Found {
            store,
            master_key_file: self.master_key_file.clone().unwrap_or(key),
        })
    }

    /// Opens the repository for reading only, beside a server or without one.
    async fn open_read_only(&self) -> Result<Repository> {
        let found = self.find()?;
        found.opened(found.store.open_read_only().await?).await
    }

    /// Opens the repository for writing, which its server must not have open.
    async fn open_for_writing(&self) -> Result<Repository> {
        let (found, store) = self.store_for_writing().await?;
        Ok(found.opened(store).await?.for_writing().await?)
    }

    async fn store_for_writing(&self) -> Result<(Found, Arc<dyn ObjectStore>)> {
        // Opening a folder for writing makes it: what is no repository is found out before.
        self.open_read_only().await?;
        let found = self.find()?;
        let store = found.store.open().await?;
        Ok((found, store))
    }
}

impl Found {
    async fn opened(&self, store: Arc<dyn ObjectStore>) -> Result<Repository> {
        let (repository, opener) = master_key::open(store, &self.master_key_file).await?;
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
        "tree": backup.tree.as_ref().map(tree_row),
    })
}

fn tree_row(tree: &TreeSummary) -> serde_json::Value {
    let listed = tree.listed.iter().map(ToString::to_string);
    serde_json::json!({
        "files": tree.files,
        "directories": tree.directories,
        "others": tree.others,
        "problems": tree.problems,
        "listed": listed.collect::<Vec<_>>(),
    })
}

fn print_json(rows: &Vec<serde_json::Value>) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(rows)?);
    Ok(())
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
    let (found, store) = place.store_for_writing().await?;
    let file = &found.master_key_file;
    let rotated = master_key::rotate(store, file, given).await;
    rotated.context("the rotation is not finished: do it again")?;
    println!(
        "{} holds the new master key: keep a copy of it elsewhere",
        file.display()
    );
    Ok(())
}

async fn restore(
    place: &Place,
    backup: BackupId,
    target: &Path,
    path: Option<&Path>,
) -> Result<()> {
    for (_, project) in projects(&place.open_read_only().await?).await? {
        let found = match project.find(backup).await {
            Err(error) if error.kind() == Kind::NotFound => continue,
            found => found?,
        };
        if !found.children.is_empty() {
            bail!("{backup} is a server's backup: restore its disks, each by its own id");
        }
        if found.tree.is_some() {
            return restore_tree(&project, backup, target, path).await;
        }
        if path.is_some() {
            bail!("{backup} is a disk's backup: --path is for the backup of a share");
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
        place.find()?.store.shown()
    )
}

/// Writes a share's backup, or a part of it, into a folder.
async fn restore_tree(
    project: &Project,
    backup: BackupId,
    target: &Path,
    path: Option<&Path>,
) -> Result<()> {
    let folder = target.display();
    let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
    let made: Vec<_> = target.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(target).with_context(|| format!("cannot make {folder}"))?;
    let opened = Folder::open(target, FolderOptions::default());
    let opened = opened.with_context(|| format!("cannot open {folder}"))?;
    let path = path.unwrap_or(Path::new("")).as_os_str().as_bytes();
    let job = RestoreTree {
        backup,
        path: path.to_vec(),
        target: Arc::new(opened),
        progress: Arc::new(Progress::default()),
    };
    let restored = project.restore_tree(job).await;
    if restored.is_err() {
        // What is empty was made for nothing.
        let _ = made.iter().try_for_each(std::fs::remove_dir);
    }
    let restored = restored?;
    for problem in &restored.listed {
        eprintln!("cairn: {problem}");
    }
    println!(
        "restored {}, {} bytes",
        counted(restored.files, "file"),
        restored.size_bytes
    );
    match restored.problems {
        0 => Ok(()),
        found => bail!(
            "{} could not be restored with all that they had",
            entries(found)
        ),
    }
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        _ => format!("{count} entries"),
    }
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
