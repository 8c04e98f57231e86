//! A store that fails at a chosen call.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

/// How a store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This call fails without effect; those after it work.
    Once(u64),
    /// This call and all after it fail without effect, as when the process dies before it.
    Before(u64),
    /// This call takes effect and fails nevertheless, and all after it fail, as
    /// when the process dies before it hears the answer.
    After(u64),
}

/// A store over another that counts calls and fails where it is told to.
/// Every call counts: reads, lists, writes, parts, completions and deletions.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    calls: AtomicU64,
    fault: Mutex<Option<Fault>>,
    kind: Mutex<io::ErrorKind>,
}

/// What is to happen to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    FailsBefore,
    FailsAfter,
}

impl FaultyStore {
    /// A store that works until told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let state = State {
            calls: AtomicU64::new(0),
            fault: Mutex::default(),
            kind: Mutex::new(io::ErrorKind::Other),
        };
        Self {
            inner,
            state: Arc::new(state),
        }
    }

    /// From now on calls are counted from 0 again and fail as told.
    pub fn set(&self, fault: Option<Fault>) {
        self.state.calls.store(0, Ordering::SeqCst);
        *lock(&self.state.fault) = fault;
    }

    /// What the system is said to have answered where a call fails.
    pub fn fail_with(&self, kind: io::ErrorKind) {
        *lock(&self.state.kind) = kind;
    }

    /// Calls since the last `set`.
    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn fate(&self) -> Fate {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match *lock(&self.fault) {
            Some(Fault::Once(at)) if call == at => Fate::FailsBefore,
            Some(Fault::Before(at)) if call >= at => Fate::FailsBefore,
            Some(Fault::After(at)) if call == at => Fate::FailsAfter,
            Some(Fault::After(at)) if call > at => Fate::FailsBefore,
            _ => Fate::Works,
        }
    }

    fn error(&self) -> Error {
        Error::Generic {
            store: "faulty",
            source: io::Error::from(*lock(&self.kind)).into(),
        }
    }

    /// Makes the call unless it is to fail first.
    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate() {
            Fate::Works => work.await,
            Fate::FailsBefore => Err(self.error()),
            Fate::FailsAfter => {
                work.await?;
                Err(self.error())
            }
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.state
            .call(self.inner.put_opts(location, payload, options))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self
            .state
            .call(self.inner.put_multipart_opts(location, options))
            .await?;
        Ok(Box::new(FaultyUpload {
            inner,
            state: self.state.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.state
            .call(self.inner.get_opts(location, options))
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        locations
            .then(move |location| {
                let (inner, state) = (inner.clone(), state.clone());
                async move {
                    let location = location?;
                    state.call(inner.delete(&location)).await.map(|()| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.fate() {
            Fate::Works => self.inner.list(prefix),
            _ => stream::once(std::future::ready(Err(self.state.error()))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.state
            .call(self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.state
            .call(self.inner.copy_opts(from, to, options))
            .await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (state, part) = (self.state.clone(), self.inner.put_part(data));
        async move { state.call(part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.state.call(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
