//! Persistent dirty bitmaps of qcow2 images, in which QEMU notes what is written.
//!
//! What follows is of images at rest; those of a running guest have the same bitmaps by the same
//! rules (`guest/bitmaps.rs`), so that either goes on where the other stopped.
//!
//! Before a backup reads an image it adds an empty bitmap, so that whatever is
//! written later is noted there; until the backup is acknowledged the one of the
//! backup before stays beside it. Whoever is killed leaves a bitmap too many, or
//! one that QEMU marks as unreliable: neither is believed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_types::disk::{Extent, NoChangeMap, Point};
use serde::Deserialize;
use uuid::Uuid;

use super::RANGES_MAX;
use super::tail::{self, Shape};
use crate::lock::Access;
use crate::nbd::Context;
use crate::qemu::{QemuNbd, qemu_img};

/// Bytes of a disk that one bit stands for: those of a block of a backup.
pub(crate) const GRANULARITY_BYTES: u32 = 65_536;
/// Bitmaps of Cairn in one image at most: that of the last acknowledged
/// backup, and what was left by backups that were killed. Each costs every write something.
const BITMAPS_MAX: usize = 3;
/// How the names of Cairn's bitmaps begin; others are not touched.
const OURS: &str = "cairn-";
/// Goes before the names in points, so that no other kind of point has the same.
const PREFIX: &str = "bitmap:";
/// Bitmaps with this flag were not saved by whoever wrote last.
/// Source: QEMU, `qapi/block-core.json`, `Qcow2BitmapInfoFlags`.
const IN_USE: &str = "in-use";

/// Why an image gets no bitmap that has other states beneath or within it.
pub(crate) const LAYERED: &str = "its image has a backing file or snapshots within";
/// What `qemu-img` calls version 2 of qcow2.
const OLD_VERSION: &str = "0.10";
/// Why an image of that version gets none.
const OLD: &str = "its image is one of qcow2 version 2, which has no bitmaps";
/// Why there is no change map when the bitmap is not there.
pub(crate) const GONE: &str = "the bitmap of the earlier backup is gone";
/// Why there is none when whoever wrote to the image last ended without a word.
pub(crate) const UNRELIABLE: &str = "the bitmap of the earlier backup was not saved in full";

/// What is to be done to the bitmaps of an image before a backup.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// These go, in this order.
    pub(crate) remove: Vec<String>,
    /// These stay until the backup is acknowledged, the oldest first.
    pub(crate) older: Vec<String>,
    /// This one is added.
    pub(crate) name: String,
}

impl Plan {
    /// By the bitmaps of an image, and whether each is reliable. Those of others are left alone.
    pub(crate) fn of(found: impl Iterator<Item = (bool, String)>) -> Self {
        let ours = found.filter_map(|(reliable, name)| Some((number_in(&name)?, reliable, name)));
        let mut ours: Vec<_> = ours.collect();
        ours.sort();
        let (older, unreliable): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|(_, reliable, _)| *reliable);
        let mut older: Vec<(u64, String)> = older
            .into_iter()
            .map(|(number, _, name)| (number, name))
            .collect();
        let mut remove: Vec<String> = unreliable.into_iter().map(|(.., name)| name).collect();
        // The oldest is that of the last acknowledged backup, or was.
        while older.len() >= BITMAPS_MAX
            && let Some((_, newest)) = older.pop()
        {
            remove.push(newest);
        }
        let older: Vec<String> = older.into_iter().map(|(_, name)| name).collect();
        Self {
            name: name_after(older.iter().map(String::as_str)),
            remove,
            older,
        }
    }
}

/// A new name that comes behind all of these.
pub(crate) fn name_after<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let newest = names.filter_map(number_in).max();
    let number = newest.map_or(0, |number| number.saturating_add(1));
    format!("{OURS}{number:010}-{}", Uuid::new_v4().simple())
}

/// Removes every bitmap of Cairn's from an image that nobody has open: nothing counts from
/// what it was before any more.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let info = ImageInfo::read(path).map_err(io::Error::other)?;
    for name in info.names_of_ours() {
        remove(path, &name)?;
    }
    Ok(())
}

/// The point at which the bitmap of this name was empty.
pub(crate) fn point_of(name: &str) -> Point {
    let point = Point::new(&format!("{PREFIX}{name}"));
    point.expect("the name is short and of digits and letters")
}

/// The name of the bitmap that was empty at this point.
pub(crate) fn name_in(point: &Point) -> Result<&str, NoChangeMap> {
    let name = point.as_str().strip_prefix(PREFIX);
    let name = name.filter(|name| is_ours(name));
    name.ok_or_else(|| NoChangeMap("the earlier backup began no bitmap".to_owned()))
}

/// Whether a persistent bitmap of this name is one of Cairn's.
pub(crate) fn is_ours(name: &str) -> bool {
    number_in(name).is_some()
}

/// The dirty runs of a disk of this size, as a connection with the bitmap's context tells them.
pub(crate) fn dirty_runs(
    size_bytes: u64,
    run_at: impl Fn(u64) -> io::Result<Extent>,
) -> Result<Vec<Range<u64>>, NoChangeMap> {
    let (mut changes, mut at) = (Vec::new(), 0);
    while at < size_bytes {
        let run = run_at(at).map_err(failed)?;
        at = run.end();
        if run.data {
            changes.push(run.offset..run.end());
        }
        if changes.len() > RANGES_MAX {
            return Err(NoChangeMap("its bitmap has too many runs".to_owned()));
        }
    }
    Ok(changes)
}

/// A bitmap that was empty when the image was opened.
#[derive(Debug)]
pub(crate) struct Bitmap {
    /// What the image is called, and where it is.
    image: String,
    path: PathBuf,
    name: String,
    kept: AtomicBool,
}

impl Bitmap {
    /// Adds a bitmap to an image that nobody has open.
    ///
    /// Errors: why there is none.
    pub(crate) fn create(image: &str, path: &Path) -> Result<Self, NoChangeMap> {
        let info = ImageInfo::read(path)?;
        info.check_can_have_bitmaps()?;
        let found = info.format_specific.data.bitmaps.into_iter();
        let found = found.map(|bitmap| (bitmap.is_reliable(), bitmap.name));
        let Plan { remove, name, .. } = Plan::of(found);
        for bitmap in remove {
            self::remove(path, &bitmap).map_err(failed)?;
        }
        let granularity = GRANULARITY_BYTES.to_string();
        let add = ["bitmap", "-f", "qcow2", "--add", "-g", &granularity];
        qemu_img(&add, path, &[&name]).map_err(failed)?;
        Ok(Self {
            image: image.to_owned(),
            path: path.to_owned(),
            name,
            kept: AtomicBool::new(false),
        })
    }

    pub(crate) fn point(&self) -> Point {
        point_of(&self.name)
    }

    /// As [`DiskReader::changes_since`](cairn_types::disk::DiskReader::changes_since).
    pub(crate) fn changes_since(
        &self,
        earlier: &Point,
        extent_at: impl Fn(u64) -> io::Result<Extent>,
    ) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let name = name_in(earlier)?;
        let info = ImageInfo::read(&self.path)?;
        let cluster_bytes = info.cluster_size;
        let ours = info.ours();
        let found = ours.iter().find(|bitmap| bitmap.name == name);
        let found = found.ok_or_else(|| NoChangeMap(GONE.to_owned()))?;
        if !found.is_reliable() {
            return Err(NoChangeMap(UNRELIABLE.to_owned()));
        }
        let context = Context::DirtyBitmap(name.to_owned());
        let server = QemuNbd::start(&self.image, &self.path, Access::Read, &context);
        let server = server.map_err(|error| NoChangeMap(error.to_string()))?;
        let size_bytes = server.size_bytes();
        let mut changes = dirty_runs(size_bytes, |at| server.extent_at(at))?;
        let shape = Shape {
            size_bytes,
            cluster_bytes,
        };
        tail::add(&mut changes, shape, extent_at).map_err(failed)?;
        Ok(changes)
    }

    /// Lets this bitmap stay, and the others of Cairn go, when it is dropped.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    fn remove_others(&self) -> io::Result<()> {
        let info = ImageInfo::read(&self.path).map_err(io::Error::other)?;
        for bitmap in info.ours() {
            if bitmap.name != self.name {
                remove(&self.path, &bitmap.name)?;
            }
        }
        Ok(())
    }
}

impl Drop for Bitmap {
    /// Must come after whatever had the image open.
    fn drop(&mut self) {
        let done = match *self.kept.get_mut() {
            true => self.remove_others(),
            false => remove(&self.path, &self.name),
        };
        if let Err(error) = done {
            // Somebody may have the image open already; a later backup removes it.
            tracing::warn!(%error, disk = %self.image, "a dirty bitmap of an image stays");
        }
    }
}

/// What `qemu-img info` says of an image, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ImageInfo {
    cluster_size: u64,
    backing_filename: Option<String>,
    #[serde(default)]
    snapshots: Vec<serde_json::Value>,
    format_specific: FormatSpecific,
}

#[derive(Debug, Deserialize)]
struct FormatSpecific {
    data: FormatData,
}

#[derive(Debug, Deserialize)]
struct FormatData {
    compat: Option<String>,
    #[serde(default)]
    bitmaps: Vec<BitmapInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct BitmapInfo {
    name: String,
    flags: Vec<String>,
}

impl BitmapInfo {
    fn is_reliable(&self) -> bool {
        // Without `auto` QEMU notes nothing in it.
        self.flags.iter().any(|flag| flag == "auto")
            && !self.flags.iter().any(|flag| flag == IN_USE)
    }
}

impl ImageInfo {
    fn read(path: &Path) -> Result<Self, NoChangeMap> {
        let said = qemu_img(&["info", "-f", "qcow2", "--output=json"], path, &[]);
        let read = said.and_then(|said| Ok(serde_json::from_slice(&said)?));
        read.map_err(failed)
    }

    /// As [`read`](Self::read), of an image that QEMU may have open.
    pub(crate) fn read_while_open(path: &Path) -> Result<Self, NoChangeMap> {
        let info = ["info", "--force-share", "-f", "qcow2", "--output=json"];
        let said = qemu_img(&info, path, &[]);
        let read = said.and_then(|said| Ok(serde_json::from_slice(&said)?));
        read.map_err(failed)
    }

    /// Errors: why the image can have no bitmap that notes every change.
    pub(crate) fn check_can_have_bitmaps(&self) -> Result<(), NoChangeMap> {
        if self.backing_filename.is_some() || !self.snapshots.is_empty() {
            // What changes there is noted in no bitmap of this image.
            return Err(NoChangeMap(LAYERED.to_owned()));
        }
        match self.format_specific.data.compat.as_deref() {
            Some(OLD_VERSION) => Err(NoChangeMap(OLD.to_owned())),
            _ => Ok(()),
        }
    }

    /// A write into one of these allocates all of it.
    pub(crate) fn cluster_bytes(&self) -> u64 {
        self.cluster_size
    }

    /// The names of Cairn's bitmaps, in the order in which they were made.
    pub(crate) fn names_of_ours(self) -> Vec<String> {
        let ours = self.ours().into_iter();
        ours.map(|bitmap| bitmap.name).collect()
    }

    /// The bitmaps of Cairn, in the order in which they were made.
    fn ours(self) -> Vec<BitmapInfo> {
        let mut ours = self.format_specific.data.bitmaps;
        ours.retain(|bitmap| number_in(&bitmap.name).is_some());
        ours.sort_by_key(|bitmap| number_in(&bitmap.name));
        ours
    }
}

/// The number in the name of a bitmap of Cairn; nothing in any other name.
fn number_in(name: &str) -> Option<u64> {
    let (number, random) = name.strip_prefix(OURS)?.split_once('-')?;
    let plain = random.bytes().all(|byte| byte.is_ascii_hexdigit());
    number.parse().ok().filter(|_| plain && !random.is_empty())
}

fn remove(path: &Path, name: &str) -> io::Result<()> {
    let arguments = ["bitmap", "-f", "qcow2", "--remove"];
    qemu_img(&arguments, path, &[name]).map(|_| ())
}

fn failed(error: io::Error) -> NoChangeMap {
    NoChangeMap(format!("no dirty bitmap of the image can be used: {error}"))
}
