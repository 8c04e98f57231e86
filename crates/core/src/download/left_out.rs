//! What an archive leaves out because it cannot be read: found while it is measured, and from then on
//! the same for all who download it, so that every byte stays where it was measured.

use std::collections::BTreeMap;

use cairn_types::FileProblems;

use crate::{Error, Refusal, Result};

/// Bytes of what is said of left out entries at most: where more is damaged there is no archive.
const BYTES_MAX: usize = 1 << 20;
/// Bytes that an entry takes beside what is said of it.
const EXTRA_BYTES: usize = 96;

/// The entries that are left out.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOut {
    /// Why, by the path. That of a directory with `/` behind it: all that is in it.
    all: BTreeMap<Box<[u8]>, String>,
    bytes: usize,
    is_settled: bool,
}

impl LeftOut {
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.all.contains_key(path)
    }

    /// Whether all that is in a directory is left out.
    pub(super) fn has_names_of(&self, path: &[u8]) -> bool {
        !self.all.is_empty() && self.has(&names_of(path))
    }

    /// Leaves an entry out, if the error says that it will not be read later either.
    ///
    /// Errors: the same, if it does not; or if all that is left out was settled without this entry.
    pub(super) fn add(&mut self, path: Vec<u8>, error: Error) -> Result<()> {
        let why = match &error {
            Error::Refused(Refusal::UnreadableFile { why }) => why.clone(),
            // A directory that is damaged lists names that it does not find.
            Error::Refused(refusal @ Refusal::FileNotFound) => refusal.to_string(),
            _ => return Err(error),
        };
        if self.has(&path) {
            return Ok(());
        }
        self.bytes += path.len() + why.len() + EXTRA_BYTES;
        if self.is_settled || self.bytes > BYTES_MAX {
            return Err(error);
        }
        self.all.insert(path.into(), why);
        Ok(())
    }

    /// From now on nothing more is left out.
    pub(super) const fn settle(&mut self) {
        self.is_settled = true;
    }

    /// What tells an archive from one that has all: nothing, where nothing is left out.
    pub(super) fn mark(&self) -> Vec<u8> {
        self.all
            .keys()
            .flat_map(|path| [&path[..], b"\0"].concat())
            .collect()
    }

    /// What whoever downloads it is told.
    pub(super) fn problems(&self) -> Option<FileProblems> {
        let listed: Vec<_> = self.all.iter().map(|(path, why)| told(path, why)).collect();
        FileProblems::found(listed.len() as u64, &listed)
    }
}

/// The path that stands for all that is in a directory.
pub(super) fn names_of(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

fn told(path: &[u8], why: &str) -> String {
    let text = |path| String::from_utf8_lossy(path).into_owned();
    match path.strip_suffix(b"/") {
        Some(folder) => format!("{:?}: what is in it is left out: {why}", text(folder)),
        None => format!("{:?}: left out: {why}", text(path)),
    }
}
