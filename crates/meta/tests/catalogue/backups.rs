//! Lists of backups.

use crate::fixtures::*;
use cairn_meta::{Backup, BackupFilter, BackupSort, Page};
use cairn_types::ResourceId;

#[tokio::test]
async fn backups_are_filtered_sorted_and_paged() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let vault = vault(project, "v", 1);
        let resource = ResourceId::random();
        let point = checkpoint(&vault);
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        tx.insert_checkpoint(&point).await.unwrap();
        let mut backups: Vec<Backup> = (0..6)
            .map(|number| backup(&vault, point.id, resource, 10 + number))
            .collect();
        for backup in &mut backups {
            insert_available(&mut tx, backup).await;
        }
        let mut ids = async |filter: BackupFilter, sort: &[BackupSort], page: Page| {
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
        let by_name = [BackupSort {
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
    })
    .await;
}
