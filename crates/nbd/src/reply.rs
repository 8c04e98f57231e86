//! Replies as bytes, each one piece of memory that is used again.

use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::{DiskError, DiskReader, Extent};

use crate::handshake::{ALLOCATION_ID, Agreed};
use crate::wire::{self, Errno, Request};

/// Characters of an error's message at most.
const MAX_MESSAGE_CHARS: usize = 200;
/// Runs in one answer about where the data is.
const MAX_RUNS: usize = 2048;
/// Replies that stay as memory for others, and how large they may be for that.
const SPARE_REPLIES: usize = 16;
const SPARE_BYTES: usize = 4 << 20;
const OFFSET_BYTES: usize = 8;

/// Why a request is answered with an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub errno: Errno,
    pub why: String,
}

impl Refusal {
    pub fn new(errno: Errno, why: &str) -> Self {
        let why = why.to_owned();
        Self { errno, why }
    }
}

impl From<DiskError> for Refusal {
    fn from(error: DiskError) -> Self {
        let errno = match error.source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Errno::NoSpace,
            _ => Errno::Io,
        };
        let why = format!("{error}: {}", error.source);
        Self { errno, why }
    }
}

/// Memory that replies have been in.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    pub fn take(self: &Arc<Self>) -> Reply {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Reply {
            memory: spare.pop().unwrap_or_default(),
            length: 0,
            spare: Arc::clone(self),
        }
    }
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The reply, and behind it what others have left.
    memory: Vec<u8>,
    length: usize,
    spare: Arc<Spare>,
}

impl Reply {
    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.length]
    }

    /// The place of the next bytes, which hold anything.
    fn next(&mut self, length: usize) -> &mut [u8] {
        let start = self.length;
        self.length += length;
        if self.memory.len() < self.length {
            self.memory.resize(self.length, 0);
        }
        &mut self.memory[start..self.length]
    }

    fn add(&mut self, bytes: &[u8]) {
        self.next(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds the head of a chunk.
    fn chunk(&mut self, request: &Request, flags: u16, (kind, length): (u16, usize)) {
        let length = u32::try_from(length).expect("a chunk is not longer than its request");
        self.add(&wire::STRUCTURED_REPLY_MAGIC.to_be_bytes());
        self.add(&flags.to_be_bytes());
        self.add(&kind.to_be_bytes());
        self.add(&request.cookie.to_be_bytes());
        self.add(&length.to_be_bytes());
    }

    fn simple(&mut self, request: &Request, errno: u32) {
        self.add(&wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
        self.add(&errno.to_be_bytes());
        self.add(&request.cookie.to_be_bytes());
    }

    /// Of what is done and has nothing to tell.
    pub fn done(&mut self, request: &Request, agreed: Agreed) {
        match agreed.structured {
            true => self.chunk(request, wire::CHUNK_FLAG_DONE, (wire::CHUNK_NONE, 0)),
            false => self.simple(request, 0),
        }
    }

    /// Of what is not done, instead of anything that was added before.
    pub fn refused(&mut self, request: &Request, agreed: Agreed, refusal: &Refusal) {
        self.length = 0;
        let errno = refusal.errno as u32;
        if !agreed.structured {
            return self.simple(request, errno);
        }
        let why: String = refusal.why.chars().take(MAX_MESSAGE_CHARS).collect();
        let what = (wire::CHUNK_ERROR, 4 + 2 + why.len());
        self.chunk(request, wire::CHUNK_FLAG_DONE, what);
        self.add(&errno.to_be_bytes());
        let length = u16::try_from(why.len()).expect("it was cut");
        self.add(&length.to_be_bytes());
        self.add(why.as_bytes());
    }

    /// Of a read: what the disk holds where the request asks.
    pub fn data(
        &mut self,
        request: &Request,
        agreed: Agreed,
        disk: &dyn DiskReader,
    ) -> Result<(), Refusal> {
        if !agreed.structured {
            self.simple(request, 0);
            return self.read(disk, request.offset, request.length.into());
        }
        let whole = Extent {
            offset: request.offset,
            length: request.length.into(),
            data: true,
        };
        let runs = match request.flags & wire::CMD_FLAG_DF != 0 {
            true => vec![whole],
            false => runs(request, disk, usize::MAX)?,
        };
        if runs.is_empty() {
            self.done(request, agreed);
        }
        for (at, run) in runs.iter().enumerate() {
            let flags = match at + 1 == runs.len() {
                true => wire::CHUNK_FLAG_DONE,
                false => 0,
            };
            if run.data {
                let what = (wire::CHUNK_OFFSET_DATA, OFFSET_BYTES + run.length as usize);
                self.chunk(request, flags, what);
                self.add(&run.offset.to_be_bytes());
                self.read(disk, run.offset, run.length)?;
            } else {
                self.chunk(request, flags, (wire::CHUNK_OFFSET_HOLE, OFFSET_BYTES + 4));
                self.add(&run.offset.to_be_bytes());
                self.add(&(run.length as u32).to_be_bytes());
            }
        }
        Ok(())
    }

    fn read(&mut self, disk: &dyn DiskReader, offset: u64, length: u64) -> Result<(), Refusal> {
        let length = usize::try_from(length).expect("it is not longer than its request");
        Ok(disk.read_at(offset, self.next(length))?)
    }

    /// Where the disk has data, from the place that the request names: as much of
    /// what it asks about as fits an answer.
    pub fn status(&mut self, request: &Request, disk: &dyn DiskReader) -> Result<(), Refusal> {
        let runs_max = match request.flags & wire::CMD_FLAG_REQ_ONE != 0 {
            true => 1,
            false => MAX_RUNS,
        };
        let runs = runs(request, disk, runs_max)?;
        let what = (wire::CHUNK_BLOCK_STATUS, 4 + 8 * runs.len());
        self.chunk(request, wire::CHUNK_FLAG_DONE, what);
        self.add(&ALLOCATION_ID.to_be_bytes());
        for run in runs {
            let state = if run.data { 0 } else { wire::STATE_HOLE_ZERO };
            self.add(&(run.length as u32).to_be_bytes());
            self.add(&state.to_be_bytes());
        }
        Ok(())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_REPLIES && self.memory.len() <= SPARE_BYTES {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

/// The runs of data and of zeros within a request, as long as they are.
fn runs(request: &Request, disk: &dyn DiskReader, max: usize) -> Result<Vec<Extent>, Refusal> {
    let end = request.offset + u64::from(request.length);
    let mut runs: Vec<Extent> = Vec::new();
    let mut at = request.offset;
    while at < end {
        let mut run = disk.extent_at(at)?;
        run.length = run.length.min(end - at);
        at = run.end();
        let full = runs.len() == max;
        match runs.last_mut() {
            Some(last) if last.data == run.data => last.length += run.length,
            _ if full => break,
            _ => runs.push(run),
        }
    }
    Ok(runs)
}
