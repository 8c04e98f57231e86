//! Shares, and the backups that they show.

use cairn_meta::{BackupFilter, BackupScope, Project, Share, ShareFilter, ShareSort};
use cairn_types::{MemberStatus, ProjectId, ResourceId, ShareId};

use crate::fixtures::*;

fn share(backup: cairn_types::BackupId, member: ProjectId, second: i64) -> Share {
    Share {
        id: ShareId::random(),
        backup,
        member,
        status: MemberStatus::Pending,
        vault: None,
        created_at: at(second),
        updated_at: None,
    }
}

#[tokio::test]
async fn a_shared_backup_is_seen_by_its_members_alone() {
    on_each_database(async |meta| {
        let owner = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let domain = tx.domains().await.unwrap()[0].id;
        let [member, stranger] = [ProjectId::random(), ProjectId::random()];
        for (id, name) in [(member, "member"), (stranger, "stranger")] {
            let (name, created_at) = (name.to_owned(), at(0));
            let new = Project {
                id,
                domain,
                name,
                created_at,
            };
            tx.insert_project(&new).await.unwrap();
        }
        let (vault, theirs) = (vault(owner, "v", 1), vault(member, "w", 1));
        let point = checkpoint(&vault);
        tx.insert_vault(&vault).await.unwrap();
        tx.insert_vault(&theirs).await.unwrap();
        tx.insert_checkpoint(&point).await.unwrap();
        let whole = backup(&vault, point.id, ResourceId::random(), 5);
        let mut part = backup(&vault, point.id, ResourceId::random(), 5);
        part.parent = Some(whole.id);
        tx.insert_backup(&whole).await.unwrap();
        tx.insert_backup(&part).await.unwrap();
        let mut first = share(whole.id, member, 6);
        tx.insert_share(&first).await.unwrap();
        let twice = share(whole.id, member, 7);

        for (who, seen) in [(owner, true), (member, true), (stranger, false)] {
            for id in [whole.id, part.id] {
                let found = tx.visible_backup(who, id).await.unwrap();
                assert_eq!(found.is_some(), seen);
            }
        }
        let mut count = async |who, scope, share_status, vault| {
            let filter = BackupFilter {
                scope,
                share_status,
                vault,
                ..BackupFilter::default()
            };
            tx.backups(who, &filter, &[], &everything(9))
                .await
                .unwrap()
                .1
        };
        let pending = Some(MemberStatus::Pending);
        assert_eq!(count(owner, BackupScope::Own, None, None).await, 1);
        assert_eq!(count(owner, BackupScope::Own, pending, None).await, 0);
        assert_eq!(count(owner, BackupScope::Shared, None, None).await, 0);
        assert_eq!(count(member, BackupScope::Own, None, None).await, 0);
        assert_eq!(count(member, BackupScope::Both, None, None).await, 1);
        assert_eq!(count(member, BackupScope::Shared, pending, None).await, 1);
        let (mine, his) = (Some(theirs.id), Some(vault.id));
        assert_eq!(count(member, BackupScope::Shared, None, his).await, 0);
        assert_eq!(count(stranger, BackupScope::Both, None, None).await, 0);

        first.status = MemberStatus::Accepted;
        first.vault = mine;
        first.updated_at = Some(at(9));
        tx.update_share(&first).await.unwrap();
        let held = tx.share(whole.id, member).await.unwrap();
        assert_eq!(held, Some(first.clone()));
        let filter = BackupFilter {
            scope: BackupScope::Both,
            vault: mine,
            ..BackupFilter::default()
        };
        let (found, _) = tx
            .backups(member, &filter, &[], &everything(9))
            .await
            .unwrap();
        assert_eq!(found[0].id, whole.id);

        let second = share(whole.id, stranger, 8);
        tx.insert_share(&second).await.unwrap();
        let by_change = [ShareSort {
            column: "COALESCE(updated_at, created_at)",
            descending: false,
        }];
        let mut page = everything(9);
        let all = ShareFilter::default();
        let (found, count) = tx.shares(whole.id, &all, &by_change, &page).await.unwrap();
        assert_eq!((found, count), (vec![second.clone(), first.clone()], 2));
        page.marker = Some(second.id.to_string());
        let (found, _) = tx.shares(whole.id, &all, &by_change, &page).await.unwrap();
        assert_eq!(found, [first.clone()]);
        let (found, _) = tx.shares(whole.id, &all, &[], &page).await.unwrap();
        assert_eq!(found, [first]);

        // With the vault goes what was taken into it, with the backup all shares.
        tx.remove_vault(theirs.id).await.unwrap();
        let left = tx.share(whole.id, member).await.unwrap().unwrap();
        assert_eq!((left.status, left.vault), (MemberStatus::Pending, None));
        assert!(tx.remove_share(whole.id, stranger).await.unwrap());
        assert!(!tx.remove_share(whole.id, stranger).await.unwrap());
        tx.remove_backup(&whole).await.unwrap();
        assert!(tx.share(whole.id, member).await.unwrap().is_none());
        tx.commit().await.unwrap();
        let mut tx = meta.begin().await.unwrap();
        assert!(tx.insert_share(&twice).await.is_err(), "its backup is gone");
    })
    .await;
}
