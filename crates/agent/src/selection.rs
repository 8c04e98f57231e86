//! A host's files as a tree from its root: what was added, without what is excluded, and
//! the directories on the way there. Whatever is asked for by its path, nothing else is
//! found here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use cairn_link::{SelectedPath, Selection};
use cairn_source::Folder;
use cairn_types::tree::{
    DirectoryReader, EntryKind, FileReader, Metadata, Names, TreeReader, Xattr, is_name,
};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::device::Device;

/// File systems of the kernel's own, in which there is nothing to save, by their magic
/// numbers. Source: `linux/magic.h`.
const PSEUDO: [u64; 22] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1cd1,      // devpts
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0x9584_58f6, // hugetlbfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x0187,      // autofs
    0xde5e_81e4, // efivarfs
    0x6573_5543, // fusectl
    0xf97c_ff8c, // selinux
    0x6e73_6673, // nsfs
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x4349_5046, // smackfs
];

/// The name under which a directory has the problem that more is in it than may be told of,
/// whatever that is called.
const HELD_BACK: &[u8] = b"*";

/// The tree.
pub struct SelectedTree {
    root: Folder,
    top: Arc<Way>,
}

/// A place on the way to what was added, or where something was.
#[derive(Default)]
struct Way {
    below: BTreeMap<Vec<u8>, Arc<Way>>,
    added: Option<Arc<Added>>,
    /// It is, or lies in, what was added and the host's rules allow only a part of.
    in_part: Option<Arc<Added>>,
    /// It was added, and the host's rules do not allow it.
    denied: bool,
}

/// What holds in a path that was added.
struct Added {
    /// Bytes of the path, with the `/` behind it.
    path_bytes: usize,
    /// Against paths from the host's root.
    absolute: GlobSet,
    literal: Vec<Vec<u8>>,
    /// Against paths below the one that was added.
    relative: GlobSet,
    /// Against names.
    names: GlobSet,
    /// It lies in a file system of the kernel's own: it was meant.
    pseudo: bool,
}

impl SelectedTree {
    /// What is selected of a host, whose root this is, and allowed: everything, if nothing is named.
    ///
    /// Errors: `InvalidInput` a path is not absolute, or an exclusion is no pattern.
    pub fn new(root: Folder, selection: &Selection, allowed: &[String]) -> io::Result<Self> {
        let allowed: Vec<Vec<&str>> = allowed.iter().map(|path| parts(path)).collect();
        let mut top = Plan::default();
        for selected in &selection.paths {
            let names = path_names(&selected.path)?;
            let inside = |limit: &Vec<&str>| names.starts_with(limit);
            let added = Arc::new(Added::new(&names, selected)?);
            if allowed.is_empty() || allowed.iter().any(inside) {
                top.at(&names).added = Some(added);
                continue;
            }
            let mut below = allowed.iter().filter(|limit| limit.starts_with(&names));
            match below.next() {
                // Of a path that is allowed in part, that part.
                Some(first) => {
                    for limit in std::iter::once(first).chain(below) {
                        for length in names.len()..limit.len() {
                            top.at(&limit[..length]).in_part = Some(added.clone());
                        }
                        top.at(limit).added = Some(added.clone());
                    }
                }
                None => top.at(&names).denied = true,
            }
        }
        let top = Arc::new(top.finish());
        Ok(Self { root, top })
    }
}

/// The names in a path.
fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty()).collect()
}

fn path_names(path: &str) -> io::Result<Vec<&str>> {
    let names = parts(path);
    match path.starts_with('/') && names.iter().all(|name| is_name(name.as_bytes())) {
        true => Ok(names),
        false => Err(invalid(format!("{path:?} is no absolute path"))),
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// A `Way` while it is being laid.
#[derive(Default)]
struct Plan {
    below: BTreeMap<Vec<u8>, Plan>,
    added: Option<Arc<Added>>,
    in_part: Option<Arc<Added>>,
    denied: bool,
}

impl Plan {
    /// The place at the end of these names.
    fn at(&mut self, names: &[&str]) -> &mut Self {
        let mut at = self;
        for name in names {
            at = at.below.entry(name.as_bytes().to_vec()).or_default();
        }
        at
    }

    fn finish(self) -> Way {
        let below = self.below.into_iter();
        Way {
            below: below
                .map(|(name, plan)| (name, Arc::new(plan.finish())))
                .collect(),
            denied: self.denied && self.added.is_none(),
            // What lies in it may have been added too, and is allowed then.
            in_part: self.in_part.filter(|_| self.added.is_none()),
            added: self.added,
        }
    }
}

impl Added {
    fn new(names: &[&str], selected: &SelectedPath) -> io::Result<Self> {
        let path = names.join("/");
        let (mut absolute, mut relative, mut by_name) = (
            GlobSetBuilder::new(),
            GlobSetBuilder::new(),
            GlobSetBuilder::new(),
        );
        let mut literal = Vec::new();
        for pattern in &selected.exclude {
            let trimmed = match pattern.trim_end_matches('/') {
                "" => continue,
                trimmed => trimmed,
            };
            let glob = GlobBuilder::new(trimmed.trim_start_matches('/'))
                .literal_separator(true)
                .build();
            let glob = glob.map_err(|error| invalid(error.to_string()))?;
            if let Some(path) = trimmed.strip_prefix('/') {
                literal.push(path.as_bytes().to_vec());
                absolute.add(glob);
            } else if trimmed.contains('/') {
                relative.add(glob);
            } else {
                by_name.add(glob);
            }
        }
        let built = |set: GlobSetBuilder| set.build().map_err(|error| invalid(error.to_string()));
        Ok(Self {
            path_bytes: path.len() + usize::from(!path.is_empty()),
            absolute: built(absolute)?,
            literal,
            relative: built(relative)?,
            names: built(by_name)?,
            pseudo: is_pseudo(path.as_bytes()),
        })
    }

    /// Whether an entry is left out.
    fn excludes(&self, path: &[u8], name: &[u8]) -> bool {
        let path_of = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes));
        let below = path.get(self.path_bytes..).unwrap_or_default();
        self.names.is_match(path_of(name))
            || self.literal.iter().any(|literal| literal == path)
            || self.absolute.is_match(path_of(path))
            || self.relative.is_match(path_of(below))
    }
}

/// Whether a path from the root is in a file system of the kernel's own.
fn is_pseudo(path: &[u8]) -> bool {
    let in_dev = path == b"dev" || path.starts_with(b"dev/");
    let absolute = [b"/", path].concat();
    let found = rustix::fs::statfs(&absolute[..]);
    // The kernel's own devices are on a file system like any in memory.
    in_dev || found.is_ok_and(|found| PSEUDO.contains(&(found.f_type as u64)))
}

impl TreeReader for SelectedTree {
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(Arc::new(Selected {
            inner: self.root.root()?,
            path: Vec::new(),
            inside: self.top.added.clone(),
            way: Some(self.top.clone()),
            closed: false,
        }))
    }
}

/// A directory of the tree.
struct Selected {
    inner: Arc<dyn DirectoryReader>,
    /// From the host's root.
    path: Vec<u8>,
    /// What was added that it lies in.
    inside: Option<Arc<Added>>,
    /// Something was added below it.
    way: Option<Arc<Way>>,
    /// It is not gone into.
    closed: bool,
}

impl Selected {
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match &self.path[..] {
            [] => name.to_vec(),
            path => [path, name].join(&b'/'),
        }
    }

    fn way_to(&self, name: &[u8]) -> Option<&Arc<Way>> {
        self.way.as_ref()?.below.get(name)
    }

    /// Whether an entry belongs to what was added, by what it lies in.
    fn holds(&self, name: &[u8]) -> bool {
        let inside = self.inside.as_ref();
        !self.closed && inside.is_some_and(|added| !added.excludes(&self.path_of(name), name))
    }

    /// Whether it is allowed in part, and there is more in it than that and what is excluded.
    fn holds_back(&self) -> bool {
        let in_part = self.way.as_ref().and_then(|way| way.in_part.as_ref());
        let kept = |name: &[u8], added: &Added| {
            self.way_to(name).is_none() && !added.excludes(&self.path_of(name), name)
        };
        // What cannot be listed may hold anything.
        in_part.is_some_and(|added| match self.inner.names() {
            Ok(names) => names.iter().any(|name| kept(name, added)),
            Err(_) => true,
        })
    }

    /// What is not selected is not there.
    fn must_show(&self, name: &[u8]) -> io::Result<()> {
        let in_part = self.way.as_ref().is_some_and(|way| way.in_part.is_some());
        if in_part && name == HELD_BACK && self.way_to(name).is_none() {
            return Err(io::Error::other(
                "the host's agent does not allow what else is in this directory",
            ));
        }
        if let Some(way) = self.way_to(name)
            && way.denied
            && way.below.is_empty()
            && !self.holds(name)
        {
            return Err(io::Error::other("the host's agent does not allow it"));
        }
        match self.way_to(name).is_some() || self.holds(name) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether an entry was itself added.
    fn is_added(&self, name: &[u8]) -> bool {
        self.way_to(name).is_some_and(|way| way.added.is_some())
    }

    /// Opens a block device that was added.
    fn device(&self, name: &[u8], entry: &Metadata) -> io::Result<Device> {
        use rustix::fs::{Mode, OFlags};
        let path = [b"/", &self.path_of(name)[..]].concat();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path[..], flags, Mode::empty())?;
        let found = rustix::fs::fstat(&opened)?;
        let device = (
            rustix::fs::major(found.st_rdev),
            rustix::fs::minor(found.st_rdev),
        );
        match device == entry.device {
            true => Device::new(opened, entry),
            false => Err(io::Error::other("it is another device now")),
        }
    }
}

impl DirectoryReader for Selected {
    fn metadata(&self) -> io::Result<Metadata> {
        self.inner.metadata()
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        self.inner.xattrs()
    }

    fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        let below = self.way.iter().flat_map(|way| way.below.keys());
        let mut way: BTreeSet<&[u8]> = below.map(|name| &name[..]).collect();
        if self.inside.is_some() && !self.closed {
            for name in self.inner.names()?.iter() {
                if self.holds(name) {
                    names.push(name).map_err(io::Error::other)?;
                    way.remove(name);
                }
            }
        }
        if self.holds_back() {
            way.insert(HELD_BACK);
        }
        for name in way {
            names.push(name).map_err(io::Error::other)?;
        }
        names.sort();
        Ok(names)
    }

    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        self.must_show(name)?;
        let Some(way) = self.way_to(name) else {
            return self.inner.metadata_of(name);
        };
        let found = self.inner.metadata_of(name).map_err(|error| {
            match error.kind() {
                // Whoever added it is to know; what only went meanwhile is no problem.
                io::ErrorKind::NotFound => io::Error::other("the host has no such path"),
                _ => error,
            }
        })?;
        match found.kind {
            EntryKind::BlockDevice if way.added.is_some() => self.device(name, &found)?.metadata(),
            EntryKind::Directory => Ok(found),
            _ if way.added.is_some() || self.holds(name) => Ok(found),
            _ => Err(io::Error::other(
                "it is no directory, and a path that was added leads over it",
            )),
        }
    }

    fn xattrs_of(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        self.must_show(name)?;
        self.inner.xattrs_of(name)
    }

    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>> {
        self.must_show(name)?;
        let way = self.way_to(name).cloned();
        let path = self.path_of(name);
        let added = way.as_ref().and_then(|way| way.added.clone());
        let inside = match &added {
            Some(_) => added.clone(),
            None if self.holds(name) => self.inside.clone(),
            None => None,
        };
        // What was named itself is gone into, wherever it lies.
        let may_be_pseudo = added.is_none() && inside.as_ref().is_some_and(|in_it| !in_it.pseudo);
        Ok(Arc::new(Self {
            inner: self.inner.directory(name)?,
            closed: may_be_pseudo && is_pseudo(&path),
            path,
            inside,
            way: way.filter(|way| !way.below.is_empty()),
        }))
    }

    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        self.must_show(name)?;
        if self.is_added(name) {
            let found = self.inner.metadata_of(name)?;
            if found.kind == EntryKind::BlockDevice {
                return Ok(Arc::new(self.device(name, &found)?));
            }
        }
        self.inner.file(name)
    }

    fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.must_show(name)?;
        self.inner.link_target(name)
    }
}

#[cfg(test)]
#[path = "selection/tests.rs"]
mod tests;
