//! Tasks: durable work, who is at it, and how far it is. Only the task engine
//! moves a task on; everybody else may add one and read it.

use cairn_types::{OperationLogId, Timestamp, UnknownName};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, optional, text};
use crate::vaults::signed;
use crate::{Result, Tx};

/// The kind of work of which one task at the most goes on at a time, in all: it
/// reads all that there is and has time.
pub const ONE_AT_A_TIME: &str = "verify";

/// The kinds of work that wait for another region or for a host: they have places of their
/// own, so that they take none from what is done here, and of each kind so many go on at a time.
pub const DISTANT: [&str; 4] = [SEND, RECEIVE, BACK_UP_HOST, RESTORE_HOST];
/// Work that answers another region.
pub const SEND: &str = "send";
/// Work that asks another region.
pub const RECEIVE: &str = "receive";
/// Work that reads a host by its agent.
pub const BACK_UP_HOST: &str = "back_up_host";
/// Work that writes to a host by its agent.
pub const RESTORE_HOST: &str = "restore_host";
/// Tasks of each kind in [`DISTANT`] that are at work at a time, in all.
pub const DISTANT_AT_A_TIME: i64 = 2;

/// Which tasks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// All of them.
    Any,
    /// Those of no kind in [`DISTANT`].
    Here,
    /// Those of the kinds in [`DISTANT`].
    Distant,
    /// Those that are to be ended before they have begun, or between two attempts.
    Ended,
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Nobody is at work on it; from `not_before` on, anybody may be.
    Waiting,
    /// Its owner runs its steps.
    Running,
    /// Its owner undoes the steps that were started.
    Undoing,
    /// Done.
    Succeeded,
    /// Undone and given up.
    Failed,
    /// Not begun, for a reason that its record gives.
    Skipped,
}

impl TaskState {
    const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Running,
        Self::Undoing,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
    ];

    /// The name that the catalogue stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for TaskState {
    type Err = UnknownName;
    fn from_str(name: &str) -> std::result::Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| UnknownName {
            set: "task state",
            name: name.to_owned(),
        })
    }
}

/// A piece of durable work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id; also that of its operation log, if it has one.
    pub id: OperationLogId,
    /// What sort of work.
    pub kind: String,
    /// What about, as JSON of that kind.
    pub payload: String,
    /// Its state.
    pub state: TaskState,
    /// The first step that is not known to be done.
    pub step: u64,
    /// How often work on it was begun.
    pub attempts: u64,
    /// Who is at work on it.
    pub owner: Option<String>,
    /// Until when that owner counts as alive.
    pub lease_until: Option<Timestamp>,
    /// Not to be begun before this.
    pub not_before: Timestamp,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do; 0 while unknown.
    pub total_bytes: u64,
    /// The error code, empty while fine.
    pub error_code: String,
    /// The error in words, empty while fine.
    pub error_text: String,
    /// The request that asked for it.
    pub request_id: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When work on it first began.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Whether somebody asked that it be ended.
    pub cancel_asked: bool,
}

impl FromRow for Task {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            kind: row.text("kind")?,
            payload: row.text("payload")?,
            state: row.parsed("state")?,
            step: row.unsigned("step")?,
            attempts: row.unsigned("attempts")?,
            owner: row.optional_text("owner")?,
            lease_until: row.optional_time("lease_until")?,
            not_before: row.time("not_before")?,
            done_bytes: row.unsigned("done_bytes")?,
            total_bytes: row.unsigned("total_bytes")?,
            error_code: row.text("error_code")?,
            error_text: row.text("error_text")?,
            request_id: row.text("request_id")?,
            created_at: row.time("created_at")?,
            started_at: row.optional_time("started_at")?,
            ended_at: row.optional_time("ended_at")?,
            updated_at: row.time("updated_at")?,
            cancel_asked: row.flag("cancel_asked")?,
        })
    }
}

impl Task {
    /// A task that nobody has begun.
    pub fn new(
        id: OperationLogId,
        kind: &str,
        payload: String,
        request_id: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            kind: kind.to_owned(),
            payload,
            state: TaskState::Waiting,
            step: 0,
            attempts: 0,
            owner: None,
            lease_until: None,
            not_before: now,
            done_bytes: 0,
            total_bytes: 0,
            error_code: String::new(),
            error_text: String::new(),
            request_id: request_id.to_owned(),
            created_at: now,
            started_at: None,
            ended_at: None,
            updated_at: now,
            cancel_asked: false,
        }
    }
}

impl Tx {
    /// Adds a task.
    pub async fn insert_task(&mut self, task: &Task) -> Result<()> {
        let columns = [
            ("id", text(task.id)),
            ("kind", text(&task.kind)),
            ("payload", text(&task.payload)),
            ("state", text(task.state)),
            ("step", signed(task.step).into()),
            ("attempts", signed(task.attempts).into()),
            ("owner", optional(task.owner.as_ref())),
            ("lease_until", task.lease_until.into()),
            ("not_before", task.not_before.into()),
            ("done_bytes", signed(task.done_bytes).into()),
            ("total_bytes", signed(task.total_bytes).into()),
            ("error_code", text(&task.error_code)),
            ("error_text", text(&task.error_text)),
            ("request_id", text(&task.request_id)),
            ("created_at", task.created_at.into()),
            ("started_at", task.started_at.into()),
            ("ended_at", task.ended_at.into()),
            ("updated_at", task.updated_at.into()),
            ("cancel_asked", task.cancel_asked.into()),
        ];
        insert(self, "tasks", columns).await
    }

    /// Adds a task unless one of its kind and payload is waiting already.
    pub async fn insert_task_once(&mut self, task: &Task) -> Result<()> {
        let waiting = self.waiting_task(&task.kind, &task.payload).await?;
        match waiting {
            Some(_) => Ok(()),
            None => self.insert_task(task).await,
        }
    }

    /// The task of this kind and payload that nobody has begun, if there is one.
    pub async fn waiting_task(
        &mut self,
        kind: &str,
        payload: &str,
    ) -> Result<Option<OperationLogId>> {
        let mut statement = Statement::new("SELECT * FROM tasks");
        statement
            .equals("state", Some(TaskState::Waiting))
            .equals("kind", Some(kind))
            .equals("payload", Some(payload))
            .push(" ORDER BY created_at, id LIMIT 1");
        let found: Option<Task> = statement.one(self).await?;
        Ok(found.map(|task| task.id))
    }

    /// Whether a task of this kind and payload is not over.
    pub async fn unfinished_task(&mut self, kind: &str, payload: &str) -> Result<bool> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM tasks");
        statement
            .condition("state IN ('waiting', 'running', 'undoing')")
            .equals("kind", Some(kind))
            .equals("payload", Some(payload));
        Ok(statement.number(self).await? > 0)
    }

    /// How many tasks of this kind are not over.
    pub async fn unfinished_tasks_of(&mut self, kind: &str) -> Result<u64> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM tasks");
        statement.equals("kind", Some(kind));
        statement.condition("state IN ('waiting', 'running', 'undoing')");
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// Takes the oldest task that is due for `owner`: one that nobody has, or
    /// one whose owner let its lease end. Of [`ONE_AT_A_TIME`] none is begun
    /// while another is at work, and few of those in [`DISTANT`].
    pub async fn claim_task(
        &mut self,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Task>> {
        self.claim_task_of(Lane::Any, owner, now, lease_until).await
    }

    /// As [`claim_task`](Self::claim_task), of the tasks in a lane.
    pub async fn claim_task_of(
        &mut self,
        lane: Lane,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Task>> {
        let lock = self.claim_lock();
        let mut statement = Statement::new("SELECT * FROM tasks WHERE ");
        let which = match lane {
            Lane::Any => None,
            Lane::Here => Some("NOT IN"),
            Lane::Distant => Some("IN"),
            Lane::Ended => {
                statement.push("cancel_asked = 1 AND ");
                None
            }
        };
        if let Some(which) = which {
            statement.push("kind ").push(which).push(" (");
            statement.list(DISTANT.map(text)).push(") AND ");
        }
        statement.push("((state = 'waiting' AND ");
        statement.push("not_before <= ").bind(now);
        for kind in DISTANT {
            // To be ended, none waits.
            statement
                .push(" AND (cancel_asked = 1 OR kind <> ")
                .bind(kind);
            statement.push(" OR (SELECT COUNT(*) FROM tasks r WHERE r.kind = ");
            statement.bind(kind);
            statement.push(" AND r.state IN ('running', 'undoing')) < ");
            statement.bind(DISTANT_AT_A_TIME).push(")");
        }
        statement
            .push(" AND (cancel_asked = 1 OR kind <> ")
            .bind(ONE_AT_A_TIME);
        statement.push(" OR NOT EXISTS (SELECT 1 FROM tasks r WHERE r.kind = ");
        statement.bind(ONE_AT_A_TIME);
        statement.push(" AND r.state IN ('running', 'undoing')))");
        statement.push(") OR (state IN ('running', 'undoing') AND (lease_until IS NULL OR ");
        statement.push("lease_until <= ").bind(now);
        statement
            .push("))) ORDER BY not_before, created_at, id LIMIT 1 ")
            .push(lock);
        let Some(mut task) = statement.one::<Task>(self).await? else {
            return Ok(None);
        };
        task.owner = Some(owner.to_owned());
        task.lease_until = Some(lease_until);
        task.attempts += 1;
        task.started_at = task.started_at.or(Some(now));
        if task.state == TaskState::Waiting {
            task.state = TaskState::Running;
        }
        task.updated_at = now;
        self.write_task(&task).await?;
        Ok(Some(task))
    }

    /// Writes a task that `task.owner` holds or has just given up; false if
    /// somebody else has taken it meanwhile, and then nothing is written.
    pub async fn save_task(&mut self, task: &Task, owner: &str) -> Result<bool> {
        let mut statement = update(task);
        statement
            .equals("id", Some(task.id))
            .equals("owner", Some(owner));
        Ok(statement.run(self).await? == 1)
    }

    /// Has a task that waits begin as soon as it can; what is at work is left alone.
    pub async fn make_due(&mut self, id: OperationLogId, now: Timestamp) -> Result<()> {
        let mut statement = Statement::new("UPDATE tasks SET not_before = ");
        statement.bind(now).push(", updated_at = ").bind(now);
        statement
            .equals("id", Some(id))
            .equals("state", Some(TaskState::Waiting));
        statement.run(self).await?;
        Ok(())
    }

    async fn write_task(&mut self, task: &Task) -> Result<()> {
        let mut statement = update(task);
        statement.equals("id", Some(task.id));
        statement.run(self).await?;
        Ok(())
    }

    /// The task with this id.
    pub async fn task(&mut self, id: OperationLogId) -> Result<Option<Task>> {
        let mut statement = Statement::new("SELECT * FROM tasks");
        statement.equals("id", Some(id));
        statement.one(self).await
    }

    /// Asks that a task which is not over, and is not being undone, be ended; one that
    /// waits is due at once, so that it is undone now. False if there is no such task.
    pub async fn ask_to_cancel(&mut self, id: OperationLogId, now: Timestamp) -> Result<bool> {
        let mut statement = Statement::new("UPDATE tasks SET cancel_asked = 1, not_before = ");
        statement
            .push("CASE WHEN state = 'waiting' AND not_before > ")
            .bind(now)
            .push(" THEN ")
            .bind(now)
            .push(" ELSE not_before END");
        statement
            .equals("id", Some(id))
            .condition("state IN ('waiting', 'running')");
        Ok(statement.run(self).await? == 1)
    }

    /// Ends every lease: for the one process that owns the catalogue, when it starts.
    pub async fn end_all_leases(&mut self, now: Timestamp) -> Result<u64> {
        let mut statement = Statement::new("UPDATE tasks SET lease_until = ");
        statement.bind(now).push(", updated_at = ").bind(now);
        statement.condition("state IN ('running', 'undoing')");
        statement.run(self).await
    }

    /// How many tasks are not over.
    pub async fn unfinished_tasks(&mut self) -> Result<u64> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM tasks");
        statement.condition("state IN ('waiting', 'running', 'undoing')");
        Ok(statement.number(self).await?.unsigned_abs())
    }
}

fn update(task: &Task) -> Statement {
    let mut statement = Statement::new("UPDATE tasks SET state = ");
    statement
        .bind(text(task.state))
        .push(", step = ")
        .bind(signed(task.step));
    statement.push(", attempts = ").bind(signed(task.attempts));
    statement
        .push(", owner = ")
        .bind(optional(task.owner.as_ref()));
    statement.push(", lease_until = ").bind(task.lease_until);
    statement.push(", not_before = ").bind(task.not_before);
    statement
        .push(", done_bytes = ")
        .bind(signed(task.done_bytes));
    statement
        .push(", total_bytes = ")
        .bind(signed(task.total_bytes));
    statement
        .push(", error_code = ")
        .bind(text(&task.error_code));
    statement
        .push(", error_text = ")
        .bind(text(&task.error_text));
    statement.push(", started_at = ").bind(task.started_at);
    statement.push(", ended_at = ").bind(task.ended_at);
    statement.push(", updated_at = ").bind(task.updated_at);
    statement
}
