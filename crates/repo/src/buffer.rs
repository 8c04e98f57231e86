//! Large buffers that are used again. The allocator gives such memory back to
//! the system at once, and each page of it costs a fault when it is next written to.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use crate::workers::lock;

/// Buffers of one use, of which a few are kept.
#[derive(Debug)]
pub(crate) struct BufferPool {
    capacity: usize,
    kept: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer that goes back to its pool. It holds what it last held.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// Buffers of this capacity, of which so many stay when they are not in use.
    pub fn new(capacity: usize, kept: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            kept,
            free: Mutex::default(),
        })
    }

    pub fn take(self: &Arc<Self>) -> Buffer {
        let free = lock(&self.free).pop();
        Buffer {
            bytes: free.unwrap_or_else(|| Vec::with_capacity(self.capacity)),
            pool: self.clone(),
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// So it can become `Bytes`, and goes back when the last of them is gone.
impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = lock(&self.pool.free);
        if free.len() < self.pool.kept {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_comes_back_once_nobody_reads_it() {
        let pool = BufferPool::new(100, 1);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"what it holds");
        let memory = buffer.as_ptr();
        let bytes = Bytes::from_owner(buffer).slice(5..7);
        assert_ne!(pool.take().as_ptr(), memory);
        assert_eq!(bytes, "it".as_bytes());
        let others = [pool.take()];
        drop(bytes);
        assert_eq!(pool.take().as_ptr(), memory);
        drop(others);
        assert_eq!(lock(&pool.free).len(), 1, "no more are kept than it says");
    }
}
