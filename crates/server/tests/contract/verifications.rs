//! Verifications: what is begun, what is found, and who is told.

use cairn_api::Operation as Op;
use cairn_types::Role;
use serde_json::{Value, json};

use crate::client::{Answer, Client};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

fn code(answer: &Answer) -> &str {
    answer.body["error_code"].as_str().unwrap_or("none")
}

impl Client {
    async fn start(&self, verification: Value) -> Answer {
        let body = json!({ "verification": verification });
        self.call(Op::StartVerification, &[], body).await
    }

    /// Has something verified and returns its operation log's id.
    async fn verified(&self, verification: Value) -> String {
        let begun = self.start(verification).await;
        assert_eq!(begun.status, 202, "{begun:?}");
        self.world.work().await;
        let id = &begun.body["verification"]["operation_log_id"];
        id.as_str().unwrap().to_owned()
    }

    async fn verification(&self, backup: &str) -> Value {
        let shown = self
            .call(Op::ShowVerification, &[backup], Value::Null)
            .await;
        shown.body["verification"].clone()
    }

    async fn results(&self, query: &str) -> Vec<String> {
        let listed = self
            .call_with(Op::ListVerifications, &[], query, Value::Null)
            .await;
        let rows = listed.body["verifications"].as_array().unwrap();
        let id = |row: &Value| row["backup_id"].as_str().unwrap().to_owned();
        rows.iter().map(id).collect()
    }
}

#[tokio::test]
async fn a_backup_that_was_not_looked_at_is_unverified_and_then_whole() {
    let client = Client::new().await;
    let vault = client.server_vault().await;
    let backup = client.back_up(&vault).await;
    let before = client.verification(&backup).await;
    assert_eq!(before["status"], "unverified");
    for key in [
        "level",
        "verified_at",
        "full_at",
        "operation_log_id",
        "lost",
    ] {
        assert!(before[key].is_null(), "{key}: {before}");
    }
    assert!(client.results("").await.is_empty());

    let log = client.verified(json!({ "level": "quick" })).await;
    let quick = client.verification(&backup).await;
    assert_eq!(
        (
            &quick["status"],
            &quick["level"],
            &quick["operation_log_id"]
        ),
        (&json!("whole"), &json!("quick"), &json!(log))
    );
    assert!(quick["full_at"].is_null() && quick["quick_at"].is_string());
    client.world.clock.advance(60);
    client
        .verified(json!({ "level": "full", "vault_id": vault }))
        .await;
    let full = client.verification(&backup).await;
    assert_eq!(full["level"], "full");
    assert_eq!(full["full_at"], full["verified_at"]);
    assert_ne!(full["full_at"], quick["quick_at"]);

    // The server's backup and those of its two disks.
    assert_eq!(client.results("").await.len(), 3);
    assert_eq!(client.results("status=hurt").await.len(), 0);
    assert_eq!(client.results(&format!("vault_id={vault}")).await.len(), 3);
    let server = client.world.server().await;
    let of_server = client.results(&format!("resource_id={server}")).await;
    assert_eq!(of_server, std::slice::from_ref(&backup));
    let of_first = client.results(&format!("operation_log_id={log}")).await;
    assert!(of_first.is_empty(), "the newest result counts");
    let first = client.results("limit=1").await;
    let rest = client.results(&format!("marker={}", first[0])).await;
    assert_eq!((first.len(), rest.len()), (1, 2));
    assert!(
        client
            .results(&format!("marker={NOBODYS}"))
            .await
            .is_empty()
    );
    for wrong in ["limit=0", "limit=1001", "marker=x", "status=fine"] {
        let refused = client
            .call_with(Op::ListVerifications, &[], wrong, Value::Null)
            .await;
        assert_eq!(code(&refused), "BackupService.9900", "{wrong}");
    }

    client.call(Op::DeleteBackup, &[&backup], Value::Null).await;
    client.world.work().await;
    assert!(client.results("").await.is_empty());
}

#[tokio::test]
async fn a_verification_has_an_operation_log() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    for (wish, of_vault) in [
        (json!({ "level": "full", "backup_id": backup }), true),
        (json!({ "level": "full", "vault_id": vault }), true),
        (json!({ "level": "quick" }), false),
    ] {
        let begun = client.start(wish.clone()).await;
        let begun = &begun.body["verification"];
        assert_eq!(begun["level"], wish["level"]);
        assert_eq!(begun["backup_id"], wish["backup_id"]);
        // The same again, while it waits, is the same.
        let again = client.start(wish).await;
        assert_eq!(&again.body["verification"], begun);
        client.world.work().await;
        let id = begun["operation_log_id"].as_str().unwrap();
        let shown = client.call(Op::ShowOpLog, &[id], Value::Null).await;
        let log = &shown.body["operation_log"];
        assert_eq!(
            (&log["operation_type"], &log["status"]),
            (&json!("verify"), &json!("success"))
        );
        assert_eq!(log["vault_id"].is_string(), of_vault, "{log}");
        assert!(log["extra_info"]["common"]["bytes_total"].as_u64().unwrap() > 0);
        assert_eq!(log["extra_info"]["common"]["progress"], 100);
    }
    let query = "operation_type=verify";
    let listed = client
        .call_with(Op::ListOpLogs, &[], query, Value::Null)
        .await;
    assert_eq!(listed.body["count"], 3);
}

#[tokio::test]
async fn damage_is_named_until_a_later_backup_has_healed_it() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    client.world.damage("/packs/").await;
    client.verified(json!({ "level": "full" })).await;
    let found = client.verification(&backup).await;
    assert_eq!(found["status"], "hurt", "{found}");
    assert!(found["problem"].is_string());
    assert!(found["lost"]["bytes"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(
        client.results("status=hurt").await,
        std::slice::from_ref(&backup)
    );

    // The disk is as it was: its next backup stores what was lost.
    client.back_up(&vault).await;
    assert_eq!(client.verification(&backup).await["status"], "hurt");
    client.verified(json!({ "level": "quick" })).await;
    client.verified(json!({ "level": "full" })).await;
    let healed = client.verification(&backup).await;
    assert_eq!(healed["status"], "whole", "{healed}");
    assert!(healed["problem"].is_null() && healed["lost"].is_null());
    let restored = json!({ "restore": { "volume_id": client.world.disk().await } });
    let begun = client.call(Op::RestoreBackup, &[&backup], restored).await;
    let before = client.world.images();
    client.world.work().await;
    let job = begun.body["job_id"].as_str().unwrap();
    let log = client.call(Op::ShowOpLog, &[job], Value::Null).await;
    assert_eq!(log.body["operation_log"]["status"], "success");
    assert_eq!(client.world.images(), before);
}

#[tokio::test]
async fn what_cannot_be_verified_is_refused() {
    let mut client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    for (wish, expected) in [
        (json!({ "level": "deep" }), "BackupService.9900"),
        (json!({}), "BackupService.9900"),
        (
            json!({ "level": "quick", "vault_id": "x" }),
            "BackupService.9900",
        ),
        (
            json!({ "level": "quick", "vault_id": vault, "backup_id": backup }),
            "BackupService.9900",
        ),
        (
            json!({ "level": "quick", "vault_id": NOBODYS }),
            "BackupService.6105",
        ),
        (
            json!({ "level": "full", "backup_id": NOBODYS }),
            "BackupService.6200",
        ),
    ] {
        assert_eq!(code(&client.start(wish.clone()).await), expected, "{wish}");
    }
    let body = json!({ "checkpoint": { "vault_id": vault } });
    client.call(Op::CreateCheckpoint, &[], body).await;
    let query = "status=waiting_protect";
    let waiting = client
        .call_with(Op::ListBackups, &[], query, Value::Null)
        .await;
    let waiting = &waiting.body["backups"][0]["id"];
    let busy = client.start(json!({ "level": "quick", "backup_id": waiting }));
    assert_eq!(code(&busy.await), "BackupService.6203");
    std::fs::remove_file(client.world.image("disk.img")).unwrap();
    client.world.work().await;
    let failed = client.start(json!({ "level": "quick", "backup_id": waiting }));
    assert_eq!(code(&failed.await), "BackupService.2005");

    client.become_role(Role::ReadOnlyAccess).await;
    let refused = client.start(json!({ "level": "quick" })).await;
    assert_eq!(
        (refused.status.as_u16(), code(&refused)),
        (403, "APIGW.0302")
    );
    assert_eq!(client.verification(&backup).await["status"], "unverified");
    client.become_stranger().await;
    let wish = json!({ "level": "quick", "backup_id": backup });
    assert_eq!(code(&client.start(wish).await), "BackupService.6200");
    let wish = json!({ "level": "quick", "vault_id": vault });
    assert_eq!(code(&client.start(wish).await), "BackupService.6105");
    assert!(client.results("").await.is_empty());
}
