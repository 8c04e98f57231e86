//! Hybrid vaults and backups in buckets: what is begun, and what comes of it.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

fn code(answer: &Answer) -> &str {
    answer.body["error_code"].as_str().unwrap_or("none")
}

async fn sync(client: &Client, vault: &str) -> Answer {
    let body = json!({ "sync": { "vault_id": vault, "auto_trigger": false } });
    client.call(Op::ImportCheckpoint, &[], body).await
}

async fn log(client: &Client, id: &Value) -> Value {
    let id = id.as_str().unwrap();
    let shown = client.call(Op::ShowOpLog, &[id], Value::Null).await;
    shown.body["operation_log"].clone()
}

#[tokio::test]
async fn a_hybrid_vault_without_a_site_finds_nothing_new() {
    let mut client = Client::new().await;
    let mut body = vault_body("server", 100, json!([]));
    body["vault"]["billing"]["cloud_type"] = json!("hybrid");
    let made = client.call(Op::CreateVault, &[], body).await;
    let vault = made.body["vault"]["id"].as_str().unwrap().to_owned();
    let begun = sync(&client, &vault).await;
    let begun = &begun.body["sync"];
    assert_eq!(begun["vault_id"], *vault);
    let waiting = log(&client, &begun["operation_log_id"]).await;
    assert_eq!(
        (&waiting["operation_type"], &waiting["status"]),
        (&json!("sync"), &json!("waiting"))
    );
    assert_eq!(code(&sync(&client, &vault).await), "BackupService.7302");
    client.world.work().await;
    let done = log(&client, &begun["operation_log_id"]).await;
    assert_eq!(done["status"], "success");
    let expected =
        json!({ "sync_backup_num": 0, "delete_backup_num": 0, "err_sync_backup_num": 0 });
    assert_eq!(done["extra_info"]["sync"], expected);
    assert_eq!(
        sync(&client, &vault).await.status,
        200,
        "one after the other"
    );

    let plain = client.disk_vault().await;
    assert_eq!(code(&sync(&client, &plain).await), "BackupService.7300");
    assert_eq!(code(&sync(&client, NOBODYS).await), "BackupService.6105");
    assert_eq!(code(&sync(&client, "x").await), "BackupService.9900");
    client.become_stranger().await;
    assert_eq!(code(&sync(&client, &vault).await), "BackupService.6105");
}

#[tokio::test]
async fn an_import_from_a_bucket_fails_with_a_reason() {
    let mut client = Client::new().await;
    let backups = [NOBODYS, "1f9e6b47-7655-4a19-b563-21b4ef023025"];
    let entry = |id: &&str| {
        json!({ "backup_id": id, "backup_name": "backup_name", "bucket_name": "bucket-7",
            "created_at": 1_553_587_260, "image_path": "a/b", "resource_name": "host-1",
            "resource_id": "96f7512d-239d-3f31-80cf-d1ce041df9a6",
            "resource_type": "OS::Native::Server" })
    };
    let body = json!({ "sync": backups.iter().map(entry).collect::<Vec<_>>() });
    let begun = client.call(Op::ImportBackup, &[], body.clone()).await;
    let begun = begun.body["sync"].as_array().unwrap().clone();
    assert_eq!(begun.len(), 2);
    client.world.work().await;
    for (import, backup) in begun.iter().zip(backups) {
        assert_eq!(import["backup_id"], backup);
        let log = log(&client, &import["operation_log_id"]).await;
        assert_eq!(
            (&log["operation_type"], &log["status"]),
            (&json!("sync"), &json!("failed"))
        );
        assert!(log["vault_id"].is_null() && log["vault_name"].is_null());
        assert_eq!(log["extra_info"]["resource"]["name"], "host-1");
        assert_eq!(log["extra_info"]["sync"]["err_sync_backup_num"], 1);
        assert_eq!(log["error_info"]["code"], "BackupService.6406");
        let message = log["error_info"]["message"].as_str().unwrap();
        assert!(message.contains("bucket-7"), "{message}");
    }
    let listed = client
        .call_with(
            Op::ListOpLogs,
            &[],
            "operation_type=sync&status=failed",
            Value::Null,
        )
        .await;
    assert_eq!(listed.body["count"], 2);
    let backups = client.call(Op::ListBackups, &[], Value::Null).await;
    assert_eq!(backups.body["count"], 0, "nothing is made up");

    let mut wrong = body;
    wrong["sync"][0]["bucket_name"] = json!("");
    let refused = client.call(Op::ImportBackup, &[], wrong).await;
    assert_eq!(code(&refused), "BackupService.9900");
    client.become_stranger().await;
    let id = begun[0]["operation_log_id"].as_str().unwrap();
    let hidden = client.call(Op::ShowOpLog, &[id], Value::Null).await;
    assert_eq!(code(&hidden), "BackupService.6500");
}
