//! What a backup says of its tree as a whole: how much it holds, and what could
//! not be saved.

use std::collections::BTreeMap;
use std::fmt;

use cairn_types::tree::write_name;

use crate::codec::{Malformed, Reader};

/// Problems that are named; the rest are counted.
const LISTED_MAX: usize = 256;
/// Bytes of a path or a reason that are kept.
const TEXT_BYTES_MAX: usize = 4096;

/// What a saved tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Regular files, by their names: one of two names counts twice.
    pub files: u64,
    /// Directories, the tree's own included.
    pub directories: u64,
    /// Links, pipes, sockets and devices.
    pub others: u64,
    /// Bytes of the files.
    pub size_bytes: u64,
    /// Entries that are not, or may not be, as they were.
    pub problems: u64,
    /// The first of these, by their paths.
    pub listed: Vec<Problem>,
}

/// Something of a tree that could not be saved, or restored, as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The entry, from the tree's own directory on.
    pub path: Vec<u8>,
    /// What became of it.
    pub kind: ProblemKind,
    /// What the system said.
    pub reason: String,
}

/// What became of an entry that could not be saved, or restored, as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// It could not be read and is not in the backup.
    Unreadable,
    /// It changed while it was read, twice: the backup has a mixture.
    Changed,
    /// It lies in too many directories and is not in the backup.
    TooDeep,
    /// It is in the backup without its extended attributes.
    Attributes,
    /// It could not be made where it was to be restored.
    NotMade,
    /// It was restored, and something of what it had could not be set.
    NotSet,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            write_name(&self.path),
            self.kind.words(),
            self.reason
        )
    }
}

impl ProblemKind {
    /// Those of a backup; what becomes of a restore is not kept in one.
    const ALL: [Self; 4] = [
        Self::Unreadable,
        Self::Changed,
        Self::TooDeep,
        Self::Attributes,
    ];

    fn byte(self) -> u8 {
        self as u8
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unreadable | Self::TooDeep | Self::NotMade => "left out",
            Self::Changed => "mixed",
            Self::Attributes => "without its attributes",
            Self::NotSet => "not as it was",
        }
    }
}

/// Gathers problems, of which the first by their paths are kept.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    count: u64,
    kept: BTreeMap<(Vec<u8>, ProblemKind), String>,
}

impl Problems {
    pub fn add(&mut self, mut path: Vec<u8>, kind: ProblemKind, mut reason: String) {
        self.count += 1;
        path.truncate(TEXT_BYTES_MAX);
        reason.truncate(reason.floor_char_boundary(TEXT_BYTES_MAX));
        self.kept.insert((path, kind), reason);
        if self.kept.len() > LISTED_MAX {
            self.kept.pop_last();
        }
    }

    /// How many there are, and the first of them.
    pub fn finish(&mut self) -> (u64, Vec<Problem>) {
        let kept = std::mem::take(&mut self.kept).into_iter();
        let listed = kept.map(|((path, kind), reason)| Problem { path, kind, reason });
        (self.count, listed.collect())
    }
}

pub(crate) fn encode_summary(summary: &TreeSummary, out: &mut Vec<u8>) {
    for number in [
        summary.files,
        summary.directories,
        summary.others,
        summary.size_bytes,
        summary.problems,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(summary.listed.len() as u32).to_le_bytes());
    for problem in &summary.listed {
        out.push(problem.kind.byte());
        for text in [&problem.path[..], problem.reason.as_bytes()] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text);
        }
    }
}

pub(crate) fn decode_summary(reader: &mut Reader<'_>) -> Result<TreeSummary, Malformed> {
    let mut summary = TreeSummary {
        files: reader.u64()?,
        directories: reader.u64()?,
        others: reader.u64()?,
        size_bytes: reader.u64()?,
        problems: reader.u64()?,
        listed: Vec::new(),
    };
    for _ in 0..reader.length(LISTED_MAX)? {
        let kind = usize::from(reader.u8()?);
        let kind = ProblemKind::ALL.get(kind).copied();
        let kind = kind.ok_or(Malformed("a problem is of an unknown kind"))?;
        let length = reader.length(TEXT_BYTES_MAX)?;
        let path = reader.take(length)?.to_vec();
        let length = reader.length(TEXT_BYTES_MAX)?;
        let reason = std::str::from_utf8(reader.take(length)?)
            .map_err(|_| Malformed("a problem is not readable"))?;
        summary.listed.push(Problem {
            path,
            kind,
            reason: reason.to_owned(),
        });
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_problems_are_kept_and_all_are_counted() {
        let mut problems = Problems::default();
        for number in (0..1000).rev() {
            let path = format!("{number:04}").into_bytes();
            problems.add(path, ProblemKind::Unreadable, "é".repeat(5000));
        }
        let (count, listed) = problems.finish();
        assert_eq!((count, listed.len()), (1000, LISTED_MAX));
        assert_eq!(listed[0].path, b"0000");
        assert_eq!(listed[LISTED_MAX - 1].path, b"0255");
        let summary = TreeSummary {
            problems: count,
            listed,
            ..TreeSummary::default()
        };
        let mut bytes = Vec::new();
        encode_summary(&summary, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode_summary(&mut reader), Ok(summary));
        assert_eq!(reader.finish(), Ok(()));
    }
}
