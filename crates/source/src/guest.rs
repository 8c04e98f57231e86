//! Guests that run: their disks are read through their QEMU, at one moment,
//! while they go on writing.
//!
//! Invariants: the guest never fails and hardly waits because of a backup; QEMU is as it was when
//! the last reader is dropped, but for one bitmap in each image; what a Cairn that was
//! killed left there goes before the next backup, or when the server starts.

mod agent;
mod attached;
mod bitmaps;
pub(crate) mod disk;
mod fleece;
pub(crate) mod freeze;
mod power;
pub(crate) mod scratch;
mod turn;

use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::ResourceId;
use cairn_types::disk::{DiskReader, Extent, NoChangeMap, Point};

use self::agent::Agent;
use self::attached::{Attached, Images, images};
use self::bitmaps::Bitmaps;
use self::disk::{Held, LiveDisk};
use self::fleece::{FleeceError, Kind, Part};
use self::freeze::{AtRest, Freezer, NotFrozen};
pub use self::power::PoweredOff;
pub(crate) use self::power::{StartFailed, check_power_on, power_off, power_on, runs};
pub(crate) use self::turn::{Guests, Turn};
use crate::config::ServerConfig;
use crate::qmp::{Qmp, QmpError};
use crate::{Error, Result};

/// What a backup of a server asks of the moment at which its disks are read.
#[derive(Debug)]
pub enum Level {
    /// That it is one moment.
    Crash,
    /// That the guest's file systems are written out and held still, if that can be; and before
    /// them its applications, by what reaches them.
    Application(Option<Box<dyn Freezer>>),
}

/// What the disks of a server hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// What was in memory too, as far as the guest's agent had it written.
    Application,
    /// The guest does not run.
    AtRest,
    /// What was on the disks at one moment, as after a loss of power.
    Crash {
        /// Why not more, if more was asked for; half a sentence.
        why: Option<String>,
    },
}

/// The disks of a server, open at one point in time.
pub struct ServerReaders {
    /// As many as were asked for, in that order.
    pub disks: Vec<(ResourceId, Arc<dyn DiskReader>)>,
    /// What they hold.
    pub consistency: Consistency,
}

/// A disk that is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The volume's name.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Those disks that a running guest has.
pub(crate) struct Opened {
    /// For each of those wanted, its reader, if the guest has it.
    pub(crate) disks: Vec<Option<Arc<dyn DiskReader>>>,
    pub(crate) consistency: Consistency,
}

/// What tells a guest from others: its monitor.
fn key(socket: &Path) -> String {
    socket.to_string_lossy().into_owned()
}

/// Opens those disks that the guest of `server` has, if it runs.
///
/// Errors: `Conflict` it is being backed up, or its NBD server is in use; `Exhausted` no room for
/// scratch files in `folder`; `Invalid` its QEMU could end by it, or has an image beneath another; `Transient` its QEMU does not answer.
pub(crate) fn open(
    guests: &Arc<Guests>,
    folder: &Path,
    server: &ServerConfig,
    (wanted, level): (&[Wanted], Level),
) -> Result<Option<Opened>> {
    let Some(socket) = &server.qmp else {
        return Ok(None);
    };
    let failed = |error: FleeceError| guest_error(server, error);
    let Some(mut qmp) = Qmp::connect(socket).map_err(|error| failed(error.into()))? else {
        return Ok(None);
    };
    let turn = guests.take(key(socket)).ok_or_else(|| Error::GuestBusy {
        server: server.name.clone(),
    })?;
    if is_fragile(&mut qmp).map_err(|error| failed(error.into()))? {
        let server = server.name.clone();
        return Err(Error::FragileQemu { server });
    }
    remove_leftovers(&mut qmp, server).map_err(|error| failed(error.into()))?;
    let images = images(&mut qmp).map_err(|error| failed(error.into()))?;
    let disks = find_disks(images, folder, server, wanted)?;
    if disks.iter().all(Option::is_none) {
        return Ok(None);
    }
    let session = Arc::new(Session {
        server: server.name.clone(),
        socket: socket.clone(),
        serves: AtomicBool::new(false),
        talking: Mutex::new(()),
        _turn: turn,
    });
    let attempt = Attempt {
        folder,
        server,
        session: &session,
    };
    let names: Vec<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    let (disks, consistency) = attempt.run(qmp, (&names, disks), level).map_err(failed)?;
    Ok(Some(Opened { disks, consistency }))
}

/// From this version on, QEMU ends connections to its NBD server on its main thread alone. An older one
/// may end with an assertion (`nbd_blockdev_client_closed`) when a client leaves an export
/// of a disk that has an I/O thread.
const QEMU_WITH_NBD_IN_THREADS: u32 = 9;

fn is_fragile(qmp: &mut Qmp) -> std::result::Result<bool, QmpError> {
    if qmp.major() >= QEMU_WITH_NBD_IN_THREADS {
        return Ok(false);
    }
    let threads: Vec<serde_json::Value> = qmp.ask("query-iothreads", &serde_json::json!({}))?;
    Ok(!threads.is_empty())
}

/// Whether the guest of `server` runs and has the image at `path`.
///
/// Errors: `Transient` its QEMU does not answer.
pub(crate) fn has_disk(server: &ServerConfig, path: &Path) -> Result<bool> {
    let Some(socket) = &server.qmp else {
        return Ok(false);
    };
    let asked =
        Qmp::connect(socket).and_then(|qmp| qmp.map(|mut qmp| images(&mut qmp)).transpose());
    let found = asked.map_err(|error| guest_error(server, error.into()))?;
    Ok(found.is_some_and(|images| images.has_open(path)))
}

/// Takes out of the guest of `server` what a Cairn that was killed left there.
pub(crate) fn clean_up(guests: &Arc<Guests>, server: &ServerConfig) -> Result<()> {
    let Some(socket) = &server.qmp else {
        return Ok(());
    };
    let Some(_turn) = guests.take(key(socket)) else {
        return Ok(());
    };
    let cleaned = Qmp::connect(socket).and_then(|qmp| {
        let left = |mut qmp| remove_leftovers(&mut qmp, server);
        qmp.map_or(Ok(()), left)
    });
    cleaned.map_err(|error| guest_error(server, error.into()))
}

fn remove_leftovers(qmp: &mut Qmp, server: &ServerConfig) -> std::result::Result<(), QmpError> {
    if !fleece::clean_up(qmp, None)? {
        return Ok(());
    }
    tracing::warn!(
        server = server.name,
        "What a backup that was cut off left in a guest's QEMU is removed."
    );
    fleece::stop_server(qmp)?;
    if let Some(agent) = &server.guest_agent
        && let Err(why) = agent::thaw_after_crash(agent)
    {
        tracing::warn!(
            server = server.name,
            why,
            "Whether a guest is frozen is not known."
        );
    }
    Ok(())
}

/// Where in QEMU each of the wanted disks is.
///
/// Errors: `Invalid` the guest writes to another image above one of them.
fn find_disks(
    mut images: Images,
    folder: &Path,
    server: &ServerConfig,
    wanted: &[Wanted],
) -> Result<Vec<Option<Attached>>> {
    let configured: Vec<PathBuf> = server.disks.iter().map(|disk| folder.join(disk)).collect();
    for disk in &images.disks {
        if !configured.iter().any(|path| disk.is_at(path)) {
            let (server, file) = (&server.name, &disk.file);
            tracing::warn!(
                server,
                file,
                "A guest has a disk that is not configured: it is not protected."
            );
        }
    }
    if let Some(beneath) = wanted.iter().find(|one| images.is_beneath(&one.path)) {
        return Err(Error::Beneath {
            volume: beneath.name.clone(),
            server: server.name.clone(),
        });
    }
    let find = |wanted: &Wanted| {
        let mut disks = images.disks.iter();
        let at = disks.position(|disk| disk.is_at(&wanted.path))?;
        Some(images.disks.swap_remove(at))
    };
    Ok(wanted.iter().map(find).collect())
}

/// One attempt to make the disks of a guest readable.
struct Attempt<'a> {
    folder: &'a Path,
    server: &'a ServerConfig,
    session: &'a Arc<Session>,
}

type Disks = Vec<Option<Arc<dyn DiskReader>>>;

impl Attempt<'_> {
    fn run(
        &self,
        mut qmp: Qmp,
        (names, disks): (&[&str], Vec<Option<Attached>>),
        level: Level,
    ) -> std::result::Result<(Disks, Consistency), FleeceError> {
        let disks = disks.into_iter().enumerate();
        let disks = disks.filter_map(|(index, disk)| Some((index, disk?)));
        let mut parts: Vec<Part> = Vec::with_capacity(names.len());
        for (index, disk) in disks {
            let bitmaps = Bitmaps::add(&mut qmp, &disk);
            parts.push(Part {
                index,
                disk,
                bitmaps,
            });
        }
        let done = self.export(&mut qmp, &parts, level).and_then(|exported| {
            let connected = self.connect(names, &mut parts, &exported.socket);
            Ok((connected?, exported.consistency))
        });
        drop(qmp);
        done.inspect_err(|_| {
            // Those that were connected to have settled theirs.
            for part in &parts {
                self.session
                    .end_disk(part.index, part.bitmaps.as_ref().ok(), false);
            }
        })
    }

    fn export(
        &self,
        qmp: &mut Qmp,
        parts: &[Part],
        level: Level,
    ) -> std::result::Result<Exported, FleeceError> {
        let socket = tempfile::Builder::new().prefix("cairn-nbd-").tempdir()?;
        let listener = UnixListener::bind(socket.path().join(SOCKET))?;
        // The marks come first: by them it is known whose server this is after a crash.
        fleece::mark(qmp, parts)?;
        fleece::start_server(qmp, listener)?;
        self.session.serves.store(true, Ordering::Relaxed);
        fleece::prepare(qmp, self.folder, parts)?;
        let rest = AtRest::bring(level, || self.guest_agent());
        qmp.set_deadline(rest.as_ref().ok().map(AtRest::until));
        let held = fleece::hold(qmp, self.folder, parts);
        qmp.set_deadline(None);
        let thawed = rest.and_then(|rest| rest.thaw().map_err(Some));
        held?;
        fleece::export(qmp, parts)?;
        let consistency = match thawed {
            Ok(()) => Consistency::Application,
            Err(why) => Consistency::Crash { why },
        };
        Ok(Exported {
            socket,
            consistency,
        })
    }

    fn guest_agent(&self) -> std::result::Result<Box<dyn Freezer>, NotFrozen> {
        let none = || NotFrozen::NoAgent("no agent in it is configured".to_owned());
        let agent = self.server.guest_agent.as_ref().ok_or_else(none)?;
        Ok(Box::new(Agent::connect(agent).map_err(NotFrozen::Surely)?))
    }

    fn connect(
        &self,
        names: &[&str],
        parts: &mut [Part],
        socket: &tempfile::TempDir,
    ) -> std::result::Result<Disks, FleeceError> {
        let socket = socket.path().join(SOCKET);
        let mut disks: Disks = names.iter().map(|_| None).collect();
        for part in parts {
            let export = Kind::Export.name(part.index);
            let pool = disk::connect(&socket, &export).map_err(std::io::Error::from)?;
            if let Ok(bitmaps) = &mut part.bitmaps {
                bitmaps.set_changes(part.index, |copy| disk::read_bitmap(&socket, &export, copy));
            }
            let none = NoChangeMap("its bitmaps were read already".to_owned());
            let held = HeldByFilter {
                index: part.index,
                bitmaps: std::mem::replace(&mut part.bitmaps, Err(none)),
                session: Arc::clone(self.session),
            };
            let disk = LiveDisk::new(names[part.index], pool, held);
            disks[part.index] = Some(Arc::new(disk));
        }
        Ok(disks)
    }
}

/// The name of the NBD socket in its own folder.
const SOCKET: &str = "socket";

/// What came of having QEMU export the disks.
struct Exported {
    /// The folder of the NBD socket. It can go once all connections are made.
    socket: tempfile::TempDir,
    consistency: Consistency,
}

fn guest_error(server: &ServerConfig, error: FleeceError) -> Error {
    let server = server.name.clone();
    let source = match error {
        FleeceError::ServerTaken => return Error::NbdServerTaken { server },
        FleeceError::Qmp(error) => error.into(),
        FleeceError::Io(error) => error,
        error @ FleeceError::Seam(_) => std::io::Error::other(error),
    };
    Error::Guest { server, source }
}

/// The moment of a disk, kept by a filter above it.
#[derive(Debug)]
struct HeldByFilter {
    index: usize,
    bitmaps: std::result::Result<Bitmaps, NoChangeMap>,
    session: Arc<Session>,
}

impl Held for HeldByFilter {
    const HINT: &'static str = "QEMU gives a disk's state up when its scratch file is full or slow";

    fn point(&self) -> Option<Point> {
        self.bitmaps.as_ref().ok().map(Bitmaps::point)
    }

    fn changes_since(
        &self,
        earlier: &Point,
        size_bytes: u64,
        extent_at: impl Fn(u64) -> std::io::Result<Extent>,
    ) -> std::result::Result<Vec<Range<u64>>, NoChangeMap> {
        let bitmaps = self.bitmaps.as_ref().map_err(Clone::clone)?;
        bitmaps.changes_since(earlier, size_bytes, extent_at)
    }

    /// What QEMU answers is of the moment, or an error.
    fn check(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn end(&self, kept: bool) {
        self.session
            .end_disk(self.index, self.bitmaps.as_ref().ok(), kept);
    }
}

/// A guest whose disks are being read. It is let go when the last of them is.
#[derive(Debug)]
struct Session {
    server: String,
    socket: PathBuf,
    /// Whether QEMU's NBD server was started for it.
    serves: AtomicBool,
    /// QEMU listens to one at a time.
    talking: Mutex<()>,
    _turn: Turn,
}

impl Session {
    /// Takes a disk out of QEMU again, and lets its new bitmap stay or go.
    fn end_disk(&self, index: usize, bitmaps: Option<&Bitmaps>, kept: bool) {
        self.talk(|qmp| {
            fleece::clean_up(qmp, Some(index))?;
            bitmaps.map_or(Ok(()), |bitmaps| bitmaps.settle(qmp, kept))
        });
    }

    fn talk(&self, work: impl FnOnce(&mut Qmp) -> std::result::Result<(), QmpError>) {
        let _alone = self.talking.lock().expect("nobody panics with it");
        // If nobody listens any more, nothing is left in there.
        let talked =
            Qmp::connect(&self.socket).and_then(|qmp| qmp.map_or(Ok(()), |mut qmp| work(&mut qmp)));
        if let Err(error) = talked {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(
                error,
                server = self.server,
                "What a backup put into a guest's QEMU stays until the next one."
            );
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.talk(|qmp| {
            fleece::clean_up(qmp, None)?;
            match self.serves.load(Ordering::Relaxed) {
                true => fleece::stop_server(qmp),
                false => Ok(()),
            }
        });
    }
}
