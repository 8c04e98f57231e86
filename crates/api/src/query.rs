//! Query strings: read and written in one place, keys that repeat included,
//! which the usual form decoders cannot do.

use std::borrow::Cow;

use cairn_types::{
    AgentId, BackupId, BackupStatus, CheckpointId, DownloadFormat, NotificationEvent,
    NotificationId, NotificationStatus, ObjectType, OperationLogId, OperationStatus, OperationType,
    OrganizationPolicyId, PolicyId, PolicyOperation, ProjectId, ResourceId, ResourceType, ShareId,
    TargetId, Timestamp, VaultId, VaultStatus, VerificationStatus,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use utoipa::PartialSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required, Schema};
use uuid::Uuid;

use crate::validate::Invalid;
use crate::{AgentStatus, CloudType, ImageType, MemberStatus, OwnType, ProtectType, wire_time};

/// The most pairs that a query may hold.
pub const MAX_PAIRS: usize = 1024;

/// The longest text that a list is searched for: that of a resource's name.
pub const MAX_TEXT_CHARS: usize = 255;

/// What stays as it is in a path or a query; the signature's rule as well.
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Percent-encodes everything but letters, digits and `-_.~`.
pub fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, UNRESERVED).into()
}

/// A query taken apart: pairs in their order, decoded, those without a value left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Takes a raw query apart (the part behind `?`, still encoded).
    ///
    /// Errors: too many pairs, or bytes that are no UTF-8.
    pub(crate) fn parse(raw: &str) -> Result<Self, Invalid> {
        let mut pairs = Vec::new();
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            if pairs.len() == MAX_PAIRS {
                return Err(Invalid::rule(
                    "query",
                    format_args!("It takes at most {MAX_PAIRS} pairs."),
                ));
            }
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            let (key, value) = (decode(key)?, decode(value)?);
            if !value.is_empty() {
                pairs.push((key, value));
            }
        }
        Ok(Self(pairs))
    }

    /// The values of `key`, in their order.
    pub(crate) fn many<T: QueryValue>(&self, key: &str) -> Result<Vec<T>, Invalid> {
        let values = self.0.iter().filter(|(name, _)| name == key);
        values
            .map(|(_, value)| T::read(value).ok_or_else(|| Invalid::key(key)))
            .collect()
    }

    /// The value of `key`, which must not repeat.
    pub(crate) fn one<T: QueryValue>(&self, key: &str) -> Result<Option<T>, Invalid> {
        let mut values = self.many(key)?;
        if values.len() > 1 {
            return Err(Invalid::rule(key, "It is given more than once."));
        }
        Ok(values.pop())
    }
}

/// Decodes one key or value; `+` is a space, as forms write it.
///
/// Errors: a `%` that begins no byte, which could be read in two ways.
fn decode(text: &str) -> Result<String, Invalid> {
    let mut escapes = text.split('%').skip(1).map(str::as_bytes);
    let begins_byte = |rest: &[u8]| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit);
    if !escapes.all(begins_byte) {
        return Err(Invalid::key("query"));
    }
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text)
        .decode_utf8()
        .map_err(|_| Invalid::key("query"))?;
    // As in bodies: nobody means it, and not every database can hold it.
    match decoded.contains('\0') {
        true => Err(Invalid::key("query")),
        false => Ok(decoded.into_owned()),
    }
}

/// Writes pairs as a query string, encoded.
pub fn write(pairs: &[(&str, String)]) -> String {
    let written: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    written.join("&")
}

/// A value that a query can hold.
pub trait QueryValue: Sized {
    /// Reads it; `None` if the text is no such value.
    fn read(text: &str) -> Option<Self>;
    /// Writes it, not yet encoded.
    fn write(&self) -> String;
    /// What it looks like.
    fn schema() -> RefOr<Schema>;
}

macro_rules! by_text {
    ($($type:ty),+ $(,)?) => {$(
        impl QueryValue for $type {
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn write(&self) -> String {
                self.to_string()
            }
            fn schema() -> RefOr<Schema> {
                <$type as PartialSchema>::schema()
            }
        }
    )+};
}

by_text!(
    u8,
    u32,
    u64,
    AgentId,
    BackupId,
    CheckpointId,
    OperationLogId,
    OrganizationPolicyId,
    PolicyId,
    PolicyOperation,
    ProjectId,
    ResourceId,
    ShareId,
    VaultId,
    BackupStatus,
    DownloadFormat,
    ObjectType,
    OperationStatus,
    OperationType,
    ResourceType,
    VaultStatus,
    VerificationStatus,
    NotificationEvent,
    NotificationId,
    NotificationStatus,
    TargetId,
    AgentStatus,
    CloudType,
    ImageType,
    MemberStatus,
    OwnType,
    ProtectType,
);

impl QueryValue for String {
    /// Any text that a name could be: none is longer.
    fn read(text: &str) -> Option<Self> {
        (text.chars().count() <= MAX_TEXT_CHARS).then(|| text.to_owned())
    }
    fn write(&self) -> String {
        self.clone()
    }
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new().schema_type(Type::String);
        object.max_length(Some(MAX_TEXT_CHARS)).into()
    }
}

impl QueryValue for Uuid {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn write(&self) -> String {
        self.to_string()
    }
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new().schema_type(Type::String);
        let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
        object.format(Some(format)).into()
    }
}

impl QueryValue for bool {
    /// `true` and `false`, in any case: the Python client writes `True`.
    fn read(text: &str) -> Option<Self> {
        text.to_ascii_lowercase().parse().ok()
    }
    fn write(&self) -> String {
        self.to_string()
    }
    fn schema() -> RefOr<Schema> {
        <Self as PartialSchema>::schema()
    }
}

impl QueryValue for Timestamp {
    fn read(text: &str) -> Option<Self> {
        wire_time::from_query(text).ok()
    }
    fn write(&self) -> String {
        wire_time::to_query(*self)
    }
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new().schema_type(Type::String);
        object
            .pattern(Some(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"))
            .into()
    }
}

/// Values in one pair, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: QueryValue> QueryValue for List<T> {
    fn read(text: &str) -> Option<Self> {
        let items: Option<Vec<T>> = text.split(',').map(|item| T::read(item.trim())).collect();
        items.map(Self)
    }
    fn write(&self) -> String {
        let items: Vec<_> = self.0.iter().map(QueryValue::write).collect();
        items.join(",")
    }
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(T::schema()).into()
    }
}

/// A key of a query, as the description of the API shows it. A list is written
/// as one pair with commas, or as a pair for each item if the key `repeats`.
pub(crate) fn parameter(name: &str, doc: &str, schema: RefOr<Schema>, repeats: bool) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(doc.trim()))
        .schema(Some(schema))
        .explode(Some(repeats))
        .build()
}

/// Declares the query of a list: keys that come at most `one` time are an
/// `Option`, those that may come `many` times a `Vec`; with `parse` for the server and `write` for the client.
macro_rules! query {
    (
        $(#[$meta:meta])* pub struct $name:ident {
            one { $( $(#[doc = $one_doc:literal])* $one:ident: $one_type:ty, )* }
            many { $( $(#[doc = $many_doc:literal])* $many:ident: $many_type:ty, )* }
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name {
            $( $(#[doc = $one_doc])* pub $one: Option<$one_type>, )*
            $( $(#[doc = $many_doc])* pub $many: Vec<$many_type>, )*
        }

        impl $name {
            /// Reads and checks a raw query (the part behind `?`). Keys that
            /// the contract does not know are passed over.
            pub fn parse(raw: &str) -> Result<Self, $crate::Invalid> {
                let pairs = $crate::query::Pairs::parse(raw)?;
                let query = Self {
                    $( $one: pairs.one(stringify!($one))?, )*
                    $( $many: pairs.many(stringify!($many))?, )*
                };
                $crate::Validate::validate(&query)?;
                Ok(query)
            }

            /// Writes the query, encoded; empty if nothing is set.
            pub fn write(&self) -> String {
                #[allow(unused_mut)]
                let mut pairs: Vec<(&str, String)> = Vec::new();
                $(
                    pairs.extend(
                        self.$one.iter().map(|v| (stringify!($one), $crate::query::QueryValue::write(v))),
                    );
                )*
                $(
                    pairs.extend(
                        self.$many.iter().map(|v| (stringify!($many), $crate::query::QueryValue::write(v))),
                    );
                )*
                $crate::query::write(&pairs)
            }

            /// Each key with its type and meaning, for the description of the API.
            pub fn parameters() -> Vec<utoipa::openapi::path::Parameter> {
                vec![
                    $( $crate::query::parameter(
                        stringify!($one),
                        concat!($($one_doc),*),
                        <$one_type as $crate::query::QueryValue>::schema(),
                        false,
                    ), )*
                    $( $crate::query::parameter(
                        stringify!($many),
                        concat!($($many_doc),*),
                        utoipa::openapi::schema::ArrayBuilder::new()
                            .items(<$many_type as $crate::query::QueryValue>::schema())
                            .into(),
                        true,
                    ), )*
                ]
            }
        }
    };
}
pub(crate) use query;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Validate;

    query! {
        /// A query for the tests.
        pub struct Sample {
            one {
                /// A text.
                name: String,
                /// A truth.
                dec: bool,
                /// A time.
                start_time: Timestamp,
                /// Several in one.
                resource_ids: List<ResourceId>,
            }
            many {
                /// Several.
                status: BackupStatus,
            }
        }
    }
    impl Validate for Sample {
        fn validate(&self) -> Result<(), Invalid> {
            Ok(())
        }
    }

    #[test]
    fn a_query_reads_back_what_it_wrote() {
        let sample = Sample {
            name: Some("a b&c=d/é".to_owned()),
            dec: Some(true),
            start_time: Some(Timestamp::from_micros(1_557_475_152_000_000)),
            resource_ids: Some(List(vec![ResourceId::random(), ResourceId::random()])),
            status: vec![BackupStatus::Available, BackupStatus::Error],
        };
        let raw = sample.write();
        assert!(
            raw.starts_with("name=a%20b%26c%3Dd%2F%C3%A9&dec=true&start_time="),
            "{raw}"
        );
        assert!(raw.ends_with("&status=available&status=error"), "{raw}");
        assert_eq!(Sample::parse(&raw).unwrap(), sample);
        assert_eq!(Sample::default().write(), "");
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_or_refused(raw in ".{0,200}") {
            let _ = Sample::parse(&raw);
        }

        #[test]
        fn any_name_reads_back(name in "[^\0]{1,50}") {
            let sample = Sample { name: Some(name), ..Sample::default() };
            proptest::prop_assert_eq!(Sample::parse(&sample.write()).unwrap(), sample);
        }
    }

    #[test]
    fn unknown_and_empty_keys_are_passed_over() {
        let sample = Sample::parse("&name=&x=1&flag&dec=True").unwrap();
        assert_eq!(
            sample,
            Sample {
                dec: Some(true),
                ..Sample::default()
            }
        );
    }

    #[test]
    fn each_key_is_described() {
        let described = serde_json::to_value(Sample::parameters()).unwrap();
        assert_eq!(described[0]["name"], "name");
        assert_eq!(described[0]["description"], "A text.");
        assert_eq!(described[3]["schema"]["type"], "array");
        assert_eq!(described[3]["explode"], false);
        assert_eq!(described[4]["explode"], true);
    }

    #[test]
    fn wrong_values_name_their_key() {
        let message = |raw: &str| Sample::parse(raw).unwrap_err().message;
        assert_eq!(
            message("status=available&status=gone"),
            "Invalid status provided."
        );
        assert_eq!(message("start_time=now"), "Invalid start_time provided.");
        assert_eq!(message("resource_ids=x"), "Invalid resource_ids provided.");
        assert_eq!(
            message("name=a&name=b"),
            "Invalid name provided. It is given more than once."
        );
        assert_eq!(message("name=%ff"), "Invalid query provided.");
        assert_eq!(message("name=a%00"), "Invalid query provided.");
        assert!(message(&"a=1&".repeat(MAX_PAIRS + 1)).contains("at most"));
        let long = "x".repeat(MAX_TEXT_CHARS + 1);
        assert_eq!(message(&format!("name={long}")), "Invalid name provided.");
    }
}
