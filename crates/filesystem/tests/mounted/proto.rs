//! XFS made with its content by `mkfs.xfs`, which takes a list of files for it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::{Numbers, create, folder, run, text};

/// A file system, and the folder that its content is from.
pub struct Made {
    pub file: PathBuf,
    pub source: PathBuf,
    _folder: TempDir,
}

pub fn make(options: &str, numbers: &mut Numbers) -> Made {
    let folder = folder();
    let (file, source) = (folder.path().join("image"), folder.path().join("source"));
    fs::create_dir(&source).unwrap();
    grow(&source, numbers);
    let mut list = String::from("/stand/nothing\n0 0\nd--755 0 0\n");
    describe(&source, &mut list);
    list.push_str("$\n");
    let proto = folder.path().join("proto");
    File::create(&proto)
        .unwrap()
        .write_all(list.as_bytes())
        .unwrap();
    create(&file, 320 << 20);
    let mut arguments = vec!["-q", "-f", "-p", text(&proto)];
    arguments.extend(options.split(' '));
    arguments.push(text(&file));
    run("mkfs.xfs", &arguments);
    Made {
        file,
        source,
        _folder: folder,
    }
}

/// Directories of all sizes: in the inode, of one block, and with one or more blocks for the index.
fn grow(source: &Path, numbers: &mut Numbers) {
    for (name, count) in [
        ("none", 0),
        ("few", 4),
        ("some", 30),
        ("many", 400),
        ("crowd", 5000),
    ] {
        let folder = source.join(name);
        fs::create_dir(&folder).unwrap();
        for index in 0..count {
            let width = 5 + numbers.below(60) as usize;
            let length = if index % 9 == 0 {
                numbers.below(20_000)
            } else {
                0
            };
            let path = folder.join(format!("{index:0width$}x"));
            File::create(&path)
                .unwrap()
                .write_all(&numbers.bytes(length as usize))
                .unwrap();
        }
    }
    for length in [1, 100, 155, 156, 157, 335, 336, 337, 500, 513, 1000, 1023] {
        symlink(
            "x/".repeat(512)[..length].trim_end_matches('/'),
            source.join(format!("link{length}")),
        )
        .unwrap();
    }
}

fn describe(folder: &Path, list: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_str().unwrap();
        let metadata = entry.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            writeln!(list, "{name} d--{mode:o} 0 0").unwrap();
            describe(&path, list);
            list.push_str("$\n");
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            writeln!(list, "{name} l--{mode:o} 0 0 {}", target.display()).unwrap();
        } else {
            writeln!(list, "{name} ---{mode:o} 0 0 {}", path.display()).unwrap();
        }
    }
}
