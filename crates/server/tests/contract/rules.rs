//! The rules of vaults: capacity, bound resources, the days on which backups
//! end, and what is known of what they were made of.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
const GB: u64 = 1 << 30;

fn assert_code(answer: &Answer, code: &str) {
    let expected = format!("BackupService.{code}");
    assert_eq!(answer.body["error_code"], *expected, "{answer:?}");
}

async fn vault(client: &Client, id: &str) -> Value {
    let shown = client.call(Op::ShowVault, &[id], Value::Null).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    shown.body["vault"].clone()
}

async fn backup(client: &Client, id: &str) -> Value {
    let shown = client.call(Op::ShowBackup, &[id], Value::Null).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    shown.body["backup"].clone()
}

/// An empty vault; its id.
async fn empty(client: &Client, object_type: &str, size: u64) -> String {
    let body = vault_body(object_type, size, json!([]));
    let made = client.call(Op::CreateVault, &[], body).await;
    made.body["vault"]["id"].as_str().unwrap().to_owned()
}

async fn update(client: &Client, vault: &str, change: Value) {
    let changed = client
        .call(Op::UpdateVault, &[vault], json!({ "vault": change }))
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
}

async fn try_back_up(client: &Client, vault: &str) -> Answer {
    let body = json!({ "checkpoint": { "vault_id": vault } });
    client.call(Op::CreateCheckpoint, &[], body).await
}

#[tokio::test]
async fn a_full_vault_takes_no_backup_unless_it_may() {
    let client = Client::new().await;
    let id = client.disk_vault().await;
    let first = client.back_up(&id).await;
    client.let_backup_occupy(&first, 100 * GB).await;
    assert_code(&try_back_up(&client, &id).await, "6114");
    // To allow growth now comes too late.
    update(&client, &id, json!({ "auto_expand": true })).await;
    assert_code(&try_back_up(&client, &id).await, "6114");
    update(&client, &id, json!({ "billing": { "size": 101 } })).await;
    assert_eq!(try_back_up(&client, &id).await.status, 200);
    client.world.work().await;
    let query = "used_percent=99";
    let listed = client
        .call_with(Op::ListBackups, &[], query, Value::Null)
        .await;
    assert_eq!(listed.body["count"], 2);
    let listed = client
        .call_with(Op::ListBackups, &[], "used_percent=100", Value::Null)
        .await;
    assert_eq!(listed.body["count"], 0);
    let small = json!({ "vault": { "billing": { "size": 99 } } });
    assert_code(&client.call(Op::UpdateVault, &[&id], small).await, "6101");

    // What is paid for in advance may go beyond its size, if that was agreed.
    let mut body = vault_body("server", 50, json!([]));
    body["vault"]["billing"]["charging_mode"] = json!("pre_paid");
    body["vault"]["billing"]["period_type"] = json!("year");
    body["vault"]["billing"]["period_num"] = json!(1);
    body["vault"]["demand_billing"] = json!(true);
    let server = client.world.server().await.to_string();
    body["vault"]["resources"] = json!([{ "id": server, "type": "OS::Nova::Server" }]);
    let bought = client.call(Op::CreateVault, &[], body).await;
    let id = bought.body["orders"][0]["resourceId"].as_str().unwrap();
    assert_eq!(vault(&client, id).await["demand_billing"], true);
    let first = client.back_up(id).await;
    client.let_backup_occupy(&first, 60 * GB).await;
    assert_eq!(try_back_up(&client, id).await.status, 200);
    client.world.work().await;
    assert_eq!(vault(&client, id).await["billing"]["size"], 50);
}

#[tokio::test]
async fn a_vault_that_may_grow_does_so_when_a_backup_fills_it() {
    let client = Client::new().await;
    let id = client.disk_vault().await;
    update(&client, &id, json!({ "auto_expand": true })).await;
    let first = client.back_up(&id).await;
    assert_eq!(vault(&client, &id).await["billing"]["size"], 100);
    client.let_backup_occupy(&first, 100 * GB - 1).await;
    client.world.change_images(3);
    client.back_up(&id).await;
    assert_eq!(vault(&client, &id).await["billing"]["size"], 125);
    assert_eq!(try_back_up(&client, &id).await.status, 200);
}

#[tokio::test]
async fn all_vaults_are_summed_up_and_changed_at_once() {
    let client = Client::new().await;
    let disk = client.disk_vault().await;
    let empty = empty(&client, "server", 20).await;
    let first = client.back_up(&disk).await;
    client.let_backup_occupy(&first, 3 * GB + 1).await;
    let summary = client.call(Op::ShowSummary, &[], Value::Null).await;
    assert_eq!(summary.body, json!({ "size": 120, "used_size": 4 }));

    let body = json!({ "vault": { "smn_notify": false, "threshold": 60 } });
    let changed = client.call(Op::BatchUpdateVault, &[], body).await;
    let ids = changed.body["updated_vaults_id"].as_array().unwrap();
    assert!(ids.len() == 2 && ids.contains(&json!(disk)) && ids.contains(&json!(empty)));
    for id in [&disk, &empty] {
        let shown = vault(&client, id).await;
        assert_eq!(
            (&shown["smn_notify"], &shown["threshold"]),
            (&json!(false), &json!(60))
        );
    }
    let body = json!({ "vault": { "threshold": 0 } });
    assert_code(&client.call(Op::BatchUpdateVault, &[], body).await, "9900");

    let usage = client.call(Op::ShowStorageUsage, &[], Value::Null).await;
    let resource = client.world.disk().await.to_string();
    assert_eq!(usage.body["resource_count"], 1);
    let row = &usage.body["storage_usage"][0];
    assert_eq!(
        (&row["resource_id"], &row["backup_count"]),
        (&json!(resource), &json!(1))
    );
    assert_eq!(
        (&row["backup_size"], &row["backup_size_multiaz"]),
        (&json!(3073), &json!(0))
    );
    for (query, count) in [
        ("resource_type=OS::Nova::Server", 0),
        (&*format!("resource_id={resource}&limit=1"), 1),
        (&*format!("resource_id={NOBODYS}"), 0),
    ] {
        let usage = client
            .call_with(Op::ShowStorageUsage, &[], query, Value::Null)
            .await;
        assert_eq!(usage.body["resource_count"], count, "{query}");
    }
}

#[tokio::test]
async fn policies_take_a_resource_or_pass_it_by() {
    let client = Client::new().await;
    let id = client.disk_vault().await;
    let disk = client.world.disk().await.to_string();
    for (action, auto_protect) in [("suspend", false), ("unsuspend", true)] {
        let body = json!({ "action": action, "resource_ids": [disk] });
        let set = client.call(Op::SetVaultResource, &[&id], body).await;
        assert_eq!(set.body["set_resource_ids"], json!([disk]));
        let shown = vault(&client, &id).await;
        assert_eq!(shown["resources"][0]["auto_protect"], auto_protect);
    }
    let body = json!({ "action": "suspend", "resource_ids": [disk, NOBODYS] });
    let missing = client.call(Op::SetVaultResource, &[&id], body).await;
    assert_code(&missing, "6135");
    let text = format!("Resources {NOBODYS} does not exist in vault.");
    assert_eq!(missing.body["error_msg"], *text);
    let body = json!({ "action": "stop", "resource_ids": [disk] });
    assert_code(
        &client.call(Op::SetVaultResource, &[&id], body).await,
        "9900",
    );

    client.back_up(&id).await;
    let body = json!({ "resource_ids": [disk] });
    let removed = client.call(Op::RemoveVaultResource, &[&id], body).await;
    assert_eq!(removed.status, 200);
    let body = json!({ "action": "suspend", "resource_ids": [disk] });
    let leaving = client.call(Op::SetVaultResource, &[&id], body).await;
    assert_code(&leaving, "6134");
    let text = format!("Resource is removing, resources: {disk}.");
    assert_eq!(leaving.body["error_msg"], *text);
}

#[tokio::test]
async fn a_resource_moves_to_another_vault_with_its_backups() {
    let client = Client::new().await;
    let from = client.server_vault().await;
    let whole = client.back_up(&from).await;
    let server = client.world.server().await.to_string();
    let to = empty(&client, "server", 40).await;
    let body = |to: &str| json!({ "destination_vault_id": to, "resource_ids": [server] });
    let moved = client
        .call(Op::MigrateVaultResource, &[&from], body(&to))
        .await;
    assert_eq!(moved.body["migrated_resources"], json!([server]));
    let shown = vault(&client, &to).await;
    assert_eq!(shown["resources"][0]["id"], *server);
    assert_eq!(shown["resources"][0]["backup_count"], 1);
    assert_eq!(vault(&client, &from).await["resources"], json!([]));
    let shown = backup(&client, &whole).await;
    assert_eq!(shown["vault_id"], *to);
    assert!(
        shown["children"]
            .as_array()
            .unwrap()
            .iter()
            .all(|disk| disk["vault_id"] == *to)
    );
    let query = "operation_type=migrate_resource";
    let logs = client
        .call_with(Op::ListOpLogs, &[], query, Value::Null)
        .await;
    let log = &logs.body["operation_logs"][0];
    assert_eq!(
        (&log["status"], &log["vault_id"]),
        (&json!("success"), &json!(from))
    );
    let block = &log["extra_info"]["migrate_resources"];
    assert_eq!(
        (&block["total_count"], &block["resources"][0]["id"]),
        (&json!(1), &json!(server))
    );

    // The old vault is empty and may go; the backup stays and restores.
    let gone = client.call(Op::DeleteVault, &[&from], Value::Null).await;
    assert_eq!(gone.status, 204);
    let restore = json!({ "restore": { "server_id": server } });
    let restored = client.call(Op::RestoreBackup, &[&whole], restore).await;
    assert_eq!(restored.status, 202, "{restored:?}");
    // While something is at work, nothing moves.
    let back = empty(&client, "server", 40).await;
    let busy = client
        .call(Op::MigrateVaultResource, &[&to], body(&back))
        .await;
    assert_code(&busy, "6203");
    client.world.work().await;

    client.let_backup_occupy(&whole, 41 * GB).await;
    let full = client
        .call(Op::MigrateVaultResource, &[&to], body(&back))
        .await;
    assert_code(&full, "6129");
    client.let_backup_occupy(&whole, GB).await;
    let disks = empty(&client, "disk", 40).await;
    for (destination, code) in [(&*disks, "6102"), (&*to, "9900"), (NOBODYS, "6120")] {
        let refused = client
            .call(Op::MigrateVaultResource, &[&to], body(destination))
            .await;
        assert_code(&refused, code);
    }
    let other = json!({ "destination_vault_id": back, "resource_ids": [NOBODYS] });
    assert_code(
        &client.call(Op::MigrateVaultResource, &[&to], other).await,
        "6135",
    );
    assert_code(
        &client
            .call(Op::MigrateVaultResource, &[NOBODYS], body(&to))
            .await,
        "6105",
    );
    update(&client, &to, json!({ "locked": true })).await;
    assert_code(
        &client
            .call(Op::MigrateVaultResource, &[&to], body(&back))
            .await,
        "6110",
    );
    assert_eq!(vault(&client, &to).await["resources"][0]["id"], *server);
}

#[tokio::test]
async fn a_resource_moves_only_where_it_fits() {
    let client = Client::new().await;
    let image = client.world.image("disk.img");
    let image = std::fs::File::options().write(true).open(image).unwrap();
    image.set_len(11 * GB).unwrap();
    let from = client.disk_vault().await;
    let disk = client.world.disk().await.to_string();
    let to = empty(&client, "disk", 10).await;
    let body = json!({ "destination_vault_id": to, "resource_ids": [disk] });
    let refused = client
        .call(Op::MigrateVaultResource, &[&from], body.clone())
        .await;
    assert_code(&refused, "6107");
    assert_eq!(vault(&client, &from).await["resources"][0]["id"], *disk);
    update(&client, &to, json!({ "billing": { "size": 11 } })).await;
    let moved = client.call(Op::MigrateVaultResource, &[&from], body).await;
    assert_eq!(moved.status, 200, "{moved:?}");
}

#[tokio::test]
async fn the_backups_of_a_vault_are_given_a_day_to_end_on() {
    let client = Client::new().await;
    let id = client.server_vault().await;
    let whole = client.back_up(&id).await;
    let day = |day: &str| json!({ "expect_expiration_date": day, "time_zone": "UTC+08:00" });
    let set = client
        .call(Op::UpdateExpirationTime, &[&id], day("2027-01-01"))
        .await;
    assert_eq!(set.body["affected_backups_count"], 1, "{set:?}");
    assert_eq!(set.body["new_expiration_day"], "2027-01-01");
    let shown = backup(&client, &whole).await;
    let end = json!("2027-01-01T15:59:59.000000");
    assert_eq!(shown["expired_at"], end);
    assert!(
        shown["children"]
            .as_array()
            .unwrap()
            .iter()
            .all(|disk| disk["expired_at"] == end)
    );
    let log = set.body["operation_log_id"].as_str().unwrap();
    let log = client.call(Op::ShowOpLog, &[log], Value::Null).await;
    let log = &log.body["operation_log"];
    assert_eq!(log["status"], "success");
    let block = json!({ "affected_backups_count": 1, "expiration_day": "2027-01-01" });
    assert_eq!(log["extra_info"]["update_expiration_time"], block);

    for wrong in [
        day("2020-01-01"),
        day("2027-13-01"),
        day("tomorrow"),
        json!({ "expect_expiration_date": "2027-01-01", "time_zone": "Berlin" }),
        json!({ "expect_expiration_date": "2027-01-01" }),
    ] {
        let refused = client.call(Op::UpdateExpirationTime, &[&id], wrong).await;
        assert_code(&refused, "9900");
    }
    let nobodys = client
        .call(Op::UpdateExpirationTime, &[NOBODYS], day("2027-01-01"))
        .await;
    assert_code(&nobodys, "6105");

    // A locked vault keeps what a policy made as long as it was to be kept.
    let server = client.world.server().await.to_string();
    let parameters = json!({ "auto_trigger": true, "resources": [server] });
    let body = json!({ "checkpoint": { "vault_id": id, "parameters": parameters } });
    assert_eq!(
        client.call(Op::CreateCheckpoint, &[], body).await.status,
        200
    );
    client.world.work().await;
    update(&client, &id, json!({ "locked": true })).await;
    let set = client
        .call(Op::UpdateExpirationTime, &[&id], day("2027-02-01"))
        .await;
    assert_eq!(set.body["affected_backups_count"], 1);
    for (query, count) in [
        ("existed_quantity_based_retention_backups=true", 1),
        ("existed_quantity_based_retention_backups=false", 0),
    ] {
        let listed = client
            .call_with(Op::ListBackups, &[], query, Value::Null)
            .await;
        assert_eq!(listed.body["count"], count, "{query}");
    }
}

#[tokio::test]
async fn a_backup_tells_what_it_was_made_of() {
    let client = Client::new().await;
    let id = client.server_vault().await;
    let made = try_back_up(&client, &id).await;
    let checkpoint = made.body["checkpoint"]["id"].as_str().unwrap();
    let query = format!("checkpoint_id={checkpoint}");
    let listed = client
        .call_with(Op::ListBackups, &[], &query, Value::Null)
        .await;
    let whole = listed.body["backups"][0]["id"].as_str().unwrap().to_owned();
    let early = client.call(Op::ShowMetadata, &[&whole], Value::Null).await;
    assert_code(&early, "6206");
    client.world.work().await;

    let told = client.call(Op::ShowMetadata, &[&whole], Value::Null).await;
    assert_eq!(told.status, 200, "{told:?}");
    let read = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
    assert_eq!(read(&told.body["backups"]), backup(&client, &whole).await);
    let server = read(&told.body["server"])["server"].clone();
    assert_eq!(server["name"], "web-1");
    assert_eq!(server["metadata"]["source"], "lab");
    let volumes = told.body["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 2);
    let first = read(&volumes[0])["volume"].clone();
    assert_eq!(
        (&first["name"], &first["bootable"]),
        (&json!("web-root.img"), &json!("true"))
    );
    assert_eq!(first["attachments"][0]["device"], "/dev/vda");
    assert_eq!(first["metadata"]["format"], "raw");

    // A disk's backup tells of the disk, and one of an earlier version of what it knows.
    let child = backup(&client, &whole).await["children"][1]["id"].clone();
    let child = child.as_str().unwrap();
    let told = client.call(Op::ShowMetadata, &[child], Value::Null).await;
    assert!(read(&told.body["server"])["server"].is_null());
    assert_eq!(
        read(&told.body["volumes"][0])["volume"]["name"],
        "web-data.img"
    );
    assert_code(
        &client.call(Op::ShowMetadata, &[NOBODYS], Value::Null).await,
        "6200",
    );
}

#[tokio::test]
async fn a_vault_is_charged_for_what_its_backups_hold_whichever_is_left() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let used = async |vault: &str| {
        let shown = client.call(Op::ShowVault, &[vault], Value::Null).await;
        shown.body["vault"]["billing"]["used"].as_u64().unwrap()
    };
    let first = client.back_up(&vault).await;
    let data = used(&vault).await;
    assert!(data > 0);
    client.world.clock.advance(60);
    let second = client.back_up(&vault).await;
    assert_eq!(used(&vault).await, data, "nothing was new");
    for (backup, left) in [(&first, data), (&second, 0)] {
        client.call(Op::DeleteBackup, &[backup], Value::Null).await;
        client.world.work().await;
        assert_eq!(used(&vault).await, left);
    }
}
