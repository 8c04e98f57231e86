//! Look-ups of domains, projects and versions, and the migration from the
//! services before CBR, on the wire.

use std::collections::BTreeMap;

use cairn_types::{DomainId, ProjectId, named};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::query::query;
use crate::validate::{Invalid, Validate, require};

/// What `ListDomainProjects` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainProjectsResponse {
    /// The projects.
    pub projects: Vec<DomainProject>,
}

/// A project of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainProject {
    /// Its id.
    pub project_id: ProjectId,
    /// Its name.
    pub project_name: String,
}

/// What `ShowDomain` answers: a project and the domain that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainResponse {
    /// The domain.
    pub domain_id: DomainId,
    /// Its name.
    pub domain_name: String,
    /// The project.
    pub project_id: ProjectId,
    /// Its name.
    pub project_name: String,
}

/// What `ListProjects` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegionProjectsResponse {
    /// The projects.
    pub projects: Vec<RegionProject>,
    /// Where this list is.
    pub links: SelfLink,
}

/// A project, as the identity service shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegionProject {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its domain.
    pub domain_id: DomainId,
    /// What it is part of: its domain.
    pub parent_id: String,
    /// It can be used.
    pub enabled: bool,
    /// It stands for a domain.
    pub is_domain: bool,
    /// Where it is.
    pub links: SelfLink,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SelfLink {
    /// Its address.
    #[serde(rename = "self")]
    pub this: String,
}

/// What `ListApiVersions` and `ShowApiVersion` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionsResponse {
    /// The versions.
    pub versions: Vec<ApiVersion>,
}

/// A version of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiVersion {
    /// `v3`.
    pub id: String,
    /// `CURRENT`.
    pub status: String,
    /// Where it is.
    pub links: Vec<ApiVersionLink>,
}

/// Where a version of the API is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiVersionLink {
    /// Its address.
    pub href: String,
    /// `self`.
    pub rel: String,
}

impl VersionsResponse {
    /// The one version there is, at this address.
    pub fn v3(address: String) -> Self {
        let link = ApiVersionLink {
            href: address,
            rel: "self".to_owned(),
        };
        Self {
            versions: vec![ApiVersion {
                id: "v3".to_owned(),
                status: "CURRENT".to_owned(),
                links: vec![link],
            }],
        }
    }
}

named! {
    /// The services whose versions can be asked for.
    pub enum ApiName: "api" {
        /// Cloud backup and recovery.
        Cbr = "cbr",
        /// Server backups, before it.
        Csbs = "csbs",
        /// Volume backups, before it.
        Vbs = "vbs",
    }
}

/// What `ListFeatures` and `ShowFeature` answer: values by their dotted keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct FeaturesResponse(pub BTreeMap<String, FeatureValue>);

/// What a feature is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeatureValue {
    /// Whether it is there.
    Truth(bool),
    /// A name.
    Text(String),
    /// Names.
    List(Vec<String>),
}

/// The body of `MigrateDomain`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct MigrateDomainRequest {
    /// In the other regions too.
    pub all_regions: bool,
    /// How much room the vaults get beyond what they hold, 0 to 1.
    pub reservation: f64,
}

impl Validate for MigrateDomainRequest {
    fn validate(&self) -> Result<(), Invalid> {
        require(
            (0.0..=1.0).contains(&self.reservation),
            "reservation",
            "It takes 0 to 1.",
        )
    }
}

/// What `MigrateDomain` answers: each region with `running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct MigrateDomainResponse(pub BTreeMap<String, String>);

query! {
    /// Which regions' migration is shown.
    ///
    /// CBR: `ShowMigrateStatus`.
    pub struct MigrateStatusQuery {
        one {
            /// The other regions' too; `true` if unset.
            all_regions: bool,
        }
        many {}
    }
}

impl Validate for MigrateStatusQuery {
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

named! {
    /// How a migration stands.
    pub enum MigrateStatus: "migration status" {
        /// At work.
        Migrating = "migrating",
        /// Done.
        Success = "success",
        /// Given up.
        Failed = "failed",
    }
}

/// What `ShowMigrateStatus` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrateStatusResponse {
    /// How it stands in all.
    pub status: MigrateStatus,
    /// How it stands in each project.
    pub project_status: Vec<MigrateProjectStatus>,
}

/// How the migration of a project stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrateProjectStatus {
    /// The project.
    pub project_id: ProjectId,
    /// Its name.
    pub project_name: String,
    /// Its region.
    pub region_id: String,
    /// How it stands.
    pub status: MigrateStatus,
    /// 0 to 100.
    pub progress: u8,
}
