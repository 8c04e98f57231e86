//! When a policy runs, on the wire: CBR's `pattern`, and beside it a zone and the recurrence
//! rules of iCalendar, which are extensions.

use cairn_policy::Schedule;
use cairn_types::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::validate::{self, Invalid};
use crate::wire_time;

/// The limits of a start window, in minutes.
const START_WINDOW_MINUTES: (u32, u32) = (60, 480);

/// When a policy that is wished for runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewTrigger {
    /// The schedule.
    pub properties: NewTriggerProperties,
}

/// A schedule that is wished for. In a change, what is left out stays as it is, and `null` ends
/// what is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NewTriggerProperties {
    /// Its rules, such as `FREQ=WEEKLY;BYDAY=MO;BYHOUR=14;BYMINUTE=00`. They may be left out if
    /// there are `recurrence_rules`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Vec<String>>,
    /// The zone that hours and days are meant in, as `Europe/Berlin` or `UTC+08:00`; UTC if
    /// unset. An extension.
    #[serde(
        default,
        deserialize_with = "null_is_said",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub timezone: Option<Option<String>>,
    /// Rules of RFC 5545, such as `FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=22;BYMINUTE=0`. An extension.
    #[serde(
        default,
        deserialize_with = "null_is_said",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Vec<String>>)]
    pub recurrence_rules: Option<Option<Vec<String>>>,
    /// How late a run may begin, in minutes.
    #[serde(
        default,
        deserialize_with = "null_is_said",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<u32>)]
    pub start_window_minutes: Option<Option<u32>>,
}

/// Tells `null` from a key that is not there.
fn null_is_said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A rule that stands for those that a change leaves as they are.
const ANY_RULE: &str = "FREQ=DAILY;BYHOUR=00;BYMINUTE=00";

impl NewTrigger {
    /// The schedule, where nothing was there before.
    ///
    /// Errors: no rule, or one that is none; the key is that of the trigger at `key`.
    pub fn schedule(&self, key: &str) -> Result<Schedule, Invalid> {
        let properties = &self.properties;
        let rules = properties.recurrence_rules.as_ref();
        let rules = rules.and_then(Option::as_deref).unwrap_or_default();
        let pattern = match &properties.pattern {
            Some(pattern) => pattern.as_slice(),
            None if !rules.is_empty() => &[],
            None => {
                let key = format_args!("{key}.properties.pattern");
                return Err(Invalid::rule(key, "It is missing."));
            }
        };
        let zone = properties.timezone.as_ref().and_then(Option::as_deref);
        let schedule = Schedule::new(pattern, zone, rules)
            .and_then(|schedule| schedule.check_for_policy().map(|()| schedule));
        schedule.map_err(|error| {
            let name = error.field.name();
            Invalid::rule(format_args!("{key}.properties.{name}"), error)
        })
    }

    /// Checks the schedule of the trigger at `key`.
    pub(crate) fn validate_at(&self, key: &str) -> Result<(), Invalid> {
        self.schedule(key)?;
        self.validate_window(key)
    }

    /// As `validate_at`, of a change: what it leaves out is there already.
    pub(crate) fn validate_change_at(&self, key: &str) -> Result<(), Invalid> {
        let mut whole = self.clone();
        let rules = whole.properties.recurrence_rules.as_ref();
        if rules.and_then(Option::as_deref).is_none_or(<[_]>::is_empty) {
            let any = || vec![ANY_RULE.to_owned()];
            whole.properties.pattern.get_or_insert_with(any);
        }
        whole.validate_at(key)
    }

    fn validate_window(&self, key: &str) -> Result<(), Invalid> {
        match self.properties.start_window_minutes.flatten() {
            Some(window) => {
                let key = format!("{key}.properties.start_window_minutes");
                validate::range(&key, window, START_WINDOW_MINUTES)
            }
            None => Ok(()),
        }
    }
}

/// When a policy runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trigger {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// Always `default`.
    pub name: String,
    /// Always `time`.
    #[serde(rename = "type")]
    pub trigger_type: String,
    /// The schedule.
    pub properties: TriggerProperties,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriggerProperties {
    /// Its rules, as they were written.
    pub pattern: Vec<String>,
    /// The zone that hours and days are meant in, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Its rules of RFC 5545, as they were written, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recurrence_rules: Vec<String>,
    /// From when on; intervals of days are counted from here.
    #[serde(with = "wire_time::plain")]
    #[schema(value_type = String)]
    pub start_time: Timestamp,
    /// How late a run may begin, in minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_window_minutes: Option<u32>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(properties: Value) -> Result<(), String> {
        let trigger: NewTrigger =
            serde_json::from_value(json!({ "properties": properties })).unwrap();
        trigger
            .validate_at("trigger")
            .map_err(|error| error.message)
    }

    #[test]
    fn a_schedule_has_a_pattern_or_rules() {
        let pattern = json!(["FREQ=DAILY;BYHOUR=1;BYMINUTE=00"]);
        let rules = json!(["FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=22;BYMINUTE=0"]);
        for good in [
            json!({ "pattern": pattern }),
            json!({ "pattern": pattern, "timezone": null, "recurrence_rules": null }),
            json!({ "pattern": pattern, "recurrence_rules": [] }),
            json!({ "pattern": pattern, "recurrence_rules": rules, "timezone": "Asia/Shanghai" }),
            json!({ "pattern": [], "recurrence_rules": rules, "timezone": "UTC+08:00" }),
            json!({ "pattern": null, "recurrence_rules": rules }),
            json!({ "recurrence_rules": rules }),
        ] {
            assert_eq!(check(good.clone()), Ok(()), "{good}");
        }
        for (bad, key) in [
            (json!({}), "pattern"),
            (json!({ "timezone": "UTC" }), "pattern"),
            (json!({ "pattern": [] }), "pattern"),
            (json!({ "recurrence_rules": [] }), "pattern"),
            (
                json!({ "pattern": pattern, "timezone": "Mars/Base" }),
                "timezone",
            ),
            (
                json!({ "recurrence_rules": ["FREQ=NEVER"] }),
                "recurrence_rules",
            ),
            (
                json!({ "recurrence_rules": ["FREQ=SECONDLY"] }),
                "recurrence_rules",
            ),
            (
                json!({ "recurrence_rules": ["FREQ=DAILY;BYSECOND=5"] }),
                "recurrence_rules",
            ),
            (
                json!({ "pattern": ["FREQ=MONTHLY;BYHOUR=1;BYMINUTE=0"] }),
                "pattern",
            ),
        ] {
            let message = check(bad.clone()).unwrap_err();
            let start = format!("Invalid trigger.properties.{key} provided. ");
            assert!(message.starts_with(&start), "{bad}: {message}");
        }
    }
}
