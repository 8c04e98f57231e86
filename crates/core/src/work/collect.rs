//! Collection: the space of deleted and failed backups comes back. And the upkeep of
//! parity where no collection does it.

use std::sync::Arc;

use cairn_repo::PackId;
use cairn_types::{BackupId, Kind, Progress, ProjectId};

use crate::{Result, Service};

pub(super) async fn run(
    service: &Service,
    project: ProjectId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let repository = service.repository().project(project).await?;
    // What the catalogue promises must be there before anything goes.
    let mut promised = promised(service, project).await?;
    let held = held(service, project).await?;
    loop {
        let collecting = repository.collect_beside(&promised, &held, Arc::clone(progress));
        let collected = collecting.await;
        match collected {
            Err(error) if error.kind() == Kind::Corrupt => {
                let still = self::promised(service, project).await?;
                if promised.iter().all(|backup| still.contains(backup)) {
                    return Err(error.into());
                }
                // What it missed or could not read may have been deleted meanwhile.
                promised = still;
            }
            collected => {
                let collected = collected?;
                tracing::info!(project.id = %project, "a collection is done: {collected:?}");
                return Ok(());
            }
        }
    }
}

/// The backups that the catalogue says are there.
async fn promised(service: &Service, project: ProjectId) -> Result<Vec<BackupId>> {
    let mut tx = service.meta().read().await?;
    let backups = tx.restorable_backups(project, None).await?;
    Ok(backups.into_iter().map(|backup| backup.id).collect())
}

/// The packs that unfinished work has begun. Those of work that is over are forgotten first.
async fn held(service: &Service, project: ProjectId) -> Result<Vec<PackId>> {
    let mut tx = service.meta().begin().await?;
    tx.release_packs_of_ended(project).await?;
    let names = tx.held_packs(project).await?;
    tx.commit().await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Has packs protected that no group of parity has yet.
pub(super) async fn protect(
    service: &Service,
    project: ProjectId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let repository = service.repository().existing_project(project).await?;
    repository.protect(Arc::clone(progress)).await?;
    Ok(())
}

impl Service {
    /// Has every project's repository collected once: after a start, so that
    /// what an earlier process left half-written is found.
    pub async fn collect_all(&self) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        for project in tx.projects().await? {
            self.enqueue_collection(&mut tx, project.id, 0).await?;
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(())
    }
}
