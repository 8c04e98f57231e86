//! cairn-meta
