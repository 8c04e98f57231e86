//! Repair: damaged packs go out of use, so that the next backup of the same
//! bytes stores them anew.

use std::sync::Arc;

use cairn_types::{Kind, Progress, ProjectId};

use crate::{Result, Service};

/// How soon a repair tries again when somebody is at work in the project.
const RETRY_SECONDS: i64 = 5;

pub(super) async fn run(
    service: &Service,
    project: ProjectId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let repository = service.repository().existing_project(project).await?;
    match repository.repair(Arc::clone(progress)).await {
        Ok(repaired) => {
            if !repaired.healed.is_empty() {
                tracing::warn!(
                    project.id = %project,
                    packs = repaired.healed.len(),
                    "damaged packs were made anew from parity"
                );
            }
            if !repaired.packs.is_empty() {
                tracing::warn!(
                    project.id = %project,
                    packs = repaired.packs.len(),
                    lost_chunks = repaired.lost_chunks,
                    "damaged packs are out of use; the next backups store what was lost anew"
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == Kind::Conflict => {
            let mut tx = service.meta().begin().await?;
            service
                .enqueue_repair(&mut tx, project, RETRY_SECONDS)
                .await?;
            Ok(tx.commit().await?)
        }
        Err(error) => Err(error.into()),
    }
}
