//! A client of QMP, by which a running QEMU is asked and told things: one
//! command after another, answers by their number, events passed over.
//! Source: QEMU, `docs/interop/qmp-spec.rst`.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::lines::Lines;

/// How long QEMU may take over one command.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long something that QEMU does behind a command may take.
const EVENT_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait for an event before asking again all the same.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// The connection failed.
    #[error("the connection to QEMU failed")]
    Io(#[from] io::Error),
    /// There was no answer in time.
    #[error("QEMU does not answer; somebody else may be connected to its socket")]
    Silent,
    /// What came is no QMP.
    #[error("QEMU broke the protocol: {0}")]
    Protocol(&'static str),
    /// QEMU answered with an error.
    #[error("QEMU refused {command}: {text}")]
    Refused { command: String, text: String },
}

impl QmpError {
    /// Whether QEMU itself said no: the connection can go on then.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<QmpError> for io::Error {
    fn from(error: QmpError) -> Self {
        match error {
            QmpError::Io(error) => error,
            QmpError::Silent => Self::new(io::ErrorKind::TimedOut, error),
            QmpError::Protocol(_) => Self::other(error),
            QmpError::Refused { .. } => Self::new(io::ErrorKind::ResourceBusy, error),
        }
    }
}

type Result<T> = std::result::Result<T, QmpError>;

/// A connection that is ready for commands.
#[derive(Debug)]
pub(crate) struct Qmp {
    lines: Lines,
    /// The first number of QEMU's version.
    major: u32,
    /// The number of the last command.
    number: u64,
    /// Before this moment everything has to be done, if anybody waits for it.
    deadline: Option<Instant>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    id: Option<u64>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Qmp {
    /// Connects to the QEMU whose socket is at `path`; nothing if none listens there.
    pub(crate) fn connect(path: &Path) -> Result<Option<Self>> {
        let lines = match Lines::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(QmpError::Silent),
            lines => Ok(lines?),
        }?;
        let Some(lines) = lines else {
            return Ok(None);
        };
        let mut qmp = Self {
            lines,
            major: 0,
            number: 0,
            deadline: None,
        };
        let greeting = qmp.next(qmp.until(ANSWER_LIMIT))?.greeting;
        let greeting = greeting.ok_or(QmpError::Protocol("it does not greet like QEMU"))?;
        let major = greeting["version"]["qemu"]["major"].as_u64();
        qmp.major = major
            .and_then(|major| u32::try_from(major).ok())
            .unwrap_or(0);
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(Some(qmp))
    }

    /// The first number of this QEMU's version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// The process id of this QEMU.
    pub(crate) fn pid(&self) -> Result<rustix::process::Pid> {
        Ok(self.lines.peer()?)
    }

    /// Lets no command go on behind `deadline`, until it is set again.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Has QEMU execute a command.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.execute_with(command, arguments, None)
    }

    /// Asks QEMU for something.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &Value,
    ) -> Result<T> {
        let answer = self.execute(command, arguments)?;
        let read = serde_json::from_value(answer);
        read.map_err(|error| {
            tracing::debug!(%error, command, "an answer of QEMU cannot be read");
            QmpError::Protocol("an answer is not as it should be")
        })
    }

    /// As [`execute`](Self::execute), with a copy of a descriptor that the command is about.
    pub(crate) fn execute_with(
        &mut self,
        command: &str,
        arguments: &Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value> {
        self.number += 1;
        let until = self.until(ANSWER_LIMIT);
        let message = json!({"execute": command, "arguments": arguments, "id": self.number});
        let line = format!("{message}\n");
        self.lines
            .send(line.as_bytes(), file, until)
            .map_err(silence)?;
        loop {
            let message = self.next(until)?;
            if message.event.is_some() {
                continue;
            }
            match message {
                // The answer to a command that took too long.
                Message { id: Some(id), .. } if id < self.number => {}
                Message {
                    error: Some(refusal),
                    ..
                } => {
                    return Err(QmpError::Refused {
                        command: command.to_owned(),
                        text: refusal.desc,
                    });
                }
                Message {
                    id: Some(id),
                    answer: Some(answer),
                    ..
                } if id == self.number => return Ok(answer),
                _ => return Err(QmpError::Protocol("an answer is to nothing")),
            }
        }
    }

    /// Asks until `done` is content with the answer. What it waits for must be told by events.
    pub(crate) fn wait_until<T: DeserializeOwned>(
        &mut self,
        command: &str,
        done: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let until = self.until(EVENT_LIMIT);
        loop {
            let answer = self.ask(command, &json!({}))?;
            if done(&answer) {
                return Ok(answer);
            }
            // An event that came before the answer is in the answer.
            match self.next(until.min(Instant::now() + ASK_AGAIN)) {
                Err(QmpError::Silent) if Instant::now() < until => {}
                event => drop(event?),
            }
        }
    }

    fn next(&mut self, until: Instant) -> Result<Message> {
        let line = self.lines.next(until).map_err(silence)?;
        let message = serde_json::from_slice(&line);
        message.map_err(|_| QmpError::Protocol("a line is no message"))
    }

    fn until(&self, limit: Duration) -> Instant {
        let until = Instant::now() + limit;
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }
}

fn silence(error: io::Error) -> QmpError {
    match error.kind() {
        io::ErrorKind::TimedOut => QmpError::Silent,
        io::ErrorKind::InvalidData => QmpError::Protocol("a line is too long"),
        _ => QmpError::Io(error),
    }
}
