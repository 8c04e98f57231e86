//! What of a tree of files could not be saved, or restored, as it was. Kept in the catalogue,
//! shown on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most entries that are named; the rest is counted.
const NAMED_MAX: usize = 10;
/// The most bytes of what is said of one.
const TEXT_BYTES_MAX: usize = 4096;

/// Entries of a tree that are not, or may not be, as they were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileProblems {
    /// How many.
    pub count: u64,
    /// The first of them: the path, and what became of it and why.
    pub first: Vec<String>,
}

impl FileProblems {
    /// What a writer or reader of a tree found; nothing if all is as it was.
    pub fn found(count: u64, listed: &[impl ToString]) -> Option<Self> {
        let named = listed.iter().take(NAMED_MAX).map(|problem| {
            let mut text = problem.to_string();
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text
        });
        (count > 0).then(|| Self {
            count,
            first: named.collect(),
        })
    }
}
