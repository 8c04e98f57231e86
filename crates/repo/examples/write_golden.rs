//! Writes the repository that `tests/golden/1` is a copy of: two states of a
//! small disk and a group of the second. `write_golden FOLDER`; the folder must not exist.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_repo::{LocalStore, MasterKey, Repository, WriteDisk};
use cairn_testkit::{MemoryDisk, backup_info};
use cairn_types::{Progress, ProjectId};

#[path = "../tests/golden/content.rs"]
mod content;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("usage: write_golden FOLDER")?;
    std::fs::create_dir(&folder)?;
    let store = Arc::new(LocalStore::open(&folder)?);
    let repository = Repository::create(store, &MasterKey::from_hex(content::MASTER)?).await?;
    let id = ProjectId::random();
    let project = repository.project(id).await?;
    let mut parent = None;
    for (seconds, bytes) in (1..).zip([content::first(), content::second()]) {
        let info = backup_info(id, seconds);
        let backup = info.id;
        let reader = Arc::new(MemoryDisk::with(&bytes));
        let progress = Arc::new(Progress::default());
        let job = WriteDisk {
            info,
            parent,
            reader,
            progress,
            reread_all: false,
        };
        project.write_disk(job).await?;
        parent = Some(backup);
    }
    project
        .write_group(backup_info(id, 3), parent.into_iter().collect())
        .await?;
    Ok(())
}
