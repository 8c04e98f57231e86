//! Several connections to one server, so that many threads read at once.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use cairn_types::disk::Extent;

use super::{Connection, Context, NbdError};
use crate::lock::Access;

/// Connections to one server: as many threads read at once.
pub(crate) const MAX_CONNECTIONS: usize = 4;
/// How long the server may take over one answer before it counts as dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

type Link = Connection<UnixStream>;

/// Connections that are all alike; a thread borrows one for a request.
///
/// QEMU's server closes the connection over which it could not read, so a reader
/// goes on with those that are left. A writer does not: nobody knows what the
/// server did of the request that was lost.
#[derive(Debug)]
pub(crate) struct Pool {
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
    /// Connections that are idle or borrowed.
    open: usize,
    /// Why no connection is to be used any more.
    broken: Option<String>,
    /// The last answer about allocation, until something is written.
    extents: Vec<Extent>,
    /// Raised by every write: an answer from before it is not kept.
    writes: u64,
}

impl Pool {
    /// Negotiates an export on connections to one server; the empty name is that of the default one.
    pub(crate) fn negotiate(
        streams: Vec<UnixStream>,
        export: &str,
        access: Access,
        context: &Context,
    ) -> Result<Self, NbdError> {
        let mut idle = Vec::with_capacity(streams.len());
        for stream in streams {
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.set_write_timeout(Some(ANSWER_LIMIT))?;
            let link = Connection::negotiate(stream, export, context.clone())?;
            if access == Access::Write && !link.is_writable() {
                return Err(NbdError::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
            }
            idle.push(link);
        }
        let size_bytes = idle.first().map_or(0, Connection::size_bytes);
        if idle.iter().any(|link| link.size_bytes() != size_bytes) {
            return Err(NbdError::Protocol("the export changes its size"));
        }
        let open = idle.len();
        let state = State {
            idle,
            open,
            broken: None,
            extents: Vec::new(),
            writes: 0,
        };
        Ok(Self {
            access,
            size_bytes,
            state: Mutex::new(state),
            returned: Condvar::new(),
            collecting: Mutex::new(()),
        })
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
        let mut links = Vec::with_capacity(MAX_CONNECTIONS);
        let mut result = Ok(());
        while result.is_ok() && links.len() < self.lock().open {
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
        // Without a connection left nothing was flushed.
        result.and_then(|()| match &self.lock().broken {
            Some(broken) => Err(io::Error::new(io::ErrorKind::BrokenPipe, broken.clone())),
            None => Ok(()),
        })
    }

    /// Closes every connection, so that the server can end.
    pub(crate) fn disconnect(&self) {
        let mut state = self.lock();
        state
            .broken
            .get_or_insert_with(|| "the image was closed".to_owned());
        for link in state.idle.drain(..) {
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

    /// An idle connection, as soon as there is one.
    fn borrow(&self) -> io::Result<Link> {
        let mut state = self.lock();
        loop {
            if let Some(broken) = &state.broken {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, broken.clone()));
            }
            if let Some(link) = state.idle.pop() {
                return Ok(link);
            }
            state = self
                .returned
                .wait(state)
                .expect("no thread panics with the pool in hand");
        }
    }

    fn give_back(&self, link: Link) {
        self.lock().idle.push(link);
        self.returned.notify_one();
    }

    /// Counts a connection as gone because of `error`.
    fn lose(&self, error: NbdError) -> io::Error {
        let left = {
            let mut state = self.lock();
            state.open -= 1;
            state.open
        };
        match &error {
            NbdError::Protocol(_) => self.break_off("the NBD server broke the protocol"),
            _ if left == 0 || self.access == Access::Write => {
                self.break_off("the connection to the NBD server was lost");
            }
            _ => {}
        }
        match error {
            NbdError::Io(cut) if cut.kind() == io::ErrorKind::UnexpectedEof => io::Error::new(
                cut.kind(),
                "the NBD server closed the connection, as it does when it cannot read the image",
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
