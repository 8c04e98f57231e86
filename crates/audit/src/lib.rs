//! The audit trail: who asked for what, when, from where, and what came of it.
//!
//! The trail is a folder of files of JSON lines that are only ever appended to.
//! Each line carries a code (HMAC-SHA256, by a key that is derived from the
//! repository's root key) over its own text and the code of the line before, so that
//! nobody without the key can change, insert, reorder or remove a line and have
//! [`verify()`] not notice. What it cannot see by itself is that the newest lines
//! were cut off: for that, keep the head that it prints somewhere else, and
//! give it back the next time.
//!
//! A line is `{"code":"<64 hexadecimal digits>","trace":{…}}`, with exactly
//! these bytes around the trace. `server` writes traces, `cairn` verifies them.

mod chain;
mod error;
mod folder;
mod trace;
mod trail;
mod verify;

pub use chain::{Code, TrailKey};
pub use error::{Error, Result};
pub use trace::{Stage, Trace};
pub use trail::Trail;
pub use verify::{Head, Verified, verify};
