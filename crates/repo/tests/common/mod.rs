//! What the tests of the repository share. Not every test uses all of it.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod conformance;

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_repo::{
    MasterKey, Project, Repository, Restored, Result, VerifyLevel, WriteDisk, Written,
};
pub use cairn_testkit::noise;
use cairn_testkit::{MemoryDisk, backup_info};
use cairn_types::disk::DiskReader;
use cairn_types::{BackupId, BackupInfo, Kind, Progress, ProjectId};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;

pub const MASTER: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
pub const BLOCK: usize = 64 << 10;

/// A store with one project in it.
pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub repository: Repository,
    pub project_id: ProjectId,
    pub project: Project,
    /// Where its index lies.
    index: Arc<TempDir>,
}

/// A folder for an index: in memory where the system has a place for that, since
/// a disk's flushes would be most of the time that many tests take.
pub fn index_folder() -> TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.unwrap()
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
        Self::open_with(store, project_id, Arc::new(index_folder())).await
    }

    /// As `open`, with what there is of an index.
    pub async fn open_with(
        store: Arc<dyn ObjectStore>,
        project_id: ProjectId,
        index: Arc<TempDir>,
    ) -> Result<Self> {
        let repository = Repository::open_or_create(store.clone(), &master()).await?;
        Self::of(repository, store, project_id, index).await
    }

    /// As `open_with`, of a repository that is open.
    pub async fn of(
        repository: Repository,
        store: Arc<dyn ObjectStore>,
        project_id: ProjectId,
        index: Arc<TempDir>,
    ) -> Result<Self> {
        let repository = repository.with_index_in(index.path().to_owned());
        let project = repository.project(project_id).await?;
        Ok(Self {
            store,
            repository,
            project_id,
            project,
            index,
        })
    }

    /// A full verification finds nothing.
    pub async fn must_be_whole(&self, case: &str) {
        let report = self.project.verify(VerifyLevel::Full, Arc::default());
        let report = report.await.unwrap();
        assert!(report.is_clean(), "{case}: {report:?}");
    }

    /// Another project of the same repository.
    pub async fn neighbour(&self) -> Self {
        let project_id = ProjectId::random();
        Self {
            store: self.store.clone(),
            project_id,
            project: self.repository.project(project_id).await.unwrap(),
            repository: self.repository.clone(),
            index: self.index.clone(),
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
        let index = Arc::new(index_folder());
        let repository = repository.unwrap();
        let repository = repository.with_index_in(index.path().to_owned());
        let project = repository.existing_project(self.project_id).await;
        Self {
            store: self.store.clone(),
            repository,
            project_id: self.project_id,
            project: project.unwrap(),
            index,
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
            .restore_disk(backup, target.clone(), progress.clone())
            .await?;
        let compared = self.project.compare_disk(backup, target.clone(), progress);
        compared.await?;
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

/// What happened in a project before something is interrupted there.
#[derive(Clone)]
pub struct History {
    pub disk: Arc<MemoryDisk>,
    /// The next backup of the disk as it is now.
    pub next: BackupInfo,
    /// A backup that somebody deletes.
    pub to_delete: BackupId,
    /// What must restore to what, whatever happens.
    pub kept: BTreeMap<BackupId, Vec<u8>>,
}

impl History {
    /// Saves a disk three times, with so many other blocks at its start each
    /// time, and deletes the first backup; then changes blocks behind those.
    pub async fn new(world: &World, [first, second, third, behind]: [usize; 4]) -> Self {
        let disk = Arc::new(MemoryDisk::with(&noise(1, first * BLOCK)));
        let (dead, _) = world.write(&disk).await.unwrap();
        disk.write(0, &noise(2, second * BLOCK));
        let (to_delete, _) = world.write(&disk).await.unwrap();
        disk.write(0, &noise(3, third * BLOCK));
        let (kept, _) = world.write(&disk).await.unwrap();
        world.project.delete(dead).await.unwrap();
        let kept = BTreeMap::from([(kept, disk.bytes())]);
        disk.write((third * BLOCK) as u64, &noise(4, behind * BLOCK));
        Self {
            disk,
            next: world.info(9),
            to_delete,
            kept,
        }
    }

    /// The next backup is there from now on.
    pub fn keep_next(&mut self) {
        self.kept.insert(self.next.id, self.disk.bytes());
    }
}

/// Bytes that compress well, the same for the same seed.
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    let line = format!("line {seed} of a log that says the same thing again and again\n");
    line.bytes().cycle().take(length).collect()
}

pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.expect_err("this must fail").kind()
}
