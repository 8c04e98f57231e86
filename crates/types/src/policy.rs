//! What a policy does: its type, and for how long it keeps what it makes.
//! Which values go together is checked by `api`, before anything is stored.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::named::named;
use crate::{ProjectId, Weekday};

named! {
    /// What a policy does.
    pub enum PolicyOperation: "policy operation" {
        /// It makes backups.
        Backup = "backup",
        /// It copies backups to another region.
        Replication = "replication",
    }
}

named! {
    /// Where a policy comes from.
    pub enum PolicyType: "policy type" {
        /// A user of the project made it.
        Custom = "custom_policy",
        /// An organization set it, in the older way.
        OrganizationV1 = "organization_policy_v1",
        /// An organization set it.
        OrganizationV2 = "organization_policy_v2",
        /// An organization set it and no longer covers the project: the vaults
        /// bound to it stay so, further ones cannot be bound.
        OrganizationRemoved = "organization_policy_removed",
    }
}

named! {
    /// How far an organization's policy is in the projects of its scope.
    pub enum DeploymentStatus: "deployment status" {
        /// It is being brought to the projects.
        Syncing = "syncing",
        /// A change of it is.
        Updating = "updating",
        /// It is being taken away.
        Deleting = "deleting",
        /// The projects have it.
        Available = "available",
        /// A project could not be given it.
        Error = "error",
    }
}

named! {
    /// How the days of a month are chosen.
    pub enum RetentionType: "retention type" {
        /// By days of certain weeks.
        Weekly = "WEEKLY",
        /// By their numbers.
        Monthly = "MONTHLY",
    }
}

named! {
    /// A week of a month.
    pub enum WeekOfMonth: "week of a month" {
        /// The first.
        First = "FIRST",
        /// The second.
        Second = "SECOND",
        /// The third.
        Third = "THIRD",
        /// The fourth.
        Fourth = "FOURTH",
        /// The last.
        Last = "LAST",
    }
}

named! {
    /// A month.
    pub enum Month: "month" {
        /// January.
        January = "JANUARY",
        /// February.
        February = "FEBRUARY",
        /// March.
        March = "MARCH",
        /// April.
        April = "APRIL",
        /// May.
        May = "MAY",
        /// June.
        June = "JUNE",
        /// July.
        July = "JULY",
        /// August.
        August = "AUGUST",
        /// September.
        September = "SEPTEMBER",
        /// October.
        October = "OCTOBER",
        /// November.
        November = "NOVEMBER",
        /// December.
        December = "DECEMBER",
    }
}

/// What a policy does with what it makes. What is unset is left out, so that
/// clients read back what they wrote; `-1`, `0` and unset are all no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationDefinition {
    /// Keep at most so many backups of a resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backups: Option<i32>,
    /// Keep each backup for so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_duration_days: Option<i32>,
    /// Keep the newest backup of so many days, whatever `max_backups` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_backups: Option<i32>,
    /// The same of so many weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub week_backups: Option<i32>,
    /// The same of so many months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month_backups: Option<i32>,
    /// The same of so many years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year_backups: Option<i32>,
    /// The zone in which days begin, such as `UTC+08:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// After so many incremental backups a full one; `-1` for none but the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_backup_interval: Option<i32>,
    /// Where replicas go: the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_project_id: Option<ProjectId>,
    /// Where replicas go: the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_region: Option<String>,
    /// How fast replicas may go to another region, in Mbit/s; as fast as its line, if unset. An extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mbit: Option<i32>,
    /// A faster line for replicas; there is one line here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_acceleration: Option<bool>,
    /// Keep the backups of certain days for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_retention_rules: Option<AdvancedRetention>,
}

impl OperationDefinition {
    /// Whether backups of certain days, weeks, months or years are kept by their number.
    pub fn keeps_long_term(&self) -> bool {
        [
            self.day_backups,
            self.week_backups,
            self.month_backups,
            self.year_backups,
        ]
        .into_iter()
        .any(is_limit)
    }

    /// The number of backups to keep, if there is one.
    pub fn count_limit(&self) -> Option<u32> {
        self.max_backups
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0)
    }

    /// The days to keep backups for, if there is such a limit.
    pub fn days_limit(&self) -> Option<u32> {
        self.retention_duration_days
            .and_then(|days| u32::try_from(days).ok())
            .filter(|days| *days > 0)
    }
}

fn is_limit(value: Option<i32>) -> bool {
    value.is_some_and(|value| value > 0)
}

/// Which backups are kept for longer, by the day they were made on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdvancedRetention {
    /// Those of certain days of each week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly_retention_rules: Option<RetentionRule>,
    /// Those of certain days of each month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_retention_rules: Option<RetentionRule>,
    /// Those of certain days of certain months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly_retention_rules: Option<RetentionRule>,
}

/// Which days, and how long. A weekly rule has days of the week only, a yearly
/// one months besides what a monthly one has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionRule {
    /// How the days of a month are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_type: Option<RetentionType>,
    /// The days of the week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_of_week: Option<Vec<Weekday>>,
    /// The weeks of the month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_weeks: Option<Vec<WeekOfMonth>>,
    /// The days of the month, -1 for its last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_of_month: Option<Vec<i32>>,
    /// The months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_months: Option<Vec<Month>>,
    /// For how many weeks, months or years; -1 switches the rule off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_duration_periods: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_above_zero() {
        for (value, limit) in [
            (None, None),
            (Some(-1), None),
            (Some(0), None),
            (Some(7), Some(7)),
        ] {
            let definition = OperationDefinition {
                max_backups: value,
                retention_duration_days: value,
                week_backups: value,
                ..OperationDefinition::default()
            };
            assert_eq!(definition.count_limit(), limit);
            assert_eq!(definition.days_limit(), limit);
            assert_eq!(definition.keeps_long_term(), limit.is_some());
        }
    }

    #[test]
    fn what_is_unset_is_left_out() {
        let text = r#"{"max_backups":-1,"day_backups":0}"#;
        let read: OperationDefinition = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let null = serde_json::from_str::<OperationDefinition>(r#"{"timezone":null}"#).unwrap();
        assert_eq!(null, OperationDefinition::default());
    }
}
