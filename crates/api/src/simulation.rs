//! What a policy would do, on the wire. An extension: CBR has nothing of the kind.
//!
//! It asks and answers the same over HTTP and on the command line, which needs no server for it.

use cairn_policy::{Retention, Simulated, simulate};
use cairn_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::{NewPolicy, check_definition};
use crate::validate::{Invalid, Validate};
use crate::wire_time;

/// How far a simulation looks, if it is not said.
const DEFAULT_DAYS: i64 = 365;
/// The most backups of an answer over HTTP: more than hourly ones of ten years.
pub const MAX_ANSWERED: usize = 100_000;

/// The body of `SimulatePolicy`: that of `CreatePolicy`, and the time to look at.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SimulatePolicyRequest {
    /// The policy that is thought of. Whether it is enabled does not matter.
    pub policy: NewPolicy,
    /// When it would be made, as RFC 3339 has it or a day alone; now if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The end of what is looked at, in the same form, and with it; a year later if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl Validate for SimulatePolicyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        self.policy.validate()?;
        // Whatever the time is, it is not before this.
        self.span(Timestamp::from_micros(i64::MIN)).map(|_| ())
    }
}

impl SimulatePolicyRequest {
    /// The time to look at.
    fn span(&self, now: Timestamp) -> Result<(Timestamp, Timestamp), Invalid> {
        let read = |key: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                let rule = "It takes an instant as 2026-01-01T00:00:00Z, or a day as 2026-01-01, up to the year 9998.";
                let read = wire_time::from_anybody(text).map_err(|_| Invalid::rule(key, rule));
                read.map(Some)
            }
        };
        let from = read("from", &self.from)?.unwrap_or(now);
        let year = from.plus_seconds(DEFAULT_DAYS * 24 * 60 * 60);
        let until = read("until", &self.until)?.unwrap_or(year);
        match until >= from {
            true => Ok((from, until)),
            false => Err(Invalid::rule("until", "It lies before from.")),
        }
    }

    /// Tries the policy.
    ///
    /// Errors: it would make more than `max` backups; or what [`Validate`] refuses.
    pub fn simulate(&self, now: Timestamp, max: usize) -> Result<SimulatePolicyResponse, Invalid> {
        let (from, until) = self.span(now)?;
        let schedule = self.policy.trigger.schedule("policy.trigger")?;
        let key = "policy.operation_definition";
        check_definition(key, &self.policy.operation_definition)?;
        let retention = Retention::new(&self.policy.operation_definition)
            .map_err(|error| Invalid::rule(key, error))?;
        let backups = simulate(&schedule, &retention, (from, until), max)
            .map_err(|error| Invalid::rule("until", error))?;
        Ok(SimulatePolicyResponse {
            backups: backups.into_iter().map(Into::into).collect(),
        })
    }
}

/// What `SimulatePolicy` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SimulatePolicyResponse {
    /// The backups that the policy would make of one resource, in order.
    pub backups: Vec<SimulatedBackup>,
}

/// A backup that a policy would make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SimulatedBackup {
    /// When.
    #[serde(with = "wire_time::zulu")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When it goes; `null` if nothing in the time that is looked at settles it.
    #[serde(with = "wire_time::zulu_option")]
    #[schema(value_type = Option<String>)]
    pub expired_at: Option<Timestamp>,
    /// The rules that keep it at the end, `forever` if none limits it; none if it has gone.
    pub kept_by: Vec<String>,
}

impl From<Simulated> for SimulatedBackup {
    fn from(backup: Simulated) -> Self {
        let names = backup.kept_by.iter().map(|reason| reason.name().to_owned());
        Self {
            created_at: backup.created_at,
            expired_at: backup.expired_at,
            kept_by: names.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::parse_body;

    fn ask(definition: Value, more: Value) -> Result<SimulatePolicyRequest, Invalid> {
        let mut body = json!({ "policy": {
            "name": "p", "operation_type": "backup", "operation_definition": definition,
            "trigger": { "properties": { "pattern": ["FREQ=DAILY;BYHOUR=2;BYMINUTE=00"] } },
        } });
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        parse_body(body.to_string().as_bytes())
    }

    #[test]
    fn a_simulation_is_written_as_it_is_told() {
        let more = json!({ "from": "2026-01-01T00:00:00Z", "until": "2026-01-03" });
        let request = ask(json!({ "max_backups": 1 }), more).unwrap();
        let answer = request.simulate(Timestamp::from_micros(0), 10).unwrap();
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"backups":[{"created_at":"2026-01-01T02:00:00Z","expired_at":"2026-01-02T02:00:00Z","kept_by":[]},"#,
                r#"{"created_at":"2026-01-02T02:00:00Z","expired_at":null,"kept_by":["max_backups"]}]}"#,
            )
        );
        let read: SimulatePolicyResponse = serde_json::from_str(&text).unwrap();
        assert_eq!(read, answer);
    }

    #[test]
    fn the_time_to_look_at_is_a_year_from_now_unless_it_is_said() {
        let now = Timestamp::from_micros(1_767_225_600_000_000);
        let request = ask(json!({}), json!({})).unwrap();
        assert_eq!(request.simulate(now, 365).unwrap().backups.len(), 365);
        let refused = request.simulate(now, 364).unwrap_err().message;
        assert!(refused.starts_with("Invalid until provided. "), "{refused}");
        for (bad, key) in [
            (json!({ "from": "yesterday" }), "from"),
            (json!({ "from": "2026-02-30" }), "from"),
            (
                json!({ "from": "2026-01-02", "until": "2026-01-01" }),
                "until",
            ),
            (json!({ "until": "" }), "until"),
        ] {
            let message = ask(json!({}), bad).unwrap_err().message;
            assert!(
                message.starts_with(&format!("Invalid {key} provided.")),
                "{message}"
            );
        }
        assert!(ask(json!({ "max_backups": -2 }), json!({})).is_err());
    }
}
