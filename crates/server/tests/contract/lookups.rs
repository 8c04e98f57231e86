//! Look-ups beyond one project, features, versions, and the migration from
//! the services before CBR.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::Client;

const NOBODYS: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn projects_and_domains_are_found_by_their_own_alone() {
    let mut client = Client::new().await;
    let project = client.project.clone();
    let own = client
        .call(Op::ListDomainProjects, &["cairn"], Value::Null)
        .await;
    let expected = json!([{ "project_id": project, "project_name": "cairn-1" }]);
    assert_eq!(own.body["projects"], expected);
    let shown = client.call(Op::ShowDomain, &[&project], Value::Null).await;
    assert_eq!(shown.body["domain_name"], "cairn");
    assert_eq!(shown.body["project_name"], "cairn-1");
    let listed = client.call(Op::ListProjects, &[], Value::Null).await;
    assert_eq!(listed.body["projects"][0]["id"], *project);
    let link = &listed.body["links"]["self"];
    assert_eq!(link, "http://cairn.test/v3/auth/projects");

    client.become_stranger().await;
    let foreign = client.call(Op::ShowDomain, &[&project], Value::Null).await;
    let nobodys = client.call(Op::ShowDomain, &[NOBODYS], Value::Null).await;
    assert_eq!(
        (foreign.status.as_u16(), &foreign.body),
        (404, &nobodys.body)
    );
    assert_eq!(foreign.body["error_code"], "BackupService.6302");
    let wrong = client.call(Op::ShowDomain, &["x"], Value::Null).await;
    assert_eq!(wrong.body["error_code"], "BackupService.9900");
    let listed = client.call(Op::ListProjects, &[], Value::Null).await;
    assert!(!listed.body.to_string().contains(&project));
    let nowhere = client
        .call(Op::ListDomainProjects, &["nowhere"], Value::Null)
        .await;
    assert_eq!(nowhere.body, json!({ "projects": [] }));
    let near = client
        .call(Op::ListDomainProjects, &["cairn"], Value::Null)
        .await;
    assert!(!near.body.to_string().contains(&project));
}

#[tokio::test]
async fn who_shares_a_backup_is_told_to_its_receiver() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let backup = client.back_up(&vault).await;
    let owner = (client.project.clone(), client.token.clone());
    client.become_stranger().await;
    let receiver = (client.project.clone(), client.token.clone());
    let before = client.call(Op::ShowDomain, &[&owner.0], Value::Null).await;
    assert_eq!(before.status, 404);

    (client.project, client.token) = owner.clone();
    let members = json!({ "members": [receiver.0] });
    let shared = client.call(Op::AddMember, &[&backup], members).await;
    assert_eq!(shared.status, 200, "{shared:?}");
    (client.project, client.token) = receiver;
    let after = client.call(Op::ShowDomain, &[&owner.0], Value::Null).await;
    assert_eq!(after.body["project_id"], *owner.0);
    assert_eq!(after.body["project_name"], "cairn-1");
}

#[tokio::test]
async fn vaults_of_this_region_are_external_to_other_projects() {
    let mut client = Client::new().await;
    let vault = client.disk_vault().await;
    client.server_vault().await;
    let project = client.project.clone();
    let query = |region: &str, project: &str, more: &str| {
        format!("region_id={region}&external_project_id={project}{more}")
    };
    for (query, count) in [
        (query("cairn-1", &project, ""), 2),
        (query("cairn-1", &project, "&objcet_type=disk"), 1),
        (query("cairn-1", &project, "&object_type=turbo"), 0),
        (
            query(
                "cairn-1",
                &project,
                &format!("&vault_id={vault}&object_type=turbo"),
            ),
            1,
        ),
        (query("cairn-1", &project, "&protect_type=replication"), 0),
        (query("elsewhere", &project, ""), 0),
        (query("cairn-1", NOBODYS, ""), 0),
    ] {
        let listed = client
            .call_with(Op::ListExternalVault, &[], &query, Value::Null)
            .await;
        assert_eq!(listed.body["count"], count, "{query}: {listed:?}");
        assert_eq!(listed.body["vaults"].as_array().unwrap().len(), count);
    }
    let without = client.call(Op::ListExternalVault, &[], Value::Null).await;
    assert_eq!(without.body["error_code"], "BackupService.9900");
    client.become_stranger().await;
    let theirs = query("cairn-1", &project, &format!("&vault_id={vault}"));
    let listed = client
        .call_with(Op::ListExternalVault, &[], &theirs, Value::Null)
        .await;
    assert_eq!(listed.body["count"], 0);
}

#[tokio::test]
async fn features_are_told_by_their_keys() {
    let client = Client::new().await;
    let all = client.call(Op::ListFeatures, &[], Value::Null).await;
    assert_eq!(all.body["replication.source_region"], "cairn-1");
    assert_eq!(all.body["features.backup_double_az"], false);
    for (key, value) in all.body.as_object().unwrap() {
        let one = client.call(Op::ShowFeature, &[key], Value::Null).await;
        assert_eq!(one.body, json!({ key: value }));
    }
    let unknown = client
        .call(Op::ShowFeature, &["features.magic"], Value::Null)
        .await;
    assert_eq!(unknown.status, 400);
    assert_eq!(unknown.body["error_code"], "BackupService.9900");
}

#[tokio::test]
async fn versions_are_told_to_anybody() {
    let mut client = Client::new().await;
    client.token = String::new();
    let all = client.call(Op::ListApiVersions, &[], Value::Null).await;
    assert_eq!(all.status, 300);
    let link = &all.body["versions"][0]["links"][0]["href"];
    assert_eq!(link, "http://cairn.test/v3");
    for name in ["cbr", "csbs", "vbs"] {
        let one = client.call(Op::ShowApiVersion, &[name], Value::Null).await;
        assert_eq!((one.status.as_u16(), &one.body), (300, &all.body));
    }
    let unknown = client.call(Op::ShowApiVersion, &["evs"], Value::Null).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_domain_migrates_at_once() {
    let mut client = Client::new().await;
    let early = client.call(Op::ShowMigrateStatus, &[], Value::Null).await;
    assert_eq!(
        (early.status.as_u16(), &early.body["error_code"]),
        (404, &json!("BackupService.4001"))
    );
    for wrong in [
        json!({ "all_regions": true, "reservation": 1.5 }),
        json!({ "reservation": 0.2 }),
    ] {
        let refused = client.call(Op::MigrateDomain, &[], wrong).await;
        assert_eq!(refused.body["error_code"], "BackupService.9900");
    }
    let body = json!({ "all_regions": true, "reservation": 0.2 });
    for _ in 0..2 {
        let begun = client.call(Op::MigrateDomain, &[], body.clone()).await;
        assert_eq!(begun.body, json!({ "cairn-1": "running" }));
    }
    let query = "all_regions=false";
    let status = client
        .call_with(Op::ShowMigrateStatus, &[], query, Value::Null)
        .await;
    assert_eq!(status.body["status"], "success");
    let project = &status.body["project_status"][0];
    assert_eq!(
        (&project["project_name"], &project["progress"]),
        (&json!("cairn-1"), &json!(100))
    );
    let own = client.project.clone();
    client.become_stranger().await;
    let status = client.call(Op::ShowMigrateStatus, &[], Value::Null).await;
    assert!(!status.body.to_string().contains(&own));
}

#[tokio::test]
async fn users_are_found_by_their_own_alone() {
    let client = Client::new().await;
    let name = &client.world.credentials.user_name;
    let target = format!("/v3/users?name={name}");
    let found = client.send("GET", &target, String::new()).await;
    assert_eq!(found.body["users"][0]["name"], **name);
    let target = "/v3/users?name=somebody";
    let none = client.send("GET", target, String::new()).await;
    assert_eq!(none.body["users"], json!([]));
    for (target, count) in [
        ("/v3/auth/domains?name=cairn", 1),
        ("/v3/auth/domains?name=x", 0),
    ] {
        let found = client.send("GET", target, String::new()).await;
        assert_eq!(
            found.body["domains"].as_array().unwrap().len(),
            count,
            "{target}"
        );
    }
    let catalog = client.send("GET", "/v3/auth/catalog", String::new()).await;
    assert!(catalog.body["catalog"].to_string().contains("\"cbr\""));
}
