//! What is done to resources that are bound to a vault, on the wire.

use cairn_types::{ResourceId, VaultId, named};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid, Validate};

named! {
    /// Whether policies take a resource.
    pub enum SetAction: "action" {
        /// They pass it by.
        Suspend = "suspend",
        /// They take it.
        Unsuspend = "unsuspend",
    }
}

/// The body of `SetVaultResource`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetVaultResourceRequest {
    /// Whether policies take them.
    pub action: SetAction,
    /// The resources.
    pub resource_ids: Vec<ResourceId>,
}

impl Validate for SetVaultResourceRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let count = self.resource_ids.len();
        validate::count("resource_ids", count, (1, validate::MAX_RESOURCES))
    }
}

/// What `SetVaultResource` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetVaultResourceResponse {
    /// The resources that were set.
    pub set_resource_ids: Vec<ResourceId>,
}

/// The body of `MigrateVaultResource`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MigrateVaultResourceRequest {
    /// The vault that they move to.
    pub destination_vault_id: VaultId,
    /// The resources.
    pub resource_ids: Vec<ResourceId>,
}

impl Validate for MigrateVaultResourceRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let count = self.resource_ids.len();
        validate::count("resource_ids", count, (1, validate::MAX_RESOURCES))
    }
}

/// What `MigrateVaultResource` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrateVaultResourceResponse {
    /// The resources that moved.
    pub migrated_resources: Vec<ResourceId>,
}
