//! The repositories of other sites: what hybrid vaults mirror. Each belongs to
//! a Cairn that writes to it meanwhile; here it is read and nothing else.

use std::fmt;
use std::pin::Pin;

use cairn_meta::Vault;
use cairn_repo::Repository;
use cairn_types::{Kind, ObjectType, ProjectId, ResourceType};
use tokio::sync::{Mutex, MutexGuard};

use crate::{Error, Result, Service};

const HYBRID: &str = "hybrid";

/// How a repository of another site is opened, each time anew: what was there
/// may be elsewhere after a collection.
pub type OpenExternal = Box<dyn Fn() -> Opening + Send + Sync>;

type Opening = Pin<Box<dyn Future<Output = std::result::Result<Repository, OpenFailed>> + Send>>;

/// Why a repository of another site could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct OpenFailed {
    /// What to do about it.
    pub kind: Kind,
    /// The reason, for whoever owns the vault: it names nothing of the machine.
    pub text: String,
}

impl From<&cairn_repo::Error> for OpenFailed {
    fn from(error: &cairn_repo::Error) -> Self {
        let kind = error.kind();
        let text = match kind {
            Kind::NotFound => "there is no repository",
            Kind::Denied => "its master key is another one, or its store lets nobody in",
            Kind::Invalid => "it is in a newer format, or its store cannot be used",
            Kind::Corrupt => "its configuration is damaged",
            _ => "its store does not answer",
        };
        let text = text.to_owned();
        Self { kind, text }
    }
}

/// What the configuration says of a repository of another site.
#[derive(Debug, Clone, Default)]
pub struct ExternalSettings {
    /// What it is called.
    pub name: String,
    /// The bucket that it lies in, if it does in one.
    pub bucket: Option<String>,
    /// The project whose hybrid vaults mirror it; the first, if not given.
    pub project: Option<ProjectId>,
    /// Which of its hybrid vaults, by name or id; all, if empty.
    pub vaults: Vec<String>,
    /// Whose backups are taken over, by projects of the other site; everybody's, if empty.
    pub from_projects: Vec<ProjectId>,
}

/// A repository of another site.
pub struct External {
    settings: ExternalSettings,
    open: OpenExternal,
    /// Held by whoever reads it: what is known of its chunks has one folder.
    turn: Mutex<()>,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl External {
    /// A repository that `open` opens for reading.
    pub fn new(settings: ExternalSettings, open: OpenExternal) -> Self {
        Self {
            settings,
            open,
            turn: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// The projects there whose backups are taken over, if not everybody's.
    pub(crate) fn projects(&self) -> &[ProjectId] {
        &self.settings.from_projects
    }

    pub(crate) async fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        Ok(self.turn.lock().await)
    }

    pub(crate) async fn open(&self) -> Result<Repository> {
        (self.open)().await.map_err(|source| Error::External {
            name: self.settings.name.clone(),
            source,
        })
    }

    /// Whether an import means this repository by the name of a bucket.
    pub(crate) fn is_called(&self, bucket: &str) -> bool {
        self.settings.name == bucket || self.settings.bucket.as_deref() == Some(bucket)
    }

    /// Whether a vault of the project mirrors it.
    pub(crate) fn takes_into(&self, vault: &Vault) -> bool {
        let vaults = &self.settings.vaults;
        let id = vault.id.to_string();
        let is_named = |name: &String| *name == vault.name || *name == id;
        is_hybrid(vault) && (vaults.is_empty() || vaults.iter().any(is_named))
    }
}

/// Whether a vault mirrors another site.
pub(crate) fn is_hybrid(vault: &Vault) -> bool {
    vault.cloud_type == HYBRID || vault.protect_type == HYBRID
}

/// Whether a hybrid vault of a type takes over what is a backup of `resource`:
/// more than is bound to such a vault, since machines of another site may be of any kind.
pub(crate) const fn takes(vault: ObjectType, resource: ResourceType) -> bool {
    match resource {
        ResourceType::Server | ResourceType::BareMetalServer | ResourceType::NativeServer => {
            matches!(vault, ObjectType::Server | ObjectType::Vmware)
        }
        ResourceType::Volume => matches!(vault, ObjectType::Disk),
        ResourceType::Turbo => matches!(vault, ObjectType::Turbo | ObjectType::File),
        ResourceType::Desktop => matches!(vault, ObjectType::Workspace),
    }
}

impl Service {
    /// The repositories that hybrid vaults of a project mirror.
    pub(crate) async fn externals_for(&self, project: ProjectId) -> Result<Vec<&External>> {
        let first = self.first_project().await?.map(|first| first.id);
        let is_for = |one: &&External| one.settings.project.or(first) == Some(project);
        Ok(self.externals().iter().filter(is_for).collect())
    }

    /// The repositories that a hybrid vault mirrors.
    pub(crate) async fn externals_of(&self, vault: &Vault) -> Result<Vec<&External>> {
        let mut all = self.externals_for(vault.project).await?;
        all.retain(|one| one.takes_into(vault));
        Ok(all)
    }
}
