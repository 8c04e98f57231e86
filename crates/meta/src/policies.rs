//! Policies, and the vaults that follow them.

use cairn_types::{
    OperationDefinition, OrganizationPolicyId, PolicyId, PolicyOperation, PolicyType, ProjectId,
    Timestamp, VaultId,
};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::query::{Columns, FromRow, Page, Statement, insert, json, optional, text};
use crate::{Result, Tx};

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// The project that owns it.
    pub project: ProjectId,
    /// Its name; several policies may share one.
    pub name: String,
    /// What it does.
    pub operation: PolicyOperation,
    /// Where it comes from.
    pub policy_type: PolicyType,
    /// Whether it runs.
    pub enabled: bool,
    /// What it does with what it makes.
    pub definition: OperationDefinition,
    /// When it runs.
    pub schedule: PolicySchedule,
    /// The organization's policy that it came of.
    pub organization_policy: Option<OrganizationPolicyId>,
    /// When it was made: days are counted from here.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The slot that it runs for next.
    pub next_slot: Option<Timestamp>,
    /// When it runs next, if ever: in the window that begins with the slot.
    pub next_run_at: Option<Timestamp>,
}

/// When a policy runs, as its client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySchedule {
    /// The id that clients are shown.
    pub id: Uuid,
    /// The rules, unchanged.
    pub pattern: Vec<String>,
    /// The zone that its hours are meant in; UTC if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Rules of iCalendar beside the others, unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recurrence_rules: Vec<String>,
    /// A run may begin so many minutes late.
    pub start_window_minutes: Option<u32>,
}

/// A vault that follows a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBinding {
    /// The vault.
    pub vault: VaultId,
    /// The policy.
    pub policy: PolicyId,
    /// What the policy does; a vault has one of each kind.
    pub operation: PolicyOperation,
    /// Where replicas go.
    pub destination: Option<VaultId>,
    /// Since when.
    pub bound_at: Timestamp,
}

/// Which policies of a project a list shows.
#[derive(Debug, Clone, Default)]
pub struct PolicyFilter {
    /// Only those that do this.
    pub operation: Option<PolicyOperation>,
    /// Only those that this vault follows.
    pub vault: Option<VaultId>,
}

impl FromRow for Policy {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            name: row.text("name")?,
            operation: row.parsed("operation_type")?,
            policy_type: row.parsed("policy_type")?,
            enabled: row.flag("enabled")?,
            definition: row.json("definition")?,
            schedule: row.json("schedule")?,
            organization_policy: row.optional_parsed("organization_policy_id")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
            next_slot: row.optional_time("next_slot")?,
            next_run_at: row.optional_time("next_run_at")?,
        })
    }
}

impl FromRow for PolicyBinding {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            vault: row.parsed("vault_id")?,
            policy: row.parsed("policy_id")?,
            operation: row.parsed("operation_type")?,
            destination: row.optional_parsed("destination_vault_id")?,
            bound_at: row.time("bound_at")?,
        })
    }
}

fn filtered(select: &str, project: ProjectId, filter: &PolicyFilter) -> Statement {
    let mut statement = Statement::new(select);
    statement
        .equals("project_id", Some(project))
        .equals("operation_type", filter.operation);
    if let Some(vault) = filter.vault {
        statement
            .condition("id IN (SELECT policy_id FROM vault_policies WHERE vault_id = ")
            .bind(text(vault))
            .push(")");
    }
    statement
}

impl Tx {
    /// Adds a policy.
    pub async fn insert_policy(&mut self, policy: &Policy) -> Result<()> {
        let columns = [
            ("id", text(policy.id)),
            ("project_id", text(policy.project)),
            ("name", text(&policy.name)),
            ("operation_type", text(policy.operation)),
            ("policy_type", text(policy.policy_type)),
            ("enabled", policy.enabled.into()),
            ("definition", json(&policy.definition)),
            ("schedule", json(&policy.schedule)),
            (
                "organization_policy_id",
                optional(policy.organization_policy),
            ),
            ("created_at", policy.created_at.into()),
            ("updated_at", policy.updated_at.into()),
            ("next_slot", policy.next_slot.into()),
            ("next_run_at", policy.next_run_at.into()),
        ];
        insert(self, "policies", columns).await
    }

    /// Writes what of a policy can change.
    pub async fn update_policy(&mut self, policy: &Policy) -> Result<()> {
        let mut statement = Statement::new("UPDATE policies SET name = ");
        statement
            .bind(text(&policy.name))
            .push(", policy_type = ")
            .bind(text(policy.policy_type));
        statement.push(", enabled = ").bind(policy.enabled);
        statement
            .push(", definition = ")
            .bind(json(&policy.definition));
        statement.push(", schedule = ").bind(json(&policy.schedule));
        statement.push(", updated_at = ").bind(policy.updated_at);
        statement.push(", next_slot = ").bind(policy.next_slot);
        statement.push(", next_run_at = ").bind(policy.next_run_at);
        statement.equals("id", Some(policy.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes a policy; the vaults that follow it no longer do.
    pub async fn remove_policy(&mut self, policy: PolicyId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM vault_policies");
        statement.equals("policy_id", Some(policy));
        statement.run(self).await?;
        let mut statement = Statement::new("DELETE FROM policies");
        statement.equals("id", Some(policy));
        statement.run(self).await?;
        Ok(())
    }

    /// A project's policy.
    pub async fn policy(&mut self, project: ProjectId, policy: PolicyId) -> Result<Option<Policy>> {
        let mut statement = Statement::new("SELECT * FROM policies");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(policy));
        statement.one(self).await
    }

    /// As [`Tx::policy`], for a transaction that goes on to change it or to bind it.
    pub async fn lock_policy(
        &mut self,
        project: ProjectId,
        policy: PolicyId,
    ) -> Result<Option<Policy>> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT * FROM policies");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(policy))
            .push(" ");
        statement.push(lock);
        statement.one(self).await
    }

    /// A page of a project's policies, newest first, and how many match in all.
    pub async fn policies(
        &mut self,
        project: ProjectId,
        filter: &PolicyFilter,
        page: &Page,
    ) -> Result<(Vec<Policy>, u64)> {
        let count = filtered("SELECT COUNT(*) FROM policies", project, filter)
            .number(self)
            .await?;
        let mut statement = filtered("SELECT * FROM policies", project, filter);
        if let Some(marker) = &page.marker {
            statement
                .condition("(created_at, id) < (SELECT created_at, id FROM policies WHERE id = ");
            statement.bind(marker.as_str()).push(")");
        }
        statement
            .push(" ORDER BY created_at DESC, id DESC")
            .page(page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }

    /// How many policies of its own a project has of one kind. Until the end
    /// of the transaction nobody else can count them to add one.
    pub async fn count_own_policies(
        &mut self,
        project: ProjectId,
        operation: PolicyOperation,
    ) -> Result<u64> {
        self.hold_project(project).await?;
        let mut statement = Statement::new("SELECT COUNT(*) FROM policies");
        statement
            .equals("project_id", Some(project))
            .equals("operation_type", Some(operation))
            .equals("policy_type", Some(PolicyType::Custom));
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// Has others who hold the same project wait until the end of the transaction.
    pub(crate) async fn hold_project(&mut self, project: ProjectId) -> Result<()> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT 1 FROM projects");
        statement.equals("id", Some(project)).push(" ").push(lock);
        statement.run(self).await?;
        Ok(())
    }

    /// The policies that an organization's policy became, oldest first.
    pub async fn policies_of_organization(
        &mut self,
        organization_policy: OrganizationPolicyId,
    ) -> Result<Vec<Policy>> {
        let mut statement = Statement::new("SELECT * FROM policies");
        statement.equals("organization_policy_id", Some(organization_policy));
        statement.push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// Has a vault follow a policy, instead of the one of its kind that it followed.
    pub async fn bind_policy(&mut self, binding: &PolicyBinding) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM vault_policies");
        statement
            .equals("vault_id", Some(binding.vault))
            .equals("operation_type", Some(binding.operation));
        statement.run(self).await?;
        let columns = [
            ("vault_id", text(binding.vault)),
            ("operation_type", text(binding.operation)),
            ("policy_id", text(binding.policy)),
            ("destination_vault_id", optional(binding.destination)),
            ("bound_at", binding.bound_at.into()),
        ];
        insert(self, "vault_policies", columns).await
    }

    /// Has a vault follow a policy no longer; what was bound, if it was.
    pub async fn unbind_policy(
        &mut self,
        vault: VaultId,
        policy: PolicyId,
    ) -> Result<Option<PolicyBinding>> {
        let mut statement = Statement::new("DELETE FROM vault_policies");
        statement
            .equals("vault_id", Some(vault))
            .equals("policy_id", Some(policy))
            .push(" RETURNING *");
        statement.one(self).await
    }

    /// The vaults that follow these policies, each policy's in the order they were bound.
    pub async fn bindings_of(&mut self, policies: &[PolicyId]) -> Result<Vec<PolicyBinding>> {
        if policies.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Statement::new("SELECT * FROM vault_policies");
        statement
            .one_of("policy_id", policies)
            .push(" ORDER BY bound_at, vault_id");
        statement.all(self).await
    }

    /// Up to `limit` policies that run now or should have, the longest due first.
    /// Until the end of the transaction nobody else is given the same.
    pub async fn due_policies(&mut self, now: Timestamp, limit: u32) -> Result<Vec<Policy>> {
        let lock = self.claim_lock();
        let mut statement = Statement::new("SELECT * FROM policies");
        statement
            .condition("enabled = 1")
            .condition("next_run_at <= ")
            .bind(now)
            .push(" ORDER BY next_run_at, id LIMIT ")
            .bind(i64::from(limit))
            .push(" ")
            .push(lock);
        statement.all(self).await
    }

    /// When the next policy runs, if one ever does.
    pub async fn next_policy_run(&mut self) -> Result<Option<Timestamp>> {
        let mut statement = Statement::new("SELECT * FROM policies");
        statement
            .condition("enabled = 1")
            .condition("next_run_at IS NOT NULL")
            .push(" ORDER BY next_run_at LIMIT 1");
        let next: Option<Policy> = statement.one(self).await?;
        Ok(next.and_then(|policy| policy.next_run_at))
    }

    /// The policy of a kind that a vault follows.
    pub async fn policy_of_vault(
        &mut self,
        vault: VaultId,
        operation: PolicyOperation,
    ) -> Result<Option<Policy>> {
        let mut statement = Statement::new("SELECT p.* FROM policies p");
        statement
            .push(" JOIN vault_policies b ON b.policy_id = p.id")
            .equals("b.vault_id", Some(vault))
            .equals("b.operation_type", Some(operation));
        statement.one(self).await
    }
}
