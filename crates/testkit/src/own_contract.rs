//! Responses against our own description of the API: what we answer is what we say.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

/// The schema of each operation and status, where a body is declared.
type Validators = HashMap<(String, u16), Option<Validator>>;

/// Panics unless `body` is what our OpenAPI document says that `operation_id`
/// answers with `status`. Keys that the document does not name are errors too.
pub fn assert_matches_ours(operation_id: &str, status: u16, body: &Value) {
    let problems = problems(operation_id, status, body);
    assert!(
        problems.is_empty(),
        "the answer {status} to {operation_id} is not what we declare:\n{}\n{body:#}",
        problems.join("\n")
    );
}

fn problems(operation_id: &str, status: u16, body: &Value) -> Vec<String> {
    static VALIDATORS: OnceLock<Mutex<Validators>> = OnceLock::new();
    let validators = VALIDATORS.get_or_init(Mutex::default);
    let mut validators = validators
        .lock()
        .expect("no test panics while it holds the lock");
    let validator = validators
        .entry((operation_id.to_owned(), status))
        .or_insert_with(|| validator(operation_id, status));
    let line =
        |error: jsonschema::ValidationError<'_>| format!("  {}: {error}", error.instance_path());
    match validator {
        Some(validator) => validator.iter_errors(body).map(line).collect(),
        None if body.is_null() => Vec::new(),
        None => vec!["no body is declared".to_owned()],
    }
}

/// What we declare for a status; nothing where we declare no body.
fn validator(operation_id: &str, status: u16) -> Option<Validator> {
    let document = document();
    let paths = document["paths"].as_object();
    let operations = paths
        .into_iter()
        .flatten()
        .filter_map(|(_, path)| path.as_object());
    let mut operations = operations.flat_map(|path| path.values());
    let operation = operations
        .find(|operation| operation["operationId"] == operation_id)
        .unwrap_or_else(|| panic!("we describe no operation {operation_id}"));
    let key = if status >= 400 {
        "4XX".to_owned()
    } else {
        status.to_string()
    };
    let answer = operation["responses"].get(&key);
    let answer = answer.unwrap_or_else(|| panic!("{operation_id} declares no status {status}"));
    let schema = answer.pointer("/content/application~1json/schema")?;
    let schema = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .build(&schema)
        .expect("our description holds JSON schemas");
    Some(validator)
}

/// The document, with every object closed against keys that it does not name.
fn document() -> Value {
    let document = cairn_api::openapi::document();
    let mut document = serde_json::to_value(&document).expect("the document has string keys only");
    let schemas = document["components"]["schemas"].as_object_mut();
    for schema in schemas.into_iter().flat_map(|schemas| schemas.values_mut()) {
        if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = Value::Bool(false);
        }
    }
    document
}
