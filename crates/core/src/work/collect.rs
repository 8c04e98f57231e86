//! Collection: the space of deleted and failed backups comes back.

use std::sync::Arc;

use cairn_types::{Progress, ProjectId};

use crate::{Result, Service};

pub(super) async fn run(
    service: &Service,
    project: ProjectId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let repository = service.repository().project(project).await?;
    let _ = (repository, progress);
    Ok(())
}

impl Service {
    /// Has every project's repository collected once: after a start, so that
    /// what an earlier process left half-written is found.
    pub async fn collect_all(&self) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        for project in tx.projects().await? {
            self.enqueue_collection(&mut tx, project.id).await?;
        }
        tx.commit().await?;
        self.wake_engine();
        Ok(())
    }
}
