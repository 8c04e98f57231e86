//! What a caller should do about an error.

/// The one thing that callers of a fallible function branch on: the server
/// makes a status of it, the task engine decides whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong and will be wrong next time.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// There is no such thing, or none that the caller may see.
    NotFound,
    /// The state of the thing does not allow this now.
    Conflict,
    /// A limit is reached: capacity, a quota, disk space.
    Exhausted,
    /// It may work if tried again.
    Transient,
    /// Stored or read data is not what it should be.
    Corrupt,
    /// The task was asked to stop.
    Cancelled,
    /// A mistake in Cairn.
    Bug,
}
