//! Archives of trees in memory: whole, and in ranges.

use std::collections::BTreeMap;
use std::io::{self, Read};

use cairn_archive::Reader;
use proptest::prelude::*;

use super::*;

/// What is at a path, and which bytes a file holds.
type Held = (Metadata, Vec<u8>);

/// A tree in memory, by paths; and what of it cannot be read.
#[derive(Debug, Clone, Default)]
struct Tree(Arc<BTreeMap<Vec<u8>, Held>>, BTreeMap<Vec<u8>, Broken>);

/// What of an entry cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Entry,
    /// Where the data of a file is.
    Extents,
    /// The names in a directory.
    Names,
}

fn damaged() -> Error {
    let why = "the file system is damaged".to_owned();
    Refusal::UnreadableFile { why }.into()
}

struct TestFolder {
    tree: Tree,
    path: Vec<u8>,
}

struct TestFile(Metadata, Vec<u8>, bool);

impl TestFolder {
    fn at(&self, name: &[u8]) -> Held {
        self.tree.0[&join(&self.path, name)].clone()
    }

    fn is(&self, name: &[u8], broken: Broken) -> bool {
        self.tree.1.get(&join(&self.path, name)) == Some(&broken)
    }
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    match above {
        [] => name.to_vec(),
        above => [above, name].join(&b'/'),
    }
}

impl Folder for TestFolder {
    fn own(&self) -> Result<(Metadata, Vec<Xattr>)> {
        Ok((self.tree.0[&self.path].0, Vec::new()))
    }

    fn behind(&mut self, after: Option<&[u8]>) -> Result<Vec<Named>> {
        if self.tree.1.get(&self.path) == Some(&Broken::Names) {
            return Err(damaged());
        }
        let below = |path: &Vec<u8>| {
            let rest = match self.path.as_slice() {
                [] => Some(&path[..]),
                above => path
                    .strip_prefix(above)
                    .and_then(|rest| rest.strip_prefix(b"/")),
            };
            rest.filter(|name| !name.is_empty() && !name.contains(&b'/'))
                .map(<[u8]>::to_vec)
        };
        let all = self
            .tree
            .0
            .iter()
            .filter_map(|(path, (metadata, _))| Some((below(path)?, *metadata)));
        let mut all: Vec<_> = all
            .filter(|(name, _)| after.is_none_or(|after| &name[..] > after))
            .collect();
        all.sort_by(|one, two| one.0.cmp(&two.0));
        all.truncate(3);
        let named = all.into_iter().map(|(name, metadata)| {
            let is_broken = self.is(&name, Broken::Entry);
            (
                name,
                if is_broken {
                    Err(damaged())
                } else {
                    Ok(metadata)
                },
            )
        });
        Ok(named.collect())
    }

    fn folder(&self, name: &[u8]) -> Result<Box<dyn Folder>> {
        Ok(Box::new(Self {
            tree: self.tree.clone(),
            path: join(&self.path, name),
        }))
    }

    fn file(&self, name: &[u8]) -> Result<Arc<dyn FileReader>> {
        let (metadata, bytes) = self.at(name);
        let is_broken = self.is(name, Broken::Extents);
        Ok(Arc::new(TestFile(metadata, bytes, is_broken)))
    }

    fn target(&self, name: &[u8]) -> Result<Vec<u8>> {
        Ok(self.at(name).1)
    }

    fn xattrs(&self, _name: &[u8]) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }
}

impl FileReader for TestFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.0)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if self.2 {
            return Err(io::Error::other("its extents go round in circles"));
        }
        let rest = &self.1[offset as usize..];
        let Some(start) = rest.iter().position(|byte| *byte != 0) else {
            return Ok(None);
        };
        let data = rest[start..].iter().take_while(|byte| **byte != 0).count();
        let start = offset + start as u64;
        Ok(Some(start..start + data as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.1[offset as usize..]).read(buffer)
    }
}

fn metadata(kind: EntryKind, inode: u64, size_bytes: u64, linked: bool) -> Metadata {
    Metadata {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size_bytes,
        modified: FileTime::default(),
        changed: FileTime::default(),
        inode,
        linked,
        device: (0, 0),
    }
}

/// A tree of these files; some are names of the same, and some are no files.
fn tree(files: &[(Vec<u8>, u8, u16)]) -> Tree {
    let mut tree = BTreeMap::new();
    tree.insert(
        Vec::new(),
        (metadata(EntryKind::Directory, 1, 0, false), Vec::new()),
    );
    for (number, (names, kind, length)) in files.iter().enumerate() {
        let mut path = Vec::new();
        for name in names {
            path = join(&path, &[b'a' + name % 5]);
            let folder = metadata(EntryKind::Directory, 2, 0, false);
            tree.entry(path.clone()).or_insert((folder, Vec::new()));
        }
        path = join(&path, format!("file {number}").as_bytes());
        let bytes: Vec<u8> = (0..*length)
            .map(|at| if at / 700 % 2 == 0 { 7 } else { 0 })
            .collect();
        let (inode, size) = (100 + u64::from(*length), u64::from(*length));
        let entry = match kind % 8 {
            0 => (metadata(EntryKind::Symlink, 3, 0, false), b"../x".to_vec()),
            1 => (metadata(EntryKind::Socket, 4, 0, false), Vec::new()),
            2 => (metadata(EntryKind::Fifo, 5, 0, false), Vec::new()),
            3 => (metadata(EntryKind::File, inode, size, true), bytes),
            _ => (metadata(EntryKind::File, inode, size, false), bytes),
        };
        tree.insert(path, entry);
    }
    Tree(Arc::new(tree), BTreeMap::new())
}

fn root(tree: &Tree) -> Root {
    let tree = tree.clone();
    Box::new(move || {
        let (tree, path) = (tree.clone(), Vec::new());
        Ok(Box::new(TestFolder { tree, path }))
    })
}

fn read(index: &Arc<Index>, root: &Root, range: Range<u64>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = Stream::begin(Arc::clone(index), root, range.start).unwrap();
    loop {
        let left = range.end - range.start - bytes.len() as u64;
        if left == 0 {
            return bytes;
        }
        let limit = left.min(limit);
        let start = bytes.len();
        match stream.part(limit).unwrap() {
            Part::Made(made) => bytes.extend(made),
            Part::Zeros(count) => bytes.resize(start + count as usize, 0),
            Part::File(file, range) => {
                bytes.resize(start + (range.end - range.start) as usize, 0);
                file.read_at(range.start, &mut bytes[start..]).unwrap();
            }
        }
        assert!((1..=limit).contains(&((bytes.len() - start) as u64)));
    }
}

/// What an archive holds: paths, and the bytes of files.
fn unpacked(archive: &[u8]) -> Vec<(Vec<u8>, EntryKind, Vec<u8>)> {
    let mut reader = Reader::new(archive);
    let mut files = BTreeMap::new();
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut bytes = vec![0; entry.metadata.size_bytes as usize];
        match &entry.content {
            Content::Data(ranges) => {
                for range in ranges {
                    reader
                        .read_exact(&mut bytes[range.start as usize..range.end as usize])
                        .unwrap();
                }
                files.insert(entry.path.clone(), bytes.clone());
            }
            Content::Link(first) => bytes = files[first].clone(),
            Content::Target(target) => bytes = target.clone(),
            Content::Nothing => {}
        }
        found.push((entry.path, entry.metadata.kind, bytes));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_archive_holds_the_tree_and_any_range_is_the_same(
        files in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..4), any::<u8>(), 0..5000_u16), 0..200),
        ranges in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 8),
        limit in 1..3000_u64,
    ) {
        let tree = tree(&files);
        let root = root(&tree);
        let index = Arc::new(measure(&root, &CancellationToken::new()).unwrap());
        let archive = read(&index, &root, 0..index.bytes, u64::MAX);
        prop_assert_eq!(archive.len() as u64, index.bytes);
        let found = unpacked(&archive);
        let mut paths: Vec<_> = found.iter().map(|(path, ..)| path.clone()).collect();
        let names = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        prop_assert!(paths.is_sorted_by_key(|path| names(path)));
        paths.sort();
        let wanted = tree.0.iter().filter(|(_, (metadata, _))| metadata.kind != EntryKind::Socket);
        prop_assert_eq!(&paths, &wanted.map(|(path, _)| path.clone()).collect::<Vec<_>>());
        for (path, kind, bytes) in found {
            let (metadata, held) = &tree.0[&path];
            prop_assert_eq!(kind, metadata.kind);
            prop_assert_eq!(&bytes, held);
        }
        for (one, two) in ranges {
            let (one, two) = (one.index(archive.len()), two.index(archive.len()));
            let range = one.min(two)..one.max(two);
            let part = read(&index, &root, range.start as u64..range.end as u64, limit);
            prop_assert_eq!(&part, &archive[range]);
        }
    }
}

#[test]
fn what_cannot_be_read_is_left_out_and_the_rest_stays_where_it_is() {
    let files = (0..400_u16).map(|number| {
        // The first of each ten in the uppermost directory, and every third a name of a file with several.
        let names = vec![(number % 5) as u8; usize::from(number % 10 > 0)];
        (
            names,
            if number % 3 == 0 { 3 } else { 4 },
            number % 7 * 300 + 300,
        )
    });
    let files: Vec<_> = files.collect();
    let whole = tree(&files);
    let mut broken = BTreeMap::new();
    for path in whole.0.keys() {
        let text = String::from_utf8_lossy(path);
        let what = match text
            .rsplit(' ')
            .next()
            .and_then(|number| number.parse::<u32>().ok())
        {
            Some(number) if number % 50 == 9 => Broken::Entry,
            // All names of a file, and files with one.
            Some(number) if number % 3 == 0 && number % 7 == 3 => Broken::Extents,
            Some(number) if number % 3 != 0 && number % 20 == 6 => Broken::Extents,
            None if text == "c" => Broken::Names,
            _ => continue,
        };
        broken.insert(path.clone(), what);
    }
    let hurt = Tree(Arc::clone(&whole.0), broken.clone());
    let of_hurt = root(&hurt);
    let index = Arc::new(measure(&of_hurt, &CancellationToken::new()).unwrap());
    let archive = read(&index, &of_hurt, 0..index.bytes, u64::MAX);
    let found: Vec<_> = unpacked(&archive)
        .into_iter()
        .map(|(path, ..)| path)
        .collect();
    let is_left_out = |path: &Vec<u8>| {
        path.starts_with(b"c/") || broken.get(path).is_some_and(|what| *what != Broken::Names)
    };
    let mut wanted: Vec<_> = whole
        .0
        .keys()
        .filter(|path| !is_left_out(path))
        .cloned()
        .collect();
    wanted.sort_by_key(|path| {
        path.split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    });
    let texts = |paths: &[Vec<u8>]| {
        let texts = paths
            .iter()
            .map(|path| String::from_utf8_lossy(path).into_owned());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(texts(&found), texts(&wanted));
    let told = index.left_out().problems().unwrap();
    let count = broken
        .keys()
        .filter(|path| !path.starts_with(b"c/"))
        .count();
    assert_eq!(told.count, count as u64);
    assert!(
        told.first.iter().any(|one| one.starts_with("\"a/file ")),
        "{told:?}"
    );

    // Also for who reads on when it is healed.
    for root in [of_hurt, root(&whole)] {
        for start in (0..index.bytes).step_by(7001) {
            let range = start..(start + 3000).min(index.bytes);
            let part = read(&index, &root, range.clone(), 1000);
            assert!(
                part == archive[range.start as usize..range.end as usize],
                "{start}"
            );
        }
    }
    // An error that may pass leaves nothing out, and without its uppermost directory there is no archive.
    let mut left_out = LeftOut::default();
    assert!(left_out.add(b"x".to_vec(), Error::Cancelled).is_err());
    assert!(left_out.problems().is_none());
    let nothing = Tree(whole.0, BTreeMap::from([(Vec::new(), Broken::Names)]));
    assert!(measure(&root(&nothing), &CancellationToken::new()).is_err());
}

#[test]
fn places_to_begin_at_stay_few() {
    let mut marks = Marks {
        all: Vec::new(),
        spacing: 1,
        entries: 0,
    };
    let entry = Entry {
        path: b"x".to_vec(),
        metadata: metadata(EntryKind::File, 1, 0, false),
        xattrs: Vec::new(),
        content: Content::Data(Vec::new()),
    };
    for number in 1..=100_000 {
        marks.add(512 * number, &entry);
        assert!(marks.all.len() <= MARKS_MAX);
    }
    let gaps = marks.all.windows(2).map(|two| two[1].0 - two[0].0);
    assert!(gaps.max().unwrap() <= 512 * marks.spacing);
    assert!(marks.all.len() > MARKS_MAX / 3);
    assert!(marks.before(100).is_none());
    assert!(marks.before(50_000 * 512).unwrap().0 <= 50_000 * 512);
}

#[test]
fn a_measurement_ends_when_the_server_does() {
    let stop = CancellationToken::new();
    stop.cancel();
    let root = root(&tree(&[]));
    assert!(matches!(measure(&root, &stop), Err(Error::Cancelled)));
}
