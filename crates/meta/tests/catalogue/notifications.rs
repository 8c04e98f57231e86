//! The outbox: who wants to be told, who sends it, and what is forgotten.

use cairn_meta::{Meta, Notification, NotificationFilter, NotificationTarget, Page, Tx, VaultMark};
use cairn_types::{
    NotificationEvent, NotificationId, NotificationStatus, ProjectId, TargetId, TargetKind, VaultId,
};

use crate::fixtures::*;

fn target(project: ProjectId, name: &str, seconds: i64) -> NotificationTarget {
    NotificationTarget {
        id: TargetId::random(),
        project,
        name: name.to_owned(),
        kind: TargetKind::Webhook,
        url: "https://example.com/ключ?a=\"b\"".to_owned(),
        sealed_secret: "00ff".to_owned(),
        addresses: vec!["a@example.com".to_owned()],
        events: vec![NotificationEvent::BackupFailed],
        vault: Some(VaultId::random()),
        created_at: at(seconds),
        updated_at: at(seconds),
    }
}

fn notification(target: &NotificationTarget, seconds: i64) -> Notification {
    Notification {
        id: NotificationId::random(),
        project: target.project,
        target: target.id,
        target_name: target.name.clone(),
        event: NotificationEvent::BackupFailed,
        vault: target.vault,
        summary: "It failed.".to_owned(),
        body: r#"{"event":"backup_failed"}"#.to_owned(),
        status: NotificationStatus::Waiting,
        attempts: 0,
        last_error: String::new(),
        owner: None,
        lease_until: None,
        not_before: at(seconds),
        created_at: at(seconds),
        ended_at: None,
    }
}

async fn claim(tx: &mut Tx, owner: &str, now: i64) -> Option<Notification> {
    let claimed = tx.claim_notification(owner, at(now), at(now + 60)).await;
    claimed.unwrap().map(|(notification, _)| notification)
}

/// A project with a target, both in the catalogue.
async fn a_target(meta: &Meta, tx: &mut Option<Tx>) -> NotificationTarget {
    let project = project(meta).await;
    let mut writing = meta.begin().await.unwrap();
    let made = target(project, "first", 1);
    writing.insert_notification_target(&made).await.unwrap();
    *tx = Some(writing);
    made
}

#[tokio::test]
async fn a_target_is_written_changed_and_removed_with_what_is_on_its_way() {
    on_each_database(async |meta| {
        let mut tx = None;
        let mut first = a_target(&meta, &mut tx).await;
        let (mut tx, project) = (tx.unwrap(), first.project);
        let second = target(project, "second", 2);
        tx.insert_notification_target(&second).await.unwrap();
        let listed = tx.notification_targets(project).await.unwrap();
        assert_eq!(listed, [first.clone(), second.clone()]);
        let stranger = ProjectId::random();
        let theirs = tx.notification_target(stranger, first.id).await.unwrap();
        assert_eq!(theirs, None);

        first.name = "other".to_owned();
        first.url = "http://example.org/".to_owned();
        first.sealed_secret = "11".to_owned();
        first.addresses.clear();
        first.events.clear();
        first.vault = None;
        first.updated_at = at(9);
        tx.update_notification_target(&first).await.unwrap();
        let shown = tx.notification_target(project, first.id).await.unwrap();
        assert_eq!(shown, Some(first.clone()));

        let (waiting, mut over) = (notification(&first, 3), notification(&first, 4));
        (over.status, over.ended_at) = (NotificationStatus::Delivered, Some(at(5)));
        for one in [&waiting, &over] {
            tx.insert_notification(one).await.unwrap();
        }
        tx.remove_notification_target(first.id).await.unwrap();
        assert_eq!(tx.notification_targets(project).await.unwrap(), [second]);
        assert_eq!(tx.notification(project, waiting.id).await.unwrap(), None);
        let kept = tx.notification(project, over.id).await.unwrap();
        assert_eq!(kept, Some(over));

        // One that came while its target went is nobody's.
        tx.insert_notification(&waiting).await.unwrap();
        assert_eq!(claim(&mut tx, "me", 10).await, None);
        assert_eq!(tx.notification(project, waiting.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_notification_has_one_sender_and_a_target_one_notification_at_a_time() {
    on_each_database(async |meta| {
        let mut tx = None;
        let one = a_target(&meta, &mut tx).await;
        let mut tx = tx.unwrap();
        let other = target(one.project, "other", 2);
        tx.insert_notification_target(&other).await.unwrap();
        let (first, second) = (notification(&one, 10), notification(&one, 11));
        let third = notification(&other, 12);
        for new in [&second, &first, &third] {
            tx.insert_notification(new).await.unwrap();
        }
        assert!(!tx.has_due_notification(at(9)).await.unwrap());
        assert_eq!(claim(&mut tx, "me", 9).await, None);
        assert!(tx.has_due_notification(at(10)).await.unwrap());
        let claimed = claim(&mut tx, "me", 20).await.unwrap();
        assert_eq!((claimed.id, claimed.attempts), (first.id, 1));
        let claimed = claim(&mut tx, "you", 20).await.unwrap();
        assert_eq!(
            claimed.id, third.id,
            "the target is being told of the first"
        );
        assert!(!tx.has_due_notification(at(20)).await.unwrap());
        assert_eq!(claim(&mut tx, "you", 20).await, None);

        // Its sender is gone: it is sent again under the same id.
        let again = claim(&mut tx, "you", 80).await.unwrap();
        assert_eq!((again.id, again.attempts), (first.id, 2));
        let mut late = first.clone();
        late.status = NotificationStatus::Failed;
        assert!(!tx.save_notification(&late, "me").await.unwrap());
        let mut done = again;
        (done.status, done.ended_at) = (NotificationStatus::Delivered, Some(at(81)));
        assert!(tx.save_notification(&done, "you").await.unwrap());
        assert!(!tx.save_notification(&done, "you").await.unwrap());
        let shown = tx
            .notification(one.project, first.id)
            .await
            .unwrap()
            .unwrap();
        (done.owner, done.lease_until) = (None, None);
        assert_eq!(shown, done);

        tx.hold_notifications(one.id, at(100)).await.unwrap();
        assert_eq!(claim(&mut tx, "me", 99).await.unwrap().id, third.id);
        assert_eq!(claim(&mut tx, "me", 100).await.unwrap().id, second.id);
        assert_eq!(tx.end_notification_leases().await.unwrap(), 2);
        assert!(claim(&mut tx, "new", 101).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_list_of_notifications_has_its_filters_and_pages() {
    on_each_database(async |meta| {
        let mut tx = None;
        let target = a_target(&meta, &mut tx).await;
        let (mut tx, project) = (tx.unwrap(), target.project);
        let old = notification(&target, 10);
        let mut new = notification(&target, 11);
        (new.event, new.vault) = (NotificationEvent::VaultFull, None);
        (new.status, new.ended_at) = (NotificationStatus::Failed, Some(at(12)));
        for one in [&old, &new] {
            tx.insert_notification(one).await.unwrap();
        }
        let all = NotificationFilter::default;
        let mut list = async |filter: NotificationFilter, page: Page| {
            let (found, count) = tx.notifications(project, &filter, &page).await.unwrap();
            (found, count)
        };
        let both = list(all(), everything(10)).await;
        assert_eq!(both, (vec![new.clone(), old.clone()], 2));
        for (filter, expected) in [
            (
                NotificationFilter {
                    status: Some(NotificationStatus::Waiting),
                    ..all()
                },
                &old,
            ),
            (
                NotificationFilter {
                    event: Some(NotificationEvent::VaultFull),
                    ..all()
                },
                &new,
            ),
            (
                NotificationFilter {
                    vault: target.vault,
                    target: Some(target.id),
                    ..all()
                },
                &old,
            ),
        ] {
            let found = list(filter, everything(10)).await;
            assert_eq!(found, (vec![expected.clone()], 1));
        }
        let behind = Page {
            marker: Some(new.id.to_string()),
            ..everything(10)
        };
        assert_eq!(list(all(), behind).await.0, [old]);
        let theirs = tx
            .notifications(ProjectId::random(), &all(), &everything(10))
            .await;
        assert_eq!(theirs.unwrap().1, 0);
    })
    .await;
}

#[tokio::test]
async fn the_oldest_go_first_and_are_counted() {
    on_each_database(async |meta| {
        let mut tx = None;
        let target = a_target(&meta, &mut tx).await;
        let (mut tx, project) = (tx.unwrap(), target.project);
        let mut ids = Vec::new();
        for seconds in 0..5 {
            let waiting = notification(&target, 10 + seconds);
            tx.insert_notification(&waiting).await.unwrap();
            ids.push(waiting.id);
            let mut over = notification(&target, 20 + seconds);
            (over.status, over.ended_at) = (NotificationStatus::Delivered, Some(at(30 + seconds)));
            tx.insert_notification(&over).await.unwrap();
        }
        let removed = tx.remove_oldest_notifications(project, true, 3).await;
        assert_eq!(removed.unwrap(), 2);
        let again = tx.remove_oldest_notifications(project, true, 3).await;
        assert_eq!(again.unwrap(), 0);
        for (position, id) in ids.iter().enumerate() {
            let found = tx.notification(project, *id).await.unwrap();
            assert_eq!(found.is_some(), position >= 2, "{position}");
        }
        let others = tx.remove_oldest_notifications(ProjectId::random(), false, 0);
        assert_eq!(others.await.unwrap(), 0);
        assert_eq!(tx.remove_ended_notifications(at(31)).await.unwrap(), 2);
        let over = tx.remove_oldest_notifications(project, false, 1).await;
        assert_eq!(over.unwrap(), 2);
        let all = NotificationFilter::default();
        let left = tx.notifications(project, &all, &everything(10)).await;
        assert_eq!(left.unwrap().1, 4);

        assert_eq!(tx.dropped_notifications(project).await.unwrap(), 0);
        for dropped in [2, 3] {
            let counted = tx.count_dropped_notifications(project, dropped).await;
            counted.unwrap();
        }
        assert_eq!(tx.dropped_notifications(project).await.unwrap(), 5);
    })
    .await;
}

#[tokio::test]
async fn what_is_known_of_a_vault_goes_with_it() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let vault = vault(project, "v", 1);
        tx.insert_vault(&vault).await.unwrap();
        let none = VaultMark::default();
        assert_eq!(tx.vault_mark(vault.id).await.unwrap(), none);
        for is_full in [true, false] {
            let mark = VaultMark {
                over_threshold: true,
                is_full,
            };
            tx.set_vault_mark(vault.id, mark).await.unwrap();
            assert_eq!(tx.vault_mark(vault.id).await.unwrap(), mark);
        }
        tx.remove_vault(vault.id).await.unwrap();
        assert_eq!(tx.vault_mark(vault.id).await.unwrap(), none);
    })
    .await;
}
