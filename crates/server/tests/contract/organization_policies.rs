//! Policies of organizations, and what they become in projects.

use cairn_api::Operation as Op;
use cairn_types::{ProjectId, Role};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::policies::refused;

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

fn body(scope: Option<&str>) -> Value {
    let mut body = json!({ "policy": {
        "name": "for everybody", "description": "", "operation_type": "backup",
        "policy_name": "nightly", "policy_enabled": false,
        "policy_operation_definition": { "max_backups": -1, "retention_duration_days": 30,
            "day_backups": 0, "timezone": "UTC+08:00", "full_backup_interval": -1 },
        "policy_trigger": { "properties": {
            "pattern": ["FREQ=WEEKLY;BYDAY=MO;BYHOUR=14;BYMINUTE=00"] } },
    } });
    if let Some(scope) = scope {
        body["policy"]["effective_scope"] = json!(scope);
    }
    body
}

impl Client {
    async fn organization_policy(&self, scope: Option<&str>) -> Answer {
        let made = self
            .call(Op::CreateOrganizationPolicy, &[], body(scope))
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        made
    }

    /// Projects and policies that one became.
    async fn deployed(&self, id: &str) -> Vec<(String, String)> {
        let detail = self
            .call(Op::ListOrganizationPolicyDetail, &[id], Value::Null)
            .await;
        let list = detail.body["policies"].as_array().unwrap();
        assert_eq!(detail.body["count"], list.len(), "{detail:?}");
        assert!(list.iter().all(|one| one["status"] == "available"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        list.iter()
            .map(|one| (text(&one["project_id"]), text(&one["policy_id"])))
            .collect()
    }

    async fn show_policy(&self, id: &str) -> Value {
        let shown = self.call(Op::ShowPolicy, &[id], Value::Null).await;
        assert_eq!(shown.status, 200, "{shown:?}");
        shown.body["policy"].clone()
    }
}

#[tokio::test]
async fn an_organizations_policy_becomes_one_that_its_members_use_but_do_not_change() {
    let client = Client::new().await;
    let made = client.organization_policy(None).await;
    let wanted = &made.body["policy"];
    assert_eq!(wanted["status"], "syncing");
    assert_eq!(wanted["effective_scope"], "all");
    assert_eq!(wanted["domain_name"], "cairn");
    let definition = &body(None)["policy"]["policy_operation_definition"];
    assert_eq!(&wanted["policy_operation_definition"], definition);
    let id = wanted["id"].as_str().unwrap();
    let shown = client
        .call(Op::ShowOrganizationPolicy, &[id], Value::Null)
        .await;
    assert_eq!(shown.body["policy"]["status"], "available");
    assert_eq!(
        shown.body["policy"]["policy_trigger"],
        wanted["policy_trigger"]
    );

    let deployed = client.deployed(id).await;
    assert_eq!(deployed.len(), 1);
    assert_eq!(deployed[0].0, client.project);
    let pushed = deployed[0].1.as_str();
    let policy = client.show_policy(pushed).await;
    assert_eq!(policy["policy_type"], "organization_policy_v2");
    assert_eq!(
        (&policy["name"], &policy["enabled"]),
        (&json!("nightly"), &json!(false))
    );
    let vault = client.vault_with("server", json!({})).await;
    let bind = json!({ "policy_id": pushed });
    let bound = client
        .call(Op::AssociateVaultPolicy, &[&vault], bind.clone())
        .await;
    assert_eq!(bound.status, 200, "{bound:?}");
    let change = json!({ "policy": { "enabled": true } });
    let changed = client.call(Op::UpdatePolicy, &[pushed], change).await;
    refused(&changed, 400, "9900");
    let deleted = client.call(Op::DeletePolicy, &[pushed], Value::Null).await;
    refused(&deleted, 400, "9900");
    assert_eq!(client.show_policy(pushed).await["enabled"], false);

    let change = json!({ "policy": { "name": "renamed", "policy_name": "hourly", "policy_enabled": true,
        "description": "changed", "policy_operation_definition": { "max_backups": 7 },
        "policy_trigger": { "properties": {
            "pattern": ["FREQ=DAILY;BYHOUR=3;BYMINUTE=00"], "start_window_minutes": 90 } } } });
    let changed = client
        .call(Op::UpdateOrganizationPolicy, &[id], change)
        .await;
    assert_eq!(changed.body["policy"]["status"], "syncing", "{changed:?}");
    assert_eq!(changed.body["policy"]["name"], "renamed");
    let policy = client.show_policy(pushed).await;
    assert_eq!(
        (&policy["name"], &policy["enabled"]),
        (&json!("hourly"), &json!(true))
    );
    assert_eq!(policy["operation_definition"], json!({ "max_backups": 7 }));
    assert_eq!(policy["trigger"]["properties"]["start_window_minutes"], 90);
    assert_eq!(
        policy["associated_vaults"][0]["vault_id"], vault,
        "it stays bound"
    );

    let gone = client
        .call(Op::DeleteOrganizationPolicy, &[id], Value::Null)
        .await;
    assert_eq!(gone.status, 204);
    let kept = client.call(Op::ShowPolicy, &[pushed], Value::Null).await;
    let kept = &kept.body["policy"];
    assert_eq!(kept["policy_type"], "organization_policy_removed");
    assert_eq!(
        kept["associated_vaults"][0]["vault_id"], vault,
        "no vault loses its schedule"
    );
    for operation in [
        Op::ShowOrganizationPolicy,
        Op::DeleteOrganizationPolicy,
        Op::ListOrganizationPolicyDetail,
    ] {
        let answer = client.call(operation, &[id], Value::Null).await;
        refused(&answer, 404, "6000");
    }
}

#[tokio::test]
async fn a_scope_reaches_the_projects_in_which_its_maker_may_make_policies() {
    let mut client = Client::new().await;
    let home = (client.project.clone(), client.token.clone());
    let made = client.organization_policy(None).await;
    let id = made.body["policy"]["id"].as_str().unwrap().to_owned();
    client.become_stranger().await;
    let other = (client.project.clone(), client.token.clone());
    let elsewhere: ProjectId = other.0.parse().unwrap();
    let listed = client.call(Op::ListPolicies, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0, "nothing reaches another tenant");
    (client.project, client.token) = home.clone();
    client.world.grant(elsewhere, Role::ReadOnlyAccess).await;
    let all = json!({ "policy": { "effective_scope": "all" } });
    client
        .call(Op::UpdateOrganizationPolicy, &[&id], all.clone())
        .await;
    assert_eq!(client.deployed(&id).await.len(), 1, "looking is not enough");
    client.world.grant(elsewhere, Role::FullAccess).await;
    client
        .call(Op::UpdateOrganizationPolicy, &[&id], all.clone())
        .await;
    let deployed = client.deployed(&id).await;
    assert_eq!(deployed.len(), 2);
    let page = async |query: &str| {
        let answer = client
            .call_with(Op::ListOrganizationPolicyDetail, &[&id], query, Value::Null)
            .await;
        assert_eq!(answer.body["count"], 2, "{answer:?}");
        answer.body["policies"].clone()
    };
    let second = json!(deployed[1].1);
    assert_eq!(page("limit=1&offset=1").await[0]["policy_id"], second);
    let behind = format!("marker={}", deployed[0].1);
    assert_eq!(page(&behind).await[0]["policy_id"], second);
    assert_eq!(page(&format!("marker={NOBODYS}")).await, json!([]));

    // A project that leaves the scope keeps what its vaults follow, and no more.
    let theirs = deployed
        .iter()
        .find(|one| one.0 == other.0)
        .unwrap()
        .1
        .clone();
    (client.project, client.token) = other.clone();
    let vault = client.vault_with("server", json!({})).await;
    let bind = json!({ "policy_id": theirs });
    client
        .call(Op::AssociateVaultPolicy, &[&vault], bind.clone())
        .await;
    (client.project, client.token) = home.clone();
    let here = json!({ "policy": { "effective_scope": home.0 } });
    client
        .call(Op::UpdateOrganizationPolicy, &[&id], here.clone())
        .await;
    assert_eq!(client.deployed(&id).await.len(), 1);
    (client.project, client.token) = other.clone();
    let kept = client.show_policy(&theirs).await;
    assert_eq!(kept["policy_type"], "organization_policy_removed");
    assert_eq!(kept["associated_vaults"][0]["vault_id"], vault);
    let again = client
        .call(Op::AssociateVaultPolicy, &[&vault], bind.clone())
        .await;
    assert_eq!(again.status, 200, "{again:?}");
    let new = client.vault_with("server", json!({})).await;
    let refusal = client.call(Op::AssociateVaultPolicy, &[&new], bind).await;
    refused(&refusal, 400, "6127");
    let gone = client.call(Op::DeletePolicy, &[&theirs], Value::Null).await;
    assert_eq!(gone.status, 204, "it is the project's own affair now");

    // Back in the scope, and out of it unbound: nothing is left.
    (client.project, client.token) = home.clone();
    for (change, count) in [(&all, 1), (&here, 0)] {
        client
            .call(Op::UpdateOrganizationPolicy, &[&id], change.clone())
            .await;
        (client.project, client.token) = other.clone();
        let listed = client.call(Op::ListPolicies, &[], Value::Null).await;
        assert_eq!(listed.body["count"], count);
        (client.project, client.token) = home.clone();
    }
    // What reaches a project is changed only by who may make policies there.
    client.call(Op::UpdateOrganizationPolicy, &[&id], all).await;
    client.world.grant(elsewhere, Role::ReadOnlyAccess).await;
    let update = client
        .call(Op::UpdateOrganizationPolicy, &[&id], here)
        .await;
    assert_eq!(update.status, 403, "{update:?}");
    let delete = client
        .call(Op::DeleteOrganizationPolicy, &[&id], Value::Null)
        .await;
    assert_eq!(delete.status, 403, "{delete:?}");
    assert_eq!(client.deployed(&id).await.len(), 2);
}

#[tokio::test]
async fn organization_policies_are_listed_by_type_and_belong_to_their_maker() {
    let mut client = Client::new().await;
    let made = client.organization_policy(None).await;
    let id = made.body["policy"]["id"].as_str().unwrap().to_owned();
    let list = async |client: &Client, query: &str| {
        let op = Op::ListOrganizationPolicies;
        client.call_with(op, &[], query, Value::Null).await
    };
    let listed = list(&client, "operation_type=backup").await;
    assert_eq!(listed.body["count"], 1);
    assert_eq!(listed.body["limit"], 1000);
    assert_eq!(listed.body["policies"][0]["id"], id);
    assert_eq!(listed.body["policies"][0]["status"], "available");
    let behind = format!("operation_type=backup&marker={id}");
    assert_eq!(list(&client, &behind).await.body["policies"], json!([]));
    let copies = list(&client, "operation_type=replication").await;
    assert_eq!(copies.body["count"], 0);
    for query in ["", "operation_type=x", "operation_type=backup&limit=0"] {
        refused(&list(&client, query).await, 400, "9900");
    }
    let other = client.project.clone();
    client.become_stranger().await;
    let listed = list(&client, "operation_type=backup").await;
    assert_eq!(listed.body["policies"], json!([]));
    let change = json!({ "policy": { "name": "x" } });
    for (operation, body) in [
        (Op::ShowOrganizationPolicy, Value::Null),
        (Op::UpdateOrganizationPolicy, change),
        (Op::DeleteOrganizationPolicy, Value::Null),
        (Op::ListOrganizationPolicyDetail, Value::Null),
    ] {
        let foreign = client.call(operation, &[&id], body.clone()).await;
        let absent = client.call(operation, &[NOBODYS], body.clone()).await;
        refused(&foreign, 404, "6000");
        assert_eq!(foreign.body, absent.body);
        let wrong = client.call(operation, &["x"], body).await;
        refused(&wrong, 400, "9900");
    }
    // A project out of reach is refused like one that does not exist.
    let create = async |scope: &str| {
        client
            .call(Op::CreateOrganizationPolicy, &[], body(Some(scope)))
            .await
    };
    let (foreign, absent) = (create(&other).await, create(&"0".repeat(32)).await);
    refused(&foreign, 400, "9900");
    assert_eq!(foreign.body, absent.body);
    refused(&create("everybody").await, 400, "9900");
    let listed = client.call(Op::ListPolicies, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0, "nothing was made");
}

#[tokio::test]
async fn where_replicas_go_is_fixed_while_a_member_replicates() {
    let client = Client::new().await;
    let mut body = body(None);
    body["policy"]["operation_type"] = json!("replication");
    body["policy"]["policy_operation_definition"] = json!({ "destination_region": "cairn-2",
        "destination_project_id": "f841e01fd2b14e7fa41b6ae7aa6b0594" });
    let made = client.call(Op::CreateOrganizationPolicy, &[], body).await;
    let id = made.body["policy"]["id"].as_str().unwrap();
    let pushed = client.deployed(id).await[0].1.clone();
    let source = client.vault_with("server", json!({})).await;
    let target = client
        .vault_with("server", json!({ "protect_type": "replication" }))
        .await;
    let bind = json!({ "policy_id": pushed, "destination_vault_id": target });
    let bound = client
        .call(Op::AssociateVaultPolicy, &[&source], bind)
        .await;
    assert_eq!(bound.status, 200, "{bound:?}");
    let change =
        |definition: Value| json!({ "policy": { "policy_operation_definition": definition } });
    let away = change(json!({ "destination_region": "cairn-3" }));
    let moved = client.call(Op::UpdateOrganizationPolicy, &[id], away).await;
    refused(&moved, 400, "6003");
    let keep = change(json!({ "max_backups": 2 }));
    let kept = client.call(Op::UpdateOrganizationPolicy, &[id], keep).await;
    assert_eq!(kept.status, 200, "{kept:?}");
    let definition = &client.show_policy(&pushed).await["operation_definition"];
    assert_eq!(definition["destination_region"], "cairn-2");
    assert_eq!(definition["max_backups"], 2);
}

#[tokio::test]
async fn what_is_no_organization_policy_is_refused() {
    let client = Client::new().await;
    for (key, value) in [
        ("name", json!("")),
        ("name", json!("x".repeat(65))),
        ("policy_name", json!("a b")),
        ("description", json!("x".repeat(256))),
        ("effective_scope", json!("x".repeat(256))),
        ("operation_type", json!("restore")),
        ("operation_type", json!("replication")),
        ("policy_enabled", json!(null)),
        ("policy_operation_definition", json!({ "max_backups": -2 })),
        (
            "policy_trigger",
            json!({ "properties": { "pattern": ["x"] } }),
        ),
    ] {
        let mut body = body(None);
        body["policy"][key] = value;
        let answer = client.call(Op::CreateOrganizationPolicy, &[], body).await;
        refused(&answer, 400, "9900");
    }
    for _ in 0..64 {
        client.organization_policy(None).await;
    }
    let more = client
        .call(Op::CreateOrganizationPolicy, &[], body(None))
        .await;
    refused(&more, 400, "6001");
}
