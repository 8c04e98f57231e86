//! What verifications found, and whose turn it is.

use cairn_meta::tasks::{ONE_AT_A_TIME, Task, TaskState};
use cairn_meta::{Backup, Page, Verification, VerificationFilter};
use cairn_types::{
    BackupId, BackupStep, ByteRange, Lost, OperationLogId, ProjectId, ResourceId,
    VerificationStatus, VerifyLevel,
};

use crate::fixtures::*;

fn whole(backup: &Backup, task: OperationLogId, seconds: i64) -> Verification {
    Verification {
        backup: backup.id,
        project: backup.project,
        task,
        level: VerifyLevel::Full,
        status: VerificationStatus::Whole,
        problem: None,
        lost: None,
        verified_at: at(seconds),
        quick_at: Some(at(seconds)),
        full_at: Some(at(seconds)),
    }
}

fn hurt(backup: &Backup, task: OperationLogId, seconds: i64) -> Verification {
    Verification {
        level: VerifyLevel::Quick,
        status: VerificationStatus::Hurt,
        problem: Some("a chunk is lost".to_owned()),
        lost: Some(Lost {
            bytes: 512,
            ranges: vec![ByteRange {
                offset: 1 << 40,
                length: 512,
            }],
            paths: vec!["ключ/\"a\"".to_owned()],
            ..Lost::default()
        }),
        full_at: None,
        ..whole(backup, task, seconds)
    }
}

#[tokio::test]
async fn the_newest_result_of_a_backup_counts_until_the_backup_goes() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        let (resource, disk) = (ResourceId::random(), ResourceId::random());
        let mut server = backup(&vault, point.id, resource, 5);
        insert_available(&mut tx, &mut server).await;
        let mut child = backup(&vault, point.id, disk, 5);
        child.parent = Some(server.id);
        insert_available(&mut tx, &mut child).await;
        assert_eq!(tx.verification(project, server.id).await.unwrap(), None);

        let (first, second) = (OperationLogId::random(), OperationLogId::random());
        tx.put_verification(&hurt(&server, first, 10))
            .await
            .unwrap();
        tx.put_verification(&hurt(&child, first, 10)).await.unwrap();
        let found = tx.verification(project, child.id).await.unwrap();
        assert_eq!(found, Some(hurt(&child, first, 10)));
        assert!(tx.is_hurt(project, disk).await.unwrap());
        assert!(!tx.is_hurt(project, ResourceId::random()).await.unwrap());
        tx.put_verification(&whole(&child, second, 11))
            .await
            .unwrap();
        assert!(!tx.is_hurt(project, disk).await.unwrap());
        assert!(tx.is_hurt(project, resource).await.unwrap());

        let mut list = async |filter: VerificationFilter, page: Page| {
            let (found, count) = tx.verifications(project, &filter, &page).await.unwrap();
            let ids: Vec<BackupId> = found.iter().map(|one| one.backup.id).collect();
            (ids, count)
        };
        let all = VerificationFilter::default;
        let (both, count) = list(all(), everything(10)).await;
        assert_eq!((&both, count), (&vec![child.id, server.id], 2));
        for (filter, expected) in [
            (
                VerificationFilter {
                    status: Some(VerificationStatus::Hurt),
                    ..all()
                },
                vec![server.id],
            ),
            (
                VerificationFilter {
                    task: Some(second),
                    ..all()
                },
                vec![child.id],
            ),
            (
                VerificationFilter {
                    resource: Some(disk),
                    vault: Some(vault.id),
                    ..all()
                },
                vec![child.id],
            ),
            (
                VerificationFilter {
                    vault: Some(cairn_types::VaultId::random()),
                    ..all()
                },
                vec![],
            ),
        ] {
            let count = expected.len() as u64;
            assert_eq!(list(filter, everything(10)).await, (expected, count));
        }
        let behind = |id: BackupId| Page {
            marker: Some(id.to_string()),
            ..everything(10)
        };
        assert_eq!(list(all(), behind(child.id)).await.0, [server.id]);
        assert!(list(all(), behind(server.id)).await.0.is_empty());

        let stranger = ProjectId::random();
        assert_eq!(tx.verification(stranger, child.id).await.unwrap(), None);
        let theirs = tx.verifications(stranger, &all(), &everything(10)).await;
        assert_eq!(theirs.unwrap().1, 0);

        tx.remove_backup(&server).await.unwrap();
        for gone in [server.id, child.id] {
            assert_eq!(tx.verification(project, gone).await.unwrap(), None);
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_was_not_looked_at_for_longest_is_next() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        // It became available at 6.
        let mut made = backup(&vault, point.id, ResourceId::random(), 5);
        tx.insert_backup(&made).await.unwrap();
        let never = at(0);
        let levels = [VerifyLevel::Quick, VerifyLevel::Full];
        for level in levels {
            let next = tx.next_to_verify(level, at(100), never).await.unwrap();
            assert_eq!(next, None, "it is not there yet");
        }
        for step in [BackupStep::StartProtect, BackupStep::FinishProtect] {
            tx.step_backup(&mut made, step, at(6)).await.unwrap();
        }
        assert_eq!(
            tx.restorable_backups(project, Some(vault.id))
                .await
                .unwrap()[0]
                .id,
            made.id
        );
        for level in levels {
            let mut next = async |until| tx.next_to_verify(level, until, never).await.unwrap();
            assert_eq!(next(at(5)).await, None, "it was looked at when it was made");
            assert_eq!(next(at(6)).await, Some(project));
        }
        let task = OperationLogId::random();
        tx.put_verification(&hurt(&made, task, 20)).await.unwrap();
        let quick = tx.next_to_verify(VerifyLevel::Quick, at(19), never).await;
        assert_eq!(quick.unwrap(), None);
        let full = tx.next_to_verify(VerifyLevel::Full, at(19), never).await;
        assert_eq!(full.unwrap(), Some(project), "a quick look is no full one");

        let unchecked = Verification {
            status: VerificationStatus::Unchecked,
            ..hurt(&made, task, 30)
        };
        tx.put_verification(&unchecked).await.unwrap();
        let mut tried = async |until| {
            let next = tx.next_to_verify(VerifyLevel::Full, at(50), until).await;
            next.unwrap()
        };
        assert_eq!(tried(at(29)).await, None, "it was tried a moment ago");
        assert_eq!(tried(at(30)).await, Some(project));
    })
    .await;
}

#[tokio::test]
async fn one_verification_is_at_work_at_a_time() {
    on_each_database(async |meta| {
        let task = |kind: &str, payload: &str, seconds| {
            let id = OperationLogId::random();
            Task::new(id, kind, payload.to_owned(), "", at(seconds))
        };
        let (first, second) = (task(ONE_AT_A_TIME, "1", 1), task(ONE_AT_A_TIME, "2", 2));
        let other = task("back_up", "3", 3);
        let mut tx = meta.begin().await.unwrap();
        for task in [&first, &second, &other] {
            tx.insert_task(task).await.unwrap();
        }
        assert_eq!(tx.unfinished_tasks_of(ONE_AT_A_TIME).await.unwrap(), 2);
        let waiting = tx.waiting_task(ONE_AT_A_TIME, "1").await.unwrap();
        assert_eq!(waiting, Some(first.id));
        let mut claimed = Vec::new();
        while let Some(task) = tx.claim_task("me", at(9), at(60)).await.unwrap() {
            claimed.push(task);
        }
        let ids: Vec<_> = claimed.iter().map(|task| task.id).collect();
        assert_eq!(ids, [first.id, other.id], "the second waits for the first");
        assert_eq!(tx.waiting_task(ONE_AT_A_TIME, "1").await.unwrap(), None);
        // Its owner is gone: it is taken up again, and the second waits on.
        let again = tx.claim_task("you", at(61), at(99)).await.unwrap().unwrap();
        assert_eq!(again.id, first.id);
        let mut done = again;
        done.state = TaskState::Succeeded;
        assert!(tx.save_task(&done, "you").await.unwrap());
        let next = tx.claim_task("me", at(61), at(99)).await.unwrap().unwrap();
        let last = tx.claim_task("me", at(61), at(99)).await.unwrap().unwrap();
        let mut both = [next.id, last.id];
        both.sort();
        let mut expected = [second.id, other.id];
        expected.sort();
        assert_eq!(both, expected);
    })
    .await;
}
