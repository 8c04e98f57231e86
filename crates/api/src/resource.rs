//! A resource as requests and operation logs name it.

use cairn_types::{ResourceId, ResourceType};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid};

/// A resource, named by id and type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Its id.
    pub id: ResourceId,
    /// Its type.
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which of its disks are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_info: Option<ResourceExtraInfo>,
}

/// Which disks of a server are meant; all of them if neither list says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ResourceExtraInfo {
    /// Disks that are never backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_volumes: Option<Vec<ResourceId>>,
    /// The only disks that are backed up, unless empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_volumes: Option<Vec<IncludedVolume>>,
}

/// A disk that is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncludedVolume {
    /// Its id.
    pub id: ResourceId,
    /// The operating system on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Resource {
    /// Checks the resource, which stands in the list `key`.
    pub(crate) fn validate_at(&self, key: &str) -> Result<(), Invalid> {
        validate::optional(&self.name, |name| {
            validate::text(
                &format!("{key}.name"),
                name,
                validate::MAX_RESOURCE_NAME_CHARS,
            )
        })?;
        let Some(extra) = &self.extra_info else {
            return Ok(());
        };
        let volumes = [
            extra.exclude_volumes.as_ref().map_or(0, Vec::len),
            extra.include_volumes.as_ref().map_or(0, Vec::len),
        ];
        let key = format!("{key}.extra_info");
        volumes
            .into_iter()
            .try_for_each(|n| validate::count(&key, n, (0, validate::MAX_VOLUMES)))
    }
}
