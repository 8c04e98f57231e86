//! Tags of vaults on the wire, and the grammar that finds vaults by them.

use std::collections::HashSet;

use cairn_types::{ObjectType, VaultId};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::page::MAX_LIMIT;
use crate::query::query;
use crate::validate::{self, Invalid, MAX_TAGS, Validate, require};
use crate::vault::Vault;
use crate::{CloudType, MatchKey, TagAction, TagSearchAction};

/// The one system tag: the enterprise project.
pub const ENTERPRISE_PROJECT_TAG: &str = "_sys_enterprise_project_id";
/// The longest key and value that a search names, in characters.
const MAX_SEARCH_CHARS: (usize, usize) = (127, 255);

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Option<String>,
}

impl Tag {
    /// Checks the form of a tag that lies at `at`; spaces around key and value do not count.
    pub(crate) fn validate_at(&self, at: &str) -> Result<(), Invalid> {
        let forbidden = |text: &str| text.contains(|c: char| c < ' ' || "=*<>\\,|/".contains(c));
        let (key_max, value_max) = validate::MAX_TAG_CHARS;
        let (key, value) = (self.key.trim(), self.value.as_deref().unwrap_or("").trim());
        let (at_key, at_value) = (format!("{at}.key"), format!("{at}.value"));
        validate::text(&at_key, key, key_max)?;
        validate::text(&at_value, value, value_max)?;
        let text = "It has a character that tags may not have.";
        require(!key.is_empty() && !forbidden(key), &at_key, text)?;
        require(!forbidden(value), &at_value, text)
    }
}

/// Checks the tags of a vault: their form, and that no key comes twice.
pub(crate) fn validate_all(tags: &[Tag]) -> Result<(), Invalid> {
    validate::count("vault.tags", tags.len(), (1, MAX_TAGS))?;
    for (at, tag) in tags.iter().enumerate() {
        tag.validate_at("vault.tags")?;
        let key = tag.key.trim();
        let twice = tags[..at].iter().any(|other| other.key.trim() == key);
        require(!twice, "vault.tags.key", "It comes twice.")?;
    }
    Ok(())
}

/// The body of `CreateVaultTags`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateVaultTagsRequest {
    /// The tag.
    pub tag: Tag,
}

impl Validate for CreateVaultTagsRequest {
    fn validate(&self) -> Result<(), Invalid> {
        self.tag.validate_at("tag")?;
        require(self.tag.value.is_some(), "tag.value", "It is missing.")
    }
}

/// The body of `BatchCreateAndDeleteVaultTags`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BatchTagsRequest {
    /// Whether the tags are added or removed.
    pub action: TagAction,
    /// The tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// System tags: for services only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sys_tags: Option<Vec<SysTag>>,
}

impl Validate for BatchTagsRequest {
    fn validate(&self) -> Result<(), Invalid> {
        if self.sys_tags.is_some() {
            return Ok(());
        }
        let tags = self.tags.as_deref().unwrap_or_default();
        validate::count("tags", tags.len(), (1, MAX_TAGS))?;
        for tag in tags {
            match self.action {
                TagAction::Create => {
                    tag.validate_at("tags")?;
                    require(tag.value.is_some(), "tags.value", "It is missing.")?;
                }
                // Whatever is there can be removed.
                TagAction::Delete => {
                    require(!tag.key.trim().is_empty(), "tags.key", "It is empty.")?;
                }
            }
        }
        let keys = tags.iter().map(|tag| tag.key.trim());
        let distinct = keys.collect::<HashSet<_>>().len() == tags.len();
        let may_repeat = self.action == TagAction::Delete;
        require(distinct || may_repeat, "tags.key", "It comes twice.")
    }
}

/// A tag that the system sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SysTag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What `ShowVaultTag` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultTagsResponse {
    /// The vault's tags.
    pub tags: Vec<Tag>,
    /// Its enterprise project.
    pub sys_tags: Vec<SysTag>,
}

/// What `ShowVaultProjectTag` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectTagsResponse {
    /// The keys that vaults of the project have.
    pub tags: Vec<TagValues>,
}

/// A key with the values it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TagValues {
    /// The key.
    pub key: String,
    /// The values.
    pub values: Vec<String>,
}

query! {
    /// Which vaults a search by tags looks at.
    ///
    /// CBR: `ShowVaultResourceInstances`.
    pub struct SearchByTagsQuery {
        one {
            /// By enterprise project; `all_granted_eps` is every one.
            enterprise_project_id: String,
        }
        many {}
    }
}

impl Validate for SearchByTagsQuery {
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// The body of `ShowVaultResourceInstances`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SearchByTagsRequest {
    /// Whether the vaults are shown or only counted.
    pub action: TagSearchAction,
    /// Vaults that meet each of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagValues>>,
    /// Vaults that meet one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags_any: Option<Vec<TagValues>>,
    /// Vaults that do not meet each of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_tags: Option<Vec<TagValues>>,
    /// Vaults that meet none of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_tags_any: Option<Vec<TagValues>>,
    /// Vaults without any tag; the lists above do not count then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_any_tag: Option<bool>,
    /// By enterprise project; not together with the lists above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sys_tags: Option<Vec<TagValues>>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<Match>>,
    /// By where resources run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_type: Option<CloudType>,
    /// By what they protect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_type: Option<ObjectType>,
    /// Page size, a number or its digits.
    #[serde(
        default,
        deserialize_with = "number_or_digits",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub limit: Option<u32>,
    /// Vaults left out first, a number or its digits.
    #[serde(
        default,
        deserialize_with = "number_or_digits",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub offset: Option<u32>,
}

/// A condition on what a vault itself has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Match {
    /// What it is about.
    pub key: MatchKey,
    /// What it contains; empty for nothing at all.
    pub value: String,
}

/// Reads a number that the contract has as a string and some clients as a number.
fn number_or_digits<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u32),
        Digits(String),
    }
    match Option::<Written>::deserialize(from)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Digits(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl Validate for SearchByTagsRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let lists = [
            ("tags", &self.tags),
            ("tags_any", &self.tags_any),
            ("not_tags", &self.not_tags),
            ("not_tags_any", &self.not_tags_any),
        ];
        for (key, list) in lists {
            check_conditions(key, list)?;
        }
        check_conditions("sys_tags", &self.sys_tags)?;
        for tag in self.sys_tags.iter().flatten() {
            let known = tag.key == ENTERPRISE_PROJECT_TAG;
            require(known, "sys_tags.key", "There is no such system tag.")?;
        }
        let plain = lists.iter().any(|(_, list)| list.is_some());
        require(
            !(plain && self.sys_tags.is_some()),
            "sys_tags",
            "It does not go together with tags.",
        )?;
        let matches = self.matches.as_deref().unwrap_or_default();
        validate::count("matches", matches.len(), (0, 1))?;
        for one in matches {
            validate::text("matches.value", &one.value, MAX_SEARCH_CHARS.1)?;
        }
        match self.limit {
            Some(limit) => validate::range("limit", limit, (1, MAX_LIMIT)),
            None => Ok(()),
        }
    }
}

/// Checks a list of conditions: it is not empty, and nothing in it repeats.
fn check_conditions(key: &str, list: &Option<Vec<TagValues>>) -> Result<(), Invalid> {
    let Some(list) = list else {
        return Ok(());
    };
    validate::count(key, list.len(), (1, MAX_TAGS))?;
    let keys: HashSet<_> = list.iter().map(|tag| tag.key.trim()).collect();
    require(keys.len() == list.len(), key, "It has a key twice.")?;
    for tag in list {
        let name = tag.key.trim();
        require(!name.is_empty(), key, "It has an empty key.")?;
        validate::text(key, name, MAX_SEARCH_CHARS.0)?;
        validate::count(key, tag.values.len(), (0, MAX_TAGS))?;
        let values: HashSet<_> = tag.values.iter().map(|value| value.trim()).collect();
        require(
            values.len() == tag.values.len(),
            key,
            "It has a value twice.",
        )?;
        for value in values {
            validate::text(key, value, MAX_SEARCH_CHARS.1)?;
            require(value != "*", key, "Something must follow the asterisk.")?;
        }
    }
    Ok(())
}

/// What `ShowVaultResourceInstances` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchByTagsResponse {
    /// The vaults of the page; left out where they are only counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<TaggedVault>>,
    /// How many there are in all.
    pub total_count: u64,
}

/// A vault that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaggedVault {
    /// Its id.
    pub resource_id: VaultId,
    /// Its name.
    pub resource_name: String,
    /// The vault itself.
    pub resource_detail: TaggedVaultDetail,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its enterprise project.
    pub sys_tags: Vec<SysTag>,
}

/// A vault that a search found, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaggedVaultDetail {
    /// The vault.
    pub vault: Vault,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::parse_body;

    fn search(body: &Value) -> Result<SearchByTagsRequest, Invalid> {
        parse_body(body.to_string().as_bytes())
    }

    #[test]
    fn the_grammar_of_searches_is_read() {
        let body = json!({ "action": "filter", "limit": "10", "offset": 5, "without_any_tag": false,
            "tags": [{ "key": " env ", "values": ["", "*prod"] }], "cloud_type": "public",
            "matches": [{ "key": "resource_name", "value": "" }], "object_type": "disk" });
        let read = search(&body).unwrap();
        assert_eq!((read.limit, read.offset), (Some(10), Some(5)));
        assert!(search(&json!({ "action": "count" })).is_ok());
        let system = json!([{ "key": "_sys_enterprise_project_id", "values": ["0"] }]);
        assert!(search(&json!({ "action": "count", "sys_tags": system })).is_ok());
    }

    #[test]
    fn what_is_outside_the_grammar_is_refused() {
        let one = json!([{ "key": "a", "values": [] }]);
        for body in [
            json!({}),
            json!({ "action": "list" }),
            json!({ "action": "filter", "limit": "0" }),
            json!({ "action": "filter", "limit": "1001" }),
            json!({ "action": "filter", "limit": "x" }),
            json!({ "action": "filter", "offset": "-1" }),
            json!({ "action": "filter", "tags": [] }),
            json!({ "action": "filter", "tags": [{ "key": "a" }] }),
            json!({ "action": "filter", "tags": [{ "key": " ", "values": [] }] }),
            json!({ "action": "filter", "not_tags": [{ "key": "a", "values": ["x", " x"] }] }),
            json!({ "action": "filter", "tags_any": [{ "key": "a", "values": ["*"] }] }),
            json!({ "action": "filter", "not_tags_any":
                [{ "key": "a", "values": [] }, { "key": " a", "values": [] }] }),
            json!({ "action": "filter", "sys_tags": one }),
            json!({ "action": "filter", "tags": one,
                "sys_tags": [{ "key": ENTERPRISE_PROJECT_TAG, "values": ["0"] }] }),
            json!({ "action": "filter", "matches": [{ "key": "name", "value": "" }] }),
            json!({ "action": "filter", "matches": [{ "key": "resource_name", "value": "" },
                { "key": "resource_name", "value": "" }] }),
        ] {
            assert!(search(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_batch_creates_each_key_once_and_deletes_whatever_is_there() {
        let read = |body: Value| parse_body::<BatchTagsRequest>(body.to_string().as_bytes());
        let twice = json!([{ "key": "a", "value": "" }, { "key": "a ", "value": "" }]);
        assert!(read(json!({ "action": "create", "tags": twice })).is_err());
        assert!(read(json!({ "action": "delete", "tags": twice })).is_ok());
        assert!(read(json!({ "action": "delete", "tags": [{ "key": "a/b" }] })).is_ok());
        for tags in [
            json!([]),
            json!([{ "key": "a" }]),
            json!([{ "key": "a/b", "value": "" }]),
            json!([{ "key": "", "value": "" }]),
            json!([{ "key": "x".repeat(37), "value": "" }]),
            json!([{ "key": "a", "value": "x".repeat(44) }]),
            json!([{ "key": "a", "value": "a=b" }]),
        ] {
            assert!(
                read(json!({ "action": "create", "tags": tags })).is_err(),
                "{tags}"
            );
        }
        assert!(read(json!({ "action": "delete", "tags": [{ "key": " " }] })).is_err());
        assert!(read(json!({ "action": "create" })).is_err());
    }
}
