//! The end that is to have the bytes: a line that outlives its connections, and
//! the disks and the trees at its other end.
//!
//! Questions may be asked by several threads at once; answers come in the order
//! of the questions. What was not answered when a connection ended is asked again
//! on the next one, if that comes soon.

mod disk;
mod listing;
mod pipe;
mod tree;
mod writer;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cairn_types::disk::DiskReader;
use cairn_types::tree::{TreeReader, TreeWriter};
use cairn_types::{Kind, Progress, ResourceId, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as Turn, Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::error::{Error, Result};
use crate::handshake::Purpose;
use crate::message::tree::{Selection, Target, TreeQuestion};
use crate::message::tree_answer::TreeAnswer;
use crate::message::{self, Answer, ChunkKeys, Question};
use crate::sealed::{Connection, FIRST_RECORD_MAX, RECORD_MAX, Receiver, Sender};

/// How often the other end is told how far this one is, and asked whether it is there.
const PING: Duration = Duration::from_secs(2);
/// How often a question is asked again because its connection ended.
const ASKED_MAX: usize = 1000;

/// A line to who has the bytes. Clones are the same line.
#[derive(Clone)]
pub struct Line {
    shared: Arc<Shared>,
}

struct Shared {
    live: Mutex<Option<Arc<Live>>>,
    /// What its first connection was for: the others are too.
    purpose: OnceLock<Purpose>,
    /// Raised when there is a connection, or one less.
    changed: Notify,
    patience: Duration,
    progress: Arc<Progress>,
    /// Raised when nobody is to ask any more.
    closed: Progress,
    handle: Handle,
    /// The number of the next tree.
    trees: AtomicU32,
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
                purpose: OnceLock::new(),
                changed: Notify::new(),
                patience,
                progress,
                closed: Progress::default(),
                handle: Handle::current(),
                trees: AtomicU32::new(0),
            }),
        }
    }

    /// Hears the other end out until it has proven that it knows the secret: only then
    /// its connection is one to be used.
    ///
    /// Errors: `Lost`, `NotAuthentic`, `Malformed`, `Version`.
    pub async fn prove(connection: &mut Connection) -> Result<()> {
        let hello = connection.receiver.receive(FIRST_RECORD_MAX).await?;
        message::read_hello(connection.purpose.sort(), &hello.ok_or(Error::Lost(None))?)
    }

    /// Goes on by this connection, which is proven, in place of the one before. The other
    /// end is told how chunks are named.
    ///
    /// Errors: `OtherInstance` those before were of another agent: the line is of no use any
    /// more; `Lost`.
    pub async fn attach(&self, connection: Connection, keys: &ChunkKeys) -> Result<()> {
        let Connection {
            purpose,
            mut sender,
            receiver,
        } = connection;
        if *self.shared.purpose.get_or_init(|| purpose) != purpose {
            return Err(Error::OtherInstance);
        }
        let welcome = message::welcome(purpose.sort(), keys);
        sender.send(&welcome, &[]).await?;
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

    /// Waits until there is no connection, as far as is known.
    pub async fn lost(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.is_live() {
                return;
            }
            changed.await;
        }
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
            Answer::Disk { size_bytes, point } => Ok(Arc::new(disk::Remote {
                shared: self.shared.clone(),
                disk,
                size_bytes,
                point,
                runs: Mutex::default(),
            })),
            _ => Err(UNEXPECTED),
        }
    }

    /// The time by the clock that the files of the agent's host are stamped by: when they
    /// changed can be held against no other.
    ///
    /// Errors: as `open_disk`.
    pub async fn host_time(&self) -> Result<Timestamp> {
        let (tree, question) = (0, TreeQuestion::Time);
        match self.shared.ask(&Question::Tree { tree, question }).await? {
            Answer::Tree(TreeAnswer::Time(micros)) => Ok(Timestamp::from_micros(micros)),
            _ => Err(UNEXPECTED),
        }
    }

    /// Waits until there is a connection.
    ///
    /// Errors: `Lost` none has come for as long as the line waits.
    pub async fn connected(&self) -> Result<()> {
        self.shared.some_live().await.map(drop)
    }

    /// Has the agent bring its host's applications to rest, for so long at most, and says how
    /// many. They go on too when the connection ends.
    ///
    /// Errors: `Lost`; `Elsewhere` they are not at rest, and why.
    pub async fn freeze(&self, held: Duration) -> Result<u64> {
        let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        match self.ask_once(TreeQuestion::Freeze { held_ms }).await? {
            Answer::Tree(TreeAnswer::Frozen(count)) => Ok(count),
            answer => Err(refused(answer)),
        }
    }

    /// Has them go on, and says how many were at rest until now.
    ///
    /// Errors: as `freeze`.
    pub async fn thaw(&self) -> Result<u64> {
        match self.ask_once(TreeQuestion::Thaw).await? {
            Answer::Tree(TreeAnswer::Thawed(count)) => Ok(count),
            answer => Err(refused(answer)),
        }
    }

    /// Asks over the connection there is alone: what is at rest is so as long as that lasts.
    async fn ask_once(&self, question: TreeQuestion) -> Result<Answer> {
        let live = self.shared.live().ok_or(Error::Lost(None))?;
        let question = Question::Tree { tree: 0, question };
        live.talk.ask(&question.encode()).await
    }

    /// What of the files of the agent's host is selected. It is opened by whoever reads it.
    pub fn open_tree(&self, selection: Selection) -> Arc<dyn TreeReader> {
        let tree = tree::Remote::new(&self.shared, TreeQuestion::Open(selection));
        Arc::new(tree::RemoteTree(Arc::new(tree)))
    }

    /// A folder of the agent's host that is restored into. What cannot be written may be
    /// told by a later call, at the latest by `flush`.
    pub fn open_tree_writer(&self, target: Target) -> Arc<dyn TreeWriter> {
        Arc::new(writer::RemoteTarget::new(&self.shared, target))
    }
}

/// What an answer says that is not the one hoped for.
fn refused(answer: Answer) -> Error {
    match answer {
        Answer::Tree(TreeAnswer::Refused(refused)) => Error::Elsewhere {
            kind: Kind::Conflict,
            text: refused.text,
        },
        Answer::Failed { kind, text } => Error::Elsewhere { kind, text },
        _ => UNEXPECTED,
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
                    Err(_) => {
                        live.talk.end();
                        self.changed.notify_waiters();
                    }
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
        let answer = self.send(record).await?;
        answer.await.map_err(|_| Error::Lost(None))
    }

    /// Sends a question; its answer comes later.
    async fn send(&self, record: &[u8]) -> Result<oneshot::Receiver<Answer>> {
        let mut sender = self.sender.lock().await;
        let (told, answer) = oneshot::channel();
        match &mut *self.waiting() {
            Some(waiting) => waiting.push_back(told),
            None => return Err(Error::Lost(None)),
        }
        // Given up in the middle of a record, the connection would be of no use.
        let mut unsent = EndOnDrop(Some(self));
        sender.send(record, &[]).await?;
        unsent.0 = None;
        Ok(answer)
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
