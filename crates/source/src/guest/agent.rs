//! The agent in a guest (`qemu-ga`), by its socket.
//! Source: QEMU, `qga/qapi-schema.json`.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::freeze::{Freezer, NotFrozen, Why};
use crate::lines::Lines;

/// How long the agent may take over what is no freeze.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Comes before an answer by which both ends find each other again.
const DELIMITER: u8 = 0xff;

/// Thaws a guest that a Cairn which was killed may have frozen.
pub(super) fn thaw_after_crash(path: &Path) -> Result<(), Why> {
    let mut agent = Agent::connect(path)?;
    let limit = Instant::now() + ANSWER_LIMIT;
    if agent.ask("guest-fsfreeze-status", limit)? == "frozen" {
        tracing::warn!("A guest was frozen by a backup that was cut off, and is thawed.");
        agent.ask("guest-fsfreeze-thaw", limit)?;
    }
    Ok(())
}

/// A connection to an agent.
#[derive(Debug)]
pub(super) struct Agent {
    lines: Lines,
    /// The number by which both ends found each other last.
    number: u32,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Agent {
    pub(super) fn connect(path: &Path) -> Result<Self, Why> {
        let lines = Lines::connect(path).map_err(failed)?;
        let lines = lines.ok_or("nobody listens on the socket of its agent")?;
        let number = std::process::id();
        let mut agent = Self { lines, number };
        agent.synchronize()?;
        Ok(agent)
    }

    /// Passes over whatever the agent still has to say of things that were asked before.
    fn synchronize(&mut self) -> Result<(), Why> {
        let until = Instant::now() + ANSWER_LIMIT;
        // The agent takes it for a number with a sign.
        self.number = self.number.wrapping_add(1) & 0x7fff_ffff;
        let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": self.number}});
        // It makes the agent forget half a line that it may have.
        let line = [&[DELIMITER], format!("{sync}\n").as_bytes()].concat();
        self.lines.send(&line, None, until).map_err(failed)?;
        loop {
            self.lines.next_until(DELIMITER, until).map_err(failed)?;
            let line = self.lines.next(until).map_err(failed)?;
            let answer = serde_json::from_slice::<Answer>(&line);
            if answer.is_ok_and(|answer| answer.answer == Some(json!(self.number))) {
                return Ok(());
            }
        }
    }

    fn ask(&mut self, command: &str, until: Instant) -> Result<Value, Why> {
        let line = format!("{}\n", json!({"execute": command}));
        let sent = self.lines.send(line.as_bytes(), None, until);
        sent.map_err(failed)?;
        let line = self.lines.next(until).map_err(failed)?;
        match serde_json::from_slice(&line) {
            Ok(Answer {
                answer: Some(answer),
                ..
            }) => Ok(answer),
            Ok(Answer {
                error: Some(refusal),
                ..
            }) => Err(refusal.desc),
            _ => Err("its agent answered with something else".to_owned()),
        }
    }
}

impl Freezer for Agent {
    fn freeze(&mut self, until: Instant) -> Result<u64, NotFrozen> {
        let asked = self.ask("guest-fsfreeze-freeze", until);
        let count = asked.map_err(NotFrozen::Perhaps)?;
        Ok(count.as_u64().unwrap_or(0))
    }

    fn thaw(&mut self, until: Instant) -> Result<u64, Why> {
        self.synchronize()?;
        let count = self.ask("guest-fsfreeze-thaw", until)?;
        Ok(count.as_u64().unwrap_or(0))
    }
}

fn failed(error: io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::TimedOut => "its agent does not answer".to_owned(),
        _ => format!("its agent cannot be asked: {error}"),
    }
}
