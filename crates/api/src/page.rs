//! Paging: which part of a list is asked for, and what surrounds the answer.

use crate::validate::{self, Invalid};

/// The page size where none is asked for, and the largest that can be.
/// Source: the `limit` parameter of the vendor's list operations.
pub const MAX_LIMIT: u32 = 1000;
/// The same for protectables.
pub const MAX_PROTECTABLE_LIMIT: u32 = 50;

/// Which part of a list is asked for, its defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<Id> {
    /// At most so many items.
    pub limit: u32,
    /// So many items are left out first.
    pub offset: u32,
    /// The list goes on behind the item with this id.
    pub marker: Option<Id>,
}

impl<Id> Page<Id> {
    /// Fills in the defaults, `max` being that of the limit.
    pub fn new(limit: Option<u32>, offset: Option<u32>, marker: Option<Id>, max: u32) -> Self {
        Self {
            limit: limit.unwrap_or(max),
            offset: offset.unwrap_or(0),
            marker,
        }
    }
}

/// Checks a limit.
pub(crate) fn limit(limit: Option<u32>, max: u32) -> Result<(), Invalid> {
    limit.map_or(Ok(()), |limit| validate::range("limit", limit, (1, max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lies_between_1_and_its_maximum() {
        for good in [None, Some(1), Some(1000)] {
            assert!(limit(good, MAX_LIMIT).is_ok());
        }
        for bad in [0, 1001] {
            assert!(limit(Some(bad), MAX_LIMIT).is_err());
        }
    }

    #[test]
    fn a_page_has_defaults() {
        let page: Page<u8> = Page::new(None, None, None, MAX_LIMIT);
        assert_eq!(
            page,
            Page {
                limit: 1000,
                offset: 0,
                marker: None
            }
        );
    }
}
