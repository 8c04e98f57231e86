//! Another site: a repository of its own in memory, which a world's hybrid
//! vaults can mirror, and whoever writes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use cairn_core::{External, ExternalSettings, OpenFailed};
use cairn_repo::{MasterKey, Project, Repository, WriteDisk, WriteTree};
use cairn_source::{Folder, FolderOptions};
use cairn_types::{BackupId, BackupInfo, ProjectId, ResourceType};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use crate::{MemoryDisk, backup_info};

/// What the site is called in the configuration of a world.
pub const SITE: &str = "branch";
const KEY: &str = "5";
const OTHER_KEY: &str = "6";

/// Another site's repository, open for writing.
pub struct Site {
    /// What it keeps its objects in.
    pub store: Arc<dyn ObjectStore>,
    /// The repository.
    pub repository: Repository,
    /// The project there.
    pub project: ProjectId,
    /// Where readers keep what they know of its chunks.
    index: Arc<TempDir>,
    /// When the next backup is made.
    second: AtomicI64,
}

fn key(digit: &str) -> MasterKey {
    MasterKey::from_hex(&digit.repeat(64)).expect("64 digits are a key")
}

impl Site {
    /// A site without a backup.
    pub async fn new() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let repository = Repository::create(Arc::clone(&store), &key(KEY)).await;
        Self {
            store,
            repository: repository.expect("an empty store takes a repository"),
            project: ProjectId::random(),
            index: Arc::new(tempfile::tempdir().expect("a folder can be made")),
            second: AtomicI64::new(1_600_000_000),
        }
    }

    /// The site as the configuration of a world names it.
    pub fn external(&self) -> External {
        self.external_with(ExternalSettings::default(), KEY)
    }

    /// The same, with settings beside the name.
    pub fn external_of(&self, settings: ExternalSettings) -> External {
        self.external_with(settings, KEY)
    }

    /// The same, with another master key.
    pub fn external_with_another_key(&self) -> External {
        self.external_with(ExternalSettings::default(), OTHER_KEY)
    }

    fn external_with(&self, settings: ExternalSettings, digit: &'static str) -> External {
        let (store, index) = (Arc::clone(&self.store), Arc::clone(&self.index));
        let settings = ExternalSettings {
            name: SITE.to_owned(),
            ..settings
        };
        let open = move || {
            let (store, index) = (Arc::clone(&store), Arc::clone(&index));
            let opening: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
                let opened = Repository::open(store, &key(digit)).await;
                let opened = opened.map_err(|error| OpenFailed::from(&error))?;
                Ok(opened.with_index_in(index.path().to_owned()))
            });
            opening
        };
        External::new(settings, Box::new(open))
    }

    /// The site's own project.
    pub async fn own(&self) -> Project {
        let project = self.repository.project(self.project).await;
        project.expect("the store works")
    }

    fn info(&self, resource_type: ResourceType, name: &str) -> BackupInfo {
        let mut info = backup_info(self.project, self.second.fetch_add(60, Ordering::Relaxed));
        info.resource_type = resource_type;
        info.resource_name = name.to_owned();
        info.name = format!("of_{name}");
        info
    }

    /// Backs a disk up.
    pub async fn back_up_disk(&self, name: &str, bytes: &[u8]) -> BackupId {
        let info = self.info(ResourceType::Volume, name);
        self.write(info, bytes).await
    }

    /// Backs a server of two disks up, the first of which it boots from; how it is defined is known.
    pub async fn back_up_server(&self, name: &str, disks: [&[u8]; 2]) -> BackupId {
        let mut group = self.info(ResourceType::Server, name);
        group.definition = Some(format!("<domain><name>{name}</name></domain>"));
        let mut parts = Vec::new();
        for (number, bytes) in disks.into_iter().enumerate() {
            let mut info = self.info(ResourceType::Volume, &format!("{name}-{number}"));
            info.parent = Some(group.id);
            info.checkpoint = group.checkpoint;
            info.system_disk = number == 0;
            parts.push(self.write(info, bytes).await);
        }
        let id = group.id;
        let written = self.own().await.write_group(group, parts).await;
        written.expect("the store works");
        id
    }

    /// Backs a share up, which is a folder.
    pub async fn back_up_share(&self, name: &str, folder: &std::path::Path) -> BackupId {
        let info = self.info(ResourceType::Turbo, name);
        let (id, started_at) = (info.id, info.created_at);
        let opened = Folder::open(folder, FolderOptions::default());
        let job = WriteTree {
            info,
            parent: None,
            reader: Arc::new(opened.expect("the folder is there")),
            started_at,
            progress: Arc::default(),
            reread_all: false,
        };
        let written = self.own().await.write_tree(job).await;
        assert_eq!(written.expect("the store works").summary.problems, 0);
        id
    }

    async fn write(&self, info: BackupInfo, bytes: &[u8]) -> BackupId {
        let id = info.id;
        let job = WriteDisk {
            info,
            parent: None,
            reader: Arc::new(MemoryDisk::with(bytes)),
            progress: Arc::default(),
            reread_all: false,
        };
        let written = self.own().await.write_disk(job).await;
        written.expect("the store works");
        id
    }

    /// The paths of the objects that contain a text.
    pub async fn objects(&self, part: &str) -> Vec<String> {
        let all: Vec<ObjectMeta> = self.store.list(None).try_collect().await.expect("a list");
        let paths = all.into_iter().map(|object| object.location.to_string());
        paths.filter(|path| path.contains(part)).collect()
    }

    /// Takes objects away and returns them.
    pub async fn take(&self, part: &str) -> Vec<(String, Bytes)> {
        let mut taken = Vec::new();
        for path in self.objects(part).await {
            let bytes = self.read(&path).await;
            let gone = self.store.delete(&path.as_str().into()).await;
            gone.expect("it was there");
            taken.push((path, bytes));
        }
        assert!(!taken.is_empty(), "no object is called {part}");
        taken
    }

    /// Puts objects back where they were.
    pub async fn give_back(&self, objects: Vec<(String, Bytes)>) {
        for (path, bytes) in objects {
            let put = self.store.put(&path.into(), bytes.into()).await;
            put.expect("memory takes it");
        }
    }

    /// Changes one bit in the middle of objects.
    pub async fn forge(&self, part: &str) {
        for (path, bytes) in self.take(part).await {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            self.give_back(vec![(path, bytes.into())]).await;
        }
    }

    async fn read(&self, path: &str) -> Bytes {
        let object = self.store.get(&path.into()).await.expect("it was listed");
        object.bytes().await.expect("it is in memory")
    }
}
