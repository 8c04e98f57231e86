//! A tree of files in memory, with a clock of its own and entries that fail.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::tree::{
    DirectoryReader, EntryKind, FileReader, FileTime, Metadata, Names, TreeReader, Xattr,
};

/// A tree of files in memory. Every change is stamped with the second that `set_time` gave last.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// By their paths; the tree's own directory has none.
    entries: BTreeMap<Vec<u8>, Entry>,
    now: i64,
    inodes: u64,
    /// Paths of the files that were opened, in this order.
    opened: Vec<Vec<u8>>,
}

/// How an entry fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeFault {
    /// It cannot be opened, by this number of the system's errors.
    Opening(i32),
    /// It cannot be read, by this number of the system's errors.
    Reading(i32),
    /// It is listed and gone when it is opened.
    Vanished,
    /// It is another each of this many times that it is read.
    Changing(u32),
}

#[derive(Debug, Clone)]
struct Entry {
    kind: EntryKind,
    data: Arc<Vec<u8>>,
    changed: i64,
    inode: u64,
    fault: Option<TreeFault>,
}

impl MemoryTree {
    /// The time from now on, in seconds since 1970.
    pub fn set_time(&self, seconds: i64) {
        self.lock().now = seconds;
    }

    /// Makes a file, or gives it other bytes; and the directories that it is in.
    pub fn write(&self, path: &str, data: &[u8]) {
        let mut state = self.lock();
        let ends = path.char_indices().filter(|(_, c)| *c == '/');
        for (end, _) in ends.collect::<Vec<_>>() {
            state.put(&path.as_bytes()[..end], EntryKind::Directory, &[]);
        }
        state.put(path.as_bytes(), EntryKind::File, data);
    }

    /// Removes an entry, with all that is in it.
    pub fn remove(&self, path: &str) {
        let below = format!("{path}/").into_bytes();
        let mut state = self.lock();
        state
            .entries
            .retain(|entry, _| entry != path.as_bytes() && !entry.starts_with(&below));
    }

    /// Makes an entry fail, or not any more.
    pub fn fail(&self, path: &str, fault: Option<TreeFault>) {
        let mut state = self.lock();
        let entry = state.entries.get_mut(path.as_bytes());
        entry.expect("it was written").fault = fault;
    }

    /// The files that were opened since this was asked last, in order of their paths.
    pub fn take_opened(&self) -> Vec<String> {
        let mut opened = std::mem::take(&mut self.lock().opened);
        opened.sort();
        let text = |path| String::from_utf8(path).expect("paths were given as text");
        opened.into_iter().map(text).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, path: &[u8], kind: EntryKind, data: &[u8]) {
        if kind == EntryKind::Directory && self.entries.contains_key(path) {
            return;
        }
        self.inodes += 1;
        let inode = self.entries.get(path).map_or(self.inodes, |old| old.inode);
        let entry = Entry {
            kind,
            data: Arc::new(data.to_vec()),
            changed: self.now,
            inode,
            fault: None,
        };
        self.entries.insert(path.to_vec(), entry);
    }
}

impl Entry {
    fn metadata(&self) -> Metadata {
        let time = FileTime {
            seconds: self.changed,
            nanoseconds: 0,
        };
        let is_file = self.kind == EntryKind::File;
        Metadata {
            kind: self.kind,
            mode: if is_file { 0o644 } else { 0o755 },
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            size_bytes: if is_file { self.data.len() as u64 } else { 0 },
            modified: time,
            changed: time,
            inode: self.inode,
            linked: false,
            device: (0, 0),
        }
    }
}

impl TreeReader for MemoryTree {
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(Arc::new(Directory {
            tree: self.clone(),
            path: Vec::new(),
        }))
    }
}

struct Directory {
    tree: MemoryTree,
    path: Vec<u8>,
}

impl Directory {
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match self.path[..] {
            [] => name.to_vec(),
            _ => [&self.path, name].join(&b'/'),
        }
    }

    fn entry(&self, name: &[u8]) -> io::Result<Entry> {
        let state = self.tree.lock();
        let entry = state.entries.get(&self.path_of(name));
        entry.cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn open(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        match self.entry(name)?.fault {
            Some(TreeFault::Opening(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(TreeFault::Vanished) => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(self.path_of(name)),
        }
    }
}

impl DirectoryReader for Directory {
    fn metadata(&self) -> io::Result<Metadata> {
        let state = self.tree.lock();
        let own = Entry {
            kind: EntryKind::Directory,
            data: Arc::default(),
            changed: 0,
            inode: 0,
            fault: None,
        };
        let entry = state.entries.get(&self.path).cloned();
        Ok(entry.unwrap_or(own).metadata())
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn names(&self) -> io::Result<Names> {
        let state = self.tree.lock();
        let inside = |path: &Vec<u8>| {
            let rest = match self.path[..] {
                [] => &path[..],
                _ => path.strip_prefix(&self.path[..])?.strip_prefix(b"/")?,
            };
            (!rest.contains(&b'/')).then(|| rest.to_vec())
        };
        Names::collect(state.entries.keys().filter_map(inside)).map_err(io::Error::other)
    }

    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        Ok(self.entry(name)?.metadata())
    }

    fn xattrs_of(&self, _: &[u8]) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>> {
        let (path, tree) = (self.open(name)?, self.tree.clone());
        Ok(Arc::new(Self { tree, path }))
    }

    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        let (path, tree) = (self.open(name)?, self.tree.clone());
        tree.lock().opened.push(path.clone());
        Ok(Arc::new(File { tree, path }))
    }

    fn link_target(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

struct File {
    tree: MemoryTree,
    path: Vec<u8>,
}

impl File {
    fn entry(&self) -> io::Result<Entry> {
        let state = self.tree.lock();
        let entry = state.entries.get(&self.path);
        entry.cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Changes the file while it is read, as often as that was asked for.
    fn change(&self) {
        let mut state = self.tree.lock();
        state.now += 1;
        let now = state.now;
        let Some(entry) = state.entries.get_mut(&self.path) else {
            return;
        };
        if let Some(TreeFault::Changing(left @ 1..)) = entry.fault {
            entry.fault = Some(TreeFault::Changing(left - 1));
            entry.changed = now;
            Arc::make_mut(&mut entry.data).push(b'!');
        }
    }
}

impl FileReader for File {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.entry()?.metadata())
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let end = self.entry()?.data.len() as u64;
        Ok((offset < end).then_some(offset..end))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let entry = self.entry()?;
        if let Some(TreeFault::Reading(errno)) = entry.fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let rest = entry.data.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.change();
        Ok(length)
    }
}
