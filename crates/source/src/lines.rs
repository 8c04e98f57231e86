//! A stream socket over which lines of JSON go to and fro: QEMU's monitor
//! (`qmp`), and the agent in a guest (`guest/agent.rs`).
//!
//! Who is at the other end is not trusted: no call waits longer than it is told, and a line
//! has a limit.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

/// Bytes of one line at most; what QEMU says of thousands of nodes fits.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    /// What was read and not yet handed out.
    read: Vec<u8>,
}

impl Lines {
    /// Connects to the socket at `path`; nothing if nobody listens there.
    ///
    /// Errors: `WouldBlock` as many as may wait are waiting for it already.
    pub(crate) fn connect(path: &Path) -> io::Result<Option<Self>> {
        let address = SocketAddrUnix::new(path)?;
        // Otherwise it would wait for ever for a program that accepts nobody.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            connected => connected?,
        }
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(Some(Self {
            stream,
            read: Vec::new(),
        }))
    }

    /// The id of the process that listens, as this host sees it.
    pub(crate) fn peer(&self) -> io::Result<rustix::process::Pid> {
        Ok(rustix::net::sockopt::socket_peercred(&self.stream)?.pid)
    }

    /// Sends bytes, and a copy of a descriptor with them.
    pub(crate) fn send(
        &mut self,
        bytes: &[u8],
        file: Option<BorrowedFd<'_>>,
        until: Instant,
    ) -> io::Result<()> {
        let mut rest = bytes;
        let mut files = Vec::from_iter(file);
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(until)?))?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() {
                let fits = control.push(SendAncillaryMessage::ScmRights(&files));
                assert!(fits, "the space is made for one descriptor");
            }
            let text = [IoSlice::new(rest)];
            let flags = SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.stream, &text, &mut control, flags) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(errno) => return Err(errno.into()),
            }
            files.clear();
        }
        Ok(())
    }

    /// The next line, without its end.
    ///
    /// Errors: `TimedOut`; `UnexpectedEof` the other end has closed; `InvalidData` it is too long.
    pub(crate) fn next(&mut self, until: Instant) -> io::Result<Vec<u8>> {
        self.next_until(b'\n', until)
    }

    /// The bytes before the next byte of this value.
    pub(crate) fn next_until(&mut self, end: u8, until: Instant) -> io::Result<Vec<u8>> {
        let mut looked_at = 0;
        loop {
            let found = self.read[looked_at..].iter().position(|byte| *byte == end);
            if let Some(at) = found {
                let rest = self.read.split_off(looked_at + at + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.pop();
                return Ok(line);
            }
            looked_at = self.read.len();
            if looked_at > MAX_LINE_BYTES {
                let why = "a line of the answer is too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.fill(until)?;
        }
    }

    fn fill(&mut self, until: Instant) -> io::Result<()> {
        self.stream.set_read_timeout(Some(left(until)?))?;
        let before = self.read.len();
        self.read.resize(before + READ_BYTES, 0);
        let got = self.stream.read(&mut self.read[before..]);
        self.read.truncate(before + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// How long there is until then.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
