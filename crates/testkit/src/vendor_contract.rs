//! Responses against the vendor's own definitions of CBR: what the documents
//! declare, and each place where we deliberately differ, with the reason.
//!
//! The definitions (one file per operation) are read from the sources of the
//! crate `huawei-cloud-api-definitions-CBR`, a dependency for its data alone.
//! They are made stricter than they are written: a key that neither they nor
//! the list of `DIFFERENCES` know is an error, so is a time in another form,
//! and so is a number that the clients' 32 bits cannot hold.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The crate that holds the definitions.
const PACKAGE: &str = "huawei-cloud-api-definitions-CBR";
/// The form of every time in a response: naive UTC with microseconds.
const TIME: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}$";

/// How a property may differ from what the vendor declares.
enum Change {
    /// It is there although nothing declares it.
    Added,
    /// It may be `null` although it is declared as required.
    Null,
    /// It is of this schema instead.
    Instead(&'static str),
}

/// A property that deliberately differs, and why.
struct Difference {
    definition: &'static str,
    property: &'static str,
    change: Change,
    reason: &'static str,
}

const fn differs(
    definition: &'static str,
    property: &'static str,
    change: Change,
    reason: &'static str,
) -> Difference {
    Difference {
        definition,
        property,
        change,
        reason,
    }
}

/// Unset values that the vendor's own examples show as `null`.
const NULL_IN_EXAMPLES: &str = "the vendor's own examples have null here";
/// Keys that `CreateVault` declares and `ShowVault` does not.
const ONE_VAULT: &str =
    "one shape for a vault: clients compare what the creation answered with what they read later";
/// Keys that only the vendor's examples or SDKs have.
const UNDECLARED: &str = "in the vendor's examples or SDKs, but not declared";
const FILE_PROBLEMS: &str = "which files are not as they were: of trees of files alone";

/// What goes beyond the vendor's schedules is written only where a client has set it.
const FULL_SCHEDULES: &str = "Cairn's own, for zones and the rules of RFC 5545; only where set";

/// Every deliberate difference.
const DIFFERENCES: &[Difference] = &[
    differs("BackupResp", "description", Change::Null, NULL_IN_EXAMPLES),
    differs("BackupResp", "expired_at", Change::Null, NULL_IN_EXAMPLES),
    differs("BackupResp", "parent_id", Change::Null, NULL_IN_EXAMPLES),
    differs("BackupResp", "protected_at", Change::Null, NULL_IN_EXAMPLES),
    differs("BackupResp", "resource_az", Change::Null, NULL_IN_EXAMPLES),
    differs("BackupResp", "updated_at", Change::Null, NULL_IN_EXAMPLES),
    differs(
        "BackupResp",
        "origin",
        Change::Added,
        "where a backup is from that was taken over from another site: there alone",
    ),
    differs(
        "Agent",
        "server_id",
        Change::Added,
        "the server that an agent is in, whose applications it brings to rest: of such agents alone",
    ),
    differs("Tag", "value", Change::Null, NULL_IN_EXAMPLES),
    differs(
        "BackupExtendInfo",
        "app_consistency",
        Change::Added,
        UNDECLARED,
    ),
    differs(
        "BackupExtendInfo",
        "architecture",
        Change::Added,
        UNDECLARED,
    ),
    differs("BackupExtendInfo", "progress", Change::Added, UNDECLARED),
    differs(
        "BackupExtendInfo",
        "files_moment",
        Change::Added,
        "of which moment the files of a share are: of shares alone",
    ),
    differs(
        "BackupExtendInfo",
        "file_problems",
        Change::Added,
        FILE_PROBLEMS,
    ),
    differs(
        "BackupExtendInfo",
        "incremental",
        Change::Added,
        "clients of the older documents read it here, newer ones beside extend_info",
    ),
    differs("Billing", "partner_bp_id", Change::Added, UNDECLARED),
    differs(
        "CheckpointPlanCreate",
        "provider_id",
        Change::Added,
        UNDECLARED,
    ),
    differs("ResourceResp", "auto_protect", Change::Added, UNDECLARED),
    differs(
        "ResourceExtraInfo",
        "include_volumes",
        Change::Added,
        UNDECLARED,
    ),
    differs(
        "Vault",
        "backup_name_prefix",
        Change::Added,
        "Terraform reads it from ShowVault",
    ),
    differs("Vault", "cbc_delete_count", Change::Added, ONE_VAULT),
    differs("Vault", "demand_billing", Change::Added, ONE_VAULT),
    differs("Vault", "frozen", Change::Added, ONE_VAULT),
    differs("Vault", "updated_at", Change::Added, ONE_VAULT),
    differs("Vault", "version", Change::Added, ONE_VAULT),
    differs(
        "VaultCreateResource",
        "updated_at",
        Change::Added,
        ONE_VAULT,
    ),
    differs("VaultCreateResource", "version", Change::Added, ONE_VAULT),
    differs(
        "OpExtendInfoBckup",
        "incremental",
        Change::Instead(r#"{"enum": ["true", "false"]}"#),
        "the definition has quotation marks inside its words, which no client expects",
    ),
    differs(
        "OpExtendInfoBckup",
        "file_problems",
        Change::Added,
        FILE_PROBLEMS,
    ),
    differs(
        "OpExtendInfoRestore",
        "file_problems",
        Change::Added,
        FILE_PROBLEMS,
    ),
    differs(
        "OpExtendInfoCommon",
        "bytes_done",
        Change::Added,
        "Cairn's own, for clients that show a rate",
    ),
    differs(
        "OpExtendInfoCommon",
        "bytes_total",
        Change::Added,
        "Cairn's own, for clients that show a rate",
    ),
    differs(
        "OpExtendInfoVaultDelete",
        "fail_delete_count",
        Change::Added,
        "Terraform reads this spelling",
    ),
    differs(
        "OpExtendInfoVaultDelete",
        "total_delete_count",
        Change::Added,
        "Terraform reads this spelling",
    ),
    differs(
        "ReplicationRecordsExtraInfo",
        "destinatio_vault_id",
        Change::Added,
        "Terraform reads this spelling, which is the documents'",
    ),
    differs(
        "OperationLog",
        "operation_type",
        Change::Instead(r#"{"type": "string", "pattern": "^[a-z_]+$"}"#),
        "the list has no word for the move of resources and for another day to end on",
    ),
    differs(
        "OpExtraInfo",
        "migrate_resources",
        Change::Added,
        "the definitions have no block for the move of resources",
    ),
    differs(
        "PolicyoODCreate",
        "max_backups",
        Change::Instead(r#"{"type": "integer", "minimum": -1, "maximum": 99999}"#),
        "its own text and examples have -1, and clients send 0, for no limit",
    ),
    differs(
        "PolicyoODCreate",
        "retention_duration_days",
        Change::Instead(r#"{"type": "integer", "minimum": -1, "maximum": 99999}"#),
        "its own text and examples have -1, and clients send 0, for no limit",
    ),
    differs(
        "PolicyYearlyRetentionRules",
        "retention_type",
        Change::Instead(r#"{"enum": ["WEEKLY", "MONTHLY"]}"#),
        "the definition has both words in one, which no client expects",
    ),
    differs(
        "PolicyTriggerPropertiesResp",
        "recurrence_rules",
        Change::Added,
        FULL_SCHEDULES,
    ),
    differs(
        "PolicyTriggerPropertiesResp",
        "timezone",
        Change::Added,
        FULL_SCHEDULES,
    ),
    differs(
        "PolicyTriggerPropertiesReq",
        "recurrence_rules",
        Change::Added,
        FULL_SCHEDULES,
    ),
    differs(
        "PolicyTriggerPropertiesReq",
        "timezone",
        Change::Added,
        FULL_SCHEDULES,
    ),
    differs(
        "ProtectablesResp",
        "status",
        Change::Instead(r#"{"type": "string"}"#),
        "the provider's own word: the vendor's example has ACTIVE, which is not in its list",
    ),
];

/// Every deliberate difference, as a table for people.
pub fn differences_table() -> String {
    let mut table = String::from("| Property | Difference | Why |\n|---|---|---|\n");
    for difference in DIFFERENCES {
        let change = match difference.change {
            Change::Added => "not declared there".to_owned(),
            Change::Null => "may be `null`".to_owned(),
            Change::Instead(schema) => format!("`{schema}`"),
        };
        let (definition, property) = (difference.definition, difference.property);
        let reason = difference.reason;
        table.push_str(&format!(
            "| `{definition}.{property}` | {change} | {reason} |\n"
        ));
    }
    table
}

/// Properties whose names end so are times, and have the form of [`TIME`].
const TIME_SUFFIX: &str = "_at";
/// And so is this one.
const ANOTHER_TIME: &str = "last_active_time";

/// Panics unless `body` is what the vendor declares that `operation_id`
/// answers with `status`, differences on purpose aside.
///
/// Every status from 400 on is checked against the error body, which all
/// operations share; an answer without content is `null`.
pub fn assert_matches_vendor(operation_id: &str, status: u16, body: &Value) {
    let problems = problems(operation_id, status, body);
    assert!(
        problems.is_empty(),
        "the answer {status} to {operation_id} is not what the vendor declares:\n{}\n{body:#}",
        problems.join("\n")
    );
}

/// What is wrong with an answer, one line each.
fn problems(operation_id: &str, status: u16, body: &Value) -> Vec<String> {
    static VALIDATORS: OnceLock<Mutex<HashMap<(String, u16), Declared>>> = OnceLock::new();
    let validators = VALIDATORS.get_or_init(Mutex::default);
    let mut validators = validators
        .lock()
        .expect("no test panics while it holds the lock");
    let declared = validators
        .entry((operation_id.to_owned(), status))
        .or_insert_with(|| declared(operation_id, status));
    match declared {
        Declared::Undeclared => vec![format!("{operation_id} declares no status {status}")],
        Declared::NoContent if body.is_null() => Vec::new(),
        Declared::NoContent => vec!["nothing is declared, but there is a body".to_owned()],
        Declared::Schema(validator) => {
            let line = |error: jsonschema::ValidationError<'_>| {
                format!("  {}: {error}", error.instance_path())
            };
            validator.iter_errors(body).map(line).collect()
        }
    }
}

/// What an operation declares for a status.
enum Declared {
    Undeclared,
    NoContent,
    Schema(Box<Validator>),
}

fn declared(operation_id: &str, status: u16) -> Declared {
    let schema = match (operation_id, status) {
        (_, 400..) => error_schema(),
        // 200 is declared, but one client takes 201 and 202 alone.
        ("CopyBackup", 202) => return declared(operation_id, 200),
        // Nothing is declared, but Terraform cannot do without it.
        ("RestoreBackup", 202) => object_of("job_id"),
        // Values are declared as objects; the vendor's own example has none.
        ("ListFeatures" | "ShowFeature", 200) => features_schema(),
        // Only the older documents have these two; they show one example.
        ("ListApiVersions" | "ShowApiVersion", 300) => versions_schema(),
        _ => {
            let document = document(operation_id);
            let Some(answer) = answer(&document, status) else {
                return Declared::Undeclared;
            };
            let Some(schema) = answer.get("schema") else {
                return Declared::NoContent;
            };
            let mut definitions = document["definitions"].clone();
            let definitions_of = definitions
                .as_object_mut()
                .expect("definitions are an object");
            for (name, definition) in definitions_of {
                tighten(name, definition);
            }
            json!({ "allOf": [schema], "definitions": definitions })
        }
    };
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft7)
        .build(&schema)
        .expect("the vendor's definitions are JSON schemas");
    Declared::Schema(Box::new(validator))
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "error_code": { "type": "string", "pattern": r"^(BackupService|APIGW)\.\d{4}$" },
            "error_msg": { "type": "string", "minLength": 1 }
        },
        "required": ["error_code", "error_msg"],
        "additionalProperties": false
    })
}

fn features_schema() -> Value {
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let one_of = json!([{ "type": "boolean" }, { "type": "string" }, texts]);
    json!({ "type": "object", "additionalProperties": { "anyOf": one_of }, "minProperties": 1 })
}

fn versions_schema() -> Value {
    let closed = |properties: Value| {
        let required: Vec<&String> = properties
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
            .collect();
        json!({
            "type": "object",
            "required": required,
            "properties": properties,
            "additionalProperties": false
        })
    };
    let text = json!({ "type": "string", "minLength": 1 });
    let link = closed(json!({ "href": text, "rel": text }));
    let version = closed(json!({
        "id": { "const": "v3" },
        "status": { "const": "CURRENT" },
        "links": { "type": "array", "items": link, "minItems": 1 }
    }));
    closed(json!({ "versions": { "type": "array", "items": version, "minItems": 1 } }))
}

fn object_of(key: &str) -> Value {
    json!({
        "type": "object",
        "properties": { key: { "type": "string", "minLength": 36, "maxLength": 36 } },
        "required": [key],
        "additionalProperties": false
    })
}

/// What a document says about a status.
fn answer(document: &Value, status: u16) -> Option<Value> {
    let paths = document["paths"].as_object()?;
    let mut operations = paths
        .values()
        .filter_map(Value::as_object)
        .flat_map(Map::values);
    operations.find_map(|operation| operation["responses"].get(status.to_string()).cloned())
}

/// Makes a definition of the vendor as strict as our answers are, and lets in
/// what differs on purpose.
fn tighten(name: &str, definition: &mut Value) {
    if let Some(parts) = definition.get_mut("allOf").and_then(Value::as_array_mut) {
        for part in parts {
            tighten(name, part);
            // A part knows only its own keys; the definition it refers to is closed itself.
            part.as_object_mut()
                .map(|part| part.remove("additionalProperties"));
        }
        return;
    }
    let required = definition["required"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let Some(properties) = definition
        .get_mut("properties")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for (key, property) in properties.iter_mut() {
        tighten_property(key, property);
        if !required.iter().any(|name| name == key) {
            *property = nullable(property.take());
        }
    }
    for difference in DIFFERENCES
        .iter()
        .filter(|difference| difference.definition == name)
    {
        let key = difference.property;
        match difference.change {
            Change::Added => {
                properties.entry(key).or_insert_with(|| json!({}));
            }
            Change::Null => {
                let property = properties
                    .get_mut(key)
                    .expect("a difference names a property");
                *property = nullable(property.take());
            }
            Change::Instead(schema) => {
                let schema = serde_json::from_str(schema).expect("a difference is a schema");
                properties.insert(key.to_owned(), nullable(schema));
            }
        }
    }
    definition["additionalProperties"] = Value::Bool(false);
}

/// Checks times by our form and integers by what they are declared to fit in.
fn tighten_property(key: &str, property: &mut Value) {
    let Some(property) = property.as_object_mut() else {
        return;
    };
    let is_time = key.ends_with(TIME_SUFFIX) || key == ANOTHER_TIME;
    if property.get("type") == Some(&json!("string")) && is_time {
        property.remove("format");
        property.insert("pattern".to_owned(), json!(TIME));
    }
    if property.get("format") == Some(&json!("int32")) {
        property.entry("maximum").or_insert(json!(i32::MAX));
        property.entry("minimum").or_insert(json!(i32::MIN));
    }
}

/// The schema, or `null`: what is declared but unset is there as `null`. By
/// `if` and not by `anyOf`, whose errors do not say which part is wrong.
fn nullable(schema: Value) -> Value {
    json!({ "if": { "not": { "type": "null" } }, "then": schema })
}

/// The vendor's document about an operation.
fn document(operation_id: &str) -> Value {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(definitions_folder);
    let path = folder.join(format!("{operation_id}.json"));
    let text = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("the vendor defines no operation {operation_id}: {error}"));
    serde_json::from_slice(&text).expect("the vendor's document is JSON")
}

/// Where cargo keeps the sources of the crate that holds the definitions.
fn definitions_folder() -> PathBuf {
    let version = run(Command::new("rustc").arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    // What other platforms need was never downloaded.
    let output = run(Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--features",
            "vendor-contract",
        ])
        .args(["--filter-platform", host.expect("rustc names its host")])
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    let metadata: Value = serde_json::from_str(&output).expect("cargo writes JSON");
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages
        .find(|package| package["name"] == PACKAGE)
        .expect("the definitions are a dependency of this crate");
    let manifest = package["manifest_path"]
        .as_str()
        .expect("cargo names the manifest");
    PathBuf::from(manifest)
        .parent()
        .expect("a manifest lies in a folder")
        .join("src")
}

/// Runs a program of the toolchain and returns what it printed.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .expect("the toolchain that built the tests can be run");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {message}");
    String::from_utf8(output.stdout).expect("the toolchain prints text")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vendor's own example of an answer.
    fn example(operation_id: &str, status: u16) -> Value {
        let answer = answer(&document(operation_id), status).expect("the status is declared");
        answer["examples"]["application/json"].clone()
    }

    #[test]
    fn the_vendors_own_examples_match() {
        for operation in [
            "ShowVault",
            "CreateVault",
            "ShowBackup",
            "ShowCheckpoint",
            "ShowOpLog",
        ] {
            let found = problems(operation, 200, &example(operation, 200));
            assert!(found.is_empty(), "{operation}: {found:?}");
        }
        assert_matches_vendor("ShowOpLog", 404, &example("ShowOpLog", 404));
    }

    /// Changes the example of `ShowVault` at a place and returns what is wrong then.
    fn changed(pointer: &str, value: Value) -> Vec<String> {
        let mut body = example("ShowVault", 200);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[key] = value;
        problems("ShowVault", 200, &body)
    }

    #[test]
    fn what_differs_from_the_definition_is_found() {
        assert!(changed("/vault/name", json!("a")).is_empty());
        for (pointer, value) in [
            ("/vault/name", json!("a b")),
            ("/vault/name", Value::Null),
            ("/vault/id", json!(1)),
            ("/vault/unheard_of", json!(1)),
            ("/vault/created_at", json!("2020-07-24T09:12:49Z")),
            ("/vault/billing/status", json!("gone")),
            ("/vault/billing/used", json!(1_u64 << 31)),
            ("/vault/resources", json!([{ "id": "x" }])),
        ] {
            assert!(
                !changed(pointer, value.clone()).is_empty(),
                "{pointer} {value}"
            );
        }
    }

    #[test]
    fn a_body_where_none_belongs_is_found() {
        assert!(problems("DeleteVault", 204, &Value::Null).is_empty());
        assert!(!problems("DeleteVault", 204, &json!({})).is_empty());
        assert!(!problems("DeleteVault", 201, &Value::Null).is_empty());
    }

    #[test]
    fn errors_have_one_shape() {
        let good = json!({ "error_code": "BackupService.6105", "error_msg": "Vault Not Found" });
        assert_matches_vendor("ShowVault", 404, &good);
        let bad = json!({ "error_code": "6105", "error_msg": "Vault Not Found" });
        assert!(!problems("ShowVault", 404, &bad).is_empty());
        assert!(!problems("ShowVault", 500, &json!({})).is_empty());
    }

    #[test]
    fn every_difference_names_something_that_the_vendor_has() {
        let documents: Vec<Value> = std::fs::read_dir(definitions_folder())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect();
        for difference in DIFFERENCES {
            let name = difference.definition;
            let mut definitions = documents
                .iter()
                .filter_map(|document| document["definitions"].get(name));
            let definition = definitions
                .next()
                .unwrap_or_else(|| panic!("no definition {name}"));
            let declared = definition["properties"].get(difference.property).is_some();
            let added = matches!(difference.change, Change::Added);
            assert!(added || declared, "{name}.{}", difference.property);
        }
    }
}
