//! Replies as bytes, each as one piece of memory.

use cairn_types::disk::{DiskError, DiskReader, Extent};

use crate::handshake::{ALLOCATION_ID, Agreed};
use crate::wire::{self, Errno, Request};

/// Characters of an error's message at most.
const MAX_MESSAGE_CHARS: usize = 200;
/// Runs in one answer about where the data is.
const MAX_RUNS: usize = 2048;
const HEAD_BYTES: usize = 20;
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

/// Adds the head of a chunk to a reply.
fn chunk(reply: &mut Vec<u8>, request: &Request, flags: u16, (kind, length): (u16, usize)) {
    let length = u32::try_from(length).expect("a chunk is not longer than its request");
    reply.extend(wire::STRUCTURED_REPLY_MAGIC.to_be_bytes());
    reply.extend(flags.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(request.cookie.to_be_bytes());
    reply.extend(length.to_be_bytes());
}

fn simple(request: &Request, errno: u32) -> Vec<u8> {
    let mut reply = Vec::with_capacity(16 + request.length as usize);
    reply.extend(wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
    reply.extend(errno.to_be_bytes());
    reply.extend(request.cookie.to_be_bytes());
    reply
}

/// The reply to what is done and has nothing to tell.
pub(crate) fn done(request: &Request, agreed: Agreed) -> Vec<u8> {
    if !agreed.structured {
        return simple(request, 0);
    }
    let mut reply = Vec::new();
    chunk(
        &mut reply,
        request,
        wire::CHUNK_FLAG_DONE,
        (wire::CHUNK_NONE, 0),
    );
    reply
}

pub(crate) fn refused(request: &Request, agreed: Agreed, refusal: &Refusal) -> Vec<u8> {
    let errno = refusal.errno as u32;
    if !agreed.structured {
        return simple(request, errno);
    }
    let why: String = refusal.why.chars().take(MAX_MESSAGE_CHARS).collect();
    let mut reply = Vec::new();
    let length = 4 + 2 + why.len();
    chunk(
        &mut reply,
        request,
        wire::CHUNK_FLAG_DONE,
        (wire::CHUNK_ERROR, length),
    );
    reply.extend(errno.to_be_bytes());
    let length = u16::try_from(why.len()).expect("it was cut");
    reply.extend(length.to_be_bytes());
    reply.extend(why.as_bytes());
    reply
}

/// What the disk holds where the request asks.
pub(crate) fn data(
    request: &Request,
    agreed: Agreed,
    disk: &dyn DiskReader,
) -> Result<Vec<u8>, Refusal> {
    if !agreed.structured {
        let mut reply = simple(request, 0);
        add_bytes(&mut reply, disk, (request.offset, request.length as usize))?;
        return Ok(reply);
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
        return Ok(done(request, agreed));
    }
    let data: u64 = runs
        .iter()
        .filter(|run| run.data)
        .map(|run| run.length)
        .sum();
    let heads = runs.len() * (HEAD_BYTES + OFFSET_BYTES + 4);
    let mut reply = Vec::with_capacity(heads + usize::try_from(data).unwrap_or(0));
    for (at, run) in runs.iter().enumerate() {
        let flags = match at + 1 == runs.len() {
            true => wire::CHUNK_FLAG_DONE,
            false => 0,
        };
        let length = usize::try_from(run.length).expect("it is not longer than its request");
        if run.data {
            let what = (wire::CHUNK_OFFSET_DATA, OFFSET_BYTES + length);
            chunk(&mut reply, request, flags, what);
            reply.extend(run.offset.to_be_bytes());
            add_bytes(&mut reply, disk, (run.offset, length))?;
        } else {
            chunk(
                &mut reply,
                request,
                flags,
                (wire::CHUNK_OFFSET_HOLE, OFFSET_BYTES + 4),
            );
            reply.extend(run.offset.to_be_bytes());
            let length = u32::try_from(run.length).expect("it is not longer than its request");
            reply.extend(length.to_be_bytes());
        }
    }
    Ok(reply)
}

fn add_bytes(
    reply: &mut Vec<u8>,
    disk: &dyn DiskReader,
    (offset, length): (u64, usize),
) -> Result<(), Refusal> {
    let start = reply.len();
    reply.resize(start + length, 0);
    Ok(disk.read_at(offset, &mut reply[start..])?)
}

/// Where the disk has data, from the place that the request names: as much of
/// what it asks for as fits an answer.
pub(crate) fn status(request: &Request, disk: &dyn DiskReader) -> Result<Vec<u8>, Refusal> {
    let runs_max = match request.flags & wire::CMD_FLAG_REQ_ONE != 0 {
        true => 1,
        false => MAX_RUNS,
    };
    let runs = runs(request, disk, runs_max)?;
    let mut reply = Vec::with_capacity(HEAD_BYTES + 4 + 8 * runs.len());
    let what = (wire::CHUNK_BLOCK_STATUS, 4 + 8 * runs.len());
    chunk(&mut reply, request, wire::CHUNK_FLAG_DONE, what);
    reply.extend(ALLOCATION_ID.to_be_bytes());
    for run in runs {
        let length = u32::try_from(run.length).expect("it is not longer than its request");
        let state = if run.data { 0 } else { wire::STATE_HOLE_ZERO };
        reply.extend(length.to_be_bytes());
        reply.extend(state.to_be_bytes());
    }
    Ok(reply)
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
