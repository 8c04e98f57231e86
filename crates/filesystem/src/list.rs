//! Directories in the order of their names, page by page.
//!
//! A file system keeps names in an order of its own. A window is a part of a directory's names, sorted: for all that
//! fit one pass over the directory is enough, for a larger one it takes one pass for each window.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::driver::Node;
use crate::error::{Error, Result};
use crate::file_system::{Entry, Inner};

/// Names in a window at most.
const NAMES_MAX: usize = 65_536;
/// Windows that are kept.
const WINDOWS_MAX: usize = 4;

/// A part of a directory.
#[derive(Debug)]
pub struct Page {
    /// The entries, sorted by the bytes of their names.
    pub entries: Vec<Entry>,
    /// Those among them of which nothing but the name can be read.
    pub unreadable: Vec<Unreadable>,
    /// What to go on after for the next page; nothing at the end.
    pub next: Option<Vec<u8>>,
}

/// An entry of which nothing but the name can be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Its name.
    pub name: Vec<u8>,
    /// Why.
    pub error: Error,
}

/// Names of a directory, sorted.
struct Window {
    directory: u64,
    /// It has the names behind this one.
    after: Option<Vec<u8>>,
    /// The names, and the numbers of their nodes.
    names: Vec<(Box<[u8]>, u64)>,
    /// Whether the last name is the directory's last.
    complete: bool,
}

impl Window {
    /// Whether the first name behind `after` would be in it.
    fn covers(&self, directory: u64, after: Option<&[u8]>) -> bool {
        let last = self.names.last().map(|(name, _)| &**name);
        self.directory == directory
            && self.after.as_deref() <= after
            && (self.complete || last > after)
    }
}

/// The windows that were used last.
#[derive(Default)]
pub(crate) struct Windows(Mutex<VecDeque<Arc<Window>>>);

impl Windows {
    /// The node of a name, if it is in a window.
    fn find(&self, directory: u64, name: &[u8]) -> Option<u64> {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = windows
            .iter()
            .filter(|window| window.directory == directory);
        here.into_iter().find_map(|window| {
            let found = window
                .names
                .binary_search_by(|(other, _)| (**other).cmp(name));
            found.ok().map(|index| window.names[index].1)
        })
    }

    fn take(&self, directory: u64, after: Option<&[u8]>) -> Option<Arc<Window>> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = windows
            .iter()
            .position(|window| window.covers(directory, after))?;
        let window = windows.remove(index)?;
        windows.push_back(Arc::clone(&window));
        Some(window)
    }

    fn keep(&self, window: &Arc<Window>) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS_MAX {
            windows.pop_front();
        }
        windows.push_back(Arc::clone(window));
    }
}

impl Inner {
    /// At most `limit` entries of a directory from behind `after` on; at least one, unless it is at its end.
    pub(crate) fn page(
        &self,
        directory: &Node,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page> {
        let window = self.window(directory, after)?;
        let start = behind(&window, after);
        let rest = &window.names[start..];
        let names = &rest[..rest.len().min(limit.max(1))];
        let more = names.len() < rest.len() || !window.complete;
        let last = names.last().filter(|_| more);
        let mut page = Page {
            entries: Vec::with_capacity(names.len()),
            unreadable: Vec::new(),
            next: last.map(|(name, _)| name.to_vec()),
        };
        for (name, id) in names {
            match self.driver.node(*id) {
                Ok(node) => page.entries.push(Entry::new(name.to_vec(), &node)),
                Err(error) => page.unreadable.push(Unreadable {
                    name: name.to_vec(),
                    error,
                }),
            }
        }
        Ok(page)
    }

    /// The first name behind `after`, and the number of its node.
    pub(crate) fn name_behind(
        &self,
        directory: &Node,
        after: Option<&[u8]>,
    ) -> Result<Option<(Vec<u8>, u64)>> {
        let window = self.window(directory, after)?;
        let found = window.names.get(behind(&window, after));
        Ok(found.map(|(name, id)| (name.to_vec(), *id)))
    }

    /// The node of a name, if it is in a window or among the first names of its directory. Who asks for
    /// one name asks for its neighbours too.
    pub(crate) fn known(&self, directory: &Node, name: &[u8]) -> Result<Option<u64>> {
        let found = self.windows.find(directory.id, name);
        if found.is_some() {
            return Ok(found);
        }
        self.window(directory, None)?;
        Ok(self.windows.find(directory.id, name))
    }

    /// A window that has the first name behind `after`, if there is one.
    fn window(&self, directory: &Node, after: Option<&[u8]>) -> Result<Arc<Window>> {
        if let Some(window) = self.windows.take(directory.id, after) {
            return Ok(window);
        }
        let mut smallest = BTreeMap::<Box<[u8]>, u64>::new();
        let mut complete = true;
        self.names(directory, &mut |name, id| {
            let is_behind = after.is_none_or(|after| name > after);
            let is_full = smallest.len() == NAMES_MAX;
            let fits = !is_full
                || smallest
                    .last_key_value()
                    .is_some_and(|(last, _)| *name < **last);
            complete &= !is_behind || fits;
            if is_behind && fits && !smallest.contains_key(name) {
                smallest.insert(name.into(), id);
                if is_full {
                    smallest.pop_last();
                    complete = false;
                }
            }
            ControlFlow::Continue(())
        })?;
        let window = Arc::new(Window {
            directory: directory.id,
            after: after.map(<[u8]>::to_vec),
            names: smallest.into_iter().collect(),
            complete,
        });
        self.windows.keep(&window);
        Ok(window)
    }
}

/// The index of the first name behind `after`.
fn behind(window: &Window, after: Option<&[u8]>) -> usize {
    window
        .names
        .partition_point(|(name, _)| after.is_some_and(|after| **name <= *after))
}
