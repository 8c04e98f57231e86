//! Turning guests off and on, for restores in place.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cairn_types::disk::Because;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::json;

use super::attached::images;
use super::{Guests, key};
use crate::config::ServerConfig;
use crate::lock::Access;
use crate::qmp::{Qmp, QmpError};
use crate::raw::open_locked;
use crate::{Error, Result};

/// How long a QEMU that was told to quit may take to end: it writes out what it holds.
const QUIT_LIMIT: Duration = Duration::from_secs(30);
/// How long the command that starts a guest may take to return.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of what that command says that are kept.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// How a server was before it was turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoweredOff {
    /// Whether it had to be turned off.
    pub was_running: bool,
}

/// Whether the QEMU of a server runs, if it is known how to ask.
///
/// Errors: `Transient` it does not answer.
pub(crate) fn runs(server: &ServerConfig) -> Result<bool> {
    let Some(socket) = &server.qmp else {
        return Ok(false);
    };
    match Qmp::connect(socket) {
        Ok(found) => Ok(found.is_some()),
        Err(source) => Err(Error::Power {
            server: server.name.clone(),
            source: source.into(),
        }),
    }
}

/// Errors: `Invalid` nobody has said how the server is started.
pub(crate) fn check_power_on(server: &ServerConfig) -> Result<()> {
    match server.start_command.is_empty() {
        false => Ok(()),
        true => Err(Error::NoStartCommand {
            server: server.name.clone(),
        }),
    }
}

/// Ends the QEMU of a server at once, and returns when it has let go of the images in `folder`.
///
/// Errors: `Conflict` it is being backed up, or somebody else has an image; `Invalid` it has one of them
/// beneath another; `Transient` it does not end.
pub(crate) fn power_off(
    guests: &Arc<Guests>,
    folder: &Path,
    server: &ServerConfig,
) -> Result<PoweredOff> {
    let Some(socket) = &server.qmp else {
        return Ok(PoweredOff { was_running: false });
    };
    let turn = guests.take(key(socket));
    let _turn = turn.ok_or_else(|| Error::GuestBusy {
        server: server.name.clone(),
    })?;
    let failed = |source| Error::Power {
        server: server.name.clone(),
        source,
    };
    let Some(mut qmp) = Qmp::connect(socket).map_err(|error| failed(error.into()))? else {
        return Ok(PoweredOff { was_running: false });
    };
    let images = images(&mut qmp).map_err(|error| failed(error.into()))?;
    for disk in &server.disks {
        // What is above it would not fit to what is restored beneath.
        if images.is_beneath(&folder.join(disk)) {
            return Err(Error::Beneath {
                volume: disk.to_string_lossy().into_owned(),
                server: server.name.clone(),
            });
        }
    }
    quit(qmp).map_err(failed)?;
    for disk in &server.disks {
        let name = disk.to_string_lossy();
        match open_locked(&name, &folder.join(disk), Access::Read) {
            Err(Error::Missing { .. }) => {}
            locked => drop(locked?),
        }
    }
    Ok(PoweredOff { was_running: true })
}

fn quit(mut qmp: Qmp) -> io::Result<()> {
    let process = rustix::process::pidfd_open(qmp.pid()?, PidfdFlags::empty())?;
    match qmp.execute("quit", &json!({})) {
        // It may end before it has answered.
        Err(QmpError::Io(_)) => {}
        done => drop(done?),
    }
    match has_ended(&process, QUIT_LIMIT)? {
        true => Ok(()),
        false => Err(Because::error(
            io::ErrorKind::TimedOut,
            "QEMU does not end, though it was told to",
        )),
    }
}

/// Waits for a process to end.
fn has_ended(process: &impl std::os::fd::AsFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut ends = [PollFd::new(process, PollFlags::IN)];
    Ok(rustix::event::poll(&mut ends, Some(&limit))? > 0)
}

/// Starts a server by its command, which has to return when that is done.
///
/// Errors: `Invalid` it has none, or one that does not return; `Transient` the command failed.
pub(crate) fn power_on(server: &ServerConfig) -> Result<()> {
    check_power_on(server)?;
    if let Some(socket) = &server.qmp
        && matches!(Qmp::connect(socket), Ok(Some(_)))
    {
        return Ok(());
    }
    match start(&server.start_command, START_LIMIT) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::StartHangs {
            server: server.name.clone(),
            limit_seconds: START_LIMIT.as_secs(),
        }),
        Err(source) => Err(Error::Power {
            server: server.name.clone(),
            source,
        }),
    }
}

/// The command that starts a server failed. What it said is for the log alone.
#[derive(Debug, thiserror::Error)]
#[error("{how}: {said}")]
pub(crate) struct StartFailed {
    pub(crate) how: String,
    said: String,
}

/// Whether the command has returned in its time. Otherwise it is ended, with all that it
/// started and that is still of its process group.
fn start(command: &[String], limit: Duration) -> io::Result<bool> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // What it starts may keep these open for as long as it runs: nobody waits for their end.
    let mut said = tempfile::tempfile()?;
    let child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn();
    let mut child = child.map_err(|error| {
        let how = format!("the start command cannot be run ({})", error.kind());
        let said = error.to_string();
        io::Error::new(error.kind(), StartFailed { how, said })
    })?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a process id is a positive number");
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let ended = has_ended(&process, limit)?;
    if !ended {
        // It may have ended by now.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait()?;
    if !ended || status.success() {
        return Ok(ended);
    }
    let mut text = Vec::new();
    said.seek(SeekFrom::Start(0))?;
    said.take(MAX_MESSAGE_BYTES).read_to_end(&mut text)?;
    let how = format!("the start command failed ({status})");
    let said = String::from_utf8_lossy(&text).trim().to_owned();
    Err(io::Error::other(StartFailed { how, said }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_command_that_goes_on_is_ended_with_what_it_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        // For as long as one of the two runs, somebody has the pipe open to write to it.
        let script = format!("exec 9<>{}; sleep 600 & wait", pipe.display());
        let command = ["sh", "-c", &script].map(str::to_owned);
        let mut reader = std::fs::File::options();
        let reader = std::os::unix::fs::OpenOptionsExt::custom_flags(
            reader.read(true),
            rustix::fs::OFlags::NONBLOCK.bits() as i32,
        );
        let mut reader = reader.open(&pipe).unwrap();
        assert!(!start(&command, Duration::from_millis(300)).unwrap());
        let until = std::time::Instant::now() + Duration::from_secs(60);
        // At the end nobody has it open, before that there is nothing to read.
        while reader.read(&mut [0]).is_err() {
            assert!(std::time::Instant::now() < until, "something runs on");
            std::thread::yield_now();
        }
    }
}
