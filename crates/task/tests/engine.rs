//! The engine over a real catalogue: order, retries, undoing, and what a crash leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use cairn_meta::tasks::{Task, TaskState};
use cairn_meta::{Meta, Tx};
use cairn_task::{Engine, Failure, HEARTBEAT, LEASE_SECONDS, MAX_ATTEMPTS, Work};
use cairn_testkit::FakeClock;
use cairn_types::{Clock, Kind, OperationLogId, Progress};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a step does the next time it runs.
#[derive(Debug, Clone, Copy)]
enum Next {
    Fail(Kind),
    Panic,
    /// Goes on until it is cancelled.
    Hang,
    /// Never ends, and its process does.
    Crash,
    /// Has the catalogue's one writer until after the next heartbeat.
    Write,
}

/// Three steps that note what they do, and misbehave as planned.
#[derive(Default)]
struct Script {
    meta: Mutex<Option<Meta>>,
    done: Mutex<Vec<String>>,
    plan: Mutex<Vec<(usize, Next)>>,
    undo_failures: Mutex<u32>,
    reached: Notify,
}

impl Script {
    fn note(&self, text: String) {
        self.done.lock().unwrap().push(text);
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    fn plan(&self, step: usize, next: Next) {
        self.plan.lock().unwrap().push((step, next));
    }

    fn next(&self, step: usize) -> Option<Next> {
        let mut plan = self.plan.lock().unwrap();
        let position = plan.iter().position(|(planned, _)| *planned == step)?;
        Some(plan.remove(position).1)
    }
}

fn failure(kind: Kind) -> Failure {
    Failure {
        kind,
        code: "C".to_owned(),
        text: format!("{kind:?}"),
        again_after: None,
    }
}

impl Work for Script {
    fn steps(&self, _: &Task) -> &'static [&'static str] {
        &["one", "two", "three"]
    }

    async fn run(&self, _: &Task, step: usize, progress: &Arc<Progress>) -> Result<(), Failure> {
        self.note(format!("run {step}"));
        match self.next(step) {
            Some(Next::Fail(kind)) => Err(failure(kind)),
            Some(Next::Panic) => panic!("on purpose"),
            Some(Next::Hang) => {
                self.reached.notify_one();
                while !progress.is_cancelled() {
                    tokio::task::yield_now().await;
                }
                Err(failure(Kind::Cancelled))
            }
            Some(Next::Crash) => {
                self.reached.notify_one();
                std::future::pending().await
            }
            Some(Next::Write) => {
                let meta = self.meta.lock().unwrap().clone().unwrap();
                let tx = meta.begin().await.unwrap();
                tokio::time::sleep_until(Instant::now() + HEARTBEAT * 2).await;
                tx.commit().await.unwrap();
                Ok(())
            }
            None => {
                progress.add_total(10);
                progress.advance(10);
                Ok(())
            }
        }
    }

    async fn undo(&self, _: &Task, step: usize, why: &Failure) -> Result<(), Failure> {
        self.note(format!("undo {step} {}", why.text));
        let mut failures = self.undo_failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(failure(Kind::Transient));
        }
        Ok(())
    }

    async fn failed(&self, task: &Task, why: &Failure, tx: &mut Tx) -> cairn_meta::Result<()> {
        // It sees what its transaction says of the task.
        let state = tx.task(task.id).await?.unwrap().state;
        self.note(format!("{state} {}", why.text));
        Ok(())
    }
}

/// A catalogue with one task, and the script for it.
struct Stage {
    meta: Meta,
    clock: Arc<FakeClock>,
    script: Arc<Script>,
    task: OperationLogId,
    _folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("catalogue").display());
        let meta = Meta::open(&url).await.unwrap();
        let clock = Arc::new(FakeClock::at(1000));
        let task = OperationLogId::random();
        let mut tx = meta.begin().await.unwrap();
        let row = Task::new(task, "script", "{}".to_owned(), "", clock.now());
        tx.insert_task(&row).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            meta,
            clock,
            script: Arc::default(),
            task,
            _folder: folder,
        }
    }

    fn engine(&self, owner: &str, stop: &CancellationToken) -> Engine<Script> {
        Engine::new(
            self.meta.clone(),
            Arc::clone(&self.script),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            owner.to_owned(),
            Arc::new(Notify::new()),
            stop.clone(),
        )
    }

    /// Runs what is due; false if nothing is.
    async fn run(&self) -> bool {
        self.engine("me", &CancellationToken::new())
            .run_one()
            .await
            .unwrap()
    }

    async fn task(&self) -> Task {
        self.meta
            .read()
            .await
            .unwrap()
            .task(self.task)
            .await
            .unwrap()
            .unwrap()
    }
}

#[tokio::test]
async fn steps_run_once_each_and_in_order() {
    let stage = Stage::new().await;
    assert!(stage.run().await);
    assert_eq!(stage.script.notes(), ["run 0", "run 1", "run 2"]);
    let task = stage.task().await;
    assert_eq!(
        (task.state, task.step, task.attempts),
        (TaskState::Succeeded, 3, 1)
    );
    assert_eq!((task.done_bytes, task.total_bytes), (30, 30));
    assert!(task.ended_at.is_some() && task.owner.is_none());
    assert!(!stage.run().await, "it is done");
}

#[tokio::test]
async fn what_fails_for_good_is_undone_newest_step_first() {
    let stage = Stage::new().await;
    stage.script.plan(1, Next::Fail(Kind::Corrupt));
    stage.run().await;
    let expected = [
        "run 0",
        "run 1",
        "undo 1 Corrupt",
        "undo 0 Corrupt",
        "failed Corrupt",
    ];
    assert_eq!(stage.script.notes(), expected);
    let task = stage.task().await;
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!((&*task.error_code, &*task.error_text), ("C", "Corrupt"));
}

#[tokio::test]
async fn what_fails_for_now_is_tried_again_later_but_not_for_ever() {
    let stage = Stage::new().await;
    for _ in 0..MAX_ATTEMPTS {
        stage.script.plan(1, Next::Fail(Kind::Transient));
    }
    assert!(stage.run().await);
    assert_eq!(stage.script.notes(), ["run 0", "run 1"]);
    assert_eq!(stage.task().await.state, TaskState::Waiting);
    assert!(!stage.run().await, "not at once");
    for _ in 1..MAX_ATTEMPTS {
        stage.clock.advance(3600);
        assert!(stage.run().await);
    }
    let notes = stage.script.notes();
    assert_eq!(
        notes.iter().filter(|note| *note == "run 0").count(),
        0,
        "it is done already"
    );
    assert_eq!(
        notes[notes.len() - 3..],
        ["undo 1 Transient", "undo 0 Transient", "failed Transient"]
    );
    assert_eq!(stage.task().await.state, TaskState::Failed);
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let stage = Stage::new().await;
    stage.script.plan(0, Next::Panic);
    stage.run().await;
    let task = stage.task().await;
    assert_eq!(
        (task.state, &*task.error_text),
        (TaskState::Failed, "internal error in step one")
    );
}

#[tokio::test]
async fn undoing_is_tried_until_it_works() {
    let stage = Stage::new().await;
    stage.script.plan(0, Next::Fail(Kind::Invalid));
    *stage.script.undo_failures.lock().unwrap() = 2;
    stage.run().await;
    assert_eq!(stage.task().await.state, TaskState::Undoing);
    for _ in 0..2 {
        stage.clock.advance(LEASE_SECONDS + 1);
        assert!(stage.run().await);
    }
    assert_eq!(stage.task().await.state, TaskState::Failed);
    let undone = [
        "run 0",
        "undo 0 Invalid",
        "undo 0 Invalid",
        "undo 0 Invalid",
        "failed Invalid",
    ];
    assert_eq!(stage.script.notes(), undone);
}

#[tokio::test]
async fn a_crashed_owner_loses_the_task_at_the_step_it_was_at() {
    let stage = Stage::new().await;
    stage.script.plan(1, Next::Crash);
    let never = CancellationToken::new();
    let engine = stage.engine("crashed", &never);
    tokio::select! {
        _ = engine.run_one() => unreachable!("the step does not end"),
        () = stage.script.reached.notified() => {}
    }
    assert!(!stage.run().await, "the lease still holds");
    stage.clock.advance(LEASE_SECONDS + 1);
    assert!(stage.run().await);
    assert_eq!(stage.script.notes(), ["run 0", "run 1", "run 1", "run 2"]);
    assert_eq!(stage.task().await.state, TaskState::Succeeded);
}

#[tokio::test]
async fn the_owner_of_the_catalogue_need_not_wait_for_leases() {
    let stage = Stage::new().await;
    stage.script.plan(2, Next::Crash);
    let never = CancellationToken::new();
    let engine = stage.engine("crashed", &never);
    tokio::select! {
        _ = engine.run_one() => unreachable!("the step does not end"),
        () = stage.script.reached.notified() => {}
    }
    assert_eq!(stage.engine("me", &never).take_over().await.unwrap(), 1);
    assert!(stage.run().await);
    assert_eq!(stage.task().await.state, TaskState::Succeeded);
}

#[tokio::test]
async fn a_task_that_always_takes_its_process_down_is_given_up() {
    let stage = Stage::new().await;
    let never = CancellationToken::new();
    for attempt in 0..MAX_ATTEMPTS {
        stage.script.plan(0, Next::Crash);
        let engine = stage.engine(&attempt.to_string(), &never);
        tokio::select! {
            _ = engine.run_one() => unreachable!("the step does not end"),
            () = stage.script.reached.notified() => {}
        }
        stage.engine("me", &never).take_over().await.unwrap();
    }
    assert!(stage.run().await);
    let task = stage.task().await;
    assert_eq!(task.state, TaskState::Failed);
    assert!(
        task.error_text.contains("interrupted"),
        "{}",
        task.error_text
    );
}

#[tokio::test]
async fn stopping_gives_a_task_back_and_costs_it_no_attempt() {
    let stage = Stage::new().await;
    stage.script.plan(1, Next::Hang);
    let stop = CancellationToken::new();
    let engine = stage.engine("stopped", &stop);
    let run = engine.run(2, std::time::Duration::ZERO);
    let stopper = async {
        stage.script.reached.notified().await;
        stop.cancel();
    };
    tokio::join!(run, stopper);
    let task = stage.task().await;
    assert_eq!(
        (task.state, task.step, task.attempts),
        (TaskState::Waiting, 1, 0)
    );
    assert!(stage.run().await);
    assert_eq!(stage.task().await.state, TaskState::Succeeded);
    assert_eq!(stage.script.notes(), ["run 0", "run 1", "run 1", "run 2"]);
}

#[tokio::test]
async fn a_heartbeat_does_not_stop_the_step_that_it_waits_for() {
    let stage = Stage::new().await;
    *stage.script.meta.lock().unwrap() = Some(stage.meta.clone());
    stage.script.plan(1, Next::Write);
    // Were the step to stand still meanwhile, both would wait until the heartbeat gave up.
    let run = tokio::time::timeout(HEARTBEAT * 10, stage.run());
    assert!(
        run.await
            .expect("the step and the heartbeat wait for each other")
    );
    assert_eq!(stage.task().await.state, TaskState::Succeeded);
}

impl Stage {
    async fn cancel(&self) -> bool {
        let mut tx = self.meta.begin().await.unwrap();
        let asked = tx.ask_to_cancel(self.task, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        asked
    }
}

#[tokio::test]
async fn a_task_that_is_cancelled_at_work_ends_at_the_next_heartbeat() {
    let stage = Stage::new().await;
    stage.script.plan(1, Next::Hang);
    let canceller = async {
        stage.script.reached.notified().await;
        assert!(stage.cancel().await);
    };
    tokio::join!(stage.run(), canceller);
    let task = stage.task().await;
    assert_eq!(task.state, TaskState::Failed);
    assert!(
        task.error_text.starts_with("cancelled by request"),
        "{}",
        task.error_text
    );
    let notes = stage.script.notes();
    assert_eq!(notes[..2], ["run 0", "run 1"]);
    assert!(
        notes[2].starts_with("undo 1") && notes[3].starts_with("undo 0"),
        "{notes:?}"
    );
    assert!(!stage.run().await, "it is over");
    assert!(!stage.cancel().await, "it is over");
}

#[tokio::test]
async fn a_task_that_is_cancelled_before_its_time_never_runs() {
    let stage = Stage::new().await;
    stage.script.plan(0, Next::Fail(Kind::Transient));
    assert!(stage.run().await);
    assert!(!stage.run().await, "not at once");
    assert!(stage.cancel().await);
    assert!(stage.run().await, "it is undone at once");
    let expected = [
        "run 0",
        "undo 0 cancelled by request",
        "failed cancelled by request",
    ];
    assert_eq!(stage.script.notes(), expected);
    assert_eq!(stage.task().await.state, TaskState::Failed);
}

#[tokio::test]
async fn a_task_that_waits_for_a_place_is_cancelled_at_once() {
    let stage = Stage::new().await;
    stage.script.plan(0, Next::Hang);
    let waiting = OperationLogId::random();
    let row = Task::new(waiting, "script", "{}".to_owned(), "", stage.clock.now());
    let stop = CancellationToken::new();
    let engine = stage.engine("busy", &stop);
    let run = engine.run(1, std::time::Duration::ZERO);
    let canceller = async {
        // The one place is taken by a task that goes on for ever.
        stage.script.reached.notified().await;
        let mut tx = stage.meta.begin().await.unwrap();
        tx.insert_task(&row).await.unwrap();
        assert!(tx.ask_to_cancel(waiting, stage.clock.now()).await.unwrap());
        tx.commit().await.unwrap();
        loop {
            let mut tx = stage.meta.read().await.unwrap();
            let task = tx.task(waiting).await.unwrap().unwrap();
            if task.state == TaskState::Failed {
                break;
            }
            drop(tx);
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(run, canceller) };
    let limit = std::time::Duration::from_secs(60);
    let ended = tokio::time::timeout(limit, both).await;
    ended.expect("it waits for the place that it does not need");
}

#[tokio::test]
async fn a_task_that_is_done_when_it_is_cancelled_is_done() {
    let stage = Stage::new().await;
    assert!(stage.run().await);
    assert!(!stage.cancel().await);
    assert_eq!(stage.task().await.state, TaskState::Succeeded);
}
