//! `virsh`, the program by which libvirt is asked and told things: no other
//! place starts it. It is a process for each question: no library of libvirt's is linked, so the
//! binary stays one file that runs where libvirt is not installed.
//!
//! Neither the program nor what it says is trusted: it is ended when it takes too long, what it
//! says has a limit, and nothing goes through a shell.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::sys;

/// How long libvirt may take to answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long libvirt may take to change something: it waits for QEMU.
pub(super) const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer at most; the descriptions of thousands of domains fit.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Bytes of a message that are kept.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Comes between the answers to several commands: no XML can hold it, nor any name.
const SEPARATOR: char = '\u{1e}';
/// Commands that one process is given at most: what a command line holds is limited.
pub(super) const MAX_COMMANDS: usize = 256;

/// Why libvirt did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VirshError {
    /// The program cannot be run.
    #[error("virsh cannot be run")]
    Io(#[from] io::Error),
    /// There is no such program.
    #[error("the program virsh (package libvirt-clients) is missing")]
    Missing,
    /// It took too long.
    #[error("libvirt does not answer")]
    Silent,
    /// What came is not what libvirt says.
    #[error("libvirt's answer cannot be read: {0}")]
    Protocol(String),
    /// libvirt, or QEMU behind it, said no.
    #[error("libvirt refused {command}: {text}")]
    Refused {
        /// The command of `virsh`.
        command: String,
        /// What it said.
        text: String,
    },
}

impl VirshError {
    /// What libvirt said, if it said no.
    pub(super) fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { text, .. } => Some(text),
            _ => None,
        }
    }
}

impl From<VirshError> for io::Error {
    fn from(error: VirshError) -> Self {
        match error {
            VirshError::Io(error) => error,
            VirshError::Missing => Self::new(io::ErrorKind::InvalidInput, error),
            VirshError::Silent => Self::new(io::ErrorKind::TimedOut, error),
            VirshError::Protocol(_) => Self::other(error),
            VirshError::Refused { .. } => Self::new(io::ErrorKind::ResourceBusy, error),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, VirshError>;

/// How one libvirt is reached.
#[derive(Debug, Clone)]
pub(crate) struct Virsh {
    uri: String,
}

impl Virsh {
    pub(crate) fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
        }
    }

    /// Asks for what libvirt knows.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, Instant::now() + ANSWER_LIMIT)
    }

    /// Has libvirt change something.
    pub(crate) fn tell(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, Instant::now() + CHANGE_LIMIT)
    }

    /// The answers to several commands, at most [`MAX_COMMANDS`] whose words are plain; an
    /// empty one where libvirt said no.
    pub(super) fn ask_all(&self, commands: &[String]) -> Result<Vec<String>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let separator = format!("; echo {SEPARATOR}; ");
        // What the last command says tells how the program ends: an echo never fails.
        let line = format!("{}; echo {SEPARATOR}", commands.join(&separator));
        let said = self.ask(&[&line])?;
        let mut answers: Vec<String> = said.split(SEPARATOR).map(str::to_owned).collect();
        answers.pop();
        if answers.len() != commands.len() {
            let why = "it has fewer parts than were asked for";
            return Err(VirshError::Protocol(why.to_owned()));
        }
        Ok(answers)
    }

    /// Runs one command, or a line of them, and ends it at `until`. What libvirt was told to
    /// do may then be done all the same.
    pub(super) fn run(&self, arguments: &[&str], until: Instant) -> Result<String> {
        let mut command = Command::new("virsh");
        command
            .args(["--connect", &self.uri])
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => VirshError::Missing,
            _ => error.into(),
        })?;
        let heard = listen(&mut child, until);
        if heard.is_err() {
            // It may have ended by itself.
            let _ = child.kill();
        }
        let status = child.wait()?;
        let (said, complaint) = heard?;
        if status.success() {
            let text = String::from_utf8(said);
            return text.map_err(|_| VirshError::Protocol("it is not UTF-8".to_owned()));
        }
        Err(VirshError::Refused {
            command: arguments.first().map_or_else(String::new, word_of),
            text: text_of(&complaint),
        })
    }
}

fn word_of(line: &&str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// What `virsh` complains of, on one line.
fn text_of(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let lines = text.lines().map(|line| line.trim_start_matches("error: "));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(": ")
}

/// All that a process says, until it has closed both its ends.
fn listen(child: &mut Child, until: Instant) -> Result<(Vec<u8>, Vec<u8>)> {
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let (mut output, mut errors) = (child.stdout.take(), child.stderr.take());
    let mut buffer = vec![0; READ_BYTES];
    while output.is_some() || errors.is_some() {
        let (from_output, from_errors) = wait(output.as_ref(), errors.as_ref(), until)?;
        if from_output && let Some(pipe) = &mut output {
            match pipe.read(&mut buffer)? {
                0 => output = None,
                got => said.extend_from_slice(&buffer[..got]),
            }
        }
        if from_errors && let Some(pipe) = &mut errors {
            match pipe.read(&mut buffer)? {
                0 => errors = None,
                got => complaint.extend_from_slice(&buffer[..got]),
            }
            complaint.truncate(MAX_MESSAGE_BYTES);
        }
        if said.len() > MAX_ANSWER_BYTES {
            return Err(VirshError::Protocol("it is too long".to_owned()));
        }
    }
    Ok((said, complaint))
}

/// Waits until there is something to read, and says where.
fn wait(
    output: Option<&impl AsFd>,
    errors: Option<&impl AsFd>,
    until: Instant,
) -> Result<(bool, bool)> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(VirshError::Silent);
    }
    let limit = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut ends = Vec::with_capacity(2);
    ends.extend(output.map(|end| PollFd::new(end, PollFlags::IN)));
    ends.extend(errors.map(|end| PollFd::new(end, PollFlags::IN)));
    match rustix::event::poll(&mut ends, Some(&limit)) {
        Err(rustix::io::Errno::INTR) => return Ok((false, false)),
        polled => polled.map_err(io::Error::from)?,
    };
    let mut ready = ends.iter().map(|end| !end.revents().is_empty());
    let from_output = output.is_some() && ready.next().unwrap_or(false);
    Ok((from_output, ready.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line() {
        let said = b"error: Failed to start domain\nerror: internal error: no disk\n\n";
        assert_eq!(
            text_of(said),
            "Failed to start domain: internal error: no disk"
        );
    }

    #[test]
    fn a_libvirt_that_accepts_nobody_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let virsh = Virsh::new(&format!("qemu:///session?socket={}", socket.display()));
        let asked = virsh.run(
            &["list", "--uuid"],
            Instant::now() + Duration::from_millis(300),
        );
        assert!(matches!(asked, Err(VirshError::Silent)), "{asked:?}");
    }
}
