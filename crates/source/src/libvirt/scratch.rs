//! The scratch files of libvirt's backup jobs: where they are, what they are
//! called, and how much room they leave.
//!
//! libvirt makes them and removes them. When there is no room for one, the guest's write waits or fails:
//! so a guard watches the room, and gives the backup up before.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cairn_types::disk::Because;

use super::domain::{Disk, Domain};
use super::socket::SocketFolder;
use super::virsh::Virsh;
use crate::change_map::bitmap::is_ours;
use crate::guest::scratch::no_room;

/// Bytes of room for each disk that are worth beginning with.
const MIN_BYTES: u64 = 16 << 20;
/// How often the room is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Of the room that there was, this part is left to the guests,
const RESERVED_PART: u64 = 4;
/// and this much at most: more than a fast guest overwrites between two looks.
const MAX_RESERVED_BYTES: u64 = 1 << 30;
/// How the names of what is kept there begin.
const PREFIX: &str = ".cairn-";
/// How the names of folders for sockets go on.
const SOCKETS: &str = "nbd";
/// How the name of the note ends that says that there is a job.
const NOTE: &str = "note";

/// Where the scratch files of a domain are: beside its images, or all in one folder.
#[derive(Debug, Clone)]
pub(super) struct Scratch {
    pub(super) configured: Option<PathBuf>,
    /// For disks that lie in no folder of images.
    pub(super) fallback: Option<PathBuf>,
}

impl Scratch {
    pub(super) fn of(domain: &Domain, configured: Option<&Path>) -> Self {
        let mut folders = domain.disks.iter().filter_map(folder_of);
        Self {
            configured: configured.map(Path::to_owned),
            fallback: folders.next(),
        }
    }

    fn folder(&self, disk: &Disk) -> Option<PathBuf> {
        let configured = self.configured.clone();
        configured
            .or_else(|| folder_of(disk))
            .or_else(|| self.fallback.clone())
    }

    /// The scratch file of a disk.
    pub(super) fn file(&self, domain: &str, job: &str, disk: &Disk) -> PathBuf {
        let folder = self.folder(disk).expect("it was checked");
        folder.join(format!("{PREFIX}{domain}.{job}.{}", disk.target))
    }

    /// Checks that there are folders and room in them. Returns them, with how much there is.
    ///
    /// Errors: `StorageFull` too little; `InvalidInput` nobody has said where they are to be.
    pub(super) fn check(&self, disks: &[&Disk]) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut folders = BTreeSet::new();
        for disk in disks {
            let folder = self.folder(disk).ok_or_else(|| {
                let why = "its disks are block devices: `scratch` must name a folder";
                Because::error(io::ErrorKind::InvalidInput, why)
            })?;
            folders.insert(folder);
        }
        let free = folders.into_iter().map(|folder| {
            let free = free_bytes(&folder)?;
            Ok((folder, free))
        });
        let free = free.collect::<io::Result<Vec<_>>>()?;
        // Folders may share one file system.
        let needed = MIN_BYTES * disks.len() as u64;
        match free.iter().find(|(_, free)| *free < needed) {
            None => Ok(free),
            Some((_, free)) => Err(no_room("a folder for them", *free, needed)),
        }
    }

    /// Notes beside the images that there is a job, so that it is found after a crash. Where
    /// Cairn may not write, the job itself has to tell.
    pub(super) fn note(&self, domain: &str, job: &str) {
        if let Some(folder) = self.configured.as_ref().or(self.fallback.as_ref()) {
            let path = folder.join(format!("{PREFIX}{domain}.{job}.{NOTE}"));
            if let Err(error) = fs::File::create(path) {
                tracing::debug!(%error, domain, "a backup job is noted nowhere");
            }
        }
    }

    /// A folder for the socket of a domain's job.
    pub(super) fn socket_folder(&self, domain: &str) -> io::Result<SocketFolder> {
        let folder = self.configured.as_ref().or(self.fallback.as_ref());
        let prefix = format!("{PREFIX}{domain}.{SOCKETS}");
        SocketFolder::create(folder.map(PathBuf::as_path), &prefix)
    }

    /// Removes the files of a domain's jobs, which are over. Returns the names of the jobs.
    pub(super) fn remove(&self, domain: &Domain) -> BTreeSet<String> {
        let mut jobs = BTreeSet::new();
        let folders = domain.disks.iter().filter_map(|disk| self.folder(disk));
        let folders: BTreeSet<_> = folders.chain(self.fallback.clone()).collect();
        let prefix = format!("{PREFIX}{}.", domain.uuid);
        for folder in folders {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let Some(rest) = name.strip_prefix(&prefix) else {
                    continue;
                };
                if rest.starts_with(SOCKETS) {
                    // It is empty, or holds the socket of a job that is over.
                    let _ = fs::remove_dir_all(entry.path());
                }
                let Some((job, _)) = rest.split_once('.') else {
                    continue;
                };
                if !is_ours(job) {
                    continue;
                }
                jobs.insert(job.to_owned());
                if let Err(error) = fs::remove_file(entry.path()) {
                    tracing::warn!(%error, domain = domain.name, "a scratch file stays");
                }
            }
        }
        jobs
    }
}

/// The name of the job in the name of a scratch file of this domain.
pub(super) fn job_of(path: &str, domain: &str) -> Option<String> {
    let (_, name) = path.rsplit_once('/')?;
    let name = name
        .strip_prefix(PREFIX)?
        .strip_prefix(domain)?
        .strip_prefix('.')?;
    let (job, _) = name.split_once('.')?;
    is_ours(job).then(|| job.to_owned())
}

/// The folder of an image; nothing of a device, which lies in none.
fn folder_of(disk: &Disk) -> Option<PathBuf> {
    let is_device = fs::metadata(&disk.path).is_ok_and(|found| found.file_type().is_block_device());
    match is_device {
        true => None,
        false => disk.path.parent().map(Path::to_owned),
    }
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Watches the room for scratch files until it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Ends the job of a domain when these folders have less room than is reserved.
    pub(super) fn start(
        virsh: &Virsh,
        domain: &str,
        folders: Vec<(PathBuf, u64)>,
    ) -> io::Result<Self> {
        let reserved = folders.into_iter().map(|(folder, free)| {
            let reserved = (free / RESERVED_PART).min(MAX_RESERVED_BYTES);
            (folder, reserved)
        });
        let (virsh, domain) = (virsh.clone(), domain.to_owned());
        Self::watch(reserved.collect(), move || {
            tracing::warn!(
                domain,
                "A backup is given up: there is no room for what its guest overwrites."
            );
            if let Err(error) = virsh.tell(&["domjobabort", &domain]) {
                tracing::error!(%error, domain, "A guest may run out of room by a backup.");
            }
        })
    }

    fn watch(
        folders: Vec<(PathBuf, u64)>,
        give_up: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let is_short = move || {
            let mut folders = folders.iter();
            folders.any(|(folder, reserved)| free_bytes(folder).is_ok_and(|free| free < *reserved))
        };
        let watch = move || {
            let (stop, changed) = &*stopped;
            let mut stop = stop.lock().expect("nobody panics with it");
            while !*stop {
                if is_short() {
                    drop(stop);
                    return give_up();
                }
                let waited = changed.wait_timeout(stop, LOOK_AGAIN);
                stop = waited.expect("nobody panics with it").0;
            }
        };
        let thread = std::thread::Builder::new().name("scratch guard".to_owned());
        Ok(Self {
            stop,
            thread: Some(thread.spawn(watch)?),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.stop.0.lock().expect("nobody panics with it") = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to do either.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_scratch_file_tells_its_job() {
        let domain = "6e644776-b143-4783-b9ee-f377dc61cee5";
        let path = format!("/images/.cairn-{domain}.cairn-0000000001-ab.vda");
        assert_eq!(
            job_of(&path, domain).as_deref(),
            Some("cairn-0000000001-ab")
        );
        assert_eq!(job_of(&path, "6e644776-b143-4783-b9ee-f377dc61cee6"), None);
        assert_eq!(job_of("/images/scratch.vda", domain), None);
    }

    #[test]
    fn a_backup_is_given_up_before_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let (told, hears) = mpsc::channel();
        let folders = vec![(folder.path().to_owned(), u64::MAX)];
        let guard = Guard::watch(folders, move || told.send(()).unwrap()).unwrap();
        hears.recv().unwrap();
        drop(guard);
        let (told, hears) = mpsc::channel::<()>();
        let folders = vec![(folder.path().to_owned(), 0)];
        drop(Guard::watch(folders, move || told.send(()).unwrap()).unwrap());
        assert!(hears.recv().is_err(), "there was room");
    }
}
