//! Work that fails, is repeated, or is cut off at a chosen step.

use std::sync::{Arc, Mutex, PoisonError};

use cairn_core::Worker;
use cairn_meta::Tx;
use cairn_meta::tasks::Task;
use cairn_task::{Failure, Work};
use cairn_types::{Kind, Progress};
use tokio::sync::Notify;

/// What happens at a step, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sabotage {
    /// Tasks of this kind.
    pub kind: &'static str,
    /// At this step.
    pub step: usize,
    /// What happens.
    pub moment: Moment,
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It fails for good before it did anything.
    FailBefore,
    /// It does everything and fails for good then.
    FailAfter,
    /// It does everything and fails for now.
    FailOnce,
    /// It is done twice.
    Repeat,
    /// The process ends when it has done everything, and before anybody notes that.
    CrashAfter,
}

/// The service's own work, with at most one sabotage.
pub struct Saboteur {
    worker: Worker,
    plan: Mutex<Option<Sabotage>>,
    /// Told when the process would have ended.
    pub(crate) crashed: Arc<Notify>,
}

impl Saboteur {
    pub(crate) fn new(worker: Worker) -> Self {
        Self {
            worker,
            plan: Mutex::new(None),
            crashed: Arc::default(),
        }
    }

    pub(crate) fn plan(&self, sabotage: Option<Sabotage>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = sabotage;
    }

    /// The sabotage planned for this step, which is then used up.
    fn due(&self, task: &Task, step: usize) -> Option<Moment> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let due = plan.filter(|planned| planned.kind == task.kind && planned.step == step)?;
        *plan = None;
        Some(due.moment)
    }
}

fn failure(kind: Kind) -> Failure {
    Failure {
        kind,
        code: String::new(),
        text: "sabotage".to_owned(),
        again_after: None,
    }
}

impl Work for Saboteur {
    fn steps(&self, task: &Task) -> &'static [&'static str] {
        self.worker.steps(task)
    }

    async fn run(&self, task: &Task, step: usize, progress: &Arc<Progress>) -> Result<(), Failure> {
        let due = self.due(task, step);
        if due == Some(Moment::FailBefore) {
            return Err(failure(Kind::Corrupt));
        }
        self.worker.run(task, step, progress).await?;
        match due {
            Some(Moment::FailAfter) => Err(failure(Kind::Corrupt)),
            Some(Moment::FailOnce) => Err(failure(Kind::Transient)),
            Some(Moment::Repeat) => self.worker.run(task, step, progress).await,
            Some(Moment::CrashAfter) => {
                self.crashed.notify_one();
                std::future::pending().await
            }
            Some(Moment::FailBefore) | None => Ok(()),
        }
    }

    async fn undo(&self, task: &Task, step: usize, why: &Failure) -> Result<(), Failure> {
        self.worker.undo(task, step, why).await
    }

    async fn failed(&self, task: &Task, why: &Failure, tx: &mut Tx) -> cairn_meta::Result<()> {
        self.worker.failed(task, why, tx).await
    }
}
