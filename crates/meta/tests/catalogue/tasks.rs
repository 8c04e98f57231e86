//! Tasks and their public record.

use crate::fixtures::*;
use cairn_meta::tasks::{Task, TaskState};
use cairn_meta::{OperationLog, OperationLogFilter};
use cairn_types::{
    OperationLogId, OperationStatus, OperationType, ProjectId, ResourceId, ResourceType, VaultId,
};
use std::sync::Arc;

#[tokio::test]
async fn an_operation_log_shows_the_state_of_its_task() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let id = OperationLogId::random();
        let mut task = Task::new(id, "back_up", "{}".to_owned(), "req-1", at(5));
        let log = OperationLog {
            id,
            project,
            vault: Some(VaultId::random()),
            vault_name: "v".to_owned(),
            checkpoint: None,
            policy: None,
            enterprise_project: "0".to_owned(),
            operation_type: OperationType::Backup,
            resource: Some(ResourceId::random()),
            resource_name: Some("web".to_owned()),
            resource_type: Some(ResourceType::Server),
            detail: serde_json::json!({ "operation": "delete" }),
            created_at: at(5),
            status: OperationStatus::Waiting,
            started_at: None,
            ended_at: None,
            updated_at: at(5),
            done_bytes: 0,
            total_bytes: 0,
            error_code: String::new(),
            error_text: String::new(),
            request_id: "req-1".to_owned(),
        };
        let mut tx = meta.begin().await.unwrap();
        tx.insert_task(&task).await.unwrap();
        tx.insert_operation_log(&log).await.unwrap();
        assert_eq!(
            tx.operation_log(project, id).await.unwrap(),
            Some(log.clone())
        );
        let vault = log.vault.unwrap();
        for (operation_type, count) in [(OperationType::Backup, 1), (OperationType::Sync, 0)] {
            let found = tx.operations_under_way(vault, operation_type).await;
            assert_eq!(found.unwrap(), count);
        }
        tx.claim_task("me", at(6), at(60)).await.unwrap().unwrap();
        let shown = tx.operation_log(project, id).await.unwrap().unwrap();
        assert_eq!(
            (shown.status, shown.started_at),
            (OperationStatus::Running, Some(at(6)))
        );
        task.state = TaskState::Failed;
        task.error_text = "no space".to_owned();
        task.ended_at = Some(at(9));
        assert!(tx.save_task(&task, "me").await.unwrap());
        let over = tx.operations_under_way(vault, OperationType::Backup).await;
        assert_eq!(over.unwrap(), 0);
        let without = OperationLogId::random();
        let task = Task::new(without, "import_backup", "{}".to_owned(), "req-1", at(5));
        let nowhere = OperationLog {
            id: without,
            vault: None,
            vault_name: String::new(),
            resource_name: Some("host".to_owned()),
            ..log.clone()
        };
        tx.insert_task(&task).await.unwrap();
        tx.insert_operation_log(&nowhere).await.unwrap();
        let shown = tx.operation_log(project, without).await.unwrap();
        assert_eq!(shown, Some(nowhere));
        let status = |status| OperationLogFilter {
            status: Some(status),
            ..Default::default()
        };
        for (filter, count) in [
            (status(OperationStatus::Failed), 1),
            (status(OperationStatus::Running), 0),
            (status(OperationStatus::Timeout), 0),
            (
                OperationLogFilter {
                    vault: log.vault,
                    ..Default::default()
                },
                1,
            ),
            (
                OperationLogFilter {
                    resource_name: Some("WE".to_owned()),
                    ..Default::default()
                },
                1,
            ),
        ] {
            let found = tx
                .operation_logs(project, &filter, &everything(9))
                .await
                .unwrap();
            assert_eq!(found.1, count, "{filter:?}");
        }
        let foreign = ProjectId::random();
        assert_eq!(tx.operation_log(foreign, id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_task_has_one_owner_until_the_lease_ends() {
    on_each_database(async |meta| {
        let id = OperationLogId::random();
        let mut tx = meta.begin().await.unwrap();
        let task = Task::new(id, "collect", "{}".to_owned(), "", at(10));
        tx.insert_task(&task).await.unwrap();
        let twin = Task {
            id: OperationLogId::random(),
            ..task
        };
        tx.insert_task_once(&twin).await.unwrap();
        assert_eq!(
            tx.unfinished_tasks().await.unwrap(),
            1,
            "one that waits is enough"
        );
        assert!(
            tx.claim_task("early", at(9), at(99))
                .await
                .unwrap()
                .is_none()
        );
        let claimed = tx.claim_task("one", at(10), at(20)).await.unwrap().unwrap();
        assert_eq!((claimed.id, claimed.attempts), (id, 1));
        assert!(
            tx.claim_task("two", at(19), at(29))
                .await
                .unwrap()
                .is_none()
        );
        let taken = tx.claim_task("two", at(20), at(30)).await.unwrap().unwrap();
        assert_eq!((taken.attempts, taken.started_at), (2, Some(at(10))));
        assert!(
            !tx.save_task(&claimed, "one").await.unwrap(),
            "it is no longer theirs"
        );
        assert!(tx.save_task(&taken, "two").await.unwrap());
        assert_eq!(tx.end_all_leases(at(21)).await.unwrap(), 1);
        assert!(
            tx.claim_task("three", at(21), at(31))
                .await
                .unwrap()
                .is_some()
        );
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claimers_that_race_each_get_another_task() {
    on_each_database(async |meta| {
        let count = 40;
        let mut tx = meta.begin().await.unwrap();
        for number in 0..count {
            let id = OperationLogId::random();
            let task = Task::new(id, "collect", number.to_string(), "", at(1));
            tx.insert_task(&task).await.unwrap();
        }
        tx.commit().await.unwrap();
        let meta = Arc::new(meta);
        let mut claimers = tokio::task::JoinSet::new();
        for owner in 0..8 {
            let meta = Arc::clone(&meta);
            claimers.spawn(async move {
                let mut claimed = Vec::new();
                loop {
                    let mut tx = meta.begin().await.unwrap();
                    let task = tx
                        .claim_task(&owner.to_string(), at(2), at(99))
                        .await
                        .unwrap();
                    tx.commit().await.unwrap();
                    match task {
                        Some(task) => claimed.push(task.id),
                        None => return claimed,
                    }
                }
            });
        }
        let mut claimed: Vec<_> = claimers.join_all().await.concat();
        claimed.sort();
        claimed.dedup();
        // One that others held for a moment may be left for the next look.
        let mut tx = meta.begin().await.unwrap();
        let left = tx.claim_task("last", at(2), at(99)).await.unwrap();
        assert_eq!(claimed.len() + usize::from(left.is_some()), count);
    })
    .await;
}
