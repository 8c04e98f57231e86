//! Writes the repository that `tests/golden/1` is a copy of: two states of a small
//! disk, a disk that was never written, a group of the two disks, and a tree of
//! files. `write_golden FOLDER`; the folder must not exist.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_repo::{LocalStore, MasterKey, Project, Repository, WriteDisk, WriteTree};
use cairn_testkit::{Folder, FolderOptions, MemoryDisk, backup_info};
use cairn_types::{BackupId, Progress, ProjectId, Timestamp};

#[path = "../tests/golden/content.rs"]
mod content;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("usage: write_golden FOLDER")?;
    std::fs::create_dir(&folder)?;
    let store = Arc::new(LocalStore::open(&folder)?);
    let repository = Repository::create(store, &MasterKey::from_hex(content::MASTER)?).await?;
    let id = ProjectId::random();
    let project = repository.project(id).await?;
    let first = write(&project, id, 1, MemoryDisk::with(&content::first()), None).await?;
    let second = MemoryDisk::with(&content::second());
    let second = write(&project, id, 2, second, Some(first)).await?;
    let zero = write(&project, id, 3, MemoryDisk::new(content::ZERO_BYTES), None).await?;
    project
        .write_group(backup_info(id, 4), vec![second, zero])
        .await?;
    let files = tempfile::tempdir()?;
    content::fill(files.path())?;
    let tree = WriteTree {
        info: backup_info(id, 5),
        parent: None,
        reader: Arc::new(Folder::open(files.path(), FolderOptions::default())?),
        started_at: Timestamp::from_micros(5_000_000),
        progress: Arc::new(Progress::default()),
        reread_all: false,
    };
    project.write_tree(tree).await?;
    Ok(())
}

/// Saves a state of a disk.
async fn write(
    project: &Project,
    id: ProjectId,
    seconds: i64,
    disk: MemoryDisk,
    parent: Option<BackupId>,
) -> Result<BackupId> {
    let info = backup_info(id, seconds);
    let backup = info.id;
    let job = WriteDisk {
        info,
        parent,
        reader: Arc::new(disk),
        progress: Arc::new(Progress::default()),
        reread_all: false,
    };
    project.write_disk(job).await?;
    Ok(backup)
}
