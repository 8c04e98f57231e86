//! Lists of backups.

use crate::fixtures::*;
use cairn_meta::{Backup, BackupFilter, Page, SortKey};
use cairn_types::ResourceId;

#[tokio::test]
async fn backups_are_filtered_sorted_and_paged() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let resource = ResourceId::random();
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        let mut backups: Vec<Backup> = (0..6)
            .map(|number| backup(&vault, point.id, resource, 10 + number))
            .collect();
        for backup in &mut backups {
            insert_available(&mut tx, backup).await;
        }
        let mut ids = async |filter: BackupFilter, sort: &[SortKey], page: Page| {
            let (found, count) = tx.backups(project, &filter, sort, &page).await.unwrap();
            let position = |found: &Backup| backups.iter().position(|one| one.id == found.id);
            (
                found
                    .iter()
                    .map(|found| position(found).unwrap())
                    .collect::<Vec<_>>(),
                count,
            )
        };
        let all = BackupFilter::default;
        assert_eq!(ids(all(), &[], everything(4)).await, (vec![5, 4, 3, 2], 6));
        let by_name = [SortKey {
            column: "name",
            descending: false,
        }];
        assert_eq!(ids(all(), &by_name, everything(3)).await.0, [0, 1, 2]);
        let marker = Some(backups[2].id.to_string());
        let page = Page {
            limit: 2,
            offset: 0,
            marker,
        };
        assert_eq!(ids(all(), &by_name, page.clone()).await.0, [3, 4]);
        assert_eq!(ids(all(), &[], page).await.0, [1, 0]);
        let incremental = BackupFilter {
            incremental: Some(true),
            ..all()
        };
        assert_eq!(
            ids(incremental, &[], everything(9)).await,
            (vec![4, 2, 0], 3)
        );
        let between = BackupFilter {
            created_from: Some(at(11)),
            created_until: Some(at(13)),
            ..all()
        };
        assert_eq!(ids(between, &[], everything(9)).await.0, [3, 2, 1]);
        let named = BackupFilter {
            resource_name: Some("web_".to_owned()),
            ..all()
        };
        assert_eq!(ids(named, &[], everything(9)).await.1, 6);
        let status = vec!["error".to_owned(), "deleting".to_owned()];
        assert_eq!(
            ids(BackupFilter { status, ..all() }, &[], everything(9))
                .await
                .1,
            0
        );
        // 6 MiB of 100 GiB are less than a percent.
        let full = BackupFilter {
            used_percent: Some(1),
            ..all()
        };
        assert_eq!(ids(full, &[], everything(9)).await.1, 0);
        // The number of all is kept apart from those of disks.
        let disk = Backup {
            id: cairn_types::BackupId::random(),
            parent: Some(backups[0].id),
            status: cairn_types::BackupStatus::FIRST,
            ..backups[0].clone()
        };
        tx.insert_backup(&disk).await.unwrap();
        for (gone, left) in [(1, 5), (1, 5), (0, 4)] {
            tx.remove_backup(&backups[gone]).await.unwrap();
            let (_, kept) = tx
                .backups(project, &all(), &[], &everything(1))
                .await
                .unwrap();
            let counted = BackupFilter {
                vault: Some(vault.id),
                ..all()
            };
            let (_, counted) = tx
                .backups(project, &counted, &[], &everything(1))
                .await
                .unwrap();
            assert_eq!((kept, counted), (left, left));
        }
    })
    .await;
}

#[tokio::test]
async fn pages_follow_one_another_in_every_order() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        for number in 0..12 {
            let mut one = backup(&vault, point.id, ResourceId::random(), 10 + number / 4);
            one.name = format!("name_{}", number % 3);
            one.protected_at = (number % 2 == 0).then(|| at(30 + number / 3));
            tx.insert_backup(&one).await.unwrap();
        }
        let key = |column, descending| SortKey { column, descending };
        for sort in [
            vec![],
            vec![key("name", false)],
            vec![key("protected_at", true)],
            vec![key("protected_at", false), key("name", true)],
            vec![
                key("name", true),
                key("created_at", false),
                key("updated_at", true),
            ],
            vec![key("status", false), key("id", true), key("name", false)],
        ] {
            let all = BackupFilter::default();
            let (whole, count) = tx
                .backups(project, &all, &sort, &everything(100))
                .await
                .unwrap();
            assert_eq!((whole.len(), count), (12, 12), "{sort:?}");
            let mut paged = Vec::new();
            let mut page = everything(5);
            loop {
                let (rows, count) = tx.backups(project, &all, &sort, &page).await.unwrap();
                assert_eq!(count, 12);
                let Some(last) = rows.last() else { break };
                page.marker = Some(last.id.to_string());
                paged.extend(rows);
            }
            assert_eq!(paged, whole, "{sort:?}");
            // A marker of another project's leads nowhere.
            page.marker = Some(whole[0].id.to_string());
            let stranger = cairn_types::ProjectId::random();
            let none = tx.backups(stranger, &all, &sort, &page).await.unwrap();
            assert_eq!((none.0.len(), none.1), (0, 0));
        }
    })
    .await;
}
