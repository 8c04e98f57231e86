//! An upload in parts to a remote store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
    PutResult, Result as StoreResult, UploadPart,
};

use super::{RemoteStore, as_put, broken};
use crate::store::retry::Attempts;
use crate::workers::lock;

/// Parts that are at the store, by number, until the upload is complete.
type Parts = BTreeMap<usize, PartId>;

/// An upload: each part is repeated by itself. One that is neither completed
/// nor aborted stays in the store until the bucket's rule for such removes it.
#[derive(Debug)]
pub(super) struct RemoteUpload<S> {
    store: RemoteStore<S>,
    location: Path,
    id: MultipartId,
    parts: Arc<Mutex<Parts>>,
    begun: usize,
    length: u64,
}

impl<S: ObjectStore + MultipartStore> RemoteUpload<S> {
    pub async fn start(store: RemoteStore<S>, location: Path) -> StoreResult<Self> {
        let mut attempts = Attempts::new(&store.policy);
        let id = loop {
            let begun = store.inner.create_multipart(&location);
            match store.policy.within(0, begun).await {
                Ok(id) => break id,
                Err(error) => attempts.again(error).await?,
            }
        };
        Ok(Self {
            store,
            location,
            id,
            parts: Arc::default(),
            begun: 0,
            length: 0,
        })
    }

    async fn complete_once(&self, parts: Vec<PartId>) -> StoreResult<PutResult> {
        let (store, location) = (&self.store, &self.location);
        let done = store.inner.complete_multipart(location, &self.id, parts);
        match store.policy.within(0, done).await {
            Ok(done) => {
                store.confirm(location, self.length).await?;
                Ok(done)
            }
            Err(StoreError::NotFound { .. }) => self.completed_before().await,
            Err(error) => Err(error),
        }
    }

    /// An upload that is not there any more may have been completed by an
    /// attempt whose answer was lost; the name is this upload's own.
    async fn completed_before(&self) -> StoreResult<PutResult> {
        let (store, location) = (&self.store, &self.location);
        match store.policy.within(0, store.inner.head(location)).await {
            Ok(meta) if meta.size == self.length => Ok(as_put(meta)),
            Ok(meta) => {
                let (found, length) = (meta.size, self.length);
                Err(broken(format!(
                    "{location} has {found} bytes, {length} were put"
                )))
            }
            Err(StoreError::NotFound { .. }) => Err(broken(format!(
                "the store has lost the upload of {location}"
            ))),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl<S: ObjectStore + MultipartStore> MultipartUpload for RemoteUpload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, location) = (self.store.clone(), self.location.clone());
        let (id, parts, number) = (self.id.clone(), self.parts.clone(), self.begun);
        self.begun += 1;
        self.length += data.content_length() as u64;
        async move {
            let mut attempts = Attempts::new(&store.policy);
            loop {
                let put = store.inner.put_part(&location, &id, number, data.clone());
                match store.policy.within(data.content_length() as u64, put).await {
                    Ok(part) => {
                        lock(&parts).insert(number, part);
                        return Ok(());
                    }
                    Err(error) => attempts.again(error).await?,
                }
            }
        }
        .boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let parts: Vec<PartId> = lock(&self.parts).values().cloned().collect();
        if parts.len() != self.begun {
            return Err(broken(format!(
                "the upload of {} lacks a part",
                self.location
            )));
        }
        let mut attempts = Attempts::new(&self.store.policy);
        loop {
            match self.complete_once(parts.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn abort(&mut self) -> StoreResult<()> {
        let mut attempts = Attempts::new(&self.store.policy);
        loop {
            let aborted = self.store.inner.abort_multipart(&self.location, &self.id);
            match self.store.policy.within(0, aborted).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => return Ok(()),
                Err(error) => attempts.again(error).await?,
            }
        }
    }
}
