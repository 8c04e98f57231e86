//! A store that holds one call up, or all from one on, until it is told to let them go on.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::sync::Notify;

/// A store over another. Of the calls since `pause_at`, one waits before it has any effect, as
/// when the process is paused there; all others go on. After `hang_from` those that
/// come later wait, too, as when the store does not answer any more.
///
/// Parts of an upload count for nothing: nobody sees them. A store that hangs takes none.
#[derive(Debug, Clone)]
pub struct PausedStore {
    inner: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    reached: Notify,
    released: Notify,
    answers: Notify,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    pause_at: Option<u64>,
    /// From when on all calls wait.
    hangs_from: Option<u64>,
    /// What was called, in order.
    log: Vec<String>,
    /// What listings leave out.
    hidden: Option<String>,
}

impl State {
    fn hangs(&self) -> bool {
        self.hangs_from.is_some_and(|from| self.calls > from)
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, call: &str, path: Option<&Path>) {
        let waits = {
            let mut state = self.state();
            let at = state.calls;
            state.calls += 1;
            let path = path.map(Path::to_string).unwrap_or_default();
            state.log.push(format!("{call} {path}"));
            state.pause_at == Some(at)
        };
        self.answer().await;
        if waits {
            let released = self.released.notified();
            self.reached.notify_one();
            released.await;
        }
    }

    /// Returns once the store does not hang.
    async fn answer(&self) {
        loop {
            let answers = self.answers.notified();
            tokio::pin!(answers);
            answers.as_mut().enable();
            if !self.state().hangs() {
                return;
            }
            self.reached.notify_one();
            answers.await;
        }
    }
}

impl PausedStore {
    /// A store that lets everything pass until told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let gate = Arc::default();
        Self { inner, gate }
    }

    /// Counts calls from 0 again, and holds up the one with this number.
    pub fn pause_at(&self, call: u64) {
        let mut state = self.gate.state();
        state.calls = 0;
        state.log.clear();
        state.pause_at = Some(call);
    }

    /// Counts calls from 0 again, and answers neither the one with this number nor any later.
    pub fn hang_from(&self, call: u64) {
        self.pause_at(u64::MAX);
        self.gate.state().hangs_from = Some(call);
    }

    /// Answers again, also what was called meanwhile.
    pub fn recover(&self) {
        self.gate.state().hangs_from = None;
        self.gate.answers.notify_waiters();
    }

    /// Returns when a call is held up.
    pub async fn reached(&self) {
        self.gate.reached.notified().await;
    }

    /// Lets the call that is held up go on.
    pub fn release(&self) {
        self.gate.released.notify_one();
    }

    /// Every call since `pause_at`, as its name and path.
    pub fn calls(&self) -> Vec<String> {
        self.gate.state().log.clone()
    }

    /// Listings lack every object whose path contains this, as those of a store do that is behind.
    pub fn hide(&self, part: Option<String>) {
        self.gate.state().hidden = part;
    }
}

impl fmt::Display for PausedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a paused {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for PausedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.gate.pass("put", Some(location)).await;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.gate.pass("upload", Some(location)).await;
        Ok(Box::new(PausedUpload {
            inner: self.inner.put_multipart_opts(location, options).await?,
            gate: self.gate.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let call = if options.head { "head" } else { "get" };
        self.gate.pass(call, Some(location)).await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, gate) = (self.inner.clone(), self.gate.clone());
        locations
            .then(move |location| {
                let (inner, gate) = (inner.clone(), gate.clone());
                async move {
                    let location = location?;
                    gate.pass("delete", Some(&location)).await;
                    inner.delete(&location).await.map(|()| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, gate, prefix) = (self.inner.clone(), self.gate.clone(), prefix.cloned());
        let listed = async move {
            gate.pass("list", prefix.as_ref()).await;
            let hidden = gate.state().hidden.clone();
            let shown = move |found: &ObjectMeta| {
                let path = found.location.as_ref();
                hidden.as_ref().is_none_or(|part| !path.contains(part))
            };
            let listed = inner.list(prefix.as_ref());
            listed.try_filter(move |found| std::future::ready(shown(found)))
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.gate.pass("list", prefix).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.gate.pass("copy", Some(to)).await;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct PausedUpload {
    inner: Box<dyn MultipartUpload>,
    gate: Arc<Gate>,
}

#[async_trait]
impl MultipartUpload for PausedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (gate, part) = (self.gate.clone(), self.inner.put_part(data));
        async move {
            gate.answer().await;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.gate.answer().await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.gate.answer().await;
        self.inner.abort().await
    }
}
