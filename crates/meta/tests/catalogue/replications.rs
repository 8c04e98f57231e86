//! Replication records, and how far their copies are.

use cairn_meta::tasks::Task;
use cairn_meta::{Backup, Replication, ReplicationEnd};
use cairn_types::{
    BackupId, BackupStep, OperationLogId, ReplicationId, ReplicationStatus, ResourceId,
};

use crate::fixtures::*;

fn end(backup: &Backup) -> ReplicationEnd {
    ReplicationEnd {
        region: "cairn-1".to_owned(),
        project: backup.project,
        vault: backup.vault,
        checkpoint: backup.checkpoint,
        backup: backup.id,
    }
}

#[tokio::test]
async fn a_replication_is_as_far_as_its_copy() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let (vault, there) = (vault(project, "v", 1), vault(project, "w", 1));
        let (point, copied) = (checkpoint(&vault), checkpoint(&there));
        let mut tx = meta.begin().await.unwrap();
        for vault in [&vault, &there] {
            tx.insert_vault(vault).await.unwrap();
        }
        for point in [&point, &copied] {
            tx.insert_checkpoint(point).await.unwrap();
        }
        let resource = ResourceId::random();
        let mut source = backup(&vault, point.id, resource, 5);
        let mut copy = backup(&there, copied.id, resource, 6);
        copy.image_type = "replication".to_owned();
        insert_available(&mut tx, &mut source).await;
        tx.insert_backup(&copy).await.unwrap();
        let task = Task::new(
            OperationLogId::random(),
            "replicate",
            "{}".to_owned(),
            "",
            at(6),
        );
        tx.insert_task(&task).await.unwrap();
        let record = Replication {
            id: ReplicationId::random(),
            task: task.id,
            auto_trigger: true,
            source: end(&source),
            destination: end(&copy),
            created_at: at(6),
        };
        tx.insert_replication(&record).await.unwrap();

        for (step, expected) in [
            (None, ReplicationStatus::Waiting),
            (
                Some(BackupStep::StartProtect),
                ReplicationStatus::Replicating,
            ),
            (Some(BackupStep::FinishProtect), ReplicationStatus::Success),
            (Some(BackupStep::QueueRestore), ReplicationStatus::Success),
            (Some(BackupStep::EndRestore), ReplicationStatus::Success),
            (Some(BackupStep::QueueDelete), ReplicationStatus::Success),
            (Some(BackupStep::FailDelete), ReplicationStatus::Fail),
        ] {
            if let Some(step) = step {
                tx.step_backup(&mut copy, step, at(7)).await.unwrap();
            }
            let found = tx.replications_of(project, &[source.id]).await.unwrap();
            assert_eq!((found[0].status, &found[0].record), (expected, &record));
            let under_way = matches!(
                expected,
                ReplicationStatus::Waiting | ReplicationStatus::Replicating
            );
            let mut count = async |vault, resource, backup| {
                tx.replications_under_way(vault, resource, backup)
                    .await
                    .unwrap()
            };
            assert_eq!(count(vault.id, None, None).await, u64::from(under_way));
            assert_eq!(count(there.id, None, None).await, 0);
            assert_eq!(count(vault.id, Some(ResourceId::random()), None).await, 0);
            assert_eq!(count(vault.id, None, Some(BackupId::random())).await, 0);
            // A copy that is being made does not keep the resource from its work.
            let busy = tx.busy_backups_of(resource).await.unwrap();
            let at_work = copy.status.is_busy() && !under_way;
            assert_eq!(busy.len(), usize::from(at_work), "{}", copy.status);
        }
        tx.remove_backup(&copy).await.unwrap();
        let gone = tx.replications_of(project, &[source.id]).await.unwrap();
        assert!(gone.is_empty());
    })
    .await;
}
