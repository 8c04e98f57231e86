//! Instants as CBR writes them: naive UTC with microseconds, which every client
//! reads alike. For use with `#[serde(with = "...")]`.
//!
//! An offset is never written: the Python client adds its own `Z` before it
//! parses and would then give up.

use cairn_types::{Timestamp, TimestampError};
use serde::{Deserialize, Deserializer, Serializer};

/// What responses carry, such as `2019-05-10T07:59:12.733403`.
const NAIVE: &str = "%Y-%m-%dT%H:%M:%S.%6f";
/// The same with or without a fraction, for reading.
const NAIVE_ANY: &str = "%Y-%m-%dT%H:%M:%S%.f";
/// What queries carry, such as `2019-05-10T07:59:12Z`.
const QUERY: &str = "%Y-%m-%dT%H:%M:%SZ";
/// What tokens carry, such as `2019-05-10T07:59:12.733403Z`.
const TOKEN: &str = "%Y-%m-%dT%H:%M:%S.%6fZ";
/// The same with or without a fraction, for reading.
const TOKEN_ANY: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Writes an instant for a query.
pub fn to_query(instant: Timestamp) -> String {
    instant.format(QUERY)
}

/// Reads an instant as people and programs write them: RFC 3339, or a day such as `2026-01-01`,
/// which begins in UTC.
pub fn from_anybody(text: &str) -> Result<Timestamp, TimestampError> {
    match text.len() {
        10 => Timestamp::from_rfc3339(&format!("{text}T00:00:00Z")),
        _ => Timestamp::from_rfc3339(text),
    }
}

/// Reads an instant from a query.
pub fn from_query(text: &str) -> Result<Timestamp, TimestampError> {
    Timestamp::parse(QUERY, text)
}

/// The last second of a day such as `2025-12-31`, in UTC.
pub fn end_of_day(day: &str) -> Result<Timestamp, TimestampError> {
    // As long as its form says: what is read loosely would be told back as it came.
    let plain = day.len() == 10 && day.starts_with(|c: char| c.is_ascii_digit());
    let day = if plain { day } else { "" };
    Timestamp::parse("%Y-%m-%dT%H:%M:%S", &format!("{day}T23:59:59"))
}

/// The seconds that a zone such as `UTC+08:00` is ahead; none if it is no such zone.
pub fn utc_offset_seconds(zone: &str) -> Option<i64> {
    let offset = zone.strip_prefix("UTC")?;
    if offset.is_empty() {
        return Some(0);
    }
    let (sign, offset) = match offset.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':')?;
    let two_digits = |text: &str| match text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())
    {
        true => text.parse::<i64>().ok(),
        false => None,
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

/// Writes an instant for a response.
pub fn serialize<S: Serializer>(instant: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&instant.format(NAIVE))
}

/// Reads an instant of a response.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(from)?;
    Timestamp::parse(NAIVE_ANY, &text).map_err(serde::de::Error::custom)
}

/// An instant that may be missing, as `null`.
pub mod option {
    use super::{Deserialize, Deserializer, NAIVE, NAIVE_ANY, Serializer, Timestamp};

    /// Writes an instant or `null`.
    pub fn serialize<S: Serializer>(instant: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match instant {
            Some(instant) => to.serialize_some(&instant.format(NAIVE)),
            None => to.serialize_none(),
        }
    }

    /// Reads an instant or `null`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parse = |text: String| Timestamp::parse(NAIVE_ANY, &text);
        text.map(parse)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}

/// An instant to the second with a `Z`, such as `2019-05-10T07:59:12Z`.
pub mod zulu {
    use super::{Deserialize, Deserializer, QUERY, Serializer, Timestamp};

    /// Writes an instant to the second.
    pub fn serialize<S: Serializer>(instant: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&instant.to_zulu())
    }

    /// Reads an instant to the second.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(QUERY, &text).map_err(serde::de::Error::custom)
    }
}

/// The same where it may be missing, as `null`.
pub mod zulu_option {
    use super::{Deserialize, Deserializer, QUERY, Serializer, Timestamp};

    /// Writes an instant to the second, or `null`.
    pub fn serialize<S: Serializer>(instant: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match instant {
            Some(instant) => to.serialize_some(&instant.to_zulu()),
            None => to.serialize_none(),
        }
    }

    /// Reads an instant to the second, or `null`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parse = |text: String| Timestamp::parse(QUERY, &text);
        text.map(parse)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}

/// The start of a schedule, such as `2019-05-08 06:57:05`.
pub mod plain {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    const PLAIN: &str = "%Y-%m-%d %H:%M:%S";

    /// Writes an instant to the second.
    pub fn serialize<S: Serializer>(instant: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&instant.format(PLAIN))
    }

    /// Reads an instant to the second.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(PLAIN, &text).map_err(serde::de::Error::custom)
    }
}

/// An instant in a token: with a `Z`, as Keystone writes it.
pub mod token {
    use super::{Deserialize, Deserializer, Serializer, TOKEN, TOKEN_ANY, Timestamp};

    /// Writes an instant for a token.
    pub fn serialize<S: Serializer>(instant: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&instant.format(TOKEN))
    }

    /// Reads an instant of a token.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(TOKEN_ANY, &text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        #[serde(with = "crate::wire_time")]
        at: Timestamp,
        #[serde(with = "crate::wire_time::option")]
        maybe: Option<Timestamp>,
        #[serde(with = "crate::wire_time::token")]
        token: Timestamp,
    }

    #[test]
    fn instants_are_written_in_their_three_forms_and_read_back() {
        let at = Timestamp::from_micros(1_557_475_152_733_403);
        let times = Times {
            at,
            maybe: None,
            token: at,
        };
        let text = serde_json::to_string(&times).unwrap();
        assert_eq!(
            text,
            r#"{"at":"2019-05-10T07:59:12.733403","maybe":null,"token":"2019-05-10T07:59:12.733403Z"}"#
        );
        assert_eq!(serde_json::from_str::<Times>(&text).unwrap(), times);
    }

    #[test]
    fn a_fraction_may_be_missing_when_reading() {
        let text = r#"{"at":"2019-05-10T07:59:12","maybe":"2019-05-10T07:59:12.7","token":"2019-05-10T07:59:12Z"}"#;
        let times: Times = serde_json::from_str(text).unwrap();
        assert_eq!(times.at.as_micros(), 1_557_475_152_000_000);
        assert_eq!(times.maybe.unwrap().as_micros(), 1_557_475_152_700_000);
        assert_eq!(times.token, times.at);
    }

    #[test]
    fn query_instants_have_seconds_and_a_z() {
        let at = from_query("2019-05-10T07:59:12Z").unwrap();
        assert_eq!(to_query(at), "2019-05-10T07:59:12Z");
        assert!(from_query("2019-05-10T07:59:12").is_err());
        assert!(from_query("2019-05-10T07:59:12+02:00").is_err());
    }
}
