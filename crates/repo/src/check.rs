//! The check that needs no key: whether every object ends in the hash of its bytes.
//!
//! Objects are read from end to end, by all cores, as fast as the store gives
//! them. That an object is whole says nothing of one that is gone, or is in
//! another's place: that is for verification, which has the keys.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::{Kind, Progress};
use object_store::ObjectStore;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::frames::or_damaged;
use crate::read::fetch_ahead;
use crate::store::{Found, Objects, config_path};
use crate::whole::{self, HASH_BYTES};
use crate::workers::{self, Stop, StopOnDrop, lock};

/// Bytes that are read of an object at a time.
const READ_BYTES: u64 = 4 << 20;

/// What a check without a key found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Paths of those that are not as they were written, in order.
    pub damaged: Vec<String>,
}

/// Checks every object of a repository, without its key. What is removed
/// meanwhile is left out. Writes nothing. Progress counts bytes.
///
/// Errors: `NotFound` there is no repository; the store's; `Cancelled`.
pub async fn check_whole(
    store: Arc<dyn ObjectStore>,
    progress: Arc<Progress>,
) -> Result<CheckReport> {
    let objects = Objects::new(store).for_work(&progress);
    let found = objects.list_all().await?;
    if !found.iter().any(|found| found.path == config_path()) {
        return Err(Error::NoRepository);
    }
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let report = WholeCheck::new(objects, found, stop).run().await?;
    Ok(report)
}

/// The check of these objects, on all cores.
pub(crate) struct WholeCheck {
    objects: Objects,
    found: Vec<Found>,
    stop: Arc<Stop>,
    next: AtomicUsize,
    /// Objects and bytes that were read.
    read: (AtomicU64, AtomicU64),
    damaged: Mutex<Vec<String>>,
}

impl WholeCheck {
    pub fn new(objects: Objects, found: Vec<Found>, stop: Arc<Stop>) -> Self {
        Self {
            objects,
            found,
            stop,
            next: AtomicUsize::new(0),
            read: Default::default(),
            damaged: Mutex::default(),
        }
    }

    pub async fn run(self) -> Result<CheckReport> {
        let bytes = self.found.iter().map(|found| found.size_bytes).sum();
        self.stop.progress().add_total(bytes);
        let (stop, count) = (self.stop.clone(), workers::count(self.found.len() as u64));
        let (this, handle) = (Arc::new(self), Handle::current());
        let worker = this.clone();
        workers::run(count, &stop, move || worker.work(&handle)).await?;
        let mut damaged = lock(&this.damaged);
        let mut damaged = std::mem::take(&mut *damaged);
        damaged.sort();
        Ok(CheckReport {
            objects: this.read.0.load(Ordering::Relaxed),
            read_bytes: this.read.1.load(Ordering::Relaxed),
            damaged,
        })
    }

    fn work(&self, handle: &Handle) -> Result<()> {
        let next = || self.found.get(self.next.fetch_add(1, Ordering::Relaxed));
        let mut pieces = std::iter::from_fn(next).flat_map(pieces);
        let mut object = Reading::default();
        fetch_ahead(
            &self.objects,
            handle,
            || pieces.next(),
            |(found, range)| (found.path.clone(), range.clone()),
            |(found, range), bytes| {
                self.stop.check()?;
                self.stop.progress().advance(range.end - range.start);
                object.add(or_damaged(bytes)?.as_deref());
                if range.end < found.size_bytes {
                    return Ok(());
                }
                self.read.0.fetch_add(1, Ordering::Relaxed);
                self.read.1.fetch_add(found.size_bytes, Ordering::Relaxed);
                if !std::mem::take(&mut object).is_whole() && !self.second_look(handle, found)? {
                    let mut damaged = lock(&self.damaged);
                    damaged.push(found.path.to_string());
                }
                Ok(())
            },
        )
    }

    /// Whether an object that did not seem whole is so after all: it may have been
    /// replaced or removed since it was listed.
    fn second_look(&self, handle: &Handle, found: &Found) -> Result<bool> {
        match handle.block_on(self.objects.get(&found.path)) {
            Ok(object) => Ok(object.is_none_or(|object| whole::check(&object).is_ok())),
            Err(error) if error.kind() == Kind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// An object in reads of a few MiB; one read at least.
fn pieces(found: &Found) -> impl Iterator<Item = (&Found, Range<u64>)> {
    let size = found.size_bytes.max(1);
    let starts = (0..size).step_by(READ_BYTES as usize);
    starts.map(move |start| (found, start..size.min(start + READ_BYTES)))
}

/// An object that is being read from end to end.
#[derive(Default)]
pub(crate) struct Reading {
    /// Of all bytes but the last few, which may be the hash.
    hasher: blake3::Hasher,
    last: Vec<u8>,
    /// A piece could not be had.
    has_gap: bool,
}

impl Reading {
    /// Adds the next piece; nothing where it cannot be had.
    pub fn add(&mut self, piece: Option<&[u8]>) {
        let Some(piece) = piece else {
            self.has_gap = true;
            return;
        };
        let kept = HASH_BYTES.saturating_sub(piece.len()).min(self.last.len());
        self.hasher.update(&self.last[..self.last.len() - kept]);
        self.last.drain(..self.last.len() - kept);
        let body = piece.len().saturating_sub(HASH_BYTES);
        self.hasher.update(&piece[..body]);
        self.last.extend_from_slice(&piece[body..]);
    }

    /// Whether the object ends in the hash of what is before it.
    pub fn is_whole(&self) -> bool {
        !self.has_gap && self.hasher.finalize() == *self.last.as_slice()
    }
}
