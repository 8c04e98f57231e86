//! The files of a trail.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// The name of the file that who writes holds locked.
const LOCK: &str = ".lock";

/// The file with this number, from 1.
pub(crate) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

/// The number of the newest file; 1 if there is none yet.
pub(crate) fn newest(folder: &Path) -> Result<u32> {
    let mut newest = 1;
    let entries = std::fs::read_dir(folder).map_err(Error::file("list", folder))?;
    for entry in entries {
        let name = entry.map_err(Error::file("list", folder))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        newest = newest.max(number.and_then(|digits| digits.parse().ok()).unwrap_or(1));
    }
    Ok(newest)
}

/// Keeps all other writers out for as long as the value lives.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::file("open", &path))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| Error::file("lock", &path)(error.into()))?;
    Ok(file)
}
