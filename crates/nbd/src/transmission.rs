//! One request after another: each is carried out off the async threads, and
//! answered when it is done, in whatever order that is.

use std::sync::Arc;

use cairn_types::disk::DiskWriter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Disk;
use crate::error::{Error, Result};
use crate::handshake::Agreed;
use crate::reply::{Refusal, Reply, Spare};
use crate::wire::{self, Errno, Request};

/// Bytes that one request reads or writes at most.
pub(crate) const MAX_TRANSFER_BYTES: u32 = 32 << 20;
/// Requests of a connection that are at work at the same time.
const AT_WORK: usize = 16;
/// What a connection's requests and replies may take of memory, in units: twice the largest.
const MEMORY_UNITS: usize = 64;
/// Bytes of a unit of memory.
const UNIT_BYTES: u32 = 1 << 20;
/// Bytes of requests that are read from the stream at a time.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// What a request holds until its reply is on its way.
type Hold = (OwnedSemaphorePermit, OwnedSemaphorePermit);
type Replies = UnboundedSender<(Reply, Hold)>;

pub(crate) async fn run<S>(stream: S, disk: Disk, agreed: Agreed) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (reading, writing) = tokio::io::split(stream);
    // What waits in it holds a place: there are never more replies than places.
    let (replies, to_send) = mpsc::unbounded_channel();
    let requests = Requests {
        disk,
        agreed,
        places: Arc::new(Semaphore::new(AT_WORK)),
        memory: Arc::new(Semaphore::new(MEMORY_UNITS)),
        replies,
        spare: Arc::default(),
    };
    let reading = BufReader::with_capacity(READ_AHEAD_BYTES, reading);
    // Whichever fails first ends both; what is at work then is answered to nobody.
    tokio::try_join!(requests.run(reading), send(writing, to_send))?;
    Ok(())
}

async fn send(
    mut stream: impl AsyncWrite + Unpin,
    mut replies: UnboundedReceiver<(Reply, Hold)>,
) -> Result<()> {
    while let Some((reply, hold)) = replies.recv().await {
        stream.write_all(reply.bytes()).await?;
        drop((reply, hold));
        if replies.is_empty() {
            stream.flush().await?;
        }
    }
    Ok(stream.flush().await?)
}

struct Requests {
    disk: Disk,
    agreed: Agreed,
    places: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    replies: Replies,
    spare: Arc<Spare>,
}

impl Requests {
    /// Takes requests until the client has no more.
    async fn run(self, mut stream: impl AsyncRead + Unpin) -> Result<()> {
        while let Some(request) = Request::read(&mut stream).await? {
            if request.command == wire::CMD_DISC {
                break;
            }
            let hold = self.hold(&request).await?;
            let payload = match request.command {
                wire::CMD_WRITE => {
                    let mut payload = vec![0; request.length as usize];
                    stream.read_exact(&mut payload).await?;
                    payload
                }
                _ => Vec::new(),
            };
            self.start(request, payload, hold);
        }
        Ok(())
    }

    /// Waits for a place, and for the memory that a request takes.
    async fn hold(&self, request: &Request) -> Result<Hold> {
        let bytes = match request.command {
            wire::CMD_WRITE if request.length > MAX_TRANSFER_BYTES => {
                // All of it would have to be read before anything could be answered.
                return Err(Error::Protocol("a request writes too much at once"));
            }
            wire::CMD_READ | wire::CMD_WRITE => request.length.min(MAX_TRANSFER_BYTES),
            _ => 0,
        };
        let units = bytes.div_ceil(UNIT_BYTES).max(1);
        let memory = Arc::clone(&self.memory).acquire_many_owned(units);
        let place = Arc::clone(&self.places).acquire_owned();
        Ok((
            place.await.expect("nobody closes it"),
            memory.await.expect("nobody closes it"),
        ))
    }

    fn start(&self, request: Request, payload: Vec<u8>, hold: Hold) {
        let (disk, agreed, replies) = (self.disk.clone(), self.agreed, self.replies.clone());
        let mut reply = self.spare.take();
        tokio::task::spawn_blocking(move || {
            let answered = answer(&request, &payload, agreed, &disk, &mut reply);
            if let Err(refusal) = answered {
                tracing::debug!(?request, ?refusal, "a request of an NBD client is refused");
                reply.refused(&request, agreed, &refusal);
            }
            // Whoever asked may be gone.
            let _ = replies.send((reply, hold));
        });
    }
}

/// Carries a request out.
fn answer(
    request: &Request,
    payload: &[u8],
    agreed: Agreed,
    disk: &Disk,
    reply: &mut Reply,
) -> std::result::Result<(), Refusal> {
    let inside = request.end().is_some_and(|end| end <= disk.size_bytes());
    let outside = |errno| Refusal::new(errno, "it reaches behind the disk's end");
    match request.command {
        wire::CMD_READ if request.length > MAX_TRANSFER_BYTES => {
            return Err(Refusal::new(Errno::Invalid, "it reads too much at once"));
        }
        wire::CMD_READ if inside => return reply.data(request, agreed, disk.reader()),
        wire::CMD_BLOCK_STATUS if !agreed.allocation => {
            return Err(Refusal::new(Errno::Invalid, "no context was agreed upon"));
        }
        wire::CMD_BLOCK_STATUS if request.length == 0 => {
            return Err(Refusal::new(Errno::Invalid, "it asks about nothing"));
        }
        wire::CMD_BLOCK_STATUS if inside => return reply.status(request, disk.reader()),
        wire::CMD_READ | wire::CMD_BLOCK_STATUS => return Err(outside(Errno::Invalid)),
        wire::CMD_WRITE | wire::CMD_WRITE_ZEROES | wire::CMD_TRIM | wire::CMD_FLUSH => {}
        _ => return Err(Refusal::new(Errno::Invalid, "there is no such command")),
    }
    let Some(writer) = disk.writer() else {
        return Err(Refusal::new(Errno::Permission, "the disk is read-only"));
    };
    if request.command != wire::CMD_FLUSH && !inside {
        return Err(outside(Errno::NoSpace));
    }
    write(request, payload, writer)?;
    reply.done(request, agreed);
    Ok(())
}

fn write(
    request: &Request,
    payload: &[u8],
    disk: &dyn DiskWriter,
) -> std::result::Result<(), Refusal> {
    match request.command {
        wire::CMD_WRITE => disk.write_at(request.offset, payload)?,
        wire::CMD_FLUSH => return Ok(disk.flush()?),
        _ => disk.write_zeroes(request.offset, request.length.into())?,
    }
    if request.flags & wire::CMD_FLAG_FUA != 0 {
        disk.flush()?;
    }
    Ok(())
}
