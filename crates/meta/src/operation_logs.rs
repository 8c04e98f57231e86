//! Operation logs: the public record of tasks. Status, times, progress and
//! error are the task's own, read with it, so that the two cannot disagree.

use cairn_types::{
    CheckpointId, OperationLogId, OperationStatus, OperationType, PolicyId, ProjectId, ResourceId,
    ResourceType, Timestamp, VaultId,
};
use sqlx::any::AnyRow;

use crate::query::{
    Columns, FromRow, Order, Page, SortKey, Statement, insert, json, optional, text,
};
use crate::tasks::TaskState;
use crate::{Result, Tx};

/// What the owner of a vault is told of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationLog {
    /// The log's id, which is the task's.
    pub id: OperationLogId,
    /// The project.
    pub project: ProjectId,
    /// The vault; none for what is about no vault.
    pub vault: Option<VaultId>,
    /// The vault's name at the time; empty without a vault.
    pub vault_name: String,
    /// The checkpoint, if the task belongs to one.
    pub checkpoint: Option<CheckpointId>,
    /// The policy that asked for it, if one did.
    pub policy: Option<PolicyId>,
    /// The enterprise project of the vault.
    pub enterprise_project: String,
    /// What is being done.
    pub operation_type: OperationType,
    /// To which resource.
    pub resource: Option<ResourceId>,
    /// That resource's name at the time.
    pub resource_name: Option<String>,
    /// That resource's type.
    pub resource_type: Option<ResourceType>,
    /// The block of `extra_info` that is named after the operation type.
    pub detail: serde_json::Value,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// The task's state, as the log shows it.
    pub status: OperationStatus,
    /// When work began.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
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
}

/// Which operation logs of a project a list shows.
#[derive(Debug, Clone, Default)]
pub struct OperationLogFilter {
    /// Only those in this state.
    pub status: Option<OperationStatus>,
    /// Only those of this type.
    pub operation_type: Option<String>,
    /// Only those of this vault.
    pub vault: Option<VaultId>,
    /// Only those whose vault's name contains this.
    pub vault_name: Option<String>,
    /// Only those of this resource.
    pub resource: Option<ResourceId>,
    /// Only those whose resource's name contains this.
    pub resource_name: Option<String>,
    /// Only replications to this region.
    pub destination_region: Option<String>,
    /// Only replications to this project.
    pub destination_project: Option<ProjectId>,
    /// Only those about a resource of one of these types, if given: none, if empty.
    pub resource_types: Option<Vec<ResourceType>>,
    /// Only those of this enterprise project.
    pub enterprise_project: Option<String>,
    /// Only those asked for at or after this.
    pub created_from: Option<Timestamp>,
    /// Only those asked for at or before this.
    pub created_until: Option<Timestamp>,
}

/// The states of a task that an operation log shows as `status`.
fn states_shown_as(status: OperationStatus) -> &'static [TaskState] {
    match status {
        OperationStatus::Waiting => &[TaskState::Waiting],
        OperationStatus::Running => &[TaskState::Running, TaskState::Undoing],
        OperationStatus::Success => &[TaskState::Succeeded],
        OperationStatus::Failed => &[TaskState::Failed],
        OperationStatus::Skipped => &[TaskState::Skipped],
        OperationStatus::Timeout => &[],
    }
}

const fn shown(state: TaskState) -> OperationStatus {
    match state {
        TaskState::Waiting => OperationStatus::Waiting,
        TaskState::Running | TaskState::Undoing => OperationStatus::Running,
        TaskState::Succeeded => OperationStatus::Success,
        TaskState::Failed => OperationStatus::Failed,
        TaskState::Skipped => OperationStatus::Skipped,
    }
}

/// What stands for no vault: the column takes no null.
const NO_VAULT: &str = "";

impl FromRow for OperationLog {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            vault: match row.text("vault_id")?.as_str() {
                NO_VAULT => None,
                _ => Some(row.parsed("vault_id")?),
            },
            vault_name: row.text("vault_name")?,
            checkpoint: row.optional_parsed("checkpoint_id")?,
            policy: row.optional_parsed("policy_id")?,
            enterprise_project: row.text("enterprise_project_id")?,
            operation_type: row.parsed("operation_type")?,
            resource: row.optional_parsed("resource_id")?,
            resource_name: row.optional_text("resource_name")?,
            resource_type: row.optional_parsed("resource_type")?,
            detail: row.json("detail")?,
            created_at: row.time("created_at")?,
            status: shown(row.parsed("state")?),
            started_at: row.optional_time("started_at")?,
            ended_at: row.optional_time("ended_at")?,
            updated_at: row.time("updated_at")?,
            done_bytes: row.unsigned("done_bytes")?,
            total_bytes: row.unsigned("total_bytes")?,
            error_code: row.text("error_code")?,
            error_text: row.text("error_text")?,
            request_id: row.text("request_id")?,
        })
    }
}

const OPERATION_LOG: &str = "SELECT l.*, t.state, t.started_at, t.ended_at, t.updated_at, \
    t.done_bytes, t.total_bytes, t.error_code, t.error_text, t.request_id \
    FROM operation_logs l JOIN tasks t ON t.id = l.id";

/// The order of a list of operation logs.
const NEWEST_FIRST: Order<'_> = Order {
    table: "operation_logs l",
    prefix: "l.",
    shared: false,
    keys: &[SortKey::newest("created_at")],
};

fn filtered(select: &str, project: ProjectId, filter: &OperationLogFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("l.project_id", Some(project))
        .equals("l.operation_type", filter.operation_type.as_ref())
        .equals("l.vault_id", filter.vault)
        .contains("l.vault_name", filter.vault_name.as_deref())
        .equals("l.resource_id", filter.resource)
        .contains("l.resource_name", filter.resource_name.as_deref())
        .equals(
            "l.enterprise_project_id",
            filter.enterprise_project.as_ref(),
        );
    for (column, value) in [
        ("destination_region", filter.destination_region.clone()),
        (
            "destination_project_id",
            filter.destination_project.map(|id| id.to_string()),
        ),
    ] {
        if let Some(value) = value {
            statement
                .condition("l.id IN (SELECT task_id FROM replications WHERE ")
                .push(column)
                .push(" = ")
                .bind(value)
                .push(")");
        }
    }
    match filter.resource_types.as_deref() {
        Some([]) => statement.condition("1 = 0"),
        Some(types) => statement.one_of("l.resource_type", types),
        None => &mut statement,
    };
    if let Some(status) = filter.status {
        match states_shown_as(status) {
            [] => statement.condition("1 = 0"),
            states => statement.one_of("t.state", states),
        };
    }
    if let Some(from) = filter.created_from {
        statement.condition("l.created_at >= ").bind(from);
    }
    if let Some(until) = filter.created_until {
        statement.condition("l.created_at <= ").bind(until);
    }
    statement
}

impl Tx {
    /// Adds the record of a task that is inserted in the same transaction, after it.
    pub async fn insert_operation_log(&mut self, log: &OperationLog) -> Result<()> {
        let columns = [
            ("id", text(log.id)),
            ("project_id", text(log.project)),
            ("vault_id", log.vault.map_or_else(|| text(NO_VAULT), text)),
            ("vault_name", text(&log.vault_name)),
            ("checkpoint_id", optional(log.checkpoint)),
            ("policy_id", optional(log.policy)),
            ("enterprise_project_id", text(&log.enterprise_project)),
            ("operation_type", text(log.operation_type)),
            ("resource_id", optional(log.resource)),
            ("resource_name", optional(log.resource_name.as_ref())),
            ("resource_type", optional(log.resource_type)),
            ("detail", json(&log.detail)),
            ("created_at", log.created_at.into()),
        ];
        insert(self, "operation_logs", columns).await
    }

    /// A project's operation log.
    pub async fn operation_log(
        &mut self,
        project: ProjectId,
        log: OperationLogId,
    ) -> Result<Option<OperationLog>> {
        let mut statement = Statement::new(OPERATION_LOG);
        statement
            .equals("l.project_id", Some(project))
            .equals("l.id", Some(log));
        statement.one(self).await
    }

    /// Writes what an operation has come to.
    pub async fn update_operation_detail(
        &mut self,
        log: OperationLogId,
        detail: &serde_json::Value,
    ) -> Result<()> {
        let mut statement = Statement::new("UPDATE operation_logs SET detail = ");
        statement.bind(json(detail)).equals("id", Some(log));
        statement.run(self).await?;
        Ok(())
    }

    /// A task's operation log, in whichever project it is.
    pub async fn operation_log_of(&mut self, task: OperationLogId) -> Result<Option<OperationLog>> {
        let mut statement = Statement::new(OPERATION_LOG);
        statement.equals("l.id", Some(task));
        statement.one(self).await
    }

    /// How many operations of a type are waiting or at work on a vault.
    pub async fn operations_under_way(
        &mut self,
        vault: VaultId,
        operation_type: OperationType,
    ) -> Result<u64> {
        let count = "SELECT COUNT(*) FROM operation_logs l JOIN tasks t ON t.id = l.id";
        let mut statement = Statement::new(count);
        statement
            .equals("l.vault_id", Some(vault))
            .equals("l.operation_type", Some(operation_type))
            .one_of(
                "t.state",
                &[TaskState::Waiting, TaskState::Running, TaskState::Undoing],
            );
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// A page of a project's operation logs, newest first, and how many match in all.
    pub async fn operation_logs(
        &mut self,
        project: ProjectId,
        filter: &OperationLogFilter,
        page: &Page,
    ) -> Result<(Vec<OperationLog>, u64)> {
        let count = "SELECT COUNT(*) FROM operation_logs l JOIN tasks t ON t.id = l.id";
        let count = filtered(count, project, filter).number(self).await?;
        let mut statement = filtered(OPERATION_LOG, project, filter);
        statement.ordered_page(&NEWEST_FIRST, project, page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }
}
