//! Which policies are due, which backups have ended, and what retention is told.

use crate::fixtures::*;
use cairn_meta::Backup;
use cairn_types::{BackupStep, OperationDefinition, ResourceId};

/// An available backup of a policy that ends at an instant.
fn automatic(of: &Backup, seconds: i64, ends: Option<i64>) -> Backup {
    Backup {
        id: cairn_types::BackupId::random(),
        auto_trigger: true,
        created_at: at(seconds),
        updated_at: at(seconds),
        expired_at: ends.map(at),
        made_under: Some(OperationDefinition {
            max_backups: Some(7),
            ..OperationDefinition::default()
        }),
        ..of.clone()
    }
}

#[tokio::test]
async fn what_has_ended_is_found_unless_something_holds_it() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        let first = backup(&vault, point.id, ResourceId::random(), 1);
        let mut ended = automatic(&first, 10, Some(100));
        let mut later = automatic(&first, 20, Some(200));
        let mut never = automatic(&first, 30, None);
        for backup in [&mut ended, &mut later, &mut never] {
            insert_available(&mut tx, backup).await;
        }
        assert_eq!(tx.next_end().await.unwrap(), Some(at(100)));
        let ids = |found: Vec<Backup>| found.iter().map(|one| one.id).collect::<Vec<_>>();
        assert!(tx.ended_backups(at(99), 9).await.unwrap().is_empty());
        assert_eq!(ids(tx.ended_backups(at(100), 9).await.unwrap()), [ended.id]);
        let both = ids(tx.ended_backups(at(300), 9).await.unwrap());
        assert_eq!(both, [ended.id, later.id]);
        assert_eq!(ids(tx.ended_backups(at(300), 1).await.unwrap()), [ended.id]);

        // A run of the resource holds them.
        let mut running = automatic(&first, 40, Some(50));
        running.protected_at = None;
        tx.insert_backup(&running).await.unwrap();
        assert!(tx.is_policy_at_work(vault.id).await.unwrap());
        assert!(tx.ended_backups(at(300), 9).await.unwrap().is_empty());
        tx.step_backup(&mut running, BackupStep::FailProtect, at(45))
            .await
            .unwrap();
        assert!(!tx.is_policy_at_work(vault.id).await.unwrap());
        assert_eq!(tx.ended_backups(at(300), 9).await.unwrap().len(), 3);

        let facts = tx
            .automatic_backups(vault.id, first.resource)
            .await
            .unwrap();
        let known: Vec<_> = facts.iter().map(|one| (one.id, one.expired_at)).collect();
        assert_eq!(
            known,
            [
                (ended.id, Some(at(100))),
                (later.id, Some(at(200))),
                (never.id, None)
            ]
        );
        assert_eq!(facts[0].made_under, ended.made_under);
        let failed = tx.failed_automatic_backups(vault.id, first.resource).await;
        assert_eq!(failed.unwrap()[0].id, running.id);

        tx.end_backups(&[never.id], Some(at(60)), at(61))
            .await
            .unwrap();
        tx.end_backups(&[later.id], None, at(61)).await.unwrap();
        tx.end_backups(&[], Some(at(1)), at(61)).await.unwrap();
        let found = ids(tx.ended_backups(at(150), 9).await.unwrap());
        assert_eq!(found, [running.id, never.id, ended.id]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_last_full_backup_is_known_with_those_after_it() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        let resource = ResourceId::random();
        assert_eq!(tx.last_full(vault.id, resource).await.unwrap(), None);
        for (seconds, incremental) in [(1, false), (2, true), (3, false), (4, true), (5, true)] {
            let mut made = backup(&vault, point.id, resource, seconds);
            made.incremental = incremental;
            insert_available(&mut tx, &mut made).await;
        }
        let last = tx.last_full(vault.id, resource).await.unwrap();
        assert_eq!(last, Some((at(3), 2)));
        tx.commit().await.unwrap();
    })
    .await;
}
