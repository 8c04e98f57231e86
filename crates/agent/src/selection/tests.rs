use std::fs;
use std::os::unix::fs::symlink;

use cairn_source::FolderOptions;

use super::*;

/// A folder that a tree is selected of.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, path: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap();
    }

    /// A path of it as one of the host.
    fn path(&self, path: &str) -> String {
        let path = self.0.path().join(path);
        let path = path.to_str().unwrap();
        path.trim_end_matches('/').to_owned()
    }

    fn selected(&self, paths: &[(&str, &[&str])]) -> Selection {
        let paths = paths.iter().map(|(path, exclude)| SelectedPath {
            path: self.path(path),
            exclude: exclude
                .iter()
                .map(|pattern| pattern.replace("LAB", &self.path("")))
                .collect(),
        });
        Selection {
            paths: paths.collect(),
        }
    }

    /// The paths below the lab that a tree shows, problems with what they are.
    fn shown(&self, selection: &Selection, allowed: &[String]) -> Vec<String> {
        let options = FolderOptions {
            cross_file_systems: true,
            ..FolderOptions::default()
        };
        let root = Folder::open(Path::new("/"), options).unwrap();
        let tree = SelectedTree::new(root, selection, allowed).unwrap();
        let mut found = Vec::new();
        walk(&*tree.root().unwrap(), "", &mut found);
        let own = format!("{}/", self.path(""));
        let below = found.iter().filter_map(|path| path.strip_prefix(&own));
        below.map(str::to_owned).collect()
    }
}

fn walk(directory: &dyn DirectoryReader, path: &str, found: &mut Vec<String>) {
    for name in directory.names().unwrap().iter() {
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        match directory.metadata_of(name) {
            Ok(metadata) => {
                found.push(path.clone());
                if metadata.kind == EntryKind::Directory {
                    walk(&*directory.directory(name).unwrap(), &path, found);
                }
            }
            Err(error) => found.push(format!("{path}: {error}")),
        }
    }
}

#[test]
fn what_was_added_is_shown_and_nothing_beside_it() {
    let lab = Lab::new();
    for path in ["a/one", "a/b/two", "c/three", "d"] {
        lab.put(path);
    }
    let added = lab.selected(&[("a/b", &[]), ("d", &[]), ("gone/deeper", &[])]);
    let shown = lab.shown(&added, &[]);
    let problem = "gone: the host has no such path";
    assert_eq!(shown, ["a", "a/b", "a/b/two", "d", problem]);
    // What was added twice is there once, with what was added below it.
    let added = lab.selected(&[("a", &["b"]), ("a/b", &[]), ("a", &["b"])]);
    assert_eq!(lab.shown(&added, &[]), ["a", "a/b", "a/b/two", "a/one"]);
}

#[test]
fn what_is_excluded_is_left_out() {
    let lab = Lab::new();
    for path in [
        "w/a.tmp",
        "w/b.txt",
        "w/x/a.tmp",
        "w/x/node_modules/m",
        "w/x/cache/y/z",
        "w/cache/q",
        "w/keep/[odd]/f",
    ] {
        lab.put(path);
    }
    let all = [
        "w",
        "w/a.tmp",
        "w/b.txt",
        "w/cache",
        "w/cache/q",
        "w/keep",
        "w/keep/[odd]",
        "w/keep/[odd]/f",
        "w/x",
        "w/x/a.tmp",
        "w/x/cache",
        "w/x/cache/y",
        "w/x/cache/y/z",
        "w/x/node_modules",
        "w/x/node_modules/m",
    ];
    let without = |exclude: &[&str], gone: &[&str]| {
        let shown = lab.shown(&lab.selected(&[("w", exclude)]), &[]);
        let left: Vec<&str> = all
            .into_iter()
            .filter(|path| !gone.contains(path))
            .collect();
        assert_eq!(shown, left, "{exclude:?}");
    };
    without(&[], &[]);
    without(&["*.tmp"], &["w/a.tmp", "w/x/a.tmp"]);
    without(
        &["node_modules/"],
        &["w/x/node_modules", "w/x/node_modules/m"],
    );
    let cached = ["w/cache/q", "w/x/cache/y", "w/x/cache/y/z"];
    without(&["**/cache/**"], &cached);
    without(&["x/*.tmp"], &["w/x/a.tmp"]);
    without(&["LAB/w/keep/[odd]"], &["w/keep/[odd]", "w/keep/[odd]/f"]);
    without(&["LAB/*/b.txt", ""], &["w/b.txt"]);
    let root = Folder::open(Path::new("/"), FolderOptions::default()).unwrap();
    let wrong = lab.selected(&[("w", &["a[b"])]);
    assert!(SelectedTree::new(root, &wrong, &[]).is_err());
}

#[test]
fn what_is_not_allowed_is_not_told_of() {
    let lab = Lab::new();
    for path in ["a/one", "a/b/two", "c/three"] {
        lab.put(path);
    }
    let allowed = [lab.path("a/b")];
    let denied = "c: the host's agent does not allow it";
    let both = lab.selected(&[("a", &[]), ("c", &[])]);
    let held_back = "the host's agent does not allow what else is in this directory";
    let in_a = format!("a/*: {held_back}");
    let shown = ["a", &in_a, "a/b", "a/b/two", denied];
    assert_eq!(lab.shown(&both, &allowed), shown);
    // Nor is it found by whoever asks for it by name.
    let root = Folder::open(Path::new("/"), FolderOptions::default()).unwrap();
    let tree = SelectedTree::new(root, &both, &allowed).unwrap();
    let mut directory = tree.root().unwrap();
    for name in parts(&lab.path("")) {
        directory = directory.directory(name.as_bytes()).unwrap();
    }
    assert!(directory.directory(b"c").is_err());
    let a = directory.directory(b"a").unwrap();
    assert!(a.file(b"one").is_err() && a.metadata_of(b"one").is_err());
    assert!(a.directory(b"b").unwrap().file(b"two").is_ok());
}

/// Else nobody would know that what was added is in no backup.
#[test]
fn what_is_held_back_of_a_path_is_a_problem_without_its_name() {
    let lab = Lab::new();
    for path in ["a/b/c/file", "a/b/c/out.tmp", "a/b/secret", "a/out.tmp"] {
        lab.put(path);
    }
    let held_back = "the host's agent does not allow what else is in this directory";
    let in_b = format!("a/b/*: {held_back}");
    let shown = |exclude: &[&str]| {
        let added = lab.selected(&[("a", exclude)]);
        lab.shown(&added, &[lab.path("a/b/c"), lab.path("a/b/gone")])
    };
    let gone = "a/b/gone: the host has no such path";
    let (c, file) = ("a/b/c", "a/b/c/file");
    // What is excluded is not held back, and an exclusion is of what was added.
    assert_eq!(shown(&["*.tmp"]), ["a", "a/b", &in_b, c, file, gone]);
    let in_a = format!("a/*: {held_back}");
    let exclude = ["b/c/out.tmp", "b/secret"];
    assert_eq!(shown(&exclude), ["a", &in_a, "a/b", c, file, gone]);
    // Nor is what was not added, or allowed by a path of its own.
    let added = lab.selected(&[("a/b", &["secret"]), ("a/out.tmp", &[])]);
    let allowed = [lab.path("a/b/c"), lab.path("a/out.tmp")];
    let all = ["a", "a/b", c, file, "a/b/c/out.tmp", "a/out.tmp"];
    assert_eq!(lab.shown(&added, &allowed), all);
}

#[test]
fn links_are_not_followed_and_said_where_they_are_in_the_way() {
    let lab = Lab::new();
    lab.put("real/file");
    symlink(lab.path("real"), lab.0.path().join("link")).unwrap();
    let added = lab.selected(&[("link/file", &[])]);
    let problem = "link: it is no directory, and a path that was added leads over it";
    assert_eq!(lab.shown(&added, &[]), [problem]);
    assert_eq!(lab.shown(&lab.selected(&[("link", &[])]), &[]), ["link"]);
}

#[test]
fn the_kernels_own_file_systems_are_not_gone_into_unless_they_are_named() {
    let options = || FolderOptions {
        cross_file_systems: true,
        ..FolderOptions::default()
    };
    let open = |path: &str| {
        let root = Folder::open(Path::new("/"), options()).unwrap();
        let paths = vec![SelectedPath {
            path: path.to_owned(),
            exclude: Vec::new(),
        }];
        let tree = SelectedTree::new(root, &Selection { paths }, &[]).unwrap();
        tree.root().unwrap()
    };
    for name in [&b"proc"[..], b"sys", b"dev"] {
        let directory = open("/").directory(name).unwrap();
        assert!(directory.names().unwrap().is_empty(), "{name:?}");
    }
    let named = open("/proc/self").directory(b"proc").unwrap();
    assert_eq!(named.names().unwrap().len(), 1);
    let own = open("/proc/sys").directory(b"proc").unwrap();
    let own = own.directory(b"sys").unwrap();
    assert!(!own.names().unwrap().is_empty());
    for path in ["relative", "/a/../b", ""] {
        let root = Folder::open(Path::new("/"), options()).unwrap();
        let paths = vec![SelectedPath {
            path: path.to_owned(),
            exclude: Vec::new(),
        }];
        assert!(SelectedTree::new(root, &Selection { paths }, &[]).is_err());
    }
}
