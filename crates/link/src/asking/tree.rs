//! A tree of files at the other end. A directory's listing is asked for once, and answers
//! what its entries are; listings of directories below it may have come with it.

use std::collections::HashMap;
use std::io;
use std::ops::Range as Bytes;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_types::tree::{
    DirectoryReader, DistantDirectory, DistantFile, FileRange, FileReader, Metadata, Names,
    RANGES_BYTES_MAX, RANGES_MAX, TreeGone, TreeReader, Xattr,
};
use futures::future::try_join_all;

use super::listing::Directory;
use super::{Shared, UNEXPECTED};
use crate::error::{Error, Result};
use crate::message::tree::{FILES_MAX, READ_BYTES, Range, TreeQuestion};
use crate::message::tree_answer::{About, FileTold, Listing, TreeAnswer};
use crate::message::{Answer, Question};

/// How often a tree is opened again for one question: once for each connection that ends.
const OPENINGS_MAX: usize = 1000;
/// Entries that were told ahead and are not asked for yet, at most.
const AHEAD_ENTRIES_MAX: usize = 256 << 10;

/// The tree.
pub(super) struct Remote {
    shared: Arc<Shared>,
    number: u32,
    /// What opens it.
    opening: TreeQuestion,
    ahead: Mutex<Ahead>,
}

/// Listings that were told before anybody asked for them.
#[derive(Default)]
struct Ahead {
    listings: HashMap<Vec<u8>, Listing>,
    entries: usize,
}

/// Why an answer did not come, as the error of a tree.
pub(super) fn gone(error: Error) -> io::Error {
    io::Error::other(TreeGone {
        kind: error.kind(),
        source: Box::new(error),
    })
}

impl Remote {
    pub fn new(shared: &Arc<Shared>, opening: TreeQuestion) -> Self {
        Self {
            number: shared.trees.fetch_add(1, Ordering::Relaxed),
            shared: Arc::clone(shared),
            opening,
            ahead: Mutex::default(),
        }
    }

    /// Asks from a thread that may block.
    fn ask(&self, question: TreeQuestion) -> io::Result<TreeAnswer> {
        let mut answers = self.ask_all(vec![question])?;
        Ok(answers.pop().expect("there is one for each question"))
    }

    /// Asks several questions at a time.
    fn ask_all(&self, questions: Vec<TreeQuestion>) -> io::Result<Vec<TreeAnswer>> {
        let asked = questions.into_iter().map(|question| self.asked(question));
        self.shared.handle.block_on(try_join_all(asked))
    }

    async fn asked(&self, question: TreeQuestion) -> io::Result<TreeAnswer> {
        let question = self.question(question);
        for _ in 0..OPENINGS_MAX {
            match self.shared.ask(&question).await.map_err(gone)? {
                Answer::Tree(TreeAnswer::NotOpen) => self.open().await?,
                Answer::Tree(TreeAnswer::Refused(refused)) => return Err(refused.into()),
                Answer::Tree(answer) => return Ok(answer),
                _ => break,
            }
        }
        Err(gone(UNEXPECTED))
    }

    async fn open(&self) -> io::Result<()> {
        match self.shared.ask(&self.opening()).await.map_err(gone)? {
            Answer::Tree(TreeAnswer::Opened) => Ok(()),
            Answer::Tree(TreeAnswer::Refused(refused)) => Err(refused.into()),
            _ => Err(gone(UNEXPECTED)),
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A question about this tree, as it is sent.
    pub fn question(&self, question: TreeQuestion) -> Question {
        let tree = self.number;
        Question::Tree { tree, question }
    }

    /// What opens it, as it is sent.
    pub fn opening(&self) -> Question {
        self.question(self.opening.clone())
    }

    pub fn about(&self, path: Vec<u8>) -> io::Result<About> {
        match self.ask(TreeQuestion::About { path })? {
            TreeAnswer::About(about) => Ok(about),
            _ => Err(gone(UNEXPECTED)),
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in a directory.
    fn directory(&self, path: &[u8]) -> io::Result<Directory> {
        if let Some(listing) = self.ahead().take(path) {
            return Directory::of(listing).map_err(gone);
        }
        let mut directory: Option<Directory> = None;
        loop {
            let question = TreeQuestion::List {
                path: path.to_vec(),
                after: directory
                    .as_ref()
                    .map_or_else(Vec::new, |directory| directory.last_name().to_vec()),
            };
            let TreeAnswer::Listings(packed) = self.ask(question)? else {
                return Err(gone(UNEXPECTED));
            };
            let read = || Listing::decode_all(&packed.unpack()?);
            let mut listings = read().map_err(gone)?.into_iter();
            let first = listings.next().filter(|first| first.path == path);
            let first = first.ok_or(UNEXPECTED).map_err(gone)?;
            if directory.is_none() && !first.more {
                self.ahead().add(listings);
                return Directory::of(first).map_err(gone);
            }
            if listings.next().is_some() || first.more && first.entries.is_empty() {
                return Err(gone(UNEXPECTED));
            }
            let known = directory.get_or_insert_with(|| Directory::empty(first.about.clone()));
            known.add(&first, packed).map_err(gone)?;
            if !first.more {
                return directory.ok_or_else(|| gone(UNEXPECTED));
            }
        }
    }

    pub fn open_directory(self: &Arc<Self>, path: Vec<u8>) -> io::Result<RemoteDirectory> {
        Ok(RemoteDirectory {
            told: self.directory(&path)?,
            tree: Arc::clone(self),
            path,
        })
    }
}

impl Ahead {
    fn take(&mut self, path: &[u8]) -> Option<Listing> {
        let listing = self.listings.remove(path)?;
        self.entries -= listing.entries.len();
        Some(listing)
    }

    /// Keeps listings, as far as there is room; what is left out is asked for later.
    fn add(&mut self, listings: impl Iterator<Item = Listing>) {
        for listing in listings.filter(|listing| !listing.more) {
            let entries = listing.entries.len();
            if self.entries + entries > AHEAD_ENTRIES_MAX {
                return;
            }
            self.take(&listing.path.clone());
            self.entries += entries;
            self.listings.insert(listing.path.clone(), listing);
        }
    }
}

/// What a reader is made of: the tree itself.
pub(super) struct RemoteTree(pub Arc<Remote>);

impl TreeReader for RemoteTree {
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(Arc::new(self.0.open_directory(Vec::new())?))
    }
}

/// A directory of it.
pub(super) struct RemoteDirectory {
    tree: Arc<Remote>,
    path: Vec<u8>,
    told: Directory,
}

impl RemoteDirectory {
    fn join(&self, name: &[u8]) -> Vec<u8> {
        match &self.path[..] {
            [] => name.to_vec(),
            path => [path, name].join(&b'/'),
        }
    }
}

impl DirectoryReader for RemoteDirectory {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.told.about.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(self.told.about.xattrs.clone()?)
    }

    fn names(&self) -> io::Result<Names> {
        Names::collect(self.told.names.iter()).map_err(io::Error::other)
    }

    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        self.told.metadata_of(name)
    }

    fn xattrs_of(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        match self.told.entry(name)?.has_xattrs {
            true => Ok(self.tree.about(self.join(name))?.xattrs?),
            false => Ok(Vec::new()),
        }
    }

    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(Arc::new(self.tree.open_directory(self.join(name))?))
    }

    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        Ok(Arc::new(RemoteFile {
            tree: self.tree.clone(),
            directory: self.path.clone(),
            name: name.to_vec(),
            about: self.tree.about(self.join(name))?,
        }))
    }

    fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(self.told.entry(name)?.target?)
    }

    fn distant(&self) -> Option<&dyn DistantDirectory> {
        Some(self)
    }
}

impl DistantDirectory for RemoteDirectory {
    fn files(&self, names: &[&[u8]]) -> io::Result<Vec<io::Result<DistantFile>>> {
        let mut files = Vec::with_capacity(names.len());
        while files.len() < names.len() {
            let coming = names[files.len()..].iter().take(FILES_MAX);
            let question = TreeQuestion::Files {
                path: self.path.clone(),
                names: coming.map(|name| name.to_vec()).collect(),
            };
            let TreeAnswer::Files(told) = self.tree.ask(question)? else {
                return Err(gone(UNEXPECTED));
            };
            if told.is_empty() || files.len() + told.len() > names.len() {
                return Err(gone(UNEXPECTED));
            }
            files.extend(told.into_iter().map(|file| Ok(distant_file(file?))));
        }
        Ok(files)
    }

    fn more_pieces(&self, name: &[u8], from: u64) -> io::Result<DistantFile> {
        let path = self.join(name);
        let TreeAnswer::Files(told) = self.tree.ask(TreeQuestion::Pieces { path, from })? else {
            return Err(gone(UNEXPECTED));
        };
        match <[_; 1]>::try_from(told) {
            Ok([file]) => Ok(distant_file(file?)),
            Err(_) => Err(gone(UNEXPECTED)),
        }
    }

    fn read(&self, ranges: &[FileRange<'_>]) -> io::Result<Vec<io::Result<Vec<u8>>>> {
        self.tree.read(&self.path, ranges)
    }

    fn ids(&self, ranges: &[FileRange<'_>]) -> io::Result<Vec<io::Result<Option<[u8; 32]>>>> {
        debug_assert!(ranges.len() <= RANGES_MAX, "the caller asks for few");
        let question = TreeQuestion::Ids {
            path: self.path.clone(),
            ranges: ranges.iter().map(range).collect(),
        };
        match self.tree.ask(question)? {
            TreeAnswer::Ids(ids) if ids.len() == ranges.len() => {
                Ok(ids.into_iter().map(|id| Ok(id?)).collect())
            }
            _ => Err(gone(UNEXPECTED)),
        }
    }
}

fn range(range: &FileRange<'_>) -> Range {
    Range {
        name: range.name.to_vec(),
        offset: range.offset,
        bytes: range.bytes,
    }
}

fn distant_file(told: FileTold) -> DistantFile {
    DistantFile {
        metadata: told.about.metadata,
        xattrs: told.about.xattrs.map_err(io::Error::from),
        pieces: told.pieces,
        ended: told.ended,
        stable: told.stable,
    }
}

impl Remote {
    /// The bytes of ranges of a directory's files; several questions where one would be too much.
    fn read(
        &self,
        directory: &[u8],
        ranges: &[FileRange<'_>],
    ) -> io::Result<Vec<io::Result<Vec<u8>>>> {
        debug_assert!(ranges.len() <= RANGES_MAX, "the caller asks for few");
        let bytes = ranges.iter().map(|range| range.bytes);
        debug_assert!(
            bytes.sum::<u64>() <= RANGES_BYTES_MAX as u64,
            "and for few bytes"
        );
        let mut asked: Vec<Vec<Range>> = Vec::new();
        let mut room = 0;
        for wanted in ranges {
            if asked.is_empty() || wanted.bytes > room {
                asked.push(Vec::new());
                room = READ_BYTES as u64;
            }
            room = room.saturating_sub(wanted.bytes);
            let last = asked.last_mut().expect("one was pushed");
            last.push(range(wanted));
        }
        let question = |ranges: &Vec<Range>| TreeQuestion::Read {
            path: directory.to_vec(),
            ranges: ranges.clone(),
        };
        let answers = self.ask_all(asked.iter().map(question).collect())?;
        let mut read = Vec::with_capacity(ranges.len());
        for (asked, answer) in asked.iter().zip(answers) {
            unpack(asked, answer, &mut read).map_err(gone)?;
        }
        Ok(read)
    }
}

/// Takes an answer with bytes apart.
fn unpack(asked: &[Range], answer: TreeAnswer, read: &mut Vec<io::Result<Vec<u8>>>) -> Result<()> {
    let TreeAnswer::Read(lengths, packed) = answer else {
        return Err(UNEXPECTED);
    };
    let plain = packed.unpack()?;
    let mut rest = &plain[..];
    if lengths.len() != asked.len() {
        return Err(UNEXPECTED);
    }
    for (range, length) in asked.iter().zip(lengths) {
        read.push(match length {
            Ok(length) if length as u64 <= range.bytes => {
                let split = rest.split_at_checked(length);
                let (bytes, later) = split.ok_or(UNEXPECTED)?;
                rest = later;
                Ok(bytes.to_vec())
            }
            Ok(_) => return Err(UNEXPECTED),
            Err(refused) => Err(refused.into()),
        });
    }
    match rest {
        [] => Ok(()),
        _ => Err(UNEXPECTED),
    }
}

/// A file of it, for whoever does not ask for several at a time.
struct RemoteFile {
    tree: Arc<Remote>,
    directory: Vec<u8>,
    name: Vec<u8>,
    about: About,
}

impl FileReader for RemoteFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.about.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(self.about.xattrs.clone()?)
    }

    /// Where its holes are is not told: all of it may be data.
    fn data_from(&self, offset: u64) -> io::Result<Option<Bytes<u64>>> {
        let size = self.about.metadata.size_bytes;
        Ok((offset < size).then_some(offset..size))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let part = (buffer.len() - done).min(READ_BYTES);
            let range = FileRange {
                name: &self.name,
                offset: offset + done as u64,
                bytes: part as u64,
            };
            let mut read = self.tree.read(&self.directory, &[range])?;
            let bytes = read.pop().expect("there is one for each range")?;
            buffer[done..done + bytes.len()].copy_from_slice(&bytes);
            done += bytes.len();
            if bytes.len() < part {
                break;
            }
        }
        Ok(done)
    }
}
