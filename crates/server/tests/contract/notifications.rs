//! Targets of notifications, and what became of what they were told.

use cairn_api::Operation as Op;
use cairn_types::Role;
use serde_json::{Value, json};

use crate::client::{Answer, Client};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
const SECRET: &str = "0123456789abcdef";

fn code(answer: &Answer) -> &str {
    answer.body["error_code"].as_str().unwrap_or("none")
}

fn webhook(name: &str) -> Value {
    json!({ "name": name, "webhook": { "url": "https://example.com/hook", "secret": SECRET } })
}

impl Client {
    async fn create_target(&self, target: Value) -> Answer {
        let body = json!({ "notification_target": target });
        self.call(Op::CreateNotificationTarget, &[], body).await
    }

    async fn target(&self, target: Value) -> String {
        let made = self.create_target(target).await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.body["notification_target"]["id"].as_str();
        id.unwrap().to_owned()
    }

    async fn update_target(&self, id: &str, change: Value) -> Answer {
        let body = json!({ "notification_target": change });
        self.call(Op::UpdateNotificationTarget, &[id], body).await
    }

    async fn told(&self, query: &str) -> Value {
        let listed = self
            .call_with(Op::ListNotifications, &[], query, Value::Null)
            .await;
        assert_eq!(listed.status, 200, "{listed:?}");
        listed.body
    }
}

#[tokio::test]
async fn a_target_is_made_shown_changed_and_removed() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let mut wish = webhook("ops");
    wish["events"] = json!(["backup_failed"]);
    wish["vault_id"] = json!(vault);
    let id = client.target(wish).await;
    let shown = client
        .call(Op::ShowNotificationTarget, &[&id], Value::Null)
        .await;
    let target = &shown.body["notification_target"];
    assert_eq!(
        (&target["name"], &target["kind"], &target["events"]),
        (&json!("ops"), &json!("webhook"), &json!(["backup_failed"]))
    );
    assert_eq!(
        target["webhook"],
        json!({ "url": "https://example.com/hook" })
    );
    assert!(target["mail"].is_null() && target["vault_id"] == json!(vault));
    assert!(!shown.body.to_string().contains(SECRET));

    let mail =
        json!({ "name": "mail", "mail": { "addresses": ["a@example.com", "b@example.com"] } });
    let other = client.target(mail.clone()).await;
    let listed = client
        .call(Op::ListNotificationTargets, &[], Value::Null)
        .await;
    let rows = listed.body["notification_targets"].as_array().unwrap();
    assert_eq!((rows.len(), &listed.body["count"]), (2, &json!(2)));
    assert_eq!(rows[1]["mail"], mail["mail"]);
    assert_eq!(rows[1]["events"], json!([]));

    let change = json!({ "name": "new", "webhook": { "url": "http://example.org/" } });
    let changed = client.update_target(&id, change).await;
    let target = &changed.body["notification_target"];
    assert_eq!(
        (&target["name"], &target["vault_id"]),
        (&json!("new"), &json!(vault))
    );
    assert_eq!(target["webhook"]["url"], "http://example.org/");
    let changed = client
        .update_target(&id, json!({ "vault_id": null, "events": [] }))
        .await;
    let target = &changed.body["notification_target"];
    assert_eq!(
        (&target["vault_id"], &target["events"]),
        (&Value::Null, &json!([]))
    );
    let secret = json!({ "webhook": { "secret": "fedcba9876543210" } });
    assert_eq!(client.update_target(&id, secret).await.status, 200);

    // A webhook has no addresses, and mail no URL.
    for (id, change) in [
        (&id, json!({ "mail": { "addresses": ["a@b"] } })),
        (
            &other,
            json!({ "webhook": { "url": "https://example.com/" } }),
        ),
        (&other, json!({ "webhook": { "secret": SECRET } })),
    ] {
        let refused = client.update_target(id, change.clone()).await;
        assert_eq!(code(&refused), "BackupService.9900", "{change}");
    }
    let gone = client
        .call(Op::DeleteNotificationTarget, &[&id], Value::Null)
        .await;
    assert_eq!(gone.status, 204);
    let shown = client
        .call(Op::ShowNotificationTarget, &[&id], Value::Null)
        .await;
    assert_eq!((shown.status.as_u16(), code(&shown)), (404, "Cairn.0002"));
}

#[tokio::test]
async fn what_cannot_be_a_target_is_refused() {
    let client = Client::new().await;
    let mut unknown = webhook("ops");
    unknown["vault_id"] = json!(NOBODYS);
    assert_eq!(
        code(&client.create_target(unknown).await),
        "BackupService.6105"
    );
    let id = client.target(webhook("ops")).await;
    let moved = client
        .update_target(&id, json!({ "vault_id": NOBODYS }))
        .await;
    assert_eq!(code(&moved), "BackupService.6105");
    for wrong in [
        json!({ "name": "ops" }),
        json!({ "name": "a b", "mail": { "addresses": ["a@b"] } }),
        json!({ "name": "ops", "webhook": { "url": "https://example.com/" } }),
        json!({ "name": "ops", "webhook": { "url": "file:///x", "secret": SECRET } }),
        json!({ "name": "ops", "mail": { "addresses": ["a"] } }),
        json!({ "name": "ops", "mail": { "addresses": ["a@b"] }, "events": ["test"] }),
    ] {
        let refused = client.create_target(wrong.clone()).await;
        assert_eq!(code(&refused), "BackupService.9900", "{wrong}");
    }
    for (operation, id) in [
        (Op::ShowNotificationTarget, NOBODYS),
        (Op::DeleteNotificationTarget, NOBODYS),
        (Op::TestNotificationTarget, NOBODYS),
    ] {
        let refused = client.call(operation, &[id], Value::Null).await;
        assert_eq!(code(&refused), "Cairn.0002", "{operation}");
    }
    let refused = client
        .call(Op::ShowNotification, &[NOBODYS], Value::Null)
        .await;
    assert_eq!(code(&refused), "Cairn.0003");
    for number in 1..32 {
        client.target(webhook(&format!("t{number}"))).await;
    }
    let full = client.create_target(webhook("more")).await;
    assert_eq!((full.status.as_u16(), code(&full)), (400, "Cairn.0001"));
}

#[tokio::test]
async fn what_failed_is_told_to_whoever_wants_to_know() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let all = client.target(webhook("all")).await;
    let mut wish = webhook("restores");
    wish["events"] = json!(["restore_failed"]);
    client.target(wish).await;
    let body = json!({ "checkpoint": { "vault_id": vault } });
    client.call(Op::CreateCheckpoint, &[], body).await;
    std::fs::remove_file(client.world.image("disk.img")).unwrap();
    client.world.work().await;

    let told = client.told("").await;
    assert_eq!((&told["count"], &told["dropped"]), (&json!(1), &json!(0)));
    let told = &told["notifications"][0];
    assert_eq!(
        (&told["event"], &told["status"], &told["attempts"]),
        (&json!("backup_failed"), &json!("waiting"), &json!(0))
    );
    assert_eq!(
        (&told["target_id"], &told["vault_id"]),
        (&json!(all), &json!(vault))
    );
    assert!(told["next_attempt_at"].is_string() && told["last_error"].is_null());
    let id = told["id"].as_str().unwrap();
    let shown = client.call(Op::ShowNotification, &[id], Value::Null).await;
    assert_eq!(&shown.body["notification"], told);

    // It does not arrive, and then it does.
    let service = &client.world.service;
    let sent = service.next_notification("s").await.unwrap().unwrap();
    let refused = Err("the answer was 503".to_owned());
    let settled = service.settle_notification("s", sent.notification, refused);
    settled.await.unwrap();
    let shown = client.call(Op::ShowNotification, &[id], Value::Null).await;
    let one = &shown.body["notification"];
    assert_eq!(
        (&one["attempts"], &one["last_error"]),
        (&json!(1), &json!("the answer was 503"))
    );
    client.world.clock.advance(10);
    let sent = service.next_notification("s").await.unwrap().unwrap();
    let settled = service.settle_notification("s", sent.notification, Ok(()));
    settled.await.unwrap();
    let one = &client.told("status=delivered").await["notifications"][0];
    assert_eq!((&one["id"], &one["attempts"]), (&json!(id), &json!(2)));
    assert!(one["ended_at"].is_string() && one["next_attempt_at"].is_null());
    for (query, count) in [
        ("status=waiting", 0),
        ("event=backup_failed", 1),
        ("event=vault_full", 0),
        (&format!("target_id={all}"), 1),
        (&format!("vault_id={NOBODYS}"), 0),
        (&format!("marker={NOBODYS}"), 1),
    ] {
        assert_eq!(client.told(query).await["count"], count, "{query}");
    }
    for wrong in ["limit=0", "marker=x", "status=fine", "event=rain"] {
        let refused = client
            .call_with(Op::ListNotifications, &[], wrong, Value::Null)
            .await;
        assert_eq!(code(&refused), "BackupService.9900", "{wrong}");
    }
}

#[tokio::test]
async fn a_test_is_sent_once() {
    let client = Client::new().await;
    let id = client.target(webhook("ops")).await;
    let begun = client
        .call(Op::TestNotificationTarget, &[&id], Value::Null)
        .await;
    assert_eq!(begun.status, 202);
    assert_eq!(begun.body["notification"]["event"], "test");
    let service = &client.world.service;
    let sent = service.next_notification("s").await.unwrap().unwrap();
    let settled = service.settle_notification("s", sent.notification, Err("no".to_owned()));
    settled.await.unwrap();
    let told = client.told("event=test").await;
    assert_eq!(told["notifications"][0]["status"], "failed");
    assert_eq!(told["notifications"][0]["last_error"], "no");
}

#[tokio::test]
async fn only_whoever_makes_policies_changes_targets() {
    for role in [Role::ReadOnlyAccess, Role::BackupsAndVaultsFullAccess] {
        let mut client = Client::new().await;
        let id = client.target(webhook("ops")).await;
        client.become_role(role).await;
        let new = json!({ "notification_target": webhook("more") });
        let change = json!({ "notification_target": {} });
        for (operation, path, body) in [
            (Op::CreateNotificationTarget, vec![], new),
            (Op::UpdateNotificationTarget, vec![id.as_str()], change),
            (Op::DeleteNotificationTarget, vec![id.as_str()], Value::Null),
            (Op::TestNotificationTarget, vec![id.as_str()], Value::Null),
        ] {
            let refused = client.call(operation, &path, body).await;
            assert_eq!(code(&refused), "APIGW.0302", "{operation} as {role}");
        }
        let listed = client
            .call(Op::ListNotificationTargets, &[], Value::Null)
            .await;
        assert_eq!(listed.body["count"], 1, "{role}");
    }
}
