//! Batches of what is to be written, on their way: several at a time, always in their
//! order. Those that were not answered when a connection ended go over the next one again,
//! and all that came behind them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::tree::EntryFailed;
use tokio::sync::{mpsc, oneshot};

use super::tree::{Remote, gone};
use super::{ASKED_MAX, Live, UNEXPECTED};
use crate::error::Error;
use crate::message::Answer;
use crate::message::tree::TreeQuestion;
use crate::message::tree_answer::{Packed, TreeAnswer};

/// Batches that are sent and not answered, at most.
const UNANSWERED_MAX: usize = 4;
/// Batches that wait to be sent.
pub(super) const WAITING_MAX: usize = 2;

/// What goes into the pipe.
pub(super) enum Entry {
    /// To be written.
    Batch(Packed),
    /// To be told when all before is written.
    Barrier(oneshot::Sender<()>),
}

/// Why nothing more can be written; it is told to whoever tries.
#[derive(Default)]
pub(super) struct Failure(Mutex<Option<Failed>>);

/// Why a batch could not be written.
struct Failed {
    /// The entry that could not be, if it is known.
    path: Option<Vec<u8>>,
    kind: io::ErrorKind,
    text: String,
    /// What has become of the line, until it was told.
    lost: Option<Error>,
}

impl Failure {
    pub fn check(&self) -> io::Result<()> {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *failed {
            None => Ok(()),
            // The first who hears of it is told all; the rest are stopped by that.
            Some(failed) => Err(failed.tell()),
        }
    }

    fn set(&self, failed: Failed) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert(failed);
    }
}

impl Failed {
    fn tell(&mut self) -> io::Error {
        if let Some(error) = self.lost.take() {
            return gone(error);
        }
        let source = io::Error::new(self.kind, self.text.clone());
        match self.path.clone() {
            Some(path) => EntryFailed { path, source }.into(),
            None => source,
        }
    }
}

/// Writes what comes, in its order, until nobody gives more. What fails ends it: the rest
/// is taken and dropped.
pub(super) async fn write(
    tree: Arc<Remote>,
    mut entries: mpsc::Receiver<Entry>,
    failure: Arc<Failure>,
) {
    let mut pipe = Pipe {
        tree: &tree,
        live: None,
        unanswered: VecDeque::new(),
        tries: 0,
    };
    let mut working = true;
    while let Some(entry) = entries.recv().await {
        match entry {
            Entry::Batch(packed) if working => {
                if let Err(error) = pipe.push(packed).await {
                    failure.set(error);
                    working = false;
                }
            }
            Entry::Batch(_) => {}
            Entry::Barrier(told) => {
                if working && let Err(error) = pipe.settle(0).await {
                    failure.set(error);
                    working = false;
                }
                // Who waits may have given up.
                let _ = told.send(());
            }
        }
    }
}

struct Pipe<'t> {
    tree: &'t Remote,
    /// The connection that the tree is open on.
    live: Option<Arc<Live>>,
    /// Batches as they are sent, with their answers if they were sent on this connection.
    unanswered: VecDeque<(Vec<u8>, Option<oneshot::Receiver<Answer>>)>,
    /// How often they were sent again since the last answer.
    tries: usize,
}

fn lost(error: Error) -> Failed {
    Failed {
        path: None,
        kind: io::ErrorKind::ConnectionReset,
        text: error.to_string(),
        lost: Some(error),
    }
}

impl Pipe<'_> {
    async fn push(&mut self, packed: Packed) -> Result<(), Failed> {
        let question = self.tree.question(TreeQuestion::Write(packed));
        self.unanswered.push_back((question.encode(), None));
        self.settle(UNANSWERED_MAX).await
    }

    /// Sends what is not sent, and waits until no more than so many are unanswered.
    async fn settle(&mut self, left: usize) -> Result<(), Failed> {
        let shared = Arc::clone(self.tree.shared());
        let settling = async {
            while let Err(error) = self.try_to_settle(left).await? {
                // The connection is of no use any more: all goes over the next one.
                if let Some(live) = self.live.take() {
                    live.talk.end();
                }
                self.unanswered.iter_mut().for_each(|(_, due)| *due = None);
                self.tries += 1;
                if self.tries > ASKED_MAX {
                    return Err(lost(error));
                }
            }
            Ok(())
        };
        tokio::select! {
            settled = settling => settled,
            () = shared.progress.cancelled() => Err(lost(Error::Cancelled)),
            () = shared.closed.cancelled() => Err(lost(Error::Lost(None))),
        }
    }

    /// The inner error is that of the connection.
    async fn try_to_settle(&mut self, left: usize) -> Result<Result<(), Error>, Failed> {
        let live = match &self.live {
            Some(live) => Arc::clone(live),
            None => match self.open().await? {
                Ok(live) => live,
                Err(error) => return Ok(Err(error)),
            },
        };
        for (record, due) in &mut self.unanswered {
            if due.is_none() {
                match live.talk.send(record).await {
                    Ok(answer) => *due = Some(answer),
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        while self.unanswered.len() > left {
            let (_, due) = self.unanswered.front_mut().expect("there are more");
            let due = due.as_mut().expect("all were sent above");
            match due.await {
                Ok(Answer::Tree(TreeAnswer::Written(Ok(())))) => {
                    self.unanswered.pop_front();
                    self.tries = 0;
                }
                Ok(Answer::Tree(TreeAnswer::NotOpen)) | Err(_) => {
                    return Ok(Err(Error::Lost(None)));
                }
                Ok(answer) => return Err(refused(answer)),
            }
        }
        Ok(Ok(()))
    }

    /// Opens the tree on the connection there is.
    async fn open(&mut self) -> Result<Result<Arc<Live>, Error>, Failed> {
        let live = self.tree.shared().some_live().await.map_err(lost)?;
        match live.talk.ask(&self.tree.opening().encode()).await {
            Ok(Answer::Tree(TreeAnswer::Opened)) => {
                self.live = Some(Arc::clone(&live));
                Ok(Ok(live))
            }
            Ok(answer) => Err(refused(answer)),
            Err(error) => {
                live.talk.end();
                Ok(Err(error))
            }
        }
    }
}

/// What an answer says that is not the one hoped for.
fn refused(answer: Answer) -> Failed {
    let told = |path, refused| {
        let error = io::Error::from(refused);
        Failed {
            path,
            kind: error.kind(),
            text: error.to_string(),
            lost: None,
        }
    };
    match answer {
        Answer::Tree(TreeAnswer::Written(Err(failed))) => told(Some(failed.path), failed.refused),
        Answer::Tree(TreeAnswer::Refused(refused)) => told(None, refused),
        Answer::Failed { kind, text } => lost(Error::Elsewhere { kind, text }),
        _ => lost(UNEXPECTED),
    }
}
