//! Look-ups beyond one project: domains with their projects, and the migration
//! from the services before CBR. Nobody learns of what is not their own.

use cairn_meta::{Domain, Project};
use cairn_types::ProjectId;

use crate::{Caller, Refusal, Result, Service};

impl Service {
    /// The caller's projects in the domain of this name: none in another's,
    /// whether it exists or not.
    ///
    /// CBR: `ListDomainProjects`, `GET /v3/domain/{domain_name}/projects`.
    pub async fn projects_of_domain(&self, caller: &Caller, domain: &str) -> Result<Vec<Project>> {
        let (user, own) = self.user_and_domain(caller.user).await?;
        if own.name != domain {
            return Ok(Vec::new());
        }
        let mut projects = self.projects_of(user.id, None).await?;
        projects.retain(|project| project.domain == own.id);
        Ok(projects)
    }

    /// A project with its domain: one of the caller's, or one that shares a
    /// backup with the caller's.
    ///
    /// Errors: `NotFound`, for every other project too.
    /// CBR: `ShowDomain`, `GET /v3/domain/{source_project_id}`.
    pub async fn domain_of_project(
        &self,
        caller: &Caller,
        project: ProjectId,
    ) -> Result<(Domain, Project)> {
        let mut tx = self.meta().read().await?;
        let mut own = tx.projects_of(caller.user, None).await?.into_iter();
        let found = match own.find(|one| one.id == project) {
            Some(own) => Some(own),
            None if tx.shares_between(project, caller.project).await? => {
                tx.project(project).await?
            }
            None => None,
        };
        let project = found.ok_or(Refusal::ProjectNotFound)?;
        let domain = tx.domain(project.domain).await?;
        Ok((domain.ok_or(Refusal::ProjectNotFound)?, project))
    }

    /// Brings what the services before CBR hold of the caller's domain here.
    /// There are no such services, so it is over at once.
    ///
    /// CBR: `MigrateDomain`, `POST /v3/migrates`.
    pub async fn migrate_domain(&self, caller: &Caller) -> Result<()> {
        let (_, domain) = self.user_and_domain(caller.user).await?;
        let mut tx = self.meta().begin().await?;
        tx.note_migration(domain.id, self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// The caller's projects in their domain, whose migration is over.
    ///
    /// Errors: `NotFound` if the domain never asked for one.
    /// CBR: `ShowMigrateStatus`, `GET /v3/migrates`.
    pub async fn migrated_projects(&self, caller: &Caller) -> Result<Vec<Project>> {
        let (user, domain) = self.user_and_domain(caller.user).await?;
        let mut tx = self.meta().read().await?;
        if !tx.has_migrated(domain.id).await? {
            return Err(Refusal::MigrationNotFound.into());
        }
        let mut projects = tx.projects_of(user.id, None).await?;
        projects.retain(|project| project.domain == domain.id);
        Ok(projects)
    }
}
