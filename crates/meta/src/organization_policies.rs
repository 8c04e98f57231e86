//! What organizations want in the projects of their scope.

use cairn_types::{
    DomainId, OperationDefinition, OrganizationPolicyId, PolicyOperation, ProjectId, Timestamp,
};
use sqlx::any::AnyRow;

use crate::policies::PolicySchedule;
use crate::query::{Columns, FromRow, Page, Statement, insert, json, text};
use crate::{Result, Tx};

/// A policy of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationPolicy {
    /// Its id.
    pub id: OrganizationPolicyId,
    /// The project that it was made in; nobody else sees it.
    pub project: ProjectId,
    /// That project's domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// What its policies do.
    pub operation: PolicyOperation,
    /// What its policies are called.
    pub policy_name: String,
    /// Whether its policies run.
    pub policy_enabled: bool,
    /// What its policies do with what they make.
    pub definition: OperationDefinition,
    /// When its policies run.
    pub schedule: PolicySchedule,
    /// Which projects get a policy, as the client wrote it.
    pub effective_scope: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl FromRow for OrganizationPolicy {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            project: row.parsed("project_id")?,
            domain: row.parsed("domain_id")?,
            name: row.text("name")?,
            description: row.text("description")?,
            operation: row.parsed("operation_type")?,
            policy_name: row.text("policy_name")?,
            policy_enabled: row.flag("policy_enabled")?,
            definition: row.json("definition")?,
            schedule: row.json("schedule")?,
            effective_scope: row.text("effective_scope")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        })
    }
}

impl Tx {
    /// Adds a policy of an organization.
    pub async fn insert_organization_policy(&mut self, policy: &OrganizationPolicy) -> Result<()> {
        let columns = [
            ("id", text(policy.id)),
            ("project_id", text(policy.project)),
            ("domain_id", text(policy.domain)),
            ("name", text(&policy.name)),
            ("description", text(&policy.description)),
            ("operation_type", text(policy.operation)),
            ("policy_name", text(&policy.policy_name)),
            ("policy_enabled", policy.policy_enabled.into()),
            ("definition", json(&policy.definition)),
            ("schedule", json(&policy.schedule)),
            ("effective_scope", text(&policy.effective_scope)),
            ("created_at", policy.created_at.into()),
            ("updated_at", policy.updated_at.into()),
        ];
        insert(self, "organization_policies", columns).await
    }

    /// Writes what of an organization's policy can change.
    pub async fn update_organization_policy(&mut self, policy: &OrganizationPolicy) -> Result<()> {
        let mut statement = Statement::new("UPDATE organization_policies SET name = ");
        statement
            .bind(text(&policy.name))
            .push(", description = ")
            .bind(text(&policy.description));
        statement
            .push(", policy_name = ")
            .bind(text(&policy.policy_name));
        statement
            .push(", policy_enabled = ")
            .bind(policy.policy_enabled);
        statement
            .push(", definition = ")
            .bind(json(&policy.definition));
        statement.push(", schedule = ").bind(json(&policy.schedule));
        statement
            .push(", effective_scope = ")
            .bind(text(&policy.effective_scope));
        statement.push(", updated_at = ").bind(policy.updated_at);
        statement.equals("id", Some(policy.id));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes an organization's policy, not what it became.
    pub async fn remove_organization_policy(&mut self, policy: OrganizationPolicyId) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM organization_policies");
        statement.equals("id", Some(policy));
        statement.run(self).await?;
        Ok(())
    }

    /// An organization's policy that was made in this project; in a writing
    /// transaction nobody else can change it until the end.
    pub async fn lock_organization_policy(
        &mut self,
        project: ProjectId,
        policy: OrganizationPolicyId,
    ) -> Result<Option<OrganizationPolicy>> {
        let lock = self.row_lock();
        let mut statement = Statement::new("SELECT * FROM organization_policies");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(policy))
            .push(" ")
            .push(lock);
        statement.one(self).await
    }

    /// As [`Tx::lock_organization_policy`], to read it only.
    pub async fn organization_policy(
        &mut self,
        project: ProjectId,
        policy: OrganizationPolicyId,
    ) -> Result<Option<OrganizationPolicy>> {
        let mut statement = Statement::new("SELECT * FROM organization_policies");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(policy));
        statement.one(self).await
    }

    /// How many of one kind were made in a project. Until the end of the
    /// transaction nobody else can count them to add one.
    pub async fn count_organization_policies(
        &mut self,
        project: ProjectId,
        operation: PolicyOperation,
    ) -> Result<u64> {
        self.hold_project(project).await?;
        let mut statement = Statement::new("SELECT COUNT(*) FROM organization_policies");
        statement
            .equals("project_id", Some(project))
            .equals("operation_type", Some(operation));
        Ok(statement.number(self).await?.unsigned_abs())
    }

    /// A page of those made in a project, newest first, and how many there are in all.
    pub async fn organization_policies(
        &mut self,
        project: ProjectId,
        operation: PolicyOperation,
        page: &Page,
    ) -> Result<(Vec<OrganizationPolicy>, u64)> {
        let filtered = |select: &str| {
            let mut statement = Statement::new(select);
            statement
                .equals("project_id", Some(project))
                .equals("operation_type", Some(operation));
            statement
        };
        let count = filtered("SELECT COUNT(*) FROM organization_policies")
            .number(self)
            .await?;
        let mut statement = filtered("SELECT * FROM organization_policies");
        if let Some(marker) = &page.marker {
            statement.condition(
                "(created_at, id) < (SELECT created_at, id FROM organization_policies WHERE id = ",
            );
            statement.bind(marker.as_str()).push(")");
        }
        statement
            .push(" ORDER BY created_at DESC, id DESC")
            .page(page);
        Ok((statement.all(self).await?, count.unsigned_abs()))
    }
}
