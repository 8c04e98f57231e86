//! Vaults on the wire.

use cairn_types::{
    ObjectType, PolicyId, ProjectId, ProtectStatus, ResourceId, ResourceType, Timestamp, UserId,
    VaultId, VaultStatus,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_LIMIT, Page};
use crate::query::{List, query};
use crate::resource::{Resource, ResourceExtraInfo};
use crate::tag::{self, Tag};
use crate::validate::{self, Invalid, Validate, require};
use crate::{ChargingMode, CloudType, ConsistentLevel, PeriodType, ProtectType, wire_time};

query! {
    /// Which vaults are listed.
    ///
    /// CBR: `ListVault`.
    pub struct ListVaultQuery {
        one {
            /// Page size.
            limit: u32,
            /// Vaults left out first.
            offset: u32,
            /// Go on behind this vault.
            marker: VaultId,
            /// By name.
            name: String,
            /// By where resources run.
            cloud_type: CloudType,
            /// By how they protect.
            protect_type: ProtectType,
            /// By what they protect.
            object_type: ObjectType,
            /// By enterprise project; `all_granted_eps` is every one.
            enterprise_project_id: String,
            /// Those with this policy bound.
            policy_id: PolicyId,
            /// By state.
            status: VaultStatus,
            /// Those that hold one of these resources.
            resource_ids: List<ResourceId>,
            /// By availability zone.
            availability_zone: String,
        }
        many {
            /// By id.
            id: VaultId,
        }
    }
}

impl ListVaultQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<VaultId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListVaultQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)?;
        validate::optional(&self.name, |name| {
            require(
                name.chars().all(validate::is_name_char),
                "name",
                "No name has such characters.",
            )
        })
    }
}

/// The body of `CreateVault`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateVaultRequest {
    /// The vault that is wished for.
    pub vault: NewVault,
}

/// A vault that is wished for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewVault {
    /// Its name.
    pub name: String,
    /// Its type, size and payment.
    pub billing: NewBilling,
    /// Resources to bind at once.
    pub resources: Vec<Resource>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Bind matching resources by itself; `false` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_bind: Option<bool>,
    /// Grow by itself when full; `false` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_expand: Option<bool>,
    /// Where its backups lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Put before the names of automatic backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_name_prefix: Option<String>,
    /// A policy to bind at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_policy_id: Option<PolicyId>,
    /// Which resources it binds by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_rules: Option<BindRules>,
    /// May hold more than its size, paid by use; `false` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand_billing: Option<bool>,
    /// Its enterprise project; `"0"` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enterprise_project_id: Option<String>,
    /// Keep automatic backups until they expire; `false` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Notify at the threshold; `true` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smn_notify: Option<bool>,
    /// The service that keeps it locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sys_lock_source_service: Option<String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// The share in use at which a notification is sent, in percent; 80 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

impl NewVault {
    /// A vault with nothing but a name and what must be said of its billing.
    pub fn new(name: impl Into<String>, billing: NewBilling) -> Self {
        Self {
            name: name.into(),
            billing,
            resources: Vec::new(),
            description: None,
            auto_bind: None,
            auto_expand: None,
            availability_zone: None,
            backup_name_prefix: None,
            backup_policy_id: None,
            bind_rules: None,
            demand_billing: None,
            enterprise_project_id: None,
            locked: None,
            smn_notify: None,
            sys_lock_source_service: None,
            tags: None,
            threshold: None,
        }
    }
}

/// The type, size and payment of a vault that is wished for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewBilling {
    /// What a backup of a running server is worth.
    pub consistent_level: ConsistentLevel,
    /// What it protects.
    pub object_type: ObjectType,
    /// How it protects.
    pub protect_type: ProtectType,
    /// Its size, in GB.
    pub size: u64,
    /// How it is paid for; by use if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charging_mode: Option<ChargingMode>,
    /// Where its resources run; in this cloud if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_type: Option<CloudType>,
    /// Where the console returns to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_url: Option<String>,
    /// Pay without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_auto_pay: Option<bool>,
    /// Renew without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_auto_renew: Option<bool>,
    /// Spread over availability zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_multi_az: Option<bool>,
    /// How many periods are paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_num: Option<u32>,
    /// The unit of a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_type: Option<PeriodType>,
}

impl NewBilling {
    /// A vault for backups of this type and size, paid by use.
    pub const fn new(object_type: ObjectType, size_gb: u64) -> Self {
        Self {
            consistent_level: ConsistentLevel::CrashConsistent,
            object_type,
            protect_type: ProtectType::Backup,
            size: size_gb,
            charging_mode: None,
            cloud_type: None,
            console_url: None,
            is_auto_pay: None,
            is_auto_renew: None,
            is_multi_az: None,
            period_num: None,
            period_type: None,
        }
    }
}

impl Validate for CreateVaultRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let vault = &self.vault;
        validate::name("vault.name", &vault.name)?;
        vault.billing.validate()?;
        validate::count(
            "vault.resources",
            vault.resources.len(),
            (0, validate::MAX_NEW_VAULT_RESOURCES),
        )?;
        for resource in &vault.resources {
            resource.validate_at("vault.resources")?;
        }
        validate::optional(&vault.description, |text| {
            validate::description(
                "vault.description",
                text,
                validate::MAX_VAULT_DESCRIPTION_CHARS,
            )
        })?;
        validate::optional(&vault.enterprise_project_id, |project| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            validate::text("vault.enterprise_project_id", project, 64)?;
            require(
                project.chars().all(fits),
                "vault.enterprise_project_id",
                "It is no enterprise project's id.",
            )
        })?;
        validate::optional(&vault.sys_lock_source_service, |service| {
            validate::text("vault.sys_lock_source_service", service, 32)
        })?;
        validate::optional(&vault.availability_zone, |zone| {
            validate::text("vault.availability_zone", zone, 32)
        })?;
        validate::optional(&vault.backup_name_prefix, |prefix| {
            validate::text(
                "vault.backup_name_prefix",
                prefix,
                validate::MAX_NAME_PREFIX_CHARS,
            )?;
            let fits = prefix.chars().all(validate::is_name_char);
            require(
                fits,
                "vault.backup_name_prefix",
                "No name has such characters.",
            )
        })?;
        if let Some(rules) = &vault.bind_rules {
            rules.validate()?;
        }
        validate::optional(&vault.tags, tag::validate_all)?;
        threshold(vault.threshold)
    }
}

impl Validate for NewBilling {
    fn validate(&self) -> Result<(), Invalid> {
        let sizes = (validate::MIN_NEW_VAULT_GB, validate::MAX_VAULT_GB);
        validate::range("vault.billing.size", self.size, sizes)?;
        let creatable = self.protect_type != ProtectType::Hybrid;
        require(
            creatable,
            "vault.billing.protect_type",
            "It takes backup or replication.",
        )?;
        if self.charging_mode == Some(ChargingMode::PrePaid) {
            let (periods, unit) = (self.period_num, self.period_type);
            require(
                periods.is_some(),
                "vault.billing.period_num",
                "It is missing.",
            )?;
            require(
                unit.is_some(),
                "vault.billing.period_type",
                "It is missing.",
            )?;
        }
        if let Some(periods) = self.period_num {
            validate::range("vault.billing.period_num", periods, (1, 9))?;
        }
        validate::optional(&self.console_url, |url| {
            validate::text("vault.billing.console_url", url, 255)
        })
    }
}

/// The body of `UpdateVault`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateVaultRequest {
    /// What changes.
    pub vault: VaultChange,
}

/// What changes about a vault; what is unset stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct VaultChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its size and consistency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<BillingChange>,
    /// Bind matching resources by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_bind: Option<bool>,
    /// Which resources it binds by itself; no tags clear the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_rules: Option<BindRules>,
    /// Grow by itself when full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_expand: Option<bool>,
    /// Keep automatic backups until they expire; cannot be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Notify at the threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smn_notify: Option<bool>,
    /// The share in use at which a notification is sent, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

/// What changes about a vault's size and consistency.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct BillingChange {
    /// What a backup of a running server is worth; can only rise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_level: Option<ConsistentLevel>,
    /// Its size, in GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Validate for UpdateVaultRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let vault = &self.vault;
        validate::optional(&vault.name, |name| validate::name("vault.name", name))?;
        if let Some(size) = vault.billing.as_ref().and_then(|billing| billing.size) {
            validate::range("vault.billing.size", size, (1, validate::MAX_VAULT_GB))?;
        }
        if let Some(rules) = &vault.bind_rules {
            rules.validate()?;
        }
        threshold(vault.threshold)
    }
}

/// The body of `AddVaultResource`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AddVaultResourceRequest {
    /// The resources to bind.
    pub resources: Vec<Resource>,
}

impl Validate for AddVaultResourceRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::count(
            "resources",
            self.resources.len(),
            (1, validate::MAX_RESOURCES),
        )?;
        self.resources
            .iter()
            .try_for_each(|resource| resource.validate_at("resources"))
    }
}

/// What `AddVaultResource` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddVaultResourceResponse {
    /// The resources that were bound.
    pub add_resource_ids: Vec<ResourceId>,
}

/// The body of `RemoveVaultResource`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RemoveVaultResourceRequest {
    /// The resources to take out, with all of their backups in the vault.
    pub resource_ids: Vec<ResourceId>,
}

impl Validate for RemoveVaultResourceRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::count(
            "resource_ids",
            self.resource_ids.len(),
            (1, validate::MAX_RESOURCES),
        )
    }
}

/// What `RemoveVaultResource` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveVaultResourceResponse {
    /// The resources that are taken out.
    pub remove_resource_ids: Vec<ResourceId>,
}

/// What `CreateVault` and `CreatePostPaidVault` answer: the vault, or, if it is
/// paid for in advance, the order that it was bought by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateVaultResponse {
    /// The vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<Vault>,
    /// The orders, one for each vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<Vec<OrderResult>>,
    /// 0 where the orders were placed.
    #[serde(default, rename = "retCode", skip_serializing_if = "Option::is_none")]
    pub ret_code: Option<i32>,
    /// The same in a word.
    #[serde(default, rename = "errText", skip_serializing_if = "Option::is_none")]
    pub err_text: Option<String>,
    /// The same as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

impl CreateVaultResponse {
    /// The answer to a vault that is paid for by use.
    pub const fn made(vault: Vault) -> Self {
        Self {
            vault: Some(vault),
            orders: None,
            ret_code: None,
            err_text: None,
            error_code: None,
        }
    }

    /// The answer to a vault that was bought.
    pub fn bought(order_id: String, vault: VaultId) -> Self {
        let order = OrderResult {
            cloud_service_id: "cbr".to_owned(),
            order_id,
            resource_id: vault,
            subscribe_result: 1,
        };
        Self {
            vault: None,
            orders: Some(vec![order]),
            ret_code: Some(0),
            err_text: Some("success".to_owned()),
            error_code: Some("0".to_owned()),
        }
    }
}

/// An order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderResult {
    /// The service: `cbr`.
    pub cloud_service_id: String,
    /// The order.
    pub order_id: String,
    /// The vault that was bought.
    pub resource_id: VaultId,
    /// 1: it is paid and settled.
    pub subscribe_result: i32,
}

/// What `ShowVault` and `UpdateVault` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultResponse {
    /// The vault.
    pub vault: Vault,
}

/// What `ListVault` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListVaultResponse {
    /// The vaults of the page.
    pub vaults: Vec<Vault>,
    /// How many match in all.
    pub count: u64,
    /// The page size.
    pub limit: u32,
    /// Vaults left out first.
    pub offset: u32,
}

/// A vault. One shape for every operation: clients compare what the creation
/// answered with what they read later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vault {
    /// Its id.
    pub id: VaultId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its project.
    pub project_id: ProjectId,
    /// Its enterprise project, `"0"` for none.
    pub enterprise_project_id: String,
    /// The user who created it.
    pub user_id: Option<UserId>,
    /// The provider that stands for what it protects.
    pub provider_id: String,
    /// When it was created.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(with = "wire_time::option")]
    pub updated_at: Option<Timestamp>,
    /// Its type, size, use and state.
    pub billing: Billing,
    /// The bound resources.
    pub resources: Vec<VaultResource>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Binds matching resources by itself.
    pub auto_bind: bool,
    /// Which resources it binds by itself.
    pub bind_rules: BindRules,
    /// Grows by itself when full.
    pub auto_expand: bool,
    /// Where its backups lie.
    pub availability_zone: Option<String>,
    /// Put before the names of automatic backups.
    pub backup_name_prefix: Option<String>,
    /// May hold more than its size.
    pub demand_billing: bool,
    /// Deletions by the billing service.
    pub cbc_delete_count: u32,
    /// Out of service for arrears.
    pub frozen: bool,
    /// Keeps automatic backups until they expire.
    pub locked: bool,
    /// Notifies at the threshold.
    pub smn_notify: bool,
    /// The share in use at which a notification is sent, in percent.
    pub threshold: u32,
    /// The service that keeps it locked.
    pub sys_lock_source_service: Option<String>,
    /// A counter of its changes.
    pub version: Option<String>,
}

/// The type, size, use and state of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Billing {
    /// The sum of the bound resources' sizes, in GB.
    pub allocated: u64,
    /// How it is paid for.
    pub charging_mode: ChargingMode,
    /// Where its resources run.
    pub cloud_type: CloudType,
    /// What a backup of a running server is worth.
    pub consistent_level: ConsistentLevel,
    /// Why it is out of service.
    pub frozen_scene: Option<String>,
    /// Spread over availability zones.
    pub is_multi_az: bool,
    /// What it protects.
    pub object_type: ObjectType,
    /// The order it was bought by.
    pub order_id: Option<String>,
    /// The product it was bought as.
    pub product_id: Option<String>,
    /// The partner it was bought through.
    pub partner_bp_id: Option<String>,
    /// How it protects.
    pub protect_type: ProtectType,
    /// Its size, in GB.
    pub size: u64,
    /// Its product specification, such as `vault.backup.server.normal`.
    pub spec_code: String,
    /// Its state.
    pub status: VaultStatus,
    /// The bucket of a vault with its own.
    pub storage_unit: Option<String>,
    /// What its backups take, in MB.
    pub used: u64,
}

/// A resource that is bound to a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultResource {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// What is happening to it.
    pub protect_status: ProtectStatus,
    /// Its size, in GB.
    pub size: u64,
    /// What its backups take, in MB.
    pub backup_size: u64,
    /// How many backups it has in the vault.
    pub backup_count: u32,
    /// Scheduled backups include it.
    pub auto_protect: bool,
    /// Which of its disks are meant.
    pub extra_info: ResourceExtraInfo,
}

/// Which resources a vault binds by itself. Without rules it is an empty
/// object, never `null`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct BindRules {
    /// Those with one of these tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
}

impl Validate for BindRules {
    fn validate(&self) -> Result<(), Invalid> {
        let (key, tags) = ("vault.bind_rules.tags", self.tags.as_deref());
        let tags = tags.unwrap_or_default();
        validate::count(key, tags.len(), (0, validate::MAX_BIND_RULE_TAGS))?;
        tags.iter().try_for_each(|tag| tag.validate_at(key))
    }
}

/// Checks a threshold, in percent.
fn threshold(threshold: Option<u32>) -> Result<(), Invalid> {
    threshold.map_or(Ok(()), |share| {
        validate::range("vault.threshold", share, (1, 100))
    })
}

#[cfg(test)]
mod tests;
