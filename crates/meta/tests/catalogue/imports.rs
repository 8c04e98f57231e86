//! What was taken over from another site, and what restores hold.

use cairn_meta::tasks::{Task, TaskState};
use cairn_meta::{Import, Origin};
use cairn_types::{BackupId, BackupStep, CheckpointId, OperationLogId, ProjectId, ResourceId};

use crate::fixtures::*;

fn task() -> Task {
    let id = OperationLogId::random();
    Task::new(id, "sync", "{}".to_owned(), "", at(1))
}

#[tokio::test]
async fn an_import_is_remembered_once_and_goes_with_its_vault() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        let resource = ResourceId::random();
        let mut own = backup(&vault, point.id, resource, 5);
        let mut imported = backup(&vault, point.id, resource, 9);
        insert_available(&mut tx, &mut own).await;
        tx.insert_backup(&imported).await.unwrap();
        let import = Import {
            project,
            backup: imported.id,
            vault: vault.id,
            origin: Origin {
                repository: "aa".to_owned(),
                project: ProjectId::random(),
                backup: BackupId::random(),
            },
            origin_checkpoint: CheckpointId::random(),
            external: "branch".to_owned(),
            task: OperationLogId::random(),
            gone_at: None,
        };
        tx.insert_import(&import).await.unwrap();
        // The resource is another site's, whatever its id: nobody waits for it
        // here, and the next backup does not build on what came from there.
        assert!(tx.busy_backups_of(resource).await.unwrap().is_empty());
        for step in [BackupStep::StartProtect, BackupStep::FinishProtect] {
            tx.step_backup(&mut imported, step, at(9)).await.unwrap();
        }
        let newest = tx.newest_available(project, resource).await.unwrap();
        assert_eq!(newest.map(|found| found.id), Some(own.id));
        tx.commit().await.unwrap();

        let mut tx = meta.begin().await.unwrap();
        assert!(tx.is_imported(imported.id).await.unwrap());
        assert!(!tx.is_imported(own.id).await.unwrap());
        assert!(tx.is_id_taken(imported.id).await.unwrap());
        assert!(tx.is_id_taken(point.id).await.unwrap());
        assert!(!tx.is_id_taken(BackupId::random()).await.unwrap());
        let known = tx.imports_from(project, "aa").await.unwrap();
        assert_eq!(known, std::slice::from_ref(&import));
        assert!(tx.imports_from(project, "bb").await.unwrap().is_empty());
        let finder = OperationLogId::random();
        let gone = Some((at(20), finder));
        tx.set_gone(&import, gone).await.unwrap();
        assert_eq!(tx.gone_found_by(finder).await.unwrap(), 1);
        let shown = tx.imports_by(import.task).await.unwrap();
        assert_eq!(shown[0].gone_at, Some(at(20)));
        tx.set_gone(&import, None).await.unwrap();
        assert_eq!(tx.gone_found_by(finder).await.unwrap(), 0);
        tx.remove_import(&import).await.unwrap();
        assert!(!tx.is_imported(imported.id).await.unwrap());
        tx.insert_import(&import).await.unwrap();
        tx.remove_vault(vault.id).await.unwrap();
        assert!(tx.imports_from(project, "aa").await.unwrap().is_empty());
        drop(tx);

        let mut tx = meta.begin().await.unwrap();
        assert!(tx.insert_import(&import).await.is_err(), "it is there");
    })
    .await;
}

#[tokio::test]
async fn a_restore_holds_its_backup_and_its_targets_while_its_task_lives() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (vault, point) = vault_with_checkpoint(&mut tx, project).await;
        let mut read = backup(&vault, point.id, ResourceId::random(), 5);
        insert_available(&mut tx, &mut read).await;
        let (mut task, target) = (task(), ResourceId::random());
        tx.insert_task(&task).await.unwrap();
        let both = [target, ResourceId::random()];
        tx.insert_restore(task.id, read.id, &both).await.unwrap();
        assert!(tx.is_restored_from(read.id).await.unwrap());
        assert!(tx.is_restored_onto(target).await.unwrap());
        assert!(!tx.is_restored_onto(read.resource).await.unwrap());
        assert!(
            !tx.is_restored_by(read.id, project).await.unwrap(),
            "no log"
        );
        // A task that is over holds nothing, even where nobody tidied up.
        let claimed = tx.claim_task("me", at(2), at(9)).await.unwrap().unwrap();
        assert_eq!(claimed.id, task.id);
        task = claimed;
        task.state = TaskState::Failed;
        assert!(tx.save_task(&task, "me").await.unwrap());
        assert!(!tx.is_restored_from(read.id).await.unwrap());
        assert!(!tx.is_restored_onto(target).await.unwrap());
        task.state = TaskState::Undoing;
        assert!(tx.save_task(&task, "me").await.unwrap());
        assert!(tx.is_restored_from(read.id).await.unwrap());
        tx.remove_restore(task.id).await.unwrap();
        tx.remove_restore(task.id).await.unwrap();
        assert!(!tx.is_restored_from(read.id).await.unwrap());
        let none = tx.restored_from_vault(vault.id, None).await.unwrap();
        assert_eq!(none, None);
    })
    .await;
}
