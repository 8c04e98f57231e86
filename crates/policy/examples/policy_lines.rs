//! Answers questions about schedules and retention, one JSON line for each on standard input, so
//! that tests in another language can compare what this crate says with what they think.
//! Instants are whole seconds since 1970 UTC, wall times seconds as if the zone were UTC.

use std::io::{BufRead, BufWriter, Write};

use cairn_policy::{Fact, Retention, Schedule, Zone, decide};
use cairn_types::{OperationDefinition, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// A question, by what is asked.
#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Question {
    /// The slots from an instant up to another, at most so many.
    Runs {
        #[serde(flatten)]
        schedule: When,
        from: i64,
        until: i64,
        max: usize,
    },
    /// The first slot after each of these instants.
    Next {
        #[serde(flatten)]
        schedule: When,
        after: Vec<i64>,
    },
    /// The instants of wall times.
    Walls { timezone: String, walls: Vec<i64> },
    /// The names of all zones.
    Zones,
    /// The stamps of backups that are made at these instants.
    Stamps {
        definition: OperationDefinition,
        created_at: Vec<i64>,
    },
    /// What becomes of backups.
    Decide {
        definition: OperationDefinition,
        facts: Vec<Backup>,
        now: i64,
    },
}

/// A schedule and its anchor.
#[derive(Deserialize)]
struct When {
    #[serde(default)]
    pattern: Vec<String>,
    timezone: Option<String>,
    #[serde(default)]
    rules: Vec<String>,
    anchor: i64,
}

/// A backup.
#[derive(Deserialize)]
struct Backup {
    created_at: i64,
    expired_at: Option<i64>,
    #[serde(default)]
    held: bool,
    made_under: Option<OperationDefinition>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn second(instant: Timestamp) -> i64 {
    instant.as_micros().div_euclid(1_000_000)
}

impl When {
    fn schedule(&self) -> Result<Schedule, String> {
        let schedule = Schedule::new(&self.pattern, self.timezone.as_deref(), &self.rules);
        schedule.map_err(|error| error.to_string())
    }
}

fn retention(definition: &OperationDefinition) -> Result<Retention, String> {
    Retention::new(definition).map_err(|error| error.to_string())
}

fn answer(question: Question) -> Result<Value, String> {
    Ok(match question {
        Question::Runs {
            schedule: when,
            from,
            until,
            max,
        } => {
            let schedule = when.schedule()?;
            let runs = schedule.runs(at(when.anchor), at(from)).map(second);
            let runs = runs.take_while(|run| *run <= until).take(max);
            json!(runs.collect::<Vec<_>>())
        }
        Question::Next {
            schedule: when,
            after,
        } => {
            let schedule = when.schedule()?;
            let next = |after: i64| schedule.next_after(at(when.anchor), at(after)).map(second);
            json!(after.into_iter().map(next).collect::<Vec<_>>())
        }
        Question::Walls { timezone, walls } => {
            let zone = Zone::parse(&timezone).ok_or("no such zone")?;
            json!(zone.instants_of(walls).map(second).collect::<Vec<_>>())
        }
        Question::Zones => json!(Zone::names().collect::<Vec<_>>()),
        Question::Stamps {
            definition,
            created_at,
        } => {
            let rules = retention(&definition)?;
            let stamp = |created: i64| rules.stamp(at(created)).map(second);
            json!(created_at.into_iter().map(stamp).collect::<Vec<_>>())
        }
        Question::Decide {
            definition,
            facts,
            now,
        } => {
            let fact = |backup: Backup| {
                Ok(Fact {
                    created_at: at(backup.created_at),
                    expired_at: backup.expired_at.map(at),
                    held: backup.held,
                    made_under: backup.made_under.as_ref().map(retention).transpose()?,
                })
            };
            let facts: Result<Vec<Fact>, String> = facts.into_iter().map(fact).collect();
            let decisions = decide(&retention(&definition)?, &facts?, at(now));
            let show = |decision: cairn_policy::Decision| {
                let names = decision.kept_by.iter().map(|reason| reason.name());
                json!({ "kept_by": names.collect::<Vec<_>>(), "until": decision.until.map(second) })
            };
            json!(decisions.into_iter().map(show).collect::<Vec<_>>())
        }
    })
}

fn main() -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let question = serde_json::from_str(&line?);
        let answer = question
            .map_err(|error| error.to_string())
            .and_then(answer)
            .unwrap_or_else(|error| json!({ "error": error }));
        writeln!(out, "{answer}")?;
    }
    out.flush()
}
