//! `cairn task`.

use cairn_api::Client;
use cairn_api::operation_log::{ListOpLogsQuery, OperationLog};
use cairn_types::{OperationLogId, OperationStatus, OperationType};
use clap::{Args, Subcommand};

use crate::output::{Printer, bytes, file_problems, not_at_rest, time};
use crate::table::{Table, pairs};
use crate::{Error, find, wait};

/// What can be asked about tasks.
#[derive(Debug, Clone, Subcommand)]
pub enum TaskCommand {
    /// List tasks.
    List(List),
    /// Show a task.
    Show {
        /// The task, by id.
        task: OperationLogId,
    },
    /// End a task: what it began is undone.
    Cancel {
        /// The task, by id.
        task: OperationLogId,
    },
    /// Wait for a task to end; fails if it does.
    Wait {
        /// The task, by id.
        task: OperationLogId,
        /// Wait no longer than this; it goes on at the server.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
}

/// Which tasks are listed.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those of a vault, by id or name.
    #[arg(long)]
    vault: Option<String>,
    /// Those in a state: waiting, running, success, skipped, failed, timeout.
    #[arg(long, value_parser = find::word::<OperationStatus>)]
    status: Option<OperationStatus>,
    /// Those of a type: backup, restore, delete, ...
    #[arg(long = "type", value_parser = find::word::<OperationType>)]
    operation_type: Option<OperationType>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: TaskCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let log = match command {
        TaskCommand::List(options) => return list(options, client, printer).await,
        TaskCommand::Show { task } => client.show_operation_log(task).await?.operation_log,
        TaskCommand::Cancel { task } => client.cancel_operation(task).await?.operation_log,
        TaskCommand::Wait { task, timeout } => wait::task(client, task, timeout).await?,
    };
    printer.print(&log, || show(&log))
}

async fn list(list: List, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let vault_id = match &list.vault {
        Some(vault) => Some(find::vault(client, vault).await?.id),
        None => None,
    };
    let query = ListOpLogsQuery {
        vault_id,
        status: list.status,
        operation_type: list.operation_type,
        limit: Some(list.limit),
        ..Default::default()
    };
    let logs = client.list_operation_logs(&query).await?.operation_logs;
    printer.print(&logs, || table(&logs))
}

fn table(logs: &[OperationLog]) -> String {
    let mut table = Table::new(&[
        "ID",
        "TYPE",
        "RESOURCE",
        "VAULT",
        "STATUS",
        ">PROGRESS",
        "CREATED",
        "ENDED",
    ]);
    for log in logs {
        table.row([
            log.id.to_string(),
            log.operation_type.to_string(),
            resource(log),
            log.vault_name.clone().unwrap_or_default(),
            log.status.to_string(),
            format!("{} %", log.extra_info.common.progress),
            time(Some(log.created_at)),
            time(log.ended_at),
        ]);
    }
    table.render()
}

/// What a task is about: for a restore to another resource, from which and to which.
fn resource(log: &OperationLog) -> String {
    let name = log.extra_info.resource.name.clone().unwrap_or_default();
    match wait::target(log) {
        Some(target) => format!("{name} -> {target}"),
        None => name,
    }
}

/// A task, for people.
pub(crate) fn show(log: &OperationLog) -> String {
    let extra = &log.extra_info;
    let backup = extra
        .backup
        .as_ref()
        .map(|part| (part.backup_id, &part.backup_name));
    let restore = extra
        .restore
        .as_ref()
        .map(|part| (part.backup_id, &part.backup_name));
    let delete = extra
        .delete
        .as_ref()
        .map(|part| (part.backup_id, &part.backup_name));
    let replication = extra
        .replication
        .as_ref()
        .map(|part| (part.source_backup_id, &part.source_backup_name));
    let backup = backup
        .or(restore)
        .or(delete)
        .or(replication)
        .map(|(id, name)| format!("{name} ({id})"));
    let resource = extra.resource.name.clone().unwrap_or_default();
    let target = extra.restore.as_ref().map(|restore| {
        let (name, id) = (&restore.target_resource_name, restore.target_resource_id);
        format!("{name} ({id})")
    });
    let moved = extra.common.bytes_done.zip(extra.common.bytes_total);
    let moved = moved.map(|(done, total)| format!("{} of {}", bytes(done), bytes(total)));
    let error = &log.error_info;
    let error = [error.code.as_str(), error.message.as_str()]
        .join(" ")
        .trim()
        .to_owned();
    let mut text = pairs(&[
        ("id", log.id.to_string()),
        ("type", log.operation_type.to_string()),
        ("status", log.status.to_string()),
        ("progress", format!("{} %", extra.common.progress)),
        ("bytes", moved.unwrap_or_default()),
        ("resource", format!("{resource} ({})", extra.resource.id)),
        ("target", target.unwrap_or_default()),
        ("backup", backup.unwrap_or_default()),
        ("vault", log.vault_name.clone().unwrap_or_default()),
        ("error", error),
        ("created", time(Some(log.created_at))),
        ("started", time(Some(log.started_at))),
        ("ended", time(log.ended_at)),
        ("request", extra.common.request_id.clone()),
    ]);
    let backed_up = extra.backup.as_ref().map(|part| &part.file_problems);
    let restored = extra.restore.as_ref().map(|part| &part.file_problems);
    let found = backed_up.or(restored).and_then(Option::as_ref);
    let backed_up = extra.backup.as_ref();
    let rest = backed_up.filter(|part| part.app_consistency_status.as_deref() == Some("0"));
    let why = rest.map(|part| {
        part.app_consistency_error_message
            .as_deref()
            .unwrap_or_default()
    });
    text.push_str(&not_at_rest(&resource, why));
    text.push_str(&file_problems(&resource, found));
    text
}
