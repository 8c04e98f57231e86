//! Lists: pages by offset and by marker, orders, and filters.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

/// The ids of a page, and how many match in all.
async fn page(client: &Client, operation: Op, rows: &str, query: &str) -> (Vec<String>, Value) {
    let listed = client.call_with(operation, &[], query, Value::Null).await;
    assert_eq!(listed.status, 200, "{query}: {listed:?}");
    let ids = listed.body[rows].as_array().unwrap().iter();
    let ids = ids.map(|row| row["id"].as_str().unwrap().to_owned());
    (ids.collect(), listed.body["count"].clone())
}

/// The whole list, by markers, as clients walk it: until an empty page comes.
async fn walk(client: &Client, operation: Op, rows: &str, query: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut next = format!("limit=2&{query}");
    loop {
        let (ids, _) = page(client, operation, rows, &next).await;
        let Some(last) = ids.last() else { return all };
        next = format!("limit=2&{query}&marker={last}");
        all.extend(ids);
        assert!(all.len() < 100, "{operation} goes on for ever");
    }
}

#[tokio::test]
async fn every_list_goes_on_behind_a_marker() {
    let client = Client::new().await;
    let disk = client.disk_vault().await;
    for number in 0..4 {
        let mut body = vault_body("server", 20 + number, json!([]));
        body["vault"]["enterprise_project_id"] = json!(format!("ep-{}", number % 2));
        body["vault"]["availability_zone"] = json!("az-1");
        let made = client.call(Op::CreateVault, &[], body).await;
        assert_eq!(made.body["vault"]["availability_zone"], "az-1");
        client.world.clock.advance(number as i64);
    }
    for seed in 0..5 {
        client.world.change_images(seed);
        let backup = client.back_up(&disk).await;
        let body = json!({ "backup": { "name": format!("name-{}", seed % 2) } });
        client.call(Op::UpdateBackup, &[&backup], body).await;
    }
    for (operation, rows, queries) in [
        (
            Op::ListVault,
            "vaults",
            &["", "object_type=server", "enterprise_project_id=ep-1"][..],
        ),
        (Op::ListOpLogs, "operation_logs", &["", "status=success"]),
        (
            Op::ListBackups,
            "backups",
            &[
                "",
                "sort=name:asc",
                "sort=name,protected_at:asc",
                "sort=name:asc,id",
                "sort=id:asc",
            ],
        ),
    ] {
        for query in queries {
            let (whole, count) = page(&client, operation, rows, query).await;
            assert!(whole.len() > 1, "{operation} {query}");
            assert_eq!(count, whole.len());
            assert_eq!(
                walk(&client, operation, rows, query).await,
                whole,
                "{operation} {query}"
            );
            let (second, count) =
                page(&client, operation, rows, &format!("{query}&offset=1")).await;
            assert_eq!((&second[..], count), (&whole[1..], json!(whole.len())));
        }
        let nobodys = format!("marker={NOBODYS}");
        assert!(page(&client, operation, rows, &nobodys).await.0.is_empty());
        for wrong in ["limit=0", "limit=1001", "marker=x", "offset=-1"] {
            let refused = client.call_with(operation, &[], wrong, Value::Null).await;
            assert_eq!(refused.body["error_code"], "BackupService.9900", "{wrong}");
        }
    }
    let long = format!("sort={}", "name:asc,".repeat(30));
    for wrong in ["sort=size", "sort=name:up", &long] {
        let refused = client
            .call_with(Op::ListBackups, &[], wrong, Value::Null)
            .await;
        assert_eq!(refused.body["error_code"], "BackupService.9900", "{wrong}");
    }
}

#[tokio::test]
async fn lists_are_filtered_by_all_that_the_contract_names() {
    let client = Client::new().await;
    let mut body = vault_body("server", 40, json!([]));
    body["vault"]["enterprise_project_id"] = json!("ep-1");
    let server = client.world.server().await.to_string();
    body["vault"]["resources"] = json!([{ "id": server, "type": "OS::Nova::Server" }]);
    let made = client.call(Op::CreateVault, &[], body).await;
    let servers = made.body["vault"]["id"].as_str().unwrap().to_owned();
    let disks = client.disk_vault().await;
    let disk = client.world.disk().await.to_string();
    client.back_up(&servers).await;
    client.back_up(&disks).await;
    let both = format!("{disk},{server}");
    for (operation, rows, query, count) in [
        (Op::ListVault, "vaults", format!("resource_ids={disk}"), 1),
        (Op::ListVault, "vaults", format!("resource_ids={both}"), 2),
        (
            Op::ListVault,
            "vaults",
            format!("resource_ids={NOBODYS}"),
            0,
        ),
        (
            Op::ListVault,
            "vaults",
            format!("id={disks}&id={servers}"),
            2,
        ),
        (
            Op::ListVault,
            "vaults",
            "enterprise_project_id=ep-1".to_owned(),
            1,
        ),
        (
            Op::ListVault,
            "vaults",
            "enterprise_project_id=0".to_owned(),
            1,
        ),
        (
            Op::ListVault,
            "vaults",
            "enterprise_project_id=all_granted_eps".to_owned(),
            2,
        ),
        (
            Op::ListVault,
            "vaults",
            "availability_zone=az-9".to_owned(),
            0,
        ),
        (
            Op::ListVault,
            "vaults",
            "status=available&protect_type=backup".to_owned(),
            2,
        ),
        (Op::ListVault, "vaults", "status=frozen".to_owned(), 0),
        (Op::ListVault, "vaults", "cloud_type=hybrid".to_owned(), 0),
        (
            Op::ListBackups,
            "backups",
            "enterprise_project_id=ep-1".to_owned(),
            1,
        ),
        (
            Op::ListBackups,
            "backups",
            "enterprise_project_id=all_granted_eps".to_owned(),
            2,
        ),
        (
            Op::ListBackups,
            "backups",
            "image_type=replication".to_owned(),
            0,
        ),
        (
            Op::ListBackups,
            "backups",
            "image_type=backup&dec=true".to_owned(),
            2,
        ),
        (
            Op::ListBackups,
            "backups",
            "resource_name=web-1".to_owned(),
            1,
        ),
        (Op::ListBackups, "backups", "resource_az=az-9".to_owned(), 0),
        (
            Op::ListBackups,
            "backups",
            "end_time=2020-01-01T00:00:00Z".to_owned(),
            0,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            "enterprise_project_id=ep-1".to_owned(),
            1,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            "enterprise_project_id=all_granted_eps".to_owned(),
            2,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            "provider_id=d1603440-187d-4516-af25-121250c7cc97".to_owned(),
            1,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            format!("provider_id={NOBODYS}"),
            0,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            "status=skipped".to_owned(),
            0,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            "status=success&operation_type=backup".to_owned(),
            2,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            format!("vault_id={disks}"),
            1,
        ),
        (
            Op::ListOpLogs,
            "operation_logs",
            "start_time=2030-01-01T00:00:00Z".to_owned(),
            0,
        ),
    ] {
        let (ids, found) = page(&client, operation, rows, &query).await;
        assert_eq!(
            (ids.len(), found),
            (count, json!(count)),
            "{operation} {query}"
        );
    }
    // What is about a whole vault is about the type that it protects.
    client.call(Op::DeleteVault, &[&disks], Value::Null).await;
    let query = "operation_type=vault_delete";
    let logs = client
        .call_with(Op::ListOpLogs, &[], query, Value::Null)
        .await;
    let provider = &logs.body["operation_logs"][0]["provider_id"];
    assert_eq!(provider, "d1603440-187d-4516-af25-121250c7cc97");
}

#[tokio::test]
async fn protectables_are_filtered_and_paged() {
    let client = Client::new().await;
    let ids = async |kind: &str, query: &str| -> Vec<String> {
        let listed = client
            .call_with(Op::ListProtectable, &[kind], query, Value::Null)
            .await;
        assert_eq!(listed.status, 200, "{query}: {listed:?}");
        let rows = listed.body["instances"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ids("disk", "").await;
    assert_eq!(all.len(), 3);
    assert_eq!(ids("disk", "limit=1&offset=1").await, all[1..2]);
    assert_eq!(ids("disk", &format!("marker={}", all[0])).await, all[1..]);
    assert_eq!(ids("disk", &format!("marker={NOBODYS}")).await, all[3..]);
    assert_eq!(ids("disk", &format!("id={}", all[2])).await, all[2..]);
    assert_eq!(ids("disk", "name=web-").await.len(), 2);
    for (project, count) in [("0", 3), ("all_granted_eps", 3), ("ep-1", 0)] {
        let query = format!("enterprise_project_id={project}");
        assert_eq!(ids("disk", &query).await.len(), count, "{query}");
    }
    assert_eq!(ids("disk", "status=available").await.len(), 3);
    assert_eq!(ids("disk", "status=error").await.len(), 0);
    assert_eq!(ids("server", "status=shutoff").await.len(), 1);
    let server = client.world.server().await.to_string();
    assert_eq!(ids("disk", &format!("server_id={server}")).await.len(), 2);
    assert_eq!(ids("disk", &format!("server_id={NOBODYS}")).await.len(), 0);
    assert_eq!(ids("turbo", "status=available").await.len(), 1);
    for kind in ["workspace", "workspace_v2"] {
        assert!(ids(kind, "").await.is_empty(), "{kind}");
    }
    let refused = client
        .call_with(Op::ListProtectable, &["disk"], "limit=51", Value::Null)
        .await;
    assert_eq!(refused.body["error_code"], "BackupService.9900");
    let refused = client
        .call(Op::ListProtectable, &["cow"], Value::Null)
        .await;
    assert_eq!(refused.body["error_code"], "BackupService.9900");
}
