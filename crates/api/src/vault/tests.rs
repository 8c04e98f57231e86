use super::*;
use crate::validate::parse_body;

/// The body of a creation with some keys of the vault replaced or added.
fn create(change: serde_json::Value) -> Result<CreateVaultRequest, Invalid> {
    let mut vault = serde_json::json!({
        "name": "vault_name",
        "resources": [],
        "billing": {
            "consistent_level": "crash_consistent", "object_type": "disk",
            "protect_type": "backup", "size": 100, "charging_mode": "post_paid"
        }
    });
    merge(&mut vault, change);
    parse_body(serde_json::json!({ "vault": vault }).to_string().as_bytes())
}

fn merge(into: &mut serde_json::Value, change: serde_json::Value) {
    match (into, change) {
        (serde_json::Value::Object(into), serde_json::Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

#[test]
fn a_plain_vault_is_read() {
    let vault = create(serde_json::json!({})).unwrap().vault;
    assert_eq!(vault.name, "vault_name");
    assert_eq!(vault.billing.size, 100);
    assert_eq!(vault.billing.object_type, ObjectType::Disk);
    assert!(vault.locked.is_none());
}

#[test]
fn every_limit_of_a_creation_is_checked_and_named() {
    let id = ResourceId::random().to_string();
    let many = vec![serde_json::json!({"id": id, "type": "OS::Nova::Server"}); 256];
    let tags = |n: usize| -> Vec<_> {
        (0..n)
            .map(|i| serde_json::json!({"key": format!("k{i}"), "value": "v"}))
            .collect()
    };
    for (change, key) in [
        (serde_json::json!({"name": "a b"}), "vault.name"),
        (serde_json::json!({"name": 1}), "vault.name"),
        (
            serde_json::json!({"billing": {"size": 9}}),
            "vault.billing.size",
        ),
        (
            serde_json::json!({"billing": {"size": 10_485_761}}),
            "vault.billing.size",
        ),
        (
            serde_json::json!({"billing": {"size": -1}}),
            "vault.billing.size",
        ),
        (
            serde_json::json!({"billing": {"size": "100"}}),
            "vault.billing.size",
        ),
        (
            serde_json::json!({"billing": {"object_type": "cat"}}),
            "vault.billing.object_type",
        ),
        (
            serde_json::json!({"billing": {"protect_type": "hybrid"}}),
            "vault.billing.protect_type",
        ),
        (
            serde_json::json!({"billing": {"charging_mode": "pre_paid"}}),
            "vault.billing.period_num",
        ),
        (serde_json::json!({"resources": many}), "vault.resources"),
        (
            serde_json::json!({"resources": [{"id": "x", "type": "OS::Nova::Server"}]}),
            "vault.resources[0].id",
        ),
        (
            serde_json::json!({"resources": [{"id": id, "type": "cat"}]}),
            "vault.resources[0].type",
        ),
        (
            serde_json::json!({"resources": [{"id": id, "type": "OS::Nova::Server", "name": "x".repeat(256)}]}),
            "vault.resources.name",
        ),
        (
            serde_json::json!({"description": "a>b"}),
            "vault.description",
        ),
        (
            serde_json::json!({"description": "x".repeat(65)}),
            "vault.description",
        ),
        (serde_json::json!({"threshold": 0}), "vault.threshold"),
        (serde_json::json!({"threshold": 101}), "vault.threshold"),
        (
            serde_json::json!({"backup_name_prefix": "x".repeat(33)}),
            "vault.backup_name_prefix",
        ),
        (
            serde_json::json!({"backup_policy_id": "x"}),
            "vault.backup_policy_id",
        ),
        (serde_json::json!({"tags": []}), "vault.tags"),
        (serde_json::json!({"tags": tags(21)}), "vault.tags"),
        (
            serde_json::json!({"tags": [{"key": "a=b", "value": ""}]}),
            "vault.tags.key",
        ),
        (
            serde_json::json!({"tags": [{"key": "a", "value": "b|"}]}),
            "vault.tags.value",
        ),
        (
            serde_json::json!({"tags": [{"key": "a", "value": ""}, {"key": " a", "value": ""}]}),
            "vault.tags.key",
        ),
        (
            serde_json::json!({"bind_rules": {"tags": tags(6)}}),
            "vault.bind_rules.tags",
        ),
    ] {
        let message = create(change.clone()).unwrap_err().message;
        assert!(
            message.starts_with(&format!("Invalid {key} provided.")),
            "{change}: {message}"
        );
    }
}

#[test]
fn an_update_may_be_small_but_not_nothing() {
    let read = |body: &str| parse_body::<UpdateVaultRequest>(body.as_bytes());
    assert!(read(r#"{"vault":{}}"#).is_ok());
    assert!(read(r#"{"vault":{"billing":{"size":1}}}"#).is_ok());
    assert!(read(r#"{"vault":{"billing":{"size":0}}}"#).is_err());
    assert!(read(r#"{"vault":{"name":""}}"#).is_err());
    assert!(read("{}").is_err());
}

#[test]
fn resources_are_bound_and_taken_out_by_1_to_256() {
    let id = ResourceId::random().to_string();
    let add = |n: usize| {
        let resources = vec![serde_json::json!({"id": id, "type": "OS::Nova::Server"}); n];
        let body = serde_json::json!({ "resources": resources }).to_string();
        parse_body::<AddVaultResourceRequest>(body.as_bytes())
    };
    let remove = |n: usize| {
        let body = serde_json::json!({ "resource_ids": vec![&id; n] }).to_string();
        parse_body::<RemoveVaultResourceRequest>(body.as_bytes())
    };
    for (count, good) in [(0, false), (1, true), (256, true), (257, false)] {
        assert_eq!(add(count).is_ok(), good, "{count}");
        assert_eq!(remove(count).is_ok(), good, "{count}");
    }
}

#[test]
fn a_list_query_repeats_ids_and_joins_resources() {
    let (a, b) = (VaultId::random(), VaultId::random());
    let (c, d) = (ResourceId::random(), ResourceId::random());
    let raw = format!("id={a}&id={b}&resource_ids={c},{d}&object_type=disk&limit=5&offset=2");
    let query = ListVaultQuery::parse(&raw).unwrap();
    assert_eq!(query.id, [a, b]);
    assert_eq!(query.resource_ids.as_ref().unwrap().0, [c, d]);
    assert_eq!((query.page().limit, query.page().offset), (5, 2));
    assert_eq!(ListVaultQuery::parse(&query.write()).unwrap(), query);
    assert!(ListVaultQuery::parse("name=a.b").is_err());
    assert!(ListVaultQuery::parse("protect_type=none").is_err());
}

#[test]
fn unset_values_are_null_in_answers_and_left_out_of_requests() {
    let billing = Billing {
        allocated: 40,
        charging_mode: ChargingMode::PostPaid,
        cloud_type: CloudType::Public,
        consistent_level: ConsistentLevel::CrashConsistent,
        frozen_scene: None,
        is_multi_az: false,
        object_type: ObjectType::Disk,
        order_id: None,
        product_id: None,
        partner_bp_id: None,
        protect_type: ProtectType::Backup,
        size: 100,
        spec_code: "vault.backup.volume.normal".to_owned(),
        status: VaultStatus::Available,
        storage_unit: None,
        used: 0,
    };
    let value = serde_json::to_value(&billing).unwrap();
    for key in ["frozen_scene", "order_id", "product_id", "storage_unit"] {
        assert!(
            value.get(key).is_some_and(serde_json::Value::is_null),
            "{key}"
        );
    }
    let change = serde_json::to_string(&VaultChange::default()).unwrap();
    assert_eq!(change, "{}");
    assert_eq!(serde_json::to_string(&BindRules::default()).unwrap(), "{}");
}
