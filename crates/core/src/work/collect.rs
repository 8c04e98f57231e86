//! Collection: the space of deleted and failed backups comes back.

use std::sync::Arc;

use cairn_types::{Kind, Progress, ProjectId};

use crate::{Result, Service};

/// How soon a collection tries again when somebody is at work in the project.
const RETRY_SECONDS: i64 = 5;

pub(super) async fn run(
    service: &Service,
    project: ProjectId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let repository = service.repository().project(project).await?;
    match repository.collect(Arc::clone(progress)).await {
        Ok(collected) => {
            tracing::info!(project.id = %project, "a collection is done: {collected:?}");
            Ok(())
        }
        Err(error) if error.kind() == Kind::Conflict => {
            let mut tx = service.meta().begin().await?;
            service
                .enqueue_collection(&mut tx, project, RETRY_SECONDS)
                .await?;
            Ok(tx.commit().await?)
        }
        Err(error) => Err(error.into()),
    }
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
