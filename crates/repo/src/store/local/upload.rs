//! An upload in parts to a local store.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartUpload, PutPayload, PutResult, Result as StoreResult, UploadPart,
};

use super::blocking;
use super::files::{Files, Temporary, store_error};

/// A temporary file that parts are written to; dropping it removes the file.
#[derive(Debug)]
pub(super) struct LocalUpload {
    files: Arc<Files>,
    location: Path,
    /// Gone once complete or aborted.
    temporary: Option<Arc<Temporary>>,
    length: u64,
}

impl LocalUpload {
    pub fn start(files: Arc<Files>, location: Path) -> StoreResult<Self> {
        let temporary = Some(Arc::new(files.temporary(&location)?));
        Ok(Self {
            files,
            location,
            temporary,
            length: 0,
        })
    }

    fn over(&self) -> StoreError {
        StoreError::Generic {
            store: "local",
            source: format!(
                "the upload of {} is over or has parts under way",
                self.location
            )
            .into(),
        }
    }
}

#[async_trait]
impl MultipartUpload for LocalUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(temporary) = self.temporary.clone() else {
            return std::future::ready(Err(self.over())).boxed();
        };
        let mut offset = self.length;
        self.length += data.content_length() as u64;
        let location = self.location.clone();
        blocking(move || {
            for bytes in &data {
                let written = temporary.write_at(bytes, offset);
                written.map_err(|error| store_error(&location, error))?;
                offset += bytes.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let temporary = self
            .temporary
            .take()
            .and_then(Arc::into_inner)
            .ok_or(self.over())?;
        let (files, location, length) = (self.files.clone(), self.location.clone(), self.length);
        blocking(move || files.place(temporary, &location, length, true)).await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.temporary = None;
        Ok(())
    }
}
