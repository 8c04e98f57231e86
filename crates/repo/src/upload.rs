//! Uploads: a large object's way to the store, in parts, as its bytes come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::MultipartUpload;
use object_store::path::Path;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::buffer::{Buffer, BufferPool};
use crate::error::{Error, Result};
use crate::store::{Objects, failed};

/// Bytes of a part; object stores take no smaller ones but the last.
const PART_BYTES: usize = 5 << 20;
/// Parts of one object on their way to the store.
const PARTS_IN_FLIGHT: usize = 2;
/// How long a store may take to give up an upload of work that is cancelled.
const ABORT_PATIENCE: Duration = Duration::from_millis(500);
/// Buffers for parts that stay when there is nothing to send.
const PARTS_KEPT: usize = 4;

/// Buffers to gather parts in.
pub(crate) fn buffers() -> Arc<BufferPool> {
    BufferPool::new(PART_BYTES, PARTS_KEPT)
}

/// The object's way to the store.
pub(crate) struct Upload {
    pub path: Path,
    /// Bytes that are not on their way yet.
    pending: Buffer,
    buffers: Arc<BufferPool>,
    /// Begun with the first part; a small object needs none.
    begun: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<object_store::Result<()>>,
}

impl Upload {
    pub fn new(path: Path, buffers: &Arc<BufferPool>) -> Self {
        Self {
            path,
            pending: empty(buffers),
            buffers: buffers.clone(),
            begun: None,
            parts: JoinSet::new(),
        }
    }

    /// Adds bytes, and sends what fills a part.
    pub async fn add(&mut self, mut bytes: &[u8], objects: &Objects) -> Result<()> {
        while !bytes.is_empty() {
            if self.pending.len() == PART_BYTES {
                self.send_part(objects).await?;
            }
            let room = PART_BYTES - self.pending.len();
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(fits);
            bytes = rest;
        }
        Ok(())
    }

    async fn send_part(&mut self, objects: &Objects) -> Result<()> {
        let part = self.take_pending();
        while self.parts.len() >= PARTS_IN_FLIGHT {
            self.join_part(objects).await?;
        }
        if self.begun.is_none() {
            self.begun = Some(objects.upload(&self.path).await?);
        }
        let upload = self.begun.as_mut().expect("it was begun above");
        self.parts.spawn(upload.put_part(part.into()));
        Ok(())
    }

    fn take_pending(&mut self) -> Bytes {
        let next = empty(&self.buffers);
        Bytes::from_owner(std::mem::replace(&mut self.pending, next))
    }

    async fn join_part(&mut self, objects: &Objects) -> Result<()> {
        match objects.wait(self.parts.join_next()).await? {
            None => Ok(()),
            Some(Err(_)) => Err(Error::WorkerLost),
            Some(Ok(done)) => done.map_err(|source| failed("write", &self.path, source)),
        }
    }

    /// Sends the rest. The object is there, and durable, when this returns, and not before.
    pub async fn complete(&mut self, objects: &Objects) -> Result<()> {
        if self.begun.is_none() {
            let all = self.take_pending();
            return objects.put(&self.path, all).await;
        }
        self.send_part(objects).await?;
        while !self.parts.is_empty() {
            self.join_part(objects).await?;
        }
        let Some(upload) = self.begun.as_mut() else {
            return Ok(());
        };
        let done = objects.wait(upload.complete()).await?;
        done.map(|_| ())
            .map_err(|source| failed("finish", &self.path, source))
    }

    /// Gives up what was sent, as far as the store lets us.
    pub async fn abort(&mut self, objects: &Objects) {
        self.parts.shutdown().await;
        let Some(upload) = self.begun.as_mut() else {
            return;
        };
        let aborted = match objects.are_of_cancelled_work() {
            true => timeout(ABORT_PATIENCE, upload.abort()).await,
            false => Ok(upload.abort().await),
        };
        let problem = match aborted {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store does not answer".to_owned(),
        };
        tracing::warn!(problem, object = %self.path, "An unfinished upload stays in the store.");
    }
}

/// A buffer to gather a part in.
fn empty(parts: &Arc<BufferPool>) -> Buffer {
    let mut buffer = parts.take();
    buffer.clear();
    buffer
}
