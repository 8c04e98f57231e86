//! The end that has the backup: it answers what it is asked, one question after
//! the other, while the answer before goes out.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_types::disk::{BlockId, DiskError, DiskReader, NoChangeMap, Point};
use cairn_types::{Kind, Progress, ResourceId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::frame;
use crate::limit::Limit;
use crate::message::{self, Answer, CHANGES_MAX, ChunkKeys, EXTENTS_MAX, Question};
use crate::sealed::{Connection, FIRST_RECORD_MAX, RECORD_MAX, Receiver, Sender};

/// Without an answer for so long, the other end is told that one will come.
const BUSY_AFTER: Duration = Duration::from_secs(10);
/// Answers that wait for the line.
const ANSWERS_WAITING: usize = 2;
/// Runs of a disk that are looked at for one answer: many short ones may make one.
const RUNS_LOOKED_AT: usize = 4096;
/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;

/// The disks of the backup that is replicated.
pub trait Disks: Send + Sync + 'static {
    /// Opens the disk that was saved of a resource. May block.
    ///
    /// Errors: `NotFound` the backup has none.
    fn open(&self, disk: ResourceId) -> Result<Arc<dyn DiskReader>, (Kind, String)>;

    /// The id of a block's plain bytes under a key of the other end.
    fn block_id(&self, key: &[u8; 32], plain: &[u8]) -> BlockId;

    /// What a failure asks for.
    fn kind_of(&self, error: DiskError) -> Kind;
}

/// How answering ended.
#[derive(Debug)]
pub struct Answered {
    /// Whether the other end has proven that it knows the secret.
    pub proven: bool,
    /// Why it ended: well, if the other end closed the connection. That alone says
    /// nothing of what has become of the replica.
    pub ended: Result<()>,
}

/// Answers until the connection ends. `progress` shows how far the other end is.
pub async fn answer(
    connection: Connection,
    disks: Arc<dyn Disks>,
    limits: &[Arc<Limit>],
    progress: &Arc<Progress>,
) -> Answered {
    let mut proven = false;
    let Connection {
        sort,
        mut sender,
        mut receiver,
    } = connection;
    let talk = async {
        sender.send(&message::hello(sort), limits).await?;
        let Some(welcome) = receiver.receive(FIRST_RECORD_MAX).await? else {
            return Err(Error::Lost(None));
        };
        let session = Arc::new(Session {
            keys: message::read_welcome(sort, &welcome)?,
            disks,
            open: Mutex::default(),
        });
        proven = true;
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
        tokio::select! {
            ended = read(&mut receiver, &session, answers, progress) => ended,
            Err(error) = write(&mut sender, waiting, limits) => Err(error),
        }
    };
    let ended = tokio::select! {
        ended = talk => ended,
        () = progress.cancelled() => Err(Error::Cancelled),
    };
    Answered { proven, ended }
}

/// Works questions off until there are no more.
async fn read(
    receiver: &mut Receiver,
    session: &Arc<Session>,
    answers: mpsc::Sender<Vec<u8>>,
    progress: &Progress,
) -> Result<()> {
    while let Some(record) = receiver.receive(RECORD_MAX).await? {
        let question = Question::decode(&record)?;
        let answer = if let Question::Ping { done, total } = question {
            progress.add_total(total.saturating_sub(progress.total()));
            progress.advance(done.saturating_sub(progress.done()));
            Answer::Pong.encode()
        } else {
            let session = session.clone();
            let work = move || session.answer(question).encode();
            let answered = tokio::task::spawn_blocking(work).await;
            answered.map_err(|_| Error::Malformed("a question could not be worked on"))?
        };
        if answers.send(answer).await.is_err() {
            return Err(Error::Lost(None));
        }
    }
    Ok(())
}

async fn write(
    sender: &mut Sender,
    mut answers: mpsc::Receiver<Vec<u8>>,
    limits: &[Arc<Limit>],
) -> Result<()> {
    loop {
        match timeout(BUSY_AFTER, answers.recv()).await {
            Ok(Some(answer)) => sender.send(&answer, limits).await?,
            // Whoever reads the questions says how it ended.
            Ok(None) => std::future::pending().await,
            Err(_) => sender.send(&Answer::Busy.encode(), limits).await?,
        }
    }
}

/// What a connection has opened.
struct Session {
    keys: ChunkKeys,
    disks: Arc<dyn Disks>,
    open: Mutex<HashMap<ResourceId, Arc<Opened>>>,
}

struct Opened {
    reader: Arc<dyn DiskReader>,
    /// What was last asked for, which goes out in several answers.
    changes: Mutex<Option<(Point, Changes)>>,
}

type Changes = Result<Arc<Vec<Range<u64>>>, NoChangeMap>;

impl Session {
    fn answer(&self, question: Question) -> Answer {
        self.try_answer(question).unwrap_or_else(|(kind, text)| {
            tracing::warn!(
                ?kind,
                text,
                "a question of the other end cannot be answered"
            );
            Answer::Failed { kind, text }
        })
    }

    fn try_answer(&self, question: Question) -> Result<Answer, (Kind, String)> {
        let failed = |error: DiskError| {
            let text = error.to_string();
            (self.disks.kind_of(error), text)
        };
        Ok(match question {
            Question::Open { disk } => {
                let disk = self.open(disk)?;
                Answer::Disk {
                    size_bytes: disk.reader.size_bytes(),
                    point: disk.reader.point(),
                }
            }
            Question::Extents { disk, offset } => {
                let disk = self.open(disk)?;
                Answer::Extents(extents(&*disk.reader, offset).map_err(failed)?)
            }
            Question::Changes { disk, point, from } => match self.open(disk)?.changes(point) {
                Ok(changes) => page(&changes, from),
                Err(NoChangeMap(why)) => Answer::NoChangeMap(why),
            },
            Question::Ids { disk, blocks } => {
                let disk = self.open(disk)?;
                let mut ids = Vec::with_capacity(blocks.len());
                let mut plain = Vec::new();
                for block in blocks {
                    plain.clear();
                    disk.read(block, &mut plain).map_err(failed)?;
                    ids.push(self.disks.block_id(&self.keys.block, &plain));
                }
                Answer::Ids(ids)
            }
            Question::Blocks { disk, blocks } => {
                let disk = self.open(disk)?;
                let mut plain = Vec::new();
                for block in blocks {
                    disk.read(block, &mut plain).map_err(failed)?;
                }
                let mut packed = Vec::new();
                frame::compress(&plain, &mut packed);
                Answer::Blocks(packed)
            }
            Question::Ping { .. } => Answer::Pong,
        })
    }

    fn open(&self, disk: ResourceId) -> Result<Arc<Opened>, (Kind, String)> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open().get(&disk) {
            return Ok(opened.clone());
        }
        let opened = Arc::new(Opened {
            reader: self.disks.open(disk)?,
            changes: Mutex::default(),
        });
        open().insert(disk, opened.clone());
        Ok(opened)
    }
}

impl Opened {
    fn changes(&self, point: Point) -> Changes {
        let mut last = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, changes)) if *of == point => changes.clone(),
            _ => {
                let changes = self.reader.changes_since(&point).map(Arc::new);
                last.insert((point, changes)).1.clone()
            }
        }
    }

    /// Appends a block's bytes; none of one behind the disk's end.
    fn read(&self, block: u64, plain: &mut Vec<u8>) -> Result<(), DiskError> {
        let size_bytes = self.reader.size_bytes();
        let start = block.saturating_mul(BLOCK_BYTES).min(size_bytes);
        let length = BLOCK_BYTES.min(size_bytes - start);
        let from = plain.len();
        plain.resize(from + usize::try_from(length).expect("a block is small"), 0);
        self.reader.read_at(start, &mut plain[from..])
    }
}

/// The runs from a byte on, neighbours of the same sort together.
fn extents(reader: &dyn DiskReader, offset: u64) -> Result<Vec<(u64, bool)>, DiskError> {
    let mut extents: Vec<(u64, bool)> = Vec::new();
    let (mut at, size_bytes) = (offset, reader.size_bytes());
    for _ in 0..RUNS_LOOKED_AT {
        if at >= size_bytes {
            break;
        }
        let run = reader.extent_at(at)?;
        let is_full = extents.len() == EXTENTS_MAX;
        match extents.last_mut() {
            Some((length, data)) if *data == run.data => *length += run.length,
            _ if is_full => break,
            _ => extents.push((run.length, run.data)),
        }
        at = run.end();
    }
    Ok(extents)
}

/// As many of the ranges as fit an answer, from those on that end behind a byte.
fn page(changes: &[Range<u64>], from: u64) -> Answer {
    let first = changes.partition_point(|range| range.end <= from);
    let rest = &changes[first..];
    let ranges = rest[..rest.len().min(CHANGES_MAX)].to_vec();
    Answer::Changes {
        more: ranges.len() < rest.len(),
        ranges,
    }
}
