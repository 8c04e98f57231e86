//! The repository as a whole: its config, and the projects in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_types::{Progress, ProjectId};
use object_store::ObjectStore;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::index::LocalFolder;
use crate::keys::{Config, MasterKey, Place, ProjectKeys, RootKey};
use crate::log::Log;
use crate::parity::Parity;
use crate::project::Project;
use crate::random;
use crate::store::{Objects, config_path, key_path};

/// A repository in an object store, open with its master key. Clones share it.
///
/// One process at a time writes to a repository. Whoever opens it for writing
/// becomes the writer, and whoever was it before is refused from then on.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
    /// Where the indexes of projects lie that are opened from now on.
    local: Arc<LocalFolder>,
    parity: Option<Parity>,
}

struct Inner {
    objects: Objects,
    config: Arc<Config>,
    /// Of a writer.
    log: Option<Arc<Log>>,
    projects: Mutex<HashMap<ProjectId, Project>>,
}

impl Repository {
    /// The same repository for a piece of work: what it asks of the store ends when that is cancelled.
    pub fn for_work(&self, progress: &Arc<Progress>) -> Self {
        let inner = Inner {
            objects: self.inner.objects.for_work(progress),
            config: self.inner.config.clone(),
            log: self.inner.log.clone(),
            projects: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
            local: self.local.clone(),
            parity: self.parity,
        }
    }

    /// Makes a new repository, and becomes its writer.
    ///
    /// Errors: `Conflict` there is one already; `Corrupt` there was one and its config is lost.
    pub async fn create(store: Arc<dyn ObjectStore>, master: &MasterKey) -> Result<Self> {
        let (objects, config) = (Objects::new(store), Config::random());
        let path = config_path();
        if !objects.projects().await?.is_empty() && objects.get(&path).await?.is_none() {
            // With a new config nothing that is here could ever be opened.
            return Err(Error::Missing {
                object: path.to_string(),
            });
        }
        if objects.create(&path, master.seal_config(&config)).await? {
            Self::new(objects, Arc::new(config), None)
                .for_writing()
                .await
        } else {
            Err(Error::RepositoryExists)
        }
    }

    /// Opens a repository for reading, beside a writer or without one. Writes
    /// nothing; what would write is refused with `Denied`. While the writer
    /// collects, packs that were there may be gone: then open it again.
    ///
    /// Errors: `NotFound` there is none; `Denied` another master key; `Invalid` a newer format.
    pub async fn open(store: Arc<dyn ObjectStore>, master: &MasterKey) -> Result<Self> {
        let objects = Objects::new(store);
        let config = read_config(&objects, master).await?;
        Ok(Self::new(objects, Arc::new(config), None))
    }

    /// Becomes the writer of the repository: an earlier one, wherever it may be,
    /// acknowledges nothing and removes nothing from then on.
    ///
    /// Errors: `Conflict` another process is becoming it, too; `Corrupt` the log is damaged.
    pub async fn for_writing(&self) -> Result<Self> {
        let (objects, config) = (self.inner.objects.clone(), self.inner.config.clone());
        let log = Log::open(objects.clone(), config.root.log_secret(), config.id).await?;
        Ok(Self::new(objects, config, Some(Arc::new(log))))
    }

    /// Gives a repository another master key: writes its config anew, and no
    /// other part of it. From then on `from` opens nothing. Until this returns,
    /// either key may be the one that opens the repository.
    ///
    /// Of several who do this at a time one succeeds, however long any of them
    /// is paused: the config is replaced only if it is the one that was read.
    ///
    /// Errors: as `open`, of either key; `Conflict` somebody else was first, and
    /// nothing was written.
    pub async fn rotate_master_key(
        store: Arc<dyn ObjectStore>,
        from: &MasterKey,
        to: &MasterKey,
    ) -> Result<()> {
        let objects = Objects::new(store);
        let path = config_path();
        let found = objects.get_version(&path).await?;
        let (object, seen) = found.ok_or(Error::NoRepository)?;
        let config = from.open_config(&object)?;
        let sealed = to.seal_config(&config);
        // Nothing else opens the repository, and there is one of it.
        objects.try_out(sealed.len()).await?;
        if !objects.replace(&path, sealed, seen).await? {
            return Err(Error::KeyReplaced);
        }
        read_config(&objects, to).await.map(drop)
    }

    /// Whether there is a repository in a store.
    pub async fn exists(store: &Arc<dyn ObjectStore>) -> Result<bool> {
        let config = Objects::new(store.clone()).get(&config_path()).await?;
        Ok(config.is_some())
    }

    /// Opens the repository for writing, or makes it where there is none.
    pub async fn open_or_create(store: Arc<dyn ObjectStore>, master: &MasterKey) -> Result<Self> {
        let objects = Objects::new(store.clone());
        match objects.get(&config_path()).await? {
            Some(_) => Self::open(store, master).await?.for_writing().await,
            None => Self::create(store, master).await,
        }
    }

    /// What tells this repository from every other, in hexadecimal.
    pub fn id(&self) -> String {
        hex::encode(self.inner.config.id.0)
    }

    /// Opens what belongs to the repository and lies elsewhere.
    pub fn root_key(&self) -> &RootKey {
        &self.inner.config.root
    }

    fn new(objects: Objects, config: Arc<Config>, log: Option<Arc<Log>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                objects,
                config,
                log,
                projects: Mutex::default(),
            }),
            local: Arc::new(LocalFolder::temporary()),
            parity: None,
        }
    }

    /// Keeps what is needed to look chunks up in a local folder, so that the next
    /// start need not read it from the store: 24 bytes for each chunk, which is 39 GB for
    /// 100 TiB of disks. Without this it is in the system's folder for temporary files,
    /// until the repository is dropped. To be called before any project is opened.
    ///
    /// The folder belongs to this one process. Nothing is lost with it, nor with any
    /// part of it.
    #[must_use]
    pub fn with_index_in(self, folder: PathBuf) -> Self {
        Self {
            local: Arc::new(LocalFolder::at(folder)),
            ..self
        }
    }

    /// Has packs protected by parity, or no longer: then groups that there are stay
    /// for as long as their packs. To be called before any project is opened.
    #[must_use]
    pub fn with_parity(self, parity: Option<Parity>) -> Self {
        Self { parity, ..self }
    }

    /// Whether packs are to be protected by parity.
    pub fn has_parity(&self) -> bool {
        self.parity.is_some()
    }

    /// A project's part, made if need be.
    pub async fn project(&self, project: ProjectId) -> Result<Project> {
        let objects = &self.inner.objects;
        let mut projects = self.inner.projects.lock().await;
        if let Some(open) = projects.get(&project) {
            return Ok(open.clone());
        }
        let path = key_path(project);
        let place = self.place(project);
        let data_key = match objects.get(&path).await? {
            Some(wrapped) => self.inner.config.root.unwrap(&place, &wrapped)?,
            None if objects.has_project(project).await? => {
                // With a new key nothing that is here could ever be opened.
                return Err(Error::Missing {
                    object: path.to_string(),
                });
            }
            None if self.inner.log.is_none() => return Err(Error::ReadOnly),
            None => {
                let fresh = Zeroizing::new(random::bytes());
                if !objects
                    .create(&path, self.inner.config.root.wrap(&place, &fresh))
                    .await?
                {
                    return Err(Error::RepositoryExists);
                }
                fresh
            }
        };
        Ok(self.remember(&mut projects, place, &data_key))
    }

    /// A project's part, if it has one. Writes nothing.
    ///
    /// Errors: `NotFound`.
    pub async fn existing_project(&self, project: ProjectId) -> Result<Project> {
        let mut projects = self.inner.projects.lock().await;
        if let Some(open) = projects.get(&project) {
            return Ok(open.clone());
        }
        let place = self.place(project);
        let wrapped = self.inner.objects.get(&key_path(project)).await?;
        let wrapped = wrapped.ok_or(Error::NoProject { project })?;
        let data_key = self.inner.config.root.unwrap(&place, &wrapped)?;
        Ok(self.remember(&mut projects, place, &data_key))
    }

    /// Every project that has something here.
    pub async fn projects(&self) -> Result<Vec<ProjectId>> {
        self.inner.objects.projects().await
    }

    fn place(&self, project: ProjectId) -> Place {
        Place {
            repository: self.inner.config.id,
            project,
        }
    }

    fn remember(
        &self,
        projects: &mut HashMap<ProjectId, Project>,
        place: Place,
        data_key: &[u8; 32],
    ) -> Project {
        let keys = ProjectKeys::new(data_key);
        let project = Project::new(
            place,
            self.inner.objects.clone(),
            keys,
            self.local.clone(),
            (self.inner.log.clone(), self.parity),
        );
        projects.insert(place.project, project.clone());
        project
    }
}

async fn read_config(objects: &Objects, master: &MasterKey) -> Result<Config> {
    let object = objects.get(&config_path()).await?;
    master.open_config(&object.ok_or(Error::NoRepository)?)
}
