//! Policies of organizations on the wire.

use cairn_types::{
    DeploymentStatus, DomainId, OperationDefinition, OrganizationPolicyId, PolicyId,
    PolicyOperation, ProjectId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::policy::{check_definition, check_destination};
use crate::query::query;
use crate::trigger::NewTrigger;
use crate::validate::{self, Invalid, Validate, require};

/// The longest text of a scope, in characters.
const MAX_SCOPE_CHARS: usize = 255;

query! {
    /// Which policies of organizations are listed.
    ///
    /// CBR: `ListOrganizationPolicies`.
    pub struct ListOrganizationPoliciesQuery {
        one {
            /// Page size.
            limit: u32,
            /// Policies left out first.
            offset: u32,
            /// Go on behind this policy.
            marker: OrganizationPolicyId,
            /// By what they do; it must be given.
            operation_type: PolicyOperation,
        }
        many {}
    }
}

impl ListOrganizationPoliciesQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<OrganizationPolicyId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListOrganizationPoliciesQuery {
    fn validate(&self) -> Result<(), Invalid> {
        let said = self.operation_type.is_some();
        require(said, "operation_type", "It is missing.")?;
        page::limit(self.limit, MAX_LIMIT)
    }
}

query! {
    /// Which projects' policies are listed.
    ///
    /// CBR: `ListOrganizationPolicyDetail`.
    pub struct ListOrganizationPolicyDetailQuery {
        one {
            /// Page size.
            limit: u32,
            /// Projects left out first.
            offset: u32,
            /// Go on behind this policy.
            marker: PolicyId,
        }
        many {}
    }
}

impl ListOrganizationPolicyDetailQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<PolicyId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListOrganizationPolicyDetailQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)
    }
}

/// The body of `CreateOrganizationPolicy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateOrganizationPolicyRequest {
    /// The policy that is wished for.
    pub policy: NewOrganizationPolicy,
}

/// A policy of an organization that is wished for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewOrganizationPolicy {
    /// Its name.
    pub name: String,
    /// What its policies do.
    pub operation_type: PolicyOperation,
    /// Whether its policies run.
    pub policy_enabled: bool,
    /// What its policies are called.
    pub policy_name: String,
    /// What its policies do with what they make.
    pub policy_operation_definition: OperationDefinition,
    /// When its policies run.
    pub policy_trigger: NewTrigger,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The projects that get a policy: `all` within reach, or ids with commas
    /// between; all if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_scope: Option<String>,
}

impl Validate for CreateOrganizationPolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let policy = &self.policy;
        name(&policy.name)?;
        validate::name("policy.policy_name", &policy.policy_name)?;
        texts(&policy.description, &policy.effective_scope)?;
        let (key, definition) = (
            "policy.policy_operation_definition",
            &policy.policy_operation_definition,
        );
        check_definition(key, definition)?;
        check_destination(key, policy.operation_type, definition)?;
        policy.policy_trigger.validate_at("policy.policy_trigger")
    }
}

fn name(name: &str) -> Result<(), Invalid> {
    let key = "policy.name";
    require(!name.is_empty(), key, "It is empty.")?;
    validate::text(key, name, validate::MAX_NAME_CHARS)
}

fn texts(description: &Option<String>, scope: &Option<String>) -> Result<(), Invalid> {
    validate::optional(description, |text| {
        validate::description("policy.description", text, validate::MAX_DESCRIPTION_CHARS)
    })?;
    validate::optional(scope, |text| {
        validate::text("policy.effective_scope", text, MAX_SCOPE_CHARS)
    })
}

/// The body of `UpdateOrganizationPolicy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateOrganizationPolicyRequest {
    /// What changes.
    pub policy: OrganizationPolicyChange,
}

/// What changes about a policy of an organization; what is unset stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct OrganizationPolicyChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether its policies run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_enabled: Option<bool>,
    /// What its policies are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    /// What its policies do with what they make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_operation_definition: Option<OperationDefinition>,
    /// When its policies run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_trigger: Option<NewTrigger>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The projects that get a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_scope: Option<String>,
}

impl Validate for UpdateOrganizationPolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let policy = &self.policy;
        validate::optional(&policy.name, name)?;
        validate::optional(&policy.policy_name, |name| {
            validate::name("policy.policy_name", name)
        })?;
        texts(&policy.description, &policy.effective_scope)?;
        if let Some(definition) = &policy.policy_operation_definition {
            check_definition("policy.policy_operation_definition", definition)?;
        }
        match &policy.policy_trigger {
            Some(trigger) => trigger.validate_change_at("policy.policy_trigger"),
            None => Ok(()),
        }
    }
}

/// What `CreateOrganizationPolicy`, `ShowOrganizationPolicy` and
/// `UpdateOrganizationPolicy` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrganizationPolicyResponse {
    /// The policy.
    pub policy: OrganizationPolicy,
}

/// What `ListOrganizationPolicies` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListOrganizationPoliciesResponse {
    /// The policies of the page.
    pub policies: Vec<OrganizationPolicy>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Policies left out first.
    pub offset: u32,
}

/// A policy of an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrganizationPolicy {
    /// Its id.
    pub id: OrganizationPolicyId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its domain.
    pub domain_id: DomainId,
    /// Its domain's name.
    pub domain_name: String,
    /// What its policies do.
    pub operation_type: PolicyOperation,
    /// Whether its policies run.
    pub policy_enabled: bool,
    /// What its policies are called.
    pub policy_name: String,
    /// What its policies do with what they make.
    pub policy_operation_definition: OperationDefinition,
    /// When its policies run.
    pub policy_trigger: OrganizationTrigger,
    /// The projects that get a policy.
    pub effective_scope: String,
    /// How far it is in the projects.
    pub status: DeploymentStatus,
}

/// When the policies of an organization run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrganizationTrigger {
    /// The schedule.
    pub properties: OrganizationTriggerProperties,
}

/// The schedule of an organization's policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrganizationTriggerProperties {
    /// Its rules, as they were written.
    pub pattern: Vec<String>,
    /// The zone that hours and days are meant in, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Its rules of RFC 5545, as they were written, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recurrence_rules: Vec<String>,
    /// How late a run may begin, in minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_window_minutes: Option<u32>,
}

/// What `ListOrganizationPolicyDetail` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListOrganizationPolicyDetailResponse {
    /// The projects of the page.
    pub policies: Vec<PolicyDeployment>,
    /// How many there are in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Projects left out first.
    pub offset: u32,
}

/// What a policy of an organization became in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDeployment {
    /// The project's domain.
    pub domain_id: DomainId,
    /// The project.
    pub project_id: ProjectId,
    /// The policy there.
    pub policy_id: PolicyId,
    /// How far it is.
    pub status: DeploymentStatus,
}
