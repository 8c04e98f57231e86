//! The agent in a guest (`qemu-ga`), which has its file systems written out
//! and held still for the moment of a backup.
//!
//! Whatever happens, the guest is told to thaw: as soon as the moment is over, and when that is
//! not known any more.
//! Source: QEMU, `qga/qapi-schema.json`.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::lines::Lines;

/// How long a guest may be frozen, from when it is told to until it is told to thaw.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// How much of that is left for the moment itself, however long the freeze takes.
const MOMENT: Duration = Duration::from_secs(3);
/// How long the agent may take over anything else.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How often a guest is told to thaw.
const THAW_ATTEMPTS: usize = 3;
/// Comes before an answer by which both ends find each other again.
const DELIMITER: u8 = 0xff;

/// Why a guest was not frozen, in half a sentence.
pub(super) type Why = String;

/// A guest whose file systems are held still.
#[derive(Debug)]
pub(super) struct Frozen {
    agent: Agent,
    until: Instant,
    thawed: bool,
}

impl Frozen {
    /// Freezes the guest whose agent's socket is at `path`.
    pub(super) fn freeze(path: &Path) -> Result<Self, Why> {
        let mut agent = Agent::connect(path)?;
        let until = Instant::now() + FREEZE_LIMIT;
        // From here on it may be frozen, whatever comes back.
        let asked = agent.ask("guest-fsfreeze-freeze", until - MOMENT);
        let mut frozen = Self {
            agent,
            until,
            thawed: false,
        };
        match asked.map(|answer| answer.as_u64()) {
            Ok(Some(count)) if count > 0 => Ok(frozen),
            Ok(_) => {
                frozen.thaw_now()?;
                Err("no file system of the guest could be frozen".to_owned())
            }
            Err(why) => {
                frozen.thaw_now()?;
                Err(format!("the guest could not be frozen: {why}"))
            }
        }
    }

    /// When it has to be thawed.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Thaws the guest.
    ///
    /// Errors: why it may not have been frozen all the time.
    pub(super) fn thaw(mut self) -> Result<(), Why> {
        match self.thaw_now()? {
            0 => Err("the guest had thawed by itself".to_owned()),
            _ => Ok(()),
        }
    }

    fn thaw_now(&mut self) -> Result<u64, Why> {
        self.thawed = true;
        let mut why = String::new();
        for _ in 0..THAW_ATTEMPTS {
            let limit = Instant::now() + ANSWER_LIMIT;
            let thawed = self.agent.synchronize();
            match thawed.and_then(|()| self.agent.ask("guest-fsfreeze-thaw", limit)) {
                Ok(count) => return Ok(count.as_u64().unwrap_or(0)),
                Err(error) => why = error,
            }
        }
        tracing::error!(
            why,
            "A guest may still be frozen: its agent does not say that it thawed."
        );
        Err(format!("the guest did not say that it thawed: {why}"))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.thawed {
            // What went wrong is in the log already.
            let _ = self.thaw_now();
        }
    }
}

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
struct Agent {
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
    fn connect(path: &Path) -> Result<Self, Why> {
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

fn failed(error: io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::TimedOut => "its agent does not answer".to_owned(),
        _ => format!("its agent cannot be asked: {error}"),
    }
}
