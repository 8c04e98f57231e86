//! What a project's vaults and resources occupy, and what is done to all of its
//! vaults or to all backups of one, on the wire.

use cairn_types::{
    ObjectType, OperationLogId, ProjectId, ResourceId, ResourceType, Timestamp, VaultId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::query;
use crate::validate::{self, Invalid, Validate, require};
use crate::{CloudType, ProtectType, wire_time};

/// The longest name of a region, in characters.
const MAX_REGION_CHARS: usize = 255;

/// The body of `BatchUpdateVault`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BatchUpdateVaultRequest {
    /// What changes about every vault of the project.
    pub vault: VaultBatchChange,
}

/// What changes about every vault of a project; what is unset stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VaultBatchChange {
    /// Notify at the threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smn_notify: Option<bool>,
    /// The share in use at which a notification is sent, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

impl Validate for BatchUpdateVaultRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let share = self.vault.threshold.unwrap_or(1);
        validate::range("vault.threshold", share, (1, 100))
    }
}

/// What `BatchUpdateVault` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchUpdateVaultResponse {
    /// The vaults that were changed.
    pub updated_vaults_id: Vec<VaultId>,
}

/// What `ShowSummary` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SummaryResponse {
    /// The size of all vaults, in GB.
    pub size: u64,
    /// What their backups take, in GB.
    pub used_size: u64,
}

query! {
    /// Which vaults of another region are listed.
    ///
    /// CBR: `ListExternalVault`.
    pub struct ListExternalVaultQuery {
        one {
            /// Page size.
            limit: u32,
            /// Vaults left out first.
            offset: u32,
            /// Go on behind this vault.
            marker: VaultId,
            /// The region.
            region_id: String,
            /// The project there.
            external_project_id: ProjectId,
            /// By where resources run.
            cloud_type: CloudType,
            /// By how they protect.
            protect_type: ProtectType,
            /// By what they protect.
            object_type: ObjectType,
            /// The same, as every SDK spells it.
            objcet_type: ObjectType,
            /// This one alone; nothing else filters then.
            vault_id: VaultId,
        }
        many {}
    }
}

impl ListExternalVaultQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<VaultId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListExternalVaultQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)?;
        require(self.region_id.is_some(), "region_id", "It is missing.")?;
        let project = self.external_project_id.is_some();
        require(project, "external_project_id", "It is missing.")?;
        validate::optional(&self.region_id, |region| {
            validate::text("region_id", region, MAX_REGION_CHARS)
        })
    }
}

query! {
    /// Which resources' usage is shown.
    ///
    /// CBR: `ShowStorageUsage`.
    pub struct StorageUsageQuery {
        one {
            /// Page size.
            limit: u32,
            /// Resources left out first.
            offset: u32,
            /// By resource.
            resource_id: ResourceId,
            /// By the resource's type.
            resource_type: ResourceType,
        }
        many {}
    }
}

impl StorageUsageQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<ResourceId> {
        Page::new(self.limit, self.offset, None, MAX_LIMIT)
    }
}

impl Validate for StorageUsageQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)
    }
}

/// What `ShowStorageUsage` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorageUsageResponse {
    /// How many resources match in all.
    pub resource_count: u64,
    /// The resources of the page.
    pub storage_usage: Vec<StorageUsage>,
}

/// What the backups of a resource take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorageUsage {
    /// The resource.
    pub resource_id: ResourceId,
    /// Its name when it was last backed up.
    pub resource_name: String,
    /// Its type.
    pub resource_type: ResourceType,
    /// How many backups it has.
    pub backup_count: u64,
    /// What they take, in MB.
    pub backup_size: u64,
    /// What those in vaults of several zones take, in MB.
    pub backup_size_multiaz: u64,
}

/// The body of `UpdateExpirationTime`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateExpirationTimeRequest {
    /// The last day of the backups, as `2025-12-31`.
    pub expect_expiration_date: String,
    /// Where that day is meant, as `UTC+08:00`.
    pub time_zone: String,
}

impl UpdateExpirationTimeRequest {
    /// The last second of the day.
    ///
    /// Errors: what is no day, or no time zone.
    pub fn until(&self) -> Result<Timestamp, Invalid> {
        let day = wire_time::end_of_day(&self.expect_expiration_date);
        let day = day.map_err(|_| Invalid::rule("expect_expiration_date", "It is no day."))?;
        let offset = wire_time::utc_offset_seconds(&self.time_zone);
        let offset = offset
            .ok_or_else(|| Invalid::rule("time_zone", "It takes an offset such as UTC+08:00."))?;
        Ok(day.plus_seconds(-offset))
    }
}

impl Validate for UpdateExpirationTimeRequest {
    fn validate(&self) -> Result<(), Invalid> {
        self.until().map(drop)
    }
}

/// What `UpdateExpirationTime` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateExpirationTimeResponse {
    /// How many backups end on that day now.
    pub affected_backups_count: u64,
    /// The day.
    pub new_expiration_day: String,
    /// The record of it.
    pub operation_log_id: OperationLogId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_it_is_meant() {
        let until = |day: &str, zone: &str| {
            let request = UpdateExpirationTimeRequest {
                expect_expiration_date: day.to_owned(),
                time_zone: zone.to_owned(),
            };
            request.until().map(|until| until.to_string())
        };
        let utc = "2027-01-01T23:59:59.000000";
        assert_eq!(until("2027-01-01", "UTC").unwrap(), utc);
        assert_eq!(until("2027-01-01", "UTC+00:00").unwrap(), utc);
        let east = "2027-01-01T15:59:59.000000";
        assert_eq!(until("2027-01-01", "UTC+08:00").unwrap(), east);
        let west = "2027-01-02T03:29:59.000000";
        assert_eq!(until("2027-01-01", "UTC-03:30").unwrap(), west);
        for (day, zone) in [
            ("2027-02-29", "UTC"),
            ("2027-1-1", "UTC"),
            ("+027-01-01", "UTC"),
            ("9999-12-31", "UTC"),
            ("01.01.2027", "UTC"),
            ("2027-01-01", "UTC+8"),
            ("2027-01-01", "UTC+25:00"),
            ("2027-01-01", "UTC+08:60"),
            ("2027-01-01", "Europe/Berlin"),
            ("2027-01-01", "UTC+é8:00"),
        ] {
            assert!(until(day, zone).is_err(), "{day} {zone}");
        }
    }

    #[test]
    fn an_external_list_needs_a_region_and_a_project() {
        let project = ProjectId::random();
        let good = format!("region_id=r&external_project_id={project}&objcet_type=server");
        assert!(ListExternalVaultQuery::parse(&good).is_ok());
        assert!(ListExternalVaultQuery::parse("region_id=r").is_err());
        let without = format!("external_project_id={project}");
        assert!(ListExternalVaultQuery::parse(&without).is_err());
    }
}
