//! What the engine asks of work, and what work may answer.

use std::future::Future;
use std::sync::Arc;

use cairn_meta::Tx;
use cairn_meta::tasks::Task;
use cairn_types::{Kind, Progress};

/// Why a step did not succeed, in words that the task's owner may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides what follows: `Transient` is tried again, `Cancelled` is not, all others neither.
    pub kind: Kind,
    /// The error code for the operation log.
    pub code: String,
    /// The reason in words; never the chain of causes, which the log has.
    pub text: String,
    /// The task waits for something that is not in its hands: it begins again no sooner
    /// than after so many seconds, and this attempt does not count.
    pub again_after: Option<i64>,
}

impl Failure {
    /// A failure for a reason, without a code.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            code: String::new(),
            text: text.into(),
            again_after: None,
        }
    }
}

/// Durable work: for each task, a fixed list of steps that the engine drives in order.
///
/// The engine may repeat a step after a crash, and undoes every step that
/// *started*, newest first, so `run` and `undo` must both be idempotent.
pub trait Work: Send + Sync + 'static {
    /// The names of the task's steps.
    fn steps(&self, task: &Task) -> &'static [&'static str];

    /// Does a step. Long steps raise `progress` and end with a failure of kind
    /// `Cancelled` soon after [`Progress::cancel`].
    fn run(
        &self,
        task: &Task,
        step: usize,
        progress: &Arc<Progress>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Removes what a started `run` may have left, whether or not it finished.
    fn undo(
        &self,
        task: &Task,
        step: usize,
        why: &Failure,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Writes what else becomes true when a task has failed and is undone, into
    /// the transaction that says so.
    fn failed(
        &self,
        task: &Task,
        why: &Failure,
        tx: &mut Tx,
    ) -> impl Future<Output = cairn_meta::Result<()>> + Send;
}
