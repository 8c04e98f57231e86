//! Waiting for long work, with a progress bar on standard error where that is
//! a terminal.
//!
//! The server is asked at growing intervals, up to a bound, and may be away
//! for a while in between: what was begun goes on there without us.

use std::collections::HashMap;
use std::time::Duration;

use cairn_api::checkpoint::Checkpoint;
use cairn_api::notification::Notification;
use cairn_api::operation_log::{ListOpLogsQuery, OperationLog};
use cairn_api::{Client, client};
use cairn_types::{
    BYTES_PER_GB, BackupId, CheckpointStatus, Kind, NotificationId, NotificationStatus,
    OperationLogId, OperationStatus, OperationType, ResourceId, VaultId, VaultStatus,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::Error;

/// The first interval between two questions.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// The longest interval between two questions.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// How many questions in a row may find no server.
const MAX_MISSED: u32 = 60;

/// Options of verbs that can wait.
#[derive(Debug, Clone, Default, Args)]
pub struct Waiting {
    /// Wait until it is done.
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this; it goes on at the server.
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub timeout: Option<u64>,
}

/// Asks again and again: when, how often, and for how long.
struct Poll {
    interval: Duration,
    missed: u32,
    deadline: Option<(Instant, u64)>,
}

impl Poll {
    fn new(timeout: Option<u64>) -> Self {
        let deadline =
            timeout.map(|seconds| (Instant::now() + Duration::from_secs(seconds), seconds));
        Self {
            interval: FIRST_INTERVAL,
            missed: 0,
            deadline,
        }
    }

    /// Waits until the next question is due.
    async fn pause(&mut self) -> Result<(), Error> {
        if let Some((deadline, seconds)) = self.deadline
            && Instant::now() + self.interval > deadline
        {
            return Err(Error::TimedOut { seconds });
        }
        tokio::time::sleep(self.interval).await;
        self.interval = (self.interval * 3 / 2).min(LONGEST_INTERVAL);
        Ok(())
    }

    /// Takes an answer; `None` if the server could not give one, but may yet.
    fn answer<T>(&mut self, answer: client::Result<T>) -> Result<Option<T>, Error> {
        match answer {
            Ok(answer) => {
                self.missed = 0;
                Ok(Some(answer))
            }
            Err(error) if error.kind() == Kind::Transient && self.missed < MAX_MISSED => {
                self.missed += 1;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until a notification is delivered or given up.
pub(crate) async fn notification(
    client: &Client,
    id: NotificationId,
    timeout: u64,
) -> Result<Notification, Error> {
    let mut poll = Poll::new(Some(timeout));
    loop {
        let shown = poll.answer(client.show_notification(id).await)?;
        if let Some(shown) = shown
            && shown.notification.status != NotificationStatus::Waiting
        {
            return Ok(shown.notification);
        }
        poll.pause().await?;
    }
}

/// How much of some work is done, in bytes or, where nobody knows those, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tally {
    Bytes { done: u64, total: u64 },
    Percent(u64),
}

impl Tally {
    /// What the tasks' logs say, with the resources' sizes to turn percent into bytes.
    fn of(logs: &[OperationLog], sizes: &HashMap<ResourceId, u64>) -> Self {
        let (mut all_done, mut all_total, mut percent) = (0, 0, 0);
        let mut known = true;
        for log in logs {
            let common = &log.extra_info.common;
            let progress = u64::from(common.progress.min(100));
            percent += progress;
            // A total of 0 means that the work has not been measured yet.
            let told = common.bytes_done.zip(common.bytes_total);
            let told = told.filter(|(_, total)| *total > 0);
            let size = sizes.get(&log.extra_info.resource.id);
            match told.or_else(|| size.map(|size| (size / 100 * progress, *size))) {
                Some((done, total)) => {
                    all_done += done.min(total);
                    all_total += total;
                }
                None => known = false,
            }
        }
        if known && all_total > 0 {
            Self::Bytes {
                done: all_done,
                total: all_total,
            }
        } else {
            Self::Percent(percent / (logs.len().max(1) as u64))
        }
    }
}

/// A bar on standard error; nothing if that is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(what: String) -> Self {
        let bar = ProgressBar::new(0).with_message(what);
        bar.set_style(style("{msg} {spinner} {elapsed}"));
        Self(bar)
    }

    fn show(&self, tally: Tally) {
        let (form, done, total) = match tally {
            Tally::Bytes { done, total } => (
                "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left",
                done,
                total,
            ),
            Tally::Percent(percent) => ("{msg} {wide_bar} {percent}% {eta} left", percent, 100),
        };
        if self.0.length() != Some(total) {
            self.0.set_style(style(form));
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(form: &str) -> ProgressStyle {
    ProgressStyle::with_template(form).expect("the forms above are right")
}

/// Waits for one task and returns its log once it succeeded.
///
/// Errors: `TaskFailed` if it did not; `TimedOut`.
pub(crate) async fn task(
    client: &Client,
    id: OperationLogId,
    timeout: Option<u64>,
) -> Result<OperationLog, Error> {
    let mut poll = Poll::new(timeout);
    let bar = Bar::new("task".to_owned());
    let mut sizes = None;
    loop {
        if let Some(answer) = poll.answer(client.show_operation_log(id).await)? {
            let log = answer.operation_log;
            if log.status.is_final() {
                drop(bar);
                return success(log);
            }
            if sizes.is_none() {
                bar.0.set_message(what(&log));
                sizes = Some(size_of(client, &log).await);
            }
            bar.show(Tally::of(
                std::slice::from_ref(&log),
                sizes.as_ref().unwrap_or(&HashMap::new()),
            ));
        }
        poll.pause().await?;
    }
}

/// Waits for a checkpoint's tasks and returns it once it is available.
///
/// Errors: `TaskFailed` with the first task that failed; `TimedOut`.
pub(crate) async fn checkpoint(
    client: &Client,
    begun: &Checkpoint,
    timeout: Option<u64>,
) -> Result<Checkpoint, Error> {
    let resources = begun.vault.resources.iter();
    let sizes = resources
        .map(|one| (one.id, one.resource_size * BYTES_PER_GB))
        .collect();
    let mut poll = Poll::new(timeout);
    let bar = Bar::new(format!("backup of {}", begun.vault.name));
    loop {
        if let Some(answer) = poll.answer(client.show_checkpoint(begun.id).await)? {
            let checkpoint = answer.checkpoint;
            if checkpoint.status != CheckpointStatus::Protecting {
                drop(bar);
                return finished(client, checkpoint).await;
            }
            if let Some(logs) = poll.answer(logs_of(client, begun).await)? {
                bar.show(Tally::of(&logs, &sizes));
            }
        }
        poll.pause().await?;
    }
}

/// Waits until a vault is gone.
///
/// Errors: `TaskFailed` if it stays; `TimedOut`.
pub(crate) async fn vault_gone(
    client: &Client,
    id: VaultId,
    timeout: Option<u64>,
) -> Result<(), Error> {
    let look = || async move {
        let status = client.show_vault(id).await?.vault.billing.status;
        Ok(status != VaultStatus::Deleting && status != VaultStatus::Lock)
    };
    let query = ListOpLogsQuery {
        vault_id: Some(id),
        operation_type: Some(OperationType::VaultDelete),
        ..Default::default()
    };
    gone(client, look, query, |_| true, timeout).await
}

/// Waits until a backup is gone.
///
/// Errors: `TaskFailed` if it stays; `TimedOut`.
pub(crate) async fn backup_gone(
    client: &Client,
    id: BackupId,
    timeout: Option<u64>,
) -> Result<(), Error> {
    let look = || async move { Ok(!client.show_backup(id).await?.backup.status.is_busy()) };
    let query = ListOpLogsQuery {
        operation_type: Some(OperationType::Delete),
        ..Default::default()
    };
    let is_ours = |log: &OperationLog| {
        log.extra_info
            .delete
            .as_ref()
            .is_some_and(|delete| delete.backup_id == id)
    };
    gone(client, look, query, is_ours, timeout).await
}

/// Waits until `look` finds nothing any more. When it finds that nothing is
/// being deleted either, the failed task among the logs says why.
async fn gone<F, L>(
    client: &Client,
    look: L,
    query: ListOpLogsQuery,
    is_ours: impl Fn(&OperationLog) -> bool,
    timeout: Option<u64>,
) -> Result<(), Error>
where
    L: Fn() -> F,
    F: Future<Output = client::Result<bool>>,
{
    let mut poll = Poll::new(timeout);
    let bar = Bar::new("deletion".to_owned());
    loop {
        let answer = look().await;
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == Kind::NotFound)
        {
            return Ok(());
        }
        if poll.answer(answer)? == Some(true) {
            let logs = client.list_operation_logs(&query).await?.operation_logs;
            let failed = logs
                .into_iter()
                .filter(|log| is_failure(log) && is_ours(log));
            let newest = failed.max_by_key(|log| log.created_at);
            return Err(newest.map_or(Error::NotDeleted, |log| failure(&log)));
        }
        bar.0.tick();
        poll.pause().await?;
    }
}

/// The checkpoint, if every backup of it was made.
async fn finished(client: &Client, checkpoint: Checkpoint) -> Result<Checkpoint, Error> {
    if checkpoint.status == CheckpointStatus::Available {
        return Ok(checkpoint);
    }
    let logs = logs_of(client, &checkpoint).await?;
    let failed = logs.iter().find(|log| is_failure(log));
    Err(failed.map_or_else(
        || Error::CheckpointFailed {
            checkpoint: checkpoint.id.to_string(),
            status: checkpoint.status.name(),
        },
        failure,
    ))
}

/// The logs of a checkpoint's tasks.
async fn logs_of(client: &Client, checkpoint: &Checkpoint) -> client::Result<Vec<OperationLog>> {
    let query = ListOpLogsQuery {
        vault_id: Some(checkpoint.vault.id),
        operation_type: Some(OperationType::Backup),
        // Queries are to the second: one more, so that rounding loses nothing.
        start_time: Some(checkpoint.created_at.plus_seconds(-1)),
        ..Default::default()
    };
    let mut logs = client.list_operation_logs(&query).await?.operation_logs;
    logs.retain(|log| log.checkpoint_id == Some(checkpoint.id));
    Ok(logs)
}

/// The size of a task's resource, as far as its backup tells it.
async fn size_of(client: &Client, log: &OperationLog) -> HashMap<ResourceId, u64> {
    let extra = &log.extra_info;
    let backup = extra.backup.as_ref().map(|backup| backup.backup_id);
    let Some(id) = backup.or_else(|| extra.restore.as_ref().map(|restore| restore.backup_id))
    else {
        return HashMap::new();
    };
    // Without it the bar counts percent: no reason to fail.
    let size = client
        .show_backup(id)
        .await
        .map(|answer| answer.backup.resource_size);
    size.into_iter()
        .map(|size| (extra.resource.id, size * BYTES_PER_GB))
        .collect()
}

/// What a task does, and with what.
fn what(log: &OperationLog) -> String {
    let resource = &log.extra_info.resource;
    let name = resource
        .name
        .clone()
        .unwrap_or_else(|| resource.id.to_string());
    match target(log) {
        Some(target) => format!("{} of {name} onto {target}", log.operation_type),
        None => format!("{} of {name}", log.operation_type),
    }
}

/// What a task writes to, if that is not what its backup is of.
pub(crate) fn target(log: &OperationLog) -> Option<&str> {
    let restore = log.extra_info.restore.as_ref()?;
    let elsewhere = restore.target_resource_id != log.extra_info.resource.id;
    elsewhere.then_some(restore.target_resource_name.as_str())
}

/// Whether a task ended without doing what it should.
fn is_failure(log: &OperationLog) -> bool {
    matches!(
        log.status,
        OperationStatus::Failed | OperationStatus::Timeout
    )
}

/// The error that a failed task is.
fn failure(log: &OperationLog) -> Error {
    Error::TaskFailed {
        what: what(log),
        status: log.status.name(),
        message: log.error_info.message.clone(),
        code: log.error_info.code.clone(),
        task: log.id,
    }
}

/// The log of a task that ended, if it ended well.
fn success(log: OperationLog) -> Result<OperationLog, Error> {
    if is_failure(&log) {
        Err(failure(&log))
    } else {
        Ok(log)
    }
}

#[cfg(test)]
mod tests;
