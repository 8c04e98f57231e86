//! Tags of vaults, and finding vaults by them.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};
use crate::policies::refused;

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

impl Client {
    async fn tagged(&self, name: &str, tags: Value) -> String {
        let mut body = vault_body("server", 100, json!([]));
        body["vault"]["name"] = json!(name);
        if tags != json!([]) {
            body["vault"]["tags"] = tags;
        }
        let made = self.call(Op::CreateVault, &[], body).await;
        assert_eq!(made.status, 200, "{made:?}");
        self.world.clock.advance(1);
        made.body["vault"]["id"].as_str().unwrap().to_owned()
    }

    async fn tags_of(&self, vault: &str) -> Value {
        let shown = self.call(Op::ShowVaultTag, &[vault], Value::Null).await;
        let whole = self.call(Op::ShowVault, &[vault], Value::Null).await;
        assert_eq!(shown.body["tags"], whole.body["vault"]["tags"]);
        let system = json!([{ "key": "_sys_enterprise_project_id", "value": "0" }]);
        assert_eq!(shown.body["sys_tags"], system);
        shown.body["tags"].clone()
    }

    async fn add_tag(&self, vault: &str, key: &str, value: &str) -> Answer {
        let body = json!({ "tag": { "key": key, "value": value } });
        self.call(Op::CreateVaultTags, &[vault], body).await
    }

    async fn batch(&self, vault: &str, action: &str, tags: Value) -> Answer {
        let body = json!({ "action": action, "tags": tags });
        self.call(Op::BatchCreateAndDeleteVaultTags, &[vault], body)
            .await
    }

    async fn delete_tag(&self, vault: &str, key: &str) -> Answer {
        self.call(Op::DeleteVaultTag, &[vault, key], Value::Null)
            .await
    }

    async fn search(&self, body: Value) -> Answer {
        self.call(Op::ShowVaultResourceInstances, &[], body).await
    }
}

fn tag(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": value })
}

#[tokio::test]
async fn tags_are_added_replaced_and_removed() {
    let client = Client::new().await;
    let vault = client
        .tagged("v", json!([{ "key": " zone ", "value": " a " }]))
        .await;
    assert_eq!(client.tags_of(&vault).await, json!([tag("zone", "a")]));
    assert_eq!(client.add_tag(&vault, " env ", "prod").await.status, 204);
    assert_eq!(client.add_tag(&vault, "zone", "").await.status, 204);
    let both = json!([tag("zone", ""), tag("env", "prod")]);
    assert_eq!(client.tags_of(&vault).await, both, "in their order");
    let more = json!([tag("env", "test"), tag("键", "值")]);
    assert_eq!(client.batch(&vault, "create", more).await.status, 204);
    let all = json!([tag("zone", ""), tag("env", "test"), tag("键", "值")]);
    assert_eq!(client.tags_of(&vault).await, all);
    let repeated = json!([{ "key": "env" }, { "key": "env " }, { "key": "absent" }]);
    assert_eq!(client.batch(&vault, "delete", repeated).await.status, 204);
    let left = json!([tag("zone", ""), tag("键", "值")]);
    assert_eq!(client.tags_of(&vault).await, left);
    assert_eq!(client.delete_tag(&vault, "%20zone%20").await.status, 204);
    assert_eq!(client.delete_tag(&vault, "%E9%94%AE").await.status, 204);
    assert_eq!(client.tags_of(&vault).await, json!([]));
    // A key that is written like the last part of another path.
    client.add_tag(&vault, "action", "x").await;
    assert_eq!(client.delete_tag(&vault, "action").await.status, 204);
    for key in ["zone", "action", "a%2Fb", "x%20y"] {
        refused(&client.delete_tag(&vault, key).await, 404, "6601");
    }
    refused(&client.delete_tag(&vault, "%20").await, 400, "9900");
    assert_eq!(client.tags_of(&vault).await, json!([]));
}

#[tokio::test]
async fn what_is_no_tag_is_refused_and_a_vault_has_20() {
    let client = Client::new().await;
    let vault = client.tagged("v", json!([])).await;
    for (key, value) in [
        ("", "x"),
        (" ", "x"),
        ("a=b", "x"),
        ("a", "b,c"),
        (&"x".repeat(37), "x"),
        ("a", &"x".repeat(44)),
    ] {
        refused(&client.add_tag(&vault, key, value).await, 400, "9900");
    }
    let no_value = json!({ "tag": { "key": "a" } });
    let answer = client.call(Op::CreateVaultTags, &[&vault], no_value).await;
    refused(&answer, 400, "9900");
    for (action, tags) in [
        ("create", json!([])),
        ("create", json!([tag("a", "1"), tag("a", "2")])),
        ("create", json!([{ "key": "a" }])),
        ("change", json!([tag("a", "1")])),
        ("delete", json!([])),
    ] {
        refused(&client.batch(&vault, action, tags).await, 400, "9900");
    }
    // System tags are set by other services of a cloud.
    let system = json!({ "action": "create",
        "sys_tags": [tag("_sys_enterprise_project_id", "0")] });
    let op = Op::BatchCreateAndDeleteVaultTags;
    let answer = client.call(op, &[&vault], system).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let many: Vec<Value> = (0..20).map(|n| tag(&format!("k{n}"), "")).collect();
    assert_eq!(
        client.batch(&vault, "create", json!(many)).await.status,
        204
    );
    refused(&client.add_tag(&vault, "more", "").await, 400, "6600");
    let two = json!([tag("k0", "new"), tag("more", "")]);
    refused(&client.batch(&vault, "create", two).await, 400, "6600");
    assert_eq!(
        client.tags_of(&vault).await[0],
        tag("k0", ""),
        "nothing changed"
    );
    assert_eq!(client.add_tag(&vault, "k0", "new").await.status, 204);
}

#[tokio::test]
async fn the_tags_of_a_project_are_its_keys_with_their_values() {
    let mut client = Client::new().await;
    client
        .tagged("a", json!([tag("env", "test"), tag("b", "")]))
        .await;
    client.tagged("b", json!([tag("env", "prod")])).await;
    client.tagged("c", json!([tag("env", "test")])).await;
    let listed = client.call(Op::ShowVaultProjectTag, &[], Value::Null).await;
    let expected = json!([
        { "key": "b", "values": [""] },
        { "key": "env", "values": ["prod", "test"] },
    ]);
    assert_eq!(listed.body["tags"], expected);
    client.become_stranger().await;
    let none = client.call(Op::ShowVaultProjectTag, &[], Value::Null).await;
    assert_eq!(none.body["tags"], json!([]));
}

#[tokio::test]
async fn vaults_are_found_by_their_tags() {
    let mut client = Client::new().await;
    client
        .tagged("web", json!([tag("env", "prod"), tag("team", "red")]))
        .await;
    client
        .tagged("db", json!([tag("env", "test"), tag("team", "red")]))
        .await;
    client.tagged("mail", json!([tag("env", "prod-2")])).await;
    client.tagged("plain", json!([])).await;
    let is = |key: &str, values: &[&str]| json!({ "key": key, "values": values });
    let (prod, red) = (is("env", &["prod"]), is("team", &["red", "blue"]));
    for (body, expected) in [
        (json!({}), vec!["plain", "mail", "db", "web"]),
        (json!({ "tags": [prod, red] }), vec!["web"]),
        (
            json!({ "tags": [is("env", &[])] }),
            vec!["mail", "db", "web"],
        ),
        (
            json!({ "tags": [is("env", &["*prod"])] }),
            vec!["mail", "web"],
        ),
        (json!({ "tags": [is(" env ", &[" prod "])] }), vec!["web"]),
        (json!({ "tags_any": [prod, red] }), vec!["db", "web"]),
        (
            json!({ "not_tags": [prod, red] }),
            vec!["plain", "mail", "db"],
        ),
        (
            json!({ "not_tags_any": [prod, red] }),
            vec!["plain", "mail"],
        ),
        (json!({ "tags": [red], "not_tags_any": [prod] }), vec!["db"]),
        (
            json!({ "without_any_tag": true, "tags": [prod] }),
            vec!["plain"],
        ),
        (
            json!({ "matches": [{ "key": "resource_name", "value": "A" }] }),
            vec!["plain", "mail"],
        ),
        (
            json!({ "matches": [{ "key": "resource_name", "value": "" }] }),
            vec![],
        ),
        (json!({ "object_type": "disk" }), vec![]),
        (
            json!({ "cloud_type": "public", "tags": [red] }),
            vec!["db", "web"],
        ),
        (json!({ "cloud_type": "hybrid" }), vec![]),
        (
            json!({ "sys_tags": [is("_sys_enterprise_project_id", &["0"])], "matches":
                [{ "key": "resource_name", "value": "web" }] }),
            vec!["web"],
        ),
        (
            json!({ "sys_tags": [is("_sys_enterprise_project_id", &["1"])] }),
            vec![],
        ),
    ] {
        let mut filter = body.clone();
        filter["action"] = json!("filter");
        let found = client.search(filter).await;
        let names: Vec<&str> = found.body["resources"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}: {found:?}"))
            .iter()
            .map(|one| one["resource_name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{body}");
        assert_eq!(found.body["total_count"], expected.len(), "{body}");
        let mut count = body.clone();
        count["action"] = json!("count");
        let counted = client.search(count).await;
        assert_eq!(
            counted.body,
            json!({ "total_count": expected.len() }),
            "{body}"
        );
    }
    let page = json!({ "action": "filter", "limit": "1", "offset": "1" });
    let found = client.search(page).await;
    assert_eq!(found.body["total_count"], 4);
    let one = &found.body["resources"][0];
    assert_eq!(one["resource_name"], "mail");
    assert_eq!(one["resource_detail"]["vault"]["id"], one["resource_id"]);
    assert_eq!(one["tags"], one["resource_detail"]["vault"]["tags"]);
    let op = Op::ShowVaultResourceInstances;
    let body = json!({ "action": "count" });
    for (query, count) in [
        ("enterprise_project_id=0", 4),
        ("enterprise_project_id=1", 0),
        ("enterprise_project_id=all_granted_eps", 4),
    ] {
        let counted = client.call_with(op, &[], query, body.clone()).await;
        assert_eq!(counted.body["total_count"], count, "{query}");
    }
    for wrong in [
        json!({ "action": "filter", "limit": "1001" }),
        json!({ "action": "filter", "tags": [] }),
        json!({ "action": "all" }),
    ] {
        refused(&client.search(wrong).await, 400, "9900");
    }
    client.become_stranger().await;
    assert_eq!(client.search(body).await.body["total_count"], 0);
}

#[tokio::test]
async fn another_projects_tags_are_answered_as_if_they_did_not_exist() {
    let mut client = Client::new().await;
    let vault = client.tagged("v", json!([tag("a", "1")])).await;
    let owner = (client.project.clone(), client.token.clone());
    client.become_stranger().await;
    for id in [vault.as_str(), NOBODYS] {
        let batch = json!([tag("a", "2")]);
        for answer in [
            client.call(Op::ShowVaultTag, &[id], Value::Null).await,
            client.add_tag(id, "a", "2").await,
            client.batch(id, "create", batch.clone()).await,
            client.batch(id, "delete", batch).await,
            client.delete_tag(id, "a").await,
        ] {
            refused(&answer, 404, "6105");
            assert_eq!(answer.body["error_msg"], "Vault Not Found");
        }
    }
    refused(&client.delete_tag("x", "a").await, 400, "9900");
    (client.project, client.token) = owner;
    assert_eq!(client.tags_of(&vault).await, json!([tag("a", "1")]));
}
