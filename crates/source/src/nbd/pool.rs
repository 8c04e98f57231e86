//! Several connections to one server, so that many threads read at once.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use cairn_types::disk::Extent;

use super::{Connection, NbdError};
use crate::lock::Access;

/// Connections that do work: as many threads read at once.
const MAX_WORKING: usize = 4;
/// Connections to one server.
pub(crate) const MAX_CONNECTIONS: usize = MAX_WORKING + 1;
/// How long the server may take over one answer before it counts as dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

type Link = Connection<UnixStream>;

/// Connections that are all alike; a thread borrows one for a request.
///
/// `qemu-nbd` closes the connection over which it could not read, so a reader
/// replaces a lost connection; a writer does not, since nobody knows what the
/// server did of the request that was lost, and is broken from then on.
#[derive(Debug)]
pub(crate) struct Pool {
    socket: PathBuf,
    access: Access,
    size_bytes: u64,
    state: Mutex<State>,
    returned: Condvar,
    /// Held by whoever collects every connection: two who each held some would wait for ever.
    collecting: Mutex<()>,
}

#[derive(Debug)]
struct State {
    idle: Vec<Link>,
    /// Does no work: the server lives as long as it has a connection.
    keeper: Option<Link>,
    /// Connections that are idle or borrowed.
    open: usize,
    /// Why there will be no more connections.
    broken: Option<String>,
    /// The last answer about allocation, until something is written.
    extents: Vec<Extent>,
    /// Raised by every write: an answer from before it is not kept.
    writes: u64,
}

impl Pool {
    /// Connects to the default export of the server at `socket`.
    pub(crate) fn connect(socket: PathBuf, access: Access) -> Result<Self, NbdError> {
        let link = Self::dial(&socket)?;
        if access == Access::Write && !link.is_writable() {
            return Err(NbdError::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        let size_bytes = link.size_bytes();
        let keeper = Some(Self::dial(&socket)?);
        let state = State {
            idle: vec![link],
            keeper,
            open: 1,
            broken: None,
            extents: Vec::new(),
            writes: 0,
        };
        Ok(Self {
            socket,
            access,
            size_bytes,
            state: Mutex::new(state),
            returned: Condvar::new(),
            collecting: Mutex::new(()),
        })
    }

    fn dial(socket: &PathBuf) -> Result<Link, NbdError> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Connection::negotiate(stream)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with_one(|link| link.read(offset, buffer))
    }

    /// The run at `offset`. A run of zeros is followed to its end, however
    /// many answers that takes: a hole of any size is one extent.
    pub(crate) fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let mut found = self.part_at(offset)?;
        while !found.data && found.end() < self.size_bytes {
            let next = self.part_at(found.end())?;
            if next.data {
                break;
            }
            found.length += next.length;
        }
        Ok(found)
    }

    /// The run at `offset` as far as one answer of the server tells.
    fn part_at(&self, offset: u64) -> io::Result<Extent> {
        let writes = {
            let state = self.lock();
            let at = state
                .extents
                .partition_point(|extent| extent.end() <= offset);
            if let Some(extent) = state
                .extents
                .get(at)
                .filter(|extent| extent.offset <= offset)
            {
                return Ok(Extent {
                    offset,
                    length: extent.end() - offset,
                    data: extent.data,
                });
            }
            state.writes
        };
        let extents = self.with_one(|link| link.extents(offset))?;
        let first = *extents
            .first()
            .expect("a connection answers with at least one run");
        let mut state = self.lock();
        if state.writes == writes {
            state.extents = extents;
        }
        Ok(first)
    }

    pub(crate) fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let written = self.with_one(|link| link.write(offset, data));
        self.forget_extents();
        written
    }

    /// Makes a run read as zeros. What reads as zeros already is left alone:
    /// to say so again would cost a large empty image its emptiness.
    pub(crate) fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let extent = self.part_at(at)?;
            let stop = extent.end().min(end);
            if extent.data {
                let written = self.with_one(|link| link.write_zeroes(at, stop - at));
                self.forget_extents();
                written?;
            }
            at = stop;
        }
        Ok(())
    }

    /// Returns when all that was acknowledged on any connection is durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let _alone = self.collecting.lock().expect("a flush does not panic");
        let mut links = Vec::with_capacity(MAX_WORKING);
        let mut result = Ok(());
        while result.is_ok() && links.len() < self.lock().open.max(1) {
            result = self.borrow().and_then(|mut link| match link.flush() {
                Err(error) if !error.is_answer() => Err(self.lose(error)),
                flushed => {
                    links.push(link);
                    Ok(flushed?)
                }
            });
        }
        for link in links {
            self.give_back(link);
        }
        result
    }

    /// Closes every connection, so that the server can end.
    pub(crate) fn disconnect(&self) {
        let mut state = self.lock();
        state
            .broken
            .get_or_insert_with(|| "the image was closed".to_owned());
        let idle = std::mem::take(&mut state.idle);
        for link in idle.into_iter().chain(state.keeper.take()) {
            // The server may be gone already; closing the stream says the same.
            let _ = link.disconnect();
        }
    }

    fn with_one<T>(&self, work: impl FnOnce(&mut Link) -> Result<T, NbdError>) -> io::Result<T> {
        let mut link = self.borrow()?;
        match work(&mut link) {
            Err(error) if !error.is_answer() => Err(self.lose(error)),
            result => {
                self.give_back(link);
                Ok(result?)
            }
        }
    }

    /// An idle connection, or a new one while there are not too many.
    fn borrow(&self) -> io::Result<Link> {
        let mut state = self.lock();
        loop {
            if let Some(broken) = &state.broken {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, broken.clone()));
            }
            if let Some(link) = state.idle.pop() {
                return Ok(link);
            }
            if state.open < MAX_WORKING {
                state.open += 1;
                drop(state);
                return self.one_more();
            }
            state = self
                .returned
                .wait(state)
                .expect("no thread panics with the pool in hand");
        }
    }

    /// A new connection, which is counted as open already.
    fn one_more(&self) -> io::Result<Link> {
        let dialled = Self::dial(&self.socket).and_then(|link| {
            if link.size_bytes() == self.size_bytes {
                return Ok(link);
            }
            Err(NbdError::Protocol("the export changes its size"))
        });
        dialled.map_err(|error| {
            self.break_off("the NBD server takes no more connections");
            self.lose(error)
        })
    }

    fn give_back(&self, link: Link) {
        self.lock().idle.push(link);
        self.returned.notify_one();
    }

    /// Counts a connection as gone because of `error`.
    fn lose(&self, error: NbdError) -> io::Error {
        self.lock().open -= 1;
        match &error {
            NbdError::Protocol(_) => self.break_off("the NBD server broke the protocol"),
            _ if self.access == Access::Write => {
                self.break_off("a connection to the NBD server was lost while writing");
            }
            _ => self.returned.notify_one(),
        }
        match error {
            NbdError::Io(cut) if cut.kind() == io::ErrorKind::UnexpectedEof => io::Error::new(
                cut.kind(),
                "qemu-nbd closed the connection, as it does when it cannot read the image",
            ),
            error => error.into(),
        }
    }

    /// Gives up: whoever waits for a connection, or will want one, gets an error.
    fn break_off(&self, why: &str) {
        self.lock().broken.get_or_insert_with(|| why.to_owned());
        self.returned.notify_all();
    }

    fn forget_extents(&self) {
        let mut state = self.lock();
        state.extents.clear();
        state.writes += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics with the pool in hand")
    }
}
