//! All that is below a directory.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_types::tree::EntryKind;

use crate::driver::Node;
use crate::error::{Error, Result};
use crate::file_system::{Entry, Inner};
use crate::path::{self, PATH_BYTES_MAX};

/// Everything below a directory, with its path from `/` on. What cannot be read is an error in its
/// place, and the walk goes on behind it.
///
/// Each directory is entered once, wherever else a damaged disk has it too, so that every walk ends.
pub struct Walk {
    inner: Arc<Inner>,
    /// The path of the directory that is walked, and a `/`.
    path: Vec<u8>,
    /// The directories on the way down to it.
    stack: Vec<Level>,
    entered: HashSet<u64>,
}

struct Level {
    directory: Node,
    /// The last name that was given out.
    after: Option<Vec<u8>>,
    /// How long the path of the directory above is.
    path_bytes: usize,
}

impl Walk {
    pub(crate) fn new(inner: Arc<Inner>, directory: Node, path: &[u8]) -> Self {
        let mut whole = vec![b'/'];
        for name in path::names(path) {
            whole.extend_from_slice(name);
            whole.push(b'/');
        }
        Self {
            inner,
            path: whole,
            entered: HashSet::from([directory.id]),
            stack: vec![Level {
                directory,
                after: None,
                path_bytes: 0,
            }],
        }
    }

    fn enter(&mut self, node: Node, name: &[u8]) -> Result<()> {
        if !self.entered.insert(node.id) {
            return Err(Error::damaged(
                format!("directory {}", node.id),
                "it is in more than one place",
            ));
        }
        let path_bytes = self.path.len();
        if path_bytes + name.len() >= PATH_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a path",
                limit: PATH_BYTES_MAX as u64,
            });
        }
        self.path.extend_from_slice(name);
        self.path.push(b'/');
        self.stack.push(Level {
            directory: node,
            after: None,
            path_bytes,
        });
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(level) = self.stack.pop() {
            self.path.truncate(level.path_bytes);
        }
    }
}

impl Iterator for Walk {
    type Item = (Vec<u8>, Result<Entry>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.stack.last_mut()?;
            match self
                .inner
                .name_behind(&level.directory, level.after.as_deref())
            {
                Ok(None) => self.leave(),
                Err(error) => {
                    // The directory itself is what cannot be read.
                    let path = self.path.clone();
                    self.leave();
                    return Some((path, Err(error)));
                }
                Ok(Some((name, id))) => {
                    level.after = Some(name.clone());
                    let path = [&self.path[..], &name].concat();
                    let node = match self.inner.driver.node(id) {
                        Ok(node) => node,
                        Err(error) => return Some((path, Err(error))),
                    };
                    let entry = Entry::new(name, &node);
                    if node.metadata.kind == EntryKind::Directory
                        && let Err(error) = self.enter(node, &entry.name)
                    {
                        return Some((path, Err(error)));
                    }
                    return Some((path, Ok(entry)));
                }
            }
        }
    }
}
