//! Replicas that are announced by another region.

use cairn_api::Operation as Op;
use cairn_types::BackupStatus;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Answer, Client, vault_body};

async fn replication_vault(client: &Client) -> String {
    let mut body = vault_body("server", 100, json!([]));
    body["vault"]["billing"]["protect_type"] = json!("replication");
    let made = client.call(Op::CreateVault, &[], body).await;
    made.body["vault"]["id"].as_str().unwrap().to_owned()
}

fn announcement(vault: &str, source: Uuid) -> Value {
    let resource = |kind: &str| {
        json!({ "id": Uuid::new_v4(), "name": "web-1", "type": kind, "size_bytes": 512,
            "system_disk": true, "backup_name": "manualbk" })
    };
    json!({ "replica": {
        "vault_id": vault, "name": "copy", "description": "of web-1", "auto_trigger": false,
        "source": { "region": "cairn-2", "project_id": Uuid::new_v4().simple().to_string(),
            "vault_id": Uuid::new_v4(), "checkpoint_id": Uuid::new_v4(), "backup_id": source },
        "resource": resource("OS::Nova::Server"),
        "disks": [resource("OS::Cinder::Volume"), resource("OS::Cinder::Volume")],
    } })
}

async fn announce(client: &Client, body: Value) -> Answer {
    client.call(Op::AnnounceReplica, &[], body).await
}

fn code(answer: &Answer) -> &str {
    answer.body["error_code"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn an_announced_replica_is_waited_for_and_can_be_given_up() {
    let client = Client::new().await;
    let vault = replication_vault(&client).await;
    let body = announcement(&vault, Uuid::new_v4());
    let first = announce(&client, body.clone()).await;
    assert_eq!(first.status, 202);
    let replica = first.body["replica"]["id"].as_str().unwrap().to_owned();
    // The same again is no other.
    let again = announce(&client, body.clone()).await;
    assert_eq!(again.body, first.body);
    let other = announce(&client, announcement(&vault, Uuid::new_v4())).await;
    assert_ne!(other.body["replica"]["id"], first.body["replica"]["id"]);

    let shown = client.call(Op::ShowReplica, &[&replica], Value::Null).await;
    assert_eq!(shown.body["replica"]["status"], "waiting_protect");
    let backup = client.call(Op::ShowBackup, &[&replica], Value::Null).await;
    let backup = &backup.body["backup"];
    assert_eq!(
        (&backup["name"], &backup["image_type"]),
        (&json!("copy"), &json!("replication"))
    );
    assert_eq!(backup["children"].as_array().unwrap().len(), 2);
    let logs = client
        .call_with(
            Op::ListOpLogs,
            &[],
            "operation_type=replication",
            Value::Null,
        )
        .await;
    assert_eq!(logs.body["count"], 2);
    assert_eq!(logs.body["operation_logs"][0]["status"], "waiting");

    let given_up = client
        .call(Op::WithdrawReplica, &[&replica], Value::Null)
        .await;
    assert_eq!(given_up.status, 204);
    client.world.work_beside().await;
    let gone = client.call(Op::ShowReplica, &[&replica], Value::Null).await;
    assert_eq!(gone.status, 404);
    let gone = client
        .call(Op::WithdrawReplica, &[&replica], Value::Null)
        .await;
    assert_eq!(gone.status, 404);
    // It may come after all.
    let third = announce(&client, body).await;
    assert_ne!(third.body["replica"]["id"], first.body["replica"]["id"]);
    // Nobody has come for a day: those that are left have failed.
    client.world.work().await;
    let id = third.body["replica"]["id"].as_str().unwrap();
    let (service, caller) = (&client.world.service, client.world.caller());
    let state = service.replica_state(caller, id.parse().unwrap()).await;
    let state = state.unwrap();
    assert_eq!(state.status, BackupStatus::Error);
    let why = state.error.unwrap();
    assert!(why.contains("hours"), "{why}");
}

#[tokio::test]
async fn an_announcement_goes_only_where_it_may() {
    let client = Client::new().await;
    let vault = replication_vault(&client).await;
    let own = client
        .call(Op::CreateVault, &[], vault_body("server", 100, json!([])))
        .await;
    let own = own.body["vault"]["id"].as_str().unwrap();
    let source = Uuid::new_v4();
    let good = announcement(&vault, source);
    let mut here = good.clone();
    here["replica"]["source"]["region"] = json!("cairn-1");
    let mut no_disks = good.clone();
    no_disks["replica"]["disks"] = json!([]);
    let mut disk = no_disks.clone();
    disk["replica"]["resource"]["type"] = json!("OS::Cinder::Volume");
    for (body, expected) in [
        (here, "BackupService.1005"),
        (no_disks, "BackupService.1003"),
        (disk, "BackupService.1003"),
        (announcement(own, source), "BackupService.6119"),
        (
            announcement(&source.to_string(), source),
            "BackupService.6120",
        ),
    ] {
        let refused = announce(&client, body).await;
        assert_eq!((refused.status.as_u16(), code(&refused)), (400, expected));
    }
    assert_eq!(
        client.call(Op::ListBackups, &[], Value::Null).await.body["count"],
        0
    );
}

#[tokio::test]
async fn a_connection_takes_a_signature_and_a_connection() {
    let mut client = Client::new().await;
    let vault = replication_vault(&client).await;
    let made = announce(&client, announcement(&vault, Uuid::new_v4())).await;
    let replica = made.body["replica"]["id"].as_str().unwrap();
    let path = format!("/v3/{}/replicas/{replica}/connection", client.project);
    let token = std::mem::take(&mut client.token);
    assert_eq!(client.send("GET", &path, String::new()).await.status, 401);
    client.token = token;
    let answer = client.send("GET", &path, String::new()).await;
    assert_eq!(
        (answer.status.as_u16(), code(&answer)),
        (400, "BackupService.9900")
    );
}
