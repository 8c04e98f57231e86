use cairn_api::operation_log::{
    OperationCommon, OperationError, OperationExtraInfo, OperationRestore,
};
use cairn_api::resource::Resource;
use cairn_types::{ProjectId, ResourceType, Timestamp};

use super::*;

fn log(progress: u8, bytes: Option<(u64, u64)>) -> OperationLog {
    let at = Timestamp::from_micros(0);
    let resource = Resource {
        id: ResourceId::random(),
        resource_type: ResourceType::Volume,
        name: Some("root".to_owned()),
        extra_info: None,
    };
    let common = OperationCommon {
        progress,
        bytes_done: bytes.map(|(done, _)| done),
        bytes_total: bytes.map(|(_, total)| total),
        ..Default::default()
    };
    OperationLog {
        id: OperationLogId::random(),
        operation_type: OperationType::Backup,
        status: OperationStatus::Running,
        project_id: ProjectId::random(),
        checkpoint_id: None,
        policy_id: None,
        provider_id: None,
        vault_id: None,
        vault_name: None,
        created_at: at,
        started_at: at,
        ended_at: None,
        updated_at: at,
        error_info: OperationError::default(),
        extra_info: OperationExtraInfo {
            common,
            resource,
            backup: None,
            restore: None,
            delete: None,
            remove_resources: None,
            replication: None,
            sync: None,
            vault_delete: None,
            migrate_resources: None,
            update_expiration_time: None,
        },
    }
}

#[test]
fn bytes_that_are_told_win_over_those_that_are_reckoned() {
    let (told, reckoned) = (log(10, Some((5, 7))), log(50, None));
    let sizes = HashMap::from([
        (told.extra_info.resource.id, 1_000),
        (reckoned.extra_info.resource.id, 1_000),
    ]);
    assert_eq!(
        Tally::of(&[told, reckoned], &sizes),
        Tally::Bytes {
            done: 505,
            total: 1007
        }
    );
}

#[test]
fn work_that_is_not_measured_yet_is_reckoned_by_its_resource() {
    let begun = log(0, Some((0, 0)));
    let sizes = HashMap::from([(begun.extra_info.resource.id, 1_000)]);
    assert_eq!(
        Tally::of(&[begun], &sizes),
        Tally::Bytes {
            done: 0,
            total: 1_000
        }
    );
}

#[test]
fn without_any_size_percent_are_counted() {
    let logs = [log(10, Some((5, 7))), log(50, None)];
    assert_eq!(Tally::of(&logs, &HashMap::new()), Tally::Percent(30));
    assert_eq!(Tally::of(&[], &HashMap::new()), Tally::Percent(0));
}

#[test]
fn a_failed_task_is_an_error_with_its_reason() {
    let mut failed = log(50, None);
    failed.status = OperationStatus::Failed;
    failed.error_info = OperationError {
        code: "BackupService.7000".to_owned(),
        message: "gone".to_owned(),
    };
    let error = success(failed.clone()).unwrap_err();
    let line = format!(
        "backup of root failed: gone (BackupService.7000, task {})",
        failed.id
    );
    assert_eq!(error.line(), line);
    assert_eq!(error.exit_code(), 1);
    failed.status = OperationStatus::Skipped;
    assert!(success(failed).is_ok());
}

#[tokio::test(start_paused = true)]
async fn questions_become_rarer_up_to_a_bound_and_end_at_the_deadline() {
    let mut poll = Poll::new(Some(60));
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = poll.pause().await {
            break error;
        }
    };
    assert!(matches!(error, Error::TimedOut { seconds: 60 }));
    assert_eq!(poll.interval, LONGEST_INTERVAL);
    assert!(begun.elapsed() <= Duration::from_secs(60));
}

#[tokio::test]
async fn a_server_may_be_away_for_a_while_but_not_for_ever() {
    let away = || {
        Err::<(), _>(client::Error::Service {
            status: 503,
            code: "503".to_owned(),
            message: String::new(),
            request_id: None,
        })
    };
    let mut poll = Poll::new(None);
    for _ in 0..MAX_MISSED {
        assert_eq!(poll.answer(away()).unwrap(), None);
    }
    assert!(poll.answer(away()).is_err());
    assert!(poll.answer(Ok(())).unwrap().is_some());
    assert_eq!(poll.answer(away()).unwrap(), None);
}

#[test]
fn a_restore_elsewhere_is_named_by_both_ends() {
    let mut restore = log(0, None);
    restore.operation_type = OperationType::Restore;
    let own = restore.extra_info.resource.id;
    restore.extra_info.restore = Some(OperationRestore {
        backup_id: BackupId::random(),
        backup_name: "nightly".to_owned(),
        target_resource_id: own,
        target_resource_name: "root".to_owned(),
        file_problems: None,
    });
    assert_eq!(what(&restore), "restore of root");
    let to = restore.extra_info.restore.as_mut().unwrap();
    (to.target_resource_id, to.target_resource_name) = (ResourceId::random(), "spare".to_owned());
    assert_eq!(what(&restore), "restore of root onto spare");
    let shown = crate::task::show(&restore);
    assert!(shown.contains("spare ("), "{shown}");
}
