//! What a source can say of the changes of a disk since an earlier backup, and
//! how it keeps being able to.
//!
//! Whatever goes wrong here costs a backup only that it reads all data: the
//! reason is kept instead of the map and goes to whoever asks for changes.

pub(crate) mod bitmap;
pub(crate) mod file;
pub(crate) mod reflink;
pub(crate) mod tail;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use bitmap::Bitmap;
use cairn_types::ResourceId;
use cairn_types::disk::{Extent, NoChangeMap, Point};
use file::ChangeFile;
use reflink::Reflink;

use crate::ImagesConfig;

/// Ranges in a change map at most.
const RANGES_MAX: usize = 1 << 20;

/// Where a disk's change map comes from.
#[derive(Debug)]
pub(crate) enum ChangeMap {
    /// From nowhere, for this reason.
    None(NoChangeMap),
    /// From a file beside the image.
    File(ChangeFile),
    /// From reflinks of the image; the newest is read in its place.
    Reflink(Reflink),
    /// From dirty bitmaps in the image.
    Bitmap(Bitmap),
}

impl ChangeMap {
    /// The change map of a volume of `source` whose raw image is this file at `path`.
    pub(crate) fn of_raw(
        source: &ImagesConfig,
        volume: ResourceId,
        (path, image): (&Path, &File),
        size_bytes: u64,
    ) -> Self {
        match ChangeFile::find(path, image, size_bytes) {
            Ok(None) if source.reflinks => {
                let made = Reflink::create(&source.path, volume, image);
                made.map_or_else(Self::None, Self::Reflink)
            }
            file => Self::of_file(file),
        }
    }

    /// As far as a change file tells.
    pub(crate) fn of_file(file: Result<Option<ChangeFile>, NoChangeMap>) -> Self {
        match file {
            Ok(Some(file)) => Self::File(file),
            Ok(None) => Self::none(),
            Err(why) => Self::None(why),
        }
    }

    /// Where nobody asks for changes, or nobody knows.
    pub(crate) fn none() -> Self {
        Self::None(NoChangeMap("its source keeps no change map".to_owned()))
    }

    pub(crate) fn point(&self) -> Option<Point> {
        match self {
            Self::None(_) => None,
            Self::File(file) => Some(file.to.clone()),
            Self::Reflink(reflink) => Some(reflink.point().clone()),
            Self::Bitmap(bitmap) => Some(bitmap.point()),
        }
    }

    /// `extent_at` tells the disk's runs, as [`DiskReader::extent_at`](cairn_types::disk::DiskReader::extent_at).
    pub(crate) fn changes_since(
        &self,
        earlier: &Point,
        extent_at: impl Fn(u64) -> io::Result<Extent>,
    ) -> Result<Vec<Range<u64>>, NoChangeMap> {
        match self {
            Self::None(why) => Err(why.clone()),
            Self::File(file) => file.changes_since(earlier),
            Self::Reflink(reflink) => reflink.changes_since(earlier),
            Self::Bitmap(bitmap) => bitmap.changes_since(earlier, extent_at),
        }
    }

    pub(crate) fn keep_point(&self) {
        match self {
            // The program that writes change files finds out by itself what it counts from.
            Self::None(_) | Self::File(_) => {}
            Self::Reflink(reflink) => reflink.keep(),
            Self::Bitmap(bitmap) => bitmap.keep(),
        }
    }
}
