//! cairn-task
