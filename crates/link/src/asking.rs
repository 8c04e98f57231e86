//! The end that is to have the replica: a line that outlives its connections, and
//! the disks at its other end.
//!
//! Questions may be asked by several threads at once; answers come in the order
//! of the questions. What was not answered when a connection ended is asked again
//! on the next one, if that comes soon.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_types::disk::{
    BLOCKS_MAX, BlockId, DiskError, DiskOperation, DiskReader, DistantDisk, Extent, IDS_MAX,
    NoChangeMap, Point,
};
use cairn_types::{Progress, ResourceId};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as Turn, Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::answering::BLOCK_BYTES;
use crate::error::{Error, Result};
use crate::frame;
use crate::message::{self, Answer, ChunkKeys, Question};
use crate::sealed::{Connection, FIRST_RECORD_MAX, RECORD_MAX, Receiver, Sender};

/// How often the other end is told how far this one is, and asked whether it is there.
const PING: Duration = Duration::from_secs(2);
/// How often a question is asked again because its connection ended.
const ASKED_MAX: usize = 1000;

/// A line to the server that has the backup. Clones are the same line.
#[derive(Clone)]
pub struct Line {
    shared: Arc<Shared>,
}

struct Shared {
    live: Mutex<Option<Arc<Live>>>,
    /// Raised when there is a connection, or one less.
    changed: Notify,
    patience: Duration,
    progress: Arc<Progress>,
    /// Raised when nobody is to ask any more.
    closed: Progress,
    handle: Handle,
}

/// A connection in use.
struct Live {
    talk: Arc<Talk>,
    /// Ends with it.
    _tasks: JoinSet<()>,
}

struct Talk {
    sender: Turn<Sender>,
    /// Who waits for the answers that are to come; nobody once the connection has ended.
    waiting: Mutex<Option<VecDeque<oneshot::Sender<Answer>>>>,
}

impl Line {
    /// A line that waits for so long for a connection whenever there is none. Must be
    /// called on a runtime.
    pub fn new(patience: Duration, progress: Arc<Progress>) -> Self {
        Self {
            shared: Arc::new(Shared {
                live: Mutex::default(),
                changed: Notify::new(),
                patience,
                progress,
                closed: Progress::default(),
                handle: Handle::current(),
            }),
        }
    }

    /// Hears the other end out until it has proven that it knows the secret: only then
    /// its connection is one to be used.
    ///
    /// Errors: `Lost`, `NotAuthentic`, `Malformed`, `Version`.
    pub async fn prove(connection: &mut Connection) -> Result<()> {
        let hello = connection.receiver.receive(FIRST_RECORD_MAX).await?;
        message::read_hello(connection.sort, &hello.ok_or(Error::Lost(None))?)
    }

    /// Goes on by this connection, which is proven, in place of the one before. The other
    /// end is told how chunks are named.
    pub async fn attach(&self, connection: Connection, keys: &ChunkKeys) -> Result<()> {
        let Connection {
            sort,
            mut sender,
            receiver,
        } = connection;
        sender.send(&message::welcome(sort, keys), &[]).await?;
        let talk = Arc::new(Talk {
            sender: Turn::new(sender),
            waiting: Mutex::new(Some(VecDeque::new())),
        });
        let mut tasks = JoinSet::new();
        let (shared, hearing) = (Arc::downgrade(&self.shared), talk.clone());
        tasks.spawn(async move {
            let ended = hear(receiver, &hearing).await;
            match &ended {
                Err(error) if !matches!(error, Error::Lost(_)) => {
                    tracing::warn!(%error, "A connection is given up.");
                }
                _ => tracing::debug!(?ended, "a connection has ended"),
            }
            hearing.end();
            if let Some(shared) = shared.upgrade() {
                shared.changed.notify_waiters();
            }
        });
        tasks.spawn(ping(talk.clone(), self.shared.progress.clone()));
        *self.shared.lock() = Some(Arc::new(Live {
            talk,
            _tasks: tasks,
        }));
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Ends the line: who asks or waits is told so at once.
    pub fn close(&self) {
        self.shared.closed.cancel();
        *self.shared.lock() = None;
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_live(&self) -> bool {
        self.shared.live().is_some()
    }

    /// The disk that was saved of a resource.
    ///
    /// Errors: `Elsewhere`; `Lost`; `Cancelled`.
    pub async fn open_disk(&self, disk: ResourceId) -> Result<Arc<dyn DiskReader>> {
        match self.shared.ask(&Question::Open { disk }).await? {
            Answer::Disk { size_bytes, point } => Ok(Arc::new(Remote {
                shared: self.shared.clone(),
                disk,
                size_bytes,
                point,
                runs: Mutex::default(),
            })),
            _ => Err(UNEXPECTED),
        }
    }
}

const UNEXPECTED: Error = Error::Malformed("it answers another question");

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if there is one.
    fn live(&self) -> Option<Arc<Live>> {
        let live = self.lock().clone();
        live.filter(|live| live.talk.waiting().is_some())
    }

    /// Waits for a connection.
    async fn some_live(&self) -> Result<Arc<Live>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(live) = self.live() {
                return Ok(live);
            }
            let waited = timeout(self.patience, changed).await;
            waited.map_err(|_| Error::Lost(None))?;
        }
    }

    /// Asks until there is an answer.
    async fn ask(&self, question: &Question) -> Result<Answer> {
        let record = question.encode();
        let asking = async {
            for _ in 0..ASKED_MAX {
                let live = self.some_live().await?;
                match live.talk.ask(&record).await {
                    Ok(Answer::Failed { kind, text }) => {
                        return Err(Error::Elsewhere { kind, text });
                    }
                    Ok(answer) => return Ok(answer),
                    Err(_) => live.talk.end(),
                }
            }
            Err(Error::Lost(None))
        };
        tokio::select! {
            answered = asking => answered,
            () = self.progress.cancelled() => Err(Error::Cancelled),
            () = self.closed.cancelled() => Err(Error::Lost(None)),
        }
    }
}

impl Talk {
    fn waiting(&self) -> MutexGuard<'_, Option<VecDeque<oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer.
    async fn ask(&self, record: &[u8]) -> Result<Answer> {
        let answer = {
            let mut sender = self.sender.lock().await;
            let (told, answer) = oneshot::channel();
            match &mut *self.waiting() {
                Some(waiting) => waiting.push_back(told),
                None => return Err(Error::Lost(None)),
            }
            // Given up in the middle of a record, the connection would be of no use.
            let mut unsent = EndOnDrop(Some(self));
            let sent = sender.send(record, &[]).await;
            if sent.is_ok() {
                unsent.0 = None;
            }
            sent?;
            answer
        };
        answer.await.map_err(|_| Error::Lost(None))
    }

    /// From now on nobody asks here, and who waits for an answer knows that none comes.
    fn end(&self) {
        *self.waiting() = None;
    }
}

struct EndOnDrop<'t>(Option<&'t Talk>);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(talk) = self.0 {
            talk.end();
        }
    }
}

/// Hands answers to those who wait for them.
async fn hear(mut receiver: Receiver, talk: &Talk) -> Result<()> {
    while let Some(record) = receiver.receive(RECORD_MAX).await? {
        let answer = Answer::decode(record)?;
        if answer == Answer::Busy {
            continue;
        }
        let told = talk.waiting().as_mut().and_then(VecDeque::pop_front);
        let told = told.ok_or(Error::Malformed("it answers what nobody asked"))?;
        // Who asked may have given up.
        let _ = told.send(answer);
    }
    Ok(())
}

/// Says again and again how far this end is.
async fn ping(talk: Arc<Talk>, progress: Arc<Progress>) {
    let mut beat = interval(PING);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let (done, total) = (progress.done(), progress.total());
        let answer = talk.ask(&Question::Ping { done, total }.encode()).await;
        if answer.is_err() {
            return;
        }
    }
}

/// A disk at the other end.
struct Remote {
    shared: Arc<Shared>,
    disk: ResourceId,
    size_bytes: u64,
    point: Option<Point>,
    /// Neighbouring runs that were told last.
    runs: Mutex<Vec<Extent>>,
}

impl Remote {
    /// Asks from a thread that may block.
    fn ask(
        &self,
        operation: DiskOperation,
        offset: u64,
        question: &Question,
    ) -> Result<Answer, DiskError> {
        let answered = self.shared.handle.block_on(self.shared.ask(question));
        answered.map_err(|error| self.failed(operation, offset, error))
    }

    fn failed(&self, operation: DiskOperation, offset: u64, error: Error) -> DiskError {
        let name = format!("disk {} of the other end", self.disk);
        error.of_disk(&name, operation, offset)
    }

    /// Where a block lies; of none behind the end.
    fn length_of(&self, block: u64) -> usize {
        let start = block.saturating_mul(BLOCK_BYTES).min(self.size_bytes);
        usize::try_from(BLOCK_BYTES.min(self.size_bytes - start)).expect("a block is small")
    }

    fn runs_from(&self, offset: u64) -> Result<Vec<Extent>> {
        let question = Question::Extents {
            disk: self.disk,
            offset,
        };
        let Answer::Extents(told) = self.shared.handle.block_on(self.shared.ask(&question))? else {
            return Err(UNEXPECTED);
        };
        let (mut at, mut runs) = (offset, Vec::with_capacity(told.len()));
        for (length, data) in told {
            let end = at.saturating_add(length);
            if length == 0 || end > self.size_bytes {
                return Err(Error::Malformed("a run leaves the disk"));
            }
            runs.push(Extent {
                offset: at,
                length,
                data,
            });
            at = end;
        }
        match runs.is_empty() {
            true => Err(Error::Malformed("it tells of no run")),
            false => Ok(runs),
        }
    }

    fn all_changes(&self, point: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let no = |why: &str| NoChangeMap(why.to_owned());
        let mut all: Vec<Range<u64>> = Vec::new();
        loop {
            let question = Question::Changes {
                disk: self.disk,
                point: point.clone(),
                from: all.last().map_or(0, |range| range.end),
            };
            let asked = self.shared.handle.block_on(self.shared.ask(&question));
            match asked.map_err(|error| NoChangeMap(error.to_string()))? {
                Answer::Changes { ranges, more } => {
                    let last_end = all.last().map_or(0, |range| range.end);
                    let ordered = ranges.is_sorted_by(|a, b| a.end <= b.start);
                    let sound = ranges.iter().all(|range| range.start < range.end);
                    let follows = ranges.first().is_none_or(|range| range.start >= last_end);
                    if !(ordered && sound && follows) || more && ranges.is_empty() {
                        return Err(no("the other end's list of changes is not in order"));
                    }
                    all.extend(ranges);
                    if !more {
                        return Ok(all);
                    }
                }
                Answer::NoChangeMap(why) => return Err(NoChangeMap(why)),
                _ => return Err(no("the other end answers another question")),
            }
        }
    }
}

impl DiskReader for Remote {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let at = runs.partition_point(|run| run.end() <= offset);
        let known = runs.get(at).filter(|run| run.offset <= offset).copied();
        let run = match known {
            Some(run) => run,
            None => {
                let told = self.runs_from(offset);
                *runs = told.map_err(|error| self.failed(DiskOperation::Map, offset, error))?;
                runs[0]
            }
        };
        Ok(Extent {
            offset,
            length: run.end() - offset,
            data: run.data,
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let block = at / BLOCK_BYTES;
            let inside = usize::try_from(at % BLOCK_BYTES).expect("a block is small");
            let blocks =
                (inside + rest.len()).div_ceil(usize::try_from(BLOCK_BYTES).expect("it is"));
            let blocks: Vec<u64> = (block..).take(blocks.min(BLOCKS_MAX)).collect();
            let plain = self.read_blocks(&blocks)?.concat();
            let part = plain.get(inside..).unwrap_or_default();
            let length = part.len().min(rest.len());
            if length == 0 {
                let error = Error::Malformed("it is asked for what lies behind the disk's end");
                return Err(self.failed(DiskOperation::Read, at, error));
            }
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&part[..length]);
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }

    /// A backup does not change.
    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn point(&self) -> Option<Point> {
        self.point.clone()
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        self.all_changes(earlier)
    }

    fn distant(&self) -> Option<&dyn DistantDisk> {
        Some(self)
    }
}

impl DistantDisk for Remote {
    fn block_ids(&self, blocks: &[u64]) -> Result<Vec<BlockId>, DiskError> {
        debug_assert!(blocks.len() <= IDS_MAX, "the caller asks for few at a time");
        let Some(first) = blocks.first() else {
            return Ok(Vec::new());
        };
        let offset = first.saturating_mul(BLOCK_BYTES);
        let question = Question::Ids {
            disk: self.disk,
            blocks: blocks.to_vec(),
        };
        match self.ask(DiskOperation::Read, offset, &question)? {
            Answer::Ids(ids) if ids.len() == blocks.len() => Ok(ids),
            _ => Err(self.failed(DiskOperation::Read, offset, UNEXPECTED)),
        }
    }

    fn read_blocks(&self, blocks: &[u64]) -> Result<Vec<Vec<u8>>, DiskError> {
        debug_assert!(
            blocks.len() <= BLOCKS_MAX,
            "the caller asks for few at a time"
        );
        let Some(first) = blocks.first() else {
            return Ok(Vec::new());
        };
        let offset = first.saturating_mul(BLOCK_BYTES);
        let question = Question::Blocks {
            disk: self.disk,
            blocks: blocks.to_vec(),
        };
        let failed = |error| self.failed(DiskOperation::Read, offset, error);
        let Answer::Blocks(packed) = self.ask(DiskOperation::Read, offset, &question)? else {
            return Err(failed(UNEXPECTED));
        };
        let lengths = blocks.iter().map(|block| self.length_of(*block));
        let plain = frame::decompress(&packed, lengths.clone().sum()).map_err(failed)?;
        let mut rest = &plain[..];
        let mut cut = |length| {
            let (block, later) = rest.split_at(length);
            rest = later;
            block.to_vec()
        };
        Ok(lengths.map(&mut cut).collect())
    }
}
