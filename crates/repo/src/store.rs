//! The objects of a repository: their names, and the few things that are done
//! with them.
//!
//! Any failure of the store is an error here; only an answer of "not found" is
//! taken for absence, and only where the function says so.

mod answer;
mod limit;
mod local;
mod remote;
mod retry;
mod s3;

pub(crate) use answer::Answer;
pub use limit::{LimitedStore, Limits};
pub use local::{FileCall, LocalStore, Watch};
pub use remote::{Creation, RemoteStore};
pub use retry::RetryPolicy;
pub use s3::{S3Config, S3Credentials, S3Store};

use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cairn_types::{BackupId, Progress, ProjectId};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    GetResult, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, UpdateVersion,
};

use crate::error::{Error, Result};
use crate::pack::PackId;
use crate::random;
use crate::workers::unless_cancelled;

/// The object that makes a store a repository.
const CONFIG: &str = "config";
/// The folder of the log's entries.
const LOG: &str = "log";
/// The folder of what is written to try the store out. No part of the repository.
const PROBES: &str = "probe";
/// The folder of all projects.
const PROJECTS: &str = "projects";

/// Bytes of a manifest's hash that are in its name.
const MANIFEST_HASH_BYTES: usize = 8;

/// The folders of a project.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Folder {
    Packs,
    Index,
    Manifests,
    Receipts,
    Parity,
}

impl Folder {
    const fn name(self) -> &'static str {
        match self {
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Manifests => "manifests",
            Self::Receipts => "receipts",
            Self::Parity => "parity",
        }
    }
}

/// An object as a listing shows it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The last part of its path.
    pub name: String,
    pub path: Path,
    pub size_bytes: u64,
}

/// The objects of a repository, as one piece of work sees them: once it is
/// cancelled, every request fails with `Cancelled`, also one that is under way,
/// of which nobody knows then whether it had an effect.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    work: Option<Arc<Progress>>,
}

/// Where the repository's config lies.
pub(crate) fn config_path() -> Path {
    Path::from(CONFIG)
}

/// Where something is tried out that the store is to do.
pub(crate) fn probe_path() -> Path {
    let name = hex::encode(random::bytes::<16>());
    Path::from(format!("{PROBES}/{name}"))
}

/// Where an entry of the log lies.
pub(crate) fn log_path(slot: u64) -> Path {
    Path::from(format!("{LOG}/{slot:010}"))
}

/// Where the wrapped data key of a project lies.
pub(crate) fn key_path(project: ProjectId) -> Path {
    Path::from(format!("{PROJECTS}/{project}/keys/1"))
}

/// The path of the mark of losses.
pub(crate) fn losses_path(project: ProjectId) -> Path {
    Path::from(format!("{PROJECTS}/{project}/losses"))
}

/// The path of an object in one of a project's folders.
pub(crate) fn object_path(project: ProjectId, folder: Folder, name: &str) -> Path {
    Path::from(format!("{PROJECTS}/{project}/{}/{name}", folder.name()))
}

/// The path of a pack; a folder level of its first byte keeps listings of a folder short.
pub(crate) fn pack_path(project: ProjectId, pack: PackId) -> Path {
    let name = pack.to_string();
    object_path(project, Folder::Packs, &format!("{}/{name}", &name[..2]))
}

/// The path of a backup's manifest. Its hash makes it another's than that of any
/// other attempt at the same backup: neither can be written over, or removed in
/// the other's place.
pub(crate) fn manifest_path(project: ProjectId, backup: BackupId, hash: &[u8; 32]) -> Path {
    let hash = hex::encode(&hash[..MANIFEST_HASH_BYTES]);
    object_path(project, Folder::Manifests, &format!("{backup}-{hash}"))
}

/// The backup that the name of a manifest says.
pub(crate) fn manifest_name(name: &str) -> Option<BackupId> {
    let (backup, hash) = name.rsplit_once('-')?;
    let mut bytes = [0; MANIFEST_HASH_BYTES];
    hex::decode_to_slice(hash, &mut bytes).ok()?;
    backup.parse().ok()
}

/// The path of a backup's receipt.
pub(crate) fn receipt_path(project: ProjectId, backup: BackupId) -> Path {
    object_path(project, Folder::Receipts, &backup.to_string())
}

impl Objects {
    /// For work that nobody can cancel.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, work: None }
    }

    /// For work that can be cancelled.
    pub fn for_work(&self, progress: &Arc<Progress>) -> Self {
        Self {
            store: self.store.clone(),
            work: Some(progress.clone()),
        }
    }

    /// Waits for something until the work is cancelled.
    pub async fn wait<T>(&self, awaited: impl Future<Output = T>) -> Result<T> {
        match &self.work {
            Some(progress) => unless_cancelled(progress, awaited).await,
            None => Ok(awaited.await),
        }
    }

    /// For what is done to its end, once it is begun, though the work is cancelled.
    ///
    /// Errors: `Cancelled` it is already.
    pub fn to_the_end(&self) -> Result<Self> {
        match &self.work {
            Some(work) if work.is_cancelled() => Err(Error::Cancelled),
            _ => Ok(Self::new(self.store.clone())),
        }
    }

    pub fn are_of_cancelled_work(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.is_cancelled())
    }

    /// The whole object, or nothing if there is none.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async { self.store.get(path).await?.bytes().await };
        match self.wait(read).await? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("read", path, source)),
        }
    }

    /// A part of an object that must exist and be long enough.
    ///
    /// Errors: `Corrupt` it is gone or shorter.
    pub async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        let (wanted, end) = (range.end - range.start, range.end);
        match self.wait(self.store.get_range(path, range)).await? {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(_) => Err(Error::Damaged {
                object: path.to_string(),
                problem: "it is cut short",
            }),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing {
                object: path.to_string(),
            }),
            Err(source) => self.range_failed(path, end, source).await,
        }
    }

    /// Stores answer a range behind the end of an object in words of their own,
    /// so its size tells whether it was cut short or the store failed.
    async fn range_failed(
        &self,
        path: &Path,
        end: u64,
        source: object_store::Error,
    ) -> Result<Bytes> {
        match self.wait(self.store.head(path)).await? {
            Ok(meta) if meta.size < end => Err(Error::Damaged {
                object: path.to_string(),
                problem: "it is cut short",
            }),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing {
                object: path.to_string(),
            }),
            _ => Err(failed("read", path, source)),
        }
    }

    /// Stores an object, replacing what was there.
    pub async fn put(&self, path: &Path, bytes: impl Into<PutPayload>) -> Result<()> {
        let done = self.wait(self.store.put(path, bytes.into())).await?;
        done.map(|_| ())
            .map_err(|source| failed("write", path, source))
    }

    /// The whole object and its version, for `replace`.
    pub async fn get_version(&self, path: &Path) -> Result<Option<(Bytes, UpdateVersion)>> {
        let read = async {
            let found = self.store.get(path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, version))
        };
        match self.wait(read).await? {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("read", path, source)),
        }
    }

    /// Replaces an object if it is the one that was read; false if it is another by now.
    /// A store that cannot tell belongs to one process, by a lock or by what its
    /// configuration says: it replaces what is there.
    pub async fn replace(
        &self,
        path: &Path,
        bytes: impl Into<PutPayload>,
        seen: UpdateVersion,
    ) -> Result<bool> {
        let (payload, options) = (bytes.into(), PutOptions::from(PutMode::Update(seen)));
        match self
            .wait(self.store.put_opts(path, payload.clone(), options))
            .await?
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::Precondition { .. }) => Ok(false),
            Err(object_store::Error::NotSupported { .. }) => {
                self.put(path, payload).await.map(|()| true)
            }
            Err(source) => Err(failed("replace", path, source)),
        }
    }

    /// Finds out whether the store keeps so many bytes as they are when it is
    /// told to, before it replaces what there is no copy of.
    ///
    /// Errors: `Corrupt` it does not.
    pub async fn try_out(&self, length: usize) -> Result<()> {
        let path = probe_path();
        let bytes = Bytes::from_iter(random::bytes::<32>().into_iter().cycle().take(length));
        self.put(&path, bytes.clone()).await?;
        let found = self.get(&path).await?;
        self.delete(&path).await?;
        if found != Some(bytes) {
            return Err(Error::Damaged {
                object: path.to_string(),
                problem: "the store does not keep what it was given",
            });
        }
        Ok(())
    }

    /// Stores an object that must not exist yet; false if it does.
    pub async fn create(&self, path: &Path, bytes: impl Into<PutPayload>) -> Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .wait(self.store.put_opts(path, bytes.into(), options))
            .await?
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(failed("create", path, source)),
        }
    }

    /// Starts an upload in parts.
    pub async fn upload(&self, path: &Path) -> Result<Box<dyn MultipartUpload>> {
        let started = self.wait(self.store.put_multipart(path)).await?;
        started.map_err(|source| failed("write", path, source))
    }

    /// The size of an object that must exist.
    ///
    /// Errors: `Corrupt` it is gone.
    pub async fn size(&self, path: &Path) -> Result<u64> {
        match self.wait(self.store.head(path)).await? {
            Ok(meta) => Ok(meta.size),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing {
                object: path.to_string(),
            }),
            Err(source) => Err(failed("look at", path, source)),
        }
    }

    /// Whether there is such an object.
    pub async fn exists(&self, path: &Path) -> Result<bool> {
        match self.size(path).await {
            Err(Error::Missing { .. }) => Ok(false),
            size => size.map(|_| true),
        }
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.wait(self.store.delete(path)).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("delete", path, source)),
        }
    }

    /// Every object in one of a project's folders, by path.
    pub async fn list(&self, project: ProjectId, folder: Folder) -> Result<Vec<Found>> {
        let prefix = Path::from(format!("{PROJECTS}/{project}/{}", folder.name()));
        self.list_in(&prefix).await
    }

    /// Gives every object in one of a project's folders to `each`, in no order, some
    /// perhaps twice. Unlike `list` it holds few of them at a time.
    pub async fn for_each(
        &self,
        project: ProjectId,
        folder: Folder,
        each: impl FnMut(Found),
    ) -> Result<()> {
        let prefix = Path::from(format!("{PROJECTS}/{project}/{}", folder.name()));
        self.for_each_in(&prefix, each).await
    }

    async fn for_each_in(&self, prefix: &Path, mut each: impl FnMut(Found)) -> Result<()> {
        let mut listed = self.store.list(Some(prefix));
        let failed = |source| failed("list", prefix, source);
        while let Some(meta) = self.wait(listed.try_next()).await?.map_err(failed)? {
            each(Found {
                name: meta.location.filename().unwrap_or_default().to_owned(),
                path: meta.location,
                size_bytes: meta.size,
            });
        }
        Ok(())
    }

    /// The slots of the log that hold an entry, in order.
    pub async fn log_slots(&self) -> Result<Vec<u64>> {
        let found = self.list_in(&Path::from(LOG)).await?;
        let mut slots: Vec<u64> = found.iter().filter_map(|f| f.name.parse().ok()).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    async fn list_in(&self, prefix: &Path) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        self.for_each_in(prefix, |object| found.push(object))
            .await?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        // A listing that broke off and went on may name an object twice.
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    /// Every object of the repository. What a writer tried out is none.
    pub async fn list_all(&self) -> Result<Vec<Found>> {
        let mut found = self.list_in(&Path::default()).await?;
        let probes = Path::from(PROBES);
        found.retain(|found| !found.path.prefix_matches(&probes));
        Ok(found)
    }

    /// Whether a project has anything here.
    pub async fn has_project(&self, project: ProjectId) -> Result<bool> {
        let prefix = Path::from(format!("{PROJECTS}/{project}"));
        let first = self.store.list(Some(&prefix)).try_next().await;
        first
            .map(|first| first.is_some())
            .map_err(|source| failed("list", &prefix, source))
    }

    /// Every project that has a folder.
    pub async fn projects(&self) -> Result<Vec<ProjectId>> {
        let prefix = Path::from(PROJECTS);
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        let listed = listed.map_err(|source| failed("list", &prefix, source))?;
        let names = listed.common_prefixes.iter().filter_map(Path::filename);
        let mut projects: Vec<ProjectId> = names.filter_map(|name| name.parse().ok()).collect();
        projects.sort();
        Ok(projects)
    }
}

/// What makes an answer of the same once its bytes have come.
fn answer_with(got: &GetResult) -> impl FnOnce(Bytes) -> GetResult + use<> {
    let (meta, range) = (got.meta.clone(), got.range.clone());
    let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
    move |bytes| GetResult {
        payload: GetResultPayload::Stream(stream::once(ready(Ok(bytes))).boxed()),
        meta,
        range,
        attributes,
        extensions,
    }
}

/// The error for a store that failed at an object.
pub(crate) fn failed(action: &'static str, path: &Path, source: object_store::Error) -> Error {
    Error::Store {
        action,
        object: path.to_string(),
        source,
    }
}
