//! Policies on the wire, and the vaults that follow them.

use cairn_types::{
    AdvancedRetention, OperationDefinition, PolicyId, PolicyOperation, PolicyType, RetentionRule,
    RetentionType, VaultId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::query;
use crate::trigger::{NewTrigger, Trigger};
use crate::validate::{self, Invalid, Validate, require};

/// The largest number of backups, and of days, that a policy can keep.
const MAX_KEPT: i32 = 99_999;
/// The limits of a replication policy's bandwidth.
const BANDWIDTH_MBIT: (i32, i32) = (1, 1_000_000);
/// The largest number of days, weeks, months or years of a long-term rule.
const MAX_LONG_TERM: i32 = 100;
/// For how many weeks, months and years an advanced rule can keep backups.
const MAX_PERIODS: (i32, i32, i32) = (5200, 1200, 100);
/// The longest name of a region.
const MAX_REGION_CHARS: usize = 255;
/// The most policies that one request can bind.
const MAX_ASSOCIATED: usize = 10;
/// The longest word for what a policy does.
const MAX_WORD_CHARS: usize = 64;

query! {
    /// Which policies are listed.
    ///
    /// CBR: `ListPolicies`.
    pub struct ListPoliciesQuery {
        one {
            /// Page size.
            limit: u32,
            /// Policies left out first.
            offset: u32,
            /// Go on behind this policy.
            marker: PolicyId,
            /// By what they do.
            operation_type: PolicyOperation,
            /// Those that this vault follows.
            vault_id: VaultId,
        }
        many {}
    }
}

impl ListPoliciesQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<PolicyId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListPoliciesQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)
    }
}

/// The body of `CreatePolicy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatePolicyRequest {
    /// The policy that is wished for.
    pub policy: NewPolicy,
}

/// A policy that is wished for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewPolicy {
    /// Its name.
    pub name: String,
    /// What it does: `backup` or `replication`. Any other word has an error code of its own.
    pub operation_type: String,
    /// Whether it runs; `true` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it does with what it makes.
    pub operation_definition: OperationDefinition,
    /// When it runs.
    pub trigger: NewTrigger,
}

impl Validate for CreatePolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        self.policy.validate()
    }
}

impl NewPolicy {
    /// Checks the policy of a body.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        validate::name("policy.name", &self.name)?;
        validate::text(
            "policy.operation_type",
            &self.operation_type,
            MAX_WORD_CHARS,
        )?;
        self.trigger.validate_at("policy.trigger")?;
        let key = "policy.operation_definition";
        check_definition(key, &self.operation_definition)?;
        match self.operation_type.parse() {
            Ok(operation) => check_destination(key, operation, &self.operation_definition),
            Err(_) => Ok(()),
        }
    }
}

/// Checks what a policy does with what it makes: each value, and which go together.
pub(crate) fn check_definition(key: &str, of: &OperationDefinition) -> Result<(), Invalid> {
    for (name, value, (low, high)) in [
        ("max_backups", of.max_backups, (-1, MAX_KEPT)),
        (
            "retention_duration_days",
            of.retention_duration_days,
            (-1, MAX_KEPT),
        ),
        ("bandwidth_mbit", of.bandwidth_mbit, BANDWIDTH_MBIT),
        ("day_backups", of.day_backups, (0, MAX_LONG_TERM)),
        ("week_backups", of.week_backups, (0, MAX_LONG_TERM)),
        ("month_backups", of.month_backups, (0, MAX_LONG_TERM)),
        ("year_backups", of.year_backups, (0, MAX_LONG_TERM)),
        (
            "full_backup_interval",
            of.full_backup_interval,
            (-1, MAX_LONG_TERM),
        ),
    ] {
        if let Some(value) = value {
            validate::range(&format!("{key}.{name}"), value, (low, high))?;
        }
    }
    validate::optional(&of.timezone, |zone| {
        let key = format!("{key}.timezone");
        require(is_zone(zone), &key, "It is written as UTC+08:00.")
    })?;
    validate::optional(&of.destination_region, |region| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let key = format!("{key}.destination_region");
        validate::text(&key, region, MAX_REGION_CHARS)?;
        require(region.chars().all(plain), &key, "No region is called so.")
    })?;
    let days = of.days_limit().is_some();
    require(
        !(days && of.count_limit().is_some()),
        &format!("{key}.retention_duration_days"),
        "It does not go together with max_backups.",
    )?;
    if of.keeps_long_term() {
        let key_of = |name: &str| format!("{key}.{name}");
        require(
            !days,
            &key_of("retention_duration_days"),
            "It does not go together with day, week, month and year_backups.",
        )?;
        require(
            of.timezone.is_some(),
            &key_of("timezone"),
            "Day, week, month and year_backups need it.",
        )?;
    }
    match &of.advanced_retention_rules {
        Some(rules) => check_advanced(&format!("{key}.advanced_retention_rules"), rules),
        None => Ok(()),
    }
}

/// A replication policy says where replicas go.
pub(crate) fn check_destination(
    key: &str,
    operation: PolicyOperation,
    of: &OperationDefinition,
) -> Result<(), Invalid> {
    if operation == PolicyOperation::Backup {
        return Ok(());
    }
    let region = of.destination_region.as_deref().unwrap_or("");
    for (name, said) in [
        ("destination_region", !region.is_empty()),
        (
            "destination_project_id",
            of.destination_project_id.is_some(),
        ),
    ] {
        let key = format!("{key}.{name}");
        require(said, &key, "A replication policy needs it.")?;
    }
    Ok(())
}

/// A zone as the contract writes it: `UTC`, a sign, two digits, a colon, two digits.
fn is_zone(zone: &str) -> bool {
    let Some(offset) = zone.strip_prefix("UTC").filter(|rest| rest.is_ascii()) else {
        return false;
    };
    let number = |range: std::ops::Range<usize>| {
        let digits = offset.get(range)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let signed = offset.starts_with(['+', '-']) && offset.get(3..4) == Some(":");
    let (hours, minutes) = (number(1..3), number(4..6));
    signed
        && offset.len() == 6
        && hours.is_some_and(|hours| hours <= 14)
        && minutes.is_some_and(|minutes| minutes <= 59)
}

/// The unit of an advanced rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Week,
    Month,
    Year,
}

fn check_advanced(key: &str, rules: &AdvancedRetention) -> Result<(), Invalid> {
    for (name, rule, unit) in [
        ("weekly", &rules.weekly_retention_rules, Unit::Week),
        ("monthly", &rules.monthly_retention_rules, Unit::Month),
        ("yearly", &rules.yearly_retention_rules, Unit::Year),
    ] {
        if let Some(rule) = rule {
            check_rule(&format!("{key}.{name}_retention_rules"), rule, unit)?;
        }
    }
    Ok(())
}

fn check_rule(key: &str, rule: &RetentionRule, unit: Unit) -> Result<(), Invalid> {
    let at = |name: &str| format!("{key}.{name}");
    unique(&at("days_of_week"), rule.days_of_week.as_deref())?;
    unique(&at("retention_weeks"), rule.retention_weeks.as_deref())?;
    unique(&at("days_of_month"), rule.days_of_month.as_deref())?;
    unique(&at("retention_months"), rule.retention_months.as_deref())?;
    let days = rule.days_of_month.iter().flatten();
    for day in days {
        let real = *day == -1 || (1..=28).contains(day);
        require(real, &at("days_of_month"), "It takes 1 to 28, and -1.")?;
    }
    let max = match unit {
        Unit::Week => MAX_PERIODS.0,
        Unit::Month => MAX_PERIODS.1,
        Unit::Year => MAX_PERIODS.2,
    };
    let periods = rule.retention_duration_periods.unwrap_or(-1);
    require(
        periods == -1 || (1..=max).contains(&periods),
        &at("retention_duration_periods"),
        format_args!("It takes 1 to {max}, and -1."),
    )?;
    if periods == -1 {
        return Ok(());
    }
    // A rule that is switched on says which days it means, in one way only.
    let (by_week, by_number) = match (unit, rule.retention_type) {
        (Unit::Week, _) => (false, false),
        (_, Some(RetentionType::Weekly)) => (true, false),
        (_, Some(RetentionType::Monthly)) => (false, true),
        (_, None) => return Err(Invalid::rule(at("retention_type"), "It is missing.")),
    };
    let has = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let week_days = has(rule.days_of_week.as_ref().map(Vec::len));
    let weeks = has(rule.retention_weeks.as_ref().map(Vec::len));
    let month_days = has(rule.days_of_month.as_ref().map(Vec::len));
    let months = has(rule.retention_months.as_ref().map(Vec::len));
    for (name, said, needed) in [
        ("days_of_week", week_days, by_week || unit == Unit::Week),
        ("retention_weeks", weeks, by_week),
        ("days_of_month", month_days, by_number),
        ("retention_months", months, unit == Unit::Year),
    ] {
        let text = match needed {
            true => "This rule needs it.",
            false => "This rule does not take it.",
        };
        require(said == needed, &at(name), text)?;
    }
    Ok(())
}

fn unique<T: PartialEq>(key: &str, items: Option<&[T]>) -> Result<(), Invalid> {
    let items = items.unwrap_or_default();
    // No list is longer than the month: what is longer repeats.
    validate::count(key, items.len(), (0, 29))?;
    let twice = (1..items.len()).any(|at| items[..at].contains(&items[at]));
    require(!twice, key, "It has something twice.")
}

/// The body of `UpdatePolicy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdatePolicyRequest {
    /// What changes.
    pub policy: PolicyChange,
}

/// What changes about a policy; what is unset stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PolicyChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it does with what it makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_definition: Option<OperationDefinition>,
    /// When it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<NewTrigger>,
}

impl Validate for UpdatePolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let policy = &self.policy;
        validate::optional(&policy.name, |name| validate::name("policy.name", name))?;
        if let Some(definition) = &policy.operation_definition {
            check_definition("policy.operation_definition", definition)?;
        }
        match &policy.trigger {
            Some(trigger) => trigger.validate_change_at("policy.trigger"),
            None => Ok(()),
        }
    }
}

/// What `CreatePolicy`, `ShowPolicy` and `UpdatePolicy` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyResponse {
    /// The policy.
    pub policy: Policy,
}

/// What `ListPolicies` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListPoliciesResponse {
    /// The policies of the page.
    pub policies: Vec<Policy>,
    /// How many match in all.
    pub count: u64,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub enabled: bool,
    /// What it does.
    pub operation_type: PolicyOperation,
    /// Where it comes from.
    pub policy_type: PolicyType,
    /// What it does with what it makes.
    pub operation_definition: OperationDefinition,
    /// When it runs.
    pub trigger: Trigger,
    /// The vaults that follow it.
    pub associated_vaults: Vec<AssociatedVault>,
}

/// A vault that follows a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssociatedVault {
    /// The vault.
    pub vault_id: VaultId,
    /// Where its replicas go.
    pub destination_vault_id: Option<VaultId>,
}

/// The body of `AssociateVaultPolicy`: one policy, or several.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct AssociatePolicyRequest {
    /// The policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
    /// The policies, of different types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_policy_ids: Option<Vec<PolicyId>>,
    /// For a replication policy: the vault that takes the replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_vault_id: Option<VaultId>,
}

impl Validate for AssociatePolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let one = self.policy_id.is_some() != self.add_policy_ids.is_some();
        require(one, "policy_id", "It takes this or add_policy_ids.")?;
        match &self.add_policy_ids {
            Some(ids) => validate::count("add_policy_ids", ids.len(), (1, MAX_ASSOCIATED)),
            None => Ok(()),
        }
    }
}

/// The body of `DisassociateVaultPolicy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DissociatePolicyRequest {
    /// The policy.
    pub policy_id: PolicyId,
}

impl Validate for DissociatePolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// What `AssociateVaultPolicy` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssociatePolicyResponse {
    /// What is bound; the first, if several were.
    pub associate_policy: VaultPolicy,
}

/// What `DisassociateVaultPolicy` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DissociatePolicyResponse {
    /// What was bound.
    pub dissociate_policy: VaultPolicy,
}

/// A vault and a policy that it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultPolicy {
    /// The vault.
    pub vault_id: VaultId,
    /// The policy.
    pub policy_id: PolicyId,
    /// Where replicas go.
    pub destination_vault_id: Option<VaultId>,
}

#[cfg(test)]
mod tests;
