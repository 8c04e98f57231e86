//! A store in memory with one ailment: each is a way in which a store behind
//! a network has been seen to fail, or to lie.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;

use crate::ailment::{Ailment, Fate, Request};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// When an ailment shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// At this one of the requests that it concerns.
    Once(u64),
    /// At this one and all later.
    From(u64),
}

#[derive(Debug, Default)]
struct Sickness {
    ailment: Option<(Ailment, Course)>,
    /// Requests since it began that it concerns.
    met: u64,
    /// What was there when it began.
    names: Vec<ObjectMeta>,
}

/// A store in memory that is well until it is told otherwise. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct AilingStore {
    inner: Arc<InMemory>,
    sickness: Arc<Mutex<Sickness>>,
}

impl AilingStore {
    /// A store that is well.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another store with the same objects, which is well.
    pub fn fork(&self) -> Self {
        Self {
            inner: Arc::new(self.inner.fork()),
            sickness: Arc::default(),
        }
    }

    /// From now on the store ails.
    pub async fn fall_ill(&self, ailment: Ailment, course: Course) {
        let names = self.inner.list(None).try_collect().await;
        *self.sickness() = Sickness {
            ailment: Some((ailment, course)),
            met: 0,
            names: names.unwrap_or_default(),
        };
    }

    /// From now on the store is well. Returns how many requests the ailment concerned.
    pub fn recover(&self) -> u64 {
        std::mem::take(&mut *self.sickness()).met
    }

    fn sickness(&self) -> MutexGuard<'_, Sickness> {
        self.sickness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, request: Request) -> Option<Fate> {
        let mut sickness = self.sickness();
        let (ailment, course) = sickness
            .ailment
            .filter(|(ailment, _)| ailment.request == request)?;
        let at = sickness.met;
        sickness.met += 1;
        let shows = match course {
            Course::Once(when) => at == when,
            Course::From(when) => at >= when,
        };
        shows.then_some(ailment.fate)
    }

    /// A request that changes something and answers no more than that it did.
    async fn change<T>(
        &self,
        fate: Option<Fate>,
        path: &Path,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match fate {
            Some(Fate::AnswerLost) => {
                work.await?;
                Err(error(io::ErrorKind::ConnectionReset))
            }
            Some(Fate::Hangs) => {
                work.await?;
                std::future::pending().await
            }
            Some(Fate::Refused) => Err(error(io::ErrorKind::ConnectionRefused)),
            Some(Fate::Full) => Err(error(io::ErrorKind::StorageFull)),
            Some(Fate::NotFound) => Err(Error::NotFound {
                path: path.to_string(),
                source: "the store is told to say so".into(),
            }),
            Some(Fate::Exists) => Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "the store is told to say so".into(),
            }),
            _ => work.await,
        }
    }

    /// The bytes of an object with another name, or none.
    async fn other(&self, location: &Path) -> Result<Bytes> {
        let names: Vec<_> = self.inner.list(None).try_collect().await?;
        match names.iter().find(|meta| meta.location != *location) {
            Some(meta) => self.inner.get(&meta.location).await?.bytes().await,
            None => Ok(Bytes::new()),
        }
    }

    async fn ailing_body(
        &self,
        fate: Option<Fate>,
        got: GetResult,
        path: &Path,
    ) -> Result<GetResult> {
        let (meta, range, attributes) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let bytes = got.bytes().await?;
        let half = bytes.slice(..bytes.len() / 2);
        let body = match fate {
            Some(Fate::Short) => whole(bytes.slice(..bytes.len().saturating_sub(1))),
            Some(Fate::Flipped) => whole(flipped(&bytes)),
            Some(Fate::Other) => {
                let other = self.other(path).await?;
                whole(fitted(&other, &range))
            }
            Some(Fate::Breaks) => {
                let broken = stream::once(std::future::ready(Err(error(
                    io::ErrorKind::ConnectionReset,
                ))));
                whole(half).chain(broken).boxed()
            }
            Some(Fate::Stalls) => whole(half).chain(stream::pending()).boxed(),
            _ => whole(bytes),
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes,
            extensions: Default::default(),
        })
    }

    fn listed(
        &self,
        prefix: Option<&Path>,
        offset: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let fate = self.fate(Request::List);
        let all = match offset {
            Some(offset) => self.inner.list_with_offset(prefix, offset),
            None => self.inner.list(prefix),
        };
        let prefix = prefix.cloned();
        let known = self.sickness().names.clone();
        let ailing = async move {
            let names: Vec<ObjectMeta> = all.try_collect().await?;
            let names: Vec<Result<ObjectMeta>> = match fate {
                Some(Fate::Refused) => vec![Err(error(io::ErrorKind::ConnectionRefused))],
                Some(Fate::Breaks) => {
                    let half = names.len() / 2;
                    let broken = Err(error(io::ErrorKind::ConnectionReset));
                    names
                        .into_iter()
                        .take(half)
                        .map(Ok)
                        .chain([broken])
                        .collect()
                }
                Some(Fate::Twice) => names
                    .into_iter()
                    .flat_map(|meta| [Ok(meta.clone()), Ok(meta)])
                    .collect(),
                Some(Fate::Stale) => known
                    .into_iter()
                    .filter(|meta| {
                        prefix
                            .as_ref()
                            .is_none_or(|prefix| meta.location.prefix_matches(prefix))
                    })
                    .map(Ok)
                    .collect(),
                Some(Fate::Partial) => names.into_iter().step_by(2).map(Ok).collect(),
                Some(Fate::Empty) => Vec::new(),
                _ => names.into_iter().map(Ok).collect(),
            };
            Ok::<_, Error>(stream::iter(names))
        };
        stream::once(ailing).try_flatten().boxed()
    }
}

fn error(kind: io::ErrorKind) -> Error {
    Error::Generic {
        store: "ailing",
        source: io::Error::from(kind).into(),
    }
}

fn whole(bytes: Bytes) -> BoxStream<'static, Result<Bytes>> {
    stream::once(std::future::ready(Ok(bytes))).boxed()
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

/// As many bytes as a range has, repeated or cut.
fn fitted(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let length = usize::try_from(range.end - range.start).expect("it is in memory");
    bytes
        .iter()
        .copied()
        .chain(std::iter::repeat(0))
        .take(length)
        .collect()
}

/// A payload without its last byte.
fn cut(payload: &PutPayload) -> PutPayload {
    let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
    bytes.pop();
    bytes.into()
}

fn nothing_done() -> PutResult {
    PutResult {
        e_tag: None,
        version: None,
        extensions: Default::default(),
    }
}

impl fmt::Display for AilingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an ailing store")
    }
}

#[async_trait]
impl ObjectStore for AilingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let request = match options.mode {
            PutMode::Create => Request::Create,
            _ => Request::Put,
        };
        let fate = self.fate(request);
        let payload = match fate {
            Some(Fate::Lost) => return Ok(nothing_done()),
            Some(Fate::Cut) => cut(&payload),
            _ => payload,
        };
        self.change(
            fate,
            location,
            self.inner.put_opts(location, payload, options),
        )
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported {
            source: format!("{location}: uploads go by `MultipartStore`").into(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let fate = self.fate(if head { Request::Head } else { Request::Get });
        let got = self
            .change(fate, location, self.inner.get_opts(location, options))
            .await;
        let mut got = got?;
        if head {
            if fate == Some(Fate::WrongSize) {
                got.meta.size = got.meta.size.saturating_sub(1);
            }
            return Ok(got);
        }
        self.ailing_body(fate, got, location).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let fate = store.fate(Request::Delete);
                if fate == Some(Fate::Lost) {
                    return Ok(location);
                }
                store
                    .change(fate, &location, store.inner.delete(&location))
                    .await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        match self.fate(Request::List) {
            Some(Fate::Refused | Fate::Breaks) => {
                return Err(error(io::ErrorKind::ConnectionRefused));
            }
            Some(Fate::Empty | Fate::Partial | Fate::Stale) => listed.common_prefixes.clear(),
            _ => {}
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for AilingStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let fate = self.fate(Request::Start);
        self.change(fate, path, self.inner.create_multipart(path))
            .await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let fate = self.fate(Request::Part);
        let data = if fate == Some(Fate::Cut) {
            cut(&data)
        } else {
            data
        };
        self.change(fate, path, self.inner.put_part(path, id, part, data))
            .await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let fate = self.fate(Request::Complete);
        if fate == Some(Fate::Lost) {
            return Ok(nothing_done());
        }
        let done = self
            .change(fate, path, self.inner.complete_multipart(path, id, parts))
            .await;
        // As an S3 server says of an upload that was completed already.
        done.map_err(|error| match error {
            Error::Generic { source, .. } if source.to_string().contains("not found") => {
                Error::NotFound {
                    path: path.to_string(),
                    source,
                }
            }
            error => error,
        })
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let fate = self.fate(Request::Abort);
        self.change(fate, path, self.inner.abort_multipart(path, id))
            .await
    }
}
