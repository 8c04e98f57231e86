//! Finding the images below a folder.

use std::fs::{self, DirEntry};
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use crate::config::{ImagesConfig, volume_name};
use crate::protectable::{ImageFormat, ProtectableStatus};
use crate::raw::open_data;
use crate::{Error, Result, qcow2};

/// Images that one folder may hold.
pub const MAX_VOLUMES: usize = 65_536;
/// Folders that may lie within one another.
pub const MAX_DEPTH: usize = 16;

/// An image that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its path below the folder.
    pub(crate) name: String,
    pub(crate) format: ImageFormat,
    pub(crate) size_bytes: u64,
    pub(crate) status: ProtectableStatus,
}

/// Every image below the folder of `source`, by name. A folder that is not
/// there holds none: its disk may not be mounted yet.
///
/// Links to files and devices are followed (the way to list a block device),
/// links to folders are not.
pub(crate) fn scan(source: &ImagesConfig) -> Result<Vec<Found>> {
    let failed = |error| Error::Folder {
        name: source.name.clone(),
        source: error,
    };
    let mut found = Vec::new();
    let mut folders = vec![(source.path.clone(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                if depth + 1 < MAX_DEPTH {
                    folders.push((entry.path(), depth + 1));
                }
            } else if let Some(image) = image(&source.path, &entry) {
                found.push(image);
            }
            if found.len() > MAX_VOLUMES {
                return Err(Error::TooManyVolumes {
                    name: source.name.clone(),
                    limit: MAX_VOLUMES,
                });
            }
        }
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

/// What a directory entry says of an image; `None` if it is no image or is gone already.
fn image(folder: &Path, entry: &DirEntry) -> Option<Found> {
    let path = entry.path();
    let format = ImageFormat::of(&path)?;
    let relative = path.strip_prefix(folder).ok()?;
    let Some(name) = volume_name(relative) else {
        tracing::warn!(?relative, "an image is not listed: its name is not UTF-8");
        return None;
    };
    let (size_bytes, status) = match size_of(&path, format) {
        Ok(size_bytes) => (size_bytes, ProtectableStatus::Available),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => (0, ProtectableStatus::Unusable),
    };
    Some(Found {
        name,
        format,
        size_bytes,
        status,
    })
}

/// The size that a guest sees.
pub(crate) fn size_of(path: &Path, format: ImageFormat) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    match format {
        ImageFormat::Raw if metadata.is_file() => Ok(metadata.len()),
        ImageFormat::Raw => Ok(open_data(path)?.seek(SeekFrom::End(0))?),
        ImageFormat::Qcow2 => Ok(qcow2::Header::read(&open_data(path)?)?.size_bytes),
    }
}
