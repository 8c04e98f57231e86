//! What a request may hold: the limits and patterns of CBR, checked before
//! anything else looks at the values. Whether a named thing exists, or its
//! state allows what is asked, is not decided here.

use std::str::FromStr;

use cairn_types::Kind;
use serde::de::DeserializeOwned;

use crate::{ErrorBody, ErrorCode};

/// The longest name of a vault, a policy or a backup, in characters.
pub const MAX_NAME_CHARS: usize = 64;
/// The longest name of a resource, in characters.
pub const MAX_RESOURCE_NAME_CHARS: usize = 255;
/// The longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 255;
/// The longest description of a new vault, in characters.
pub const MAX_VAULT_DESCRIPTION_CHARS: usize = 64;
/// The longest prefix of automatic backups' names, in characters.
pub const MAX_NAME_PREFIX_CHARS: usize = 32;
/// The smallest size of a new vault, in GB.
pub const MIN_NEW_VAULT_GB: u64 = 10;
/// The largest size of a vault, in GB.
pub const MAX_VAULT_GB: u64 = 10_485_760;
/// The most resources in one request.
pub const MAX_RESOURCES: usize = 256;
/// The most resources in the creation of a vault.
pub const MAX_NEW_VAULT_RESOURCES: usize = 255;
/// The most disks that one resource names to be left out or taken in.
pub const MAX_VOLUMES: usize = 256;
/// The most tags of a vault.
pub const MAX_TAGS: usize = 20;
/// The longest key and value of a tag, in characters.
pub const MAX_TAG_CHARS: (usize, usize) = (36, 43);
/// The most tags of the rules by which a vault binds resources by itself.
pub const MAX_BIND_RULE_TAGS: usize = 5;
/// The longest retention of a manual backup, in days.
pub const MAX_RETENTION_DAYS: i64 = 36_500;

/// A request that the contract does not allow; the message names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// One sentence for the caller.
    pub message: String,
}

impl Invalid {
    /// The value at `key` is wrong.
    pub fn key(key: impl std::fmt::Display) -> Self {
        Self {
            message: ErrorCode::InvalidRequest.message_with(key),
        }
    }

    /// The value at `key` is wrong, and this is the rule.
    pub fn rule(key: impl std::fmt::Display, rule: impl std::fmt::Display) -> Self {
        Self {
            message: format!("{} {rule}", ErrorCode::InvalidRequest.message_with(key)),
        }
    }

    /// What a caller should do about it.
    pub const fn kind(&self) -> Kind {
        Kind::Invalid
    }

    /// The body of the answer, whose status is 400.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error_code: ErrorCode::InvalidRequest.code().to_owned(),
            error_msg: self.message.clone(),
        }
    }
}

/// A request whose values can be checked by themselves.
pub trait Validate {
    /// Checks every value against the contract's limits.
    fn validate(&self) -> Result<(), Invalid>;
}

/// Reads and checks a request's body.
///
/// Errors: no JSON, a key that is missing, a value of the wrong type or
/// outside its limits. The message names the key and never repeats the value.
pub fn parse_body<T: DeserializeOwned + Validate>(body: &[u8]) -> Result<T, Invalid> {
    // A struct could be read from an array too; no client means that.
    if !body.trim_ascii_start().starts_with(b"{") {
        let json = serde_json::from_slice::<serde::de::IgnoredAny>(body);
        return Err(json.map_or_else(|error| describe(".", &error), |_| Invalid::key("body")));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let request: T = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| describe(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| describe(".", &error))?;
    refuse_null_characters(body)?;
    request.validate()?;
    Ok(request)
}

/// Refuses texts with a null character: nobody means one, and not every
/// database can hold it. It can only be written as an escape.
fn refuse_null_characters(body: &[u8]) -> Result<(), Invalid> {
    const ESCAPE: &[u8] = br"\u0000";
    if !body.windows(ESCAPE.len()).any(|bytes| bytes == ESCAPE) {
        return Ok(());
    }
    // What looks like one may be an escaped backslash before plain text.
    let json: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| describe(".", &error))?;
    let rule = "It has a null character.";
    require(!has_null_character(&json), "body", rule)
}

fn has_null_character(json: &serde_json::Value) -> bool {
    use serde_json::Value;
    match json {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_null_character),
        Value::Object(pairs) => pairs
            .iter()
            .any(|(key, value)| key.contains('\0') || has_null_character(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Reads an id from the path; `name` is the parameter's.
pub fn parse_path<T: FromStr>(name: &str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_| Invalid::key(name))
}

/// Says where a body went wrong.
fn describe(path: &str, error: &serde_json::Error) -> Invalid {
    use serde_json::error::Category;
    if !matches!(error.classify(), Category::Data) {
        let (line, column) = (error.line(), error.column());
        return Invalid {
            message: format!("Malformed JSON at line {line}, column {column}."),
        };
    }
    let text = error.to_string();
    let missing = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'));
    let key = match (missing, path) {
        (Some((field, _)), "." | "") => field.to_owned(),
        (Some((field, _)), _) => format!("{path}.{field}"),
        (None, "." | "") => "body".to_owned(),
        (None, _) => path.to_owned(),
    };
    match missing {
        Some(_) => Invalid::rule(key, "It is missing."),
        None => Invalid::key(key),
    }
}

/// Fails with the key unless the rule holds.
pub(crate) fn require(holds: bool, key: &str, rule: impl std::fmt::Display) -> Result<(), Invalid> {
    if holds {
        Ok(())
    } else {
        Err(Invalid::rule(key, rule))
    }
}

/// A name: letters, digits, `_`, `-` and Chinese characters, 1 to 64 of them.
/// Source: the vendor's pattern `^[\u4E00-\u9FA5\uf900-\ufa2da-zA-Z0-9_\-]*$`.
pub(crate) fn name(key: &str, name: &str) -> Result<(), Invalid> {
    let length = name.chars().count();
    require(
        (1..=MAX_NAME_CHARS).contains(&length) && name.chars().all(is_name_char),
        key,
        format_args!(
            "It takes 1 to {MAX_NAME_CHARS} letters, digits, underscores, hyphens and Chinese characters."
        ),
    )
}

/// Characters that a name may have, however many: what a filter by name takes.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '_' | '-' | '\u{4E00}'..='\u{9FA5}' | '\u{F900}'..='\u{FA2D}')
}

/// A text of at most `max` characters.
pub(crate) fn text(key: &str, text: &str, max: usize) -> Result<(), Invalid> {
    let fits = text.chars().count() <= max;
    require(
        fits,
        key,
        format_args!("It takes at most {max} characters."),
    )
}

/// A description: no angle brackets, at most `max` characters.
pub(crate) fn description(key: &str, description: &str, max: usize) -> Result<(), Invalid> {
    text(key, description, max)?;
    require(
        !description.contains(['<', '>']),
        key,
        "It takes no angle brackets.",
    )
}

/// A number between two others, both included.
pub(crate) fn range<N: PartialOrd + std::fmt::Display>(
    key: &str,
    value: N,
    (low, high): (N, N),
) -> Result<(), Invalid> {
    let within = value >= low && value <= high;
    require(within, key, format_args!("It takes {low} to {high}."))
}

/// Between `low` and `high` items, both included.
pub(crate) fn count(key: &str, items: usize, (low, high): (usize, usize)) -> Result<(), Invalid> {
    let within = (low..=high).contains(&items);
    require(within, key, format_args!("It takes {low} to {high} items."))
}

/// Checks a value that may be missing.
pub(crate) fn optional<T: ?Sized, O: std::ops::Deref<Target = T>>(
    value: &Option<O>,
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    value.as_deref().map_or(Ok(()), check)
}

/// As [`optional`], for a value that is no pointer.
pub(crate) fn optional_ref<T>(
    value: &Option<T>,
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    value.as_ref().map_or(Ok(()), check)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        outer: Inner,
    }
    #[derive(Debug, Deserialize)]
    struct Inner {
        ids: Vec<cairn_types::VaultId>,
        size: u64,
    }
    impl Validate for Outer {
        fn validate(&self) -> Result<(), Invalid> {
            count("outer.ids", self.outer.ids.len(), (0, 1))?;
            range("outer.size", self.outer.size, (1, 5))
        }
    }

    fn message(body: &str) -> String {
        parse_body::<Outer>(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn a_wrong_body_is_told_where_it_is_wrong() {
        assert_eq!(message("{"), "Malformed JSON at line 1, column 1.");
        assert_eq!(message("[1]"), "Invalid body provided.");
        assert_eq!(message("{}"), "Invalid outer provided. It is missing.");
        assert_eq!(
            message(r#"{"outer":{"size":1}}"#),
            "Invalid outer.ids provided. It is missing."
        );
        assert_eq!(
            message(r#"{"outer":{"ids":[],"size":-1}}"#),
            "Invalid outer.size provided."
        );
        assert_eq!(
            message(r#"{"outer":{"ids":["x"],"size":1}}"#),
            "Invalid outer.ids[0] provided."
        );
        assert_eq!(
            message(r#"{"outer":{"ids":[],"size":6}}"#),
            "Invalid outer.size provided. It takes 1 to 5."
        );
        assert!(message(r#"{"outer":{"ids":[],"size":1}} x"#).starts_with("Malformed"));
    }

    #[test]
    fn deep_bodies_are_refused() {
        for start in ["[", r#"{"x":"#, r#"{"outer":{"x":["#] {
            let message = message(&start.repeat(100_000));
            assert!(message.starts_with("Malformed JSON"), "{message}");
        }
    }

    #[test]
    fn null_characters_are_refused() {
        #[derive(Debug, Deserialize)]
        struct Text {
            text: String,
        }
        impl Validate for Text {
            fn validate(&self) -> Result<(), Invalid> {
                Ok(())
            }
        }
        for bad in [r#"{"text":"a\u0000"}"#, r#"{"text":"","x":[{"\u0000":1}]}"#] {
            let refused = parse_body::<Text>(bad.as_bytes()).unwrap_err();
            assert!(refused.message.contains("null character"), "{bad}");
        }
        let plain = parse_body::<Text>(br#"{"text":"\\u0000"}"#).unwrap();
        assert_eq!(plain.text, r"\u0000");
    }

    #[test]
    fn names_follow_the_pattern() {
        for good in ["a", "Vault_1-b", "存储库", "\u{fa2d}", &"x".repeat(64)] {
            assert!(name("name", good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "é", "a.b", "a/b", "\u{9fa6}", &"x".repeat(65)] {
            assert!(name("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptions_have_no_angle_brackets() {
        assert!(description("description", "", 3).is_ok());
        assert!(description("description", "日日日", 3).is_ok());
        assert!(description("description", "abcd", 3).is_err());
        assert!(description("description", "a<", 3).is_err());
    }

    #[test]
    fn a_bad_id_in_the_path_is_named() {
        let bad = parse_path::<cairn_types::VaultId>("vault_id", "nope").unwrap_err();
        assert_eq!(bad.body().error_msg, "Invalid vault_id provided.");
        assert_eq!(bad.body().error_code, "BackupService.9900");
        assert_eq!(bad.kind(), Kind::Invalid);
    }
}
