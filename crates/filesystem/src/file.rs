//! The content of a regular file.

use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::Extent;
use cairn_types::tree::Metadata;

use crate::driver::{self, Hint, Node, Place};
use crate::error::{Error, Result};
use crate::file_system::Inner;

/// An open regular file, which may be read from many threads at once.
pub struct File {
    inner: Arc<Inner>,
    node: Node,
    hint: Mutex<Hint>,
}

impl File {
    pub(crate) fn new(inner: Arc<Inner>, node: Node) -> Self {
        Self {
            inner,
            node,
            hint: Mutex::default(),
        }
    }

    /// What the file system says of it.
    pub fn metadata(&self) -> &Metadata {
        &self.node.metadata
    }

    /// How long it is.
    pub fn size_bytes(&self) -> u64 {
        self.node.content_bytes
    }

    /// Fills `buffer` from `offset`, all of it unless the file ends before; says how much. Holes are zeros.
    /// Large buffers are read at once where the file lies together.
    ///
    /// Errors: `Corrupt`; `Invalid` its content is kept in a way that is not read; what the disk says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let rest = self.node.content_bytes.saturating_sub(offset);
        let length = rest.min(buffer.len() as u64) as usize;
        let mut hint = self.hint();
        driver::read(
            &*self.inner.driver,
            &self.inner.volume,
            &self.node,
            &mut hint,
            offset,
            &mut buffer[..length],
        )?;
        self.keep(hint);
        Ok(length)
    }

    /// The run that holds byte `offset`, which lies before the end: whether it is data, and how far
    /// it goes. Neighbouring runs may be of the same sort.
    ///
    /// Errors: as `read_at`; `Invalid` the offset is not before the end.
    pub fn extent_at(&self, offset: u64) -> Result<Extent> {
        let size_bytes = self.node.content_bytes;
        if offset >= size_bytes {
            return Err(Error::BadRange {
                start: offset,
                end: size_bytes,
            });
        }
        let mut hint = self.hint();
        let run = self.inner.driver.map(&self.node, offset, &mut hint)?;
        self.keep(hint);
        Ok(Extent {
            offset,
            length: run.length.min(size_bytes - offset),
            data: run.place != Place::Hole,
        })
    }

    fn hint(&self) -> Hint {
        *self.hint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, hint: Hint) {
        *self.hint.lock().unwrap_or_else(PoisonError::into_inner) = hint;
    }
}
