//! A backup job at libvirt, from its beginning until nothing of it is left.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use cairn_types::disk::Because;

use super::backup::Agent;
use super::checkpoint::{Checkpoint, Checkpoints, Image};
use super::domain::{Domain, parse};
use super::scratch::{Guard, Scratch, job_of};
use super::virsh::{ANSWER_LIMIT, CHANGE_LIMIT, Result, Virsh, VirshError};
use crate::error::told;
use crate::guest::Turn;
use crate::guest::freeze::Freezer;

/// What `virsh domjobinfo` says of a domain without a job.
const NO_JOB: &str = "None";

/// A job whose disks are being read. It ends when the last of them is let go.
#[derive(Debug)]
pub(super) struct Job {
    virsh: Virsh,
    domain: Domain,
    uuid: String,
    scratch: Scratch,
    /// That of the checkpoint too.
    pub(super) name: String,
    state: Mutex<State>,
    _turn: Turn,
}

#[derive(Debug, Default)]
struct State {
    /// Whether libvirt may have begun it.
    begun: bool,
    /// The disks that have a bitmap of the checkpoint.
    with_bitmap: BTreeSet<String>,
    /// How many of them are acknowledged.
    kept: usize,
    guard: Option<Guard>,
}

impl Job {
    pub(super) fn new(
        virsh: &Virsh,
        domain: &Domain,
        scratch: Scratch,
        name: String,
        turn: Turn,
    ) -> Arc<Self> {
        Arc::new(Self {
            virsh: virsh.clone(),
            uuid: domain.uuid.to_string(),
            domain: domain.clone(),
            scratch,
            name,
            state: Mutex::default(),
            _turn: turn,
        })
    }

    /// From now on there may be something to be removed.
    pub(super) fn set_begun(&self) {
        self.scratch.note(&self.uuid, &self.name);
        self.lock().begun = true;
    }

    /// Names the disks that have a bitmap of the checkpoint.
    pub(super) fn set_disks(&self, with_bitmap: BTreeSet<String>) {
        self.lock().with_bitmap = with_bitmap;
    }

    pub(super) fn set_guard(&self, guard: Guard) {
        self.lock().guard = Some(guard);
    }

    /// A backup of one of the disks with a bitmap is acknowledged.
    pub(super) fn keep_one(&self) {
        self.lock().kept += 1;
    }

    /// An error if the job has ended: QEMU may then have answered with what the guest wrote later.
    ///
    /// libvirt hears of it from QEMU, and works that off by and by. So it is made to ask QEMU for something else
    /// first: what QEMU told it before has come by then, and the question waits for who works it off.
    pub(super) fn check(&self) -> io::Result<()> {
        let asked = self.virsh.ask(&["domstats", "--block", &self.uuid]);
        let running = asked.and_then(|_| running(&self.virsh, &self.uuid));
        let running = running.map_err(|error| {
            let error = io::Error::from(error);
            Because::error(error.kind(), told(&error))
        });
        match running? {
            Running::Ours(name) if name == self.name => Ok(()),
            _ => Err(Because::error(
                io::ErrorKind::ConnectionAborted,
                "libvirt's backup job has ended",
            )),
        }
    }

    fn finish(&self, state: &State) -> Result<()> {
        if let Running::Ours(name) = running(&self.virsh, &self.uuid)?
            && name == self.name
        {
            abort(&self.virsh, &self.uuid)?;
        }
        self.scratch.remove(&self.domain);
        let checkpoints = Checkpoints {
            virsh: &self.virsh,
            domain: &self.uuid,
        };
        let all = checkpoints.list()?;
        let kept = !state.with_bitmap.is_empty() && state.kept == state.with_bitmap.len();
        let is_over = |checkpoint: &&Checkpoint| match checkpoint.name == self.name {
            true => !kept,
            // One that a disk needs which was not in this backup stays.
            false => kept && self.covers(checkpoint, state),
        };
        let images = images_of(&self.domain);
        let mut over = all.iter().filter(is_over);
        over.try_for_each(|checkpoint| checkpoints.remove(checkpoint, &images))
    }

    /// Whether nothing counts from a checkpoint any more once this job's is kept.
    fn covers(&self, checkpoint: &Checkpoint, state: &State) -> bool {
        let has = |target: &&String| self.domain.disks.iter().any(|disk| disk.target == **target);
        let mut needed = checkpoint.disks.keys().filter(has);
        needed.all(|target| state.with_bitmap.contains(target))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *self.lock());
        if !state.begun {
            return;
        }
        if let Err(error) = self.finish(&state) {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(
                error,
                server = self.domain.name,
                "What a backup put into a domain stays until the next one."
            );
        }
    }
}

/// The images of a domain that can have bitmaps.
pub(super) fn images_of(domain: &Domain) -> Vec<Image> {
    let images = domain.disks.iter().map(Image::of);
    images.filter_map(std::result::Result::ok).collect()
}

/// What is at work on a domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Running {
    Nothing,
    /// A job of Cairn's, with its name.
    Ours(String),
    Others,
}

/// Asks what is at work on a domain. A domain that is off has nothing.
pub(super) fn running(virsh: &Virsh, domain: &str) -> Result<Running> {
    match virsh.ask(&["backup-dumpxml", domain]) {
        Ok(xml) => {
            let document = parse(&xml)?;
            let scratch = document.descendants();
            let mut scratch = scratch.filter(|node| node.has_tag_name("scratch"));
            let ours = scratch.find_map(|file| job_of(file.attribute("file")?, domain));
            return Ok(ours.map_or(Running::Others, Running::Ours));
        }
        Err(error) if error.refusal().is_some() => {}
        Err(error) => return Err(error),
    }
    let said = match virsh.ask(&["domjobinfo", domain]) {
        // It is off.
        Err(error) if error.refusal().is_some() => return Ok(Running::Nothing),
        said => said?,
    };
    let kind = said.lines().find_map(|line| line.strip_prefix("Job type:"));
    match kind.map(str::trim) {
        None | Some(NO_JOB | "") => Ok(Running::Nothing),
        Some(_) => Ok(Running::Others),
    }
}

/// Ends a backup job, and waits until it has ended.
pub(super) fn abort(virsh: &Virsh, domain: &str) -> Result<()> {
    match virsh.tell(&["domjobabort", domain]) {
        // It ended meanwhile.
        Err(error) if error.refusal().is_some() => {}
        aborted => drop(aborted?),
    }
    let until = Instant::now() + CHANGE_LIMIT;
    while let Running::Ours(_) = running(virsh, domain)? {
        if Instant::now() > until {
            return Err(VirshError::Silent);
        }
    }
    Ok(())
}

/// Removes what a Cairn that was killed left at a domain that nobody backs up. Returns what is
/// at work on it otherwise.
pub(super) fn remove_leftovers(
    virsh: &Virsh,
    domain: &Domain,
    scratch: &Scratch,
) -> Result<Running> {
    let uuid = domain.uuid.to_string();
    let running = running(virsh, &uuid)?;
    let mut names = BTreeSet::new();
    if let Running::Ours(name) = &running {
        abort(virsh, &uuid)?;
        names.insert(name.clone());
    }
    names.extend(scratch.remove(domain));
    if names.is_empty() {
        return Ok(running);
    }
    tracing::warn!(
        server = domain.name,
        "What a backup that was cut off left at libvirt is removed."
    );
    if domain.is_active {
        let mut agent = Agent {
            virsh: virsh.clone(),
            domain: uuid.clone(),
        };
        if let Err(why) = agent.thaw(Instant::now() + ANSWER_LIMIT) {
            // Most have no agent.
            tracing::debug!(why, server = domain.name, "a guest was not told to thaw");
        }
    }
    let checkpoints = Checkpoints {
        virsh,
        domain: &uuid,
    };
    let images = images_of(domain);
    for checkpoint in checkpoints.list()? {
        if names.contains(&checkpoint.name) {
            checkpoints.remove(&checkpoint, &images)?;
        }
    }
    match running {
        Running::Ours(_) => Ok(Running::Nothing),
        others => Ok(others),
    }
}
