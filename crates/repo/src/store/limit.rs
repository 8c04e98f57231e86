//! Limits on what is asked of a store: bytes a second each way, and requests at a time.
//!
//! A transfer waits until those before it are paid for at the rate, and then
//! moves at once: over any stretch of time the rate holds but for one transfer,
//! which is at most a part of an upload or a read of a pack. Whoever gives up
//! while it waits has used nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{self, Instant};

use super::answer_with;

/// Requests at a time if nothing else is said.
const REQUESTS: usize = 32;
/// Bytes that are paid for at a time, so that a slow read still pays as it goes.
const NANOS: u128 = 1_000_000_000;

/// What a store may be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes a second towards the store; no limit if not given.
    pub upload_bytes_per_second: Option<u64>,
    /// Bytes a second from the store; no limit if not given.
    pub download_bytes_per_second: Option<u64>,
    /// Requests at a time, at least 1.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            requests: REQUESTS,
        }
    }
}

/// A store that is asked within limits. Clones share them.
#[derive(Debug, Clone)]
pub struct LimitedStore {
    inner: Arc<dyn ObjectStore>,
    lanes: Arc<Lanes>,
}

#[derive(Debug)]
struct Lanes {
    requests: Semaphore,
    up: Lane,
    down: Lane,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    bytes_per_second: Option<u64>,
    /// When all that was moved is paid for. Held by the transfer whose turn it is to wait.
    free_at: Mutex<Instant>,
}

impl Lane {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a transfer's turn.
    async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let mut free_at = self.free_at.lock().await;
        time::sleep_until(*free_at).await;
        let nanos = u128::from(bytes) * NANOS / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *free_at = Instant::now() + cost;
    }
}

impl Lanes {
    async fn request(&self) -> SemaphorePermit<'_> {
        let permit = self.requests.acquire().await;
        permit.expect("nothing closes it")
    }
}

impl LimitedStore {
    /// Puts limits on a store.
    pub fn new(inner: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        let lanes = Lanes {
            requests: Semaphore::new(limits.requests.clamp(1, Semaphore::MAX_PERMITS)),
            up: Lane::new(limits.upload_bytes_per_second),
            down: Lane::new(limits.download_bytes_per_second),
        };
        Self {
            inner,
            lanes: Arc::new(lanes),
        }
    }
}

impl fmt::Display for LimitedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LimitedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.lanes.up.take(payload.content_length() as u64).await;
        let _request = self.lanes.request().await;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let _request = self.lanes.request().await;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(LimitedUpload {
            inner,
            lanes: self.lanes.clone(),
        }))
    }

    /// How much it is is known when the answer begins: then its bytes wait for their turn.
    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let head = options.head;
        let _request = self.lanes.request().await;
        let got = self.inner.get_opts(location, options).await?;
        if head {
            return Ok(got);
        }
        self.lanes.down.take(got.range.end - got.range.start).await;
        let answer = answer_with(&got);
        Ok(answer(got.bytes().await?))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        one_at_a_time(self.lanes.clone(), self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        one_at_a_time(self.lanes.clone(), self.inner.list(prefix))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let _request = self.lanes.request().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let _request = self.lanes.request().await;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A stream of answers takes its place among the requests only while it is
/// waited for, so that whoever works on what it gives can make requests meanwhile.
fn one_at_a_time<T: Send + 'static>(
    lanes: Arc<Lanes>,
    answers: BoxStream<'static, StoreResult<T>>,
) -> BoxStream<'static, StoreResult<T>> {
    stream::try_unfold((lanes, answers), |(lanes, mut answers)| async move {
        let request = lanes.request().await;
        let next = answers.try_next().await?;
        drop(request);
        Ok(next.map(|next| (next, (lanes, answers))))
    })
    .boxed()
}

#[derive(Debug)]
struct LimitedUpload {
    inner: Box<dyn MultipartUpload>,
    lanes: Arc<Lanes>,
}

#[async_trait]
impl MultipartUpload for LimitedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (lanes, bytes) = (self.lanes.clone(), data.content_length() as u64);
        let part = self.inner.put_part(data);
        async move {
            lanes.up.take(bytes).await;
            let _request = lanes.request().await;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let _request = self.lanes.request().await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        let _request = self.lanes.request().await;
        self.inner.abort().await
    }
}
