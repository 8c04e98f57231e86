//! What can be protected, on the wire.

use cairn_types::{ResourceId, ResourceType};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::{self, MAX_PROTECTABLE_LIMIT, Page};
use crate::query::query;
use crate::validate::{Invalid, Validate};
use crate::vault::Vault;

query! {
    /// Which protectables are listed.
    ///
    /// CBR: `ListProtectable`.
    pub struct ListProtectableQuery {
        one {
            /// Page size.
            limit: u32,
            /// Protectables left out first.
            offset: u32,
            /// Go on behind this one.
            marker: ResourceId,
            /// By name.
            name: String,
            /// By state.
            status: String,
            /// By id.
            id: ResourceId,
            /// The disks of this server.
            server_id: ResourceId,
            /// By enterprise project; `all_granted_eps` is every one.
            enterprise_project_id: String,
        }
        many {}
    }
}

impl ListProtectableQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<ResourceId> {
        Page::new(self.limit, self.offset, self.marker, MAX_PROTECTABLE_LIMIT)
    }
}

impl Validate for ListProtectableQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_PROTECTABLE_LIMIT)
    }
}

/// What `ListProtectable` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ListProtectableResponse {
    /// The protectables of the page.
    pub instances: Vec<Protectable>,
}

/// What `ShowProtectable` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProtectableResponse {
    /// The protectable.
    pub instance: Protectable,
}

/// Something that can be protected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Protectable {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// Its size, in GB.
    pub size: Option<u64>,
    /// Its state, as its provider calls it.
    pub status: Option<String>,
    /// What its provider says of it.
    pub detail: serde_json::Value,
    /// A server's disks.
    pub children: Vec<ProtectableChild>,
    /// Whether it may be bound to a vault.
    pub protectable: ProtectableResult,
}

/// A disk of a server that can be protected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProtectableChild {
    /// Its id.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// Its size, in GB.
    pub size: Option<u64>,
    /// Its state, as its provider calls it.
    pub status: Option<String>,
    /// What its provider says of it.
    pub detail: serde_json::Value,
    /// Always empty: a disk has no parts.
    pub children: Vec<serde_json::Value>,
}

/// Whether something may be bound to a vault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProtectableResult {
    /// It may.
    pub result: bool,
    /// The error code that says why not, or empty.
    pub code: String,
    /// Why not, or empty.
    pub reason: String,
    /// Why not, for people.
    pub message: Option<String>,
    /// The vault that it is bound to.
    pub vault: Option<Vault>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_protectables_is_small() {
        assert_eq!(ListProtectableQuery::parse("").unwrap().page().limit, 50);
        assert!(ListProtectableQuery::parse("limit=50&name=a%20b").is_ok());
        assert!(ListProtectableQuery::parse("limit=51").is_err());
        assert!(ListProtectableQuery::parse("id=x").is_err());
    }
}
