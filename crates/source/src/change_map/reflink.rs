//! Reflinks of raw images on XFS and Btrfs. A backup reads one, so that nobody
//! who writes to the image meanwhile does it harm, and the one of the last
//! acknowledged backup stays: where both share an extent nothing has changed.
//!
//! They lie in a hidden folder of the source, named after volume and order. An
//! extent is not written in place while two files share it, and not used again
//! while one has it; so an equal place on the device means equal bytes.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_types::ResourceId;
use cairn_types::disk::{NoChangeMap, Point};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use crate::sys::{self, MappedExtent};

/// The folder of reflinks below that of the images.
pub(crate) const FOLDER: &str = ".cairn-points";
/// Reflinks of one image at most: that of the last acknowledged backup, and
/// what was left by backups that were killed.
const REFLINKS_MAX: usize = 4;
/// Extents of one image that are compared at most; 40 MiB of memory.
const EXTENTS_MAX: usize = 1 << 20;
/// Goes before the names in points, so that no other kind of point has the same.
const PREFIX: &str = "reflink:";
/// Source: `statfs(2)`.
const FILE_SYSTEMS: [u32; 2] = [0x5846_5342, 0x9123_683e];

/// A reflink of an image as it was when the reflink was made.
#[derive(Debug)]
pub(crate) struct Reflink {
    pub(crate) file: File,
    folder: PathBuf,
    volume: ResourceId,
    point: Point,
    /// Removes the reflink when it is dropped.
    path: Option<TempPath>,
    kept: AtomicBool,
}

impl Reflink {
    /// Makes a reflink of an image in the folder of reflinks below `folder`.
    ///
    /// Errors: why there is none.
    pub(crate) fn create(
        folder: &Path,
        volume: ResourceId,
        image: &File,
    ) -> Result<Self, NoChangeMap> {
        let system = rustix::fs::fstatfs(image).map_err(|errno| failed(errno.into()))?;
        let known = FILE_SYSTEMS.contains(&(system.f_type as u32));
        if !known || !image.metadata().map_err(failed)?.is_file() {
            let why = "its source keeps no change map, and is no file on XFS or Btrfs";
            return Err(NoChangeMap(why.to_owned()));
        }
        let folder = folder.join(FOLDER);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => Ok(()),
        }?;
        let mut all = reflinks_of(&folder, volume).map_err(failed)?;
        // The oldest is that of the last acknowledged backup, or was.
        while all.len() >= REFLINKS_MAX
            && let Some((_, path)) = all.pop()
        {
            fs::remove_file(path).map_err(failed)?;
        }
        let number = all.last().map_or(0, |(number, _)| number + 1);
        let made = tempfile::Builder::new()
            .prefix(&format!("{volume}.{number:010}."))
            .rand_bytes(16)
            .tempfile_in(&folder)
            .map_err(failed)?;
        rustix::fs::ioctl_ficlone(made.as_file(), image).map_err(|errno| failed(errno.into()))?;
        Self::durable(made, folder, volume)
    }

    fn durable(
        made: NamedTempFile,
        folder: PathBuf,
        volume: ResourceId,
    ) -> Result<Self, NoChangeMap> {
        made.as_file().sync_all().map_err(failed)?;
        let sync = File::open(&folder).and_then(|folder| folder.sync_all());
        sync.map_err(failed)?;
        let name = made.path().file_name().and_then(|name| name.to_str());
        let point = name.and_then(|name| Point::new(&format!("{PREFIX}{name}")));
        let point = point.expect("the name is short and of digits and letters");
        let (file, path) = made.into_parts();
        Ok(Self {
            file,
            folder,
            volume,
            point,
            path: Some(path),
            kept: AtomicBool::new(false),
        })
    }

    pub(crate) fn point(&self) -> &Point {
        &self.point
    }

    /// As [`DiskReader::changes_since`](cairn_types::disk::DiskReader::changes_since).
    pub(crate) fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let no = |why: &str| NoChangeMap(why.to_owned());
        let name = earlier.as_str().strip_prefix(PREFIX);
        let name = name.filter(|name| number_in(name, self.volume).is_some());
        let name = name.ok_or_else(|| no("the earlier backup did not read a reflink"))?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW;
        let path = self.folder.join(name);
        let old = rustix::fs::open(&path, flags, rustix::fs::Mode::empty());
        let old = File::from(old.map_err(|errno| match errno {
            Errno::NOENT => no("the reflink of the earlier backup is gone"),
            errno => failed(errno.into()),
        })?);
        let map = |file: &File| match sys::extents(file, EXTENTS_MAX) {
            Ok(Some(extents)) => Ok(extents),
            Ok(None) => Err(no("it has too many extents")),
            Err(error) => Err(failed(error)),
        };
        let before = map(&old)?;
        let now = map(&self.file)?;
        // The file system may move extents, but not while both are looked at.
        if map(&old)? != before {
            return Err(no("its extents were being moved"));
        }
        Ok(differences(&before, &now))
    }

    /// Lets this reflink stay, and the others of the image go, when it is dropped.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Removes every reflink of the image but this one.
    fn remove_others(&self, mine: &Path) -> io::Result<()> {
        for (_, path) in reflinks_of(&self.folder, self.volume)? {
            if path != mine {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Reflink {
    fn drop(&mut self) {
        let Some(path) = self.path.take().filter(|_| *self.kept.get_mut()) else {
            return;
        };
        let kept = path.keep().map_err(|error| error.error);
        if let Err(error) = kept.and_then(|path| self.remove_others(&path)) {
            tracing::warn!(%error, volume.id = %self.volume, "an old reflink of an image stays");
        }
    }
}

fn failed(error: io::Error) -> NoChangeMap {
    NoChangeMap(format!("no reflink of the image can be used: {error}"))
}

/// The reflinks of a volume, in the order in which they were made.
fn reflinks_of(folder: &Path, volume: ResourceId) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| number_in(name, volume));
        all.extend(number.map(|number| (number, folder.join(name))));
    }
    all.sort_unstable();
    Ok(all)
}

/// The number in the name of a volume's reflink; nothing in any other name.
fn number_in(name: &str, volume: ResourceId) -> Option<u64> {
    let rest = name.strip_prefix(&volume.to_string())?.strip_prefix('.')?;
    let (number, random) = rest.split_once('.')?;
    let plain = random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    number.parse().ok().filter(|_| plain && !random.is_empty())
}

/// Where two files do not share their bytes. Both lists are in order and without overlaps.
fn differences(before: &[MappedExtent], now: &[MappedExtent]) -> Vec<Range<u64>> {
    let mut edges: Vec<u64> = before
        .iter()
        .chain(now)
        .flat_map(|extent| [extent.logical, extent.end()])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut changes: Vec<Range<u64>> = Vec::new();
    let (mut before, mut now) = (before, now);
    for range in edges.windows(2).map(|edge| edge[0]..edge[1]) {
        if place(&mut before, range.start) == place(&mut now, range.start) {
            continue;
        }
        match changes.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => changes.push(range),
        }
    }
    changes
}

/// What holds a byte of a file.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Hole,
    /// This byte of the device.
    Device(u64),
    /// Something that cannot be compared.
    Unsure,
}

impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hole, Self::Hole) => true,
            (Self::Device(one), Self::Device(two)) => one == two,
            _ => false,
        }
    }
}

/// What holds byte `at`; takes extents that end before it off the list.
fn place(extents: &mut &[MappedExtent], at: u64) -> Holder {
    while let Some((first, rest)) = extents.split_first()
        && first.end() <= at
    {
        *extents = rest;
    }
    match extents.first() {
        Some(extent) if extent.logical <= at => match extent.is_plain {
            true => Holder::Device(extent.physical + (at - extent.logical)),
            false => Holder::Unsure,
        },
        _ => Holder::Hole,
    }
}

#[cfg(test)]
#[path = "reflink/tests.rs"]
mod tests;
