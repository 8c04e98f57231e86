//! The `qemu-nbd` process that serves one qcow2 image.
//!
//! It listens on a socket that is handed to it (as systemd would), so there is
//! no moment at which it is not ready yet. It ends when the last connection
//! does, and the kernel ends it when Cairn does. A thread of its own starts it
//! and waits for it, so it never lingers.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use cairn_types::disk::Extent;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::lock::Access;
use crate::nbd::{Context, MAX_CONNECTIONS, Pool};
use crate::{Error, Result, sys};

/// How long the server may take to close the image after the last connection.
const CLOSE_LIMIT: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};
/// How long a server that broke a connection may take to say why.
const GIVE_UP_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};
/// How much of what the server says is kept for the error message.
const MAX_MESSAGE_BYTES: u64 = 4096;
/// What the shell exits with when there is no such program.
const NO_SUCH_PROGRAM: i32 = 127;
/// The socket must become descriptor 3, and the server must be told its own process id.
/// Source: `sd_listen_fds(3)`.
const START: &str = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec qemu-nbd \"$@\"";

/// Runs `qemu-img` on an image and returns what it says. An error has its own words.
pub(crate) fn qemu_img(before: &[&str], path: &Path, behind: &[&str]) -> io::Result<Vec<u8>> {
    let output = Command::new("qemu-img")
        .args(before)
        .arg(path)
        .args(behind)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(said))
}

/// A running server and the connections to it.
#[derive(Debug)]
pub(crate) struct QemuNbd {
    pool: Pool,
    process: Process,
}

impl QemuNbd {
    /// Starts a server for the qcow2 image `name` at `path`; what it takes for
    /// data is what the context holds of.
    ///
    /// Errors: `Conflict` another program has the image open; `Invalid` no
    /// image or no `qemu-nbd`; `Transient` it did not answer.
    pub(crate) fn start(
        name: &str,
        path: &Path,
        access: Access,
        context: &Context,
    ) -> Result<Self> {
        let failed = |source| Error::Serve {
            volume: name.to_owned(),
            source,
        };
        let (listener, streams) = sockets().map_err(failed)?;
        let process = Process::spawn(command(path, access, context, listener)).map_err(failed)?;
        match Pool::negotiate(streams, "", access, context) {
            Ok(pool) => Ok(Self { pool, process }),
            Err(error) => Err(explain(name, error.into(), process)),
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.pool.size_bytes()
    }

    pub(crate) fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.pool.extent_at(offset)
    }

    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.pool.read_at(offset, buffer)
    }

    pub(crate) fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pool.write_at(offset, data)
    }

    pub(crate) fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.pool.write_zeroes(offset, length)
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.pool.flush()
    }
}

impl Drop for QemuNbd {
    /// Lets the server close the image, so that its lock is free afterwards.
    fn drop(&mut self) {
        self.pool.disconnect();
        if self.process.end(&CLOSE_LIMIT).is_none() {
            tracing::warn!("a qemu-nbd did not end after its last connection and was killed");
        }
    }
}

/// A socket for a server, and the connections to it, made before the server
/// is there to accept them: so nobody else can connect, and a Cairn that is
/// killed leaves no socket behind.
fn sockets() -> io::Result<(UnixListener, Vec<UnixStream>)> {
    let folder = tempfile::Builder::new().prefix("cairn-nbd-").tempdir()?;
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let connect = |_| UnixStream::connect(&path);
    let streams = (0..MAX_CONNECTIONS)
        .map(connect)
        .collect::<io::Result<_>>()?;
    Ok((listener, streams))
}

/// Makes the error of a server that did not come up of what it said itself.
fn explain(name: &str, error: io::Error, mut process: Process) -> Error {
    let volume = name.to_owned();
    let Some(ended) = process.end(&GIVE_UP_LIMIT) else {
        return Error::Serve {
            volume,
            source: error,
        };
    };
    if ended.status.code() == Some(NO_SUCH_PROGRAM) {
        return Error::NoQemu { volume };
    }
    // Source: QEMU, `block/file-posix.c`, `raw_check_lock_bytes`.
    if ended.said.contains("Failed to get") && ended.said.contains("lock") {
        return Error::InUse { volume };
    }
    if ended.status.code().is_some() {
        let why = ended
            .said
            .lines()
            .next_back()
            .unwrap_or("qemu-nbd refused it")
            .to_owned();
        return Error::Unusable { volume, why };
    }
    Error::Serve {
        volume,
        source: io::Error::new(error.kind(), format!("{error}: {}", ended.said)),
    }
}

/// How a server ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    said: String,
}

/// The process, and the thread that waits for it.
#[derive(Debug)]
struct Process {
    handle: OwnedFd,
    waiter: Option<JoinHandle<io::Result<Ended>>>,
}

impl Process {
    fn spawn(mut command: Command) -> io::Result<Self> {
        let (started, when_started) = mpsc::sync_channel(1);
        let waiter = std::thread::Builder::new()
            .name("qemu-nbd".to_owned())
            .spawn(move || {
                let child = command.spawn();
                // It holds the socket: the server's end must be the only copy, so
                // that whoever connects hears of the server's end.
                drop(command);
                let child = child.and_then(|mut child| match handle_of(&child) {
                    Ok(handle) => Ok((child, handle)),
                    Err(error) => {
                        child.kill()?;
                        child.wait()?;
                        Err(error)
                    }
                });
                match child {
                    Ok((child, handle)) => {
                        // A receiver that is gone has dropped nothing but the handle.
                        let _ = started.send(Ok(handle));
                        wait(child)
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                        Err(io::ErrorKind::NotFound.into())
                    }
                }
            })?;
        let handle = when_started.recv().expect("the thread always answers")?;
        Ok(Self {
            handle,
            waiter: Some(waiter),
        })
    }

    /// Kills the process; it may have ended already.
    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Waits for the process to end by itself, and kills it after `limit`.
    /// Returns how it ended by itself, if it did.
    fn end(&mut self, limit: &Timespec) -> Option<Ended> {
        let mut ended = [PollFd::new(&self.handle, PollFlags::IN)];
        let by_itself = matches!(rustix::event::poll(&mut ended, Some(limit)), Ok(1));
        if !by_itself {
            self.kill();
        }
        let ended = self.waiter.take()?.join().ok()?.ok()?;
        by_itself.then_some(ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.waiter.is_some() {
            self.end(&Timespec::default());
        }
    }
}

fn command(path: &Path, access: Access, context: &Context, listener: UnixListener) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", START, "qemu-nbd", "--format=qcow2", "--discard=unmap"]);
    command.arg(format!("--shared={MAX_CONNECTIONS}"));
    if access == Access::Read {
        command.arg("--read-only");
    }
    if let Context::DirtyBitmap(bitmap) = context {
        command.arg(format!("--bitmap={bitmap}"));
    }
    command.arg("--").arg(path);
    command
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    sys::die_with_parent(&mut command);
    command
}

fn handle_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a process id is a positive number");
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

fn wait(mut child: Child) -> io::Result<Ended> {
    let mut said = Vec::new();
    if let Some(mut errors) = child.stderr.take() {
        errors
            .by_ref()
            .take(MAX_MESSAGE_BYTES)
            .read_to_end(&mut said)?;
        io::copy(&mut errors, &mut io::sink())?;
    }
    let status = child.wait()?;
    Ok(Ended {
        status,
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}
