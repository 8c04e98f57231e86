//! The end that has the bytes: it answers what it is asked, in the questions' order,
//! while the answer before goes out.

mod disks;
mod trees;

use std::sync::Arc;
use std::time::Duration;

use cairn_types::{Kind, Progress};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limit::Limit;
use crate::message::{self, Answer, ChunkKeys, Question};
use crate::sealed::{Connection, FIRST_RECORD_MAX, RECORD_MAX, Receiver, Sender};

pub(crate) use disks::BLOCK_BYTES;
pub use disks::Disks;
pub use trees::{Held, Host, HostEnd, PiecesWanted};

/// Without an answer for so long, the other end is told that one will come.
const BUSY_AFTER: Duration = Duration::from_secs(10);
/// Answers that wait for the line, or are being worked on.
const ANSWERS_WAITING: usize = 2;

/// How answering ended.
#[derive(Debug)]
pub struct Answered {
    /// Whether the other end has proven that it knows the secret.
    pub proven: bool,
    /// Why it ended: well, if the other end closed the connection. That alone says
    /// nothing of what has become of the replica.
    pub ended: Result<()>,
}

/// Answers for a backup's disks until the connection ends. `progress` shows how far the
/// other end is.
pub async fn answer(
    connection: Connection,
    disks: Arc<dyn Disks>,
    limits: &[Arc<Limit>],
    progress: &Arc<Progress>,
) -> Answered {
    let taken = tokio::select! {
        taken = Taken::wait(connection, limits) => taken,
        () = progress.cancelled() => Err(Error::Cancelled),
    };
    match taken {
        Ok(taken) => {
            let session = disks::Session::new(taken.keys.clone(), disks);
            let ended = taken.work(Arc::new(session), limits, progress).await;
            Answered {
                proven: true,
                ended,
            }
        }
        Err(error) => Answered {
            proven: false,
            ended: Err(error),
        },
    }
}

/// A connection by which the other end, which has proven that it knows the secret, will ask.
pub struct Taken {
    keys: ChunkKeys,
    sender: Sender,
    receiver: Receiver,
}

impl Taken {
    /// Says hello, and waits until the other end takes the connection.
    ///
    /// Errors: `Lost`, `NotAuthentic`, `Malformed`, `Version`.
    pub async fn wait(connection: Connection, limits: &[Arc<Limit>]) -> Result<Self> {
        let Connection {
            purpose,
            mut sender,
            mut receiver,
        } = connection;
        let sort = purpose.sort();
        sender.send(&message::hello(sort), limits).await?;
        let welcome = receiver.receive(FIRST_RECORD_MAX).await?;
        Ok(Self {
            keys: message::read_welcome(sort, &welcome.ok_or(Error::Lost(None))?)?,
            sender,
            receiver,
        })
    }

    /// Answers for the files of a host until the connection ends: well, if the other end
    /// has closed it. `progress` shows how far that is.
    ///
    /// Errors: as `wait`; `Cancelled`.
    pub async fn answer_for(
        self,
        host: &Arc<HostEnd>,
        limits: &[Arc<Limit>],
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let session = trees::Session::new(self.keys.clone(), Arc::clone(host));
        self.work(Arc::new(session), limits, progress).await
    }

    async fn work(
        mut self,
        session: Arc<impl Answerer>,
        limits: &[Arc<Limit>],
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
        tokio::select! {
            ended = read(&mut self.receiver, &session, answers, progress) => ended,
            Err(error) = write(&mut self.sender, waiting, limits) => Err(error),
            () = progress.cancelled() => Err(Error::Cancelled),
        }
    }
}

/// Who knows the answers.
trait Answerer: Send + Sync + 'static {
    /// Whether this question is worked on before any that follows is begun.
    fn is_alone(&self, question: &Question) -> bool;

    /// May block.
    fn answer(&self, question: Question) -> Result<Answer, (Kind, String)>;
}

/// An answer that is due.
enum Due {
    Known(Vec<u8>),
    Worked(JoinHandle<Vec<u8>>),
}

/// Has questions worked off until there are no more.
async fn read(
    receiver: &mut Receiver,
    session: &Arc<impl Answerer>,
    answers: mpsc::Sender<Due>,
    progress: &Progress,
) -> Result<()> {
    while let Some(record) = receiver.receive(RECORD_MAX).await? {
        let question = Question::decode(&record)?;
        // Taken before the work begins, so that no more is begun than there is room for.
        let room = answers.reserve().await;
        let room = room.map_err(|_| Error::Lost(None))?;
        if let Question::Ping { done, total } = question {
            progress.add_total(total.saturating_sub(progress.total()));
            progress.advance(done.saturating_sub(progress.done()));
            room.send(Due::Known(Answer::Pong.encode()));
            continue;
        }
        let alone = session.is_alone(&question);
        let session = Arc::clone(session);
        let work = tokio::task::spawn_blocking(move || {
            let answer = session.answer(question).unwrap_or_else(|(kind, text)| {
                tracing::warn!(
                    ?kind,
                    text,
                    "a question of the other end cannot be answered"
                );
                Answer::Failed { kind, text }
            });
            answer.encode()
        });
        room.send(match alone {
            true => Due::Known(work.await.map_err(|_| LOST_WORK)?),
            false => Due::Worked(work),
        });
    }
    Ok(())
}

const LOST_WORK: Error = Error::Malformed("a question could not be worked on");

async fn write(
    sender: &mut Sender,
    mut answers: mpsc::Receiver<Due>,
    limits: &[Arc<Limit>],
) -> Result<()> {
    let busy = Answer::Busy.encode();
    loop {
        let due = match timeout(BUSY_AFTER, answers.recv()).await {
            Ok(Some(due)) => due,
            // Whoever reads the questions says how it ended.
            Ok(None) => std::future::pending().await,
            Err(_) => {
                sender.send(&busy, limits).await?;
                continue;
            }
        };
        let answer = match due {
            Due::Known(answer) => answer,
            Due::Worked(mut work) => loop {
                match timeout(BUSY_AFTER, &mut work).await {
                    Ok(answer) => break answer.map_err(|_| LOST_WORK)?,
                    Err(_) => sender.send(&busy, limits).await?,
                }
            },
        };
        sender.send(&answer, limits).await?;
    }
}
