//! Opening disks of a domain that runs, all as they are at one moment, by
//! libvirt's own backup job in pull mode.
//!
//! From the moment on QEMU copies what the guest is about to overwrite into a scratch file for each
//! disk, and serves the disks as they were at a socket. The same moment is that of a new
//! checkpoint, from which a later backup counts.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use cairn_types::disk::{DiskReader, Extent, NoChangeMap, Point};

use super::checkpoint::{self, Checkpoint, Checkpoints, Image, in_file};
use super::domain::{Disk, Domain};
use super::job::Job;
use super::scratch::{Guard, Scratch};
use super::socket::SocketFolder;
use super::virsh::{CHANGE_LIMIT, Result, Virsh};
use super::xml::element;
use crate::change_map::bitmap::{GONE, UNRELIABLE, name_after, name_in, point_of};
use crate::change_map::tail::{self, Shape};
use crate::guest::disk::{self, Held, LiveDisk};
use crate::guest::freeze::{AtRest, Freezer, NotFrozen, Why};
use crate::guest::{Consistency, Level, Turn};

/// What the bitmap of an export is called.
const BITMAP: &str = "cairn-changes";

/// What libvirt says when a domain has no agent.
const NO_AGENT: &str = "agent is not configured";
/// What it says when the agent was not told anything.
const NOT_TOLD: [&str; 2] = ["agent is not connected", "domain is not running"];

/// A domain that is to be backed up, and how it is reached.
pub(super) struct Attempt<'a> {
    pub(super) virsh: &'a Virsh,
    pub(super) domain: &'a Domain,
    /// Its id as text.
    pub(super) uuid: &'a str,
    pub(super) scratch: Scratch,
}

/// The disks in the order in which they were asked for.
pub(super) type Disks = Vec<Arc<dyn DiskReader>>;

/// What a backup does with one disk.
#[derive(Debug)]
struct Part<'a> {
    disk: &'a Disk,
    bitmap: std::result::Result<Bitmap, NoChangeMap>,
}

/// The bitmap that a disk gets, and the one that it has.
#[derive(Debug, Clone)]
struct Bitmap {
    cluster_bytes: u64,
    /// The checkpoint whose bitmap says what has changed.
    since: Option<String>,
    /// Checkpoints whose bitmaps cannot be believed.
    lost: Vec<String>,
}

impl Attempt<'_> {
    /// Opens these disks.
    ///
    /// Errors: `ResourceBusy` libvirt, or QEMU, said no; `StorageFull` no room for scratch files.
    pub(super) fn run(
        self,
        disks: &[&Disk],
        level: Level,
        turn: Turn,
    ) -> io::Result<(Disks, Consistency)> {
        let looked: Vec<_> = disks.iter().map(|disk| Image::of(disk)).collect();
        let mut images = Vec::with_capacity(disks.len());
        let mut parts = Vec::with_capacity(disks.len());
        for (disk, looked) in disks.iter().zip(looked) {
            let cluster_bytes = looked.as_ref().map(|image| image.cluster_bytes);
            parts.push((disk, cluster_bytes.map_err(Clone::clone)));
            images.extend(looked.ok());
        }
        let checkpoints = Checkpoints {
            virsh: self.virsh,
            domain: self.uuid,
        };
        let known = checkpoints.put_in_order(&images)?;
        let in_files = images.iter().flat_map(|image| &image.bitmaps);
        let names = in_files.chain(known.iter().map(|checkpoint| &checkpoint.name));
        let name = name_after(names.map(String::as_str));
        let parts: Vec<Part> = parts
            .into_iter()
            .map(|(disk, cluster_bytes)| Part {
                disk,
                bitmap: cluster_bytes.map(|bytes| Bitmap::of(disk, bytes, &known)),
            })
            .collect();
        let free = self.scratch.check(disks)?;
        let job = Job::new(self.virsh, self.domain, self.scratch.clone(), name, turn);
        let socket = self.scratch.socket_folder(self.uuid)?;
        let (parts, consistency) = self.begin(&job, &socket, (parts, level))?;
        job.set_guard(Guard::start(self.virsh, self.uuid, free)?);
        Ok((self.connect(&job, &socket, parts)?, consistency))
    }

    /// Begins the job. If libvirt does not want a checkpoint, it begins without.
    fn begin<'p>(
        &self,
        job: &Arc<Job>,
        socket: &SocketFolder,
        (mut parts, level): (Vec<Part<'p>>, Level),
    ) -> io::Result<(Vec<Part<'p>>, Consistency)> {
        let socket = socket.socket();
        let place = (socket.to_string_lossy(), job.name.as_str());
        let with_bitmaps = Begin::describe(self, &place, &parts, true)?;
        let without = Begin::describe(self, &place, &parts, false)?;
        job.set_begun();
        let rest = AtRest::bring(level, || {
            Ok(Box::new(Agent {
                virsh: self.virsh.clone(),
                domain: self.uuid.to_owned(),
            }))
        });
        let limit = Instant::now() + CHANGE_LIMIT;
        let until = rest.as_ref().map_or(limit, AtRest::until);
        let mut begun = with_bitmaps.run(self, until);
        if let Err(error) = &begun
            && let Some(why) = error.refusal()
            && parts.iter().any(|part| part.bitmap.is_ok())
        {
            let why = NoChangeMap(format!("libvirt made no checkpoint: {why}"));
            for part in &mut parts {
                part.bitmap = Err(part.bitmap.as_ref().err().unwrap_or(&why).clone());
            }
            begun = without.run(self, until);
        }
        let thawed = rest.and_then(|rest| rest.thaw().map_err(Some));
        begun?;
        let with_bitmap = parts.iter().filter(|part| part.bitmap.is_ok());
        job.set_disks(with_bitmap.map(|part| part.disk.target.clone()).collect());
        let consistency = match thawed {
            Ok(()) => Consistency::Application,
            Err(why) => Consistency::Crash { why },
        };
        Ok((parts, consistency))
    }

    fn connect(
        &self,
        job: &Arc<Job>,
        socket: &SocketFolder,
        parts: Vec<Part<'_>>,
    ) -> io::Result<Disks> {
        let path = socket.socket();
        let mut disks: Disks = Vec::with_capacity(parts.len());
        for Part { disk, bitmap } in parts {
            let pool = disk::connect(&path, &disk.target)?;
            let changes = bitmap
                .as_ref()
                .ok()
                .and_then(|bitmap| bitmap.since.as_ref());
            let changes = changes.map(|_| disk::read_bitmap(&path, &disk.target, BITMAP));
            let held = HeldByJob {
                job: Arc::clone(job),
                bitmap,
                changes,
            };
            let name = self.domain.volume_name(disk);
            disks.push(Arc::new(LiveDisk::new(&name, pool, held)));
        }
        Ok(disks)
    }
}

impl Bitmap {
    fn of(disk: &Disk, cluster_bytes: u64, known: &[Checkpoint]) -> Self {
        let of_disk = known
            .iter()
            .filter(|one| one.disks.contains_key(&disk.target));
        let (good, lost): (Vec<_>, Vec<_>) =
            of_disk.partition(|one| one.is_reliable_of(&disk.target));
        Self {
            cluster_bytes,
            since: good.last().map(|checkpoint| checkpoint.name.clone()),
            lost: lost
                .into_iter()
                .map(|checkpoint| checkpoint.name.clone())
                .collect(),
        }
    }
}

/// The files by which `virsh` is told what to begin.
struct Begin {
    backup: tempfile::NamedTempFile,
    checkpoint: Option<tempfile::NamedTempFile>,
}

impl Begin {
    fn describe(
        attempt: &Attempt<'_>,
        (socket, name): &(Cow<'_, str>, &str),
        parts: &[Part<'_>],
        with_bitmaps: bool,
    ) -> Result<Self> {
        let disks: String = parts
            .iter()
            .map(|part| describe_disk(attempt, name, part, with_bitmaps))
            .collect();
        let server = element("server", &[("transport", "unix"), ("socket", socket)], "");
        let inside = [server, element("disks", &[], &disks)].concat();
        let backup = in_file(&element("domainbackup", &[("mode", "pull")], &inside))?;
        let gets_bitmap = |disk: &Disk| {
            let mut parts = parts.iter();
            parts.any(|part| part.disk.target == disk.target && part.bitmap.is_ok())
        };
        let all = attempt.domain.disks.iter();
        let all: Vec<_> = all
            .map(|disk| (disk.target.clone(), gets_bitmap(disk)))
            .collect();
        let checkpoint = match with_bitmaps && all.iter().any(|(_, gets)| *gets) {
            true => Some(in_file(&checkpoint::describe(name, all.into_iter()))?),
            false => None,
        };
        Ok(Self { backup, checkpoint })
    }

    fn run(&self, attempt: &Attempt<'_>, until: Instant) -> Result<()> {
        let backup = self.backup.path().to_string_lossy();
        let mut command = vec!["backup-begin", attempt.uuid, "--backupxml", &backup];
        let checkpoint = self.checkpoint.as_ref();
        let checkpoint = checkpoint.map(|file| file.path().to_string_lossy());
        if let Some(path) = &checkpoint {
            command.extend(["--checkpointxml", path]);
        }
        attempt.virsh.run(&command, until).map(drop)
    }
}

fn describe_disk(attempt: &Attempt<'_>, name: &str, part: &Part<'_>, with_bitmaps: bool) -> String {
    let target = part.disk.target.as_str();
    let mut attributes = vec![
        ("name", target),
        ("backup", "yes"),
        ("type", "file"),
        ("exportname", target),
    ];
    let since = part
        .bitmap
        .as_ref()
        .ok()
        .and_then(|bitmap| bitmap.since.as_deref());
    match since.filter(|_| with_bitmaps) {
        Some(since) => attributes.extend([
            ("backupmode", "incremental"),
            ("incremental", since),
            ("exportbitmap", BITMAP),
        ]),
        None => attributes.push(("backupmode", "full")),
    }
    let file = attempt.scratch.file(attempt.uuid, name, part.disk);
    let scratch = element("scratch", &[("file", &file.to_string_lossy())], "");
    element("disk", &attributes, &scratch)
}

/// The moment of a disk, kept by libvirt's job.
#[derive(Debug)]
struct HeldByJob {
    job: Arc<Job>,
    bitmap: std::result::Result<Bitmap, NoChangeMap>,
    /// What has changed since the checkpoint before, if there is one.
    changes: Option<std::result::Result<Vec<Range<u64>>, NoChangeMap>>,
}

impl Held for HeldByJob {
    const HINT: &'static str = "libvirt ends a backup when its guest ends, or when it is told to";

    fn point(&self) -> Option<Point> {
        self.bitmap.as_ref().ok().map(|_| point_of(&self.job.name))
    }

    fn changes_since(
        &self,
        earlier: &Point,
        size_bytes: u64,
        extent_at: impl Fn(u64) -> io::Result<Extent>,
    ) -> std::result::Result<Vec<Range<u64>>, NoChangeMap> {
        let bitmap = self.bitmap.as_ref().map_err(Clone::clone)?;
        let name = name_in(earlier)?;
        if bitmap.lost.iter().any(|lost| lost == name) {
            return Err(NoChangeMap(UNRELIABLE.to_owned()));
        }
        let (Some(since), Some(changes)) = (&bitmap.since, &self.changes) else {
            return Err(NoChangeMap(GONE.to_owned()));
        };
        if since != name {
            return Err(NoChangeMap(GONE.to_owned()));
        }
        let mut changes = changes.clone()?;
        let shape = Shape {
            size_bytes,
            cluster_bytes: bitmap.cluster_bytes,
        };
        let added = tail::add(&mut changes, shape, extent_at);
        added.map_err(|error| NoChangeMap(error.to_string()))?;
        Ok(changes)
    }

    fn check(&self) -> io::Result<()> {
        self.job.check()
    }

    fn end(&self, kept: bool) {
        if self.bitmap.is_ok() && kept {
            self.job.keep_one();
        }
    }
}

/// The agent in a guest, as libvirt reaches it.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) virsh: Virsh,
    pub(super) domain: String,
}

impl Freezer for Agent {
    fn freeze(&mut self, until: Instant) -> std::result::Result<u64, NotFrozen> {
        let frozen = self.run("domfsfreeze", until);
        frozen.map_err(|why| match why.as_str() {
            said if said.contains(NO_AGENT) => NotFrozen::NoAgent(why),
            said if NOT_TOLD.iter().any(|one| said.contains(one)) => NotFrozen::Surely(why),
            _ => NotFrozen::Perhaps(why),
        })
    }

    fn thaw(&mut self, until: Instant) -> std::result::Result<u64, Why> {
        self.run("domfsthaw", until)
    }
}

impl Agent {
    /// It says how many file systems there were: `Froze 2 filesystem(s)`.
    fn run(&self, command: &str, until: Instant) -> std::result::Result<u64, Why> {
        let said = self.virsh.run(&[command, &self.domain], until);
        let said = said.map_err(|error| error.to_string())?;
        let count = said.split_whitespace().find_map(|word| word.parse().ok());
        count.ok_or_else(|| "libvirt does not say how many file systems there were".to_owned())
    }
}
