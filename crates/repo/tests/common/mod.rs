//! What the tests of the repository share. Not every test uses all of it.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod conformance;

use std::sync::Arc;

use cairn_repo::{MasterKey, Project, Repository, Restored, Result, WriteDisk, Written};
use cairn_testkit::{MemoryDisk, backup_info};
use cairn_types::disk::DiskReader;
use cairn_types::{BackupId, BackupInfo, Kind, Progress, ProjectId};
use object_store::ObjectStore;
use object_store::memory::InMemory;

pub const MASTER: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
pub const BLOCK: usize = 64 << 10;

/// A store with one project in it.
pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub repository: Repository,
    pub project_id: ProjectId,
    pub project: Project,
}

pub fn master() -> MasterKey {
    MasterKey::from_hex(MASTER).unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::on(Arc::new(InMemory::new())).await
    }

    pub async fn on(store: Arc<dyn ObjectStore>) -> Self {
        Self::open(store, ProjectId::random()).await.unwrap()
    }

    pub async fn open(store: Arc<dyn ObjectStore>, project_id: ProjectId) -> Result<Self> {
        let repository = Repository::open_or_create(store.clone(), &master()).await?;
        let project = repository.project(project_id).await?;
        Ok(Self {
            store,
            repository,
            project_id,
            project,
        })
    }

    /// Another project of the same repository.
    pub async fn neighbour(&self) -> Self {
        let project_id = ProjectId::random();
        Self {
            store: self.store.clone(),
            project_id,
            project: self.repository.project(project_id).await.unwrap(),
            repository: self.repository.clone(),
        }
    }

    /// As after a restart: nothing is remembered.
    pub async fn reopen(&self) -> Self {
        Self::open(self.store.clone(), self.project_id)
            .await
            .unwrap()
    }

    /// As another process sees it that only reads.
    pub async fn look(&self) -> Self {
        let repository = Repository::open(self.store.clone(), &master()).await;
        let repository = repository.unwrap();
        let project = repository.existing_project(self.project_id).await;
        Self {
            store: self.store.clone(),
            repository,
            project_id: self.project_id,
            project: project.unwrap(),
        }
    }

    pub fn info(&self, seconds: i64) -> BackupInfo {
        backup_info(self.project_id, seconds)
    }

    pub async fn write(&self, disk: &Arc<MemoryDisk>) -> Result<(BackupId, Written)> {
        let info = self.info(1);
        let id = info.id;
        let written = self.project.write_disk(job(info, disk)).await?;
        Ok((id, written))
    }

    /// Restores over a disk full of something else.
    pub async fn restore(&self, backup: BackupId) -> Result<(Vec<u8>, Restored)> {
        let size = self.project.find(backup).await?.size_bytes;
        let target = Arc::new(MemoryDisk::with(&vec![0xee; size as usize]));
        let progress = Arc::new(Progress::default());
        let restored = self
            .project
            .restore_disk(backup, target.clone(), progress)
            .await?;
        Ok((target.bytes(), restored))
    }
}

pub fn job(info: BackupInfo, disk: &Arc<MemoryDisk>) -> WriteDisk {
    let reader: Arc<dyn DiskReader> = disk.clone();
    let progress = Arc::new(Progress::default());
    WriteDisk {
        info,
        parent: None,
        reader,
        progress,
        reread_all: false,
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Bytes that compress well, the same for the same seed.
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    let line = format!("line {seed} of a log that says the same thing again and again\n");
    line.bytes().cycle().take(length).collect()
}

pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.expect_err("this must fail").kind()
}
