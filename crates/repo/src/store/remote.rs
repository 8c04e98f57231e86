//! A store behind a network, made dependable: what may be repeated is, by one
//! policy; what was stored is looked at; and a doubt is never an answer.
//!
//! - An error is an error. Absence is what the store says twice in a row.
//! - Of what was put, the length is asked for before it counts as stored, and
//!   what was deleted is looked for before it counts as gone.
//! - What was got has the length that was announced, or is got again.
//! - An object that "exists already" when it is to be created may be the work
//!   of an attempt whose answer was lost: it counts as created if it has the very
//!   bytes. Callers put something of their own into what they create. So it is
//!   with an object that is replaced only if it is the one that was seen.
//! - A listing that breaks off goes on behind the last name it gave.

mod upload;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result as StoreResult, UpdateVersion,
};

use super::retry::{Attempts, RetryPolicy};
use super::{Answer, answer_with};
use upload::RemoteUpload;

/// Deletions under way at a time.
const DELETES: usize = 8;

/// How an object is created that must not exist yet, or replaced that must be the one that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// By the store, which refuses where there is an object, or another.
    Conditional,
    /// By looking first: right only where nobody else writes.
    Alone,
}

/// A remote store that can be relied on. Clones share it.
#[derive(Debug)]
pub struct RemoteStore<S> {
    inner: Arc<S>,
    policy: RetryPolicy,
    creation: Creation,
}

impl<S> Clone for RemoteStore<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
            creation: self.creation,
        }
    }
}

impl<S> fmt::Display for RemoteStore<S>
where
    S: fmt::Display,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What lies where an object was to be created.
enum There {
    /// These very bytes.
    Same(ObjectMeta),
    Other,
    Nothing,
}

impl<S: ObjectStore + MultipartStore> RemoteStore<S> {
    /// Makes a store dependable.
    pub fn new(inner: S, policy: RetryPolicy, creation: Creation) -> Self {
        Self {
            inner: Arc::new(inner),
            policy,
            creation,
        }
    }

    /// Replaces what is there, and sees that it has its length.
    async fn put(&self, location: &Path, payload: PutPayload) -> StoreResult<PutResult> {
        let length = payload.content_length() as u64;
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let put = self.inner.put(location, payload.clone());
            let stored = async {
                let put = self.policy.within(length, put).await?;
                self.confirm(location, length).await?;
                Ok(put)
            };
            match stored.await {
                Ok(put) => return Ok(put),
                // Nothing was asked that could be refused so: two requests met.
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                    let problem = format!("the store does not replace {location}");
                    attempts.again(broken(problem)).await?;
                }
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    /// One request for the length of what was just stored.
    async fn confirm(&self, location: &Path, length: u64) -> StoreResult<()> {
        let problem = match self.policy.within(0, self.inner.head(location)).await {
            Ok(meta) if meta.size == length => return Ok(()),
            Ok(meta) => format!("{location} has {} bytes, {length} were put", meta.size),
            Err(StoreError::NotFound { .. }) => format!("{location} was put and is not there"),
            Err(error) => return Err(error),
        };
        Err(broken(problem))
    }

    /// Whatever the store says of the creation: what is there then decides.
    async fn create(&self, location: &Path, payload: PutPayload) -> StoreResult<PutResult> {
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let created = match self.create_once(location, &payload).await {
                Ok(_) => true,
                Err(StoreError::AlreadyExists { .. }) => false,
                Err(error) => {
                    attempts.again(error).await?;
                    continue;
                }
            };
            match self.compare(location, &payload).await? {
                There::Same(meta) => return Ok(as_put(meta)),
                There::Other if !created => return Err(taken(location)),
                There::Other | There::Nothing => {
                    let problem = format!("{location} does not read as what was created");
                    attempts.again(broken(problem)).await?;
                }
            }
        }
    }

    async fn create_once(&self, location: &Path, payload: &PutPayload) -> StoreResult<PutResult> {
        let length = payload.content_length() as u64;
        let mode = match self.creation {
            Creation::Conditional => PutMode::Create,
            Creation::Alone => match self.head(location).await {
                Ok(_) => return Err(taken(location)),
                Err(StoreError::NotFound { .. }) => PutMode::Overwrite,
                Err(error) => return Err(error),
            },
        };
        let put = self
            .inner
            .put_opts(location, payload.clone(), PutOptions::from(mode));
        self.policy.within(length, put).await
    }

    /// Replaces what is there if it is what the caller has seen. As with a
    /// creation, what is there then decides.
    async fn update(
        &self,
        location: &Path,
        payload: PutPayload,
        mut seen: UpdateVersion,
    ) -> StoreResult<PutResult> {
        let length = payload.content_length() as u64;
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let options = PutOptions::from(PutMode::Update(seen.clone()));
            let put = self.inner.put_opts(location, payload.clone(), options);
            let refused = match self.policy.within(length, put).await {
                Ok(put) => {
                    // What it stored may be cut short: that is ours to replace.
                    seen = UpdateVersion::from(put);
                    None
                }
                Err(error @ StoreError::Precondition { .. }) => Some(error),
                Err(error) if Answer::behind(&error).is_some_and(Answer::is_unknown) => {
                    return Err(unconditional());
                }
                Err(error) => {
                    attempts.again(error).await?;
                    continue;
                }
            };
            match (self.compare(location, &payload).await?, refused) {
                (There::Same(meta), _) => return Ok(as_put(meta)),
                (There::Other, Some(refused)) => return Err(refused),
                (There::Other | There::Nothing, _) => {
                    let problem = format!("{location} does not read as what was put");
                    attempts.again(broken(problem)).await?;
                }
            }
        }
    }

    async fn compare(&self, location: &Path, payload: &PutPayload) -> StoreResult<There> {
        let found = match self.get(location).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(There::Nothing),
            Err(error) => return Err(error),
        };
        let meta = found.meta.clone();
        let bytes = found.bytes().await?;
        let same =
            bytes.len() == payload.content_length() && bytes.iter().eq(payload.iter().flatten());
        Ok(if same {
            There::Same(meta)
        } else {
            There::Other
        })
    }

    /// One request for an object, with all of its bytes.
    async fn get_once(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let head = options.head;
        let got = self.inner.get_opts(location, options);
        let got = self.policy.within(0, got).await?;
        let answer = answer_with(&got);
        let wanted = if head {
            0
        } else {
            got.range.end - got.range.start
        };
        let bytes = if head {
            Bytes::new()
        } else {
            self.policy.within(wanted, got.bytes()).await?
        };
        if bytes.len() as u64 != wanted {
            let problem = format!("{} bytes of {location} came, not {wanted}", bytes.len());
            return Err(broken(problem));
        }
        Ok(answer(bytes))
    }

    async fn delete_one(&self, location: Path) -> StoreResult<Path> {
        let mut attempts = Attempts::new(&self.policy);
        loop {
            match self.delete_once(&location).await {
                StoreError::NotFound { .. } => return Ok(location),
                error => attempts.again(error).await?,
            }
        }
    }

    /// Two requests, for the deletion and for what is there then; the end is
    /// "not found", or an error.
    async fn delete_once(&self, location: &Path) -> StoreError {
        let deleted = self.policy.within(0, self.inner.delete(location)).await;
        let looked = match deleted {
            Ok(()) => self.policy.within(0, self.inner.head(location)).await,
            Err(error) => return error,
        };
        match looked {
            Ok(_) => broken(format!("{location} was deleted and is still there")),
            Err(error) => error,
        }
    }

    /// The next object of a listing, which begins anew where it broke off.
    async fn next_listed(
        self,
        mut listing: Listing,
    ) -> StoreResult<Option<(ObjectMeta, (Self, Listing))>> {
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let mut rest = match listing.rest.take() {
                Some(rest) => rest,
                None => match &listing.last {
                    Some(last) => self.inner.list_with_offset(listing.prefix.as_ref(), last),
                    None => self.inner.list(listing.prefix.as_ref()),
                },
            };
            match self.policy.within(0, rest.try_next()).await {
                Ok(Some(meta)) => {
                    listing.last = Some(meta.location.clone());
                    listing.rest = Some(rest);
                    return Ok(Some((meta, (self.clone(), listing))));
                }
                Ok(None) => return Ok(None),
                Err(error) => attempts.again(error).await?,
            }
        }
    }
}

/// A listing under way.
struct Listing {
    prefix: Option<Path>,
    last: Option<Path>,
    rest: Option<BoxStream<'static, StoreResult<ObjectMeta>>>,
}

#[async_trait]
impl<S: ObjectStore + MultipartStore> ObjectStore for RemoteStore<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        match options.mode {
            PutMode::Overwrite => self.put(location, payload).await,
            PutMode::Create => self.create(location, payload).await,
            PutMode::Update(seen) if self.creation == Creation::Conditional => {
                self.update(location, payload, seen).await
            }
            PutMode::Update(_) => Err(unconditional()),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let upload = RemoteUpload::start(self.clone(), location.clone()).await?;
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let mut attempts = Attempts::new(&self.policy);
        let mut absent = false;
        loop {
            match self.get_once(location, options.clone()).await {
                Ok(got) => return Ok(got),
                Err(StoreError::NotFound { .. }) if !absent => absent = true,
                Err(error) => {
                    absent = false;
                    attempts.again(error).await?;
                }
            }
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let store = self.clone();
        let delete = move |location: StoreResult<Path>| {
            let store = store.clone();
            async move { store.delete_one(location?).await }
        };
        locations.map(delete).buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let listing = Listing {
            prefix: prefix.cloned(),
            last: None,
            rest: None,
        };
        stream::try_unfold((self.clone(), listing), |(store, listing)| {
            store.next_listed(listing)
        })
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let listed = self.inner.list_with_delimiter(prefix);
            match tokio::time::timeout(self.policy.patience, listed).await {
                Ok(Ok(listed)) => return Ok(listed),
                Ok(Err(error)) => attempts.again(error).await?,
                Err(_) => return Err(broken(format!("{self} lists its folders too slowly"))),
            }
        }
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> StoreResult<()> {
        Err(StoreError::NotSupported {
            source: "nothing is copied within a remote store".into(),
        })
    }
}

fn as_put(meta: ObjectMeta) -> PutResult {
    PutResult {
        e_tag: meta.e_tag,
        version: meta.version,
        extensions: Default::default(),
    }
}

fn taken(location: &Path) -> StoreError {
    StoreError::AlreadyExists {
        path: location.to_string(),
        source: "another object has the name".into(),
    }
}

fn unconditional() -> StoreError {
    StoreError::NotSupported {
        source: "this store knows no conditions".into(),
    }
}

/// A failure of the store that it did not call one.
fn broken(problem: String) -> StoreError {
    StoreError::Generic {
        store: "remote",
        source: problem.into(),
    }
}
