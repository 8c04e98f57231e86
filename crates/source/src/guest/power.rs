//! Turning guests off and on, for restores in place.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use serde_json::json;

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
/// Errors: `Conflict` it is being backed up, or somebody else has an image; `Transient` it does not end.
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
    let quit = quit(socket).map_err(failed)?;
    if quit.was_running {
        for disk in &server.disks {
            let name = disk.to_string_lossy();
            match open_locked(&name, &folder.join(disk), Access::Read) {
                Err(Error::Missing { .. }) => {}
                locked => drop(locked?),
            }
        }
    }
    Ok(quit)
}

fn quit(socket: &Path) -> io::Result<PoweredOff> {
    let Some(mut qmp) = Qmp::connect(socket)? else {
        return Ok(PoweredOff { was_running: false });
    };
    let process = rustix::process::pidfd_open(qmp.pid()?, PidfdFlags::empty())?;
    match qmp.execute("quit", &json!({})) {
        // It may end before it has answered.
        Err(QmpError::Io(_)) => {}
        done => drop(done?),
    }
    match has_ended(&process, QUIT_LIMIT)? {
        true => Ok(PoweredOff { was_running: true }),
        false => Err(io::Error::new(
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
/// Errors: `Invalid` it has none; `Transient` the command failed.
pub(crate) fn power_on(server: &ServerConfig) -> Result<()> {
    check_power_on(server)?;
    if let Some(socket) = &server.qmp
        && matches!(Qmp::connect(socket), Ok(Some(_)))
    {
        return Ok(());
    }
    start(&server.start_command).map_err(|source| Error::Power {
        server: server.name.clone(),
        source,
    })
}

fn start(command: &[String]) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // What it starts may keep these open for as long as it runs: nobody waits for their end.
    let mut said = tempfile::tempfile()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a process id is a positive number");
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let ended = has_ended(&process, START_LIMIT)?;
    if !ended {
        // It may have ended by now.
        let _ = child.kill();
    }
    let status = child.wait()?;
    if ended && status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    said.seek(SeekFrom::Start(0))?;
    said.take(MAX_MESSAGE_BYTES).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match ended {
        true => io::Error::other(format!("the start command failed ({status}): {text}")),
        false => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the start command does not return: {text}"),
        ),
    })
}
