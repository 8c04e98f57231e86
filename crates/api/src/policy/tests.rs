use serde_json::{Value, json};

use super::*;
use crate::parse_body;

fn create(policy: &Value) -> Result<CreatePolicyRequest, Invalid> {
    parse_body(json!({ "policy": policy }).to_string().as_bytes())
}

fn policy(definition: Value) -> Value {
    json!({
        "name": "policy001", "operation_type": "backup", "operation_definition": definition,
        "trigger": { "properties": { "pattern": ["FREQ=DAILY;BYHOUR=1;BYMINUTE=00"] } },
    })
}

#[test]
fn what_clients_send_is_taken() {
    for definition in [
        json!({}),
        json!({ "max_backups": -1, "retention_duration_days": -1 }),
        json!({ "max_backups": 0, "retention_duration_days": 20 }),
        json!({ "max_backups": -1, "retention_duration_days": 30, "day_backups": 0, "week_backups": 0,
            "month_backups": 0, "year_backups": 0, "timezone": "UTC+08:00", "full_backup_interval": -1 }),
        json!({ "max_backups": 30, "day_backups": 5, "week_backups": 2, "month_backups": 1,
            "year_backups": 1, "timezone": "UTC-03:30", "full_backup_interval": 10 }),
        json!({ "max_backups": null, "timezone": null, "advanced_retention_rules": {} }),
        json!({ "advanced_retention_rules": {
            "weekly_retention_rules": { "days_of_week": ["MO"], "retention_duration_periods": 5200 },
            "monthly_retention_rules": { "retention_type": "MONTHLY", "days_of_month": [1, -1],
                "retention_duration_periods": 1200 },
            "yearly_retention_rules": { "retention_type": "WEEKLY", "days_of_week": ["SU"],
                "retention_weeks": ["LAST"], "retention_months": ["JANUARY"],
                "retention_duration_periods": 100 },
        } }),
        json!({ "advanced_retention_rules": {
            "yearly_retention_rules": { "retention_duration_periods": -1 } } }),
    ] {
        let read = create(&policy(definition.clone()));
        assert!(read.is_ok(), "{definition}: {read:?}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let advanced = |rule: Value| json!({ "advanced_retention_rules": rule });
    for definition in [
        json!({ "max_backups": -2 }),
        json!({ "max_backups": 100_000 }),
        json!({ "retention_duration_days": 100_000 }),
        json!({ "day_backups": 101, "timezone": "UTC+08:00" }),
        json!({ "day_backups": -1 }),
        json!({ "full_backup_interval": 101 }),
        json!({ "max_backups": 1, "retention_duration_days": 1 }),
        json!({ "week_backups": 1 }),
        json!({ "week_backups": 1, "timezone": "UTC+08:00", "retention_duration_days": 1 }),
        json!({ "timezone": "UTC+8" }),
        json!({ "timezone": "UTC+15:00" }),
        json!({ "timezone": "UTC+08:60" }),
        json!({ "timezone": "UTC+08:000" }),
        json!({ "timezone": "Europe/Berlin" }),
        json!({ "timezone": "UTC+é8:0" }),
        json!({ "destination_region": "a b" }),
        json!({ "destination_project_id": "x" }),
        advanced(json!({ "weekly_retention_rules": { "retention_duration_periods": 1 } })),
        advanced(json!({ "weekly_retention_rules": { "days_of_week": ["MO", "MO"] } })),
        advanced(
            json!({ "weekly_retention_rules": { "retention_duration_periods": 5201,
            "days_of_week": ["MO"] } }),
        ),
        advanced(json!({ "weekly_retention_rules": { "retention_duration_periods": 0 } })),
        advanced(
            json!({ "monthly_retention_rules": { "retention_duration_periods": 1,
            "days_of_month": [1] } }),
        ),
        advanced(
            json!({ "monthly_retention_rules": { "retention_duration_periods": 1,
            "retention_type": "MONTHLY", "days_of_month": [29] } }),
        ),
        advanced(
            json!({ "monthly_retention_rules": { "retention_duration_periods": 1,
            "retention_type": "MONTHLY", "days_of_month": [1], "days_of_week": ["MO"] } }),
        ),
        advanced(
            json!({ "monthly_retention_rules": { "retention_duration_periods": 1,
            "retention_type": "WEEKLY", "days_of_week": ["MO"] } }),
        ),
        advanced(
            json!({ "yearly_retention_rules": { "retention_duration_periods": 1,
            "retention_type": "MONTHLY", "days_of_month": [1] } }),
        ),
        advanced(json!({ "yearly_retention_rules": { "retention_type": "DAILY" } })),
    ] {
        assert!(create(&policy(definition.clone())).is_err(), "{definition}");
    }
}

#[test]
fn names_patterns_and_windows_have_limits() {
    let with = |pointer: &str, value: Value| {
        let mut policy = policy(json!({}));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        policy.pointer_mut(parent).unwrap()[key] = value;
        create(&policy).map_err(|error| error.message)
    };
    assert!(with("/name", json!("a b")).is_err());
    assert!(with("/name", json!("")).is_err());
    assert!(with("/trigger/properties/start_window_minutes", json!(59)).is_err());
    assert!(with("/trigger/properties/start_window_minutes", json!(481)).is_err());
    assert!(with("/trigger/properties/start_window_minutes", json!(480)).is_ok());
    assert!(
        with("/operation_type", json!("restore")).is_ok(),
        "it has a code of its own"
    );
    let refused = with("/trigger/properties/pattern", json!(["FREQ=HOURLY"])).unwrap_err();
    assert!(refused.starts_with("Invalid policy.trigger.properties.pattern provided."));
    let refused = with("/operation_type", json!("replication")).unwrap_err();
    assert!(refused.contains("destination_region"), "{refused}");
}

#[test]
fn a_change_tells_null_from_nothing() {
    let read = |properties: &str| {
        let body = format!(
            r#"{{"policy":{{"trigger":{{"properties":{{"pattern":["FREQ=DAILY;BYHOUR=1;BYMINUTE=0"]{properties}}}}}}}}}"#
        );
        let request: UpdatePolicyRequest = parse_body(body.as_bytes()).unwrap();
        request
            .policy
            .trigger
            .unwrap()
            .properties
            .start_window_minutes
    };
    assert_eq!(read(""), None);
    assert_eq!(read(r#","start_window_minutes":null"#), Some(None));
    assert_eq!(read(r#","start_window_minutes":60"#), Some(Some(60)));
}

#[test]
fn a_change_of_a_schedule_may_leave_its_rules_out() {
    let read = |properties: Value| {
        let body = json!({ "policy": { "trigger": { "properties": properties } } });
        parse_body::<UpdatePolicyRequest>(body.to_string().as_bytes())
    };
    for good in [
        json!({ "timezone": "Europe/Berlin" }),
        json!({ "recurrence_rules": null }),
        json!({ "start_window_minutes": 60 }),
    ] {
        assert!(read(good.clone()).is_ok(), "{good}");
    }
    for wrong in [
        json!({ "timezone": "Nowhere" }),
        json!({ "recurrence_rules": ["FREQ=NEVER"] }),
        json!({ "start_window_minutes": 481 }),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn one_policy_or_several_are_bound() {
    let id = "7075c397-25a0-43e2-a83a-bb16eaca3ee5";
    let read = |body: Value| parse_body::<AssociatePolicyRequest>(body.to_string().as_bytes());
    assert!(read(json!({ "policy_id": id })).is_ok());
    assert!(read(json!({ "add_policy_ids": [id] })).is_ok());
    assert!(read(json!({ "policy_id": id, "add_policy_ids": [id] })).is_err());
    assert!(read(json!({ "add_policy_ids": [] })).is_err());
    assert!(read(json!({})).is_err());
}
