//! Paths: names joined by `/`, from the uppermost directory on.

use crate::error::{Error, Result};

/// Bytes of a path at most.
pub const PATH_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a name at most: 255 characters of FAT.
const NAME_BYTES_MAX: usize = 255 * 4;

/// Whether an entry can have this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// A path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The names of a path. Empty ones and `.` say nothing.
pub(crate) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// Errors: it is too long, or no text of names.
pub(crate) fn check(path: &[u8]) -> Result<()> {
    let bad = |why| {
        let start = &path[..path.len().min(256)];
        Err(Error::BadPath {
            path: shown(start),
            why,
        })
    };
    if path.len() > PATH_BYTES_MAX {
        return bad("it is too long");
    }
    if path.contains(&0) {
        return bad("a name has no NUL");
    }
    Ok(())
}
