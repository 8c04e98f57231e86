//! Claims tasks, keeps their leases, drives their steps, and decides what follows a failure.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cairn_meta::tasks::{DISTANT, DISTANT_AT_A_TIME, Lane, Task, TaskState};
use cairn_meta::{Meta, Result};
use cairn_types::{Clock, Kind, Progress};
use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{Failure, Work};

/// How often a task at work says how far it is and renews its lease.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long an owner that is not heard of counts as alive.
pub const LEASE_SECONDS: i64 = 60;
/// How often work on a task is begun before it is given up.
pub const MAX_ATTEMPTS: u64 = 5;
/// The pause before the second attempt, in seconds; it doubles with each further one.
const BACKOFF_SECONDS: i64 = 2;
/// How long an idle engine waits before it looks again without being woken.
const IDLE: Duration = Duration::from_secs(5);

/// Places for tasks that are to be ended and have none: what they undo moves no bytes.
const ENDED: usize = 4;

/// Drives the tasks of a catalogue. Several engines may share one catalogue.
pub struct Engine<W> {
    meta: Meta,
    work: Arc<W>,
    clock: Arc<dyn Clock>,
    owner: String,
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl<W> Clone for Engine<W> {
    fn clone(&self) -> Self {
        Self {
            meta: self.meta.clone(),
            work: Arc::clone(&self.work),
            clock: Arc::clone(&self.clock),
            owner: self.owner.clone(),
            wake: Arc::clone(&self.wake),
            stop: self.stop.clone(),
        }
    }
}

/// What is to be done with a task after a step, or after all of them.
enum Next {
    Done,
    Undo(Failure),
    /// Give it back, to be begun again no sooner than after this many seconds.
    Release {
        after_seconds: i64,
        keep_attempt: bool,
    },
    /// Somebody else has it; it is no longer ours to write.
    Lost,
}

impl<W: Work> Engine<W> {
    /// An engine that owns tasks as `owner`, a name that no other engine, living or dead, has.
    /// `wake` tells it of new tasks; `stop` ends it.
    pub fn new(
        meta: Meta,
        work: Arc<W>,
        clock: Arc<dyn Clock>,
        owner: String,
        wake: Arc<Notify>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            meta,
            work,
            clock,
            owner,
            wake,
            stop,
        }
    }

    /// Takes over what earlier engines left, at once: only for the one process
    /// that owns the catalogue, before it runs any task.
    pub async fn take_over(&self) -> Result<u64> {
        let mut tx = self.meta.begin().await?;
        let taken = tx.end_all_leases(self.clock.now()).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// Drives up to `slots` tasks at a time, and beside them those that wait for
    /// other regions and those that are to be ended, until the engine is stopped; then waits up to `grace` for
    /// those under way and gives back the rest.
    pub async fn run(&self, slots: usize, grace: Duration) {
        let (mut running, mut distant, mut ended) =
            <(JoinSet<()>, JoinSet<()>, JoinSet<()>)>::default();
        let distant_slots = DISTANT.len() * DISTANT_AT_A_TIME.unsigned_abs() as usize;
        while !self.stop.is_cancelled() {
            self.fill(&mut ended, (Lane::Ended, ENDED), grace).await;
            self.fill(&mut running, (Lane::Here, slots), grace).await;
            self.fill(&mut distant, (Lane::Distant, distant_slots), grace)
                .await;
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.wake.notified() => {}
                Some(_) = running.join_next() => {}
                Some(_) = distant.join_next() => {}
                Some(_) = ended.join_next() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        while running.join_next().await.is_some() {}
        while distant.join_next().await.is_some() {}
        while ended.join_next().await.is_some() {}
    }

    /// Begins tasks of a lane until it is full, or none is due.
    async fn fill(&self, running: &mut JoinSet<()>, (lane, slots): (Lane, usize), grace: Duration) {
        while running.len() < slots {
            match self.claim(lane).await {
                Ok(Some(task)) => {
                    let engine = self.clone();
                    running.spawn(async move { engine.drive(task, grace).await });
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot claim a task"
                    );
                    break;
                }
            }
        }
    }

    /// Claims and drives one task that is due; false if none is. Lets tests
    /// run what is queued, in order, without anything in the background.
    pub async fn run_one(&self) -> Result<bool> {
        match self.claim(Lane::Any).await? {
            Some(task) => {
                self.drive(task, Duration::ZERO).await;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn claim(&self, lane: Lane) -> Result<Option<Task>> {
        let now = self.clock.now();
        let mut tx = self.meta.begin().await?;
        let task = tx
            .claim_task_of(lane, &self.owner, now, now.plus_seconds(LEASE_SECONDS))
            .await?;
        tx.commit().await?;
        Ok(task)
    }

    async fn drive(&self, mut task: Task, grace: Duration) {
        tracing::info!(task.id = %task.id, task.kind = %task.kind, "a task begins");
        let progress = Arc::new(Progress::default());
        let next = match task.state {
            TaskState::Undoing => Next::Undo(Failure {
                code: task.error_code.clone(),
                ..Failure::new(Kind::Bug, &*task.error_text)
            }),
            _ if task.cancel_asked => Next::Undo(cancelled()),
            _ if task.attempts > MAX_ATTEMPTS => Next::Undo(Failure::new(
                Kind::Transient,
                format!("given up: interrupted {MAX_ATTEMPTS} times"),
            )),
            _ => tokio::select! {
                next = self.run_steps(&mut task, &progress) => next,
                never = self.interrupt_after(grace, &progress) => never,
            },
        };
        if let Err(error) = self.settle(&mut task, next).await {
            // The lease runs out and the task is taken up again from its last saved step.
            tracing::error!(
                task.id = %task.id,
                error = &error as &dyn std::error::Error,
                "cannot record how a task went on"
            );
        }
        tracing::info!(
            task.id = %task.id, task.kind = %task.kind, task.state = %task.state,
            "work on a task ends"
        );
        self.wake.notify_one();
    }

    /// Waits for the engine's stop and the grace, then asks the work to end; never returns.
    async fn interrupt_after(&self, grace: Duration, progress: &Progress) -> Next {
        self.stop.cancelled().await;
        tokio::time::sleep(grace).await;
        progress.cancel();
        std::future::pending().await
    }

    async fn run_steps(&self, task: &mut Task, progress: &Arc<Progress>) -> Next {
        let names = self.work.steps(task);
        let first = usize::try_from(task.step).unwrap_or(usize::MAX);
        for (step, name) in names.iter().enumerate().skip(first) {
            if task.cancel_asked {
                return Next::Undo(cancelled());
            }
            tracing::debug!(task.id = %task.id, task.kind = %task.kind, step = name, "a step begins");
            let seen = task.clone();
            let run = AssertUnwindSafe(self.work.run(&seen, step, progress)).catch_unwind();
            let outcome = self.keep_alive(task, progress, run).await;
            match outcome.unwrap_or_else(|_| Err(panicked(name))) {
                Ok(()) => {
                    task.step += 1;
                    match self.save(task, progress).await {
                        Ok(true) => {}
                        Ok(false) => return Next::Lost,
                        Err(_) => {
                            return Next::Release {
                                after_seconds: BACKOFF_SECONDS,
                                keep_attempt: true,
                            };
                        }
                    }
                }
                Err(failure) => return self.after_failure(task, name, failure),
            }
        }
        Next::Done
    }

    fn after_failure(&self, task: &Task, step: &str, failure: Failure) -> Next {
        tracing::warn!(
            task.id = %task.id, task.kind = %task.kind, step, kind = ?failure.kind,
            "a step failed: {}", failure.text
        );
        match failure.kind {
            Kind::Cancelled if task.cancel_asked => Next::Undo(Failure {
                text: format!("{CANCELLED}: {}", failure.text),
                ..failure
            }),
            Kind::Cancelled if self.stop.is_cancelled() => Next::Release {
                after_seconds: 0,
                keep_attempt: false,
            },
            Kind::Transient
                if let Some(after_seconds) = failure.again_after
                    && !task.cancel_asked =>
            {
                Next::Release {
                    after_seconds,
                    keep_attempt: false,
                }
            }
            Kind::Transient if task.attempts < MAX_ATTEMPTS => Next::Release {
                after_seconds: BACKOFF_SECONDS << task.attempts.min(8),
                keep_attempt: true,
            },
            _ => Next::Undo(failure),
        }
    }

    /// Waits for a step while saying, again and again, how far it is and that
    /// its owner lives. Both go on side by side: a step that has the catalogue's
    /// one writer must be able to go on while a heartbeat waits for it.
    async fn keep_alive<F: Future>(
        &self,
        task: &mut Task,
        progress: &Arc<Progress>,
        step: F,
    ) -> F::Output {
        let heartbeats = async {
            let mut beat = tokio::time::interval(HEARTBEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat.reset();
            loop {
                beat.tick().await;
                match self.save(task, progress).await {
                    Ok(true) if task.cancel_asked => progress.cancel(),
                    Ok(true) => {}
                    Ok(false) => progress.cancel(),
                    Err(error) => tracing::warn!(
                        task.id = %task.id,
                        error = &error as &dyn std::error::Error,
                        "cannot renew a task's lease"
                    ),
                }
            }
        };
        tokio::select! {
            outcome = step => outcome,
            () = heartbeats => unreachable!("heartbeats do not end by themselves"),
        }
    }

    async fn save(&self, task: &mut Task, progress: &Progress) -> Result<bool> {
        let now = self.clock.now();
        task.done_bytes = progress.done().max(task.done_bytes);
        task.total_bytes = progress.total().max(task.total_bytes);
        task.lease_until = Some(now.plus_seconds(LEASE_SECONDS));
        task.updated_at = now;
        let mut tx = self.meta.begin().await?;
        let held = tx.save_task(task, &self.owner).await?;
        if held {
            let seen = tx.task(task.id).await?;
            task.cancel_asked = seen.is_some_and(|seen| seen.cancel_asked);
        }
        tx.commit().await?;
        Ok(held)
    }

    async fn settle(&self, task: &mut Task, next: Next) -> Result<()> {
        let now = self.clock.now();
        let mut failed = None;
        match next {
            Next::Lost => return Ok(()),
            Next::Done => {
                task.state = TaskState::Succeeded;
                task.ended_at = Some(now);
            }
            Next::Release {
                after_seconds,
                keep_attempt,
            } => {
                task.state = TaskState::Waiting;
                task.not_before = now.plus_seconds(after_seconds);
                if !keep_attempt {
                    task.attempts -= 1;
                }
            }
            Next::Undo(failure) => {
                if !self.undo_steps(task, &failure).await? {
                    return Ok(());
                }
                task.state = TaskState::Failed;
                task.ended_at = Some(self.clock.now());
                failed = Some(failure);
            }
        }
        task.owner = None;
        task.lease_until = None;
        task.updated_at = self.clock.now();
        let mut tx = self.meta.begin().await?;
        let held = tx.save_task(task, &self.owner).await?;
        if let Some(failure) = failed.filter(|_| held) {
            self.work.failed(task, &failure, &mut tx).await?;
        }
        tx.commit().await
    }

    /// Undoes the steps that were started; false if that has to be tried again
    /// later, when the lease ends.
    async fn undo_steps(&self, task: &mut Task, failure: &Failure) -> Result<bool> {
        let progress = Arc::new(Progress::default());
        task.state = TaskState::Undoing;
        task.error_code.clone_from(&failure.code);
        task.error_text.clone_from(&failure.text);
        if !self.save(task, &progress).await? {
            return Ok(false);
        }
        let last = self.work.steps(task).len().saturating_sub(1);
        let started = usize::try_from(task.step).unwrap_or(usize::MAX).min(last);
        for step in (0..=started).rev() {
            let seen = task.clone();
            let undo = AssertUnwindSafe(self.work.undo(&seen, step, failure)).catch_unwind();
            let outcome = self.keep_alive(task, &progress, undo).await;
            if let Err(failure) = outcome.unwrap_or_else(|_| Err(panicked("undo"))) {
                tracing::error!(
                    task.id = %task.id, task.kind = %task.kind, step,
                    "a step could not be undone and will be tried again: {}", failure.text
                );
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What is said of a task that somebody ended.
const CANCELLED: &str = "cancelled by request";

fn cancelled() -> Failure {
    Failure::new(Kind::Cancelled, CANCELLED)
}

fn panicked(step: &str) -> Failure {
    Failure::new(Kind::Bug, format!("internal error in step {step}"))
}
