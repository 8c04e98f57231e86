//! A connection as a sequence of sealed records: a length in clear, which the
//! seal covers, and the sealed bytes. The number of a record is its nonce and is
//! not sent, so that one that is repeated, left out or moved does not open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::handshake::{Keys, Purpose};
use crate::limit::Limit;

/// Bytes of a record at most, sealed.
pub(crate) const RECORD_MAX: usize = 8 << 20;
/// Bytes of a record before the other end has proven that it knows the secret.
pub(crate) const FIRST_RECORD_MAX: usize = 256;
/// Without a byte for so long the other end counts as gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// Bytes that go out at a time, between looks at the limits.
const SLICE_BYTES: usize = 16 << 10;
const TAG_BYTES: usize = 16;

/// The bytes of a connection, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection with its keys.
pub struct Connection {
    pub(crate) purpose: Purpose,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

impl Connection {
    /// A connection over these bytes, which were not used for anything since the keys were told.
    pub fn new(stream: Box<dyn Stream>, keys: Keys) -> Self {
        let (from, to) = tokio::io::split(stream);
        Self {
            purpose: keys.purpose,
            sender: Sender {
                io: to,
                key: keys.send,
                next: 0,
                buffer: Vec::new(),
            },
            receiver: Receiver {
                io: from,
                key: keys.receive,
                next: 0,
            },
        }
    }
}

pub(crate) struct Sender {
    io: WriteHalf<Box<dyn Stream>>,
    key: LessSafeKey,
    next: u64,
    buffer: Vec<u8>,
}

impl Sender {
    /// Sends a record, no faster than each of the limits allows.
    pub async fn send(&mut self, plain: &[u8], limits: &[Arc<Limit>]) -> Result<()> {
        let length = u32::try_from(plain.len() + TAG_BYTES).expect("messages are limited");
        debug_assert!(length as usize <= RECORD_MAX, "messages are limited");
        let header = length.to_le_bytes();
        self.buffer.clear();
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(plain);
        let (nonce, text) = (take_nonce(&mut self.next), &mut self.buffer[header.len()..]);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), text)
            .expect("a record is far below the cipher's limit of 64 GiB");
        self.buffer.extend_from_slice(tag.as_ref());
        for slice in self.buffer.chunks(SLICE_BYTES) {
            for limit in limits {
                limit.take(slice.len()).await;
            }
            in_time(self.io.write_all(slice)).await?;
        }
        in_time(self.io.flush()).await
    }
}

pub(crate) struct Receiver {
    io: ReadHalf<Box<dyn Stream>>,
    key: LessSafeKey,
    next: u64,
}

impl Receiver {
    /// The next record of at most `limit` bytes; nothing if the other end has closed
    /// the connection between two.
    ///
    /// Errors: `Lost`; `NotAuthentic`, and then nothing further can be received.
    pub async fn receive(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut header = [0; 4];
        if !self.fill(&mut header, true).await? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(header) as usize;
        // A wrong length is all that one who has no keys can make us see.
        if !(TAG_BYTES..=limit).contains(&length) {
            return Err(Error::NotAuthentic);
        }
        let mut sealed = vec![0; length];
        self.fill(&mut sealed, false).await?;
        let nonce = take_nonce(&mut self.next);
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(header), &mut sealed);
        let plain = opened.map_err(|_| Error::NotAuthentic)?.len();
        sealed.truncate(plain);
        Ok(Some(sealed))
    }

    /// Fills the buffer. False if nothing comes any more, which may be only `at_an_end`.
    async fn fill(&mut self, buffer: &mut [u8], at_an_end: bool) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match in_time(self.io.read(&mut buffer[filled..])).await? {
                0 if filled == 0 && at_an_end => return Ok(false),
                0 => return Err(Error::Lost(Some(io::ErrorKind::UnexpectedEof.into()))),
                count => filled += count,
            }
        }
        Ok(true)
    }
}

/// The nonce of the next record: its number.
fn take_nonce(next: &mut u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&next.to_le_bytes());
    *next = next
        .checked_add(1)
        .expect("no connection lives for 2^64 records");
    Nonce::assume_unique_for_key(nonce)
}

/// Waits for one piece of I/O, unless nothing happens for too long.
async fn in_time<T>(io: impl Future<Output = io::Result<T>>) -> Result<T> {
    match timeout(SILENCE, io).await {
        Ok(done) => done.map_err(|error| Error::Lost(Some(error))),
        Err(_) => Err(Error::Lost(Some(io::ErrorKind::TimedOut.into()))),
    }
}

#[cfg(test)]
#[path = "sealed/tests.rs"]
mod tests;
