//! Collection: the space of deleted and failed backups comes back. And the upkeep of
//! parity where no collection does it.

use std::sync::Arc;

use cairn_types::{BackupId, Progress, ProjectId};

use crate::{Result, Service};

pub(super) async fn run(
    service: &Service,
    project: ProjectId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let repository = service.repository().project(project).await?;
    // What the catalogue promises must be there before anything goes.
    let mut tx = service.meta().read().await?;
    let promised = tx.restorable_backups(project, None).await?;
    drop(tx);
    let promised: Vec<BackupId> = promised.into_iter().map(|backup| backup.id).collect();
    let collected = repository.collect(&promised, Arc::clone(progress)).await?;
    tracing::info!(project.id = %project, "a collection is done: {collected:?}");
    Ok(())
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
