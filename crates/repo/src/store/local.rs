//! The local store: a folder of files, each durable when the call that wrote
//! it answers.
//!
//! A file is written under a temporary name, its length checked, synced,
//! renamed into place, and the folders on its path synced. So a path holds
//! either all of an object or none of it, whatever happens to the machine.
//! One process at a time may write: it holds a lock, and clears away what an
//! earlier one left unfinished. Readers need no lock and write nothing.

mod files;
mod system;
mod upload;

pub use system::{FileCall, Watch};

use std::fmt;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result as StoreResult,
};
use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};
use files::{Files, Listed, READ_BYTES};
use system::System;
use upload::LocalUpload;

/// Deletions under way at a time.
const DELETES: usize = 16;
const LOCK: &str = ".lock";

/// A folder on a local file system, as an object store.
pub struct LocalStore {
    files: Arc<Files>,
    /// Held while the store is open for writing.
    lock: Option<File>,
}

impl LocalStore {
    /// Opens the folder for reading and writing, making it if need be, and
    /// removes what an earlier process left unfinished.
    ///
    /// Errors: `Conflict` another process has it open for writing.
    pub fn open(root: &FilePath) -> Result<Self> {
        Self::open_in(root, System::default())
    }

    /// As `open`, with `watch` told of every call that changes the file system,
    /// which it may fail: what a disk that is full or broken does.
    pub fn open_watched(root: &FilePath, watch: Arc<Watch>) -> Result<Self> {
        Self::open_in(root, System::watched(watch))
    }

    fn open_in(root: &FilePath, system: System) -> Result<Self> {
        let failed = |action| {
            move |source| Error::Folder {
                action,
                path: root.to_owned(),
                source,
            }
        };
        let files = Files::new(root.to_owned(), system.clone());
        files.make_root().map_err(failed("make"))?;
        let lock = system.open_or_create_file(&root.join(LOCK));
        let lock = lock.map_err(failed("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                Error::FolderLocked {
                    path: root.to_owned(),
                }
            } else {
                failed("lock")(error.into())
            }
        })?;
        files.clear_temporaries().map_err(failed("clear"))?;
        Ok(Self {
            files: Arc::new(files),
            lock: Some(lock),
        })
    }

    /// Opens the folder for reading only: takes no lock, writes nothing.
    ///
    /// Errors: `NotFound` there is no such folder.
    pub fn open_read_only(root: &FilePath) -> Result<Self> {
        fs::read_dir(root).map_err(|source| Error::Folder {
            action: "open",
            path: root.to_owned(),
            source,
        })?;
        Ok(Self {
            files: Arc::new(Files::new(root.to_owned(), System::default())),
            lock: None,
        })
    }

    fn may_write(&self, path: &Path) -> StoreResult<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        Err(StoreError::PermissionDenied {
            path: path.to_string(),
            source: "the store is open for reading only".into(),
        })
    }

    /// Runs file work on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let files = self.files.clone();
        blocking(move || work(&files)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> StoreResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(StoreError::Generic {
                store: "local",
                source: Box::new(error),
            })
        })
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({})", self.files.root().display())
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.files.root().display())
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.may_write(location)?;
        let replace = match options.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => {
                return Err(StoreError::NotSupported {
                    source: "the local store does not update conditionally".into(),
                });
            }
        };
        let location = location.clone();
        self.run(move |files| files.put(&location, &payload, replace))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.may_write(location)?;
        let (files, location) = (self.files.clone(), location.clone());
        blocking(move || {
            let upload = LocalUpload::start(files, location)?;
            Ok(Box::new(upload) as Box<dyn MultipartUpload>)
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let path = location.clone();
        let (file, meta, range) = self
            .run(move |files| {
                let (file, meta) = files.open(&path)?;
                options.check_preconditions(&meta)?;
                let whole = 0..meta.size;
                let range = match &options.range {
                    Some(range) => {
                        range
                            .as_range(meta.size)
                            .map_err(|error| StoreError::Generic {
                                store: "local",
                                source: Box::new(error),
                            })?
                    }
                    None => whole,
                };
                Ok((file, meta, if options.head { 0..0 } else { range }))
            })
            .await?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(read_stream(
                self.files.clone(),
                file,
                location,
                range.clone(),
            )),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let files = self.files.clone();
        let writable = self.lock.is_some();
        let delete = move |location: StoreResult<Path>| {
            let files = files.clone();
            async move {
                let location = location?;
                if !writable {
                    return Err(StoreError::PermissionDenied {
                        path: location.to_string(),
                        source: "the store is open for reading only".into(),
                    });
                }
                blocking(move || files.delete(&location).map(|()| location)).await
            }
        };
        locations.map(delete).buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let files = self.files.clone();
        // One folder at a time: all names of a large repository are much memory.
        let waiting = vec![prefix.cloned().unwrap_or_default()];
        let folders = stream::try_unfold(waiting, move |mut waiting| {
            let files = files.clone();
            async move {
                let Some(folder) = waiting.pop() else {
                    return Ok::<_, StoreError>(None);
                };
                let Listed { objects, folders } = blocking(move || files.list(&folder)).await?;
                waiting.extend(folders.into_iter().rev());
                Ok(Some((stream::iter(objects).map(Ok), waiting)))
            }
        });
        folders.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let Listed { objects, folders } = self.run(move |files| files.list(&prefix)).await?;
        Ok(ListResult {
            objects,
            common_prefixes: folders,
            extensions: Default::default(),
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let payload = self
            .get_opts(from, GetOptions::default())
            .await?
            .bytes()
            .await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, payload.into(), mode.into())
            .await
            .map(|_| ())
    }
}

/// The bytes of a range, in pieces.
fn read_stream(
    files: Arc<Files>,
    file: File,
    location: &Path,
    range: Range<u64>,
) -> BoxStream<'static, StoreResult<Bytes>> {
    let (file, location) = (Arc::new(file), location.clone());
    stream::try_unfold(range.start, move |at| {
        let (files, file) = (files.clone(), file.clone());
        let (location, end) = (location.clone(), range.end);
        async move {
            if at >= end {
                return Ok(None);
            }
            let piece = at..end.min(at + READ_BYTES as u64);
            let next = piece.end;
            let bytes = blocking(move || files.read(&file, &location, piece)).await?;
            Ok(Some((bytes, next)))
        }
    })
    .boxed()
}
