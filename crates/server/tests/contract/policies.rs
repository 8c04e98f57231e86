//! Policies, and the vaults that follow them.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
const PATTERN: &str = "FREQ=WEEKLY;BYDAY=MO,TU;BYHOUR=14;BYMINUTE=00";

/// The body of a policy's creation.
pub fn policy_body(operation: &str) -> Value {
    let mut definition = json!({ "retention_duration_days": 1, "timezone": "UTC+08:00",
        "day_backups": 0, "week_backups": 0, "month_backups": 0, "year_backups": 0 });
    if operation == "replication" {
        definition["destination_region"] = json!("cairn-2");
        definition["destination_project_id"] = json!("f841e01fd2b14e7fa41b6ae7aa6b0594");
    }
    json!({ "policy": {
        "enabled": true, "name": "policy001", "operation_type": operation,
        "operation_definition": definition,
        "trigger": { "properties": { "pattern": [PATTERN] } },
    } })
}

impl Client {
    /// A new policy; its id.
    pub async fn policy(&self, operation: &str) -> String {
        let made = self
            .call(Op::CreatePolicy, &[], policy_body(operation))
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        made.body["policy"]["id"].as_str().unwrap().to_owned()
    }

    /// An empty vault, some of its billing as given; its id.
    pub async fn vault_with(&self, object_type: &str, billing: Value) -> String {
        let mut body = vault_body(object_type, 100, json!([]));
        for (key, value) in billing.as_object().unwrap() {
            body["vault"]["billing"][key] = value.clone();
        }
        let made = self.call(Op::CreateVault, &[], body).await;
        assert_eq!(made.status, 200, "{made:?}");
        made.body["vault"]["id"].as_str().unwrap().to_owned()
    }

    async fn associate(&self, vault: &str, body: Value) -> Answer {
        self.call(Op::AssociateVaultPolicy, &[vault], body).await
    }

    async fn followed_by(&self, vault: &str) -> Vec<Value> {
        let query = format!("vault_id={vault}");
        let listed = self
            .call_with(Op::ListPolicies, &[], &query, Value::Null)
            .await;
        let policies = listed.body["policies"].as_array().unwrap();
        assert_eq!(listed.body["count"], policies.len());
        policies.iter().map(|policy| policy["id"].clone()).collect()
    }
}

/// The answer is this refusal.
pub fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.body["error_code"],
        format!("BackupService.{code}"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_policy_is_made_listed_shown_changed_and_deleted() {
    let client = Client::new().await;
    let body = policy_body("backup");
    let made = client.call(Op::CreatePolicy, &[], body.clone()).await;
    assert_eq!(made.status, 200, "{made:?}");
    let policy = &made.body["policy"];
    let id = policy["id"].as_str().unwrap();
    assert_eq!(
        policy["operation_definition"],
        body["policy"]["operation_definition"]
    );
    assert_eq!(policy["policy_type"], "custom_policy");
    assert_eq!(policy["associated_vaults"], json!([]));
    assert_eq!(policy["trigger"]["name"], "default");
    assert_eq!(policy["trigger"]["type"], "time");
    let properties = json!({ "pattern": [PATTERN], "start_time": "2023-11-14 22:13:20" });
    assert_eq!(policy["trigger"]["properties"], properties);
    let shown = client.call(Op::ShowPolicy, &[id], Value::Null).await;
    assert_eq!(shown.body, made.body, "read your writes");

    let change = json!({ "policy": { "name": "renamed", "enabled": false,
        "operation_definition": { "max_backups": 5, "retention_duration_days": -1 },
        "trigger": { "properties": { "start_window_minutes": 60,
            "pattern": ["FREQ=DAILY;INTERVAL=2;BYHOUR=6;BYMINUTE=0"] } } } });
    let changed = client.call(Op::UpdatePolicy, &[id], change.clone()).await;
    let now = &changed.body["policy"];
    assert_eq!(
        (&now["name"], &now["enabled"]),
        (&json!("renamed"), &json!(false))
    );
    assert_eq!(
        now["operation_definition"],
        change["policy"]["operation_definition"]
    );
    assert_eq!(now["trigger"]["id"], policy["trigger"]["id"]);
    assert_eq!(now["trigger"]["properties"]["start_window_minutes"], 60);
    assert_eq!(
        now["trigger"]["properties"]["start_time"],
        "2023-11-14 22:13:20"
    );
    let nothing = client
        .call(Op::UpdatePolicy, &[id], json!({ "policy": {} }))
        .await;
    assert_eq!(nothing.body, changed.body);
    let window = json!({ "policy": { "trigger": { "properties":
        { "pattern": [PATTERN], "start_window_minutes": null } } } });
    let without = client.call(Op::UpdatePolicy, &[id], window).await;
    let properties = &without.body["policy"]["trigger"]["properties"];
    assert_eq!(properties.get("start_window_minutes"), None, "{without:?}");

    let gone = client.call(Op::DeletePolicy, &[id], Value::Null).await;
    assert_eq!(gone.status, 204);
    for operation in [Op::ShowPolicy, Op::DeletePolicy] {
        let answer = client.call(operation, &[id], Value::Null).await;
        refused(&answer, 404, "6000");
    }
    let late = client
        .call(Op::UpdatePolicy, &[id], json!({ "policy": {} }))
        .await;
    refused(&late, 404, "6000");
}

#[tokio::test]
async fn every_kind_of_retention_is_read_back_as_it_was_written() {
    let client = Client::new().await;
    for definition in [
        json!({}),
        json!({ "max_backups": -1, "retention_duration_days": -1 }),
        json!({ "max_backups": 0, "retention_duration_days": 20, "enable_acceleration": false }),
        json!({ "max_backups": 30, "day_backups": 5, "week_backups": 2, "month_backups": 1,
            "year_backups": 1, "timezone": "UTC+08:00", "full_backup_interval": 10 }),
        json!({ "advanced_retention_rules": {
            "weekly_retention_rules": { "days_of_week": ["MO", "SU"], "retention_duration_periods": 4 },
            "monthly_retention_rules": { "retention_type": "MONTHLY", "days_of_month": [1, -1],
                "retention_duration_periods": 12 },
            "yearly_retention_rules": { "retention_type": "WEEKLY", "days_of_week": ["SA"],
                "retention_weeks": ["FIRST"], "retention_months": ["JANUARY", "JULY"],
                "retention_duration_periods": 10 },
        } }),
    ] {
        let mut body = policy_body("backup");
        body["policy"]["operation_definition"] = definition.clone();
        let made = client.call(Op::CreatePolicy, &[], body).await;
        assert_eq!(made.body["policy"]["operation_definition"], definition);
        let id = made.body["policy"]["id"].as_str().unwrap();
        let shown = client.call(Op::ShowPolicy, &[id], Value::Null).await;
        assert_eq!(shown.body, made.body);
    }
}

#[tokio::test]
async fn policies_are_listed_by_type_and_page_by_page() {
    let client = Client::new().await;
    let mut ids = Vec::new();
    for operation in ["backup", "replication", "backup"] {
        ids.insert(0, client.policy(operation).await);
        client.world.clock.advance(1);
    }
    let list = async |query: &str| {
        let listed = client
            .call_with(Op::ListPolicies, &[], query, Value::Null)
            .await;
        assert_eq!(listed.status, 200, "{query}: {listed:?}");
        let policies = listed.body["policies"].as_array().unwrap().clone();
        let ids: Vec<String> = policies
            .iter()
            .map(|policy| policy["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, listed.body["count"].as_u64().unwrap())
    };
    assert_eq!(list("").await, (ids.clone(), 3));
    assert_eq!(list("limit=1&offset=1").await, (vec![ids[1].clone()], 3));
    let behind = format!("marker={}&limit=1", ids[0]);
    assert_eq!(list(&behind).await, (vec![ids[1].clone()], 3));
    let end = format!("marker={}", ids[2]);
    assert_eq!(list(&end).await, (Vec::new(), 3));
    let copies = list("operation_type=replication").await;
    assert_eq!(copies, (vec![ids[1].clone()], 1));
    assert_eq!(list(&format!("vault_id={NOBODYS}")).await, (Vec::new(), 0));
    for query in [
        "limit=0",
        "limit=1001",
        "marker=x",
        "vault_id=x",
        "operation_type=copy",
    ] {
        let answer = client
            .call_with(Op::ListPolicies, &[], query, Value::Null)
            .await;
        refused(&answer, 400, "9900");
    }
}

#[tokio::test]
async fn what_is_no_policy_is_refused_and_none_is_made() {
    let client = Client::new().await;
    let create = async |pointer: &str, value: Value| {
        let mut body = policy_body("backup");
        *body.pointer_mut(pointer).unwrap() = value;
        client.call(Op::CreatePolicy, &[], body).await
    };
    let schedule = "/policy/trigger/properties/pattern";
    for (pointer, value) in [
        ("/policy/name", json!("a b")),
        ("/policy/name", json!("")),
        ("/policy/enabled", json!("yes")),
        (schedule, json!([])),
        (schedule, json!(["FREQ=MONTHLY;BYHOUR=1;BYMINUTE=0"])),
        (schedule, json!(["FREQ=DAILY;BYHOUR=1;BYMINUTE=0,30"])),
        (schedule, json!(vec![PATTERN; 25])),
        (
            "/policy/operation_definition",
            json!({ "max_backups": 1, "retention_duration_days": 1 }),
        ),
        ("/policy/operation_definition", json!({ "day_backups": 1 })),
        ("/policy/operation_type", json!("replication")),
        ("/policy/operation_type", json!(null)),
    ] {
        refused(&create(pointer, value).await, 400, "9900");
    }
    let unknown = create("/policy/operation_type", json!("restore")).await;
    refused(&unknown, 400, "6117");
    let listed = client.call(Op::ListPolicies, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0);
}

#[tokio::test]
async fn a_project_has_32_policies_of_each_type() {
    let client = Client::new().await;
    for _ in 0..32 {
        client.policy("backup").await;
    }
    let more = client
        .call(Op::CreatePolicy, &[], policy_body("backup"))
        .await;
    refused(&more, 400, "6001");
    let other = client.policy("replication").await;
    let listed = client.call(Op::ListPolicies, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 33);
    assert_eq!(listed.body["policies"][0]["id"], other);
}

#[tokio::test]
async fn a_vault_follows_the_last_policy_of_a_type_that_it_was_given() {
    let client = Client::new().await;
    let (first, second) = (client.policy("backup").await, client.policy("backup").await);
    let mut body = vault_body("server", 100, json!([]));
    body["vault"]["backup_policy_id"] = json!(first);
    let made = client.call(Op::CreateVault, &[], body.clone()).await;
    let vault = made.body["vault"]["id"].as_str().unwrap();
    assert_eq!(client.followed_by(vault).await, [json!(first)]);
    // As Terraform does: what the creation bound is bound once more.
    let bound = client.associate(vault, json!({ "policy_id": first })).await;
    let expected = json!({ "policy_id": first, "vault_id": vault, "destination_vault_id": null });
    assert_eq!(bound.body["associate_policy"], expected);
    client
        .associate(vault, json!({ "policy_id": second }))
        .await;
    assert_eq!(client.followed_by(vault).await, [json!(second)]);
    let shown = client.call(Op::ShowPolicy, &[&second], Value::Null).await;
    let vaults = json!([{ "vault_id": vault, "destination_vault_id": null }]);
    assert_eq!(shown.body["policy"]["associated_vaults"], vaults);
    for (policy, count) in [(&first, 0), (&second, 1)] {
        let query = format!("policy_id={policy}");
        let listed = client
            .call_with(Op::ListVault, &[], &query, Value::Null)
            .await;
        assert_eq!(listed.body["count"], count);
    }

    let body_of = |policy: &str| json!({ "policy_id": policy });
    let dissociate = async |policy: &str| {
        let body = body_of(policy);
        client
            .call(Op::DisassociateVaultPolicy, &[vault], body)
            .await
    };
    refused(&dissociate(&first).await, 404, "6002");
    refused(&dissociate(NOBODYS).await, 404, "6000");
    let unbound = dissociate(&second).await;
    assert_eq!(unbound.body["dissociate_policy"]["policy_id"], second);
    refused(&dissociate(&second).await, 404, "6002");
    assert_eq!(client.followed_by(vault).await, [] as [Value; 0]);

    // A policy that is deleted is followed no longer, and neither is one by a vault that is.
    client.associate(vault, body_of(&first)).await;
    client.call(Op::DeletePolicy, &[&first], Value::Null).await;
    assert_eq!(client.followed_by(vault).await, [] as [Value; 0]);
    client.associate(vault, body_of(&second)).await;
    let deleted = client.call(Op::DeleteVault, &[vault], Value::Null).await;
    assert_eq!(deleted.status, 204);
    let shown = client.call(Op::ShowPolicy, &[&second], Value::Null).await;
    assert_eq!(shown.body["policy"]["associated_vaults"], json!([]));
    refused(
        &client.associate(vault, body_of(&second)).await,
        404,
        "6105",
    );
    body["vault"]["backup_policy_id"] = json!(NOBODYS);
    let refusal = client.call(Op::CreateVault, &[], body.clone()).await;
    refused(&refusal, 404, "6000");
    body["vault"]["backup_policy_id"] = json!(client.policy("replication").await);
    let refusal = client.call(Op::CreateVault, &[], body).await;
    refused(&refusal, 400, "6127");
    let listed = client.call(Op::ListVault, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0, "nothing was made");
}

#[tokio::test]
async fn replicas_go_to_a_replication_vault_of_the_project() {
    let mut client = Client::new().await;
    let replication = json!({ "protect_type": "replication" });
    let (source, target) = (
        client.vault_with("server", json!({})).await,
        client.vault_with("server", replication.clone()).await,
    );
    let shares = client.vault_with("turbo", replication.clone()).await;
    let (copies, backups) = (
        client.policy("replication").await,
        client.policy("backup").await,
    );
    let to =
        |policy: &str, vault: &str| json!({ "policy_id": policy, "destination_vault_id": vault });
    let alone = client
        .associate(&source, json!({ "policy_id": copies }))
        .await;
    refused(&alone, 400, "9900");
    for (vault, code) in [(NOBODYS, "6120"), (&source, "6119"), (&shares, "6118")] {
        let answer = client.associate(&source, to(&copies, vault)).await;
        refused(&answer, 400, code);
    }
    // A vault keeps one policy of each type; both can be given at once.
    let both = json!({ "add_policy_ids": [copies, backups], "destination_vault_id": target });
    let bound = client.associate(&source, both).await;
    assert_eq!(bound.body["associate_policy"]["policy_id"], copies);
    assert_eq!(
        bound.body["associate_policy"]["destination_vault_id"],
        target
    );
    assert_eq!(client.followed_by(&source).await.len(), 2);
    let other = client.policy("backup").await;
    let twice = json!({ "add_policy_ids": [backups, other] });
    refused(&client.associate(&source, twice).await, 400, "9900");
    assert!(!client.followed_by(&source).await.contains(&json!(other)));

    // Where replicas go is fixed while a vault replicates by the policy.
    let move_away =
        json!({ "policy": { "operation_definition": { "destination_region": "cairn-3" } } });
    let moved = client
        .call(Op::UpdatePolicy, &[&copies], move_away.clone())
        .await;
    refused(&moved, 400, "6003");
    let keep = json!({ "policy": { "operation_definition": { "max_backups": 3 } } });
    let kept = client.call(Op::UpdatePolicy, &[&copies], keep).await;
    let definition = &kept.body["policy"]["operation_definition"];
    assert_eq!(definition["destination_region"], "cairn-2", "{kept:?}");
    let body = json!({ "policy_id": copies });
    let unbound = client
        .call(Op::DisassociateVaultPolicy, &[&source], body)
        .await;
    assert_eq!(
        unbound.body["dissociate_policy"]["destination_vault_id"],
        target
    );
    let moved = client.call(Op::UpdatePolicy, &[&copies], move_away).await;
    assert_eq!(moved.status, 200, "{moved:?}");

    // Not every vault follows every policy.
    let disk = client.vault_with("disk", json!({})).await;
    let hybrid = json!({ "cloud_type": "hybrid" });
    let (vmware, files) = (
        client.vault_with("vmware", hybrid.clone()).await,
        client.vault_with("file", hybrid).await,
    );
    for (vault, policy, code) in [
        (&target, &backups, "6127"),
        (&target, &copies, "6127"),
        (&disk, &copies, "6127"),
        (&vmware, &backups, "6136"),
        (&files, &copies, "6127"),
    ] {
        let answer = client.associate(vault, to(policy, &target)).await;
        refused(&answer, 400, code);
    }
    for (vault, policy) in [(&vmware, &copies), (&files, &backups)] {
        let answer = client.associate(vault, to(policy, &target)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Somebody else's vault is no destination, as one that is not there.
    client.become_stranger().await;
    let (own, policy) = (
        client.vault_with("server", json!({})).await,
        client.policy("replication").await,
    );
    let foreign = client.associate(&own, to(&policy, &target)).await;
    let absent = client.associate(&own, to(&policy, NOBODYS)).await;
    refused(&foreign, 400, "6120");
    assert_eq!(foreign.body, absent.body);
}

#[tokio::test]
async fn another_projects_policies_are_answered_as_if_they_did_not_exist() {
    let mut client = Client::new().await;
    let policy = client.policy("backup").await;
    let vault = client.vault_with("server", json!({})).await;
    client
        .associate(&vault, json!({ "policy_id": policy }))
        .await;
    client.become_stranger().await;
    let own = client.vault_with("server", json!({})).await;
    let change = json!({ "policy": { "name": "x" } });
    let cases = |id: &str| {
        let policy = json!({ "policy_id": id });
        vec![
            (Op::ShowPolicy, id.to_owned(), Value::Null),
            (Op::UpdatePolicy, id.to_owned(), change.clone()),
            (Op::DeletePolicy, id.to_owned(), Value::Null),
            (Op::AssociateVaultPolicy, own.clone(), policy.clone()),
            (Op::DisassociateVaultPolicy, own.clone(), policy),
        ]
    };
    for (foreign, absent) in cases(&policy).into_iter().zip(cases(NOBODYS)) {
        let one = client.call(foreign.0, &[&foreign.1], foreign.2).await;
        let two = client.call(absent.0, &[&absent.1], absent.2).await;
        refused(&one, 404, "6000");
        assert_eq!(one.body, two.body, "{}", foreign.0);
    }
    let bind = json!({ "policy_id": policy });
    for operation in [Op::AssociateVaultPolicy, Op::DisassociateVaultPolicy] {
        let foreign = client.call(operation, &[&vault], bind.clone()).await;
        let absent = client.call(operation, &[NOBODYS], bind.clone()).await;
        refused(&foreign, 404, "6105");
        assert_eq!(foreign.body, absent.body);
        let wrong = client.call(operation, &["x"], bind.clone()).await;
        refused(&wrong, 400, "9900");
    }
    for query in ["", &format!("vault_id={vault}")] {
        let listed = client
            .call_with(Op::ListPolicies, &[], query, Value::Null)
            .await;
        assert_eq!(listed.body, json!({ "policies": [], "count": 0 }));
    }
    let wrong = client.call(Op::ShowPolicy, &["x"], Value::Null).await;
    refused(&wrong, 400, "9900");
}

#[tokio::test]
async fn zones_and_full_rules_are_kept_as_they_were_written_and_end_by_null() {
    let client = Client::new().await;
    let rules = json!(["FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=22;BYMINUTE=0"]);
    let mut body = policy_body("backup");
    body["policy"]["trigger"]["properties"] =
        json!({ "timezone": "Europe/Berlin", "recurrence_rules": rules });
    let made = client.call(Op::CreatePolicy, &[], body).await;
    let id = made.body["policy"]["id"].as_str().unwrap();
    let properties = |answer: &Answer| answer.body["policy"]["trigger"]["properties"].clone();
    let mut wanted = json!({ "pattern": [], "timezone": "Europe/Berlin",
        "recurrence_rules": rules, "start_time": "2023-11-14 22:13:20" });
    assert_eq!(properties(&made), wanted);
    let path = [id];
    let change = |properties: Value| {
        let body = json!({ "policy": { "trigger": { "properties": properties } } });
        client.call(Op::UpdatePolicy, &path, body)
    };
    let changed = change(json!({ "pattern": [PATTERN] })).await;
    wanted["pattern"] = json!([PATTERN]);
    assert_eq!(properties(&changed), wanted, "what is left out stays");
    let changed = change(json!({ "recurrence_rules": ["FREQ=HOURLY"], "timezone": null })).await;
    let wanted = json!({ "pattern": [PATTERN], "recurrence_rules": ["FREQ=HOURLY"],
        "start_time": "2023-11-14 22:13:20" });
    assert_eq!(properties(&changed), wanted);
    let changed = change(json!({ "pattern": [PATTERN], "recurrence_rules": null })).await;
    let wanted = json!({ "pattern": [PATTERN], "start_time": "2023-11-14 22:13:20" });
    assert_eq!(properties(&changed), wanted);
    let changed = change(json!({ "recurrence_rules": null })).await;
    assert_eq!(properties(&changed), wanted, "there are none any more");
    for wrong in [
        json!({ "pattern": [] }),
        json!({ "pattern": [], "timezone": "Europe/Berlin" }),
        json!({ "timezone": "Mars/Base" }),
        json!({ "pattern": [PATTERN], "recurrence_rules": ["FREQ=SECONDLY"] }),
    ] {
        let refused = change(wrong.clone()).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
    let shown = client.call(Op::ShowPolicy, &[id], Value::Null).await;
    assert_eq!(properties(&shown), wanted, "a refusal changes nothing");
}

#[tokio::test]
async fn a_simulation_answers_what_would_be_and_makes_nothing() {
    let client = Client::new().await;
    let mut body = policy_body("backup");
    body["policy"]["operation_definition"] = json!({ "max_backups": 1 });
    body["from"] = json!("2026-01-05");
    body["until"] = json!("2026-01-06T15:00:00+01:00");
    let answer = client.call(Op::SimulatePolicy, &[], body.clone()).await;
    let wanted = json!({ "backups": [
        { "created_at": "2026-01-05T14:00:00Z", "expired_at": "2026-01-06T14:00:00Z", "kept_by": [] },
        { "created_at": "2026-01-06T14:00:00Z", "expired_at": null, "kept_by": ["max_backups"] },
    ] });
    assert_eq!(answer.body, wanted);
    body.as_object_mut().unwrap().remove("from");
    body.as_object_mut().unwrap().remove("until");
    let year = client.call(Op::SimulatePolicy, &[], body.clone()).await;
    let backups = year.body["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 104, "a year of two a week, from now on");
    assert_eq!(backups[0]["created_at"], "2023-11-20T14:00:00Z");
    let listed = client.call(Op::ListPolicies, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0);
    for (key, value) in [
        ("/until", json!("2020-01-01")),
        ("/from", json!("soon")),
        ("/policy/operation_type", json!("move")),
        (
            "/policy/trigger/properties/recurrence_rules",
            json!(["FREQ=MINUTELY"]),
        ),
    ] {
        let mut wrong = body.clone();
        let (parent, name) = key.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[name] = value;
        let refused = client.call(Op::SimulatePolicy, &[], wrong).await;
        assert_eq!(refused.status, 400, "{key}");
    }
}
